#!/usr/bin/env bash
# Builds the emulated GPU: libcuda.so (with all kernels of crates/*/kernels), libcublas.so and libnccl.so.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/gpu/emulator.sh [--check] [--into DIRECTORY] [KERNELS.cu ...]

Builds libcuda.so, libcublas.so and libnccl.so for tests without a GPU, by default into target/emulator.
Files named here are built in beside the kernels of crates/*/kernels. Only what has changed is compiled, two files at once.
--check also builds and runs the emulator's own tests. Needs g++ (C++17); CXX names another compiler. To use it:

    LD_LIBRARY_PATH=$PWD/target/emulator cargo test ...

emulator/README.md says what it checks and which variables it heeds.
TEXT
}

cd "$(dirname "$0")/../.."
emulator=emulator
into=target/emulator
more=()
check=
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit ;;
        --check) check=1 ;;
        --into) into=${2:?--into needs a directory}; shift ;;
        *.cu) more+=("$1") ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

compiler=${CXX:-g++}
command -v "$compiler" >/dev/null || { echo "emulator.sh: no $compiler" >&2; exit 1; }
flags="-std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-unknown-pragmas -DPIE_EMULATED -I$emulator"
if grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo && grep -qw f16c /proc/cpuinfo; then
    flags+=" -mavx2 -mfma -mf16c"
fi
mkdir -p "$into/objects"
stamp="$compiler $flags"
[ "$(cat "$into/flags" 2>/dev/null)" = "$stamp" ] || { rm -f "$into"/objects/*; echo "$stamp" >"$into/flags"; }

shopt -s nullglob
kernels=(crates/*/kernels/*.cu "${more[@]}")
driver=("$emulator"/{fibers,block,launch,memory,streams,driver}.cpp)
apart=("$emulator"/{cublas,nccl,meeting}.cpp)

object_of() { echo "$into/objects/$(echo "$1" | tr '/.' '__').o"; }

# An object is current if it is newer than everything that the compiler read for it.
is_current() {
    local object=$1 file
    [ -f "$object" ] && [ -f "$object.d" ] || return 1
    for file in $(sed 's/^[^:]*://; s/\\$//' "$object.d"); do
        [ -f "$file" ] && [ ! "$file" -nt "$object" ] || return 1
    done
}

tests=()
[ -z "$check" ] || tests=("$emulator/check.cpp")
todo=()
for source in "${driver[@]}" "${kernels[@]}" "${apart[@]}" "${tests[@]}"; do
    is_current "$(object_of "$source")" || todo+=("$source" "$(object_of "$source")")
done
compile() {
    local how=
    [[ $4 != *.cu && $4 != */check.cpp ]] || how="-x c++ -include $3/cuda_on_cpu.hpp"
    rm -f "$5"
    # shellcheck disable=SC2086
    nice "$1" $2 -MD -MF "$5.d" $how -c "$4" -o "$5"
}
export -f compile
if [ ${#todo[@]} -gt 0 ]; then
    printf '%s\0' "${todo[@]}" | xargs -0 -n 2 -P 2 bash -c 'compile "$@"' compile "$compiler" "$flags" "$emulator"
fi

# library NAME EXTRA-FLAGS SOURCES...
library() {
    local out=$into/lib$1.so extra=$2 objects=() source stale=
    shift 2
    for source in "$@"; do
        objects+=("$(object_of "$source")")
        [ "${objects[-1]}" -nt "$out" ] && stale=1
    done
    # Which kernels there are may have changed, too.
    [ "$(cat "$out.of" 2>/dev/null)" = "${objects[*]}" ] && [ -f "$out" ] && [ -z "$stale" ] && return
    # shellcheck disable=SC2086
    "$compiler" -shared -o "$out.new" "${objects[@]}" -Wl,-soname,"$(basename "$out")" -Wl,-z,defs -pthread $extra
    mv "$out.new" "$out"
    echo "${objects[*]}" >"$out.of"
}
library cuda "" "${driver[@]}" "${kernels[@]}"
library cublas "-L$into -lcuda -Wl,-rpath,\$ORIGIN" "$emulator/cublas.cpp"
library nccl "-L$into -lcuda -Wl,-rpath,\$ORIGIN -lrt" "$emulator"/{nccl,meeting}.cpp
echo "$into: ${#kernels[@]} files of kernels; $((${#todo[@]} / 2)) compiled"
if [ -n "$check" ]; then
    objects=()
    for source in "$emulator"/{check,fibers,block,launch}.cpp; do objects+=("$(object_of "$source")"); done
    "$compiler" -o "$into/check" "${objects[@]}" -pthread
    "$into/check"
fi
