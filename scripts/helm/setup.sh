# Sourced: sets up what the tests of the chart need, under .cache/helm. Has: set_up_python, set_up_tools TOOL…, find_pie, run_pytest TEST…

cache=$PWD/.cache/helm
export PATH="$cache/bin:$cache/venv/bin:$PATH"
say() { printf '%s\n' "$*" >&2; }

apt_install() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
    say "installing: $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null >&2
}

set_up_python() {
    local wanted=scripts/helm/requirements.txt stamp=$cache/venv/requirements.installed
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then apt_install python3-venv; fi
    if cmp -s "$wanted" "$stamp"; then return; fi
    python3 -m venv --clear "$cache/venv"
    "$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted" >&2
    cp "$wanted" "$stamp"
}

# Builds the tools that are named, at the versions of scripts/helm/tools/go.mod, if they are not there. Helm takes about four minutes,
# kube-apiserver and kube-controller-manager twenty, on two cores.
set_up_tools() {
    local tool package flags entry missing=()
    for tool in "$@"; do
        if ! cmp -s scripts/helm/tools/go.sum "$cache/bin/$tool.sum"; then missing+=("$tool"); fi
    done
    if [ ${#missing[@]} -eq 0 ]; then return; fi
    # A go of Debian that is too old fetches the one that go.mod asks for.
    if ! command -v go >/dev/null; then
        apt_install golang-go
        export GOTOOLCHAIN=auto
    fi
    mkdir -p "$cache/bin"
    for tool in "${missing[@]}"; do
        say "building $tool, once"
        package=k8s.io/kubernetes/cmd/$tool
        if [ "$tool" = helm ]; then package=helm.sh/helm/v3/cmd/helm; fi
        # Go builds do not know their versions: helm takes this one for granted, servers say it.
        flags="-s -w"
        for entry in helm.sh/helm/v3/pkg/chartutil.k8sVersion{Major=1,Minor=37} helm.sh/helm/v3/pkg/lint/rules.k8sVersion{Major=1,Minor=37} \
            k8s.io/component-base/version.git{Version=v1.37.2,Major=1,Minor=37}; do
            flags+=" -X $entry"
        done
        (cd scripts/helm/tools && nice -n 5 go build -mod=readonly -buildvcs=false -trimpath -o "$cache/bin/$tool" -ldflags "$flags" "$package") >&2
        cp scripts/helm/tools/go.sum "$cache/bin/$tool.sum"
    done
}

# The program, of whose settings and commands the chart makes use: $PIE, or the release build, which is built if it is not there.
find_pie() {
    PIE=${PIE:-$PWD/target/release/pie}
    if [ ! -x "$PIE" ]; then
        say "building pie"
        cargo build --release --workspace --features pie/etcd </dev/null >&2
    fi
    export PIE
}

# Runs tests, and counts them in the last line.
run_pytest() {
    local log status=0
    log=$(mktemp)
    "$cache/venv/bin/python" -B -m pytest --color=no -q --tb=short -p no:cacheprovider "$@" </dev/null 2>&1 | tee "$log" >&2 || status=$?
    count() { grep -oE "[0-9]+ $1" <<<"$(tail -n 1 "$log")" | grep -oE '[0-9]+' || echo 0; }
    echo "$(count passed) passed, $(($(count failed) + $(count error))) failed"
    rm -f "$log"
    return "$status"
}
