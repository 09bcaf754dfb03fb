"""Runs child processes and measures wall and CPU time."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass


class NotRun(Exception):
    """A tool is missing. Its row in the table gives the reason."""


class Failed(Exception):
    """A command failed unexpectedly."""


@dataclass(frozen=True)
class Child:
    """One finished process: wall time from before its start to after its end, CPU times, and what it printed."""

    seconds: float
    user: float
    system: float
    output: str


def run(argv, env=None, cwd=None, watch=None):
    """Runs `argv` to its end with an empty standard input. `watch(pid)` is called while it runs, if given."""
    argv = [str(part) for part in argv]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        try:
            child = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except OSError as error:
            raise Failed(f"{argv[0]}: {error}") from error
        if watch:
            watch(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        output = out.read().decode(errors="replace")
        if child.returncode != 0:
            err.seek(0)
            said = (err.read().decode(errors="replace").strip() or output.strip()).splitlines()[-3:]
            raise Failed(shown(f"{argv[0]} ended with {child.returncode}: {' / '.join(said)}"))
    return Child(seconds, usage.ru_utime, usage.ru_stime, output)


def shown(text):
    """Shortens each path in `text` to its last part, so that results name no directory of this machine."""
    return re.sub(r"/[^\s'\":,]*/", "…/", text)[:400]


def environ(**changes):
    """This process's variables without those that steer Python, pex, uv or the programs here, and with `changes`."""
    steering = ("PYTHON", "PEX", "UV_", "CPACK_", "C_PACK_", "PIP_", "VIRTUAL_ENV", "RAYON_")
    # Installing needs the index that is set for pip or uv; timed commands do not use it.
    kept = ("PIP_INDEX_URL", "PIP_CERT", "PIP_TRUSTED_HOST", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_CONFIG_FILE")
    base = {k: v for k, v in os.environ.items() if k in kept or not k.startswith(steering)}
    base.update({k: str(v) for k, v in changes.items()})
    return base


@contextmanager
def processors(count):
    """Pins everything started in this context to the first `count` processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def settle(most):
    """Writes dirty pages of earlier runs to disk and touches as much free memory, so that the next run does not pay for either."""
    os.sync()
    claim_memory(most)


LEFT_ALONE = 1 << 30


def claim_memory(most):
    """Touches free memory, which a virtual machine may have given back to its host.

    A child process does this, so that the kernel kills the child if a control group allows less memory."""
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemFree:"))
    size = min(free - LEFT_ALONE, most)
    code = f"open('/proc/self/oom_score_adj', 'w').write('1000'); b'1' * {size}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], stderr=subprocess.DEVNULL, check=False)


# Run by a process of its own: what it frees is what the kernel hands out next.
HOLDER = """
import mmap, time
def free():
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemFree:"))
chunk, left, held = 64 << 20, 700 << 20, []
ones = b"1" * chunk
while free() > left + chunk:
    held.append(mmap.mmap(-1, chunk))
    held[-1].write(ones)
print(flush=True)
while held:
    if free() < left:
        held.pop().close()
    else:
        time.sleep(0.002)
"""


@contextmanager
def memory_at_hand():
    """Holds free memory, touched, and hands it out while this context needs it.

    `claim_memory` is enough for starts of a second. What it frees goes back to the host of a virtual machine within seconds, so a
    longer start would pay for it again."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", HOLDER], stdout=subprocess.PIPE) as holder:
        try:
            holder.stdout.readline()
            yield
        finally:
            holder.kill()


def read_into_page_cache(path):
    """Reads the file, or all files below the directory, `path`. Cold starts are measured with a warm page cache."""
    paths = [path]
    if os.path.isdir(path):
        paths = [os.path.join(root, name) for root, _, names in os.walk(path) for name in names]
    for each in paths:
        if not os.path.islink(each):
            with open(each, "rb", buffering=0) as file:
                while file.read(8 << 20):
                    pass


def alternate(runs, samples, say, between):
    """Calls every function of `samples` (name -> function of the run's number) `runs` times, in alternating order.

    Returns name -> list of results, and name -> the reason if it was not run.
    """
    taken, reasons = {name: [] for name in samples}, {}
    for number in range(runs):
        order = list(samples) if number % 2 == 0 else list(reversed(list(samples)))
        for name in order:
            if name in reasons:
                continue
            between()
            try:
                taken[name].append(samples[name](number))
            except (NotRun, Failed) as reason:
                kind = "not run" if isinstance(reason, NotRun) else "failed"
                reasons[name] = f"{kind}: {reason}"
                say(f"    {name}: {reasons[name]}")
    return taken, reasons


def summary(values):
    """Median and spread of `values`, and the values themselves."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": [round(value, 6) for value in values],
    }
