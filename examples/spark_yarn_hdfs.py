"""PySpark on YARN with HDFS: executors start the environment in which this runs, out of HDFS.

    pip install ./packer/python pyspark pandas pyarrow
    HADOOP_CONF_DIR=/etc/hadoop/conf python examples/spark_yarn_hdfs.py hdfs:///tmp/example

Further settings of Spark are read from `spark-defaults.conf`, as always (SPARK_CONF_DIR).
"""

import sys

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import cluster_pack
from cluster_pack.spark import spark_config_builder


def half(values: pd.Series) -> pd.Series:
    return values / 2


def main(place):
    # In a session of its own this line is all: spark_config_builder.add_current_environment(builder).
    # Here the environment is uploaded first, so that others can use it, too.
    environment, _ = cluster_pack.upload_env(f"{place}/envs/example.pex")
    builder = SparkSession.builder.master("yarn").appName("example")
    spark_config_builder.add_packaged_environment(builder, environment)
    spark_config_builder.add_editable_requirements(builder)
    with builder.getOrCreate() as spark:
        halved = F.pandas_udf(half, "double")
        spark.range(100).select(halved("id").alias("half")).write.mode("overwrite").parquet(f"{place}/halves")
        print("sum of halves:", spark.read.parquet(f"{place}/halves").agg(F.sum("half")).first()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
