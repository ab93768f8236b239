#!/usr/bin/env bash
# Tests of the GPU path, on a GPU if there is one, else on the emulated one. The last line counts them. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec </dev/null

usage() {
    cat <<'TEXT'
usage: scripts/gpu/test.sh [--emulated | --real] [FILTER]

Builds the tests with `--features cuda` and runs them on GPU 0; without a GPU (no nvidia-smi), or with --emulated, on the
emulated one of emulator/: every kernel, product, sum and graph runs, in any order of threads, at no
speed worth knowing. FILTER runs only tests whose names contain it.

    kernels      shared out to blocks as they should be, with the cache's own tests
    collectives  NCCL between processes: right sums, a killed and a silent rank named within 5 s
    model        logits and tokens of Transformers at 1, 2 and 8 ranks on one GPU; f16 and bf16 within bounds; graphs
    bench        pie bench gpu has every row, beside its floor
    rank         layer-0 identity after 50 edits, adoption, sharing: the tests of the CPU, on the GPU

    pool         whole pools over NCCL and TCP, from Python: they say what a pool on the CPU says; a killed rank

Needs Rust, what `scripts/test.sh --setup` sets up, and for the emulator g++ with C++17.
TEXT
}

emulated=auto filter=()
while [ $# -gt 0 ]; do
    case $1 in
        --emulated) emulated=yes ;;
        --real) emulated=no ;;
        --help | -h) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) filter=("$1") ;;
    esac
    shift
done
if [ $emulated = auto ]; then
    if nvidia-smi -L >/dev/null 2>&1; then emulated=no; else emulated=yes; fi
fi

log=$(mktemp) passed=0 failed=0
trap 'rm -f "$log"' EXIT

gpus() { nvidia-smi -L | wc -l; }

if [ $emulated = yes ]; then
    scripts/gpu/emulator.sh >&2
    export LD_LIBRARY_PATH="$PWD/target/emulator${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    # As many as the tests of NCCL start ranks; all others use the first.
    export PIE_EMULATOR_DEVICES=4
fi

# One run of cargo's tests, counted. Variables go in front: `VARIABLE=value run ...`.
run() {
    local status=0
    printf '\n==> %s\n' "$*" >&2
    cargo test --release --workspace --features pie/etcd,pie/cuda "$@" ${filter[@]+"${filter[@]}"} 2>&1 | tee "$log" >&2 || status=$?
    read -r now_passed now_failed < <(awk '/^test result:/ { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i; if ($(i + 1) == "failed;") f += $i } } END { print p + 0, f + 0 }' "$log")
    passed=$((passed + now_passed)) failed=$((failed + now_failed))
    if [ $status -ne 0 ]; then echo "$passed passed, $failed failed"; exit 1; fi
}

# Cargo builds examples, which the tests of processes run, only with all of a package's tests.
cargo build --release --workspace --features pie/etcd,pie/cuda --examples </dev/null >&2
run --lib tiles
if [ $emulated = yes ] || [ "$(gpus)" -ge 4 ]; then
    run --test nccl -- --test-threads 1
else
    # NCCL takes one rank for each GPU.
    run --test nccl -- --test-threads 1 one_rank_alone one_gpu
fi
run --test cuda
run --test bench_gpu
PIE_TEST_DEVICE=cuda run --test oracle --test branches --test speculation --test spill
# A pass on a GPU is short, and never given up.
PIE_TEST_DEVICE=cuda run --test repair rows_before
if [ $emulated = yes ]; then
    # The same results in another order of threads, and with copies that land at once: no kernel lives by an order.
    PIE_EMULATOR_ORDER=reverse PIE_EMULATOR_COPIES=early run --test cuda bf16
    PIE_EMULATOR_ORDER=shuffle:7 run --test cuda draws
fi
printf '\n==> whole pools\n' >&2
# The program was built with the tests of its package.
cargo test --no-run --release --workspace --features pie/etcd,pie/cuda --test bench_gpu >&2
status=0
timeout --foreground --kill-after=20 600 .venv/bin/python -m pytest --color=no -q -x --durations=3 -c scripts/python/pytest.ini \
    scripts/gpu/python 2>&1 | tee "$log" >&2 || status=$?
now_passed=$(grep -oE '[0-9]+ passed' "$log" | tail -1 | cut -d' ' -f1 || true)
passed=$((passed + ${now_passed:-0}))
if [ $status -ne 0 ]; then failed=$((failed + 1)); fi
echo "$passed passed, $failed failed"
exit $status
