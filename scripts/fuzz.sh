#!/usr/bin/env bash
# Builds the fuzz targets and runs each for a while. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/fuzz.sh [--seconds N] [--jobs N] [--seed N] [TARGET...]

Runs the fuzz targets of fuzz/targets, all or those that are named, each for N seconds (default 5), N at once (default: as many as
cores). They start from the inputs in fuzz/seeds/TARGET and keep what they learn in target/fuzz/corpus/TARGET. The last line counts
targets; an input that fails is said, and stays in target/fuzz/findings. With a seed (0, the default, is another one each time) and
nothing learned yet, the inputs are the same each time, as many as the time is enough for. To see a finding again:

  target/fuzz/release/TARGET FILE

A finding becomes a fix and an ordinary test. Needs g++ for libFuzzer; the toolchain is the stable one.
TEXT
}

seconds=5 jobs=$(nproc) seed=0 targets=()
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds) seconds=${2-}; shift ;;
        --jobs) jobs=${2-}; shift ;;
        --seed) seed=${2-}; shift ;;
        --help | -h) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) targets+=("$1") ;;
    esac
    shift
done
if ! [[ $seconds =~ ^[1-9][0-9]*$ && $jobs =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]+$ ]]; then usage >&2; exit 2; fi
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for target in "${targets[@]}"; do
    if ! [ -f "fuzz/targets/$target.rs" ]; then
        echo "there is no target $target: $(cd fuzz/targets && echo *.rs | sed 's/\.rs//g')" >&2
        exit 2
    fi
done

home=$PWD/target/fuzz
# The versions that the program has; cargo adds what only the targets need.
cp Cargo.lock fuzz/Cargo.lock
CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$home RUSTC_WRAPPER=$PWD/scripts/fuzz/rustc.sh \
    cargo build --manifest-path fuzz/Cargo.toml --release "${targets[@]/#/--bin=}" </dev/null >&2

# One target, its words in a log: the last lines of them if it fails.
run() {
    local target=$1 log=$home/logs/$1.log status=0
    mkdir -p "$home/corpus/$target" "$home/findings" "$home/logs" "fuzz/seeds/$target"
    "$home/release/$target" -max_total_time="$seconds" -seed="$seed" -timeout=60 -rss_limit_mb=3072 -max_len=8192 -print_final_stats=1 \
        -artifact_prefix="$home/findings/$target-" "$home/corpus/$target" "fuzz/seeds/$target" </dev/null >"$log" 2>&1 || status=$?
    if [ $status -ne 0 ]; then
        tail -n 40 "$log" >&2
        echo "$target FAILED" >&2
        return 1
    fi
    local runs paths
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    paths=$(sed -n 's/.*DONE .*ft: \([0-9]*\) .*/\1/p' "$log")
    printf '%-14s %9s inputs, %6s features\n' "$target" "$runs" "${paths:-?}" >&2
}
export -f run
export home seconds seed

passed=0 failed=0 results=$(mktemp)
trap 'rm -f "$results"' EXIT
printf '%s\n' "${targets[@]}" |
    xargs -P "$jobs" -I{} bash -c 'if run {}; then echo passed; else echo failed; fi' >"$results"
passed=$(grep -c passed "$results" || true) failed=$(grep -c failed "$results" || true)
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -eq ${#targets[@]} ]
