#!/usr/bin/env python3
"""Compares cold starts of two commands, in alternating pairs.

    benches/pairs.py --in DIRECTORY old='CPACK_BOOT=./old sh JOB' new='CPACK_BOOT=./new sh JOB' -- -c 'import torch'

Each start gets an empty node cache in DIRECTORY (CPACK_CACHE_DIR, PEX_ROOT), which is removed afterwards, and runs while
another process holds the free memory of the machine, touched, and hands it out as it is needed: a virtual machine that first
has to get each page from its host takes several times the system seconds.

What counts is decided before: a pair is left out if one of its runs took more than one and a half times the system seconds of the
best run of its side. The last lines say whether the ratios of the other pairs agree within 10 %, which less than three cannot; if
they do not, take none of them.
With --profile, one more start of each side tells its share of samples in locks of files, by perf.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from clock import Failed, alternate, memory_at_hand, run

SPOILT = 1.5
AGREE = 0.10
LEAST = 3

def start(side, arguments, place, before=()):
    """One cold start."""
    directory = tempfile.mkdtemp(prefix="pairs-", dir=place)
    try:
        with memory_at_hand():
            environment = {**os.environ, "CPACK_CACHE_DIR": directory, "PEX_ROOT": directory}
            return run([*before, "sh", "-c", f'{side} "$@"', "sh", *arguments], env=environment)
    finally:
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

    def sample(name):
        def take(_):
            child = start(sides[name], options.arguments, options.place)
            load = os.getloadavg()[0]
            print(f"{name}: {child.seconds:.2f} s, user {child.user:.2f}, system {child.system:.2f}, load {load:.1f}", flush=True)
            return child

        return take

    taken, reasons = alternate(options.rounds, {name: sample(name) for name in names}, print, between=os.sync)
    if reasons:
        raise Failed("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    best = {name: min(child.system for child in taken[name]) for name in names}
    pairs = [dict(zip(names, pair)) for pair in zip(*(taken[name] for name in names))]
    kept = [pair for pair in pairs if all(pair[name].system <= SPOILT * best[name] for name in names)]
    print(f"{len(kept)} of {len(pairs)} pairs count")
    if not kept:
        return
    old, new = names
    for what, value in [("wall", lambda child: child.seconds), ("user + system", lambda child: child.user + child.system)]:
        medians = [statistics.median(value(pair[name]) for pair in kept) for name in names]
        ratios = sorted(value(pair[new]) / value(pair[old]) for pair in kept)
        middle = statistics.median(ratios)
        agree = "agree" if ratios[-1] - ratios[0] <= 2 * AGREE * middle else "do not agree"
        verdict = f"the pairs {agree}" if len(kept) >= LEAST else "too few pairs"
        print(f"{what}: {old} {medians[0]:.2f} s, {new} {medians[1]:.2f} s, ratio {middle:.2f} ({ratios[0]:.2f} to "
              f"{ratios[-1]:.2f}): {verdict}")
    if options.profile:
        for name in names:
            print(f"{name}: {lock_share(sides[name], options.arguments, options.place):.1f} % of samples wait for a file's lock")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"pairs.py: {error}")
