"""Directories for runs: always fresh, deleted at the end.

ext4 without a journal makes the re-creation of a tree within minutes of its removal up to 15 times slower (it skips inodes that
were freed recently). So no directory is emptied and used again, and none is deleted between two samples while the disk has room.
If it has not, directories are deleted when they are no longer needed, and the results say so.
"""

import os
import shutil
import stat
import subprocess

RESERVE = 2 << 30


class Scratch:
    """The directory `root`: kept files by name, and one directory per sample in `root/run-<pid>`."""

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.run = os.path.join(self.root, f"run-{os.getpid()}")
        os.makedirs(self.run)
        self.count = 0
        self.disposable = []
        self.removals = 0

    def kept(self, *parts):
        """A place that later runs of the harness find again."""
        path = os.path.join(self.root, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def fresh(self, name):
        """A new, empty directory with a name that was never used."""
        self.count += 1
        path = os.path.join(self.run, f"{self.count:04}-{name.replace(' ', '-').replace('/', '-')}")
        os.makedirs(path)
        return path

    def done(self, path):
        """`path` is not needed any more: it may go when the disk is short of room, and goes at the end."""
        self.disposable.append(path)

    def room(self, needed):
        """Makes room for `needed` bytes, if it must by deleting what is done with. False if that is not enough."""
        while self.free() < needed + RESERVE and self.disposable:
            remove(self.disposable.pop(0))
            self.removals += 1
        return self.free() >= needed + RESERVE

    def free(self):
        """Bytes free on the disk."""
        return shutil.disk_usage(self.run).free

    def close(self):
        """Deletes everything of this run."""
        remove(self.run)


def remove(path):
    """Deletes a tree or file, read-only directories included."""

    def again(function, at, _):
        os.chmod(os.path.dirname(at), stat.S_IRWXU)
        if os.path.isdir(at) and not os.path.islink(at):
            os.chmod(at, stat.S_IRWXU)
        function(at)

    if os.path.isdir(path):
        shutil.rmtree(path, onerror=again)
    elif os.path.lexists(path):
        os.remove(path)


def size_of(path):
    """Bytes of a file, or of all files below a directory, each hard-linked file once."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    seen = {}
    for root, _, names in os.walk(path):
        for name in names:
            found = os.lstat(os.path.join(root, name))
            seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())


def file_system(path):
    """Type of the file system that `path` is on."""
    done = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", path], capture_output=True, text=True, check=False)
    return next(iter(done.stdout.split()), "unknown")
