#!/bin/sh
# cargo's RUSTC_WRAPPER for fuzz builds: instruments the crates whose paths a fuzzer should learn, and no others. The flags
# are those of `cargo fuzz`, all of them stable.
case " $* " in
*" --crate-name pie_kv "* | *" --crate-name pie_comm "*) exec "$@" ;;
*" --crate-name pie_"* | *" --crate-name "*" fuzz/targets/"* | *" --crate-name "*" targets/"* | \
    *" --crate-name tokenizers "* | *" --crate-name safetensors "* | *" --crate-name ropey "* | \
    *" --crate-name serde_json "* | *" --crate-name toml"* | *" --crate-name winnow "*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
