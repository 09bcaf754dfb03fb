"""Measurements of creation, starts and extraction. Each function returns tables."""

import base64
import csv
import hashlib
import itertools
import os
import subprocess
import time
import zipfile

from clock import Failed, alternate, environ, processors, read_into_page_cache, run
from environments import smallest_distribution
from resources import budget_parts
from scratch import remove
from subjects import Ours, OursLazy, boot_metrics
from tables import PASS, add_rows, table


def creation(context, environment):
    """Creation of the artifact, from nothing, and its size."""
    result = table(
        "creation",
        "Creation from nothing",
        environment,
        "cluster-pack FAST_MID_BIG",
        {"seconds": "creation s", "mib": "size MiB"},
        "A fresh store and client cache, or PEX_ROOT, each time; the environment is in page cache.",
    )

    def sample(subject):
        def take(_):
            made, row, done = context.create(subject, environment)
            kept = context.artifacts.setdefault((subject.name, environment.name), made)
            if kept is not made:
                done()
            return row | {"details": made.parts}

        return take

    read_into_page_cache(environment.venv)
    makers = {s.name: sample(s) for s in context.selected() if s.ships and not s.made_by}
    runs = context.options.creation_runs or context.options.runs
    return [add_rows(result, *context.alternate(environment, runs, makers))]


def again(context, environment):
    """Creation again: with nothing changed, and with one small distribution changed."""
    result = table(
        "again",
        "Creation again",
        environment,
        None,
        {"seconds": "creation s", "sent_kib": "sent KiB"},
        "This project, on a copy of the environment made of hard links, with its client cache and store. The change: a "
        "line more in one module of the smallest distribution, its RECORD and byte-code made true again. "
        "Sent are the job and what lies under the name, too.",
    )
    context.need(context.ours.creation_room * environment.size)
    directory = context.scratch.fresh("again")
    copy = os.path.join(directory, "venv")
    run(["cp", "-al", environment.venv, copy])
    context.ours.upload(copy, directory)
    name, modules = smallest_distribution(environment)

    def unchanged(_):
        report, seconds = context.ours.upload(copy, directory)
        return {"seconds": seconds, "sent_kib": report["sent_bytes"] / 1024}

    def changed(number):
        module = os.path.join(copy, os.path.relpath(modules[0], environment.venv))
        change_module(environment, copy, module, f"# change {number} {time.time()}\n")
        report, seconds = context.ours.upload(copy, directory)
        return {"seconds": seconds, "sent_kib": report["sent_bytes"] / 1024, "details": {"distribution": name}}

    # Both orders, so that neither always follows the other.
    samples = {"nothing changed": unchanged, "one small distribution changed": changed}
    add_rows(result, *context.alternate(environment, max(context.options.runs, 5), samples))
    context.scratch.done(directory)
    return [result]


def change_module(environment, venv, module, line):
    """Appends `line` to `module` in the copy `venv`. Its files are hard links, so the file is replaced, not written to."""
    with open(module, "rb") as file:
        text = file.read()
    replace(module, text + line.encode())
    run([environment.python, "-m", "compileall", "-q", module])
    site = os.path.join(venv, os.path.relpath(environment.site_packages, environment.venv))
    relative = os.path.relpath(module, site)
    for name in os.listdir(site):
        record = os.path.join(site, name, "RECORD")
        if not (name.endswith(".dist-info") and os.path.exists(record)):
            continue
        with open(record, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if any(row and row[0] == relative for row in rows):
            digest = base64.urlsafe_b64encode(hashlib.sha256(text + line.encode()).digest()).rstrip(b"=").decode()
            true = [relative, f"sha256={digest}", str(len(text) + len(line))]
            rows = [true if row and row[0] == relative else row for row in rows]
            replace(record, "".join(",".join(quoted(c) for c in row) + "\n" for row in rows).encode())


def quoted(cell):
    """A cell of RECORD."""
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"') else cell


def replace(path, content):
    """Puts `content` at `path` under a new inode."""
    new = f"{path}.new"
    with open(new, "wb") as file:
        file.write(content)
    os.replace(new, path)


def first_run(context, environment):
    """Cold start on a node and the first import."""
    baseline = "cluster-pack FAST_MID_BIG" if environment.name == "torch" else "pex zipapp"
    result = table(
        "first-run",
        f"Cold start and `import {environment.module}`",
        environment,
        baseline,
        {"total": "start + import s", "ready": "until Python s", "imported": "import s", "again": "second container s"},
        "An empty node cache in a fresh directory, the artifact in page cache. `until Python` ends at exec, where it can be "
        "told apart. The second container starts on the same node afterwards; an archive of tar is unpacked once a node.",
    )

    def sample(subject):
        def take(_):
            artifact = context.artifact(subject, environment)
            context.need(subject.start_room * environment.size)
            directory = context.scratch.fresh(f"start {subject.name}")
            start = subject.start(environment, artifact, environment.code, directory)
            again = subject.again(environment, artifact, environment.code, directory)
            context.scratch.done(directory)
            details = {"creation_s": round(artifact.seconds, 3), "phases_s": start.phases}
            times = {"total": start.total, "ready": start.ready, "imported": start.imported, "again": again.total}
            return times | {"details": details}

        return take

    samples = {s.name: sample(s) for s in context.selected()}
    samples["the environment itself, warm"] = lambda _: bare_import(environment)
    return [add_rows(result, *context.alternate(environment, context.options.runs, samples))]


def bare_import(environment):
    """The import from the virtual environment, which is the lower bound."""
    child = run([environment.python, "-c", environment.code], env=environ())
    return {"total": child.seconds, "ready": None, "imported": float(child.output), "again": child.seconds}


def relink(context, environment):
    """The same layers under another environment id, against uv with a warm cache."""
    left_out, _ = smallest_distribution(environment)
    result = table(
        "relink",
        "Another environment of layers that the node has",
        environment,
        "uv pip install --offline",
        {"seconds": "seconds"},
        f"The environment without {left_out}: another id, every layer on the node; until exec. uv installs the same "
        "distributions with hard links from a warm cache into a fresh virtual environment, whose making is not counted; it "
        "neither compiles nor brings byte-code.",
    )
    uv = next(s for s in context.subjects if s.name == result["baseline"])
    directory = context.scratch.fresh("relink")
    artifact = context.artifact(context.ours, environment)
    store = os.path.dirname(artifact.path)
    other = context.ours.launcher(
        environment.venv, store, os.path.join(directory, "other-python"), "--ignore", left_out, name="other"
    )
    requirements = os.path.join(directory, "requirements.txt")
    with open(requirements, "w", encoding="utf-8") as file:
        kept = (r for r in environment.requirements if r.split("==")[0].lower() != left_out.lower())
        file.writelines(f"{requirement}\n" for requirement in kept)
    uv.install(environment.name, environment.python, os.path.join(directory, "warm"), requirements, offline=False)

    def ours(_):
        context.need(context.ours.start_room * environment.size)
        node = context.scratch.fresh("relink node")
        run([artifact.path, "-c", PASS], env=context.ours.node(node))
        metrics = os.path.join(node, "metrics")
        run([other, "-c", PASS], env=context.ours.node(node, metrics))
        context.scratch.done(node)
        ready, phases, line = boot_metrics(metrics)
        if line["start"] != "cold" or line["layers"]["built"]:
            raise Failed(f"a {line['start']} start that built {line['layers']['built']} layers: expected a cold one, 0")
        return {"seconds": ready, "details": {"phases_s": phases}}

    def theirs(_):
        node = context.scratch.fresh("relink uv")
        _, seconds = uv.install(environment.name, environment.python, os.path.join(node, "venv"), requirements)
        context.scratch.done(node)
        return {"seconds": seconds}

    samples = {context.ours.name: ours, uv.name: theirs}
    return [add_rows(result, *context.alternate(environment, max(context.options.runs, 5), samples))]


def extraction(context, environment):
    """One deflate zip on tmpfs with two threads."""
    result = table(
        "extraction",
        "Extraction of one deflate zip on tmpfs, two processors",
        environment,
        "ripunzip",
        {"seconds": "seconds", "mb_per_s": "MB/s unpacked"},
        "Every program runs on the same two processors; path checks and checksums included where a program has them. The "
        "budget is the sum of what every program must do, each by itself: libdeflate of every entry, CRC-32, writing.",
    )
    memory = f"/dev/shm/cpack-bench-{os.getpid()}"
    os.makedirs(memory)
    try:
        archive = os.path.join(memory, "archive.zip")
        size = deflate(environment.site_packages, archive)
        samples = unzippers(context, environment, archive, size)
        return [add_rows(result, *context.alternate(environment, max(context.options.runs, 5), samples))]
    finally:
        remove(memory)


def unzippers(context, environment, archive, size):
    """A function per program that extracts `archive`, which has `size` bytes of files, beside it."""
    directories = itertools.count()

    def sample(arguments, **env):
        def take(_):
            directory = os.path.join(os.path.dirname(archive), f"out-{next(directories)}")
            os.makedirs(directory)
            argv = arguments(directory)
            with processors(2):
                child = run(argv, env=environ(**env))
            # Unlike ext4, tmpfs is not slowed down by deletions.
            remove(directory)
            return {"seconds": child.seconds, "mb_per_s": size / 1e6 / child.seconds, "details": cpu(child)}

        return take

    def parts(_):
        directory = os.path.join(os.path.dirname(archive), f"out-{next(directories)}")
        with processors(2):
            found = budget_parts(context, archive, directory, 2)
        remove(directory)
        return {"seconds": found["total"], "mb_per_s": size / 1e6 / found["total"], "details": found}

    tool, boot = context.tools.path, context.programs.boot
    return {
        "this project": sample(lambda d: [boot, "--cpack", "unzip", archive, "-d", d], CPACK_THREADS=2),
        "ripunzip": sample(lambda d: [context.tools.ripunzip(), "-q", "unzip-file", "-d", d, archive], RAYON_NUM_THREADS=2),
        "unzip": sample(lambda d: [tool("unzip"), "-q", archive, "-d", d]),
        "bsdtar": sample(lambda d: [tool("bsdtar"), "-xf", archive, "-C", d]),
        "7z": sample(lambda d: [tool("7z"), "x", "-bd", "-bso0", "-mmt2", f"-o{d}", archive]),
        "budget": parts,
        "python -m zipfile": sample(lambda d: [environment.base_python, "-m", "zipfile", "-e", archive, d]),
    }


def deflate(source, archive):
    """Zips `source` with deflate 6. Returns the size of the files."""
    size = 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for root, _, names in os.walk(source):
            for name in names:
                path = os.path.join(root, name)
                out.write(path, os.path.relpath(path, source))
                size += os.path.getsize(path)
    return size


def cpu(child):
    """Processor time of a child."""
    return {"user_s": round(child.user, 3), "system_s": round(child.system, 3)}


def warm(context, environment):
    """A warm start, against the environment's own interpreter."""
    result = table(
        "warm",
        "Warm start, `python -c pass`",
        environment,
        "the environment's python",
        {"ms": "ms"},
        "From before the start to after the end of the process.",
    )
    artifact = context.artifact(context.ours, environment)
    context.need(context.ours.start_room * environment.size)
    node = context.scratch.fresh("warm")
    env, plain = context.ours.node(node), environ(HOME=node)
    for _ in range(2):
        run([artifact.path, "-c", PASS], env=env)
        run([environment.python, "-c", PASS], env=plain)
    samples = {
        "this project": lambda _: {"ms": run([artifact.path, "-c", PASS], env=env).seconds * 1e3},
        "the environment's python": lambda _: {"ms": run([environment.python, "-c", PASS], env=plain).seconds * 1e3},
    }
    # A sync between starts of milliseconds would only add noise; nothing is written here.
    add_rows(result, *alternate(max(context.options.warm_runs, 2), samples, context.say, between=lambda: None))
    if all("values" in row for row in result["rows"]):
        ours, theirs = (row["values"]["ms"] for row in result["rows"])
        over = result["rows"][0]["over_ms"] = round(ours["median"] - theirs["median"], 3)
        result["note"] += f" The median start takes {over:.1f} ms more than without the boot."
    context.scratch.done(node)
    return [result]


def together(context, environment):
    """Cold starts at once against one alone, eager and lazy."""
    count = context.options.containers
    result = table(
        "together",
        "Cold starts at once on one node",
        environment,
        "one alone",
        {"exec": "last exec s", "end": f"last `import {environment.module}` s"},
        "One fresh node cache for all that start together; from before the first start. The imports share the processors.",
    )
    artifact = context.artifact(context.ours, environment)

    def sample(number_of_starts, settings):
        def take(_):
            context.need(context.ours.start_room * environment.size)
            node = context.scratch.fresh(f"together {number_of_starts}")
            metrics = [os.path.join(node, f"metrics-{i}") for i in range(number_of_starts)]
            begin, wall = time.time(), time.perf_counter()
            children = [
                subprocess.Popen(
                    [artifact.path, "-c", environment.code],
                    env=context.ours.node(node, m, **settings),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
                for m in metrics
            ]
            ends = [(child.wait(), child.stderr.read().decode(errors="replace")) for child in children]
            end = time.perf_counter() - wall
            failed = [said for code, said in ends if code != 0]
            if failed:
                raise Failed(f"{len(failed)} of {number_of_starts} starts failed: {failed[0].strip()}")
            lines = [boot_metrics(m)[2] for m in metrics]
            context.scratch.done(node)
            return {"exec": max(line["time"] for line in lines) - begin, "end": end}

        return take

    samples = {}
    for subject, way in ((Ours, ""), (OursLazy, ", lazy")):
        samples[f"one alone{way}"] = sample(1, subject.settings)
        samples[f"{count} at once{way}"] = sample(count, subject.settings)
    return [add_rows(result, *context.alternate(environment, context.options.runs, samples))]
