#!/usr/bin/env bash
# The published crate fuser 0.18.0 has a `rust-toolchain` file, which names the compiler 1.85.
#
# It changes nothing for crates that depend on it. But rustup's `cargo` and `rustc` obey the file of the directory that they are
# started in: a command in the crate's sources, of the registry or vendored, asks for that toolchain, and fails where it is
# neither installed nor to be downloaded.
#
# Seen with: cargo 1.95.0, fuser 0.18.0.
# Output:    fuser 0.18.0: the crate has rust-toolchain, which names 1.85
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir src
touch src/lib.rs
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.1.0"
edition = "2021"
[dependencies]
fuser = { version = "=0.18.0", default-features = false }
EOF
cargo vendor --quiet > vendor.log 2>&1 || { cat vendor.log; exit 1; }
channel=$(cat vendor/fuser/rust-toolchain)
echo "fuser 0.18.0: the crate has rust-toolchain, which names $channel"
[ "$channel" = 1.85 ]
