#!/usr/bin/env bash
# Tests the chart without a cluster. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
usage: scripts/helm/test.sh [--update | --help]

Lints the chart, renders a matrix of values, checks every object against several versions of Kubernetes (and the definitions of
cert-manager and the Prometheus operator), compares renders with scripts/helm/goldens, and checks what they mean: which rank is
where, who reaches whom, that nonsense is refused, that the program knows each setting. The last line counts the tests.

  --update   write the goldens anew; read the diff

Needed beforehand: Go 1.26 (or one that may fetch it), Python 3.10, and a release build of pie (or PIE=FILE; built if it is not there). Helm
is built from its source, once, in about four minutes. scripts/helm/cluster.sh installs the chart into a real Kubernetes.
TEXT
}

case "${1-}" in
    "") ;;
    --update) export UPDATE_GOLDENS=1 ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

# shellcheck source=scripts/helm/setup.sh
. scripts/helm/setup.sh
set_up_python
set_up_tools helm
find_pie
run_pytest scripts/helm/test_chart.py
