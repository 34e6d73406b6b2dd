"""Reads over bad lines and from servers that go away: the result is exact all the same."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import polars_redis as redis
from polars_redis.exceptions import RedisConnectionError
from support.proxy import Fault, Proxy
from support.streams import add, add_numbered, assert_numbered, id_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.servers import Server

SCHEMA = {"n": pl.Int64}
SMALL = [
    ("1-0", {"name": "a text of more than twelve bytes", "n": "1"}),
    ("1-1", {"n": "-22", "other": "é€🦀"}),
    ("2-0", ["name", "x", "n", "3", "n", "33"]),
]


@pytest.mark.parametrize("cut", ["rst", "fin"])
@pytest.mark.parametrize("schema", [None, {"name": pl.String, "n": pl.Int64}])
def test_a_connection_cut_at_every_byte(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    cut: Literal["rst", "fin"],
    schema: Any,
) -> None:
    add(client, stream, SMALL)
    expected = redis.read_stream(server.url, stream, schema)
    with Proxy(server.host, server.port) as proxy:
        url = proxied(proxy)
        assert_frame_equal(redis.read_stream(url, stream, schema), expected)
        length = proxy.bytes_down
    assert length < 2000
    for at in range(length):
        with Proxy(server.host, server.port) as proxy:
            proxy.set_fault(Fault(cut_after=at, cut=cut), connection=1)
            assert_frame_equal(redis.read_stream(proxied(proxy), stream, schema), expected)
            assert proxy.connections == 2, at


def proxied(proxy: Proxy, parameters: str = "") -> str:
    return f"redis://{proxy.host}:{proxy.port}{parameters}"


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_a_long_read_cut_again_and_again(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    schema: Any,
) -> None:
    ids = add_numbered(client, stream, (f"{n // 3 + 1}-{n % 3}" for n in range(60_000)))
    proxy = make_proxy(server)
    for connection in range(1, 16):
        proxy.set_fault(Fault(cut_after=1000 + 12_345 * connection), connection=connection)
    df = redis.read_stream(proxied(proxy), stream, schema, include_timestamp=False)
    assert_numbered(df.cast({"n": pl.Int64}), ids)
    assert proxy.connections > 10


def test_a_line_that_stalls_is_given_up_for_another(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(30_000)))
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=300_000), connection=1)
    df = redis.read_stream(proxied(proxy, "?socket_timeout=0.5"), stream, SCHEMA)
    assert_numbered(df, ids)
    assert proxy.connections == 2


def test_a_trickle(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    add(client, stream, SMALL)
    proxy = make_proxy(server)
    proxy.set_fault(Fault(chunk=1))
    trickled = redis.read_stream(proxied(proxy), stream)
    assert_frame_equal(trickled, redis.read_stream(server.url, stream))


def test_a_line_that_stays_cut_is_an_error_in_the_end(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    add_numbered(client, stream, (f"{n + 1}-0" for n in range(30_000)))
    proxy = make_proxy(server)
    proxy.set_fault(Fault(cut_after=300_000), connection=1)
    for connection in range(2, 200):
        proxy.set_fault(Fault(cut_after=0), connection=connection)
    with pytest.raises(RedisConnectionError, match=f"{proxy.host}:{proxy.port}"):
        redis.read_stream(proxied(proxy), stream, SCHEMA)


def test_a_server_that_was_restarted_between_two_reads(make_server: Callable[..., Server]) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    ids = add_numbered(server.client(), "s", (f"{n + 1}-0" for n in range(100)))
    for _ in range(3):
        assert_numbered(redis.read_stream(server.url, "s", SCHEMA), ids)
        server.kill()
        server.restart()


def test_a_server_killed_and_restarted_in_the_middle_of_a_read(
    make_server: Callable[..., Server], make_proxy: Callable[..., Proxy]
) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    ids = add_numbered(server.client(), "s", (f"{n + 1}-0" for n in range(60_000)))
    proxy = make_proxy(server)
    # The read stands still in its middle until the server is dead, whatever the machine's speed.
    proxy.set_fault(Fault(stall_after=1_000_000))
    results: list[pl.DataFrame] = []
    reader = threading.Thread(
        target=lambda: results.append(redis.read_stream(proxied(proxy), "s", SCHEMA))
    )
    reader.start()
    while proxy.bytes_down < 1_000_000:
        assert reader.is_alive()
    server.kill()
    proxy.heal()
    proxy.cut_all()
    server.restart()
    reader.join()
    assert_numbered(results[0], ids)


def test_a_stream_that_changes_meanwhile(
    client: redis_py.Redis, server: Server, stream: str
) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(100_000)))
    done = threading.Event()

    def change() -> None:
        mine = server.client()
        n = 0
        while not done.is_set():
            mine.xadd(stream, {"n": -1})
            mine.xdel(stream, ids[n], ids[-1 - n])
            n += 1

    changer = threading.Thread(target=change)
    changer.start()
    try:
        found = redis.read_stream(server.url, stream, SCHEMA)["_id"].to_list()
    finally:
        done.set()
        changer.join()
    keys = [id_key(entry_id) for entry_id in found]
    assert keys == sorted(set(keys))
    left = {entry.decode() for entry, _ in client.xrange(stream)}
    assert {entry_id for entry_id in ids if entry_id in left} <= set(found)
