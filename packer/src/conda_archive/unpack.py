"""Writes the path of this environment into those of its files that must hold it. Run it once, where the environment stays.

Each line of the list has a file, what it holds in the place of the path, and whether it is a text or a binary. Python itself, its
modules and the scripts of `bin` that run by it need none of this. A file is replaced by rename, so that programs may run meanwhile,
and a second run finds nothing to do. An environment that moves afterwards must be unpacked again.
"""
import os
import re
import sys

_prefix_records = [
@RECORDS@
]

# The longest first line of a script that every kernel takes.
LONGEST = 127


def first_line(line, held, prefix):
    new = line.replace(held, prefix)
    found = re.match(rb"#!\s*(/\S*)(.*)", line)
    if held not in line or not found or (b" " not in prefix and len(new) <= LONGEST):
        return new
    program, options = found.groups()
    name = program.rpartition(b"/")[2]
    if re.fullmatch(rb"python(\d+(\.\d+)?)?", name):
        line = b"#!/bin/sh\n'''exec' \"" + program + b"\"" + options + b" \"$0\" \"$@\" #'''"
    else:
        line = b"#!/usr/bin/env " + name + options
    return line.replace(held, prefix)


def in_text(data, held, prefix):
    if not data.startswith(b"#!"):
        return data.replace(held, prefix)
    line, end, rest = data.partition(b"\n")
    return first_line(line, held, prefix) + end + rest.replace(held, prefix)


def in_binary(data, held, prefix):
    def put(found):
        return found.group().replace(held, prefix).ljust(len(found.group()), b"\0")
    return re.sub(re.escape(held) + rb"[^\0]*", put, data)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    prefix = os.fsencode(root)
    room = min([len(os.fsencode(held)) for _, held, mode in _prefix_records if mode == "binary"], default=len(prefix))
    if len(prefix) > room:
        sys.exit("conda-unpack: %s has %d bytes, and binaries have room for %d: unpack the environment at a shorter path"
                 % (root, len(prefix), room))
    for name, held, mode in _prefix_records:
        path, held = os.path.join(root, name), os.fsencode(held)
        staged = path + ".conda-unpack"
        try:
            with open(path, "rb") as file:
                data = file.read()
            if held not in data:
                continue
            with open(staged, "wb") as file:
                file.write((in_text if mode == "text" else in_binary)(data, held, prefix))
            os.chmod(staged, os.stat(path).st_mode & 0o7777)
            os.replace(staged, path)
        except OSError as error:
            sys.exit("conda-unpack: cannot write %s (%s): unpack the environment where this user may write"
                     % (path, error.strerror))


if __name__ == "__main__":
    main()
