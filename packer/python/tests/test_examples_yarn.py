"""The examples for Hadoop, on a real YARN with two node managers.

HADOOP_CONF_DIR is the cluster's configuration, and `yarn` on PATH its command.
"""

import json
import os
import shutil
import tempfile
import unittest
from pathlib import Path

import nbclient
import nbformat

import cluster_pack
from examples import EXAMPLES, run, spark_defaults
from project import install
from spark_yarn import CLUSTER, prepare


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        own = tempfile.TemporaryDirectory()
        cls.addClassCleanup(own.cleanup)
        cls.directory = Path(own.name)
        prepare()
        os.environ["SPARK_CONF_DIR"] = spark_defaults(own.name, {**CLUSTER, "spark.executor.memory": "1g"})
        cls.addClassCleanup(os.environ.pop, "SPARK_CONF_DIR")

    def test_a_function_of_an_interactive_session(self):
        said = run(self, EXAMPLES / "skein_function.py")
        self.assertEqual(said.count("hello: 168 primes below 1000"), 2, said)

    def test_a_project_that_ships_itself(self):
        project = self.directory / "skein-project"
        shutil.copytree(EXAMPLES / "skein-project", project)
        self.addCleanup(install(project, "--editable"))
        said = run(self, "-m", "skein_project")
        self.assertIn("counted {'be': 2, 'not': 1, 'or': 1, 'to': 2}", said)

    def test_spark_with_hdfs(self):
        said = run(self, EXAMPLES / "spark_yarn_hdfs.py", f"{cluster_pack.get_default_fs()}/tmp/example")
        self.assertIn("sum of halves: 2475.0", said)

    def test_the_notebook(self):
        notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
        here = {"metadata": {"path": str(self.directory)}}
        done = nbclient.NotebookClient(notebook, timeout=1200, resources=here).execute()
        said = json.dumps([cell.outputs for cell in done.cells if cell.cell_type == "code"])
        for expected in ("[3, 6, 9]", "14850", "tripled on YARN: [12, 15]"):
            self.assertIn(expected, said)


if __name__ == "__main__":
    unittest.main()
