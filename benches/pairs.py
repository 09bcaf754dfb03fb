#!/usr/bin/env python3
"""Compares cold starts of two commands, in alternating pairs.

    benches/pairs.py --in DIRECTORY old='CPACK_BOOT=./old sh JOB' new='CPACK_BOOT=./new sh JOB' -- -c 'import torch'

Each start gets an empty node cache in DIRECTORY (CPACK_CACHE_DIR, PEX_ROOT), which is removed afterwards, and runs while
another process holds the free memory of the machine, touched, and hands it out as it is needed: a virtual machine that first
has to get each page from its host takes several times the system seconds.

What counts is decided before: a pair is left out if one of its runs took more than one and a half times the system seconds of the
best run of its side. The last line says whether the ratios of the other pairs agree within 10 %; if not, take none of them.
With --profile, one more start of each side tells its share of samples in locks of files, by perf.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from clock import Failed, run

SPOILT = 1.5
AGREE = 0.10

# Run by a process of its own: what it frees is what the kernel hands out next.
HOLDER = """
import mmap, time
def free():
    return next(int(line.split()[1]) << 10 for line in open("/proc/meminfo") if line.startswith("MemFree"))
chunk, left, held = 64 << 20, 700 << 20, []
one = b"1" * chunk
while free() > left + chunk:
    held.append(mmap.mmap(-1, chunk))
    held[-1].write(one)
print("ready", flush=True)
while held:
    if free() < left:
        held.pop().close()
    else:
        time.sleep(0.002)
"""


def start(side, arguments, place, before=()):
    """One cold start. Returns wall, user and system seconds."""
    os.sync()
    directory = tempfile.mkdtemp(prefix="pairs-", dir=place)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        environment = {**os.environ, "CPACK_CACHE_DIR": directory, "PEX_ROOT": directory}
        child = run([*before, "sh", "-c", f'{side} "$@"', "sh", *arguments], env=environment)
        return child.seconds, child.user, child.system
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        subprocess.run(["chmod", "-R", "u+w", directory], check=True)
        shutil.rmtree(directory)


def lock_share(side, arguments, place):
    """Samples of a start that wait for the lock of a file, in per cent."""
    with tempfile.NamedTemporaryFile() as data:
        start(side, arguments, place, ["perf", "record", "-q", "-F", "499", "-o", data.name, "--"])
        report = run(["perf", "report", "-i", data.name, "--stdio", "--no-children", "--sort", "sym"]).output
    return sum(float(share) for share in re.findall(r"([\d.]+)%\s+\[k\] (?:rwsem_spin|rwsem_down|osq_lock)", report))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="pairs [default: 5]")
    parser.add_argument("--in", dest="place", default=".", help="a directory on the file system to measure [default: .]")
    parser.add_argument("--profile", action="store_true", help="measure waits for locks, by perf")
    parser.add_argument("sides", nargs=2, metavar="NAME=COMMAND", help="what is compared: the first is the baseline")
    parser.add_argument("arguments", nargs="+", metavar="ARGUMENT", help="what each command gets, after --")
    options = parser.parse_args()
    sides = dict(side.split("=", 1) for side in options.sides)
    names = list(sides)
    rounds = []
    for number in range(options.rounds):
        pair = {}
        for name in names if number % 2 == 0 else names[::-1]:
            pair[name] = start(sides[name], options.arguments, options.place)
            load = os.getloadavg()[0]
            print(f"{number + 1} {name}: %.2f s, user %.2f, system %.2f, load {load:.1f}" % pair[name], flush=True)
        rounds.append(pair)
    best = {name: min(pair[name][2] for pair in rounds) for name in names}
    kept = [pair for pair in rounds if all(pair[name][2] <= SPOILT * best[name] for name in names)]
    print(f"{len(kept)} of {len(rounds)} pairs count")
    old, new = names
    for what, value in [("wall", lambda run: run[0]), ("user + system", lambda run: run[1] + run[2])]:
        medians = [statistics.median(value(pair[name]) for pair in kept) for name in names]
        ratios = sorted(value(pair[new]) / value(pair[old]) for pair in kept)
        middle = statistics.median(ratios)
        agree = ratios[-1] - ratios[0] <= 2 * AGREE * middle
        print(f"{what}: {old} {medians[0]:.2f} s, {new} {medians[1]:.2f} s, ratio {middle:.2f} ({ratios[0]:.2f} to "
              f"{ratios[-1]:.2f}): {'the pairs agree' if agree else 'the pairs do not agree'}")
    if options.profile:
        for name in names:
            print(f"{name}: {lock_share(sides[name], options.arguments, options.place):.1f} % of samples wait for a file's lock")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"pairs.py: {error}")
