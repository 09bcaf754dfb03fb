"""What tests see of nodes, which are on this machine: the processes of a job, and the caches."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def until(happens, what, seconds=300):
    """Waits for what `happens` returns to be true, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = happens()
        if found:
            return found
        time.sleep(0.01)
    raise TimeoutError(f"{what} did not happen in {seconds} s")


def parent(process):
    """Whose child a process is. None: it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


class Node:
    """A node cache at a place of its own. A process that was started with that place in its variables belongs to it."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir()

    def processes(self):
        """All processes that use it, by number, with the names of their executables."""
        mark = f"CPACK_CACHE_DIR={self.directory}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = os.path.basename(os.readlink(entry / "exe"))
            except OSError:
                continue  # It has ended.
        return found

    def building(self):
        """Those that are in the middle of a cold start: they have begun to write, and are not Python yet."""
        staging = self.directory / f"cpack-{os.getuid()}" / "staging"
        # Directories disappear while they are looked through: Path.rglob of Python before 3.12 raises then.
        if not any(files for _, _, files in os.walk(staging)):
            return []
        # Their own names are those of executables in a store: digests. So is that of a child until it executes something,
        # whose parent must not wait for it for ever.
        found = {process for process, name in self.processes().items() if len(name.split()[0]) == 64}
        return [process for process in found if parent(process) not in found]

    def verify(self):
        """What `--cpack verify` finds, and how many environments there are."""
        boot = os.path.join(sys.prefix, "bin", "cpack-boot")
        own = str(self.directory)
        # Not the caches of this machine's user.
        environ = {"PATH": os.environ["PATH"], "CPACK_CACHE_DIR": own, "HOME": own, "TMPDIR": own}
        command = [os.environ.get("CPACK_BOOT") or boot, "--cpack", "verify", "--json"]
        return json.loads(subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True).stdout)
