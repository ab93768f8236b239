#!/usr/bin/env bash
# Continue's own autocompletion against a pool. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/editors/continue.sh HTTP MODEL FILE LINE COLUMN

    pie pool --model qwen2.5-coder-0.5b --http 127.0.0.1:7480
    scripts/editors/continue.sh http://127.0.0.1:7480 qwen2.5-coder-0.5b FILE 6 17

Asks at a line and a column, counted from 1, once by Continue's provider for llama.cpp and once by that for OpenAI, and prints what it would show,
with the prompt that it made. MODEL tells Continue which markers to put in. Gets Continue's core from npm at first, into .cache/editors/continue
(900 MB).
TEXT
}

if [ $# -ne 5 ]; then usage >&2; exit 2; fi
file=$(realpath "$3")
cd "$(dirname "$0")/../.."
home=$PWD/.cache/editors/continue
if ! [ -d "$home" ]; then
    rm -rf "$home.part"
    mkdir -p "$home.part"
    (cd "$home.part" && npm init -y >/dev/null && npm install --ignore-scripts --no-audit --no-fund --loglevel=error @continuedev/core@1.1.0 esbuild@0.28.2 >/dev/null)
    # Its caches of suggestions and of parsed files, which need native parts, are not asked.
    echo 'module.exports = { open: async () => ({ exec() {}, run() {}, get() {}, all: async () => [], close() {} }), Database: class {} };' >"$home.part/none.cjs"
    cp "$home.part/node_modules/@continuedev/core/vendor/tree-sitter.wasm" "$home.part/"
    mkdir -p "$home.part/tree-sitter-wasms"
    cp "$home.part"/node_modules/tree-sitter-wasms/out/*.wasm "$home.part/tree-sitter-wasms/" 2>/dev/null || true
    mv "$home.part" "$home"
fi
cp scripts/editors/continue.mjs "$home/"
cd "$home"
node_modules/.bin/esbuild continue.mjs --bundle --platform=node --format=cjs --outfile=continue.cjs --log-level=error \
    --alias:sqlite3=./none.cjs --alias:sqlite=./none.cjs --external:vectordb --external:onnxruntime-node --external:'*.node' --external:jsdom
node continue.cjs "$1" "$2" "$file" "$4" "$5"
