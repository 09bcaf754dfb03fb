"""Functions run in packed environments, and their results come back."""

import logging
import os
import shutil
import sys
import threading
import unittest
from pathlib import Path
from unittest import mock

import cluster_pack
from cluster_pack import uploader
from cluster_pack.skein import skein_config_builder

from client_case import Directory


class Odd(Exception):
    """Cannot be made again from its pickle."""

    def __init__(self, one, two):
        super().__init__(one)


def divide(one, two=1):
    logging.info("dividing")
    return one / two


def in_environment():
    return sys.prefix, os.environ["CPACK_LAUNCHER"]


class Functions(Directory):
    def test_results_come_back(self):
        self.assertEqual(cluster_pack.run(divide, [6], {"two": 3}), 2)
        captured = {"n": 4}
        self.assertEqual(cluster_pack.run(lambda: captured["n"] + 1), 5)
        prefix, launcher = cluster_pack.run(in_environment)
        self.assertNotEqual(prefix, sys.prefix)
        self.assertTrue(launcher.endswith("env-python"))

    def test_exceptions_come_back_with_their_traceback(self):
        with self.assertRaises(ZeroDivisionError) as raised:
            cluster_pack.run(divide, [1, 0])
        self.assertIn("return one / two", str(raised.exception.__cause__))

        def odd():
            raise Odd(1, 2)

        with self.assertRaisesRegex(cluster_pack.RemoteError, "Odd: 1") as raised:
            cluster_pack.run(odd)
        self.assertIn("in odd", str(raised.exception.__cause__))
        with self.assertRaisesRegex(cluster_pack.RemoteError, "cannot be pickled"):
            cluster_pack.run(threading.Lock)
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "left no result"):
            cluster_pack.run(os._exit, [3])

    def test_a_plain_remote_shell_will_do(self):
        # As `ssh host`: what follows is a command line for the shell there, which starts elsewhere.
        shell = cluster_pack.Shell(["env", "-i", f"PATH={os.environ['PATH']}", "HOME=/", "sh", "-c"])
        with mock.patch.dict(os.environ, VIRTUAL_ENV=sys.prefix):
            self.assertEqual(cluster_pack.run(divide, [1, 2], where=shell), 0.5)
            with self.assertRaises(ZeroDivisionError):
                cluster_pack.run(divide, [1, 0], where=shell)
            with self.assertRaisesRegex(cluster_pack.ClusterPackError, "left no result"):
                cluster_pack.run(os._exit, [3], where=shell)

    def test_what_cannot_be_pickled_is_told_before_anything_is_sent(self):
        lock = threading.Lock()
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "cannot be pickled"):
            cluster_pack.run(lambda: lock)

    def test_environments_that_cannot_take_functions_are_told(self):
        path, _ = cluster_pack.upload_env(self.package(), only_packages=["pip"])
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "no cloudpickle"):
            skein_config_builder.build_with_func(print, package_path=path)
        beside = Path(path).with_suffix(".json")
        beside.write_text(beside.read_text().replace(f'"python_version": "3.', '"python_version": "2.'))
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "Python 2"):
            skein_config_builder.build_with_func(print, package_path=path)

    def test_jobs_start_jobs(self):
        def outer(depth):
            import os

            import cluster_pack

            if depth == 0:
                return os.environ["CPACK_ENVIRONMENT"]
            # Nothing here may be packed, nor any client state be used.
            os.environ["CPACK_CLIENT_CACHE"] = "/dev/null/nothing"
            return cluster_pack.run(outer, [depth - 1])

        # The same environment, whatever the depth.
        self.assertEqual(cluster_pack.run(outer, [2]), cluster_pack.run(outer, [0]))

    def test_jobs_whose_launcher_came_in_parts_start_jobs(self):
        path, _ = cluster_pack.upload_env(self.package())
        container = self.directory / "container"
        container.mkdir()
        for name, source in uploader._parts[path].named("env-python").items():
            shutil.copyfile(source, container / name)
            os.chmod(container / name, 0o500)
        code = """
import os, cluster_pack
from cluster_pack import binary
running = binary.booted()
whole = binary.whole(running)
print(running, whole, binary.whole(running) == whole, open(whole, "rb").read(4)[1:].decode(), cluster_pack.run(os.getpgrp) > 0)
"""
        launcher = str(container / "env-python")
        words = self.output(launcher, "-c", code, CPACK_CLIENT_CACHE="/dev/null/nothing").split()
        self.assertEqual((words[0], words[2:]), (launcher, ["True", "ELF", "True"]))
        self.assertFalse(os.path.exists(words[1]), "what was written for the process goes with it")


if __name__ == "__main__":
    unittest.main()
