"""What the tests of Spark on YARN have in common."""

import os

import pyspark

import cluster_pack

HOME = os.path.dirname(pyspark.__file__)

# One executor fills more than half of a node, so that each node gets one.
CLUSTER = {
    "spark.master": "yarn",
    "spark.executor.instances": "2",
    "spark.executor.memory": "2100m",
    "spark.driver.memory": "640m",
    "spark.yarn.am.memory": "384m",
    "spark.yarn.jars": f"local:{HOME}/jars/*",
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
}


def prepare():
    """Sets what every client of the cluster sets."""
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["CPACK_STORE"] = f"{cluster_pack.get_default_fs()}/tmp/spark"
