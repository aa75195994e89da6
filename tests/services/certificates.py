"""Make a throw-away certificate authority and certificates for 127.0.0.1 with the `openssl` program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files; the keys are PKCS #8 without a password."""

    ca: Path
    server: Path
    """For localhost and 127.0.0.1."""
    server_key: Path
    client: Path
    client_key: Path

    @property
    def server_store(self) -> Path:
        """Key, certificate and authority of the server in one file, as Kafka reads it."""
        return self.server.with_name("server-store.pem")


def make_certificates(folder: Path) -> Certificates:
    """Write an authority, a server's and a client's certificate that it signed, valid for two days."""
    if shutil.which("openssl") is None:
        raise FileNotFoundError("openssl is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(*(folder / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key")))
    ca_key = folder / "ca-key.pem"
    _openssl("req", "-x509", *_new_key(ca_key), "-days", "2", "-subj", "/CN=test authority", "-out", str(made.ca))
    for name, certificate, key in (("server", made.server, made.server_key), ("client", made.client, made.client_key)):
        request = folder / f"{name}.csr"
        _openssl("req", *_new_key(key), "-subj", f"/CN=test {name}", "-out", str(request))
        extensions = folder / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        signed_by = ["-CA", str(made.ca), "-CAkey", str(ca_key), "-CAcreateserial", "-days", "2"]
        _openssl("x509", "-req", "-in", str(request), *signed_by, "-extfile", str(extensions), "-out", str(certificate))
    made.server_store.write_text(made.server_key.read_text() + made.server.read_text() + made.ca.read_text())
    return made


def _new_key(path: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path)]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
