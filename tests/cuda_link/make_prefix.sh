#!/usr/bin/env bash
# Makes a directory in the place of the LLVM that cubecl-llvm's build downloads: every LLVM function is there and
# aborts with its name. A program with the feature `cuda-cpp` compiles its kernels with NVRTC and calls none.
#
#     tests/cuda_link/make_prefix.sh DIR       then build with XDG_DATA_HOME=DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=$1/tracel/tracel-llvm-23.1.0-4
mkdir -p "$prefix/lib"
cp -r "$here/bin" "$here/include" "$prefix/"
sources=("${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/llvm-sys-231.*/src)
[ -d "${sources[0]}" ] || { echo "llvm-sys is not in cargo's registry: run cargo fetch --locked first" >&2; exit 1; }
{
    cat << 'C'
#include <stdio.h>
#include <stdlib.h>
__attribute__((noreturn, noinline, cold)) static void absent(const char *name) {
    fprintf(stderr, "%s: built without LLVM; kernels go through NVRTC (cuda-cpp)\n", name);
    abort();
}
C
    grep -rhoE 'pub fn LLVM[A-Za-z0-9_]+' "${sources[@]}" | awk '{ print $3 }' | sort -u | grep -v '^LLVM_Initialize' |
        awk '{ printf "void %s(void) { absent(\"%s\"); }\n", $1, $1 }'
} > "$prefix/stub.c"
cc -O1 -ffunction-sections -c "$prefix/stub.c" -o "$prefix/stub.o"
ar rcs "$prefix/lib/libcubecl_llvm_stub.a" "$prefix/stub.o"
touch "$prefix/.tracel-llvm-installed"
