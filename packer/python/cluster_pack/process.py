"""Running a command, for existing code."""

from __future__ import annotations

import logging
import subprocess
from typing import Any, List, Tuple

_logger = logging.getLogger(__name__)


def call(cmd: List[str], throw_on_error: bool = True, **kwargs: Any) -> Tuple[int, bytes, bytes]:
    """Runs `cmd` and returns its code, standard output and standard error."""
    _logger.info(" ".join(cmd))
    done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    if throw_on_error and done.returncode != 0:
        _logger.error("%s", done.stderr.decode(errors="replace"))
        raise subprocess.CalledProcessError(done.returncode, cmd, done.stdout, done.stderr)
    return done.returncode, done.stdout, done.stderr
