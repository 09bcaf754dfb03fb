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


# Of file systems that are reached with keys.
WITH_KEYS = ("s3:", "s3a:", "gs:", "gcs:", "abfs:", "abfss:", "az:", "wasb:", "wasbs:")


# Of what this process uploaded, by its path.
_parts: Dict[str, Parts] = {}


# How this process reached what it uploaded, by its path.
_access: Dict[str, Dict[str, str]] = {}


# What fsspec is told of a file system that only it opens, by the path.
_fs_args: Dict[str, Dict[str, Any]] = {}


def _reach(path: str, fs_args: Dict[str, Any]) -> Dict[str, str]:
    """Keeps how a path is reached, and returns it as variables."""
    _fs_args[path] = fs_args
    _access[path] = filesystem.variables(fs_args, path)
    return _access[path]


def access(package_path: str) -> Optional[Dict[str, str]]:
    """How an environment is reached, as variables: as it was uploaded, by this process. None, where that is unknown and a
    guess would send the user's keys to an endpoint that may be another user's."""
    known = _access.get(package_path)
    return {} if known is None and not package_path.startswith(WITH_KEYS) else known


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
    :param additional_packages: packages and versions to add or replace, with what they require
    :param ignored_packages: packages to leave out, unless something that is packed requires them
    :param only_packages: packages to keep, with what they require, and no other
    :param force_upload: send it even if the same is there
    :param include_editable: pack editable projects, too
    :param fs_args: credentials and endpoint, as fsspec's file systems name them
    :param allow_large_pex: make a zipped PEX directory, whose entry point is <unpacked>/__main__.py
    :param include_pex_tools: make a PEX that has the tools
    :param additional_repo: further package indexes
    :param additional_indexes: pages or directories with wheels
    """
    packer = packer or packaging.detect_packer_from_env()
    path, name, running = packaging.detect_archive_names(packer, package_path, allow_large_pex)
    environ = _reach(path, fs_args)
    if running:
        _publish_running(running, path, force_upload, environ)
        return path, name
    is_pex = packer.extension() == packaging.PEX_PACKER.extension()
    if is_pex and _use_fallback(path, force_upload, environ, additional_packages, ignored_packages, only_packages):
        return path, name
    if not packaging.packs_as_pex_packer(packer):
        arguments = {
            "additional_packages": additional_packages,
            "ignored_packages": ignored_packages,
            "editable_requirements": packaging.get_editable_requirements() if include_editable else {},
            "allow_large_pex": allow_large_pex,
            "include_pex_tools": include_pex_tools,
            "additional_repo": additional_repo,
            "additional_indexes": additional_indexes,
        }
        current = packaging.get_non_editable_requirements()
        requirements = _build_reqs_from_venv(additional_packages, current, ignored_packages, only_packages)
        _pack_and_publish(packer, path, force_upload, environ, requirements, arguments)
        return path, name
    changes = _changes(additional_packages, ignored_packages, only_packages)
    changes += packaging._index_arguments(additional_repo, additional_indexes)
    if allow_large_pex or include_pex_tools or settings.wants_pex() or not filesystem.is_own(path):
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
    """Uploads an environment that is packed already: a local path or an HTTP address.

    What `upload_env` left is published with the layers that it needs, so that it runs where it then lies.
    """
    packer = packaging.detect_packer_from_file(zip_file)
    is_zip = not package_path and zip_file.endswith(".zip")
    found, _, _ = packaging.detect_archive_names(packer, package_path, is_zip)
    # A path that was given is where it lies, whatever the file is called.
    package_path = package_path or found
    _reach(package_path, fs_args)
    with tempfile.TemporaryDirectory() as directory:
        local = _local_copy(zip_file, directory)
        _publish(local, package_path, {}, force_upload, _access[package_path])
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
    unique = _unique_filename(spec_file, packer)
    if not package_path:
        user = settings._get_current_user()
        package_path = f"{packaging.get_default_fs()}/user/{user}/envs/{unique}"
    elif not package_path.endswith(packer.extension()):
        package_path = os.path.join(package_path, unique)
    if allow_large_pex and not package_path.endswith(".zip"):
        package_path += ".zip"
    environ = _reach(package_path, fs_args)
    environ = {**environ, **packaging._tools_of_this_python()}
    spec = ["-r", os.path.abspath(spec_file), *packaging._index_arguments(None, None)]
    if allow_large_pex or settings.wants_pex() or not filesystem.is_own(package_path):
        _upload_pex(package_path, spec, force_upload, False, allow_large_pex, environ)
    else:
        _upload_launcher(package_path, spec, force_upload, False, environ)
    return package_path


def _unique_filename(spec_file: str, packer: packaging.Packer) -> str:
    folder = os.path.basename(os.path.dirname(spec_file))
    return "_".join(filter(None, ["cluster_pack", folder])) + f".{packer.extension()}"


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
    if not filesystem.is_own(package_path):
        return _beside_by_fsspec(package_path, fs_args)
    return binary.call(["metadata", package_path], environ=filesystem.variables(fs_args, package_path))


def _changes(additional: Dict[str, str], ignored: Collection[str], only: Optional[Collection[str]]) -> List[str]:
    """The options of `cluster-pack` for changes, which are resolved as an installer would that gets what remains: what is
    packed is packed with what it requires."""
    if not additional and not ignored and only is None:
        return []
    installed = {_normalised(name) for name in packaging.get_non_editable_requirements()}
    arguments: List[str] = ["--with-dependencies"]
    for requirement in packaging.format_requirements(additional):
        arguments += ["--add", requirement]
    known = installed | {_normalised(name) for name in additional}
    # Nothing is what an empty `only_packages` keeps, and no list of names says that to `cluster-pack`.
    left_out = known if only is not None and not only else {_normalised(name) for name in ignored}
    for name in sorted(left_out & known):
        arguments += ["--ignore", name]
    unknown = [name for name in only or [] if _normalised(name) not in known]
    if unknown and len(unknown) < len(only or []):
        _logger.warning("only_packages: %s: not installed, or editable (see include_editable)", ", ".join(unknown))
    else:
        unknown = []
    for name in only or []:
        if name not in unknown:
            arguments += ["--only", name]
    return arguments


def _upload_launcher(path: str, changes: List[str], force: bool, editable: bool, environ: Dict[str, str]) -> None:
    command = ["upload", "--package", path, *changes]
    if force:
        command.append("--repair")
    if not editable:
        command.append("--no-editable")
    report = binary.call(command, prefix=sys.prefix, environ=environ)
    _remember(path, report)
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
        with zipfile.ZipFile(local) as pex:
            packages = json.loads(pex.read("PEX-INFO"))["requirements"]
        _publish(local, path, build_metadata_dict(packages), force, environ)


def _handle_packages(
    current_packages: Dict[str, str],
    additional_packages: Dict[str, str] = {},
    ignored_packages: Collection[str] = [],
    only_packages: Optional[Collection[str]] = None,
) -> None:
    """What other packers are given, by the rules of the library that they were written for: what is added replaces that
    whose name is part of its own (a wheel's file name, `tensorflow_gpu`), and names are compared as they are written."""
    for name in list(current_packages):
        if any(name in other for other in additional_packages):
            del current_packages[name]
    current_packages.update(additional_packages)
    for name in list(current_packages):
        if name in ignored_packages or (only_packages is not None and name not in only_packages):
            del current_packages[name]


def _build_reqs_from_venv(
    additional_packages: Dict[str, str],
    current_packages: Dict[str, str],
    ignored_packages: Collection[str],
    only_packages: Optional[Collection[str]] = None,
) -> List[str]:
    _handle_packages(current_packages, additional_packages, ignored_packages, only_packages)
    return packaging.format_requirements(current_packages)


def _pack_and_publish(
    packer: packaging.Packer,
    path: str,
    force: bool,
    environ: Dict[str, str],
    requirements: List[str],
    arguments: Dict[str, Any],
) -> None:
    """Lets a packer of the user's make the file. It is not asked for what lies there already."""
    beside = build_metadata_dict(requirements)
    if not force and _is_there(path, beside, environ):
        _logger.info("%s is unchanged", path)
        return
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, f"{packer.env_name()}.{packer.extension()}")
        local = packer.pack(output=output, reqs=requirements, **arguments)
        _publish(local, path, beside, force, environ)


def _is_there(path: str, beside: Dict[str, Any], environ: Dict[str, str]) -> bool:
    """Whether what lies there says the same of itself."""
    try:
        found = binary.call(["metadata", path], environ=environ) if filesystem.is_own(path) else _beside_by_fsspec(path)
    except (ClusterPackError, OSError, ValueError):
        return False

    def told(of: Dict[str, Any]) -> List[Any]:
        return [sorted(of.get(PACKAGE_INSTALLED_KEY, [])), of.get(PLATFORM_KEY), of.get(PYTHON_VERSION_KEY)]

    return told(found) == told(beside)


def _publish(
    local: str, path: str, beside: Dict[str, Any], force: bool, environ: Dict[str, str], keep_store: bool = False
) -> None:
    """Lays a file at a path. One that needs a store takes along what it needs."""
    if not filesystem.is_own(path):
        _write_by_fsspec(local, path, beside, force)
        return
    command = ["publish", local, path, "--metadata", json.dumps(beside)]
    command += [*(["--force"] if force else []), *(["--keep-store"] if keep_store else [])]
    _remember(path, binary.call(command, environ=environ))


def _metadata_path(path: str) -> str:
    return os.path.splitext(path)[0] + ".json"


def _beside_by_fsspec(path: str, fs_args: Dict[str, Any] = {}) -> Dict[str, Any]:
    fs_args = fs_args or _fs_args.get(path, {})
    files, place = filesystem.resolve_filesystem_and_path(_metadata_path(path), **fs_args)
    return json.loads(files.cat_file(place))


def _write_by_fsspec(local: str, path: str, beside: Dict[str, Any], force: bool) -> None:
    """Lays one file that needs no store at a path of a file system that only fsspec opens, and what tells of it beside."""
    if not force and beside and _is_there(path, beside, {}):
        _logger.info("%s is unchanged", path)
        return
    scheme = urlparse(path).scheme
    _logger.info("cluster-pack does not open %s:, so one file that needs no store is written there by fsspec: %s", scheme, path)
    files, place = filesystem.resolve_filesystem_and_path(path, **_fs_args.get(path, {}))
    files.makedirs(os.path.dirname(place), exist_ok=True)
    # Metadata are missing, or tell of the file that is there, whenever this process is killed.
    told = _metadata_path(place)
    if files.exists(told):
        files.rm_file(told)
    files.put_file(local, place)
    files.pipe_file(told, json.dumps(beside).encode())
    _parts.pop(path, None)


def _remember(path: str, report: Dict[str, Any]) -> None:
    """Keeps the parts of a launcher that was laid at a path; forgets those of what lay there before."""
    _parts.pop(path, None)
    if all(report.get(part) for part in Parts._fields):
        places = (str(report[part]) for part in Parts._fields)
        _parts[path] = Parts(*(urlparse(uri).path if uri.startswith("file:") else uri for uri in places))


def _publish_running(running: str, path: str, force: bool, environ: Dict[str, str]) -> None:
    """Forwards what booted this environment: nothing is packed."""
    if os.path.isdir(running):
        local = packaging.resolve_zip_from_pex_dir(running)
    else:
        local = binary.whole(running) if running == binary.booted() else running
    packages = packaging.format_requirements(packaging.get_non_editable_requirements())
    _publish(local, path, build_metadata_dict(packages), force, environ, keep_store=True)


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
