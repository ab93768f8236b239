#!/usr/bin/env bash
# Builds everything that a GPU machine without Rust and without network needs, into one folder. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
usage: scripts/gpu/pack.sh [--into FOLDER] [--binary]

Builds `pie` and the tests of the GPU path with `--features cuda` (no GPU and no CUDA toolkit needed), strips them, and puts
them into FOLDER (.gpu if not given). The repository and the folder, at most 64 MiB together, are what travels; there

    scripts/gpu/measure.sh FOLDER RESULTS

runs correctness and benchmarks. --binary packs `pie` alone, for a machine that only serves.
TEXT
}

into=.gpu only_binary=no
while [ $# -gt 0 ]; do
    case $1 in
        --into) into=${2:?--into needs a folder}; shift ;;
        --binary) only_binary=yes ;;
        --help | -h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

features=(--features pie/etcd,pie/cuda)
rm -rf "$into"
mkdir -p "$into"
echo "building" >&2
cargo build --release --workspace "${features[@]}" </dev/null >&2
strip -o "$into/pie" target/release/pie
if [ $only_binary = no ]; then
    cargo build --release --workspace "${features[@]}" --example nccl_rank </dev/null >&2
    # A test finds the examples beside its own folder, and the repository where it was compiled.
    mkdir -p "$into/deps" "$into/examples"
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
fi
git rev-parse HEAD >"$into/commit"
# The tree as it travels: what git has, and this folder.
megabytes=$(($(git ls-files -z | du -cb --files0-from=- | tail -1 | cut -f1) / 1000000 + $(du -sb "$into" | cut -f1) / 1000000))
echo "$into: $(du -sh "$into" | cut -f1); with the repository about $megabytes MB" >&2
