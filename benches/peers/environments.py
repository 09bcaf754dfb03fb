"""Environments to measure, made from pinned requirements or given as virtual environments."""

import collections
import os
import re
import shutil
from dataclasses import dataclass
from importlib import metadata

from clock import NotRun, environ, run
from scratch import size_of

HERE = os.path.dirname(os.path.abspath(__file__))
PINS = os.path.join(os.path.dirname(HERE), "environments")
# The tests' own.
CHANNEL = os.path.join(os.path.dirname(os.path.dirname(HERE)), "crates", "cpack-test", "src", "conda_channel.py")

# The first line of user code.
IMPORTS = {
    "small": "requests",
    "pandas": "pandas",
    "scientific": "pandas",
    "torch": "torch",
    "many": "rich",
    "spark": "pyspark",
    "conda": "pandas",
}


@dataclass(frozen=True)
class Environment:
    """A virtual environment and its origin."""

    name: str
    venv: str
    module: str
    origin: str
    size: int
    files: int
    requirements: tuple

    @property
    def python(self):
        """Its interpreter."""
        return os.path.join(self.venv, "bin", "python")

    @property
    def base_python(self):
        """The interpreter that it was made from: what a cluster's node has."""
        return os.path.realpath(self.python)

    @property
    def site_packages(self):
        """Its modules."""
        return site_packages(self.venv)

    @property
    def code(self):
        """Imports the module and prints how long that took."""
        return f"import time; s = time.perf_counter(); import {self.module}; print(time.perf_counter() - s)"

    def described(self):
        """For the results."""
        return {
            "origin": self.origin,
            "bytes": self.size,
            "files": self.files,
            "distributions": len(self.requirements),
            "import": self.module,
        }


def pins(name):
    """The pinned requirements of the environment `name`. That of conda has the scientific one's, installed on top."""
    return os.path.join(PINS, f"{'scientific' if name == 'conda' else name}.txt")


def obtain(name, given, scratch, tools, python, say):
    """The environment `name`: the one in `given`, otherwise one made from its pins and kept for later runs."""
    if name in given:
        return describe(name, os.path.abspath(given[name]), f"given: {byte_code(given[name])}")
    if name not in IMPORTS:
        raise NotRun(f"no environment {name!r}: known are {', '.join(IMPORTS)}")
    venv = scratch.kept("venvs", name)
    if not os.path.exists(f"{venv}.complete"):
        say(f"  making the environment {name} from {os.path.basename(pins(name))}")
        uv, quiet = tools.path("uv"), environ(UV_CACHE_DIR=tools.uv_cache)
        if name == "conda":
            conda(venv, scratch, tools, python)
        else:
            run([uv, "venv", "-q", "--clear", "-p", python, venv], env=quiet)
        # As pip does: copies instead of links, with compiled byte-code.
        compiled = ["--compile-bytecode", "--link-mode", "copy"]
        run([uv, "pip", "install", "-q", *compiled, "-p", f"{venv}/bin/python", "-r", pins(name)], env=quiet)
        with open(f"{venv}.complete", "w", encoding="utf-8"):
            pass
    return describe(name, venv, f"made from its pins: {byte_code(venv)}")


def conda(prefix, scratch, tools, python):
    """Makes a conda environment from a channel that is built here, with the interpreter as a package."""
    channel, cache = scratch.kept("conda-channel"), scratch.kept("conda-cache")
    for place in (channel, prefix):
        shutil.rmtree(place, ignore_errors=True)
    run([tools.python, CHANNEL, "build", channel, os.path.realpath(python)])
    run([tools.python, CHANNEL, "install", channel, cache, prefix, "python", "needs-native", "pure", "activates"])


def describe(name, venv, origin):
    """Describes the virtual environment `venv`."""
    if not os.path.exists(os.path.join(venv, "bin", "python")):
        raise NotRun(f"{venv} has no bin/python")
    found = metadata.distributions(path=[site_packages(venv)])
    # cluster-pack also leaves the tools that build wheels out of a PEX.
    left_out = {"pip", "wheel"}
    requirements = sorted(f"{d.metadata['Name']}=={d.version}" for d in found if d.metadata["Name"] not in left_out)
    files = sum(len(names) for _, _, names in os.walk(venv))
    return Environment(name, venv, IMPORTS.get(name, "sys"), origin, size_of(venv), files, tuple(requirements))


def site_packages(venv):
    """The one `site-packages` of a virtual environment."""
    lib = os.path.join(venv, "lib")
    names = [name for name in (os.listdir(lib) if os.path.isdir(lib) else []) if re.fullmatch(r"python3\.\d+", name)]
    if len(names) != 1:
        raise NotRun(f"{venv} is no virtual environment with one lib/python3.X")
    return os.path.join(lib, names[0], "site-packages")


def byte_code(venv):
    """Whether the modules have byte-code."""
    modules = compiled = 0
    for _, _, names in os.walk(site_packages(venv)):
        modules += sum(name.endswith(".py") for name in names)
        compiled += sum(name.endswith(".pyc") for name in names)
    if compiled == 0:
        return "without byte-code"
    return f"byte-code for {min(compiled, modules) * 100 // max(modules, 1)} % of the modules"


def smallest_distribution(environment):
    """The name of the smallest distribution, for a small change, and the modules that only it has."""
    found = list(metadata.distributions(path=[environment.site_packages]))
    claims = collections.Counter(str(file) for each in found for file in each.files or [])

    def paths(each, wanted):
        located = [str(each.locate_file(file)) for file in each.files or [] if wanted(str(file))]
        return [path for path in located if os.path.isfile(path)]

    def modules(each):
        return paths(each, lambda file: file.endswith(".py") and claims[file] == 1)

    def weight(each):
        return sum(os.path.getsize(path) for path in paths(each, lambda _: True))

    smallest = min((each for each in found if modules(each)), key=weight)
    return smallest.metadata["Name"], modules(smallest)
