"""Users of the newest release on PyPI change nothing but what they install.

REFERENCE_PYTHON is the interpreter of an environment that has it.
"""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

SURFACE = str(Path(__file__).with_name("surface.py"))

# Not kept: a company's own address, and the modules that other modules happen to import.
LEFT_OUT = {"CRITEO_PYPI_URL"}

# Written out by the reference when it is imported: a directory, the interpreter, the working directory.
COMPUTED = {"tmp_dir", "executable", "editable_packages_dir"}

# Of the library's next release, not yet on PyPI.
NEXT = {
    "LayoutOptimization",
    "get_layout_optimization",
    "get_venv_optimization_level",
    "is_uv_available",
    "set_layout_optimization",
    "set_venv_optimization_level",
}


def surface(python):
    done = subprocess.run([python, SURFACE], stdout=subprocess.PIPE, cwd="/", check=True)
    return json.loads(done.stdout)


def comparable(parameters):
    return [[name, kind, default is not None if name in COMPUTED else default] for name, kind, default in parameters]


class Surface(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.theirs = surface(os.environ["REFERENCE_PYTHON"])
        cls.ours = surface(sys.executable)

    def test_every_public_name_is_there_with_its_signature(self):
        compared = 0
        for module, names in self.theirs.items():
            for name, theirs in names.items():
                if name in LEFT_OUT or "module" in theirs:
                    continue
                with self.subTest(name=f"{module}.{name}"):
                    ours = self.ours[module].get(name)
                    self.assertIsNotNone(ours, "is missing")
                    self.assertEqual(set(theirs), set(ours))
                    if "function" in theirs:
                        self.assertEqual(comparable(theirs["function"]), comparable(ours["function"]))
                    if "class" in theirs:
                        self.assertEqual(theirs["fields"], ours["fields"])
                        self.assertLessEqual(set(theirs["class"]), set(ours["class"]))
                        for method, parameters in theirs["class"].items():
                            self.assertEqual(comparable(parameters), comparable(ours["class"][method]), method)
                compared += 1
        # A comparison of nothing would pass, too.
        self.assertGreater(compared, 40)

    def test_names_of_the_next_release_are_there(self):
        self.assertLessEqual(NEXT, set(self.ours["cluster_pack"]))

    def test_modules_are_found_where_existing_code_imports_them(self):
        for line in (
            "from cluster_pack.skein import skein_config_builder, yarn_launcher",
            "from cluster_pack import yarn_launcher; yarn_launcher.submit_func",
            "from cluster_pack.skein.yarn_launcher import submit",
            "from cluster_pack.spark import spark_config_builder; spark_config_builder.add_packaged_environment",
        ):
            with self.subTest(line=line):
                subprocess.run([sys.executable, "-c", line], cwd="/", check=True)


if __name__ == "__main__":
    unittest.main()
