"""Measures how long Spark's executors wait for Python, from exec until PySpark's daemon prints its port."""

import os
import shutil
import subprocess
import tempfile
import time

from clock import Failed, environ
from tables import add_rows, table

EXECUTORS = 2

# The command of Spark 4's executors.
DAEMON = ["-m", "pyspark.daemon", "pyspark.worker"]

# Unpacks an archive as an executor does, but with tar, which is faster than the executor's Java.
UNPACK = 'mkdir environment && tar -xzf "$0" -C environment && exec environment/bin/python "$@"'


def starts(context, environment):
    """Executors of one node that start at once, cold and then warm."""
    result = table(
        "executors",
        f"{EXECUTORS} executors of Spark on one node: from exec to the daemon's port",
        environment,
        "pex zipapp",
        {"cold": "cold s", "warm": "warm s"},
        "All start at once; the time is that of the last. Cold: an empty node cache, a PEX_ROOT in each executor's own working "
        "directory, an archive that each unpacks for itself. Warm: the same again, without what is unpacked already.",
    )
    subjects = {subject.name: subject for subject in context.subjects}
    samples = {"the environment itself": lambda _: bare(environment)}
    for name in ("this project", "pex zipapp", "pex --venv", "venv-pack2"):
        samples[name] = shipped(context, environment, subjects[name])
    return [add_rows(result, *context.alternate(environment, context.options.runs, samples))]


def bare(environment):
    """The environment in place, which is never cold."""
    with tempfile.TemporaryDirectory() as directory:
        commands = [([environment.python, *DAEMON], environ(), directory)] * EXECUTORS
        ports(commands)
        return {"cold": None, "warm": ports(commands)}


def shipped(context, environment, subject):
    """A sample of what executors get as a file."""
    path = context.artifact(subject, environment).path

    def take(_):
        context.need(EXECUTORS * subject.start_room * environment.size)
        node = context.scratch.fresh(f"executors {subject.name}")
        places = [os.path.join(node, str(number)) for number in range(EXECUTORS)]
        for place in places:
            os.mkdir(place)
        env = context.ours.node(node, PEX_ROOT="./.pex")
        cold, warm = (
            [(argv, env, place) for place in places] for argv in commands(subject.name, environment, path)
        )
        seconds = {"cold": ports(cold), "warm": ports(warm)}
        context.scratch.done(node)
        return seconds

    return take


def commands(name, environment, path):
    """The commands of the first and of later starts."""
    if name == "this project":
        first = [path, *DAEMON]
    elif name.startswith("pex"):
        first = [environment.base_python, path, *DAEMON]
    else:
        return [shutil.which("sh"), "-c", UNPACK, path, *DAEMON], ["environment/bin/python", *DAEMON]
    return first, first


def ports(commands):
    """Starts all at once. Returns the seconds until the last has printed its port."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        children = [
            subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            for argv, env, cwd in commands
        ]
        try:
            said = [child.stdout.read(4) for child in children]
            seconds = time.perf_counter() - start
        finally:
            for child in children:
                # The daemon ends when its executor does.
                child.stdin.close()
                child.wait()
                child.stdout.close()
        if not all(len(port) == 4 and 0 < int.from_bytes(port, "big") < 1 << 16 for port in said):
            errors.seek(0)
            raise Failed(f"no port but {said}: {errors.read().decode(errors='replace').strip()[-300:]}")
    return seconds
