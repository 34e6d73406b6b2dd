"""What servers behind TLS need: a redis-server that speaks it, an authority, certificates."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, timezone
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from embedded_redis import find_binaries

if TYPE_CHECKING:
    from pathlib import Path

    from embedded_redis import Binary

DAY = timedelta(days=1)


@cache
def tls_binary() -> Binary | None:
    """A redis-server that was built with TLS, which the bundled ones were not."""
    for binary in find_binaries():
        # Without a certificate it ends at once, and says so if it knows what that is.
        words = [str(binary.path), "--port", "0", "--tls-port", "1"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        if "tls-cert-file" in told.stdout + told.stderr:
            return binary
    return None


class Files:
    """A certificate authority, and certificates that it gave out, as files."""

    def __init__(self, path: Path) -> None:
        self.authority = trustme.CA()
        self.path = path
        self.issued = 0
        self.ca = str(path / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, *names: str, **options: Any) -> tuple[str, str]:
        """Files of a certificate and of its key."""
        issued = self.authority.issue_cert(*names, **options)
        certificate, key = self._names(name)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(certificate, append=True)
        issued.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    def sign_itself(
        self, host: str, dates: tuple[timedelta, timedelta] = (-DAY, DAY), *, ca: bool = True
    ) -> tuple[str, str]:
        """Files of a certificate that nobody else gave out, and of its key.

        It is that of an authority, as ``openssl req -x509`` makes it, unless ``ca=False``, and
        valid between two dates as seen from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        hosts = [x509.DNSName(host), x509.IPAddress(ip_address("127.0.0.1"))]
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dates[0])
            .not_valid_after(now + dates[1])
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .sign(key, hashes.SHA256())
        )
        paths = self._names("itself")
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(paths[0]), str(paths[1])

    def encrypt(self, key: str, form: PrivateFormat) -> str:
        """A file of the same key, with a passphrase."""
        plain = load_pem_private_key((self.path / key).read_bytes(), None)
        _, path = self._names("encrypted")
        path.write_bytes(
            plain.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"passphrase"))
        )
        return str(path)

    def _names(self, name: str) -> tuple[Path, Path]:
        self.issued += 1
        return self.path / f"{name}-{self.issued}.pem", self.path / f"{name}-{self.issued}.key"
