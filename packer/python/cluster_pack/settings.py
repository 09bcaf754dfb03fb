"""Settings and the variables that they start from."""

from __future__ import annotations

import getpass
import os
import shutil
from enum import Enum
from typing import NamedTuple, Optional, Union


class LayoutOptimizationParams(NamedTuple):
    """What a layout means: the PEX layout, and how its zip is compressed."""

    pex_layout: str
    use_zipfile: bool
    compress_level: int


class LayoutOptimization(Enum):
    """The layout of large PEX files: build time, first start, size."""

    SLOW_FAST_SMALL = "SLOW_FAST_SMALL"
    FAST_MID_BIG = "FAST_MID_BIG"
    MID_SLOW_SMALL = "MID_SLOW_SMALL"
    DISABLED = "DISABLED"

    @classmethod
    def from_string(cls, value: str) -> LayoutOptimization:
        """The member of that name, in any case."""
        try:
            return cls(value.upper())
        except ValueError:
            known = ", ".join(mode.value for mode in cls)
            raise ValueError(f"C_PACK_LAYOUT_OPTIMIZATION {value!r} is unknown: expected one of {known}") from None

    def get_params(self) -> LayoutOptimizationParams:
        """What it stands for."""
        layout = "loose" if self in (LayoutOptimization.FAST_MID_BIG, LayoutOptimization.MID_SLOW_SMALL) else "packed"
        level = 1 if self is LayoutOptimization.MID_SLOW_SMALL else 0
        return LayoutOptimizationParams(layout, self is not LayoutOptimization.DISABLED, level)


_layout = LayoutOptimization.SLOW_FAST_SMALL
_level = 1
_index: Optional[str] = None
_user: Optional[str] = None


def set_layout_optimization(mode: Union[str, LayoutOptimization]) -> None:
    """Chooses the layout of large PEX files."""
    global _layout
    _layout = LayoutOptimization.from_string(mode) if isinstance(mode, str) else mode


def get_layout_optimization() -> LayoutOptimization:
    """The layout of large PEX files."""
    return _layout


def set_venv_optimization_level(level: int) -> None:
    """Kept for existing code: packing always starts from the environment as it is installed."""
    global _level
    _level = level


def get_venv_optimization_level() -> int:
    """The level as set."""
    return _level


def is_uv_available() -> bool:
    """Whether requirements are installed by uv (else by pip)."""
    return shutil.which("uv") is not None


def set_pypi_index(pypi_index: Optional[str]) -> None:
    """Chooses the package index."""
    global _index
    _index = pypi_index or None


def get_pypi_index() -> Optional[str]:
    """The package index, if another than the default."""
    return _index


def set_current_user(user: Optional[str]) -> None:
    """Chooses whose directory environments go to."""
    global _user
    _user = (user or "").strip() or None


def _get_current_user() -> str:
    return _user or os.environ.get("C_PACK_USER", "").strip() or getpass.getuser()


def wants_pex() -> bool:
    """Whether `C_PACK_FORMAT` asks for real PEX files."""
    wanted = os.environ.get("C_PACK_FORMAT", "launcher") or "launcher"
    if wanted not in ("launcher", "pex"):
        raise ValueError(f"C_PACK_FORMAT {wanted!r} is unknown: expected launcher or pex")
    return wanted == "pex"


set_layout_optimization(os.environ.get("C_PACK_LAYOUT_OPTIMIZATION") or "SLOW_FAST_SMALL")
set_venv_optimization_level(int(os.environ.get("C_PACK_VENV_OPTIMIZATION_LEVEL") or "1"))
set_pypi_index(os.environ.get("C_PACK_PYPI_URL"))
