#!/usr/bin/env bash
# celery 4.4.7 requires "pytz (>dev)": pip 24.0 installs it, and packaging since 22.0 refuses the same line.
#
# Tools that read the metadata of what is installed (importlib.metadata gives the text, `packaging` parses it) meet a line that
# was valid when the wheel was made, and that its installer accepted. One unreadable requirement must not make the rest of an
# environment unusable.
#
# Seen with: CPython 3.11, pip 24.0, packaging 26.2 and 21.3, celery 4.4.7.
# Output:    celery 4.4.7: packaging 21.3 reads 'pytz (>dev)', packaging 26.2 raises InvalidRequirement
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
pip() { env/bin/python -m pip "$@" --quiet --disable-pip-version-check; }
pip install --no-deps celery==4.4.7 pip==24.0 2>&1 | grep --invert-match DEPRECATION || true
line=$(env/bin/python -c '
from importlib.metadata import requires
print(next(r for r in requires("celery") if r.startswith("pytz")))')
read_by() {
    pip install "packaging==$1" pyparsing==3.1.4 2>/dev/null
    env/bin/python - "$line" <<'PY'
import sys
from packaging.requirements import InvalidRequirement, Requirement
try:
    Requirement(sys.argv[1])
    print("reads")
except InvalidRequirement:
    print("raises InvalidRequirement")
PY
}
old=$(read_by 21.3)
new=$(read_by 26.2)

echo "celery 4.4.7: packaging 21.3 $old '$line', packaging 26.2 $new"
[ "$old" = "reads" ] && [ "$new" = "raises InvalidRequirement" ]
