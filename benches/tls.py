"""`read_stream` over TLS beside a bare client (rustls) and redis-py over TLS, in turn.

The bare client is ``drain_tls.rs``, built by cargo when it is first run. ``--quick`` shows that it
runs.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from common import (
    HERE,
    STREAM,
    arguments,
    binaries,
    compared,
    fill,
    interleave,
    judge,
    middle,
    table,
    told_by,
)
from contenders import drain_all_at_once, pages
from embedded_redis import Binary, EmbeddedRedis, ServerError

CARGO = ("cargo", "run", "--quiet", "--release", "--locked", "--example", "drain_tls", "--")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def tls_server(binary: Binary, tmp: Path) -> Iterator[tuple[EmbeddedRedis, int, str]]:
    """A server with a second port, for TLS; that port, and a file of who vouches for it."""
    authority, port = trustme.CA(), free_port()
    ca, certificate = str(tmp / "ca.pem"), str(tmp / "server.pem")
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    with EmbeddedRedis(
        binary,
        tls_port=port,
        tls_cert_file=certificate,
        tls_key_file=certificate,
        tls_ca_cert_file=ca,
        tls_auth_clients=False,
    ) as server:
        yield server, port, ca


def section_read(server: EmbeddedRedis, port: int, ca: str, entries: int, rounds: int) -> None:
    """The whole stream, by everybody."""
    resp_bytes = drain_all_at_once(server.host, server.port, pages(STREAM, entries))

    def once(name: str) -> dict[str, Any]:
        script = (sys.executable, str(HERE / "contenders.py"), name)
        bare = (*CARGO, server.host, str(port), ca)
        words = bare if name == "bare_tls" else (*script, server.host, str(port))
        words = (*words, STREAM, str(entries))
        return told_by([*words], RESP_BYTES=str(resp_bytes), TLS_CA=ca)

    results = interleave(["bare_tls", "typed_tls"], rounds, once)
    beside = interleave(["typed_tls", "by_hand_tls"], max(2, rounds // 3), once)
    print(f"\n{entries:,} entries, {resp_bytes / 1e6:.1f} MB of RESP, {rounds} rounds in turn.")
    ratio = middle(beside["by_hand_tls"], "wall") / middle(beside["typed_tls"], "wall")
    told = f"{middle(beside['by_hand_tls'], 'wall'):.3f} s; medians"
    table(
        "Reading everything over TLS",
        [
            compared(results, "typed_tls", "bare_tls", "ours / bare rustls, wall", 1.2, most=True),
            judge("redis-py by_hand / ours, wall", told, ratio, 8, most=False),
        ],
    )


def main() -> None:
    """Run it on each server that speaks TLS."""
    wanted = arguments(__doc__, ("read",))
    for binary in binaries(wanted.servers):
        with tempfile.TemporaryDirectory() as tmp:
            try:
                with tls_server(binary, Path(tmp)) as (server, port, ca):
                    fill(server, wanted.entries)
                    section_read(server, port, ca, wanted.entries, wanted.rounds)
            except ServerError:
                print("\nIt does not speak TLS.")


if __name__ == "__main__":
    main()
