#!/usr/bin/env bash
# venv-pack2 0.9.2 writes `pyvenv.cfg` twice into each archive.
#
# It does the same with `bin/Activate.ps1`. Both members are equal, nothing is said, and `tar` unpacks them; an unpacker that refuses a path that comes twice, as
# a guard against archives that overwrite what was checked, refuses every archive of venv-pack2. Python's zipfile warns.
#
# Seen with: CPython 3.11, venv-pack2 0.9.2.
# Output:    venv-pack2 0.9.2: pyvenv.cfg comes 2 times in the tar.gz, 2 times in the zip
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check venv-pack2==0.9.2
env/bin/venv-pack --quiet --prefix env --output env.tar.gz
env/bin/python -W ignore -m venv_pack --quiet --prefix env --output env.zip
tar=$(tar --list --file env.tar.gz | grep --count '^\(\./\)\?pyvenv\.cfg$' || true)
zip=$(env/bin/python -c 'import zipfile; print(zipfile.ZipFile("env.zip").namelist().count("pyvenv.cfg"))')

echo "venv-pack2 0.9.2: pyvenv.cfg comes $tar times in the tar.gz, $zip times in the zip"
[ "$tar" = 2 ] && [ "$zip" = 2 ]
