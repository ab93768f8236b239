#!/usr/bin/env bash
# Makes crates/pie-http/page/ of the sources here, with exactly the packages of package-lock.json; with --check it says whether that is
# what is there. Needs node 20 or newer.
set -euo pipefail
cd "$(dirname "$0")"

page=../../crates/pie-http/page
case "${1-}" in
    "") PAGE_OUT=$PWD/$page ;;
    --check) PAGE_OUT=$(mktemp -d); trap 'rm -rf "$PAGE_OUT"' EXIT ;;
    *) echo "usage: editors/page/build.sh [--check]" >&2; exit 2 ;;
esac
export PAGE_OUT
npm ci --no-audit --no-fund
npm run build
if [ "${1-}" = --check ]; then diff -r "$PAGE_OUT" "$page"; fi
