#!/usr/bin/env bash
# pyspark 4.0.1 on `local-cluster` leaves all files of every application in site-packages/pyspark/work.
#
# Its workers keep what executors were sent (`spark.files`, unpacked `spark.archives`) below SPARK_HOME, which is the package
# where pip installed Spark, and no session removes it. SPARK_WORKER_DIR, which moves it on a standalone cluster, is not
# asked. No RECORD lists the files, and whatever copies the environment copies them too.
# Needs a JDK of 17 or later.
#
# Seen with: CPython 3.11, pyspark 4.0.1, OpenJDK 17.
# Output:    pyspark 4.0.1: after a local-cluster session its package has 2 copies of the file sent, SPARK_WORKER_DIR has 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check setuptools==80.9.0 wheel==0.45.1
env/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation pyspark==4.0.1
package=$(env/bin/python -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
echo sent > data.txt
mkdir workers
cat > job.py <<'EOF'
from pyspark.sql import SparkSession

spark = SparkSession.builder.config("spark.files", "data.txt").config("spark.ui.enabled", "false").getOrCreate()
rows = spark.sparkContext.parallelize(range(4), 4)
assert rows.map(lambda x: x + 1).sum() == 10
spark.stop()
EOF
SPARK_LOCAL_IP=127.0.0.1 SPARK_WORKER_DIR=$work/workers PYSPARK_PYTHON=$work/env/bin/python \
    env/bin/spark-submit --master 'local-cluster[2,1,1024]' job.py > log 2>&1 || { cat log; exit 1; }

count() { find "$1" -name data.txt | wc -l; }
kept=$(count "$package/work")
moved=$(count workers)
echo "pyspark 4.0.1: after a local-cluster session its package has $kept copies of the file sent, SPARK_WORKER_DIR has $moved"
[ "$kept" = 2 ] && [ "$moved" = 0 ]
