"""Measures archives and wheelhouses: written here and by venv-pack2 or conda-pack, unpacked by tar and started by `cpack-boot`."""

import os

from clock import environ, run
from pexes import cpu
from scratch import size_of
from subjects import last_number
from tables import add_rows, table

UNPACK = 'mkdir "$0" && tar -xzf "$1" -C "$0"'
# What the tree needs after tar, before it can be used where it is.
MEND = {"conda": ' && "$0/bin/python" "$0/bin/conda-unpack"'}


def packs(context, environment):
    """Packing the environment, as a job, as an archive and as a folder."""
    tool = packer(environment)
    result = table(
        "packing",
        f"Packing beside {tool}",
        environment,
        tool,
        {"seconds": "seconds", "cpu": "CPU s", "mib": "size MiB"},
        f"A fresh store and client cache each time; the environment is in page cache. {tool} packs with its defaults.",
    )
    pack = context.tools.path(tool)
    ways = {
        tool: lambda to: ([pack, "-q", "-p", environment.venv, "-o", f"{to}/env.tar.gz"], f"{to}/env.tar.gz"),
        "this project": lambda to: (ours(context, environment, to, "upload"), f"{to}/store"),
        "this project, tar.gz": lambda to: archive(context, environment, to),
    }
    if tool == "conda-pack":
        folder = ["--format", "no-archive"]
        ways[f"{tool}, no-archive"] = lambda to: ([pack, "-q", "-p", environment.venv, *folder, "-o", f"{to}/env"], f"{to}/env")

    def sample(way):
        def take(_):
            context.need(2.5 * environment.size)
            directory = context.scratch.fresh("packing")
            command, made = way(directory)
            child = run(command, env=environ())
            context.scratch.done(directory)
            return {"seconds": child.seconds, "cpu": cpu(child), "mib": size_of(made) / 2**20}

        return take

    return [add_rows(result, *context.alternate(environment, context.options.runs, {n: sample(w) for n, w in ways.items()}))]


def starts(context, environment):
    """Cold and second starts of an archive that others wrote, and of ours."""
    tool = packer(environment)
    unpacked = f"{tool}'s, tar" + (" and conda-unpack" if environment.name in MEND else "")
    result = starts_table("archives", "Archives", environment, unpacked, "an empty directory, the archive in page cache.")
    place = context.scratch.fresh("archives")
    theirs, (command, own) = os.path.join(place, "theirs.tar.gz"), archive(context, environment, place)
    run([context.tools.path(tool), "-q", "-p", environment.venv, "-o", theirs], env=environ())
    run(command, env=environ())
    launcher = context.ours.launcher(environment.venv, place, os.path.join(place, "env-python"))
    boot = [context.programs.boot, "--cpack", "exec"]
    samples = {
        unpacked: by_tar(context, environment, theirs, MEND.get(environment.name, "")),
        f"{tool}'s, cpack-boot": started(context, environment, [*boot, theirs]),
        "this project, tar.gz, tar": by_tar(context, environment, own, ""),
        "this project": started(context, environment, [launcher]),
    }
    add_rows(result, *context.alternate(environment, context.options.runs, samples))
    context.scratch.done(place)
    return [result]


def wheelhouses(context, environment):
    """Cold and second starts of a wheelhouse, beside uv's installation of it."""
    uv = "uv pip install --no-index"
    empty = "an empty node cache and uv cache, the wheels in page cache. uv compiles no byte-code; Python does while it imports."
    result = starts_table("wheelhouse", "Wheelhouses", environment, uv, empty)
    place = context.scratch.fresh("wheelhouse")
    wheels = os.path.join(place, "wheels")
    run(ours(context, environment, place, "pack", "--format", "wheelhouse", "-o", wheels), env=environ())
    boot = [context.programs.boot, "--cpack", "exec", wheels]

    def install(_):
        node = context.scratch.fresh("wheelhouse uv")
        env = environ(UV_CACHE_DIR=os.path.join(node, "uv-cache"))
        python = os.path.join(node, "venv", "bin", "python")
        tool = context.tools.path("uv")
        requirements = os.path.join(wheels, "requirements.txt")
        link = ["--offline", "--no-index", "--find-links", wheels, "-r", requirements]
        steps = [
            [tool, "venv", "-q", "-p", environment.base_python, os.path.join(node, "venv")],
            [tool, "pip", "install", "-q", "-p", python, *link],
            [python, "-c", environment.code],
        ]
        children = [run(step, env=env) for step in steps]
        again = run([python, "-c", environment.code], env=env)
        context.scratch.done(node)
        return sums(children, again)

    # Python of this environment stands for that of the node.
    samples = {uv: install, "this project": started(context, environment, boot, CPACK_PYTHON=environment.base_python)}
    return [add_rows(result, *context.alternate(environment, context.options.runs, samples))]


def starts_table(name, what, environment, baseline, empty):
    """A table of cold and second starts. `empty` says what is there at a cold one."""
    return table(
        name,
        f"{what}: `import {environment.module}`, cold and again",
        environment,
        baseline,
        {"cold": "cold s", "cold_cpu": "cold CPU s", "again": "again s"},
        f"From the start of the first process to the end of the import. Cold: {empty} Again: the second start there.",
    )


def packer(environment):
    """The tool that packs it."""
    return "conda-pack" if environment.name == "conda" else "venv-pack"


def ours(context, environment, directory, *arguments):
    """A command of `cluster-pack` on the environment."""
    return [context.programs.pack, *context.ours.places(directory), "--venv", environment.venv, "-q", *arguments]


def archive(context, environment, directory):
    """The command that writes an archive, and its path."""
    path = os.path.join(directory, "env.tar.gz")
    return ours(context, environment, directory, "pack", "-o", path), path


def sums(children, again):
    """What a row says of a cold start by `children`, and of the second."""
    last_number(children[-1].output)
    cold = {"cold": sum(c.seconds for c in children), "cold_cpu": sum(map(cpu, children))}
    return cold | {"again": again.seconds}


def by_tar(context, environment, path, mend):
    """A sample of an archive that tar unpacks."""

    def take(_):
        context.need(1.5 * environment.size)
        node = context.scratch.fresh("archive tar")
        tree = os.path.join(node, "environment")
        start = [os.path.join(tree, "bin", "python"), "-c", environment.code]
        children = [run(["sh", "-c", UNPACK + mend, tree, path], env=environ()), run(start, env=environ())]
        again = run(start, env=environ())
        context.scratch.done(node)
        return sums(children, again)

    return take


def started(context, environment, command, **variables):
    """A sample of what `cpack-boot` starts."""

    def take(_):
        context.need(2.5 * environment.size)
        node = context.scratch.fresh("archive boot")
        env = context.ours.node(node, **variables)
        cold, again = (run([*command, "-c", environment.code], env=env) for _ in range(2))
        context.scratch.done(node)
        return sums([cold], again)

    return take
