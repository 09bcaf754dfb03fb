#!/usr/bin/env bash
# packaging 26.2 refuses a `Requires-Dist` that is folded onto two lines, as email headers may be; 21.3 reads it.
#
# `importlib.metadata` hands out the value with the line break in it, indented anew. Tools that parse what is installed meet it there, and pip
# takes the wheel with `--no-deps`.
#
# Seen with: CPython 3.11, pip 24.0, packaging 26.2 and 21.3.
# Output:    Requires-Dist is '       six\n(>=1)': packaging 21.3 reads it, packaging 26.2 raises InvalidRequirement
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
pip() { env/bin/python -m pip "$@" --quiet --disable-pip-version-check; }
pip install pip==24.0
env/bin/python <<'PY'
import zipfile
info = "folded-1.0.dist-info"
with zipfile.ZipFile("folded-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("folded.py", "")
    wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: folded\nVersion: 1.0\nRequires-Dist: six\n (>=1)\n\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", f"folded.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
PY
pip install --no-deps ./folded-1.0-py3-none-any.whl
value=$(env/bin/python -c 'from importlib.metadata import requires; print(repr(requires("folded")[0]))')
read_by() {
    pip install "packaging==$1" pyparsing==3.1.4
    env/bin/python <<'PY'
from importlib.metadata import requires
from packaging.requirements import InvalidRequirement, Requirement
try:
    Requirement(requires("folded")[0])
    print("reads it")
except InvalidRequirement:
    print("raises InvalidRequirement")
PY
}
old=$(read_by 21.3)
new=$(read_by 26.2)

echo "Requires-Dist is $value: packaging 21.3 $old, packaging 26.2 $new"
[ "$value" = "'       six\\n(>=1)'" ] && [ "$old" = "reads it" ] && [ "$new" = "raises InvalidRequirement" ]
