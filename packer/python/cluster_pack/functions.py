"""Functions as payloads: pickled here, called there, with their result or exception brought back."""

from __future__ import annotations

import collections
import io
import os
import platform
import pickle
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Protocol, Sequence, Tuple

import cloudpickle

from cluster_pack import binary, packaging, uploader
from cluster_pack.errors import ClusterPackError, RemoteError, RemoteTraceback

# How long S3 may take to answer a check that only tells early what a job would tell late: an endpoint may be one that only
# executors reach.
_CHECK_SECONDS = 5.0

RUNNER = str(Path(__file__).with_name("runner.py"))


class Place(Protocol):
    """Somewhere to run: carries files there, runs a command in their directory and brings one file back."""

    def execute(self, files: Mapping[str, str], command: Sequence[str], result: str) -> Optional[bytes]:
        """`files` are paths here by their names there. Nothing is returned where the command left no result."""


def run(
    func: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Optional[Mapping[str, Any]] = None,
    *,
    where: Optional[Place] = None,
    package_path: Optional[str] = None,
) -> Any:
    """Calls `func` in the packed environment and returns its result, or raises its exception with the remote traceback.

    :param where: where to run; by default in a process here, booted as an executor would (see also `Shell`)
    :param package_path: a launcher or PEX on this machine; by default the environment in which this runs
    """
    check(package_path)
    with tempfile.TemporaryDirectory(prefix="cluster-pack-") as directory:
        payload = os.path.join(directory, "function.dat")
        dump(func, args, payload, kwargs)
        launcher = package_path or _launcher(directory)
        files = {"env-python": launcher, "runner.py": RUNNER, "function.dat": payload}
        command = ["./env-python", "runner.py", "function.dat", "--result", "result.dat"]
        data = (where or _Here()).execute(files, command, "result.dat")
    if data is None:
        raise ClusterPackError(f"{_name(func)} left no result: the process ended before it returned; see its output above")
    return _outcome(data)


def dump(func: Callable[..., Any], args: Sequence[Any], path: str, kwargs: Optional[Mapping[str, Any]] = None) -> None:
    """Writes a payload. Code that no environment has travels with it."""
    payload = {"func": func, "args": list(args), **({"kwargs": dict(kwargs)} if kwargs else {})}
    loose = _loose_modules(func)
    for module in loose:
        cloudpickle.register_pickle_by_value(module)
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(payload)
    except Exception as error:
        raise ClusterPackError(
            f"{_name(func)} cannot be pickled ({type(error).__name__}: {error}): make what it needs inside of it, or pass "
            "names instead of open files, locks and connections"
        ) from error
    finally:
        for module in loose:
            cloudpickle.unregister_pickle_by_value(module)
    Path(path).write_bytes(buffer.getvalue())


def _with_file(code: CodeType) -> Tuple[Any, ...]:
    make, arguments, *rest = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return (make, tuple(code.co_filename if a == "<dynamic-code>" else a for a in arguments), *rest)


class _Pickler(cloudpickle.Pickler):
    """Code keeps the name of its file, without which tracebacks have no source. cloudpickle 3.1.3 replaces it."""

    dispatch_table = collections.ChainMap({CodeType: _with_file}, cloudpickle.Pickler.dispatch_table)


def check(package_path: Optional[str]) -> None:
    """Refuses an environment in which a function pickled here cannot be called, before anything is submitted."""
    if binary.booted():
        return
    if package_path is None:
        _check_cloudpickle("the environment in which this runs", packaging.get_non_editable_requirements())
        return
    beside = check_python(package_path)
    packages = [str(line).split("==")[0] for line in beside.get(uploader.PACKAGE_INSTALLED_KEY, [])]
    if packages:
        _check_cloudpickle(package_path, packages)


def check_python(package_path: str, environ: Optional[Mapping[str, str]] = None) -> Dict[str, Any]:
    """Refuses an environment of another Python than this; what lies beside it.

    `environ` says how to reach it, as variables; by default as this process did that uploaded it. Where that is unknown,
    no endpoint is asked: keys are for the endpoint that the user means.
    """
    environ = environ or uploader.access(package_path)
    if environ is None:
        return {}
    try:
        timeout = _CHECK_SECONDS if package_path.startswith(uploader.WITH_KEYS) else None
        beside = binary.call(["metadata", package_path], environ=environ, timeout=timeout)
    except ClusterPackError:
        # The nodes that start containers may reach an endpoint that this machine does not.
        return {}
    version = str(beside.get(uploader.PYTHON_VERSION_KEY, ""))
    if version and tuple(version.split(".")[:2]) != platform.python_version_tuple()[:2]:
        raise ClusterPackError(
            f"{package_path} has Python {version}, and functions pickled by {platform.python_version()} cannot be called "
            "there: upload the environment again from this Python"
        )
    return beside


def _check_cloudpickle(environment: str, packages: Iterable[str]) -> None:
    if "cloudpickle" not in map(str.lower, packages):
        raise ClusterPackError(f"{environment} has no cloudpickle, which functions need: install it and upload again")


def _launcher(directory: str) -> str:
    """The launcher of the environment in which this runs."""
    running = binary.booted()
    if running:
        return binary.whole(running)
    path = os.path.join(directory, "env-python")
    binary.call(["launcher", "--output", path], prefix=sys.prefix)
    return path


def _outcome(data: bytes) -> Any:
    try:
        outcome: Dict[str, Any] = pickle.loads(data)
    except Exception as error:
        raise RemoteError(f"the result cannot be read here: {error}") from error
    if "value" in outcome:
        return outcome["value"]
    cause = RemoteTraceback(outcome["traceback"])
    raise outcome.get("error") or RemoteError(outcome["summary"]) from cause


def _loose_modules(func: Callable[..., Any]) -> List[ModuleType]:
    """The module of a function that is neither installed, nor of an editable project, nor the program itself."""
    module = sys.modules.get(getattr(func, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or module.__name__ == "__main__" or not file:
        return []
    places = [sys.prefix, sys.base_prefix, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))]
    if _below(file, places) or _below(file, packaging.get_editable_requirements().values()):
        return []
    return [module]


def _below(file: str, places: Any) -> bool:
    path = Path(file).resolve()
    return any(Path(place).resolve() in path.parents for place in places)


def _name(func: Callable[..., Any]) -> str:
    return f"{getattr(func, '__module__', '?')}.{getattr(func, '__qualname__', repr(func))}"


class _Here:
    """A process of this machine."""

    def execute(self, files: Mapping[str, str], command: Sequence[str], result: str) -> Optional[bytes]:
        import subprocess

        with tempfile.TemporaryDirectory(prefix="cluster-pack-") as directory:
            for name, path in files.items():
                os.symlink(os.path.abspath(path), os.path.join(directory, name))
            environ = {**os.environ, "CPACK_INTERPRETER": "1"}
            subprocess.run(list(command), cwd=directory, env=environ, stdin=subprocess.DEVNULL, check=False)
            outcome = Path(directory, result)
            return outcome.read_bytes() if outcome.exists() else None
