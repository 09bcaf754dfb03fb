#!/usr/bin/env bash
# venv-pack2 0.9.2 packs an editable project that setuptools installed by a finder without the project's modules.
#
# venv-pack refuses an editable project whose .pth holds a path. The finder that setuptools writes
# where a package is not in the project's root (`package-dir`) passes that check: the archive has finder and metadata,
# packing says nothing, and the import fails on another machine.
#
# Seen with: CPython 3.11, venv-pack2 0.9.2, setuptools 80.9.0.
# Output:    venv-pack2 0.9.2: exit 0, 0 modules of alpha packed, then: ModuleNotFoundError: No module named 'alpha'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check venv-pack2==0.9.2 setuptools==80.9.0
mkdir -p project/src/alpha
echo 'VALUE = 42' > project/src/alpha/__init__.py
cat > project/pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "alpha"
version = "1.0"
[tool.setuptools]
packages = ["alpha"]
package-dir = { alpha = "src/alpha" }
TOML
env/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable project
env/bin/python -c 'import alpha; assert alpha.VALUE == 42'

env/bin/venv-pack --quiet --prefix env --output env.tar.gz
status=$?
modules=$(tar --list --file env.tar.gz | grep --count '/alpha/__init__.py$' || true)
mkdir unpacked
tar --extract --file env.tar.gz --directory unpacked
mv project elsewhere
error=$(unpacked/bin/python -c 'import alpha' 2>&1 | tail -n 1 || true)

echo "venv-pack2 0.9.2: exit $status, $modules modules of alpha packed, then: $error"
[ "$modules" = 0 ] && [ "$error" = "ModuleNotFoundError: No module named 'alpha'" ]
