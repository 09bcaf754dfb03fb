#!/usr/bin/env bash
# A release of pex takes the native runtime of one series alone: 2.97.3 takes pexrc 0.12, 2.105.2 takes 0.37.
#
# `pex --rc --pexrc-binary FILE` asks the file for its version before it resolves anything, and refuses the runtime of another series.
# So a pexrc that is kept or built apart ties a build to the releases of pex around its date.
#
# Seen with: CPython 3.11, pex 2.97.3 and 2.105.2, cowsay 6.1. The runtime is stood for by a program that says its version.
# Output:    pexrc 0.12.6 is refused by pex 2.105.2, which wants 0.37.1, and not by 2.97.3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

printf '#!/bin/sh\necho pexrc 0.12.6\n' > pexrc
chmod +x pexrc
export PEX_ROOT=$work/root
for version in 2.97.3 2.105.2; do
    python3 -m venv "$version"
    "$version/bin/python" -m pip install --quiet --disable-pip-version-check "pex==$version"
    # The program makes no runtime, so that neither succeeds: what counts is whether the version is the reason.
    "$version/bin/pex" cowsay==6.1 --rc --pexrc-binary ./pexrc --output-file my.pex > "$version.log" 2>&1 || true
done
wanted=$(grep --only-matching 'pexrc requirement of ~=[0-9.]*[0-9]' 2.105.2.log | sed 's/.*~=//' || true)
is_refused() { grep --quiet 'does not match' "$1.log"; }

if ! is_refused 2.105.2 || is_refused 2.97.3; then
    cat ./*.log
    exit 1
fi
echo "pexrc 0.12.6 is refused by pex 2.105.2, which wants $wanted, and not by 2.97.3"
[ "$wanted" = 0.37.1 ]
