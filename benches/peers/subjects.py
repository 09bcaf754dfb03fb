"""Ways to ship an environment: how each creates its artifact, and how a node starts from it.

Every way gets the same virtual environment and the same line of Python. Its work on the node is done in a fresh directory with
an empty cache.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

from clock import Failed, environ, run
from environments import pins
from scratch import size_of

ZIP = """\
import os, sys, zipfile
source, output, level = sys.argv[1], sys.argv[2], int(sys.argv[3])
with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
    for root, _, names in os.walk(source):
        for name in names:
            path = os.path.join(root, name)
            archive.write(path, os.path.relpath(path, source))
"""

ZIP_SHUTIL = 'import shutil, sys; shutil.make_archive(sys.argv[2].removesuffix(".zip"), "zip", sys.argv[1])'


@dataclass(frozen=True)
class Artifact:
    """What is shipped: its bytes, and the file or directory that a node gets. `parts`: seconds of what its making consists
    of. `store`: where the bytes lie, where `path` only names them."""

    path: str
    size: int
    seconds: float
    parts: dict
    store: str = ""


@dataclass(frozen=True)
class Start:
    """A start on a node. `ready` is the part before the user's Python runs, where it can be told apart."""

    total: float
    ready: float | None
    imported: float
    phases: dict


class Subject:
    """A way to ship an environment."""

    name = ""
    # Another way whose artifact this one starts from; whether there is one.
    made_by, ships = None, True
    # Disk that a creation, and a start, needs as a multiple of the environment's size.
    creation_room, start_room = 2.5, 1.5

    def __init__(self, tools, programs):
        self.tools, self.programs = tools, programs

    def create(self, environment, directory):
        """Makes the artifact in the empty `directory`."""
        raise NotImplementedError

    def start(self, environment, artifact, code, directory):
        """Starts from it in the empty `directory`, running `code`, which prints how long its import took."""
        raise NotImplementedError

    def again(self, environment, artifact, code, directory):
        """Starts a second container on the node of `directory`, which has what the first start left there."""
        return self.start(environment, artifact, code, directory)


def last_number(text):
    """What `Environment.code` printed."""
    try:
        return float(text.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Failed(f"the import printed {text!r}") from error


def boot_metrics(path):
    """The last start in a file of CPACK_METRICS: seconds until exec, seconds by phase, and the line itself."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file.read().strip().splitlines()]
    # Those that serve a lazy start tell of their ends.
    line = [line for line in lines if line["start"] not in ("server", "filler")][-1]
    phases = line.get("phases_ms") or line.get("phases") or {}
    if isinstance(phases, list):
        phases = {phase["name"]: phase["ms"] for phase in phases}
    total = line.get("total_ms", line.get("total", sum(phases.values())))
    return total / 1e3, {name: ms / 1e3 for name, ms in phases.items()}, line


class Ours(Subject):
    """`cluster-pack upload` to a fresh directory store with a fresh client cache, and the launcher."""

    name = "this project"
    # The variables of its starts, and the kinds of starts that these are for.
    settings, kinds = {}, ("cold",)

    def upload(self, venv, directory):
        """Publishes `venv` to the store in `directory`; what was printed, and the seconds."""
        places = self.places(directory)
        child = run([self.programs.pack, *places, "--venv", venv, "--json", "-q", "upload"], env=environ())
        return json.loads(child.output), child.seconds

    def places(self, directory, name="bench"):
        """Store and client cache in `directory`, and the executable that is shipped."""
        store, cache = os.path.join(directory, "store"), os.path.join(directory, "client-cache")
        return ["--store", store, "--client-cache", cache, "--boot", self.programs.boot, "--name", name]

    def launcher(self, venv, directory, path, *arguments, name="bench"):
        """Writes the launcher, having published what is missing, to `path`."""
        places = self.places(directory, name)
        run([self.programs.pack, *places, "--venv", venv, *arguments, "-q", "launcher", "-o", path], env=environ())
        return path

    def create(self, environment, directory):
        report, seconds = self.upload(environment.venv, directory)
        path = self.launcher(environment.venv, directory, os.path.join(directory, "env-python"))
        return Artifact(path, report["packed_bytes"], seconds, {}, os.path.join(directory, "store"))

    def start(self, environment, artifact, code, directory):
        metrics = os.path.join(directory, "metrics")
        child = run([artifact.path, "-c", code], env=self.node(directory, metrics, **self.settings))
        ready, phases, line = boot_metrics(metrics)
        if line["start"] not in (*self.kinds, "warm"):
            raise Failed(f"a {line['start']} start: expected {' or '.join(self.kinds)}")
        return Start(child.seconds, ready, last_number(child.output), phases)

    def node(self, cache, metrics=None, **more):
        """The variables of a node whose cache is in `cache`. Trees of a sitting fill the disk: no start is to make room on it."""
        known = {"CPACK_CACHE_RESERVE": "0", **({"CPACK_METRICS": metrics} if metrics else {})}
        return environ(CPACK_CACHE_DIR=os.path.join(cache, "node"), HOME=cache, **known, **more)


class OursLazy(Ours):
    """The same launcher, whose Python runs before the environment is there."""

    name, made_by = "this project, lazy", Ours.name
    settings, kinds = {"CPACK_START": "lazy"}, ("lazy",)


class OursPex(Ours):
    """A PEX zipapp written by `cluster-pack pack` and started by `cpack-boot`, without upstream's runtime."""

    name = "this project, PEX"

    def create(self, environment, directory):
        path, cache = os.path.join(directory, "environment.pex"), os.path.join(directory, "client-cache")
        flags = ["--client-cache", cache, "--venv", environment.venv, "-q", "pack", "--format", "pex", "-o", path]
        # The pex on the PATH provides the runtime, so that none is fetched while the time is measured.
        env = environ(PATH=f"{os.path.dirname(self.tools.path('pex'))}:{os.environ['PATH']}")
        child = run([self.programs.pack, "--boot", self.programs.boot, *flags], env=env)
        return Artifact(path, size_of(path), child.seconds, {})

    def start(self, environment, artifact, code, directory):
        metrics = os.path.join(directory, "metrics")
        argv = [self.programs.boot, "--cpack", "exec", artifact.path, "-c", code]
        child = run(argv, env=self.node(directory, metrics))
        ready, phases, _ = boot_metrics(metrics)
        return Start(child.seconds, ready, last_number(child.output), phases)


class Pex(Subject):
    """PEX files that pex writes from the virtual environment."""

    def __init__(self, tools, programs, layout, *flags, name=None):
        super().__init__(tools, programs)
        self.layout, self.flags = layout, flags
        self.name = name or f"pex {layout}"

    def pex(self):
        """The pex that writes them."""
        return self.tools.path("pex")

    def build(self, environment, directory, output, *flags):
        """Runs pex with a fresh PEX_ROOT; the seconds."""
        argv = [self.pex(), *flags, "--venv-repository", environment.venv, *environment.requirements]
        scratch = os.path.join(directory, "tmp")
        os.makedirs(scratch)
        root = os.path.join(directory, "pex-root")
        env = environ(PEX_ROOT=root, TMPDIR=scratch, PATH=f"{environment.venv}/bin:{os.environ['PATH']}")
        # Without --python: the environment's interpreter is the only target then, and some are not found again by name.
        return run([*argv, "-o", output], env=env, cwd=directory).seconds

    def create(self, environment, directory):
        output = os.path.join(directory, "environment.pex")
        flags = ["--layout", self.layout, "--max-install-jobs", "0", *self.flags]
        seconds = self.build(environment, directory, output, *flags)
        return Artifact(output, size_of(output), seconds, {})

    def start(self, environment, artifact, code, directory):
        child = run([environment.base_python, artifact.path, "-c", code], env=self.node(directory))
        return Start(child.seconds, None, last_number(child.output), {})

    @staticmethod
    def node(directory):
        """The variables of a node whose cache is in `directory`."""
        return environ(PEX_ROOT=os.path.join(directory, "pex-root"), HOME=directory)


class PexRc(Pex):
    """A PEX with pex's native runtime, which is in no registry."""

    def __init__(self, tools, programs):
        super().__init__(tools, programs, "zipapp", name="pexrc")

    def pex(self):
        return self.tools.pex_of_pexrc()

    def create(self, environment, directory):
        self.flags = ("--rc", "--pexrc-binary", self.tools.pexrc())
        return super().create(environment, directory)


class ClusterPackMode(Pex):
    """One of cluster-pack's modes: pex, then a zip of its output; the node runs `unzip` first.

    cluster-pack's own checks before and after (`pip list`, metadata) are left out, in its favour.
    """

    def __init__(self, tools, programs, mode, layout, level):
        super().__init__(tools, programs, layout, name=f"cluster-pack {mode}")
        self.level = level

    def create(self, environment, directory):
        tree, archive = os.path.join(directory, "env.pex.tmp"), os.path.join(directory, "env.pex.zip")
        flags = ["--inherit-path=fallback", "--layout", self.layout, "--max-install-jobs", "0"]
        seconds = self.build(environment, directory, tree, *flags)
        script = [ZIP, tree, archive, self.level] if self.level is not None else [ZIP_SHUTIL, tree, archive]
        zipped = run([environment.base_python, "-c", *script], env=environ())
        parts = {"pex": round(seconds, 3), "zip": round(zipped.seconds, 3)}
        return Artifact(archive, size_of(archive), seconds + zipped.seconds, parts)

    def start(self, environment, artifact, code, directory):
        return self.container(environment, artifact, code, directory, "pyenv")

    def again(self, environment, artifact, code, directory):
        return self.container(environment, artifact, code, directory, "second-pyenv")

    def container(self, environment, artifact, code, directory, name):
        """Unzips to `name`, as each container does for itself, and starts."""
        tree = os.path.join(directory, name)
        unzipped = run([self.tools.path("unzip"), "-q", artifact.path, "-d", tree])
        child = run([environment.base_python, f"{tree}/__main__.py", "-c", code], env=self.node(directory))
        total = unzipped.seconds + child.seconds
        return Start(total, None, last_number(child.output), {"unzip": unzipped.seconds, "run": child.seconds})


def in_place(venv, code, ready=0.0):
    """Runs `code` in a tree that took `ready` seconds to make."""
    child = run([f"{venv}/bin/python", "-c", code], env=environ())
    return Start(ready + child.seconds, ready, last_number(child.output), {})


class Tar(Subject):
    """`tar -czf` of the virtual environment."""

    name = "tar.gz"

    def create(self, environment, directory):
        path = os.path.join(directory, "environment.tar.gz")
        child = run([self.tools.path("tar"), "-czf", path, "-C", environment.venv, "."])
        return Artifact(path, size_of(path), child.seconds, {})

    def start(self, environment, artifact, code, directory):
        tree = os.path.join(directory, "environment")
        os.makedirs(tree)
        unpacked = run([self.tools.path("tar"), "-xzf", artifact.path, "-C", tree])
        return in_place(tree, code, unpacked.seconds)

    def again(self, environment, artifact, code, directory):
        return in_place(os.path.join(directory, "environment"), code)


class VenvPack(Tar):
    """venv-pack2, to a tar.gz."""

    name = "venv-pack2"

    def create(self, environment, directory):
        path = os.path.join(directory, "environment.tar.gz")
        child = run([self.tools.path("venv-pack"), "-q", "-p", environment.venv, "-o", path], env=environ())
        return Artifact(path, size_of(path), child.seconds, {})


class Uv(Subject):
    """`uv venv` and `uv pip install --offline` from a warm cache, in hard-link mode: nothing is shipped."""

    name = "uv pip install --offline"
    ships = False
    start_room = 0.2

    def create(self, environment, directory):
        self.warm(environment.name, environment.python, directory)
        return Artifact(directory, 0, 0.0, {})

    def warm(self, name, python, directory):
        """Fills uv's cache, untimed: this may fetch."""
        self.install(name, python, os.path.join(directory, "warm"), pins(name), offline=False)

    def install(self, name, python, venv, requirements, offline=True):
        """Makes a virtual environment and installs into it; the seconds of both commands."""
        uv, env = self.tools.path("uv"), environ(UV_CACHE_DIR=self.tools.uv_cache)
        made = run([uv, "venv", "-q", "-p", os.path.realpath(python), venv], env=env)
        flags = ["--offline"] if offline else []
        flags += ["--link-mode", "hardlink", "-p", f"{venv}/bin/python", "-r", requirements]
        installed = run([uv, "pip", "install", "-q", *flags], env=env)
        return made.seconds, installed.seconds

    def start(self, environment, artifact, code, directory):
        venv = os.path.join(directory, "venv")
        start = time.perf_counter()
        self.install(environment.name, environment.python, venv, pins(environment.name))
        return in_place(venv, code, time.perf_counter() - start)

    def again(self, environment, artifact, code, directory):
        return in_place(os.path.join(directory, "venv"), code)


def all_subjects(tools, programs):
    """Every way, this project's first."""
    return [
        Ours(tools, programs),
        OursLazy(tools, programs),
        OursPex(tools, programs),
        ClusterPackMode(tools, programs, "FAST_MID_BIG", "loose", 0),
        ClusterPackMode(tools, programs, "SLOW_FAST_SMALL", "packed", 0),
        ClusterPackMode(tools, programs, "MID_SLOW_SMALL", "loose", 1),
        ClusterPackMode(tools, programs, "DISABLED", "packed", None),
        Pex(tools, programs, "zipapp"),
        Pex(tools, programs, "packed"),
        Pex(tools, programs, "loose"),
        Pex(tools, programs, "zipapp", "--venv", name="pex --venv"),
        PexRc(tools, programs),
        VenvPack(tools, programs),
        Tar(tools, programs),
        Uv(tools, programs),
    ]
