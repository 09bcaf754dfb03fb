"""File systems of existing code, by fsspec where it is installed, and what their arguments mean to `cluster-pack`."""

from __future__ import annotations

import logging
from typing import Any, Dict, Mapping, Tuple
from urllib.parse import urlparse

from cluster_pack.errors import ClusterPackError

_logger = logging.getLogger(__name__)


# What `pip install cluster-pack` does not bring, by the extra that does.
_EXTRAS = {"s3": "s3", "s3a": "s3", "hdfs": "hdfs"}


def resolve_filesystem_and_path(uri: str, **kwargs: Any) -> Tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it."""
    url = urlparse(uri)
    if url.scheme in ("hdfs", "viewfs"):
        host, port = _authority(uri, url.netloc)
        host = f"{url.scheme}://{host}" if host else "default"
        return _filesystem("hdfs", host=host, port=port, **kwargs), url.path
    return _filesystem(url.scheme or "file", **kwargs), url.path


def _authority(uri: str, authority: str) -> Tuple[str, int]:
    """Host and port as they are written: names of view file systems have capitals, and a user belongs to the host."""
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        return authority, 0
    if port and not (port.isascii() and port.isdigit()):
        raise ValueError(f"{uri}: the port {port!r} is no number: write SCHEME://HOST:PORT/PATH")
    return host, int(port or 0)


def _filesystem(protocol: str, **kwargs: Any) -> Any:
    try:
        import fsspec
    except ImportError:
        raise ClusterPackError("fsspec is not installed: pip install 'cluster-pack[fs]'") from None
    try:
        return fsspec.filesystem(protocol, **kwargs)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        ways = f"pip install 'cluster-pack[{extra}]'" if extra else f"install fsspec's driver for {protocol}:"
        raise ClusterPackError(f"{protocol} cannot be opened from Python ({error}): {ways}") from error


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


def variables(fs_args: Mapping[str, Any]) -> Dict[str, str]:
    """The arguments of a file system as the variables that `cluster-pack` reads: never on a command line."""
    flat = {**fs_args, **(fs_args.get("client_kwargs") or {})}
    flat.pop("client_kwargs", None)
    unknown = sorted(set(flat) - set(_MEANING) - {"use_ssl", "use_listings_cache", "anon", "config_kwargs"})
    if unknown:
        _logger.warning("fs_args: %s mean nothing here and are ignored", ", ".join(unknown))
    return {_MEANING[name]: str(value) for name, value in flat.items() if name in _MEANING and value is not None}
