#!/usr/bin/env bash
# setuptools 57.5.0 makes an egg of a wheel that keeps the wheel's RECORD, whose paths the egg does not have.
#
# `setup.py develop` and `easy_install` of setuptools 57 turn a dependency's wheel into an egg: `NAME.dist-info` becomes
# `EGG-INFO`, and RECORD stays as it was. It lists METADATA, WHEEL and itself at paths that do not exist, so that tools that
# compare an installation with its RECORD find files missing.
#
# Seen with: CPython 3.9 and 3.11, setuptools 57.5.0, six 1.16.0.
# Output:    setuptools 57.5.0: EGG-INFO/RECORD is there, 5 of its 6 paths are not
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
pip() { env/bin/python -m pip "$@" --quiet --disable-pip-version-check; }
pip install setuptools==57.5.0 wheel==0.37.1
pip download --no-deps six==1.16.0
env/bin/python - six-1.16.0-py2.py3-none-any.whl egg <<'PY'
import sys
from setuptools.wheel import Wheel
Wheel(sys.argv[1]).install_as_egg(sys.argv[2])
PY
counts=$(env/bin/python - egg/EGG-INFO/RECORD <<'PY'
import csv, os, sys
rows = [row[0] for row in csv.reader(open(sys.argv[1])) if row]
missing = [path for path in rows if not os.path.exists(os.path.join("egg", path))]
print(f"{len(missing)} of its {len(rows)} paths are not")
PY
)

echo "setuptools 57.5.0: EGG-INFO/RECORD is there, $counts"
[ "$counts" = "5 of its 6 paths are not" ]
