#!/bin/sh
# The main job on a directory store, with no server: builds both programs, packs an environment, boots it from one
# static file and shows where the time went.
#
#   examples/first-run.sh                                  an environment made for the occasion
#   examples/first-run.sh --venv PATH -c 'import numpy'    your own environment, your own import
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)

venv='' code=''
while [ $# -gt 0 ]; do
    case $1 in
        --venv) venv=$2; shift 2 ;;
        -c) code=$2; shift 2 ;;
        *) echo "usage: $0 [--venv PATH] [-c CODE]" >&2; exit 80 ;;
    esac
done

command -v cargo >/dev/null || { echo "cargo is needed: install Rust first" >&2; exit 80; }
echo "== building both programs: minutes the first time"
# Built once, with what both share, and without stores on the network, whose clients take minutes to build.
(cd "$here" && cargo build --quiet --config bootstrap/static.toml --profile quick --no-default-features \
    -p cluster-pack -p cpack-boot)

work=$(mktemp -d)
# Trees of the node cache are read-only on purpose.
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
if [ -z "$venv" ]; then
    venv=$work/venv
    python3 -m venv "$venv"
    : "${code:=import sys, pip; print('Python', sys.version.split()[0], 'runs from', sys.prefix); print('pip is', pip.__file__)}"
fi
: "${code:=import sys; print('Python', sys.version.split()[0], 'runs from', sys.prefix)}"

pack="${CARGO_TARGET_DIR:-$here/target}/x86_64-unknown-linux-gnu/quick/cluster-pack"
export CPACK_CACHE_DIR="$work/node"
set -- --store "$work/store" --venv "$venv"
echo "== first run: nothing is packed yet, nothing is on the node"
"$pack" "$@" run -- -c "$code"
echo
echo "== second run: nothing changed"
"$pack" "$@" run -- -c "$code"
