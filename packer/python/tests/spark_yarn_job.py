"""`spark_yarn_job.py RESULT`: a job on two executors, and what it saw on them."""

import json
import os
import sys
import time

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def half_of_all(spark):
    @F.pandas_udf("double")
    def half(values: pd.Series) -> pd.Series:
        return values / 2.0

    return spark.range(100).select(F.sum(half("id"))).first()[0]


def look(_):
    import dependency
    import shipped

    seen = (os.environ["NM_HTTP_PORT"], sys.prefix, shipped.ANSWER, dependency.ANSWER)
    # So that no executor gets all tasks.
    time.sleep(1)
    return seen


def wait_for_executors(spark, count):
    """A node gets no task unless the job waits for it."""
    end = time.monotonic() + 600
    # The driver is one of them.
    while spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() <= count:
        if time.monotonic() > end:
            raise TimeoutError("executors do not come")
        time.sleep(0.2)


def main(result):
    spark = SparkSession.builder.appName("yarn").getOrCreate()
    wait_for_executors(spark, 2)
    seen = spark.sparkContext.parallelize(range(8), 8).map(look).distinct().collect()
    nodes, prefixes, shipped, dependency = (sorted(set(column)) for column in zip(*seen))
    found = {
        "half": half_of_all(spark),
        "nodes": nodes,
        "prefixes": prefixes,
        "shipped": shipped,
        "dependency": dependency,
        "driver": sys.prefix,
    }
    spark.stop()
    with open(result, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
