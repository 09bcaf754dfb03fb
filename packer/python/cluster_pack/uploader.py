"""Environments and where they lie."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple, Union
from urllib import request
from urllib.parse import urlparse

from cluster_pack import binary, filesystem, packaging, settings
from cluster_pack.errors import ClusterPackError
from cluster_pack.packaging import PythonEnvDescription, _normalised

_logger = logging.getLogger(__name__)

PACKAGE_INSTALLED_KEY = "package_installed"
PLATFORM_KEY = "platform"
PYTHON_VERSION_KEY = "python_version"

_TOOLS = frozenset({"pip", "setuptools", "wheel"})


class Parts(NamedTuple):
    """What never changes of an uploaded launcher: where its job lies, and the executable that goes beside it."""

    launcher: str
    boot: str

    def named(self, name: str) -> Dict[str, str]:
        """Files of a working directory in which the launcher is `name`."""
        return {name: self.launcher, "cpack-boot": self.boot}


# Of what this process uploaded, by its path.
_parts: Dict[str, Parts] = {}


def files_of(package_path: str, name: str) -> Dict[str, str]:
    """What is shipped of an uploaded environment, by the names in a working directory in which it is `name`."""
    parts = _parts.get(package_path)
    return parts.named(name) if parts else {name: packaging._with_name_node(package_path)}


def get_platform_and_python_version() -> Tuple[str, str]:
    """This platform and the full version of this Python."""
    return platform.platform(), platform.python_version()


def build_metadata_dict(current_packages_list: List[str]) -> Dict:
    """What lies beside a packed environment."""
    here, version = get_platform_and_python_version()
    return {PACKAGE_INSTALLED_KEY: current_packages_list, PLATFORM_KEY: here, PYTHON_VERSION_KEY: version}


def upload_env(
    package_path: Optional[str] = None,
    packer: Optional[packaging.Packer] = None,
    additional_packages: Dict[str, str] = {},
    ignored_packages: Collection[str] = [],
    only_packages: Optional[Collection[str]] = None,
    force_upload: bool = False,
    include_editable: bool = False,
    fs_args: Dict[str, Any] = {},
    allow_large_pex: bool = False,
    include_pex_tools: bool = False,
    additional_repo: Optional[Union[str, List[str]]] = None,
    additional_indexes: Optional[List[str]] = None,
) -> Tuple[str, str]:
    """Uploads the environment in which this runs, unless it is there already, and returns its path and its name.

    What lies at the path runs as `./name`: a launcher, whose layers are kept in the store (CPACK_STORE, by default
    `.cluster-pack` beside it). It is a PEX with `allow_large_pex` (as a zip to be unpacked), `include_pex_tools` or
    `C_PACK_FORMAT=pex`.

    :param package_path: where to upload to; by default into the user's directory on Hadoop's default file system
    :param packer: another packer than this library's
    :param additional_packages: packages and versions to add or replace
    :param ignored_packages: packages to leave out
    :param only_packages: packages to keep, and no other
    :param force_upload: send it even if the same is there
    :param include_editable: pack editable projects, too
    :param fs_args: credentials and endpoint, as fsspec's file systems name them
    :param allow_large_pex: make a zipped PEX directory, whose entry point is <unpacked>/__main__.py
    :param include_pex_tools: make a PEX that has the tools
    :param additional_repo: further package indexes
    :param additional_indexes: pages or directories with wheels
    """
    own_packer = packer is None or type(packer) is packaging.PexPacker
    packer = packer or packaging.detect_packer_from_env()
    path, name, running = packaging.detect_archive_names(packer, package_path, allow_large_pex)
    environ = filesystem.variables(fs_args)
    if running:
        _publish_running(running, path, force_upload, environ)
        return path, name
    changes = _changes(additional_packages, ignored_packages, only_packages)
    changes += packaging._index_arguments(additional_repo, additional_indexes)
    if _use_fallback(path, force_upload, environ, additional_packages, ignored_packages, only_packages):
        return path, name
    if not own_packer:
        _pack_and_publish(packer, path, force_upload, environ, changes, include_editable)
    elif allow_large_pex or include_pex_tools or settings.wants_pex():
        _upload_pex(path, changes, force_upload, include_editable, allow_large_pex, environ)
    else:
        _upload_launcher(path, changes, force_upload, include_editable, environ)
    return path, name


def upload_zip(
    zip_file: str,
    package_path: Optional[str] = None,
    force_upload: bool = False,
    fs_args: Dict[str, Any] = {},
) -> str:
    """Uploads an environment that is packed already: a local path or an HTTP address."""
    packer = packaging.detect_packer_from_file(zip_file)
    is_zip = not package_path and zip_file.endswith(".zip")
    found, _, _ = packaging.detect_archive_names(packer, package_path, is_zip)
    # A path that was given is where it lies, whatever the file is called.
    package_path = package_path or found
    with tempfile.TemporaryDirectory() as directory:
        local = _local_copy(zip_file, directory)
        _publish(local, package_path, {}, force_upload, filesystem.variables(fs_args))
    return package_path


def upload_spec(
    spec_file: str,
    package_path: Optional[str] = None,
    force_upload: bool = False,
    fs_args: Dict[str, Any] = {},
    allow_large_pex: bool = False,
) -> str:
    """Uploads an environment made of a requirements file."""
    packer = packaging.detect_packer_from_spec(spec_file)
    folder = os.path.basename(os.path.dirname(spec_file))
    unique = "_".join(filter(None, ["cluster_pack", folder])) + f".{packer.extension()}"
    if not package_path:
        user = settings._get_current_user()
        package_path = f"{packaging.get_default_fs()}/user/{user}/envs/{unique}"
    elif not package_path.endswith(packer.extension()):
        package_path = os.path.join(package_path, unique)
    if allow_large_pex and not package_path.endswith(".zip"):
        package_path += ".zip"
    environ = filesystem.variables(fs_args)
    spec = ["-r", os.path.abspath(spec_file), *packaging._index_arguments(None, None)]
    if allow_large_pex or settings.wants_pex():
        _upload_pex(package_path, spec, force_upload, False, allow_large_pex, environ)
    else:
        _upload_launcher(package_path, spec, force_upload, False, environ)
    return package_path


class Shipped(NamedTuple):
    """What a job takes with it."""

    usage: PythonEnvDescription
    files: Dict[str, str]
    has_editables: bool


def for_job(package_path: Optional[str] = None, allow_large_pex: bool = False) -> Shipped:
    """What a job ships: the environment of `package_path`, else that in which this runs, editable projects included.

    Of what this process uploaded that is shipped which never changes, since YARN fails containers whose source did.
    """
    running = binary.booted()
    if package_path is None and running:
        usage = PythonEnvDescription(binary.whole(running), "./env-python", "env-python", False)
        return Shipped(usage, {usage.dest_path: usage.path_to_archive}, True)
    given = package_path is not None
    if package_path is None:
        package_path, _ = upload_env(include_editable=True, allow_large_pex=allow_large_pex)
    usage = packaging.get_pyenv_usage_from_archive(package_path)
    files = files_of(package_path, usage.dest_path)
    return Shipped(usage._replace(path_to_archive=files[usage.dest_path]), files, not given)


def metadata(package_path: str, fs_args: Dict[str, Any] = {}) -> Dict[str, Any]:
    """What lies beside an uploaded environment; nothing, where nothing does."""
    return binary.call(["metadata", package_path], environ=filesystem.variables(fs_args))


def _changes(additional: Dict[str, str], ignored: Collection[str], only: Optional[Collection[str]]) -> List[str]:
    installed = {_normalised(name) for name in packaging.get_non_editable_requirements()} if ignored else set()
    arguments: List[str] = []
    for requirement in packaging.format_requirements(additional):
        arguments += ["--add", requirement]
    for name in ignored:
        if _normalised(name) in installed:
            arguments += ["--ignore", name]
    for name in only or []:
        arguments += ["--only", name]
    return arguments


def _upload_launcher(path: str, changes: List[str], force: bool, editable: bool, environ: Dict[str, str]) -> None:
    command = ["upload", "--package", path, *changes]
    if force:
        command.append("--repair")
    if not editable:
        command.append("--no-editable")
    report = binary.call(command, prefix=sys.prefix, environ=environ)
    places = (str(report[part]) for part in Parts._fields)
    _parts[path] = Parts(*(urlparse(uri).path if uri.startswith("file:") else uri for uri in places))
    verb = "is unchanged" if report["unchanged"] else "uploaded"
    _logger.info("%s %s (sent %d bytes)", path, verb, report["sent_bytes"])


def _upload_pex(
    path: str, changes: List[str], force: bool, editable: bool, large: bool, environ: Dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, os.path.basename(path))
        projects = [] if editable else binary.call(["info"], prefix=sys.prefix, environ=environ).get("editables", [])
        without = [word for project in projects for word in ("--ignore", project["name"])]
        local = packaging._pack_pex([*changes, *without], output, "fallback", large, sys.prefix)
        packages = packaging.format_requirements(packaging.get_non_editable_requirements())
        _publish(local, path, build_metadata_dict(packages), force, environ)


def _pack_and_publish(
    packer: packaging.Packer, path: str, force: bool, environ: Dict[str, str], changes: List[str], editable: bool
) -> None:
    if changes:
        raise ClusterPackError(f"{type(packer).__name__} packs by itself: change the environment instead of the upload")
    requirements = packaging.format_requirements(packaging.get_non_editable_requirements())
    editables = packaging.get_editable_requirements() if editable else {}
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, f"{packer.env_name()}.{packer.extension()}")
        local = packer.pack(output, requirements, {}, [], editables)
        _publish(local, path, build_metadata_dict(requirements), force, environ)


def _publish(local: str, path: str, beside: Dict[str, Any], force: bool, environ: Dict[str, str]) -> None:
    command = ["publish", local, path, "--metadata", json.dumps(beside)]
    binary.call([*command, *(["--force"] if force else [])], environ=environ)


def _publish_running(running: str, path: str, force: bool, environ: Dict[str, str]) -> None:
    """Forwards what booted this environment: nothing is packed."""
    if os.path.isdir(running):
        local = packaging.resolve_zip_from_pex_dir(running)
    else:
        local = binary.whole(running) if running == binary.booted() else running
    packages = packaging.format_requirements(packaging.get_non_editable_requirements())
    _publish(local, path, build_metadata_dict(packages), force, environ)


def _use_fallback(
    path: str,
    force: bool,
    environ: Dict[str, str],
    additional: Dict[str, str],
    ignored: Collection[str],
    only: Optional[Collection[str]],
) -> bool:
    """Takes the PEX of C_PACK_ENV_FALLBACK_PATH if it has just the packages that are wanted."""
    fallback = os.environ.get("C_PACK_ENV_FALLBACK_PATH")
    if force or not fallback:
        return False
    wanted = {**packaging.get_non_editable_requirements(), **additional}
    left_out = {_normalised(name) for name in ignored}
    kept = None if only is None else {_normalised(name) for name in only}
    packages = {
        (_normalised(name), version)
        for name, version in wanted.items()
        if _normalised(name) not in left_out | _TOOLS and (kept is None or _normalised(name) in kept)
    }
    with tempfile.TemporaryDirectory() as directory:
        local = _local_copy(fallback, directory)
        with zipfile.ZipFile(local) as pex:
            wheels = [name.split("-") for name in json.loads(pex.read("PEX-INFO"))["distributions"]]
        found = {(_normalised(wheel[0]), wheel[1]) for wheel in wheels}
        found = {(name, version) for name, version in found if name not in _TOOLS}
        if found != packages:
            differing = sorted(name for name, _ in found ^ packages)
            _logger.warning("%s is not used: it differs in %s", fallback, ", ".join(differing))
            return False
        requirements = [f"{name}=={version}" for name, version in sorted(packages)]
        _publish(local, path, build_metadata_dict(requirements), force, environ)
    return True


def _local_copy(place: str, directory: str) -> str:
    url = urlparse(place)
    if url.scheme in ("", "file"):
        return url.path if url.scheme else place
    local = os.path.join(directory, os.path.basename(url.path))
    if url.scheme in ("http", "https"):
        with request.urlopen(place) as answer, open(local, "wb") as file:
            shutil.copyfileobj(answer, file)
    else:
        files, path = filesystem.resolve_filesystem_and_path(place)
        files.get(path, local)
    return local
