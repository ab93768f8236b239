#!/usr/bin/env bash
# Tests the images and the compose file without a container engine. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
usage: scripts/deploy/test.sh [--build | --help]

Lints deploy/Dockerfile, builds the stage `cpu` around a program that is there and runs a pool in it (read-only, as nobody, without a shell),
installs and runs what the stage `download` installs, checks compose.yaml and the files that it mounts, and runs its pool and its Prometheus as
processes. The last line counts the tests.

  --build   also do each step of the stages chef, plan and build in a clean Debian root (debootstrap): an hour on two cores

Not done anywhere: pulling base images, the stage `cuda` (NVIDIA's packages), the collector and Grafana of compose.yaml.

Needed beforehand: root and Linux namespaces, Go, Python 3.10, and a release build of pie (or PIE=FILE; built if it is not there).
Prometheus, etcd and debootstrap come from Debian.
TEXT
}

tests=(scripts/deploy/test_deploy.py scripts/deploy/test_compose.py)
case "${1-}" in
    "") ;;
    --build) tests+=(scripts/deploy/test_build.py) ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
if [ "$(id -u)" -ne 0 ]; then
    echo "scripts/deploy/test.sh makes roots and namespaces: run it as root." >&2
    exit 1
fi

# shellcheck source=scripts/helm/setup.sh
. scripts/helm/setup.sh
packages=()
command -v promtool >/dev/null || packages+=(prometheus)
command -v etcd >/dev/null || packages+=(etcd-server)
command -v strip >/dev/null || packages+=(binutils)
command -v ip >/dev/null || packages+=(iproute2)
[ "${1-}" != --build ] || command -v debootstrap >/dev/null || packages+=(debootstrap)
if [ ${#packages[@]} -gt 0 ]; then apt_install "${packages[@]}"; fi
set_up_python
find_pie
run_pytest "${tests[@]}"
