#!/bin/sh
# A zip of wheels on Spark as it is: executors start cpack-boot for their Python, which installs the wheels once a node.
#
#   examples/spark_wheelhouse.sh wheelhouse.zip --master yarn job.py
#
# Each node needs an interpreter that the wheels are for. Here the driver runs by the one that is active.
set -eu
wheelhouse=${1:?usage: $0 WHEELHOUSE.zip [OPTION]... JOB [ARGUMENT]...}
shift
boot=${CPACK_BOOT:-$(command -v cpack-boot)} || { echo "cpack-boot is not on PATH, and CPACK_BOOT does not name it" >&2; exit 80; }
exec spark-submit --files "$wheelhouse,$boot" \
    --conf "spark.executorEnv.CPACK_ARTIFACT=./$(basename "$wheelhouse")" \
    --conf spark.pyspark.python=./cpack-boot \
    --conf spark.pyspark.driver.python="$(command -v python3)" "$@"
