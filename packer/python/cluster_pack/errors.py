"""What this package raises."""

from __future__ import annotations

from typing import Optional


class ClusterPackError(RuntimeError):
    """One line that says what failed, why and what to do. `code` is the exit code of `cluster-pack`, if it failed."""

    def __init__(self, message: str, code: Optional[int] = None) -> None:
        super().__init__(message)
        self.code = code


class PexTooLargeError(ClusterPackError):
    """A PEX that plain Python cannot run."""


class PexCreationError(ClusterPackError):
    """An environment that cannot be packed."""


class RemoteTraceback(Exception):
    """The traceback of an exception as text, as the cause of that exception here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class RemoteError(ClusterPackError):
    """An exception that cannot be brought here: its type and message as text, its traceback as cause."""
