"""Measures the memory of a start, its time against its budget, and the sizes of the programs."""

import os
import struct
import time

from clock import Failed, environ, run
from subjects import boot_metrics
from tables import PASS, add_rows, table


def memory(context, environment):
    """The peak memory of a cold start, until exec."""
    result = table(
        "memory",
        "Memory of a cold boot, until exec",
        environment,
        None,
        {"resident_mib": "most resident MiB", "address_mib": "most address space MiB", "samples": "looks"},
        "VmHWM and VmPeak, mapped pages included: the kernel keeps the maxima, which are looked at every half millisecond "
        "until exec.",
    )
    artifact = context.artifact(context.ours, environment)

    def take(_):
        context.need(context.ours.start_room * environment.size)
        node, seen = context.scratch.fresh("memory"), {}
        run([artifact.path, "-c", PASS], env=context.ours.node(node), watch=lambda pid: watch_memory(pid, artifact.path, seen))
        context.scratch.done(node)
        if not seen:
            raise Failed("the boot ended before it could be looked at")
        return {"resident_mib": seen["VmHWM"] / 1024, "address_mib": seen["VmPeak"] / 1024, "samples": seen["looks"]}

    return [add_rows(result, *context.alternate(environment, context.options.runs, {"this project": take}))]


def watch_memory(pid, program, seen):
    """Notes the maxima of process `pid` in kB while it is `program`: after this one's exec, before its own."""
    name_of_program = os.path.basename(program)[:15]
    while True:
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                status = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            return
        name = status["Name"].strip()
        if name != name_of_program and not seen:
            continue
        if name != name_of_program or "VmHWM" not in status:
            return
        for key in ("VmHWM", "VmPeak"):
            # The maximum, because during exec the new program's memory has the old one's name for a moment.
            seen[key] = max(seen.get(key, 0), int(status[key].split()[0]))
        seen["looks"] = seen.get("looks", 0) + 1
        time.sleep(0.0005)


def executables(context, environment):
    """Sizes of the programs."""
    result = table("executables", "Executables", None, None, {"mb": "MB"})

    def size(path):
        return lambda _: {"mb": os.path.getsize(path) / 1e6, "details": {"static": is_static(path)}}

    samples = {"cpack-boot": size(context.programs.boot), "cluster-pack": size(context.programs.pack)}
    return [add_rows(result, *context.alternate(environment, 1, samples))]


def is_static(path):
    """Whether an ELF file names no interpreter: no program header of type PT_INTERP."""
    with open(path, "rb") as file:
        head = file.read(64)
        offset, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        file.seek(offset)
        headers = file.read(size * count)
    return all(struct.unpack_from("<I", headers, size * i)[0] != 3 for i in range(count))


def budget_parts(context, archives, directory, threads):
    """Seconds of each part of extracting `archives`, a store or a zip file, below `directory`, and their sum."""
    child = run([context.programs.bench("budget"), archives, directory, str(threads)], env=environ())
    found = {name: float(value) for name, value in (line.split() for line in child.output.splitlines() if line)}
    return {"total": found["decode"] + found["digest"] + found["write"], **found}


def budget(context, environment):
    """The cold boot alone against its parts, each measured by itself on all cores."""
    result = table(
        "budget",
        "Cold boot alone against the parts that it cannot do without",
        environment,
        "budget",
        {"seconds": "seconds"},
        "Each part by itself on all cores: decode every frame, digest archive and content, write decoded bytes to a fresh "
        "directory. The budget is their sum.",
    )
    artifact = context.artifact(context.ours, environment)
    threads = str(context.options.threads)

    def parts(_):
        context.need(context.ours.start_room * environment.size)
        directory = context.scratch.fresh("budget")
        found = budget_parts(context, artifact.store, directory, threads)
        context.scratch.done(directory)
        return {"seconds": found["total"], "details": found}

    def boot(_):
        context.need(context.ours.start_room * environment.size)
        node = context.scratch.fresh("budget boot")
        metrics = os.path.join(node, "metrics")
        run([artifact.path, "-c", PASS], env=context.ours.node(node, metrics, CPACK_THREADS=threads))
        context.scratch.done(node)
        ready, phases, _ = boot_metrics(metrics)
        return {"seconds": ready, "details": {"phases_s": phases}}

    return [add_rows(result, *context.alternate(environment, context.options.runs, {"this project": boot, "budget": parts}))]
