"""What is measured. Each function gives tables: rows with medians and spreads, and ratios to a baseline of the same run."""

import base64
import csv
import hashlib
import itertools
import os
import struct
import subprocess
import time
import zipfile

from clock import Failed, NotRun, alternate, environ, processors, read_into_page_cache, run, summary
from environments import smallest_distribution
from scratch import remove
from subjects import boot_metrics

PASS = "pass"


class Context:
    """What every measurement needs."""

    def __init__(self, scratch, tools, programs, subjects, options, say):
        self.scratch, self.tools, self.programs = scratch, tools, programs
        self.subjects, self.options, self.say = subjects, options, say
        self.artifacts = {}

    @property
    def ours(self):
        """This project."""
        return self.subjects[0]

    def selected(self):
        """The ways that were asked for."""
        wanted = self.options.only
        return [s for s in self.subjects if not wanted or any(w.lower() in s.name.lower() for w in wanted)]

    def artifact(self, subject, environment):
        """What `subject` makes of `environment`: made once, not timed here, in the page cache afterwards."""
        key = subject.name, environment.name
        if key not in self.artifacts:
            self.need(subject.creation_room * environment.size)
            made = subject.create(environment, self.scratch.fresh(f"{subject.name} {environment.name}"))
            self.artifacts[key] = made
        made = self.artifacts[key]
        read_into_page_cache(made.extra.get("store") or made.path)
        return made

    def need(self, size):
        """Refuses what the disk has no room for."""
        if not self.scratch.room(size):
            raise NotRun(f"needs {size / 2**30:.0f} GiB of disk, {self.scratch.free() / 2**30:.0f} are free")


def table(name, title, environment, baseline, columns, note=""):
    """An empty table. `columns`: key -> what people read."""
    return {
        "measurement": name,
        "title": title,
        "environment": environment.name if environment else None,
        "baseline": baseline,
        "columns": columns,
        "rows": [],
        "note": note,
    }


def add_rows(into, taken, reasons):
    """Adds a row per name: each a list of dictionaries of numbers, one per run; ratios to the baseline's median."""
    for name, samples in taken.items():
        if not samples or name in reasons:
            into["rows"].append({"name": name, "not_run": reasons.get(name, "not run")})
            continue
        keys = [key for key in into["columns"] if all(key in s and s[key] is not None for s in samples)]
        values = {key: summary([s[key] for s in samples]) for key in keys}
        into["rows"].append({"name": name, "values": values, "details": samples[-1].get("details", {})})
    base = next((r.get("values") for r in into["rows"] if r["name"] == into["baseline"]), None) or {}
    for row in into["rows"]:
        ratio = {
            key: round(found["median"] / base[key]["median"], 4)
            for key, found in row.get("values", {}).items()
            if base.get(key, {}).get("median")
        }
        if ratio:
            row["ratio"] = ratio
    return into


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
            context.need(subject.creation_room * environment.size)
            directory = context.scratch.fresh(f"create {subject.name}")
            made = subject.create(environment, directory)
            kept = context.artifacts.setdefault((subject.name, environment.name), made)
            if kept is not made:
                context.scratch.done(directory)
            return {"seconds": made.seconds, "mib": made.size / 2**20, "details": made.extra}

        return take

    read_into_page_cache(environment.venv)
    makers = {s.name: sample(s) for s in context.selected() if not s.name.startswith("uv ")}
    return [add_rows(result, *alternate(context.options.runs, makers, context.say))]


def again(context, environment):
    """Creation again: with nothing changed, and with one small distribution changed."""
    result = table(
        "again",
        "Creation again",
        environment,
        None,
        {"seconds": "creation s", "sent_kib": "sent KiB"},
        "This project, on a copy of the environment made of hard links, with its client cache and store. The change: a "
        "line more in one module of the smallest distribution, its RECORD and byte-code made true again.",
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

    # Twice, so that neither always follows the other.
    samples = {"nothing changed": unchanged, "one small distribution changed": changed}
    add_rows(result, *alternate(max(context.options.runs, 5), samples, context.say))
    context.scratch.done(directory)
    return [result]


def change_module(environment, venv, module, line):
    """Appends `line` to `module` in the copy `venv`, whose files are hard links: they are replaced, not written to."""
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
        {"total": "start + import s", "ready": "until Python s", "imported": "import s"},
        "An empty node cache in a fresh directory, the artifact in page cache. `until Python` ends at exec, where it can be "
        "told apart.",
    )

    def sample(subject):
        def take(_):
            artifact = context.artifact(subject, environment)
            context.need(subject.start_room * environment.size)
            directory = context.scratch.fresh(f"start {subject.name}")
            start = subject.start(environment, artifact, environment.code, directory)
            context.scratch.done(directory)
            details = {"creation_s": round(artifact.seconds, 3), "phases_s": start.phases}
            return {"total": start.total, "ready": start.ready, "imported": start.imported, "details": details}

        return take

    samples = {s.name: sample(s) for s in context.selected()}
    samples["the environment itself, warm"] = lambda _: bare_import(environment)
    return [add_rows(result, *alternate(context.options.runs, samples, context.say))]


def bare_import(environment):
    """The import from the virtual environment: what no way of shipping can beat."""
    child = run([environment.python, "-c", environment.code], env=environ())
    return {"total": child.seconds, "ready": None, "imported": float(child.output)}


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
    return [add_rows(result, *alternate(max(context.options.runs, 5), samples, context.say))]


def extraction(context, environment):
    """One deflate zip on tmpfs with two threads."""
    result = table(
        "extraction",
        "Extraction of one deflate zip on tmpfs, two processors",
        environment,
        "ripunzip",
        {"seconds": "seconds", "mb_per_s": "MB/s unpacked"},
        "Every program runs on the same two processors; path checks and checksums included where a program has them.",
    )
    memory = f"/dev/shm/cpack-bench-{os.getpid()}"
    os.makedirs(memory)
    try:
        archive = os.path.join(memory, "archive.zip")
        size = deflate(environment.site_packages, archive)
        samples = unzippers(context, environment, archive, size)
        return [add_rows(result, *alternate(max(context.options.runs, 5), samples, context.say))]
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
            # tmpfs has no memory of what was deleted.
            remove(directory)
            return {"seconds": child.seconds, "mb_per_s": size / 1e6 / child.seconds, "details": cpu(child)}

        return take

    tool, boot = context.tools.path, context.programs.boot
    return {
        "this project": sample(lambda d: [boot, "--cpack", "unzip", archive, "-d", d], CPACK_THREADS=2),
        "ripunzip": sample(lambda d: [context.tools.ripunzip(), "-q", "unzip-file", "-d", d, archive], RAYON_NUM_THREADS=2),
        "unzip": sample(lambda d: [tool("unzip"), "-q", archive, "-d", d]),
        "bsdtar": sample(lambda d: [tool("bsdtar"), "-xf", archive, "-C", d]),
        "7z": sample(lambda d: [tool("7z"), "x", "-bd", "-bso0", "-mmt2", f"-o{d}", archive]),
        "python -m zipfile": sample(lambda d: [environment.base_python, "-m", "zipfile", "-e", archive, d]),
    }


def deflate(source, archive):
    """Zips `source` with deflate 6; the bytes of the files."""
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
    """Cold starts at once against one alone."""
    count = context.options.containers
    many = f"{count} at once"
    result = table(
        "together",
        "Cold starts at once on one node",
        environment,
        "one alone",
        {"exec": "last exec s", "end": "last end of `-c pass` s"},
        "One fresh node cache for all that start together; from before the first start.",
    )
    artifact = context.artifact(context.ours, environment)

    def sample(number_of_starts):
        def take(_):
            context.need(context.ours.start_room * environment.size)
            node = context.scratch.fresh(f"together {number_of_starts}")
            metrics = [os.path.join(node, f"metrics-{i}") for i in range(number_of_starts)]
            begin, wall = time.time(), time.perf_counter()
            children = [
                subprocess.Popen(
                    [artifact.path, "-c", PASS],
                    env=context.ours.node(node, m),
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

    samples = {"one alone": sample(1), many: sample(count)}
    return [add_rows(result, *alternate(context.options.runs, samples, context.say))]


def memory(context, environment):
    """The most memory that a cold boot has, until exec."""
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

    return [add_rows(result, *alternate(context.options.runs, {"this project": take}, context.say))]


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
            # The largest: for a moment of exec, the new program's memory has the old one's name.
            seen[key] = max(seen.get(key, 0), int(status[key].split()[0]))
        seen["looks"] = seen.get("looks", 0) + 1
        time.sleep(0.0005)


def executables(context, _environment):
    """Sizes of the programs."""
    result = table("executables", "Executables", None, None, {"mb": "MB"})

    def size(path):
        return lambda _: {"mb": os.path.getsize(path) / 1e6, "details": {"static": is_static(path)}}

    samples = {"cpack-boot": size(context.programs.boot), "cluster-pack": size(context.programs.pack)}
    return [add_rows(result, *alternate(1, samples, context.say))]


def is_static(path):
    """Whether an ELF file names no interpreter: no program header of type PT_INTERP."""
    with open(path, "rb") as file:
        head = file.read(64)
        offset, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        file.seek(offset)
        headers = file.read(size * count)
    return all(struct.unpack_from("<I", headers, size * i)[0] != 3 for i in range(count))


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
    program = context.programs.bench("budget")
    artifact = context.artifact(context.ours, environment)
    threads = str(context.options.threads)

    def parts(_):
        context.need(context.ours.start_room * environment.size)
        directory = context.scratch.fresh("budget")
        child = run([program, artifact.extra["store"], directory, threads], env=environ())
        context.scratch.done(directory)
        found = {name: float(value) for name, value in (line.split() for line in child.output.splitlines() if line)}
        total = found["decode"] + found["digest"] + found["write"]
        return {"seconds": total, "details": found}

    def boot(_):
        context.need(context.ours.start_room * environment.size)
        node = context.scratch.fresh("budget boot")
        metrics = os.path.join(node, "metrics")
        run([artifact.path, "-c", PASS], env=context.ours.node(node, metrics, CPACK_THREADS=threads))
        context.scratch.done(node)
        ready, phases, _ = boot_metrics(metrics)
        return {"seconds": ready, "details": {"phases_s": phases}}

    return [add_rows(result, *alternate(context.options.runs, {"this project": boot, "budget": parts}, context.say))]


# In this order, so that what creation made is used by the others.
ALL = {
    "creation": creation,
    "again": again,
    "first-run": first_run,
    "relink": relink,
    "extraction": extraction,
    "warm": warm,
    "together": together,
    "memory": memory,
    "budget": budget,
    "executables": executables,
}
