"""Projects that the tests install, and change."""

import shutil
import subprocess
import sys
from pathlib import Path

_PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "{version}"
[tool.setuptools.packages.find]
where = ["src"]
"""

_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def install(directory, *options):
    """Installs a project with what the environment has to build it; returns what uninstalls it."""
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall", *options]
    subprocess.run([*_PIP, "install", *how, str(directory)], check=True)
    name = Path(directory).name
    return lambda: subprocess.run([*_PIP, "uninstall", "--quiet", "--yes", name], check=True)


class Project:
    """A project with one package of its name, which has an `ANSWER`."""

    def __init__(self, directory, name):
        self.name = name
        self.directory = Path(directory) / name
        (self.directory / "src" / name).mkdir(parents=True)
        self.change(1)

    def change(self, answer):
        """Changes the answer, and the version with it."""
        (self.directory / "src" / self.name / "__init__.py").write_text(f"ANSWER = {answer}\n")
        (self.directory / "pyproject.toml").write_text(_PYPROJECT.format(name=self.name, version=f"{answer}.0"))

    def install(self, *options):
        """Installs it as it is now, with what the environment has to build it."""
        shutil.rmtree(self.directory / "build", ignore_errors=True)
        return install(self.directory, *options)


def installed(case, directory, name, *options):
    """A project that is installed for the tests of the class `case`."""
    project = Project(directory, name)
    case.addClassCleanup(project.install(*options))
    return project
