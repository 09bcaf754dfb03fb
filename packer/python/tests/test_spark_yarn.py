"""Spark on a real YARN with two node managers, whose environment is nowhere but in HDFS.

HADOOP_CONF_DIR is the cluster's configuration, and `yarn` on PATH its command.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from cluster_pack import binary
from project import installed
from spark_yarn import CLUSTER, HOME, prepare

JOB = str(Path(__file__).with_name("spark_yarn_job.py"))


class Applications(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        own = tempfile.TemporaryDirectory()
        cls.addClassCleanup(own.cleanup)
        cls.directory = Path(own.name)
        cls.shipped = installed(cls, cls.directory, "shipped", "--editable")
        cls.dependency = installed(cls, cls.directory, "dependency")
        prepare()

    def run_job(self, command, **properties):
        """Runs the job; returns what it saw, and what each start on a node did."""
        with tempfile.TemporaryDirectory() as place:
            result, metrics = Path(place, "result.json"), Path(place, "metrics")
            # A job without cpack-boot writes none.
            metrics.touch()
            nodes = {f"spark.{who}Env.CPACK_METRICS": metrics for who in ("executor", "yarn.appMaster")}
            settings = {**CLUSTER, **nodes, **properties}
            options = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
            with open(Path(place, "log"), "w+") as log:
                done = subprocess.run([*command, *options, JOB, result], stdout=log, stderr=log, cwd=place)
                log.seek(0)
                self.assertEqual(done.returncode, 0, "".join(log.readlines()[-80:]))
            return json.loads(result.read_text()), [json.loads(line) for line in metrics.read_text().splitlines()]

    def submit(self, *options):
        command = [binary.find(), "--venv", sys.prefix, "spark-submit", *options]
        return self.run_job(command)

    def sent(self):
        """Publishes the environment as it is now; what was sent, and the properties for the cluster."""
        report = binary.call(["spark", "conf", "--master", "yarn"], prefix=sys.prefix)
        layers = [(layer["kind"], layer["name"]) for layer in report["layers"] if layer["sent"]]
        return layers, report["properties"]

    def assertSaw(self, found, shipped, dependency):
        self.assertEqual((found["half"], found["shipped"], found["dependency"]), (2475.0, [shipped], [dependency]))
        # Each node has its own tree.
        self.assertEqual((len(found["nodes"]), len(found["prefixes"])), (2, 2))
        for prefix in found["prefixes"]:
            self.assertIn("usercache", prefix)

    def test_1_a_job_starts_from_hdfs_alone(self):
        found, starts = self.submit()
        self.assertSaw(found, 1, 1)
        self.assertEqual(found["driver"], sys.prefix)
        cold = [start for start in starts if start["layers"]["built"]]
        self.assertEqual(len(cold), 2, starts)
        for start in cold:
            self.assertGreater(start["bytes"]["fetched"], 100 << 20)

    def test_2_the_next_application_extracts_nothing(self):
        found, starts = self.submit("--deploy-mode", "cluster")
        self.assertSaw(found, 1, 1)
        self.assertIn(found["driver"], found["prefixes"])
        self.assertGreater(len(starts), 2)
        self.assertEqual({start["start"] for start in starts}, {"warm"}, starts)

    def test_3_a_changed_editable_is_all_that_is_sent(self):
        self.shipped.change(2)
        sent, properties = self.sent()
        self.assertEqual(sent, [("overlay", "shipped")])
        # The real spark-submit, told by the properties alone.
        found, starts = self.run_job([f"{HOME}/bin/spark-submit"], **properties)
        self.assertSaw(found, 2, 1)
        self.assertEqual([start for start in starts if "link" in start["phases_ms"]], [])

    def test_4_a_changed_dependency_costs_its_layer(self):
        self.dependency.change(2)
        self.dependency.install()
        sent, _ = self.sent()
        self.assertEqual(sent, [("distribution", "dependency")])
        found, starts = self.submit("--deploy-mode", "cluster")
        self.assertSaw(found, 2, 2)
        built = [start for start in starts if start["layers"]["built"]]
        self.assertEqual([start["layers"]["built"] for start in built], [1, 1])
        self.assertLess(max(start["bytes"]["written"] for start in built), 1 << 16)

    def test_5_an_archive_of_the_environment_is_unpacked_by_yarn(self):
        archive = self.directory / "env.tar.gz"
        binary.call(["pack", "-o", str(archive)], prefix=sys.prefix)
        properties = {
            "spark.yarn.dist.archives": f"{archive}#environment",
            "spark.pyspark.python": "./environment/bin/python",
            "spark.pyspark.driver.python": sys.executable,
        }
        found, starts = self.run_job([f"{HOME}/bin/spark-submit"], **properties)
        self.assertSaw(found, 2, 2)
        self.assertEqual(starts, [])
        for prefix in found["prefixes"]:
            self.assertTrue(prefix.endswith("/environment"), prefix)


if __name__ == "__main__":
    unittest.main()
