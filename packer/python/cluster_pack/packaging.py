"""What is installed, how it is packed, and how a packed environment is used."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Collection, Dict, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import urlparse
from xml.etree import ElementTree

from cluster_pack import binary, settings
from cluster_pack.errors import ClusterPackError, PexCreationError, PexTooLargeError
from cluster_pack.settings import _get_current_user

__all__ = ["PexCreationError", "PexTooLargeError"]

EDITABLE_PACKAGES_INDEX = "editable_packages_index"
UNPACKED_ENV_NAME = "pyenv"
LARGE_PEX_CMD = f"{UNPACKED_ENV_NAME}/__main__.py"

# A zipapp that Python before 3.13 can open (zip64 is not read there).
_LARGEST_PEX = 4 << 30

_INSTALLED = """
import importlib.metadata as m, json, sys, sysconfig
found = {}
for d in m.distributions(path=sorted({sysconfig.get_path(n) for n in ('purelib', 'platlib')})):
    url = json.loads(d.read_text('direct_url.json') or '{}')
    if not url.get('dir_info', {}).get('editable') and d.metadata['Name']:
        found[d.metadata['Name']] = d.version
json.dump(dict(sorted(found.items(), key=lambda item: item[0].lower())), sys.stdout)
"""


class PythonEnvDescription(NamedTuple):
    """How a packed environment is used: what is shipped under which name, unpacked or not, and what then runs."""

    path_to_archive: str
    interpreter_cmd: str
    dest_path: str
    must_unpack: bool


class Packer(object):
    """Makes one file of an environment, in a subclass."""

    def env_name(self) -> str:
        """The name of the environment."""
        raise NotImplementedError

    def extension(self) -> str:
        """The extension of what is made."""
        raise NotImplementedError

    def pack(
        self,
        output: str,
        reqs: List[str],
        additional_packages: Dict[str, str],
        ignored_packages: Collection[str],
        editable_requirements: Dict[str, str],
        allow_large_pex: bool = False,
        include_pex_tools: bool = False,
        additional_repo: Optional[Union[str, List[str]]] = None,
        additional_indexes: Optional[List[str]] = None,
    ) -> str:
        """Packs requirements into `output` and returns its path."""
        raise NotImplementedError

    def pack_from_spec(
        self,
        spec_file: str,
        output: str,
        allow_large_pex: bool = False,
        include_pex_tools: bool = False,
    ) -> str:
        """Packs a requirements file into `output` and returns its path."""
        raise NotImplementedError


class PexPacker(Packer):
    """The packer of this library: launchers, and PEX files where one is asked for. A subclass that packs in its own way is
    called for it."""

    def env_name(self) -> str:
        return get_env_name("VIRTUAL_ENV")

    def extension(self) -> str:
        return "pex"

    def pack(
        self,
        output: str,
        reqs: List[str],
        additional_packages: Dict[str, str],
        ignored_packages: Collection[str],
        editable_requirements: Dict[str, str],
        allow_large_pex: bool = False,
        include_pex_tools: bool = False,
        additional_repo: Optional[Union[str, List[str]]] = None,
        additional_indexes: Optional[List[str]] = None,
    ) -> str:
        return pack_in_pex(
            reqs,
            output,
            ignored_packages,
            editable_requirements=editable_requirements,
            allow_large_pex=allow_large_pex,
            include_pex_tools=include_pex_tools,
            additional_repo=additional_repo,
            additional_indexes=additional_indexes,
        )

    def pack_from_spec(
        self,
        spec_file: str,
        output: str,
        allow_large_pex: bool = False,
        include_pex_tools: bool = False,
    ) -> str:
        return pack_spec_in_pex(
            spec_file, output, allow_large_pex=allow_large_pex, include_pex_tools=include_pex_tools
        )


def packs_as_pex_packer(packer: Packer) -> bool:
    """Whether the packer leaves packing to this library, which then starts from what is installed."""
    own = getattr(packer.pack, "__func__", None) is PexPacker.pack
    return own and packer.extension() == PEX_PACKER.extension()


PEX_PACKER = PexPacker()


def zip_path(py_dir: str, include_base_name: bool = True, tmp_dir: Optional[str] = None) -> str:
    """Zips a directory without byte-code, below its own name or not, and returns the path of the zip."""
    root = Path(py_dir)
    archive = os.path.join(tmp_dir or _get_tmp_dir(), f"{root.name}.zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                zipped.write(path, path.relative_to(root.parent if include_base_name else root))
    return archive


def format_requirements(requirements: Dict[str, str]) -> List[str]:
    """`name==version`, or `name` where there is no version."""
    return [f"{name}=={version}" if version else name for name, version in (requirements or {}).items()]


def check_large_pex(allow_large_pex: bool, pex_file: str) -> None:
    """Refuses a PEX that Python cannot run as it is."""
    if not allow_large_pex and os.path.getsize(pex_file) > _LARGEST_PEX:
        raise PexTooLargeError(
            f"{pex_file} is larger than 4 GiB, which Python before 3.13 cannot run: pass allow_large_pex=True, or upload "
            "a launcher instead of a PEX"
        )


def pack_spec_in_pex(
    spec_file: str,
    output: str,
    pex_inherit_path: str = "fallback",
    allow_large_pex: bool = False,
    include_pex_tools: bool = False,
    additional_repo: Optional[Union[List[str], str]] = None,
    additional_indexes: Optional[List[str]] = None,
) -> str:
    """Makes a PEX of a requirements file."""
    index = _index_arguments(additional_repo, additional_indexes)
    return _pack_pex(["-r", os.path.abspath(spec_file), *index], output, pex_inherit_path, allow_large_pex)


def pack_in_pex(
    requirements: List[str],
    output: str,
    ignored_packages: Collection[str] = [],
    pex_inherit_path: str = "fallback",
    editable_requirements: Dict[str, str] = {},
    allow_large_pex: bool = False,
    include_pex_tools: bool = False,
    additional_repo: Optional[Union[str, List[str]]] = None,
    additional_indexes: Optional[List[str]] = None,
) -> str:
    """Makes a PEX of requirements. Its runtime always has the tools.

    `editable_requirements` are folders of packages, which are put into the PEX as they are.
    """
    ignored = {_normalised(name) for name in ignored_packages}
    kept = [line for line in requirements if _normalised(line.split("=")[0].strip()) not in ignored]
    with tempfile.TemporaryDirectory() as directory:
        spec = os.path.join(directory, "requirements.txt")
        Path(spec).write_text("\n".join(kept) + "\n", encoding="utf-8")
        index = _index_arguments(additional_repo, additional_indexes)
        sources = os.path.join(directory, "sources")
        for package in editable_requirements.values():
            shutil.copytree(package, os.path.join(sources, os.path.basename(os.path.abspath(package))))
        index += ["--sources-directory", sources] if editable_requirements else []
        return _pack_pex(["-r", spec, *index], output, pex_inherit_path, allow_large_pex)


def _tools_of_this_python() -> Dict[str, str]:
    """Makes requirements be resolved for this Python, by what is installed beside it, whether it was activated or not."""
    search = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    return {"PATH": os.pathsep.join(filter(None, search))}


def _pack_pex(arguments: List[str], output: str, inherit_path: str, large: bool, prefix: Optional[str] = None) -> str:
    if large:
        output += "" if output.endswith(".zip") else ".zip"
    environ = {"C_PACK_LAYOUT_OPTIMIZATION": settings.get_layout_optimization().value} if large else {}
    if not large:
        environ["C_PACK_LAYOUT_OPTIMIZATION"] = ""
    environ.update(_tools_of_this_python())
    command = ["pack", "--format", "pex", "--output", output, "--inherit-path", inherit_path, *arguments]
    path = str(binary.call(command, prefix=prefix, environ=environ)["path"])
    check_large_pex(large, path)
    return path


def _index_arguments(
    additional_repo: Optional[Union[str, List[str]]], additional_indexes: Optional[List[str]]
) -> List[str]:
    arguments = []
    if settings.get_pypi_index():
        arguments += ["--index-url", str(settings.get_pypi_index())]
    for repo in [additional_repo] if isinstance(additional_repo, str) else additional_repo or []:
        arguments += ["--extra-index-url", repo]
    for index in additional_indexes or []:
        arguments += ["--find-links", index]
    return arguments


def get_env_name(env_var_name: str) -> str:
    """The name of the environment whose prefix the variable holds."""
    return os.path.basename(os.environ.get(env_var_name) or "default")


def get_non_editable_requirements(executable: str = sys.executable) -> Dict[str, str]:
    """What is installed, with versions, editable projects left out."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([executable, "-c", _INSTALLED], env=environ, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def get_editable_requirements(
    executable: str = sys.executable,
    editable_packages_dir: str = os.getcwd(),
) -> Dict[str, str]:
    """Packages of projects that are installed as editable, with their directories.

    In a booted environment they are those of its overlays; where a framework unpacked them into the working directory,
    those that the index there lists.
    """
    index = Path(editable_packages_dir) / EDITABLE_PACKAGES_INDEX
    if executable == sys.executable and binary.booted():
        return _packages_of_overlays()
    if index.is_file():
        found = {name: _directory_of(name, index.parent) for name in index.read_text(encoding="utf-8").split()}
        return {name: path for name, path in found.items() if path}
    info = binary.call(["info"], prefix=_prefix_of(executable))
    sources = [item for project in info.get("editables", []) for item in project["sources"].items()]
    return {name: path for name, path in sources if "." not in name and os.path.isdir(path)}


def _overlays() -> List[str]:
    """Directories of the overlays of the booted environment in which this runs."""
    try:
        with open(os.path.join(sys.prefix, ".cpack", "overlays"), encoding="utf-8", errors="surrogateescape") as overlays:
            cache = os.path.dirname(os.path.dirname(sys.prefix))
            return [os.path.join(cache, line.strip()) for line in overlays]
    except FileNotFoundError:
        # A launcher of an older release put them on PYTHONPATH.
        return list(filter(None, os.environ.get("CPACK_ADDED_PATH", "").split(os.pathsep)))


def _directory_of(package: str, beside: Path) -> Optional[str]:
    """Where a package is imported from, else where it lies unpacked beside the index."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec and spec.origin:
        return os.path.dirname(spec.origin)
    return str(beside / package) if (beside / package).is_dir() else None


def _packages_of_overlays() -> Dict[str, str]:
    found: Dict[str, str] = {}
    for overlay in _overlays():
        for entry in sorted(Path(overlay).iterdir()):
            if entry.is_dir() and entry.name.isidentifier() and entry.name != "__pycache__":
                found.setdefault(entry.name, str(entry))
    return found


def _prefix_of(executable: str) -> str:
    if executable == sys.executable:
        return sys.prefix
    done = subprocess.run([executable, "-c", "import sys; print(sys.prefix)"], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().strip()


def get_default_fs() -> str:
    """The default file system of Hadoop's configuration."""
    for directory in (os.environ.get("HADOOP_CONF_DIR"), os.path.join(os.environ.get("HADOOP_HOME", ""), "etc/hadoop")):
        value = _property(Path(directory or "") / "core-site.xml", "fs.defaultFS")
        if value and "${" not in value:
            return value
    try:
        output = subprocess.check_output(["hdfs", "getconf", "-confKey", "fs.defaultFS"])
    except (OSError, subprocess.CalledProcessError) as error:
        raise ClusterPackError(
            f"no default file system ({error}): set HADOOP_CONF_DIR, or say where to upload to with package_path"
        ) from None
    return output.decode().strip()


def _with_name_node(uri: str) -> str:
    """The URI with the name node that it leaves to the configuration: node managers refuse URIs without."""
    url = urlparse(uri)
    return f"{get_default_fs()}{url.path}" if url.scheme in ("hdfs", "viewfs") and not url.netloc else uri


def _property(path: Path, name: str) -> Optional[str]:
    if not path.is_file():
        return None
    for element in ElementTree.parse(path).getroot().iter("property"):
        if (element.findtext("name") or "").strip() == name:
            return (element.findtext("value") or "").strip()
    return None


def _build_package_path(name: str, extension: Optional[str]) -> str:
    path = f"{get_default_fs()}/user/{_get_current_user()}/envs/{name}"
    return path if extension is None else f"{path}.{extension}"


def detect_archive_names(
    packer: Packer, package_path: Optional[str] = None, allow_large_pex: Optional[bool] = None
) -> Tuple[str, str, str]:
    """Where to upload to, the name of the environment, and the PEX or launcher in which this runs (or nothing)."""
    running = get_current_pex_filepath() if _running_from_pex() else ""
    env_name = os.path.splitext(os.path.basename(running))[0] if running else packer.env_name()
    extension = packer.extension()
    if not package_path:
        package_path = _build_package_path(env_name, extension)
    elif os.path.splitext(package_path)[1] != f".{extension}" and not package_path.endswith(f".{extension}.zip"):
        raise ValueError(f"{package_path} has the wrong extension: .{extension} is expected")
    is_large = bool(allow_large_pex) or (bool(running) and os.path.isdir(running))
    if is_large and extension == PEX_PACKER.extension() and not package_path.endswith(".zip"):
        package_path += ".zip"
    return package_path, env_name, running


def resolve_zip_from_pex_dir(pex_dir: str) -> str:
    """The zip from which the directory of a PEX was unpacked."""
    found = glob.glob(os.path.join(os.path.dirname(pex_dir), "*.pex.zip"))
    own = [path for path in found if path == f"{pex_dir}.zip"]
    if len(found) != 1 and not own:
        raise ValueError(f"{pex_dir}.zip not found, found {found}")
    return own[0] if own else found[0]


def detect_packer_from_spec(spec_file: str) -> Packer:
    """The packer of a requirements file."""
    if os.path.basename(spec_file) != "requirements.txt":
        raise ValueError(f"{spec_file} is unsupported: a requirements.txt is expected")
    return PEX_PACKER


def detect_packer_from_env() -> Packer:
    """The packer of the environment in which this runs."""
    return PEX_PACKER


def detect_packer_from_file(zip_file: str) -> Packer:
    """The packer of a packed environment."""
    if not zip_file.endswith((".pex", ".pex.zip")):
        raise ValueError(f"{zip_file} is unsupported: .pex or .pex.zip is expected")
    return PEX_PACKER


def get_current_pex_filepath() -> str:
    """The PEX or launcher in which this runs."""
    running = _running()
    if not running:
        raise RuntimeError("not running from a PEX or a launcher")
    return running


def get_pyenv_usage_from_archive(path_to_archive: str) -> PythonEnvDescription:
    """How a packed environment is used by a container."""
    name = os.path.basename(urlparse(path_to_archive).path or path_to_archive)
    if name.endswith(".pex.zip"):
        return PythonEnvDescription(path_to_archive, LARGE_PEX_CMD, UNPACKED_ENV_NAME, True)
    if name.endswith(".pex") or name == "env-python":
        return PythonEnvDescription(path_to_archive, f"./{name}", name, False)
    raise ValueError(f"{path_to_archive} is unsupported: what upload_env returned is expected (.pex, .pex.zip, env-python)")


def _running() -> str:
    return os.environ.get("PEX") or binary.booted() or ""


def _running_from_pex() -> bool:
    return bool(_running())


def _get_tmp_dir() -> str:
    return tempfile.mkdtemp(prefix="cluster-pack-")


def _normalised(name: str) -> str:
    """As PEP 503 compares names."""
    return name.lower().replace("_", "-").replace(".", "-")


