"""Skein services on a real YARN with two node managers, whose environment is nowhere but in HDFS.

HADOOP_CONF_DIR is the cluster's configuration, and `yarn` on PATH answers `yarn classpath --glob`.
"""

import json
import logging
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import skein

import cluster_pack
from cluster_pack import uploader, yarn_launcher
from project import installed


def describe(path, wait=0):
    """Leaves what it sees in a file of its own: the nodes are on this machine."""
    import json
    import os
    import sys
    import time

    import shipped

    print("answer", shipped.ANSWER)
    found = {
        "prefix": sys.prefix,
        "answer": shipped.ANSWER,
        "node": os.environ["NM_HTTP_PORT"],
        "launcher": os.environ.get("CPACK_LAUNCHER", ""),
    }
    # Where containers start together, they are to be spread over the nodes.
    time.sleep(wait)
    with open(os.path.join(path, os.environ["CONTAINER_ID"]), "w") as file:
        json.dump(found, file)


def nested(path):
    """A job of a job: the environment goes on, nothing is packed."""
    import os

    import cluster_pack

    os.environ["CPACK_CLIENT_CACHE"] = "/dev/null/nothing"
    cluster_pack.run(describe, [path])


def log_length(path):
    print("log processed", "answer" in open(path).read())


class Services(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        logging.basicConfig(level=logging.INFO)
        own = tempfile.TemporaryDirectory()
        cls.addClassCleanup(own.cleanup)
        cls.shipped = installed(cls, own.name, "shipped", "--editable")
        cls.client = skein.Client()
        cls.addClassCleanup(cls.client.close)

    def application(self, function, containers=1, arguments=(), variables=None, **more):
        """Runs a function in containers; returns what each left, and what its starts took."""
        with tempfile.TemporaryDirectory() as seen, tempfile.NamedTemporaryFile("r") as metrics:
            variables = {**(variables or {}), "CPACK_METRICS": metrics.name}
            app = yarn_launcher.submit_func(
                self.client,
                function,
                [seen, *arguments],
                num_containers=containers,
                memory="512 MiB",
                env_vars=variables,
                **more,
            )
            ok = yarn_launcher.wait_for_finished(self.client, app, 1)
            if not ok:
                logs = yarn_launcher.get_application_logs(self.client, app, log_tries=5)
                self.fail(f"{app} failed: {dict(logs) if logs else 'no logs'}")
            found = [json.loads(path.read_text()) for path in sorted(Path(seen).iterdir())]
            return app, found, [json.loads(line) for line in metrics]

    def test_1_services_start_from_hdfs_alone(self):
        # No package is named: the environment with its editable projects is.
        app, found, starts = self.application(describe, 2, [20], process_logs=log_length)
        self.assertEqual([one["answer"] for one in found], [1, 1])
        for one in found:
            self.assertIn("usercache", one["prefix"])
        self.assertTrue(any("extract" in start["phases_ms"] for start in starts), starts)
        logs = yarn_launcher.get_application_logs(self.client, app, 2)
        self.assertIn("log processed True", json.dumps(dict(logs or {})))

    def test_2_the_next_application_extracts_nothing(self):
        # The first one may have used one node only.
        self.application(describe, 2, [20])
        _, found, starts = self.application(describe, 2)
        self.assertEqual(len(found), 2)
        self.assertFalse([start for start in starts if "extract" in start["phases_ms"]], starts)

    def test_3_a_changed_editable_is_all_that_is_sent(self):
        reports = []
        call = uploader.binary.call

        def watched(arguments, **more):
            reports.append(call(arguments, **more))
            return reports[-1]

        self.shipped.change(2)
        uploader.binary.call = watched
        self.addCleanup(setattr, uploader.binary, "call", call)
        _, found, _ = self.application(describe)
        self.assertEqual([one["answer"] for one in found], [2])
        sent = [layer for report in reports for layer in report.get("layers", []) if layer["sent"]]
        self.assertEqual([(layer["kind"], layer["name"]) for layer in sent], [("overlay", "shipped")])

    def test_4_jobs_start_jobs_lazily(self):
        # A start that records is served, even if the node has the environment.
        with tempfile.TemporaryDirectory() as own:
            _, found, starts = self.application(nested, variables={"CPACK_RECORD": f"{own}/trace"})
        self.assertEqual([one["answer"] for one in found], [2])
        self.assertEqual([start["start"] for start in starts].count("lazy"), 2, starts)

    def test_5_a_named_package_is_shipped_with_editables_beside_it(self):
        path, _ = cluster_pack.upload_env()
        self.assertRegex(path, "^hdfs://localhost:[0-9]+/user/.*[.]pex$")
        self.shipped.change(3)
        _, found, _ = self.application(describe, package_path=path)
        self.assertEqual([one["answer"] for one in found], [3])

    def test_6_a_specification_is_all_that_skein_needs(self):
        command = ["skein", "spec", "-m", "timeit", "--file-system", cluster_pack.get_default_fs()]
        spec = uploader.binary.call([*command, "--memory", "512 MiB", "--", "-n", "1", "pass"], prefix=sys.prefix)
        app = self.client.submit(skein.ApplicationSpec.from_dict(spec))
        self.assertTrue(yarn_launcher.wait_for_finished(self.client, app, 1))

    def test_7_wrong_functions_are_told_before_anything_is_submitted(self):
        before = len(self.client.get_applications(states=["finished", "failed", "killed", "running", "accepted"]))
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "cannot be pickled"):
            yarn_launcher.submit_func(self.client, describe, [threading.Lock()])
        # The client requires cloudpickle: without it alone, it would be packed.
        path, _ = cluster_pack.upload_env(
            f"{cluster_pack.get_default_fs()}/tmp/without/none.pex", ignored_packages=["cloudpickle", "cluster-pack"]
        )
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "no cloudpickle"):
            yarn_launcher.submit_func(self.client, describe, [""], package_path=path)
        after = len(self.client.get_applications(states=["finished", "failed", "killed", "running", "accepted"]))
        self.assertEqual(before, after)


if __name__ == "__main__":
    unittest.main()
