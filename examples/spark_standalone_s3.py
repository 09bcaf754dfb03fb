"""PySpark on a standalone cluster with S3: executors fetch the environment in which this runs from a bucket.

    pip install ./packer/python pyspark pandas pyarrow
    AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_ENDPOINT_URL=http://… \\
        python examples/spark_standalone_s3.py spark://host:7077 s3://bucket/example

Spark needs the jars of S3A (`spark.jars.packages org.apache.hadoop:hadoop-aws:…` in `spark-defaults.conf`); executors need
the credentials in their environment, as they do for any data in S3.
"""

import os
import sys

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import cluster_pack
from cluster_pack.spark import spark_config_builder


def half(values: pd.Series) -> pd.Series:
    return values / 2


def main(master, place):
    s3 = {
        "key": os.environ["AWS_ACCESS_KEY_ID"],
        "secret": os.environ["AWS_SECRET_ACCESS_KEY"],
        "client_kwargs": {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]},
    }
    environment, _ = cluster_pack.upload_env(f"{place}/envs/example.pex", fs_args=s3)
    builder = SparkSession.builder.master(master).appName("example")
    spark_config_builder.add_s3_params(builder, s3)
    spark_config_builder.add_packaged_environment(builder, environment)
    spark_config_builder.add_editable_requirements(builder)
    data = place.replace("s3://", "s3a://", 1) + "/halves"
    with builder.getOrCreate() as spark:
        halved = F.pandas_udf(half, "double")
        spark.range(100).select(halved("id").alias("half")).write.mode("overwrite").parquet(data)
        print("sum of halves:", spark.read.parquet(data).agg(F.sum("half")).first()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
