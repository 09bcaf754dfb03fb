"""Sessions of the Python client on a standalone cluster, with environments in a directory and in S3.

SPARK_MASTER is the cluster, S3_BUCKET a bucket of the server that AWS_ENDPOINT_URL names, with its credentials in the
usual variables, and S3_JARS the directory of what Spark needs for it.
"""

import os
import tempfile
import unittest
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cluster_pack.spark import spark_config_builder
from examples import EXAMPLES, run, spark_defaults
from project import installed

MASTER = os.environ["SPARK_MASTER"]


class Sessions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        own = tempfile.TemporaryDirectory()
        cls.addClassCleanup(own.cleanup)
        cls.directory = Path(own.name)
        cls.shipped = installed(cls, own.name, "shipped", "--editable")
        # A session leaves a link in the working directory.
        cls.addClassCleanup(os.chdir, os.getcwd())
        os.chdir(own.name)

    def test_a_changed_editable_is_seen_by_the_next_session(self):
        # A function of this module's would be looked for there.
        def look(_):
            import sys

            import shipped

            return shipped.ANSWER, sys.prefix

        os.environ["CPACK_STORE"] = str(self.directory / "store")
        self.addCleanup(os.environ.pop, "CPACK_STORE")
        for answer in (1, 2):
            self.shipped.change(answer)
            builder = SparkSession.builder.master(MASTER).config("spark.ui.enabled", "false")
            spark_config_builder.add_current_environment(builder)
            with builder.getOrCreate() as spark:
                seen = spark.sparkContext.parallelize(range(8), 8).map(look).distinct().collect()
                self.assertEqual({found for found, _ in seen}, {answer})
                for _, prefix in seen:
                    self.assertTrue(prefix.startswith(os.environ["CPACK_CACHE_DIR"]), prefix)

                @F.pandas_udf("double")
                def half(values: pd.Series) -> pd.Series:
                    return values / 2.0

                self.assertEqual(spark.range(100).select(F.sum(half("id"))).first()[0], 2475.0)

    def test_the_example_with_s3(self):
        classpath = f"{os.environ['S3_JARS']}/*"
        events = self.directory / "events"
        events.mkdir()
        settings = {
            "spark.driver.extraClassPath": classpath,
            "spark.executor.extraClassPath": classpath,
            "spark.ui.enabled": "false",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": events,
            "spark.eventLog.compress": "false",
        }
        conf = spark_defaults(self.directory, settings)
        said = run(
            self, EXAMPLES / "spark_standalone_s3.py", MASTER, f"s3://{os.environ['S3_BUCKET']}/example", SPARK_CONF_DIR=conf
        )
        self.assertIn("sum of halves: 2475.0", said)
        # Spark shows the properties of executors to all users that may see the application, without secrets.
        shown = "".join(path.read_text() for path in events.rglob("*") if path.is_file())
        self.assertIn("spark.executorEnv.AWS_SECRET_ACCESS_KEY", shown)
        self.assertNotIn(os.environ["AWS_SECRET_ACCESS_KEY"], shown)


if __name__ == "__main__":
    unittest.main()
