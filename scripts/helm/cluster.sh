#!/usr/bin/env bash
# Installs the chart into a real Kubernetes. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
usage: scripts/helm/cluster.sh [--quick | --help]

Starts kube-apiserver, kube-controller-manager and etcd, and a simulated node, which runs the very commands of the pods as processes, each
pod in a network of its own, each container with a read-only root without a shell, as user 65532; then helm install, test, upgrade,
rollback, uninstall. The last line counts the tests. KEEP_LOGS=1 keeps the logs and says where.

  --quick   a few simulated controllers (scripts/helm/controllers.py) in the place of kube-controller-manager, which is not built then

Needed beforehand: root and Linux namespaces, Go 1.26 (or one that may fetch it), Python 3.10, and a release build of pie (or PIE=FILE; built if
it is not there). Kubernetes is built from its source, once: 25 minutes on two cores. etcd, openssl and iproute2 come from Debian's packages.
TEXT
}

controllers=(kube-controller-manager)
case "${1-}" in
    "") ;;
    --quick) export SIMULATED_CONTROLLERS=1; controllers=() ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
if [ "$(id -u)" -ne 0 ]; then
    echo "scripts/helm/cluster.sh makes network namespaces and mounts: run it as root." >&2
    exit 1
fi

# shellcheck source=scripts/helm/setup.sh
. scripts/helm/setup.sh
packages=()
command -v etcd >/dev/null || packages+=(etcd-server)
command -v ip >/dev/null || packages+=(iproute2)
command -v openssl >/dev/null || packages+=(openssl)
if [ ${#packages[@]} -gt 0 ]; then apt_install "${packages[@]}"; fi
set_up_python
set_up_tools helm kubectl kube-apiserver ${controllers[@]+"${controllers[@]}"}
find_pie
run_pytest -x scripts/helm/test_cluster.py
