"""Stands for micromamba, mamba, conda or pixi, by the name that it is started under: no channel of theirs can be reached in tests.

It notes what it was called with, and installs from the local channel with py-rattler, so that the environment is a real one.
"""

import json
import os
import re
import subprocess
import sys

PLACE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(PLACE, "settings.json")) as file:
    settings = json.load(file)


def specs(text):
    if "\npackage:" in text:
        return re.findall(r"- name: (\S+)\n +version: (\S+)", text)
    listed = re.findall(r"^  - ([\w-]+)(?:==?(\S+))?$", text, re.M)
    return listed or re.findall(r'^([\w-]+) = "([^"]*)"$', text.partition("[dependencies]")[2], re.M)


def main(tool, arguments):
    if arguments == ["--version"]:
        return print("1")
    with open(os.path.join(PLACE, "calls"), "a") as file:
        file.write(" ".join([tool, *arguments]) + "\n")
    if os.environ["CONDA_ALWAYS_YES"] != "true" or os.environ["MAMBA_ALWAYS_YES"] != "true":
        sys.exit("it would ask")
    if tool == "pixi":
        described = arguments[arguments.index("--manifest-path") + 1]
        prefix = os.path.join(os.path.dirname(described), ".pixi/envs/default")
    else:
        prefix = arguments[arguments.index("-p") + 1]
        described = arguments[-1]
        if os.path.exists(prefix):
            sys.exit("Non-conda folder exists at prefix - aborting")
    with open(described) as file:
        text = file.read()
    packages = [f"{name}=={version}" if version and version != "*" else name for name, version in specs(text)]
    script = [sys.executable, settings["script"], "install", settings["channel"], os.path.join(PLACE, "cache"), prefix]
    subprocess.run(script + packages, check=True)


main(os.path.basename(sys.argv[0]), sys.argv[1:])
