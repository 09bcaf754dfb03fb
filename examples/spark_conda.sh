#!/bin/sh
# The active conda environment on Spark: executors need neither conda nor Python.
#
#   examples/spark_conda.sh --master yarn job.py
#
# CPACK_STORE names the store, an s3:// or hdfs:// URI or a directory that all nodes see. What follows is spark-submit's own.
set -eu
exec cluster-pack --venv "${CONDA_PREFIX:?activate a conda environment}" spark-submit "$@"
