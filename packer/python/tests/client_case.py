"""What the tests of the client share: a directory of their own."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path


class Directory(unittest.TestCase):
    def setUp(self):
        own = tempfile.TemporaryDirectory()
        self.addCleanup(own.cleanup)
        self.directory = Path(own.name)

    def package(self, name="mine.pex"):
        return str(self.directory / "envs" / name)

    def output(self, program, *arguments, **variables):
        environ = {**os.environ, **variables}
        done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, env=environ, cwd="/", check=True)
        return done.stdout.decode().strip()
