#!/usr/bin/env bash
# cloudpickle 3.1.3 drops the file name of a function that it pickles by value; 3.1.2 keeps it.
#
# A traceback of the function in another process then has no source lines, also where the file is at hand there.
#
# Seen with: CPython 3.11, cloudpickle 3.1.2 and 3.1.3.
# Output:    cloudpickle 3.1.2 keeps 'job.py', cloudpickle 3.1.3 gives '<dynamic-code>'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
cat > job.py <<'PY'
import os.path
import pickle

import cloudpickle

def call():
    return 1

print(os.path.basename(pickle.loads(cloudpickle.dumps(call)).__code__.co_filename))
PY
name_by() {
    env/bin/python -m pip install --quiet --disable-pip-version-check "cloudpickle==$1"
    env/bin/python job.py
}
old=$(name_by 3.1.2)
new=$(name_by 3.1.3)

echo "cloudpickle 3.1.2 keeps '$old', cloudpickle 3.1.3 gives '$new'"
[ "$old" = job.py ] && [ "$new" = '<dynamic-code>' ]
