"""Describes the machine."""

import os
import platform
import re
import subprocess

from scratch import file_system


def describe(scratch):
    """Processors, memory, file system and kernel of this machine, without its name."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "file_system": file_system(scratch),
        "tmpfs": file_system("/dev/shm"),
        # Without the builder's suffix.
        "kernel": re.match(r"[0-9.]+", platform.release()).group(),
        "harness_python": platform.python_version(),
    }


def slug(machine):
    """A short name for the kind of machine, for directories."""
    cpu = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", machine["cpu"])
    words = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return f"{machine['cores']}x-{words or 'cpu'}-{machine['file_system']}"


def load():
    """The load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def revision(repository):
    """The measured commit, with a plus if the work tree differs."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", repository, *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if git("status", "--porcelain", "-uno") else "")


def _field(path, name):
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "unknown"
