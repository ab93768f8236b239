#!/usr/bin/env bash
# Compiles the CUDA kernels to the PTX that is committed beside them, compressed. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
usage: scripts/gpu/kernels.sh [--check | --registers | --help]

Compiles crates/*/kernels/*.cu to a .ptx.gz each beside them, for compute capability 8.0 and newer. No GPU is needed: the
compiler comes from PyPI into target/cuda, once (270 MB, some seconds). `zcat` shows what is in them.

  --check      changes nothing; fails if a committed .ptx.gz does not hold what its source compiles to
  --registers  also has machine code made for sm_80 and sm_90, and shows each kernel's registers and spills

Needed beforehand: Python 3 with pip, and a C++ compiler (g++).
TEXT
}

mode=write
case "${1-}" in
    "") ;;
    --check) mode=check ;;
    --registers) mode=registers ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
if [ $# -gt 1 ]; then usage >&2; exit 2; fi

say() { printf '%s\n' "$*" >&2; }

# A newer compiler writes a PTX version that drivers of CUDA 13.0 refuse, and other text than what is committed.
packages=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85)
toolkit=target/cuda
# What the tests of Python run with has pip too.
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
cuda=$toolkit/nvidia/cu13

install_compiler() {
    if [ "$(cat $toolkit/installed 2>/dev/null)" = "${packages[*]}" ]; then return; fi
    if ! command -v g++ >/dev/null; then
        say "g++ is missing: nvcc preprocesses with it (Debian, Ubuntu: g++)"
        exit 1
    fi
    if ! $python -m pip --version >/dev/null 2>&1; then
        say "Python's pip is missing (Debian, Ubuntu: python3-pip)"
        exit 1
    fi
    say "installing ${packages[*]} into $toolkit"
    rm -rf $toolkit
    $python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target $toolkit \
        "${packages[@]}" >&2
    echo "${packages[*]}" >$toolkit/installed
}

sources=(crates/*/kernels/*.cu)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

made_of() { echo "$made/$(basename "${1%.cu}").ptx"; }

compile() { "$cuda/bin/nvcc" -ptx -arch=compute_80 -O3 -std=c++17 -o "$(made_of "$1")" "$1"; }

# One line for each kernel: registers, bytes of spills, name.
registers() {
    local ptx=$1 target
    for target in sm_80 sm_90; do
        "$cuda/bin/ptxas" -arch=$target -v -o /dev/null "$ptx" 2>&1 | awk -v target=$target '
            /Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2] }
            /spill stores/ { for (i = 1; i <= NF; i++) if ($(i + 2) == "spill") spilled += $i }
            / Used [0-9]+ registers/ {
                for (i = 1; i <= NF; i++) if ($i == "Used") used = $(i + 1)
                printf "%s %4d registers %4d bytes spilled  %s\n", target, used, spilled, name
                spilled = 0
            }'
    done
}

install_compiler
export -f made_of compile
export cuda made
printf '%s\0' "${sources[@]}" | xargs -0 -n 1 -P 2 bash -euo pipefail -c 'compile "$1"' compile

stale=()
for source in "${sources[@]}"; do
    packed=${source%.cu}.ptx.gz
    # The text is compared, not its compressed bytes, which may be another's with another gzip.
    if zcat "$packed" 2>/dev/null | cmp -s "$(made_of "$source")"; then continue; fi
    if [ $mode = check ]; then
        stale+=("$packed")
    else
        gzip -9 --no-name --stdout "$(made_of "$source")" >"$packed"
        say "wrote $packed"
    fi
done
if [ ${#stale[@]} -gt 0 ]; then
    say "not what the source compiles to: ${stale[*]}" \
        "Run scripts/gpu/kernels.sh and commit the .ptx.gz with the .cu."
    exit 1
fi
if [ $mode = registers ]; then
    for source in "${sources[@]}"; do registers "$(made_of "$source")"; done | sort -k1,1 -k7
fi
say "${#sources[@]} files of kernels: their PTX is up to date"
