"""Places that a command leads to: `ssh host`, `kubectl exec -i pod --`, `docker exec -i container`."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import tarfile
from typing import Mapping, Optional, Sequence

_SCRIPT = """\
d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT && cd "$d" && tar xf - && { CPACK_INTERPRETER=1 %s 1>&2 </dev/null; \
test ! -e %s || cat %s; }"""


class Shell:
    """A remote shell: `Shell(["ssh", "host"])`. It needs nothing there but `sh` and `tar`.

    Files travel in one stream; what the function prints appears on standard error here.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)

    def execute(self, files: Mapping[str, str], command: Sequence[str], result: str) -> Optional[bytes]:
        """Runs a command there in a new directory with `files` and returns the file `result` that it left."""
        words = " ".join(map(shlex.quote, command))
        script = _SCRIPT % (words, shlex.quote(result), shlex.quote(result))
        done = subprocess.run([*self.command, script], input=_archive(files), stdout=subprocess.PIPE, check=False)
        return done.stdout or None


def _archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in files.items():
            info = archive.gettarinfo(os.path.realpath(path), name)
            info.mode = 0o700
            with open(path, "rb") as file:
                archive.addfile(info, file)
    return buffer.getvalue()
