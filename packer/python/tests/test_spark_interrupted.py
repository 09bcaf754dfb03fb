"""Cold starts that end in the middle: Spark on a real YARN, whose executors and applications are killed,
or make room for others.

Processes that build are stopped first, so that the middle is where they are. HADOOP_CONF_DIR is the cluster's
configuration, and `yarn` on PATH its command.
"""

import os
import signal
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

import skein
from pyspark.sql import SparkSession

from cluster_pack import binary, yarn_launcher
from cluster_pack.spark import spark_config_builder
from nodes import Node, parent, until
from spark_yarn import CLUSTER, prepare
from spark_yarn_job import half_of_all


class Interruptions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        prepare()
        own = tempfile.TemporaryDirectory()
        cls.addClassCleanup(own.cleanup)
        # A session leaves a link in the working directory.
        cls.addClassCleanup(os.chdir, os.getcwd())
        os.chdir(own.name)

    def setUp(self):
        own = tempfile.TemporaryDirectory()
        self.addCleanup(own.cleanup)
        self.directory = Path(own.name)
        self.node = Node(self.directory / "node")
        builder = SparkSession.builder.appName("interrupted")
        for name, value in CLUSTER.items():
            builder.config(name, value)
        builder.config("spark.executorEnv.CPACK_CACHE_DIR", str(self.node.directory))
        spark_config_builder.add_current_environment(builder)
        self.spark = builder.getOrCreate()
        self.addCleanup(self.spark.stop)
        self.outcome = []
        self.job = threading.Thread(target=self.work, daemon=True)
        self.job.start()

    def work(self):
        try:
            self.outcome.append(half_of_all(self.spark))
        except Exception as error:
            self.outcome.append(error)

    def interrupted(self):
        """Waits for cold starts to be in the middle, and stops them there."""
        stopped = []

        def both():
            for process in set(self.node.building()).difference(stopped):
                try:
                    os.kill(process, signal.SIGSTOP)
                except ProcessLookupError:
                    continue  # It has ended since.
                stopped.append(process)
            return len(stopped) == 2

        until(both, "a cold start on both nodes")
        self.assertEqual(set(self.node.building()), set(stopped), "they are Python already: too little to build")
        return stopped

    def resume(self, processes):
        for process in processes:
            try:
                os.kill(process, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def assertWhole(self):
        """Nothing that was interrupted is broken, no process is left, and the next start works."""
        until(lambda: not self.node.processes(), f"the end of {self.node.processes()}")
        self.assertEqual(self.node.verify()["repairs"], [])
        launcher = binary.call(["spark", "conf", "--master", "yarn"])["local"]
        environ = {**os.environ, "CPACK_CACHE_DIR": str(self.node.directory)}
        code = "import pandas, sys; print(sys.prefix)"
        done = subprocess.run([launcher, "-c", code], env=environ, stdout=subprocess.PIPE, check=True, text=True)
        self.assertTrue(done.stdout.startswith(str(self.node.directory)), done.stdout)
        found = self.node.verify()
        self.assertEqual((found["repairs"], found["environments"]), ([], 1))

    def test_a_lost_executor_is_replaced(self):
        building = self.interrupted()
        for process in building:
            executor = parent(process)
            self.assertEqual(self.node.processes()[executor], "java")
            os.kill(executor, signal.SIGKILL)
        # No other process tells the daemons whose executor is gone.
        self.resume(building)
        self.job.join(600)
        self.assertEqual(self.outcome, [2475.0])
        self.spark.stop()
        self.assertWhole()

    def test_a_session_is_stopped(self):
        self.interrupted()
        self.spark.stop()
        self.job.join(600)
        self.assertIsInstance(self.outcome[0], Exception)
        self.assertWhole()

    def test_an_application_is_killed(self):
        self.interrupted()
        name = self.spark.sparkContext.applicationId
        subprocess.run(["yarn", "application", "-kill", name], check=True, stdout=subprocess.DEVNULL)
        self.job.join(600)
        self.assertIsInstance(self.outcome[0], Exception)
        self.spark.stop()
        self.assertWhole()

    def test_an_executor_is_preempted(self):
        building = self.interrupted()
        # It fits nowhere beside an executor.
        place = skein.Master(script="true", resources=skein.Resources(memory="2500 MiB", vcores=1))
        with skein.Client() as client:
            urgent = client.submit(skein.ApplicationSpec(name="urgent", queue="urgent", master=place))
            self.assertTrue(yarn_launcher.wait_for_finished(client, urgent, 1))
        lost = set(building).difference(self.node.processes())
        self.assertTrue(lost, "no executor had to go")
        self.resume(building)
        self.job.join(600)
        self.assertEqual(self.outcome, [2475.0])
        self.spark.stop()
        self.assertWhole()


if __name__ == "__main__":
    unittest.main()
