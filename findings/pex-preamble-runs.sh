#!/usr/bin/env bash
# pex 2.105.2 runs the code of `--preamble-file` more than once in one start of a PEX.
#
# The runtime starts the interpreter again, and the file begins with the preamble each time: what it prints or does is repeated,
# and how often depends on the mode and on whether the PEX was started before.
#
# Seen with: CPython 3.11, pex 2.105.2, cowsay 6.1.
# Output:    pex 2.105.2: the preamble runs 2 and 2 times in zipapp and venv mode, 2 and 1 when started again
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check pex==2.105.2
export PEX_ROOT=$work/root
echo 'import sys; print("preamble", file=sys.stderr)' > preamble.py
made() { env/bin/pex cowsay==6.1 --preamble-file preamble.py --output-file "$1" "${@:2}" > made.log; }
made zipapp.pex
made venv.pex --venv
count() { python3 "$1" -c 'pass' 2>&1 | grep --count preamble || true; }
first="$(count zipapp.pex) and $(count venv.pex)"
again="$(count zipapp.pex) and $(count venv.pex)"

echo "pex 2.105.2: the preamble runs $first times in zipapp and venv mode, $again when started again"
[ "$first, $again" = "2 and 2, 2 and 1" ]
