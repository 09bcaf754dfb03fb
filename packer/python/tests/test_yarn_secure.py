"""Skein on a real YARN in secure mode: tickets come from a key, containers have delegation tokens and the ticket.

HADOOP_CONF_DIR is the cluster's configuration, KRB5_CONFIG the KDC's, KRB5_CLIENT_KTNAME the user's key, and KRB5CCNAME a
file for the tickets, which are got by the first test that needs one.
"""

import json
import logging
import os
import sys
import tempfile
import unittest
from pathlib import Path

import skein

import cluster_pack
from cluster_pack import binary, yarn_launcher


def describe(path):
    """Leaves what it sees in a file: the nodes are on this machine."""
    import json
    import os
    import sys

    ticket = os.environ["KRB5CCNAME"].replace("FILE:", "")
    tokens = os.environ["HADOOP_TOKEN_FILE_LOCATION"]
    found = {"prefix": sys.prefix, "user": os.environ["USER"], "ticket": len(open(ticket, "rb").read())}
    with open(tokens, "rb") as file:
        found["tokens"] = b"HDFS_DELEGATION_TOKEN" in file.read()
    with open(os.path.join(path, os.environ["CONTAINER_ID"]), "w") as file:
        json.dump(found, file)


class Secure(unittest.TestCase):
    def test_a_service_starts_with_tokens(self):
        logging.basicConfig(level=logging.INFO)
        place = cluster_pack.get_default_fs()
        path, _ = cluster_pack.upload_env(f"{place}/user/alice/envs/mine.pex")
        ticket = Path(os.environ["KRB5CCNAME"].replace("FILE:", ""))
        self.assertTrue(ticket.exists(), "the upload leaves the ticket that it got")
        with tempfile.TemporaryDirectory() as seen, tempfile.NamedTemporaryFile("r") as metrics, skein.Client() as client:
            app = yarn_launcher.submit_func(
                client,
                describe,
                [seen],
                memory="512 MiB",
                package_path=path,
                hadoop_file_systems=[place],
                env_vars={"CPACK_METRICS": metrics.name},
            )
            ok = yarn_launcher.wait_for_finished(client, app, 1)
            report = client.application_report(app)
            logs = None if ok else yarn_launcher.get_application_logs(client, app, log_tries=5)
            self.assertTrue(ok, f"{report.diagnostics} {dict(logs) if logs else 'no logs'}")
            (found,) = [json.loads(file.read_text()) for file in Path(seen).iterdir()]
            (start,) = [json.loads(line) for line in metrics]
        self.assertEqual((found["user"], found["tokens"]), ("alice", True))
        self.assertEqual(found["ticket"], ticket.stat().st_size)
        self.assertIn("usercache/alice", found["prefix"])
        self.assertGreater(start["bytes"]["fetched"], 0)

    def test_without_a_ticket_one_line_says_so(self):
        command = [binary.find(), "--venv", sys.prefix, "--store", f"{cluster_pack.get_default_fs()}/user/alice/x", "upload"]
        environ = {**os.environ, "KRB5CCNAME": "FILE:/nonexistent/tickets", "KRB5_CLIENT_KTNAME": "/nonexistent/key"}
        done = binary.subprocess.run(command, env=environ, capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        self.assertEqual((done.returncode, len(errors)), (85, 1), done.stderr)


if __name__ == "__main__":
    unittest.main()
