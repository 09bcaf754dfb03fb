"""Measures PEX files written by pex and by this project, started by plain Python and by `cpack-boot`."""

import os
import zipfile

from clock import Failed, environ, run
from tables import add_rows, table


def starts(context, environment):
    """Cold and warm starts of the same file by both runtimes."""
    files = {"pex": "pex zipapp", "this project": "this project, PEX"}
    subjects = {subject.name: subject for subject in context.subjects}
    pex = {writer: context.artifact(subjects[name], environment).path for writer, name in files.items()}
    result = table(
        "pex",
        f"PEX zipapps: `import {environment.module}`, cold and warm",
        environment,
        "pex's, plain Python",
        {"cold": "cold s", "cold_cpu": "cold CPU s", "warm": "warm s", "warm_cpu": "warm CPU s"},
        "From the start of the process to its end. Cold: an empty PEX_ROOT or node cache in a fresh directory, the file in page "
        "cache. Warm: the third start there; Python has written the byte-code that it wants. The environment itself is cold "
        "without byte-code, which pex's files have none of: what extraction and Python's start come on top of.",
    )
    boot = context.programs.boot

    def sample(arguments):
        def take(_):
            context.need(2.5 * environment.size)
            node = context.scratch.fresh("pex node")
            env = context.ours.node(node, PEX_ROOT=os.path.join(node, "pex-root"))
            cold, _, warm = (run([*arguments, "-c", environment.code], env=env) for _ in range(3))
            context.scratch.done(node)
            return {"cold": cold.seconds, "cold_cpu": cpu(cold), "warm": warm.seconds, "warm_cpu": cpu(warm)}

        return take

    def bare(_):
        command = [environment.python, "-c", environment.code]
        compiling = environ(PYTHONPYCACHEPREFIX=context.scratch.fresh("byte-code"))
        cold, _, warm = run(command, env=compiling), run(command, env=environ()), run(command, env=environ())
        return {"cold": cold.seconds, "cold_cpu": cpu(cold), "warm": warm.seconds, "warm_cpu": cpu(warm)}

    samples = {}
    for writer, path in pex.items():
        samples[f"{writer}'s, plain Python"] = sample([environment.base_python, path])
        samples[f"{writer}'s, cpack-boot"] = sample([boot, "--cpack", "exec", path])
    samples["the environment itself"] = bare
    add_rows(result, *context.alternate(environment, max(context.options.runs, 5), samples))
    return [result]


def cpu(child):
    """Processor seconds of a child."""
    return child.user + child.system


def writing(context, environment):
    """Writing a zipapp of the environment."""
    result = table(
        "pex-writing",
        "Writing a PEX zipapp of the environment",
        environment,
        "pex zipapp",
        {"seconds": "seconds", "mib": "size MiB", "byte_code_mib": "of it byte-code MiB"},
        "A fresh PEX_ROOT or client cache each time; the environment is in page cache.",
    )

    def sample(subject):
        def take(_):
            made, row, done = context.create(subject, environment)
            code = byte_code(made.path) / 2**20
            done()
            return row | {"byte_code_mib": code}

        return take

    chosen = [s for s in context.subjects if s.name in ("this project, PEX", "pex zipapp")]
    if len(chosen) != 2:
        raise Failed("the ways to write a PEX have other names")
    return [add_rows(result, *context.alternate(environment, context.options.runs, {s.name: sample(s) for s in chosen}))]


def byte_code(path):
    """Bytes of byte-code in an archive, as packed."""
    with zipfile.ZipFile(path) as archive:
        return sum(entry.compress_size for entry in archive.infolist() if entry.filename.endswith(".pyc"))
