"""Ship a Python environment to a cluster so that the first line of code runs there about as soon as here."""

from cluster_pack.errors import ClusterPackError, RemoteError
from cluster_pack.functions import run
from cluster_pack.packaging import (
    PEX_PACKER,
    Packer,
    detect_packer_from_file,
    get_default_fs,
    get_editable_requirements,
    get_non_editable_requirements,
    get_pyenv_usage_from_archive,
    zip_path,
)
from cluster_pack.settings import (
    LayoutOptimization,
    get_layout_optimization,
    get_venv_optimization_level,
    is_uv_available,
    set_layout_optimization,
    set_venv_optimization_level,
)
from cluster_pack.shell import Shell
from cluster_pack.skein import skein_launcher as yarn_launcher
from cluster_pack.uploader import upload_env, upload_spec, upload_zip

__all__ = [
    "PEX_PACKER",
    "ClusterPackError",
    "LayoutOptimization",
    "Packer",
    "RemoteError",
    "Shell",
    "detect_packer_from_file",
    "get_default_fs",
    "get_editable_requirements",
    "get_layout_optimization",
    "get_non_editable_requirements",
    "get_pyenv_usage_from_archive",
    "get_venv_optimization_level",
    "is_uv_available",
    "run",
    "set_layout_optimization",
    "set_venv_optimization_level",
    "upload_env",
    "upload_spec",
    "upload_zip",
    "yarn_launcher",
    "zip_path",
]
