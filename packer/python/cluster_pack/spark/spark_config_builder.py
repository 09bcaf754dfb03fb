"""What a Spark session needs to run on a packed environment."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional

from cluster_pack import binary, filesystem, functions, get_pyenv_usage_from_archive, packaging, uploader
from cluster_pack.errors import ClusterPackError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_logger = logging.getLogger(__name__)


def add_packaged_environment(ssb: SparkSession.Builder, archive: str) -> None:
    """Makes executors start their Python in an uploaded environment. Before the session is made."""
    functions.check_python(archive, _s3_access(ssb) if archive.startswith(("s3:", "s3a:")) else None)
    usage = get_pyenv_usage_from_archive(archive)
    _set_python(ssb, usage.interpreter_cmd)
    source = _make_path_hadoop_compatible(archive)
    if usage.must_unpack:
        _add_or_merge(ssb, "spark.yarn.dist.archives", f"{source}#{usage.dest_path}")
        if not _on_yarn(ssb):
            _add_or_merge(ssb, "spark.archives", f"{source}#{usage.dest_path}")
        return
    ssb.config("spark.executorEnv.PEX_ROOT", "./.pex")
    if _on_yarn(ssb):
        for name, path in uploader.files_of(archive, usage.dest_path).items():
            _add_or_merge(ssb, "spark.yarn.dist.files", f"{_make_path_hadoop_compatible(path)}#{name}")
    else:
        _add_or_merge(ssb, "spark.files", source)


def add_current_environment(ssb: SparkSession.Builder) -> None:
    """Publishes what is missing of the environment in which this runs, editable projects included, and makes executors
    start their Python in it: nothing else is needed. Before the session is made."""
    master = str(_get_value(ssb, "spark.master") or "")
    mode = str(_get_value(ssb, "spark.submit.deployMode") or "client")
    prefix = None if binary.booted() else sys.prefix
    report = binary.call(["spark", "conf", "--master", master, "--deploy-mode", mode], prefix=prefix)
    for name, value in report["properties"].items():
        if name.endswith("files"):
            _add_or_merge(ssb, name, value)
    _set_python(ssb, report["properties"]["spark.pyspark.python"])
    _link_here(report["local"])
    if binary.booted():
        # The launcher may have another entry than Python.
        ssb.config("spark.executorEnv.CPACK_INTERPRETER", "1")


def add_editable_requirements(ssb: SparkSession.Builder) -> None:
    """Ships editable projects, on every kind of cluster: for environments that were uploaded without them."""
    for name, directory in packaging.get_editable_requirements().items():
        compiled = next(Path(directory).rglob("*.so"), None)
        if compiled is not None:
            raise ClusterPackError(
                f"{name} has compiled extensions ({compiled}), which cannot be imported from a zip: "
                "use upload_env(include_editable=True)"
            )
        _add_or_merge(ssb, "spark.submit.pyFiles", packaging.zip_path(directory))


def add_s3_params(ssb: SparkSession.Builder, fs_args: Dict[str, Any] = {}) -> None:
    """Tells Hadoop's S3 client what fsspec's is told, and executors that fetch their environment from S3.

    Both are properties of the application: where Spark shows them, it hides keys, secrets and tokens by their names
    (`spark.redaction.regex`), but not the id of a key. Executors with a role of their own need no key here.
    """
    ssb.config("spark.hadoop.fs.s3a.impl", "org.apache.hadoop.fs.s3a.S3AFileSystem")
    ssb.config("spark.hadoop.fs.s3a.path.style.access", "true")
    endpoint = (fs_args.get("client_kwargs") or {}).get("endpoint_url") or fs_args.get("endpoint_url")
    values = {"access.key": fs_args.get("key"), "secret.key": fs_args.get("secret"), "endpoint": endpoint}
    values["session.token"] = fs_args.get("token")
    for name, value in values.items():
        if value:
            ssb.config(f"spark.hadoop.fs.s3a.{name}", value)
    for name, value in filesystem.variables(fs_args).items():
        if name.startswith("AWS_"):
            ssb.config(f"spark.executorEnv.{name}", value)


def _s3_access(ssb: SparkSession.Builder) -> Optional[Dict[str, str]]:
    """How the session reaches S3, as variables: what `add_s3_params` or the user told Hadoop's client. None: not told."""
    meaning = {
        "access.key": "AWS_ACCESS_KEY_ID",
        "secret.key": "AWS_SECRET_ACCESS_KEY",
        "session.token": "AWS_SESSION_TOKEN",
        "endpoint": "AWS_ENDPOINT_URL",
        "endpoint.region": "AWS_REGION",
    }
    told = {variable: _get_value(ssb, f"spark.hadoop.fs.s3a.{name}") for name, variable in meaning.items()}
    for variable in ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_PROFILE"):
        told[variable] = told.get(variable) or _get_value(ssb, f"spark.executorEnv.{variable}")
    found = {variable: str(value) for variable, value in told.items() if value}
    endpoint = found.get("AWS_ENDPOINT_URL")
    if endpoint and "://" not in endpoint:
        plain = str(_get_value(ssb, "spark.hadoop.fs.s3a.connection.ssl.enabled") or "true").lower() == "false"
        found["AWS_ENDPOINT_URL"] = f"{'http' if plain else 'https'}://{endpoint}"
    return found or None


def _set_python(ssb: SparkSession.Builder, interpreter: str) -> None:
    # PySpark reads variables only: properties come too late for it.
    os.environ["PYSPARK_PYTHON"] = interpreter
    on_cluster = _get_value(ssb, "spark.submit.deployMode") == "cluster"
    os.environ["PYSPARK_DRIVER_PYTHON"] = interpreter if on_cluster else sys.executable


def _link_here(launcher: str) -> None:
    """Spark 4 starts the interpreter of executors on the driver, too, to plan data sources and table functions."""
    link = os.path.join(os.getcwd(), os.path.basename(launcher))
    if os.path.lexists(link):
        if os.path.realpath(link) != os.path.realpath(launcher):
            _logger.warning("%s is not this launcher: Spark 4 plans data sources and table functions with it", link)
        return
    try:
        os.symlink(launcher, link)
        atexit.register(_remove, link)
    except OSError as error:
        _logger.warning("%s: Spark 4 cannot plan data sources and table functions", error)


def _remove(link: str) -> None:
    if os.path.islink(link):
        os.unlink(link)


def _on_yarn(ssb: SparkSession.Builder) -> bool:
    return str(_get_value(ssb, "spark.master") or "").startswith("yarn")


def _get_value(ssb: SparkSession.Builder, key: str) -> Optional[str]:
    return ssb._options.get(key)  # type: ignore[attr-defined]


def _add_or_merge(ssb: SparkSession.Builder, key: str, value: str) -> None:
    there = [item for item in str(_get_value(ssb, key) or "").split(",") if item]
    ssb.config(key, ",".join(dict.fromkeys([*there, value])))


def _make_path_hadoop_compatible(path: str) -> str:
    """Hadoop knows S3 by another scheme, and its nodes want to be told the name node."""
    return f"s3a://{path[len('s3://') :].strip('/')}" if path.startswith("s3://") else packaging._with_name_node(path)
