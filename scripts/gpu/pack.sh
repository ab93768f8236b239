#!/usr/bin/env bash
# Builds everything that a GPU machine without Rust and without network needs, into one file. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
usage: scripts/gpu/pack.sh [FILE]

Builds `pie` and the tests of the GPU path with `--features cuda` (no GPU and no CUDA toolkit needed), strips them, and packs
them into FILE (.gpu/pack.tar.xz if not given). The repository and this file are what travels; there

    scripts/gpu/measure.sh FILE RESULTS

runs correctness and benchmarks.
TEXT
}

file=.gpu/pack.tar.xz
case "${1-}" in
    "") ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) file=$1 ;;
esac

features=(--features pie/etcd,pie/cuda)
into=$(mktemp -d)
trap 'rm -rf "$into"' EXIT
mkdir -p "$(dirname "$file")" "$into/deps" "$into/examples"
cargo build --release --workspace "${features[@]}" </dev/null >&2
strip -o "$into/pie" target/release/pie
cargo build --release --workspace "${features[@]}" --example nccl_rank </dev/null >&2
# A test finds the examples beside its own folder, and the repository where it was compiled.
strip -o "$into/examples/nccl_rank" target/release/examples/nccl_rank
cargo test --release --workspace "${features[@]}" --no-run --message-format json --test cuda --test nccl --test oracle --test branches </dev/null |
    python3 -c '
import json, sys
wanted = {("pie-model", "cuda"), ("pie-comm", "nccl"), ("pie-worker", "oracle"), ("pie-worker", "branches")}
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        crate = message["manifest_path"].split("/")[-2]
        if (crate, message["target"]["name"]) in wanted:
            print(crate, message["target"]["name"], message["executable"])
' | while read -r crate name executable; do
        strip -o "$into/deps/$crate-$name" "$executable"
    done
pwd >"$into/repository"
git rev-parse HEAD >"$into/commit"
tar -C "$into" -cJf "$file" .
# The tree as it travels: what git has, and this file.
bytes=$(($(git ls-files -z | du -cb --files0-from=- | tail -1 | cut -f1) + $(stat -c %s "$file")))
echo "$file: $(du -h "$file" | cut -f1); with the repository $((bytes >> 20)) MiB" >&2
