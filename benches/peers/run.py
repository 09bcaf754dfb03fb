#!/usr/bin/env python3
"""Measures this project beside its peers, on the same environment, in the same run.

    benches/peers/run.py                                    everything, on all seven environments: hours, and 60 GB of disk
    benches/peers/run.py -e scientific -m first-run         one measurement on one environment
    benches/peers/run.py -e torch --venv torch=/path/venv   an existing environment
    benches/peers/run.py --update-docs                      the table of docs/speed.md, from the newest results

Needs Python 3.9 or later and nothing else; peers are installed by name from their registries into the scratch directory,
except unzip, bsdtar (libarchive-tools), 7z (p7zip-full) and tar, which are the system's. The row of a missing peer says so.
RIPUNZIP and PEXRC name the executables of these two, PEXRC_PEX a pex that takes that pexrc.
"""

import argparse
import datetime
import os
import sys

import archives
import environments
import executors
import machine
import measurements
import pexes
import report
import resources
import targets
from clock import Failed, NotRun
from scratch import Scratch
from subjects import all_subjects
from tables import Context, add_ratios
from tables import table as empty_table
from tools import Programs, Tools

# What is known of a sitting, for the rows and tables of it that are kept.
SITTING = ("date", "revision", "machine", "tools")

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# All measurements, in an order in which later ones use the artifacts of creation.
ALL = {
    "creation": measurements.creation,
    # Wants a store of one environment: some of the others add one.
    "budget": resources.budget,
    "again": measurements.again,
    "first-run": measurements.first_run,
    "relink": measurements.relink,
    "extraction": measurements.extraction,
    "warm": measurements.warm,
    "together": measurements.together,
    "memory": resources.memory,
    "executables": resources.executables,
    "pex": pexes.starts,
    "pex-writing": pexes.writing,
    "executors": executors.starts,
    "packing": archives.packs,
    "archives": archives.starts,
    "wheelhouse": archives.wheelhouses,
}

# The measurements of each environment, unless -e or -m are given.
PLAN = {
    "creation": ["small", "scientific", "many", "torch"],
    "again": ["scientific", "many", "torch"],
    "first-run": ["small", "scientific", "many", "torch"],
    "relink": ["scientific"],
    "extraction": ["scientific"],
    "warm": ["small", "scientific"],
    "together": ["scientific"],
    "memory": ["scientific", "torch"],
    "budget": ["scientific", "torch"],
    "executables": ["small"],
    "pex": ["pandas", "torch"],
    "pex-writing": ["pandas", "torch"],
    "executors": ["spark"],
    "packing": ["scientific", "conda"],
    "archives": ["scientific", "conda"],
    "wheelhouse": ["scientific"],
}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-e", "--environment", action="append", choices=list(environments.IMPORTS), help="only on this environment")
    add("-m", "--measure", action="append", choices=list(ALL), help="only this measurement")
    add("-s", "--subject", dest="only", action="append", metavar="TEXT", help="only the way of this name, or ways whose name has this text")
    add("--venv", action="append", default=[], metavar="NAME=PATH", help="use this virtual environment for NAME")
    add("--runs", type=int, default=3, metavar="N", help="samples of each [default: 3; cheap measurements take more]")
    add("--creation-runs", type=int, metavar="N", help="samples of each creation [default: as --runs]")
    add("--warm-runs", type=int, default=40, metavar="N", help="samples of a warm start [default: 40]")
    add("--containers", type=int, default=16, metavar="N", help="starts at once [default: 16]")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of budget and boot [default: all cores]")
    add("--scratch", default=os.path.join(REPOSITORY, "target", "bench"), metavar="DIR",
        help="where everything is made; its file system is what is measured [default: target/bench]")
    add("--python", default=sys.executable, help="the interpreter of environments that are made [default: this one]")
    add("--pack", metavar="FILE", help="cluster-pack [default: built for release]")
    add("--boot", metavar="FILE", help="cpack-boot [default: built as shipped]")
    add("--out", metavar="DIR", help="where results go [default: benches/runs/<date>-<machine>]")
    add("--add", metavar="RESULTS", help="a results.json that these are added to: a complete run in several sittings. Of the same "
        "measurement, other rows are kept on the same machine: those of the same revision, and in the tables creation and first-run other tools' of the same versions")
    add("--update-docs", action="store_true", help="put the newest results, or those in --out, into docs/speed.md; measures nothing")
    return parser.parse_args()


def say(text):
    """Prints progress."""
    print(text, file=sys.stderr, flush=True)


def plan(options):
    """The measurements of each environment, in order."""
    names = options.environment or list(environments.IMPORTS)
    chosen = options.measure or list(ALL)
    asked = options.environment and options.measure
    return [(e, m) for e in names for m in ALL if m in chosen and (asked or e in PLAN[m])]


def measure(options, scratch, save):
    """Makes the requested measurements and saves the results after each."""
    tools, programs = Tools(scratch, say), Programs(REPOSITORY, options.pack, options.boot, say)
    say("setting up")
    tools.install()
    context = Context(scratch, tools, programs, all_subjects(tools, programs), options, say)
    given = dict(pair.split("=", 1) for pair in options.venv)
    facts = {
        "format": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "machine": machine.describe(scratch.root),
        "revision": machine.revision(REPOSITORY),
        "tools": tools.versions(),
        "runs": options.runs,
    }
    former = report.load(options.add) if options.add else {"tables": [], "environments": {}}
    found, described, tables = {}, dict(former["environments"]), []
    for name, measurement in plan(options):
        if name not in found:
            found[name] = environments.obtain(name, given, scratch, tools, options.python, say)
        say(f"{measurement} of {name}")
        before, removals = machine.load(), scratch.removals
        try:
            made = ALL[measurement](context, found[name])
        except (NotRun, Failed) as reason:
            say(f"  {reason}")
            made = [empty_table(measurement, measurement, found[name], None, {}, f"Not run: {reason}")]
        for table in made:
            table.update(load_before=before, load_after=machine.load(), removals=scratch.removals - removals)
            say("\n".join(report.section(table, facts["revision"])))
        tables += made
        described |= {name: environment.described() for name, environment in found.items()}
        results = {**facts, "environments": described}
        everything = merged(former, results, tables)
        results["tables"] = everything
        save({**results, "targets": targets.check(everything)})


def merged(former, facts, tables):
    """The tables of an earlier sitting and the `tables` of this one, which come last."""
    kept = []
    sitting = {key: former.get(key) for key in SITTING}
    new = {(table["measurement"], table["environment"]): table for table in tables}
    for table in former["tables"]:
        now = new.get((table["measurement"], table["environment"]))
        if now is None or not now["columns"]:
            new.pop((table["measurement"], table["environment"]), None)
            kept.append({"sitting": sitting, **table})
            continue
        names = {row["name"] for row in now["rows"]}
        before = {"sitting": table.get("sitting", sitting)}
        others = [{**before, **row} for row in table["rows"] if row["name"] not in names]
        is_same = former["environments"].get(table["environment"]) == facts["environments"].get(table["environment"])
        rows = [row for row in others if is_same and still_holds(table, row, facts)]
        if rows:
            sittings = table.get("sittings", 1) + 1
            both = {key: max(table[key], now[key]) for key in ("load_before", "load_after", "removals")}
            new[now["measurement"], now["environment"]] = add_ratios({**now, **both, "rows": rows + now["rows"], "sittings": sittings})
    return kept + list(new.values())


def still_holds(table, row, facts):
    """Whether a row of an earlier sitting may stand beside today's: in the tables `creation` and `first-run` other tools' of the same
    version, else what is of the same commit."""
    of_others = table["measurement"] in ("creation", "first-run") and not row["name"].startswith(targets.OURS)
    same = ("machine", "tools") if of_others else ("machine", "revision")
    return all(row["sitting"].get(key) == facts[key] for key in same)


def main():
    """Measures and writes, or updates the docs."""
    options = arguments()
    runs = os.path.join(REPOSITORY, "benches", "runs")
    if options.update_docs:
        results, path = report.newest(options.out or runs)
        link = os.path.relpath(os.path.dirname(path), REPOSITORY)
        report.update_docs(os.path.join(REPOSITORY, "docs", "speed.md"), results, link)
        return 0
    scratch, written = Scratch(options.scratch), set()

    def save(results):
        place = f"{results['date'][:10]}-{machine.slug(results['machine'])}"
        written.add(report.write(options.out or os.path.join(runs, place), results))

    try:
        measure(options, scratch, save)
    finally:
        say("deleting what was made for this run")
        scratch.close()
    print("\n".join(written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
