"""Builds the wheel: `cpack-boot`, which is linked statically, `cpack-bench`, then `cluster-pack` by maturin.

`CPACK_WHEEL_PROFILE` names a cargo profile for `cluster-pack` and `cpack-bench` instead of `release`, `CPACK_WHEEL_BOOT` and
`CPACK_WHEEL_BENCH` a `cpack-boot` and a `cpack-bench` that are built already. With `CPACK_WHEEL_GLIBC=2.17` the wheel runs on
every Linux with that glibc or a later one: zig links it, which pip installs for the build. Otherwise it needs a glibc as new as
that of this machine.
"""

import os
import shutil
import subprocess
from pathlib import Path

import maturin
from maturin import (  # noqa: F401  (what a build backend has to have)
    build_sdist,
    get_requires_for_build_sdist,
)

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
BOOT = "cpack-boot"
BENCH = "cpack-bench"
BUILD_BOOT = ["cargo", "build", "--config", "bootstrap/static.toml", "--profile", "boot", "-p", BOOT]
STORES = ["--features", "network"]
TARGET = "x86_64-unknown-linux-gnu"


def _target():
    return CHECKOUT / os.environ.get("CARGO_TARGET_DIR", "target")


def _profile():
    return os.environ.get("CPACK_WHEEL_PROFILE", "release")


def _glibc():
    """The oldest glibc that the wheel runs on, None for this machine's."""
    return os.environ.get("CPACK_WHEEL_GLIBC")


def _built_boot():
    named = os.environ.get("CPACK_WHEEL_BOOT")
    if named:
        return Path(named)
    subprocess.run(BUILD_BOOT + STORES, cwd=CHECKOUT, check=True)
    return _target() / TARGET / "boot" / BOOT


def _built_bench():
    named = os.environ.get("CPACK_WHEEL_BENCH")
    if named:
        return Path(named)
    profile = _profile()
    build, place = ["build"], _target()
    if _glibc():
        build, place = ["zigbuild", "--target", f"{TARGET}.{_glibc()}"], place / TARGET
    subprocess.run(["cargo", *build, "--profile", profile, "-p", BENCH], cwd=CHECKOUT, check=True)
    return place / ("debug" if profile == "dev" else profile) / BENCH


def _data(folder):
    path = HERE / "cluster_pack.data" / folder
    path.mkdir(parents=True, exist_ok=True)
    return path


def _settings(config_settings):
    settings = dict(config_settings or {})
    arguments = f"--profile {_profile()}"
    if _glibc():
        arguments += f" --zig --target {TARGET} --compatibility manylinux_{_glibc().replace('.', '_')}"
    settings.setdefault("build-args", arguments)
    return settings


def get_requires_for_build_wheel(config_settings=None):
    required = maturin.get_requires_for_build_wheel(config_settings)
    return required + (["cargo-zigbuild", "ziglang"] if _glibc() else [])


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    _data("scripts")  # maturin fails if the configured directory is missing
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, _settings(config_settings))


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    shutil.copy(_built_boot(), _data("scripts") / BOOT)
    bench = shutil.copy(_built_bench(), _data("scripts") / BENCH)
    # Man pages and completions, which environments have below `share`.
    subprocess.run([bench, "share", _data("data/share")], check=True)
    return maturin.build_wheel(wheel_directory, _settings(config_settings), metadata_directory)
