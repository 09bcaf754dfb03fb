"""File systems of existing code, by fsspec where it is installed, and what their arguments mean to `cluster-pack`."""

from __future__ import annotations

import logging
import os
from typing import Any, Callable, Dict, Mapping, Tuple
from urllib.parse import urlparse

from cluster_pack.errors import ClusterPackError

_logger = logging.getLogger(__name__)


# What `pip install cluster-pack` does not bring, by the extra that does.
_EXTRAS = {"s3": "s3", "s3a": "s3", "hdfs": "hdfs", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
_EXTRAS.update(dict.fromkeys(("abfs", "abfss", "az"), "azure"))

# What `cluster-pack` itself opens.
_OWN = {"", "file", "hdfs", "viewfs", "s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "wasb", "wasbs", "http", "https"}


def is_own(uri: str) -> bool:
    """Whether `cluster-pack` opens the URI; else only fsspec may."""
    return _scheme(uri) in _OWN


def _scheme(uri: str) -> str:
    return urlparse(uri).scheme.lower() if "://" in uri or uri.startswith("file:") else ""


def resolve_filesystem_and_path(uri: str, **kwargs: Any) -> Tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it."""
    url = urlparse(uri)
    if url.scheme in ("hdfs", "viewfs"):
        host, port = _authority(uri, url.netloc)
        host = f"{url.scheme}://{host}" if host else "default"
        return _filesystem("hdfs", host=host, port=port, **kwargs), url.path
    if url.scheme in ("", "file", "s3", "s3a"):
        return _filesystem(url.scheme or "file", **kwargs), url.path
    # The driver knows what belongs to the path: a bucket, a host, a container without its account.
    uri = uri.replace("wasb", "abfs", 1) if url.scheme in ("wasb", "wasbs") else uri
    return _opened(urlparse(uri).scheme, lambda fsspec: fsspec.core.url_to_fs(uri, **kwargs))


def _authority(uri: str, authority: str) -> Tuple[str, int]:
    """Host and port as they are written: names of view file systems have capitals, and a user belongs to the host."""
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        return authority, 0
    if port and not (port.isascii() and port.isdigit()):
        raise ValueError(f"{uri}: the port {port!r} is no number: write SCHEME://HOST:PORT/PATH")
    return host, int(port or 0)


def _filesystem(protocol: str, **kwargs: Any) -> Any:
    return _opened(protocol, lambda fsspec: fsspec.filesystem(protocol, **kwargs))


def _opened(protocol: str, opening: Callable[[Any], Any]) -> Any:
    try:
        import fsspec
        import fsspec.core
    except ImportError:
        raise ClusterPackError("fsspec is not installed: pip install 'cluster-pack[fs]'") from None
    try:
        return opening(fsspec)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        ways = f"pip install 'cluster-pack[{extra}]'" if extra else f"install fsspec's driver for {protocol}:"
        raise ClusterPackError(f"{protocol} cannot be opened from Python ({error}): {ways}") from error


_GOOGLE = {"token": "GOOGLE_APPLICATION_CREDENTIALS", "endpoint_url": "STORAGE_EMULATOR_HOST"}

_AZURE = {
    "account_name": "AZURE_STORAGE_ACCOUNT",
    "account_key": "AZURE_STORAGE_KEY",
    "sas_token": "AZURE_STORAGE_SAS_TOKEN",
    "connection_string": "AZURE_STORAGE_CONNECTION_STRING",
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "client_secret": "AZURE_CLIENT_SECRET",
}

_MEANING = {
    "key": "AWS_ACCESS_KEY_ID",
    "secret": "AWS_SECRET_ACCESS_KEY",
    "token": "AWS_SESSION_TOKEN",
    "profile": "AWS_PROFILE",
    "endpoint_url": "AWS_ENDPOINT_URL",
    "region_name": "AWS_REGION",
    "user": "HADOOP_USER_NAME",
    "kerb_ticket": "KRB5CCNAME",
}


def _meaning(uri: str) -> Dict[str, str]:
    scheme = _scheme(uri)
    if scheme in ("gs", "gcs"):
        return _GOOGLE
    return _AZURE if _EXTRAS.get(scheme) == "azure" or scheme in ("wasb", "wasbs") else _MEANING


# What changes nothing for `cluster-pack`.
_UNIMPORTANT = {"use_ssl", "use_listings_cache", "anon", "config_kwargs", "project", "credential"}


def variables(fs_args: Mapping[str, Any], uri: str = "") -> Dict[str, str]:
    """The arguments of the file system of `uri` as the variables that `cluster-pack` reads: never on a command line."""
    if not is_own(uri):
        return {}
    meaning = _meaning(uri)
    flat = {**fs_args, **(fs_args.get("client_kwargs") or {})}
    flat.pop("client_kwargs", None)
    if meaning is _GOOGLE and not os.path.isfile(str(flat.get("token"))):
        # Of what gcsfs takes, a file of credentials is what another program can read; the rest has names of its own.
        if flat.pop("token", None) not in (None, "anon", "google_default", "cloud"):
            _logger.warning("fs_args: token is ignored: name a file of credentials")
    unknown = sorted(set(flat) - set(meaning) - _UNIMPORTANT)
    if unknown:
        _logger.warning("fs_args: %s mean nothing here and are ignored", ", ".join(unknown))
    return {meaning[name]: str(value) for name, value in flat.items() if name in meaning and value is not None}
