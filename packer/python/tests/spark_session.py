"""`spark_session.py MASTER RESULT`: a session that runs on the environment in which this runs."""

import json
import sys

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cluster_pack.spark import spark_config_builder


def main(master, result):
    builder = SparkSession.builder.master(master).config("spark.ui.enabled", "false")
    spark_config_builder.add_current_environment(builder)
    spark = builder.getOrCreate()

    def answer(_):
        import shipped

        return shipped.ANSWER, sys.prefix

    @F.pandas_udf("double")
    def half(values: pd.Series) -> pd.Series:
        return values / 2.0

    seen = spark.sparkContext.parallelize(range(8), 8).map(answer).distinct().collect()
    found = {
        "answers": sorted({answer for answer, _ in seen}),
        "prefix": sorted({prefix for _, prefix in seen})[0],
        "half": spark.range(100).select(F.sum(half("id"))).first()[0],
    }
    spark.stop()
    with open(result, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
