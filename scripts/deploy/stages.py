"""Reads deploy/Dockerfile, and does what a stage says in a root of its own, where there is no container engine.

`Root` stands for a stage's base image: a folder. RUN lines are run in it word for word, COPY copies, ENV, WORKDIR, USER and ENTRYPOINT are kept.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"


def stages():
    """Name: (base, [(instruction, text)…])."""
    found, text = {}, re.sub(r"\\\n", " ", "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")))
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, _, name = rest.split()
            found[name] = (base, [])
        else:
            found[name][1].append((word, re.sub(r"\s+", " ", rest)))
    return found


def context():
    """The files that the build sees: the lines of Dockerfile.dockerignore are read as this project writes them."""
    lines = [line for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*" and lines[-1] == "**/target"
    return [line[1:] for line in lines[1:-1]]


class Root:
    """A folder in the place of an image."""

    def __init__(self, folder):
        self.folder, self.env, self.work, self.user, self.entry = pathlib.Path(folder), {}, "/", "0:0", []
        # BuildKit gives these to every RUN.
        self.devices = ["null", "zero", "urandom", "random"]

    def path(self, path):
        return self.folder / os.path.join(self.work, path).lstrip("/")

    def copy(self, source, target, owner=None):
        into = self.path(target)
        if target.endswith(("/", ".")):
            into = into / pathlib.Path(source).name if pathlib.Path(source).is_file() else into
        into.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-aT", str(source), str(into)], check=True)
        if owner:
            subprocess.run(["chown", "-R", owner, str(into)], check=True)

    def run(self, command, log):
        """In the root, as `/bin/sh -c`, with the network of this machine."""
        script = ["set -e", "mount --make-rprivate /", f"mount --rbind /proc {self.folder}/proc", f"mkdir -p {self.folder}/dev {self.path('.')}"]
        for device in self.devices:
            script.append(f"touch {self.folder}/dev/{device}; mount --bind /dev/{device} {self.folder}/dev/{device}")
        # Where packages come from and whom to trust are the machine's, not the image's.
        for file in ("/etc/resolv.conf", "/etc/hosts"):
            script.append(f"touch {self.folder}{file}; mount --bind {file} {self.folder}{file}")
        passed = {
            key: value for key, value in os.environ.items() if key.lower().endswith("_proxy") or key in ("PIP_CERT", "SSL_CERT_FILE", "PIP_INDEX_URL")
        }
        words = ["env", "-i", *[f"{key}={value}" for key, value in {**passed, "HOME": "/root", **self.env}.items()]]
        inner = f"cd {self.work} && {command}"
        script.append(f"exec {shlex.join(words)} chroot --userspec={self.user} {self.folder} /bin/sh -c {shlex.quote(inner)}")
        subprocess.run(
            ["unshare", "--mount", "bash", "-c", "\n".join(script)], check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )

    def build(self, instructions, stages, log):
        """Does what a stage says; `stages` are the folders of those that it copies from."""
        for word, rest in instructions:
            if word == "RUN":
                self.run(rest, log)
            elif word == "COPY":
                words = rest.split()
                options = dict(entry[2:].split("=") for entry in words if entry.startswith("--"))
                source, target = [entry for entry in words if not entry.startswith("--")]
                if "from" in options:
                    self.copy(stages[options["from"]] / source.lstrip("/"), target, options.get("chown"))
                elif source == ".":
                    for name in context():
                        self.copy(ROOT / name, f"{target}/{name}".removeprefix("./"))
                else:
                    self.copy(ROOT / source, target)
            elif word in ("ENV", "ARG"):
                for entry in shlex.split(rest):
                    key, value = entry.split("=", 1)
                    self.env[key] = value
            elif word == "WORKDIR":
                self.work = rest
            elif word == "USER":
                self.user = rest
            elif word == "ENTRYPOINT":
                self.entry = [part.strip(' "') for part in rest.strip("[]").split(",")]
            else:
                assert word in ("LABEL", "EXPOSE"), f"{word} is not known here"


def distroless(folder):
    """What gcr.io/distroless/cc-debian12 has: Debian's packages of these names, unpacked, and nobody's account."""
    packages = "base-files libc6 libgcc-s1 libgomp1 libssl3 libstdc++6 netbase tzdata ca-certificates".split()
    downloads = folder.parent / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    # apt leaves the downloading to a user of its own.
    downloads.chmod(0o777)
    subprocess.run(["apt-get", "download", "-qq", *packages], cwd=downloads, check=True, capture_output=True)
    for package in downloads.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
    shutil.rmtree(folder / "usr/share/doc", ignore_errors=True)
    return folder


def rust(folder):
    """What rust:…-bookworm has, as far as the build needs it: Debian with a compiler, and the toolchain of this machine."""
    packages = "ca-certificates,gcc,g++,libc6-dev,make,pkg-config,libssl-dev"
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(folder)], check=True, capture_output=True)
    toolchain = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True, cwd="/").stdout.strip()
    subprocess.run(["cp", "-a", toolchain, str(folder / "usr/local/rust")], check=True)
    # How this machine reaches packages goes with it.
    for path in ("/etc/ssl/certs", "/etc/apt/apt.conf.d", "/etc/apt/sources.list", "/etc/apt/sources.list.d"):
        if pathlib.Path(path).exists():
            subprocess.run(["cp", "-aT", path, f"{folder}{path}"], check=True)
    config = pathlib.Path.home() / ".cargo/config.toml"
    (folder / "root/.cargo").mkdir(parents=True, exist_ok=True)
    if config.exists():
        shutil.copy(config, folder / "root/.cargo/config.toml")
    return folder, {"PATH": "/usr/local/rust/bin:/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
