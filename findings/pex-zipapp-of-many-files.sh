#!/usr/bin/env bash
# pex 2.105.2 writes a zipapp of 66,000 files without a word, and CPython before 3.13 cannot start it.
#
# From 65,535 entries on a zip file has a ZIP64 directory, which `zipimport` reads since CPython 3.13. The file is whole: `zipfile` lists
# it. What is said does not name the number of files. `--layout packed` and `--layout loose` write files that start.
#
# Seen with: CPython 3.11, pex 2.105.2.
# Output:    pex 2.105.2: a zipapp of 66,000 modules is written with status 0; CPython 3.11 says: can't find '__main__' module
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

minor=$(python3 -c 'import sys; print(sys.version_info[1])')
[ "$minor" -lt 13 ] || { echo "needs CPython before 3.13 as python3" >&2; exit 1; }
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check pex==2.105.2
python3 - <<'PYTHON'
import os
for package in range(66):
    os.makedirs(f"source/p{package}")
    for module in range(1000):
        open(f"source/p{package}/m{module}.py", "w").close()
PYTHON
export PEX_ROOT=$work/root
status=0
env/bin/pex --sources-directory source --no-compress --output-file many.pex > made.log 2>&1 || status=$?
[ "$(python3 -c 'import zipfile; print(len(zipfile.ZipFile("many.pex").namelist()) > 66000)')" = True ]
said=$(python3 many.pex -c 'pass' 2>&1 | grep --only-matching "can't find '__main__' module" || true)

echo "pex 2.105.2: a zipapp of 66,000 modules is written with status $status; CPython 3.$minor says: $said"
[ "$status: $said: $(wc -c < made.log)" = "0: can't find '__main__' module: 0" ]
