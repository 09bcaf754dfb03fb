#!/usr/bin/env bash
# uv 0.13.9 installs `./project` of a requirements file again only if `pyproject.toml` changes; on the command line always.
#
# `uv pip install -r requirements.txt` after an edit of a module leaves the old module in the environment and says that all
# is well. `uv pip install ./project` installs the edited one; so does pip in both cases.
#
# Seen with: CPython 3.11, uv 0.13.9, setuptools 80.9.0.
# Output:    uv 0.13.9 after an edit: from the file VALUE = 1, from the command line VALUE = 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv tools
tools/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
export UV_CACHE_DIR=$work/cache
python3 -m venv env
uv() { tools/bin/uv pip install --quiet --python env/bin/python "$@"; }
mkdir -p project/alpha
echo 'VALUE = 1' > project/alpha/__init__.py
cat > project/pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools==80.9.0"]
build-backend = "setuptools.build_meta"
[project]
name = "alpha"
version = "1.0"
[tool.setuptools]
packages = ["alpha"]
TOML
echo './project' > requirements.txt
value() { cat env/lib/python3*/site-packages/alpha/__init__.py; }
uv --requirements requirements.txt
[ "$(value)" = 'VALUE = 1' ]
echo 'VALUE = 2' > project/alpha/__init__.py
rm -rf project/build
uv --requirements requirements.txt
file=$(value)
uv ./project
line=$(value)

echo "uv 0.13.9 after an edit: from the file $file, from the command line $line"
[ "$file" = 'VALUE = 1' ] && [ "$line" = 'VALUE = 2' ]
