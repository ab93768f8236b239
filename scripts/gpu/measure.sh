#!/usr/bin/env bash
# Correctness and benchmarks on a machine with a GPU, without Rust and without network. See --help.
set -uo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)

usage() {
    cat <<'TEXT'
usage: scripts/gpu/measure.sh PACK RESULTS [--seconds N] [--emulated]

PACK is what scripts/gpu/pack.sh made. Runs, each with a limit of its own, N seconds in all (580 if not given):

    tests       logits of Transformers, oracles of ranks, NCCL on one GPU
    sanitizer   compute-sanitizer memcheck and racecheck over the kernels, if it is there
    pool        a pool on the GPU beside one on the CPU: the same text in f32
    bench       pie bench gpu: the largest of DeepSeek-Coder 33B, 6.7B, 1.3B that fits
    compare     the paper's way in Transformers, on the same GPU and shape, if torch is there

and leaves in RESULTS: summary.md (what passed, what failed and where), bench.json, bench.md, and a log of each step. Exits
with 1 if anything failed. --emulated rehearses all of it on the emulated GPU, with small shapes.
TEXT
}

pack="" results="" seconds=580 emulated=no
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=${2:?--seconds needs a number}; shift ;;
        --emulated) emulated=yes ;;
        --help | -h) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) if [ -z "$pack" ]; then pack=$1; else results=$1; fi ;;
    esac
    shift
done
if [ -z "$results" ]; then usage >&2; exit 2; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xJf "$pack" || { echo "measure.sh: $pack is no pack of scripts/gpu/pack.sh" >&2; exit 2; }
pack=$work
mkdir -p "$results" && results=$(cd "$results" && pwd) || exit 2
cd "$here" || exit 2
summary=$results/summary.md
worst=0
end=$((SECONDS + seconds))

say() { echo "$*" | tee -a "$summary"; }

# Where cuBLAS and NCCL are: the system's folders, or the packages that PyTorch brings.
find_libraries() {
    local found
    local links=$work/links
    mkdir -p "$links"
    found=$(python3 - <<'PY' 2>/dev/null
import importlib.util, pathlib
spec = importlib.util.find_spec("nvidia")
for folder in sorted({str(path.parent) for root in (spec.submodule_search_locations or []) for path in pathlib.Path(root).rglob("lib*.so*")}):
    print(folder)
PY
    )
    for folder in $found /usr/local/cuda/lib64 /usr/lib/x86_64-linux-gnu; do
        # NCCL goes by this name only.
        if [ -e "$folder/libnccl.so.2" ]; then ln -sf "$folder/libnccl.so.2" "$links/libnccl.so"; fi
        LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
    done
    export LD_LIBRARY_PATH="$links:$LD_LIBRARY_PATH"
}

# step NAME LIMIT COMMAND...: its output goes to a log; the summary says how it went.
step() {
    local name=$1 limit=$2 status start=$SECONDS left=$((end - SECONDS))
    shift 2
    if [ $left -lt 10 ]; then
        say "- **$name: not run**, the $seconds s are over"
        worst=1
        return 1
    fi
    if [ $limit -gt $left ]; then limit=$left; fi
    timeout --kill-after 5 "$limit" "$@" >"$results/$name.log" 2>&1
    status=$?
    case $status in
        0) say "- $name: ok, $((SECONDS - start)) s. $(grep -E '^test result|ERROR SUMMARY|RACECHECK SUMMARY|^equal' "$results/$name.log" | tail -1)" ;;
        124 | 137) say "- **$name: FAILED**, not done after $limit s. The end of $name.log:" ;;
        *) say "- **$name: FAILED** with $status after $((SECONDS - start)) s. The end of $name.log:" ;;
    esac
    if [ $status -ne 0 ]; then
        worst=1
        { echo '```'; tail -15 "$results/$name.log"; echo '```'; } | tee -a "$summary"
    fi
    return $status
}

: >"$summary"
say "# GPU run of $(date -u +%Y-%m-%dT%H:%MZ), commit $(cat "$pack/commit")"
say ""
if [ $emulated = yes ]; then
    export LD_LIBRARY_PATH="$here/target/emulator${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    say "Emulated GPU: correctness only, no speed."
else
    find_libraries
    say "$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&1 | head -1)"
fi
say ""

# Tests were compiled with the repository's path.
compiled=$(cat "$pack/repository")
if [ "$compiled" != "$here" ] && [ ! -e "$compiled" ]; then
    mkdir -p "$(dirname "$compiled")" && ln -s "$here" "$compiled" || say "- the tests look for $compiled, which cannot be made"
fi
export RUST_BACKTRACE=0 XDG_CACHE_HOME=$work/cache
deps=$pack/deps
step tests-model 150 "$deps/pie-model-cuda" --nocapture
PIE_TEST_DEVICE=cuda step tests-oracle 150 "$deps/pie-worker-oracle"
PIE_TEST_DEVICE=cuda step tests-branches 90 "$deps/pie-worker-branches"
if [ $emulated = yes ]; then
    PIE_EMULATOR_DEVICES=4 step tests-nccl 60 "$deps/pie-comm-nccl" --test-threads 1
else
    # One GPU: one rank sums over NCCL, and two on one are refused.
    step tests-nccl 60 "$deps/pie-comm-nccl" --test-threads 1 one_gpu one_rank_alone
fi
if command -v compute-sanitizer >/dev/null && [ $emulated = no ]; then
    for tool in memcheck racecheck; do
        step "sanitizer-$tool" 120 compute-sanitizer --tool $tool --error-exitcode 9 "$deps/pie-model-cuda" --test-threads 1 bf16 draws
    done
else
    say "- sanitizer: not run, compute-sanitizer is not there"
fi
step pool 90 scripts/gpu/pool.sh "$pack/pie"

shapes=(deepseek-coder-33b deepseek-coder-6.7b deepseek-coder-1.3b) quick=()
if [ $emulated = yes ]; then
    shapes=(test) quick=(--contexts 64 --batches 1,2 --repeat 1 --insert 8)
fi
measured=""
for shape in "${shapes[@]}"; do
    if step "bench-$shape" 240 "$pack/pie" bench gpu --config "$shape" ${quick[@]+"${quick[@]}"} --report "$results/bench.json" --markdown "$results/bench.md"; then
        measured=$shape
        break
    fi
done
if python3 -c 'import torch, transformers' 2>/dev/null && [ $emulated = no ] && [ -n "$measured" ]; then
    step compare 150 python3 scripts/gpu/transformers_pie.py --shape "$measured" --report "$results/transformers.json"
else
    say "- compare: not run, torch and transformers are not there, or there is nothing to compare with"
fi
say ""
if [ $worst -eq 0 ]; then say "Every step that ran passed."; else say "Some steps FAILED or were not run: see above."; fi
exit $worst
