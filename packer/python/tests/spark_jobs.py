"""Jobs that use what Spark has for Python. `spark_jobs.py RESULT [JOB…]` runs them and leaves their results as JSON.

The same with the environment's own interpreter and with a launcher in its place: the two files must be equal.
"""

import json
import os
import sys

from pyspark.sql import SparkSession, functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

JOBS = {}


def job(function):
    JOBS[function.__name__] = function
    return function


def version():
    import pyspark

    return tuple(int(part) for part in pyspark.__version__.split(".")[:2])


@job
def rdd(spark):
    numbers = spark.sparkContext.parallelize(range(1000), 8)
    return numbers.map(lambda n: (n % 7, n)).reduceByKey(lambda a, b: a + b).sortByKey().collect()


@job
def interpreter(spark):
    def seen(_):
        import numpy
        import pandas
        import pyarrow

        return sys.version.split()[0], numpy.__version__, pandas.__version__, pyarrow.__version__

    return spark.sparkContext.parallelize(range(4), 4).map(seen).distinct().collect()


@job
def scalar_udf(spark):
    plus = F.udf(lambda n: n + 1, LongType())
    return [row[0] for row in spark.range(20).select(plus("id")).collect()]


@job
def pandas_udf(spark):
    import pandas as pd

    @F.pandas_udf("double")
    def half(values: pd.Series) -> pd.Series:
        return values / 2.0

    return spark.range(1000).select(F.sum(half("id"))).first()[0]


@job
def pandas_aggregate(spark):
    import pandas as pd

    @F.pandas_udf("double")
    def mean(values: pd.Series) -> float:
        return float(values.mean())

    frame = spark.range(100).withColumn("k", F.col("id") % 3)
    return sorted(tuple(row) for row in frame.groupBy("k").agg(mean("id")).collect())


@job
def grouped_map(spark):
    frame = spark.range(30).withColumn("k", F.col("id") % 3)
    found = frame.groupBy("k").applyInPandas(lambda g: g.assign(id=g.id - g.id.min()), "id long, k long")
    return sorted(tuple(row) for row in found.collect())


@job
def cogrouped_map(spark):
    import pandas as pd

    left = spark.range(9).withColumn("k", F.col("id") % 3)
    right = spark.range(6).withColumn("k", F.col("id") % 3).withColumnRenamed("id", "other")
    both = left.groupBy("k").cogroup(right.groupBy("k"))
    found = both.applyInPandas(lambda a, b: pd.merge(a, b, on="k")[["k", "id", "other"]], "k long, id long, other long")
    return sorted(tuple(row) for row in found.collect())


@job
def map_in_pandas(spark):
    def positive(frames):
        for frame in frames:
            yield frame[frame.id > 90]

    return sorted(row[0] for row in spark.range(100).mapInPandas(positive, "id long").collect())


@job
def map_in_arrow(spark):
    def same(batches):
        yield from batches

    return spark.range(50).mapInArrow(same, "id long").count()


@job
def broadcast_and_accumulator(spark):
    sc = spark.sparkContext
    table, seen = sc.broadcast({n: n * n for n in range(10)}), sc.accumulator(0)

    def look(n):
        seen.add(1)
        return table.value[n]

    return [sum(sc.parallelize(range(10), 3).map(look).collect()), seen.value]


@job
def added_file(spark):
    import tempfile

    path = os.path.join(tempfile.mkdtemp(), "added_module.py")
    with open(path, "w") as file:
        file.write("def answer():\n    return 42\n")
    spark.sparkContext.addPyFile(path)

    def use(_):
        import added_module

        return added_module.answer()

    return spark.sparkContext.parallelize(range(2), 2).map(use).collect()


@job
def worker_reuse(spark):
    def pids(_):
        return [os.getpid()]

    first = set(spark.sparkContext.parallelize(range(8), 8).mapPartitions(pids).collect())
    second = set(spark.sparkContext.parallelize(range(8), 8).mapPartitions(pids).collect())
    reused = spark.conf.get("spark.python.use.daemon", "true") == "true"
    return bool(first & second) or not reused


@job
def errors(spark):
    def fail(n):
        raise ValueError("on purpose %d" % n)

    try:
        spark.sparkContext.parallelize([1], 1).map(fail).collect()
    except Exception as error:
        return "ValueError: on purpose 1" in str(error)
    return False


@job
def table_function(spark):
    if version() < (3, 5):
        return None

    @F.udtf(returnType="n long, square long")
    class Squares:
        def eval(self, start: int, end: int):
            for n in range(start, end):
                yield n, n * n

    return sorted(tuple(row) for row in Squares(F.lit(1), F.lit(5)).collect())


@job
def data_source(spark):
    if version() < (4, 0):
        return None
    from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

    class Reader(DataSourceReader):
        def partitions(self):
            return [InputPartition(n) for n in range(3)]

        def read(self, partition):
            yield (partition.value, "part %d" % partition.value)

    class Parts(DataSource):
        @classmethod
        def name(cls):
            return "parts"

        def schema(self):
            return StructType([StructField("n", LongType()), StructField("t", StringType())])

        def reader(self, schema):
            return Reader()

    spark.dataSource.register(Parts)
    return sorted(tuple(row) for row in spark.read.format("parts").load().collect())


def main(result, names):
    builder = SparkSession.builder.appName("jobs").config("spark.ui.enabled", "false")
    spark = builder.config("spark.sql.shuffle.partitions", "3").getOrCreate()
    found = {"interpreter of executors": spark.sparkContext.pythonExec}
    for name in names or JOBS:
        found[name] = JOBS[name](spark)
    spark.stop()
    with open(result, "w") as file:
        json.dump(found, file, indent=1, default=str)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
