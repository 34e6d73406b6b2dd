"""What servers behind TLS need: a redis-server that speaks it, an authority, certificates."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import trustme

from embedded_redis import find_binaries

if TYPE_CHECKING:
    from pathlib import Path

    from embedded_redis import Binary


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
        self.issued += 1
        certificate, key = (self.path / f"{name}-{self.issued}.{kind}" for kind in ("pem", "key"))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(certificate, append=True)
        issued.private_key_pem.write_to_path(key)
        return str(certificate), str(key)
