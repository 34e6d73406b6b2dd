"""What goes wrong outside of the library, and how it is told: the right exception, no secrets."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import polars_redis as redis
from polars_redis.exceptions import (
    AuthenticationError,
    PolarsRedisError,
    ProtocolError,
    RedisConnectionError,
    RedisTimeoutError,
    ResponseError,
)
from support.streams import add_numbered, assert_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.servers import Server

SECRET = "hunter2"


@contextmanager
def peer(answer: bytes | None) -> Iterator[int]:
    """Somebody who takes connections, and answers whatever is said in the same way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return
                if answer is not None:
                    taken[-1].recv(1000)
                    taken[-1].sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


def assert_no_secret(error: BaseException) -> None:
    told = "".join(traceback.format_exception(error)) + repr(error) + str(error)
    # The line of the test that holds the URL is shown too, without the secret in it.
    assert SECRET not in told


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_no_server(closed_port: int) -> None:
    begun = time.monotonic()
    with pytest.raises(RedisConnectionError, match=f"127.0.0.1:{closed_port}.*refused") as caught:
        redis.read_stream(f"redis://user:{SECRET}@127.0.0.1:{closed_port}", "s")
    assert time.monotonic() - begun < 5
    assert isinstance(caught.value, ConnectionError)
    assert_no_secret(caught.value)


def test_no_such_host() -> None:
    with pytest.raises(RedisConnectionError, match=r"no-such-host\.invalid:6379") as caught:
        redis.read_stream(f"redis://:{SECRET}@no-such-host.invalid", "s")
    assert_no_secret(caught.value)


def test_a_peer_that_never_answers() -> None:
    with peer(None) as port:
        url = f"redis://127.0.0.1:{port}?socket_timeout=0.2"
        with pytest.raises(RedisTimeoutError, match=f"127.0.0.1:{port}.*silent") as caught:
            redis.read_stream(url, "s")
    assert isinstance(caught.value, TimeoutError)


def test_a_peer_that_never_answers_the_introduction() -> None:
    with peer(None) as port:
        url = f"redis://:{SECRET}@127.0.0.1:{port}?socket_connect_timeout=0.2"
        with pytest.raises(RedisTimeoutError, match="no connection within") as caught:
            redis.read_stream(url, "s")
    assert_no_secret(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*1\r\n*2\r\n$3\r\n1-0\r\n*1\r\n$1\r\na\r\n",
        b"*1\r\n*2\r\n$3\r\nx-0\r\n*0\r\n",
        b"*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$4611686018427387904\r\n",
        b"+OK\r\n",
        b":1\r\n",
    ],
)
def test_a_peer_that_speaks_something_else(answer: bytes) -> None:
    with peer(answer) as port, pytest.raises(ProtocolError):
        redis.read_stream(f"redis://127.0.0.1:{port}", "s", count=10)


def test_a_key_that_is_no_stream(client: redis_py.Redis, redis_url: str) -> None:
    client.set("text", "x")
    for options in ({}, {"count": 5}, {"start_id": "$"}):
        with pytest.raises(ResponseError, match=r'stream "text": WRONGTYPE Operation against'):
            redis.read_stream(redis_url, "text", **options)  # type: ignore[arg-type]


def test_a_server_that_asks_for_a_password(make_server: Callable[..., Server]) -> None:
    server = make_server(requirepass=SECRET)
    add_numbered(server.client(), "s", ["1-0"])
    with pytest.raises(AuthenticationError, match="NOAUTH"):
        redis.read_stream(server.url_for(), "s")
    with pytest.raises(AuthenticationError, match="WRONGPASS") as caught:
        redis.read_stream(server.url_for(password=SECRET + "x"), "s")
    assert_no_secret(caught.value)
    assert redis.read_stream(server.url, "s").height == 1
    query = f"{server.url_for()}?password={SECRET}"
    assert redis.read_stream(query, "s").height == 1


def test_a_server_that_echoes_what_it_does_not_know() -> None:
    # What a Redis answers whose AUTH was renamed.
    words = f"ERR unknown command 'AUTH', with args beginning with: '{SECRET}' "
    with (
        peer(f"-{words}\r\n".encode()) as port,
        pytest.raises(AuthenticationError, match=r"unknown command.*\*\*\*") as caught,
    ):
        redis.read_stream(f"redis://:{SECRET}@127.0.0.1:{port}", "s")
    assert_no_secret(caught.value)


READER = f"reader on >{SECRET} ~events -@all"
OWNER = "default on nopass ~* &* +@all"


def restricted(make_server: Callable[..., Server], rights: str) -> tuple[Server, str]:
    server = make_server(acl=[OWNER, f"{READER} {rights}"])
    return server, server.url_for("reader", SECRET)


@pytest.mark.parametrize("rights", ["+xrange", "+xrange +xrevrange", "+xrange +xinfo"])
def test_xrange_is_right_enough(make_server: Callable[..., Server], rights: str) -> None:
    server, url = restricted(make_server, rights)
    ids = add_numbered(
        server.client(), "events", (f"{10**12 + n // 3}-{n % 3}" for n in range(9000))
    )
    assert_numbered(redis.read_stream(url, "events", {"n": int}), ids)
    assert_numbered(redis.read_stream(url, "events", {"n": int}, count=5000), ids[:5000])
    assert redis.read_stream(url, "events", start_id="$").height == 0
    server.client().delete("events")
    assert redis.read_stream(url, "events", {"n": int}).height == 0


def test_xrange_alone_ends_while_a_producer_writes(make_server: Callable[..., Server]) -> None:
    server, url = restricted(make_server, "+xrange")
    ids = add_numbered(server.client(), "events", (f"{n + 1}-0" for n in range(20_000)))
    with producing(server, "events"):
        df = redis.read_stream(url, "events", {"n": int})
    assert df["_id"].to_list()[: len(ids)] == ids


@contextmanager
def producing(server: Any, stream: str) -> Iterator[None]:
    """Adds entries all the time."""
    done = threading.Event()

    def produce() -> None:
        client = server.client()
        while not done.is_set():
            client.xadd(stream, {"n": -1})

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_missing_rights_are_named(make_server: Callable[..., Server]) -> None:
    server, url = restricted(make_server, "+xlen")
    add_numbered(server.client(), "events", ["1-0"])
    with pytest.raises(ResponseError, match=r"NOPERM.*xrange") as caught:
        redis.read_stream(url, "events")
    assert_no_secret(caught.value)
    _, url = restricted(make_server, "+xrange +xinfo +xrevrange")
    with pytest.raises(ResponseError, match=r"NOPERM.*key"):
        redis.read_stream(url, "other")


def test_db_client_name_and_user(make_server: Callable[..., Server]) -> None:
    server = make_server(acl=[OWNER, f"me on >{SECRET} ~* +@all"])
    add_numbered(server.client(db=3), "s", ["1-0"])
    for url in (server.url_for(db=3), f"{server.url_for()}?db=3", f"{server.url_for(db=5)}?db=3"):
        assert redis.read_stream(url, "s").height == 1
    assert redis.read_stream(server.url_for(), "s").height == 0
    named = f"{server.url_for()}?db=3&client_name=bob&username=me&password={SECRET}"
    assert redis.read_stream(named, "s").height == 1
    kept = [c for c in server.client().client_list() if c["name"] == "bob"]
    assert [(c["user"], c["db"]) for c in kept] == [("me", "3")]
    with pytest.raises(ResponseError, match="DB index"):
        redis.read_stream(server.url_for(db=999), "s")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@h/x",
        f"redis://:{SECRET}@h?no_such_parameter={SECRET}",
        f"redis://:{SECRET}@h?db={SECRET}",
        f"redis://:{SECRET}@h?socket_timeout={SECRET}",
        f"redis://:{SECRET}@h:{SECRET}",
        f"http://:{SECRET}@h",
        SECRET,
        "",
    ],
)
def test_wrong_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url: ") as caught:
        redis.read_stream(url, "s")
    assert SECRET not in str(caught.value)


def test_a_url_must_be_text() -> None:
    with pytest.raises(TypeError, match="url"):
        redis.read_stream(5, "s")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stream"):
        redis.read_stream("redis://h", None)  # type: ignore[arg-type]


def test_all_errors_have_one_base() -> None:
    kinds = (
        AuthenticationError,
        ProtocolError,
        RedisConnectionError,
        RedisTimeoutError,
        ResponseError,
    )
    assert all(issubclass(kind, PolarsRedisError) for kind in kinds)


@pytest.mark.parametrize("database", [0, 1])
def test_a_server_that_takes_no_more_clients(
    make_server: Callable[..., Server], database: int
) -> None:
    server = make_server(maxclients=10)
    clients = [server.client(single_connection_client=True) for _ in range(10)]
    began = time.monotonic()
    with pytest.raises(RedisConnectionError, match="max number of clients reached"):
        redis.read_stream(f"{server.url_for()}/{database}", "s")
    assert time.monotonic() - began < 5
    for client in clients:
        client.close()
