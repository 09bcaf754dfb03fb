#!/bin/sh
# The active virtual environment on Spark as an archive, where a cluster's rules leave nothing else: every container unpacks it.
#
#   examples/spark_archive.sh --master yarn job.py
#
# Its interpreter is a link to one that each node must have at the same path, unless it is relocatable (uv's).
set -eu
archive=$(mktemp -d)/env.tar.gz
trap 'rm -r "$(dirname "$archive")"' EXIT
cluster-pack --venv "${VIRTUAL_ENV:?activate a virtual environment}" pack -o "$archive"
spark-submit --archives "$archive#environment" \
    --conf spark.pyspark.python=./environment/bin/python \
    --conf spark.pyspark.driver.python="$VIRTUAL_ENV/bin/python" "$@"
