"""File systems of existing code, by fsspec where it is installed, and what their arguments mean to `cluster-pack`."""

from __future__ import annotations

import logging
from typing import Any, Dict, Mapping, Tuple
from urllib.parse import urlparse

from cluster_pack.errors import ClusterPackError

_logger = logging.getLogger(__name__)


def resolve_filesystem_and_path(uri: str, **kwargs: Any) -> Tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise ClusterPackError("fsspec is not installed: pip install fsspec, and its driver for your file system") from None
    url = urlparse(uri)
    if url.scheme in ("hdfs", "viewfs"):
        host = f"{url.scheme}://{url.hostname}" if url.hostname else "default"
        return fsspec.filesystem("hdfs", host=host, port=url.port or 0, **kwargs), url.path
    return fsspec.filesystem(url.scheme or "file", **kwargs), url.path


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
