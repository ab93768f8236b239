"""Certificates and tokens as files, as a cluster mounts them and replaces them under a running process."""

import itertools
import os
import re
import shutil
import socket
import ssl
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import trustme
from pool import binary

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"


class Authority:
    """A certificate authority."""

    def __init__(self, folder: Path, name: str):
        self._ca, self._folder = trustme.CA(), folder / name
        self._folder.mkdir()
        self._numbers = itertools.count()
        self.file = self._folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)
        self.pem = self._ca.cert_pem.bytes()

    def issue(self, *names: str, expired: bool = False) -> "Secret":
        """An identity with these names, as a mounted secret."""
        secret = Secret(self._folder / f"secret-{next(self._numbers)}")
        secret.put(**self.files(*names, expired=expired))
        return secret

    def files(self, *names: str, expired: bool = False) -> dict[str, bytes]:
        end = datetime.now(timezone.utc) - timedelta(days=1) if expired else None
        begin = end - timedelta(days=9) if end else None
        issued = self._ca.issue_cert(*names, not_before=begin, not_after=end)
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        return {CERTIFICATE: chain, KEY: issued.private_key_pem.bytes(), AUTHORITY: self.pem}


class Secret:
    """A folder that is replaced as Kubernetes does it: the files are links into what one link points to."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self._folder, self._numbers = folder, itertools.count()

    def put(self, **files: bytes) -> None:
        """All files change in one moment; those that are not named stay."""
        version = self._folder / f"..version-{next(self._numbers)}"
        current = self._folder / "..data"
        if current.exists():
            shutil.copytree(current.resolve(), version)
        else:
            version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
            link = self._folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        new = self._folder / "..new"
        new.symlink_to(version.name)
        os.replace(new, current)

    def path(self, name: str) -> str:
        return str(self._folder / name)

    @property
    def certificate(self) -> str:
        return self.path(CERTIFICATE)

    @property
    def key(self) -> str:
        return self.path(KEY)

    @property
    def authority(self) -> str:
        return self.path(AUTHORITY)

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def internal(self) -> list[str]:
        return ["--internal-cert", self.certificate, "--internal-key", self.key, "--internal-ca", self.authority]

    def public(self) -> list[str]:
        return ["--tls-cert", self.certificate, "--tls-key", self.key]


def shown(address: str, authority: Path | str, name: str, client: Secret | None = None) -> bytes:
    """The certificate that a port shows to a client that it takes. Fails as ssl does if either side refuses the other."""
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2"])
    if client:
        context.load_cert_chain(client.certificate, client.key)
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as stream:
        with context.wrap_socket(stream, server_hostname=name) as secured:
            # A server that does not like the client's certificate says so behind the client's own handshake.
            if not secured.recv(1):
                raise ssl.SSLError("closed without a word")
            return ssl.DER_cert_to_PEM_cert(secured.getpeercert(True)).encode()


def takes(address: str, authority: Path | str, name: str, client: Secret | None = None) -> bool:
    try:
        return bool(shown(address, authority, name, client))
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return False


def channel(address: str, roots: bytes, client: Secret | None = None, token: str | None = None) -> grpc.Channel:
    """A channel over TLS, with a certificate or a token or neither."""
    identity = {"private_key": client.read(KEY), "certificate_chain": client.read(CERTIFICATE)} if client else {}
    credentials = grpc.ssl_channel_credentials(root_certificates=roots, **identity)
    if token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(address, credentials, options=[("grpc.enable_http_proxy", 0)])


def make_token(*flags: str) -> tuple[str, str]:
    """A token, and its entry for the tokens file, both from `pie token`."""
    made = subprocess.run([binary(), "token", *flags], capture_output=True, text=True, timeout=10, check=True)
    token, _, entry = made.stdout.partition("\n")
    assert re.fullmatch(r"pie_[0-9a-f]{64}", token) and token[4:] not in entry
    return token, entry
