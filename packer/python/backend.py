"""Builds the wheel: `cpack-boot`, which is linked statically, `cpack-bench`, then `cluster-pack` by maturin.

`CPACK_WHEEL_PROFILE` names a cargo profile for `cluster-pack` and `cpack-bench` instead of `release`, `CPACK_WHEEL_BOOT` and
`CPACK_WHEEL_BENCH` a `cpack-boot` and a `cpack-bench` that are built already.
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
BENCH = "cpack-bench"
BUILD_BOOT = ["cargo", "build", "--config", "bootstrap/static.toml", "--profile", "boot", "-p", BOOT]
STORES = ["--features", "network"]


def _target():
    return CHECKOUT / os.environ.get("CARGO_TARGET_DIR", "target")


def _profile():
    return os.environ.get("CPACK_WHEEL_PROFILE", "release")


def _built_boot():
    named = os.environ.get("CPACK_WHEEL_BOOT")
    if named:
        return Path(named)
    subprocess.run(BUILD_BOOT + STORES, cwd=CHECKOUT, check=True)
    return _target() / "x86_64-unknown-linux-gnu" / "boot" / BOOT


def _built_bench():
    named = os.environ.get("CPACK_WHEEL_BENCH")
    if named:
        return Path(named)
    profile = _profile()
    subprocess.run(["cargo", "build", "--profile", profile, "-p", BENCH], cwd=CHECKOUT, check=True)
    return _target() / ("debug" if profile == "dev" else profile) / BENCH


def _scripts():
    scripts = HERE / "cluster_pack.data" / "scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    return scripts


def _settings(config_settings):
    settings = dict(config_settings or {})
    settings.setdefault("build-args", f"--profile {_profile()}")
    return settings


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    _scripts()  # maturin fails if the configured directory is missing
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, _settings(config_settings))


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    shutil.copy(_built_boot(), _scripts() / BOOT)
    shutil.copy(_built_bench(), _scripts() / BENCH)
    return maturin.build_wheel(wheel_directory, _settings(config_settings), metadata_directory)
