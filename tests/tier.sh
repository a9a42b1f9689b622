#!/usr/bin/env bash
# Runs the tests of a tier that `cargo test` leaves out (docs/testing.md): tests/tier.sh slow [ARGUMENTS].
# tests/tier.sh slow --list-targets prints them as cargo's arguments
set -euo pipefail
cd "$(dirname "$0")/.."
tier=$1
shift
# A target of a tier is marked in its manifest: `test = false # tier: slow`.
mapfile -t names < <(awk -v tier="$tier" '
    /^name = / { gsub(/"/, "", $3); name = $3 }
    $0 ~ "^test = false +# tier: " tier "$" { print name }' Cargo.toml ./*/Cargo.toml crates/*/Cargo.toml)
[ "${#names[@]}" -gt 0 ] || { echo "there is no test in a tier $tier" >&2; exit 2; }
targets=()
for name in "${names[@]}"; do targets+=(--test "$name"); done
if [ "${1:-}" = --list-targets ]; then
    printf '%s\n' "${targets[@]}"
    exit
fi
timeout -k 30 40m cargo test --release --locked "${targets[@]}" "$@"
