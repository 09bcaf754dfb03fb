"""The `cluster-pack` executable: where it is, and how it is called."""

from __future__ import annotations

import atexit
import functools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

from cluster_pack.errors import ClusterPackError, PexCreationError

_logger = logging.getLogger(__name__)

PROGRAM = "cluster-pack"
_CANNOT_PACK = 81
_ELF = b"\x7fELF"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def find() -> str:
    """The executable: of CLUSTER_PACK_BIN, else installed with this package, else on PATH."""
    named = os.environ.get("CLUSTER_PACK_BIN")
    if named:
        if not os.access(named, os.X_OK):
            raise ClusterPackError(f"CLUSTER_PACK_BIN names {named}, which is no executable")
        return named
    package = Path(__file__).resolve().parent.parent
    for place in (Path(sysconfig.get_path("scripts")), package / "bin", Path(sys.prefix) / "bin"):
        if os.access(place / PROGRAM, os.X_OK):
            return str(place / PROGRAM)
    found = shutil.which(PROGRAM)
    if found is None:
        raise ClusterPackError(f"{PROGRAM} not found: install the wheel that has it, or set CLUSTER_PACK_BIN to its path")
    return found


def call(
    arguments: Iterable[str],
    *,
    prefix: Optional[str] = None,
    environ: Optional[Mapping[str, str]] = None,
    timeout: Optional[float] = None,
) -> Dict[str, Any]:
    """Calls it and returns the JSON that it answers. What it says on the way is shown; its error is raised.

    `prefix` is the environment that is meant: by default the one in which this runs. With a `timeout`, in seconds, it is
    asked in silence, and one that does not answer in time is an error.
    """
    command = [find(), "--json"]
    variables = {**os.environ, "NO_COLOR": "1", **(environ or {})}
    if "AWS_ACCESS_KEY_ID" in (environ or {}):
        # A key that was given goes with nothing that belongs to another one.
        for name in {"AWS_SESSION_TOKEN", "AWS_PROFILE"} - set(environ or {}):
            variables.pop(name, None)
    if prefix is not None or booted() is None:
        command += ["--venv", prefix or sys.prefix]
    else:
        # Of another environment than this one.
        variables.pop("CPACK_VENV", None)
    command += arguments
    _logger.debug("running %s", command)
    code, answer, said = _run(command, variables, timeout)
    lines = [line for line in said.splitlines() if line]
    if code != 0:
        errors = [line[len("error:") :].strip() for line in lines if line.startswith("error:")]
        message = errors[-1] if errors else (lines[-1] if lines else f"{PROGRAM} ended with code {code}")
        raise (PexCreationError if code == _CANNOT_PACK else ClusterPackError)(message, code)
    return json.loads(answer) if answer.strip() else {}


def booted() -> Optional[str]:
    """The launcher that booted the environment in which this runs, if one did and it is still there."""
    launcher = os.environ.get("CPACK_LAUNCHER")
    own = os.environ.get("CPACK_ENVIRONMENT")
    if not launcher or not own or not os.path.exists(sys.prefix) or not os.path.samefile(own, sys.prefix):
        return None
    return launcher if os.path.exists(launcher) else None


@functools.lru_cache(maxsize=None)
def whole(launcher: str) -> str:
    """The launcher as one file that runs anywhere. Of one that was shipped with its executable beside it that file is
    written, once for this process, at whose end it is removed."""
    with open(launcher, "rb") as file:
        if file.read(len(_ELF)) == _ELF:
            return launcher
    directory = tempfile.TemporaryDirectory(prefix="cluster-pack-")
    atexit.register(directory.cleanup)
    path = os.path.join(directory.name, "env-python")
    call(["launcher", "--output", path])
    return path


def _run(command: List[str], environ: Mapping[str, str], timeout: Optional[float]) -> "tuple[int, str, str]":
    if timeout is None and _in_notebook():
        return _run_on_terminal(command, environ, _show_in_notebook())
    try:
        done = subprocess.run(
            command, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise ClusterPackError(f"{PROGRAM} did not answer within {timeout:g} s") from None
    for line in done.stderr.splitlines() if timeout is None else []:
        level = logging.WARNING if line.startswith("warning:") else logging.INFO
        _logger.log(level, "%s", line[len("warning:") :].strip() if level == logging.WARNING else line)
    return done.returncode, done.stdout, done.stderr


def _run_on_terminal(
    command: List[str], environ: Mapping[str, str], show: Callable[[str], None]
) -> "tuple[int, str, str]":
    """Progress is drawn on terminals only: gives it one, and hands on what is drawn."""
    import pty
    import threading

    master, slave = pty.openpty()
    said: List[str] = []

    def forward() -> None:
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:
                return
            if not data:
                return
            text = data.decode(errors="replace").replace("\r\n", "\n")
            said.append(text)
            show(text)

    reader = threading.Thread(target=forward, daemon=True)
    environ = {**environ, "COLUMNS": "100"}
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, text=True
    )
    os.close(slave)
    reader.start()
    answer, _ = process.communicate()
    reader.join(timeout=5)
    os.close(master)
    text = _CONTROL.sub("", "".join(said)).replace("\r", "\n")
    return process.returncode, answer, text


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None  # type: ignore[attr-defined]
    return type(shell).__name__ == "ZMQInteractiveShell"


def _show_in_notebook() -> Callable[[str], None]:
    def show(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return show
