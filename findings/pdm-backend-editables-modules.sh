#!/usr/bin/env bash
# pdm-backend 2.3.3 leaves single-file modules out of an editable installation that is made by `editables`.
#
# With `editable-backend = "editables"` packages of the project are mapped, modules beside them are not: pip installs, says nothing,
# and the module cannot be imported. A wheel of the same project has it, and so has the editable installation by path.
#
# Seen with: CPython 3.11, pip 24.0, pdm-backend 2.3.3, editables 0.5.
# Output:    pdm-backend 2.3.3 by editables: package imported, module: No module named 'beta'; by path: package imported, module imported
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
pip() { env/bin/python -m pip "$@" --quiet --disable-pip-version-check; }
pip install pip==24.0 pdm-backend==2.3.3 editables==0.5
mkdir -p project/src/alpha
touch project/src/alpha/__init__.py project/src/beta.py
import_of() { env/bin/python -c "
try:
    import $1
    print('imported')
except ImportError as error:
    print(error)"; }
installed_by() {
    cat > project/pyproject.toml <<TOML
[build-system]
requires = ["pdm-backend"]
build-backend = "pdm.backend"
[project]
name = "alpha"
version = "1.0"
[tool.pdm.build]
editable-backend = "$1"
TOML
    pip install --no-build-isolation --no-deps --force-reinstall --editable ./project
    echo "package $(import_of alpha), module: $(import_of beta)"
}
hooks=$(installed_by editables)
path=$(installed_by path)

echo "pdm-backend 2.3.3 by editables: $hooks; by path: $path"
[ "$hooks" = "package imported, module: No module named 'beta'" ] && [ "$path" = "package imported, module: imported" ]
