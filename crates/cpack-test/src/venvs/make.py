"""Makes the environment PATH, with the pip of TEMPLATE: what `python -m venv PATH` makes, without running pip.

Usage: make.py TEMPLATE PATH. The scripts of pip name the new interpreter, and RECORD holds the digests of these scripts.
"""

import base64
import hashlib
import os
import re
import shutil
import sys
import venv

SCRIPTS = "../../../bin/"


def relocated(script, prefix):
    """The bytes of a script of pip for the environment `prefix`, with the `#!` line that pip would write."""
    lines = script.split(b"\n")
    body = lines[3 if lines[0] == b"#!/bin/sh" else 1 :]
    python = re.search(rb"/bin/(python[0-9.]*)", script).group(1)
    python = os.path.join(os.fsencode(prefix), b"bin", python)
    if b" " in python:
        head = [b"#!/bin/sh", b"'''exec' \"" + python + b'" "$0" "$@"', b"' '''"]
    elif len(python) > 124:
        head = [b"#!/bin/sh", b"'''exec' " + python + b' "$0" "$@"', b"' '''"]
    else:
        head = [b"#!" + python]
    return b"\n".join(head + body)


def row(line, template, prefix):
    """A row of RECORD. Writes the script that it names."""
    if not line.startswith(SCRIPTS):
        return line
    name = line[len(SCRIPTS) :].split(",")[0]
    source, target = (os.path.join(base, "bin", name) for base in (template, prefix))
    with open(source, "rb") as file:
        script = relocated(file.read(), prefix)
    with open(target, "wb") as file:
        file.write(script)
    shutil.copymode(source, target)
    digest = base64.urlsafe_b64encode(hashlib.sha256(script).digest()).decode().rstrip("=")
    return f"{SCRIPTS}{name},sha256={digest},{len(script)}\n"


def main(template, prefix):
    venv.main(["--without-pip", prefix])
    site = os.path.join("lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    packages = os.path.join(prefix, site)
    # The packages keep their times, so that their byte-code stays valid.
    shutil.copytree(os.path.join(template, site), packages, dirs_exist_ok=True)
    for name in os.listdir(packages):
        record = os.path.join(packages, name, "RECORD")
        if not os.path.isfile(record):
            continue
        with open(record, encoding="utf-8", newline="") as file:
            lines = file.readlines()
        lines = [row(line, template, prefix) for line in lines]
        with open(record, "w", encoding="utf-8", newline="") as file:
            file.writelines(lines)


main(*sys.argv[1:])
