#!/usr/bin/env bash
# Makes crates/pie-http/page/ of the sources here, with exactly the packages of package-lock.json. Needs node 20 or newer.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund
npm run build
