# shellcheck shell=bash
# Sourced by the scripts in this directory: the repository's root, cargo's environment, and functions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0

# Names what follows, with the seconds since the script began.
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

# Says what was not run. Where everything is meant to be there (WMTP_CI_STRICT=1, as in the workflow) it fails.
not_run() {
    echo "NOT RUN: $1"
    [ "${WMTP_CI_STRICT:-0}" != 1 ] || exit 1
}

# Debian's packages, as root or with sudo; without either, or without apt-get, nothing happens.
debian() {
    command -v apt-get > /dev/null || return 0
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    { "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -yq "$@"; } || true
}

# A virtual environment in target/ with these packages from PyPI, put first in PATH.
python_tools() { # NAME PACKAGE...
    local venv="target/$1-venv"
    shift
    if [ "$(cat "$venv/installed" 2> /dev/null)" != "$*" ]; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install -q "$@"
        echo "$*" > "$venv/installed"
    fi
    PATH="$PWD/$venv/bin:$PATH"
}

# A program from crates.io, built into target/tools unless it is installed already.
cargo_tool() { # NAME VERSION
    command -v "$1" > /dev/null && return
    step "$1 $2"
    cargo install "$1" --version "$2" --locked --root target/tools
    PATH="$PWD/target/tools/bin:$PATH"
}
