#!/usr/bin/env bash
# venv-pack2 0.9.2 drops the interpreter's options from the first line of a script.
#
# A script of the environment that starts with `#!…/bin/python -I` runs isolated. In the archive its first lines start `python`
# beside it without `-I`, so that variables and the working directory reach it again, and nothing is said.
#
# Seen with: CPython 3.11, venv-pack2 0.9.2.
# Output:    venv-pack2 0.9.2: a script with -I is isolated in the environment: 1, unpacked: 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check venv-pack2==0.9.2
printf '#!%s -I\nimport sys\nprint(sys.flags.isolated)\n' "$work/env/bin/python" > env/bin/tool
chmod +x env/bin/tool
before=$(env/bin/tool)

env/bin/venv-pack --quiet --prefix env --output env.tar.gz
mkdir unpacked
tar --extract --file env.tar.gz --directory unpacked
after=$(unpacked/bin/tool)

echo "venv-pack2 0.9.2: a script with -I is isolated in the environment: $before, unpacked: $after"
[ "$before" = 1 ] && [ "$after" = 0 ]
