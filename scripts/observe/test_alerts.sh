#!/usr/bin/env bash
# Tests the alert rules with promtool: each rule has a file in scripts/observe/alerts that says when it fires and when it must not.
# Needs promtool (Debian, Ubuntu: the package prometheus). The last line counts the rules.
set -euo pipefail
cd "$(dirname "$0")/../.."

rules=helm/pie-pool/alerts/pie-pool.yaml tests=scripts/observe/alerts
if ! command -v promtool >/dev/null; then
    echo "promtool is missing: install Prometheus (Debian, Ubuntu: apt-get install prometheus)" >&2
    exit 1
fi
promtool check rules "$rules" >&2

passed=0 failed=0
for alert in $(sed -n 's/^ *- alert: *//p' "$rules"); do
    if ! [ -f "$tests/$alert.yaml" ]; then
        echo "$alert has no test: write $tests/$alert.yaml" >&2
        failed=$((failed + 1))
    elif ! grep -q "alertname=\"$alert\"" "$tests/$alert.yaml" || ! promtool test rules "$tests/$alert.yaml" >&2; then
        echo "$alert FAILED" >&2
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
done
# A test of a rule that is gone would pass for ever.
for test in "$tests"/*.yaml; do
    alert=$(basename "$test" .yaml)
    if ! grep -q -- "- alert: $alert\$" "$rules"; then
        echo "$test: there is no such rule" >&2
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
