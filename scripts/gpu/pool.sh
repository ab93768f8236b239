#!/usr/bin/env bash
# A pool on GPU 0 beside one on the CPU: the same text behind the same edits, in f32. `scripts/gpu/pool.sh PIE`
set -euo pipefail
cd "$(dirname "$0")/../.."
pie=$(realpath "${1:?usage: scripts/gpu/pool.sh PIE}")
work=$(mktemp -d)
pid=""
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" || true; fi; rm -rf "$work"' EXIT

# What a pool says to a document, and to the document after an edit in its middle.
ask() {
    local name=$1
    shift
    "$pie" pool --world-size 1 --listen 127.0.0.1:0 --ready-file "$work/ready" --kv-memory 64MiB "$@" >"$work/$name.log" 2>&1 &
    pid=$!
    for _ in $(seq 300); do
        if [ -e "$work/ready" ]; then break; fi
        if ! kill -0 $pid 2>/dev/null; then cat "$work/$name.log"; return 1; fi
        sleep 0.1
    done
    PIE_POOL=http://$(sed 's/.*"address":"\([^"]*\)".*/\1/' "$work/ready")
    export PIE_POOL
    "$pie" ctl open crates/pie-kv/src/rope.rs --session s >/dev/null
    {
        "$pie" ctl complete s --tokens 24
        "$pie" ctl edit s 400..420 'let angle = turn(positions);' >/dev/null
        "$pie" ctl complete s --tokens 24
        "$pie" ctl complete s --at 900 --tokens 8 --temperature 0.8 --seed 3
    } >"$work/$name" 2>>"$work/$name.log"
    "$pie" ctl ranks
    kill $pid && wait $pid || true
    pid=""
    rm -f "$work/ready"
}

ask cpu
ask gpu --device cuda:0 --dtype f32
ask bf16 --device cuda:0
if ! diff "$work/cpu" "$work/gpu"; then
    echo "FAILED: the pool on the GPU says something else"
    exit 1
fi
echo "equal in f32; in bf16 $(diff "$work/cpu" "$work/bf16" >/dev/null && echo equal too || echo it differs, as rounding may)"
