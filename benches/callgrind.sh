#!/bin/sh
# Counts the instructions of a warm start of cpack-boot, up to exec. The noise of a machine does not change this number.
#
#   benches/callgrind.sh [VENV]    count, and list the most expensive functions; default: an empty virtual environment
#
# Needs cargo, python3 and valgrind. cpack-boot is built as shipped, but with symbols, in target/callgrind. valgrind
# writes nothing when a program calls exec, hence the dump before `execve`, where the count ends.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
command -v valgrind >/dev/null || { echo "valgrind is needed: apt-get install valgrind" >&2; exit 80; }
target=${CARGO_TARGET_DIR:-$here/target}

cd "$here"
cargo build --quiet --release -p cluster-pack
CARGO_PROFILE_BOOT_STRIP=none CARGO_PROFILE_BOOT_DEBUG=line-tables-only \
    cargo build --quiet --config bootstrap/static.toml --profile boot -p cpack-boot --target-dir "$target/callgrind"

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
venv=${1:-}
if [ -z "$venv" ]; then
    venv=$work/venv
    python3 -m venv --without-pip "$venv"
fi
export CPACK_CACHE_DIR="$work/node"
"$target/release/cluster-pack" --store "$work/store" --client-cache "$work/client" --venv "$venv" --name warm \
    --boot "$target/callgrind/x86_64-unknown-linux-gnu/boot/cpack-boot" -q launcher -o "$work/env-python"
"$work/env-python" -c pass

valgrind --quiet --tool=callgrind --dump-before=execve --callgrind-out-file="$work/out" "$work/env-python" -c pass
dump=$(find "$work" -maxdepth 1 -name 'out.*' -size +0)
[ -n "$dump" ] || { echo "valgrind wrote no dump before execve" >&2; exit 89; }
callgrind_annotate "$dump" | sed -n '/Ir/,$p' | head -40
echo
echo "instructions of a warm start: $(sed -n 's/^\(summary\|totals\): //p' "$dump" | head -1)"
