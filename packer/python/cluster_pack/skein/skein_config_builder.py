"""What a Skein service runs: its script, files and variables."""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from cluster_pack import functions, packaging, uploader

_RUNNER = "cluster_pack_runner.py"
_LOG = "output.log"


class SkeinConfig(NamedTuple):
    """What a service is made of."""

    script: str
    files: Dict[str, str]
    env: Dict[str, str]


def build_with_func(
    func: Callable,
    args: List[Any] = [],
    package_path: Optional[str] = None,
    additional_files: Optional[List[str]] = None,
    tmp_dir: Optional[str] = None,
    log_level: str = "INFO",
    process_logs: Optional[Callable[[str], Any]] = None,
    allow_large_pex: bool = False,
) -> SkeinConfig:
    """A service that calls a function, which is pickled and shipped.

    :param package_path: an uploaded environment; by default the one in which this runs, with its editable projects
    :param additional_files: further files for the working directory
    :param tmp_dir: where to write what is shipped: it has to be there until the application was submitted
    :param log_level: level of the container's logging
    :param process_logs: called in the container with the path of its log, when the function has ended
    """
    directory = tmp_dir or packaging._get_tmp_dir()
    module_name, words, files = _function(func, args, package_path, directory, log_level)
    files = [*(additional_files or []), *files]
    return build(module_name, words, package_path, files, directory, process_logs, allow_large_pex)


def build(
    module_name: str,
    args: List[Any] = [],
    package_path: Optional[str] = None,
    additional_files: Optional[List[str]] = None,
    tmp_dir: Optional[str] = None,
    process_logs: Optional[Callable[[str], Any]] = None,
    allow_large_pex: bool = False,
) -> SkeinConfig:
    """A service that runs a module, or a script if the name ends in `.py`.

    `args` are words of a shell's command line: variables of the container are expanded.
    """
    directory = tmp_dir or packaging._get_tmp_dir()
    shipped = uploader.for_job(package_path, allow_large_pex)
    usage = shipped.usage
    script = _script(usage.interpreter_cmd, module_name, args)
    files = dict(shipped.files)
    files.update({os.path.basename(path): path for path in additional_files or []})
    if not shipped.has_editables:
        files.update(_editables(directory))
    if process_logs:
        payload = os.path.join(directory, f"function_{uuid.uuid4()}.dat")
        functions.dump(process_logs, [_LOG], payload)
        files.update({_RUNNER: functions.RUNNER, os.path.basename(payload): payload})
        logs = _script(usage.interpreter_cmd, _RUNNER, [os.path.basename(payload)])
        script = _with_logs(script, logs)
    return SkeinConfig(script, files, {"SKEIN_CONFIG": "./.skein", "GIT_PYTHON_REFRESH": "quiet"})


def _function(
    func: Callable, args: List[Any], package_path: Optional[str], directory: str, log_level: str = "INFO"
) -> Tuple[str, List[str], List[str]]:
    """A script that calls a function, its arguments, and the files that it needs, which are written to `directory`."""
    functions.check(package_path)
    payload = os.path.join(directory, f"function_{uuid.uuid4()}.dat")
    functions.dump(func, args, payload)
    runner = os.path.join(directory, _RUNNER)
    shutil.copyfile(functions.RUNNER, runner)
    return _RUNNER, [os.path.basename(payload), log_level], [payload, runner]


def _script(interpreter: str, module_name: str, args: List[Any]) -> str:
    option = [] if module_name.endswith(".py") else ["-m"]
    words = [interpreter, *option, module_name, *map(str, args)]
    settings = 'export PEX_ROOT="${PEX_ROOT:-./.pex}"\nexport PYTHONPATH="."\n'
    return f"{settings}CPACK_INTERPRETER=1 {' '.join(words)}\n"


def _with_logs(script: str, logs: str) -> str:
    """Runs `script` with its output in a file too, then `logs`; fails if one of them does."""
    return (
        f"set -o pipefail\n(\n{script}) 2>&1 | tee {_LOG}\nstatus=$?\n(\n{logs})\nlogs=$?\n"
        'if [ "$status" -ne 0 ]; then exit "$status"; fi\nexit "$logs"\n'
    )


def _editables(directory: str) -> Dict[str, str]:
    """Editable projects as archives that YARN unpacks into the working directory, with an index of their names."""
    found = packaging.get_editable_requirements()
    files = {name: packaging.zip_path(path, False, directory) for name, path in found.items()}
    index = os.path.join(directory, packaging.EDITABLE_PACKAGES_INDEX)
    with open(index, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in found)
    return {**files, packaging.EDITABLE_PACKAGES_INDEX: index}
