"""Servers behind TLS and Unix sockets: who is trusted, and what is told where something is wrong."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

import polars_redis as redis
from embedded_redis import free_port
from polars_redis.exceptions import (
    AuthenticationError,
    PolarsRedisError,
    RedisConnectionError,
)
from support.streams import add
from support.tls import DAY, tls_binary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.servers import Server
    from support.tls import Files

SECRET = "hunter2-of-endpoints"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no redis-server for Windows")


class TlsServer:
    """A server that listens with TLS beside its plain port."""

    def __init__(
        self,
        make_server: Callable[..., Server],
        files: Files,
        certificate: tuple[str, str],
        **more: Any,
    ) -> None:
        binary = tls_binary()
        if binary is None:
            pytest.skip("no redis-server here speaks TLS")
        self.port = free_port()
        self.files = files
        self.plain = make_server(
            binary,
            tls_port=self.port,
            tls_cert_file=certificate[0],
            tls_key_file=certificate[1],
            tls_ca_cert_file=files.ca,
            **{"tls_auth_clients": "no", **more},
        )
        add(self.plain.client(), "events", [("1-0", {"n": "1"}), ("2-0", {"n": "2"})])

    def url(self, host: str = "localhost", user: str = "", **parameters: str) -> str:
        given = {"ssl_ca_certs": self.files.ca, **parameters}
        query = "&".join(f"{name}={value}" for name, value in given.items() if value)
        return f"rediss://{user}{host}:{self.port}/0?{query}"


@pytest.fixture
def make_tls(make_server: Callable[..., Server], files: Files) -> Callable[..., TlsServer]:
    def make(*names: str, name: str = "server", **options: Any) -> TlsServer:
        issued = files.issue(
            name, *(names or ("localhost", "127.0.0.1")), **options.pop("issued", {})
        )
        return TlsServer(make_server, files, issued, **options)

    return make


@pytest.fixture
def tls(make_tls: Callable[..., TlsServer]) -> TlsServer:
    return make_tls(name="plain-server")


def refused(url: str) -> str:
    """The message of the error that reading there raises."""
    with pytest.raises(RedisConnectionError) as raised:
        redis.read_stream(url, "events")
    assert SECRET not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_stream_is_read_over_tls(tls: TlsServer, host: str) -> None:
    url = tls.url(host)
    assert redis.read_stream(url, "events")["n"].to_list() == ["1", "2"]
    assert redis.scan_stream(url, "events", {"n": int}).collect()["n"].sum() == 3
    with redis.iter_stream(url, "events", group="g", consumer="c", block_ms=None) as batches:
        for _ in batches:
            assert batches.ack() == 2


def test_large_replies_and_large_requests_go_over_tls(tls: TlsServer) -> None:
    client = tls.plain.client()
    entries = ((f"{n}-1", {"n": "x" * (n % 5000)}) for n in range(3, 3000))
    add(client, "events", entries)
    df = redis.read_stream(tls.url(), "events")
    assert df.equals(redis.read_stream(tls.plain.url, "events"))
    client.xgroup_create("events", "g", "0")
    client.xreadgroup("g", "c", {"events": ">"})
    assert redis.ack_entries(tls.url(), "events", "g", df["_id"]) == df.height


async def drain(url: str) -> int:
    return sum([df.height async for df in redis.iter_stream_async(url, "events", block_ms=None)])


def test_asyncio_reads_over_tls(tls: TlsServer) -> None:
    import asyncio

    assert asyncio.run(drain(tls.url())) == 2


def test_a_connection_is_kept_over_tls(tls: TlsServer) -> None:
    client = tls.plain.client()
    redis.read_stream(tls.url(), "events")
    before: Any = client.info("stats")
    for _ in range(5):
        redis.read_stream(tls.url(), "events")
    after: Any = client.info("stats")
    assert after["total_connections_received"] == before["total_connections_received"]


def test_an_authority_that_is_not_trusted_is_refused(tls: TlsServer, files: Files) -> None:
    # A system may trust nobody at all.
    assert "trust" in refused(tls.url(ssl_ca_certs="", user=f":{SECRET}@"))
    others, _ = files.sign_itself("localhost")
    message = refused(tls.url(ssl_ca_certs=others, user=f":{SECRET}@"))
    assert "TLS: the server's certificate was given out by nobody who is trusted" in message


def test_another_host_name_is_refused(make_tls: Callable[..., TlsServer]) -> None:
    server = make_tls("elsewhere.example", name="elsewhere")
    message = refused(server.url(user=f":{SECRET}@"))
    assert "TLS" in message
    assert "name" in message.lower()


def test_an_expired_certificate_is_refused(make_tls: Callable[..., TlsServer]) -> None:
    past = datetime.now(timezone.utc) - timedelta(days=2)
    server = make_tls("localhost", name="expired", issued={"not_after": past})
    assert "expired" in refused(server.url()).lower()


def test_a_certificate_of_tomorrow_is_refused(make_tls: Callable[..., TlsServer]) -> None:
    later = datetime.now(timezone.utc) + timedelta(days=2)
    server = make_tls("localhost", name="tomorrow", issued={"not_before": later})
    assert "valid" in refused(server.url()).lower()


def test_any_certificate_is_taken_where_that_is_asked_for(
    make_tls: Callable[..., TlsServer],
) -> None:
    server = make_tls("elsewhere.example", name="any")
    url = server.url(ssl_ca_certs="", ssl_cert_reqs="none")
    assert redis.read_stream(url, "events").height == 2


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("ca", [True, False])
def test_a_certificate_that_signed_itself_is_taken_where_it_is_trusted(
    make_server: Callable[..., Server], files: Files, version: str, ca: bool
) -> None:
    itself = files.sign_itself("localhost", ca=ca)
    server = TlsServer(make_server, files, itself, tls_protocols=version)
    for host in ("localhost", "127.0.0.1"):
        url = server.url(host, ssl_ca_certs=itself[0])
        assert redis.read_stream(url, "events")["n"].to_list() == ["1", "2"]


def test_a_certificate_that_signed_itself_is_refused_where_another_is_trusted(
    make_server: Callable[..., Server], files: Files
) -> None:
    server = TlsServer(make_server, files, files.sign_itself("localhost"))
    twin, _ = files.sign_itself("localhost")
    for trusted in (twin, files.ca):
        message = refused(server.url(user=f":{SECRET}@", ssl_ca_certs=trusted))
        assert "authority (CA:TRUE), and is none of those that are trusted" in message


@pytest.mark.parametrize(
    ("host", "dates", "message"),
    [
        ("elsewhere.example", (-DAY, DAY), "not valid for name"),
        ("localhost", (-2 * DAY, -DAY), "expired"),
        ("localhost", (DAY, 2 * DAY), "not valid yet"),
    ],
)
def test_a_certificate_that_signed_itself_is_looked_at_as_any_other(
    make_server: Callable[..., Server],
    files: Files,
    host: str,
    dates: tuple[timedelta, timedelta],
    message: str,
) -> None:
    itself = files.sign_itself(host, dates)
    server = TlsServer(make_server, files, itself)
    assert message in refused(server.url(user=f":{SECRET}@", ssl_ca_certs=itself[0]))


def test_a_server_that_wants_a_certificate_gets_one(
    make_tls: Callable[..., TlsServer], files: Files
) -> None:
    server = make_tls(name="strict", tls_auth_clients="yes")
    certificate, key = files.issue("client", "client.example")
    url = server.url(ssl_certfile=certificate, ssl_keyfile=key)
    assert redis.read_stream(url, "events").height == 2
    with pytest.raises(RedisConnectionError):
        redis.read_stream(server.url(), "events")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_key_with_a_passphrase_is_told_from_no_key(
    tls: TlsServer, files: Files, form: PrivateFormat
) -> None:
    certificate, key = files.issue("client", "client.example")
    encrypted = files.encrypt(key, form)
    message = refused(tls.url(ssl_certfile=certificate, ssl_keyfile=encrypted))
    assert f"{encrypted}: the key in it is encrypted" in message
    assert "has no key" in refused(tls.url(ssl_certfile=certificate, ssl_keyfile=certificate))


def test_a_key_of_another_certificate_is_named(tls: TlsServer, files: Files) -> None:
    certificate, _ = files.issue("client", "client.example")
    _, key = files.issue("other", "client.example")
    message = refused(tls.url(ssl_certfile=certificate, ssl_keyfile=key))
    assert f"{certificate}: is not of the key in {key}" in message


def test_a_wrong_password_is_told_from_a_wrong_certificate(
    make_tls: Callable[..., TlsServer],
) -> None:
    server = make_tls(name="secret", requirepass="right")
    with pytest.raises(AuthenticationError) as raised:
        redis.read_stream(server.url(user=f":{SECRET}@"), "events")
    assert SECRET not in str(raised.value)


def test_tls_to_a_plain_port_and_the_reverse(tls: TlsServer) -> None:
    with pytest.raises(RedisConnectionError):
        redis.read_stream(f"rediss://127.0.0.1:{tls.plain.port}?ssl_ca_certs={tls.files.ca}", "e")
    with pytest.raises(PolarsRedisError):
        redis.read_stream(f"redis://127.0.0.1:{tls.port}", "events")


def test_a_file_that_is_no_certificate_is_named(tls: TlsServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    assert str(empty) in refused(tls.url(ssl_ca_certs=str(empty)))
    assert "missing.pem" in refused(tls.url(ssl_ca_certs=str(tmp_path / "missing.pem")))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://h?ssl_ca_certs=/x", "rediss"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("rediss://h?ssl_keyfile=/x", "ssl_certfile"),
        ("unix://localhost/x", "path of a socket"),
        ("unix://", "path of a socket"),
    ],
)
def test_what_does_not_go_together_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        redis.read_stream(url, "events")


def test_a_server_that_is_killed_over_tls_is_found_again(
    make_tls: Callable[..., TlsServer],
) -> None:
    server = make_tls(name="restarted", appendonly="yes")
    batches = redis.iter_stream(server.url(), "events", batch_size=1, block_ms=100)
    assert next(batches)["n"].item() == "1"
    server.plain.kill()
    server.plain.start()
    assert next(batches)["n"].item() == "2"
    add(server.plain.client(), "events", [("3-0", {"n": "3"})])
    assert next(batches)["n"].item() == "3"
    batches.close()


def test_a_stream_is_read_over_a_unix_socket(make_server: Callable[..., Server]) -> None:
    server = make_server(unixsocket=True)
    add(server.client(db=3), "events", [("1-0", {"n": "1"})])
    url = f"{server.unix_url}?db=3"
    assert redis.read_stream(url, "events")["n"].to_list() == ["1"]
    with redis.iter_stream(url, "events", block_ms=None) as batches:
        assert [df.height for df in batches] == [1]
    assert redis.read_stream(server.unix_url, "events").height == 0


def test_a_missing_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(RedisConnectionError, match=r"nobody\.sock"):
        redis.read_stream(f"unix://:{SECRET}@{tmp_path}/nobody.sock", "events")


def test_a_password_is_heard_over_a_unix_socket(make_server: Callable[..., Server]) -> None:
    server = make_server(unixsocket=True)
    server.client().config_set("requirepass", "p@ss")
    path = server.unix_url.removeprefix("unix://")
    assert redis.read_stream(f"unix://:p%40ss@{path}", "events").height == 0
    assert redis.read_stream(f"unix://{path}?password=p%40ss", "events").height == 0
    with pytest.raises(AuthenticationError):
        redis.read_stream(f"unix://:{SECRET}@{path}", "events")
