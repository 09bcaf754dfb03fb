#!/usr/bin/env bash
# Checks the simulator: fits costs to measurements of two environments, predicts the cold start of a third, alone and in a crowd,
# and compares with a measurement.
#
#     benches/predict.sh [-o DIRECTORY] SMALL_VENV LARGE_VENV OTHER_VENV [-- OPTIONS OF BENCH]
#
# SMALL must be able to import requests, LARGE torch, OTHER pandas. Reports in DIRECTORY are used again; nodes are made there.
# Needs `cluster-pack` with `cpack-bench` beside it (CLUSTER_PACK, default: the release build), a quiet machine, and a disk from
# which little was removed in the last minutes. OPTIONS may be --runs, --mode and --boot. Exit code 1: a prediction is more than
# 20 % off the median.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
directory=$root/target/bench/predict
if [ "${1-}" = -o ]; then directory=$2; shift 2; fi
if [ $# -lt 3 ]; then sed -n '2,10p' "$0"; exit 2; fi
small=$1 large=$2 other=$3
shift 3
if [ "${1-}" = -- ]; then shift; fi
program=${CLUSTER_PACK:-${CARGO_TARGET_DIR:-$root/target}/release/cluster-pack}
mkdir -p "$directory"

measure() { # name, environment, module, options
    local report="$directory/$1.json" venv=$2 module=$3
    shift 3
    [ -s "$report" ] && return
    "$program" --json bench --venv "$venv" --containers 8 --scratch "$nodes" "$@" -- -c "import $module" > "$report.new"
    mv "$report.new" "$report"
}

# The largest comes last, because removing its directories slows later measurements down.
nodes=$(mktemp -d -p "$directory")
trap 'chmod -R u+w "$nodes"; rm -rf "$nodes"' EXIT
measure small "$small" requests --keep "$@"
measure other "$other" pandas --keep "$@"
measure large "$large" torch "$@"

simulate() { "$program" "$@" bench simulate "$directory/small.json" "$directory/large.json" --of "$directory/other.json" --check; }
simulate -q
simulate --json | python3 -c '
import json, sys
checks = [check for environment in json.load(sys.stdin)["environments"] for check in environment["checks"]]
off = [c for c in checks if abs(c["predicted"] / c["measured"] - 1) > 0.2]
sys.exit(f"{len(off)} of {len(checks)} are off by more than 20 %" if off else 0)'
