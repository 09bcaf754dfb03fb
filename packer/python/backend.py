"""Builds the wheel: `cpack-boot` first, since it is linked in its own way, then maturin, which builds `cluster-pack`.

`CPACK_WHEEL_PROFILE` names another profile of cargo than `release` for `cluster-pack`; `CPACK_WHEEL_BOOT` a `cpack-boot`
that is built already.
"""

import os
import shutil
import subprocess
from pathlib import Path

import maturin
from maturin import (  # noqa: F401  (what a build backend has to have)
    build_sdist,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
BOOT = "cpack-boot"
BUILD_BOOT = ["cargo", "build", "--config", "bootstrap/static.toml", "--profile", "boot", "-p", BOOT]
STORES = ["--features", "hdfs,s3"]


def _built_boot():
    named = os.environ.get("CPACK_WHEEL_BOOT")
    if named:
        return Path(named)
    subprocess.run(BUILD_BOOT + STORES, cwd=CHECKOUT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return CHECKOUT / target / "x86_64-unknown-linux-gnu" / "boot" / BOOT


def _scripts():
    scripts = HERE / "cluster_pack.data" / "scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    return scripts


def _settings(config_settings):
    profile = os.environ.get("CPACK_WHEEL_PROFILE", "release")
    settings = dict(config_settings or {})
    settings.setdefault("build-args", f"--profile {profile}")
    return settings


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    _scripts()  # maturin wants the directory that is configured
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, _settings(config_settings))


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    shutil.copy(_built_boot(), _scripts() / BOOT)
    return maturin.build_wheel(wheel_directory, _settings(config_settings), metadata_directory)
