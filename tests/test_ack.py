"""Acknowledgement by itself: what is taken for entry IDs, what is sent, over which lines."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import AuthenticationError, RedisConnectionError, ResponseError
from support.proxy import Fault, Proxy
from support.streams import add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis as redis_py

    from support.servers import Server

IDS = ["1-0", "2-5", "18446744073709551615-18446744073709551615"]


def ack_async(url: str, stream: str, group: str, entry_ids: Any) -> int:
    async def acknowledge() -> int:
        return await redis.ack_entries_async(url, stream, group, entry_ids)

    return asyncio.run(acknowledge())


both = pytest.mark.parametrize("ack", [redis.ack_entries, ack_async], ids=["sync", "async"])


def deliver(client: redis_py.Redis, stream: str, ids: Iterable[str]) -> list[str]:
    """Add entries, and have consumer "a" of group "g" take them."""
    added = add_numbered(client, stream, ids)
    client.xgroup_create(stream, "g", "0")
    client.xreadgroup("g", "a", {stream: ">"})
    return added


def deliver_again(client: redis_py.Redis, stream: str) -> None:
    """Make everything pending once more."""
    client.xgroup_setid(stream, "g", "0")
    client.xreadgroup("g", "a", {stream: ">"})


def left(client: redis_py.Redis, stream: str) -> int:
    count: int = client.xpending(stream, "g")["pending"]
    return count


# -- what is taken ------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        set,
        dict.fromkeys,
        iter,
        lambda ids: (entry_id for entry_id in ids),
        pl.Series,
        lambda ids: pl.Series("_id", ids),
        lambda ids: pl.DataFrame({"_id": ids})["_id"],
        lambda ids: pl.concat([pl.Series(ids[:1]), pl.Series(ids[1:])], rechunk=False),
        lambda ids: pl.Series([*ids, "9-9"]).head(len(ids)),
        lambda ids: pl.Series(ids).reverse(),
    ],
    ids=[
        "list",
        "tuple",
        "set",
        "dict",
        "iterator",
        "generator",
        "Series",
        "named",
        "column",
        "chunks",
        "slice",
        "reversed",
    ],
)
def test_iterables_of_entry_ids(
    any_client: redis_py.Redis,
    any_server: Server,
    stream: str,
    ack: Callable[..., int],
    make: Callable[[list[str]], Any],
) -> None:
    deliver(any_client, stream, IDS)
    assert ack(any_server.url, stream, "g", make(IDS)) == 3
    assert left(any_client, stream) == 0
    assert ack(any_server.url, stream, "g", list(IDS)) == 0


@both
def test_the_number_is_of_those_that_were_pending(
    client: redis_py.Redis, redis_url: str, stream: str, ack: Callable[..., int]
) -> None:
    deliver(client, stream, (f"{n}-0" for n in range(1, 7)))
    add_numbered(client, stream, ["7-0"])
    assert ack(redis_url, stream, "g", ["2-0", "2-0", "1-0", "7-0", "99-0", "2-0"]) == 2
    assert left(client, stream) == 4
    assert ack(redis_url, stream, "g", pl.Series(["1-0", "3-0"])) == 1
    client.xdel(stream, "4-0")
    assert ack(redis_url, stream, "g", ["4-0"]) == 1
    assert left(client, stream) == 2


@both
@pytest.mark.parametrize(
    "ids",
    [[], (), iter([]), pl.Series([], dtype=pl.String)],
    ids=["list", "tuple", "iterator", "series"],
)
def test_nothing_to_acknowledge_needs_no_server(
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    ack: Callable[..., int],
    ids: Any,
) -> None:
    proxy = make_proxy(server)
    assert ack(proxy.rewrite(server.url), stream, "g", ids) == 0
    assert proxy.connections == 0


@both
@pytest.mark.parametrize(
    ("ids", "error", "named"),
    [
        (["1-0", "x"], ValueError, r"at 1: .*\bx\b"),
        (["1-0", "2-0", "-"], ValueError, r"at 2: .*-"),
        (["+"], ValueError, "at 0: .*[+]"),
        (["1-0", "$"], ValueError, "at 1: .*[$]"),
        ([">"], ValueError, "at 0: .*>"),
        (["(1-0"], ValueError, "at 0: .*[(]1-0"),
        (["1-0", ""], ValueError, "at 1"),
        (["1-0", "5"], ValueError, 'at 1: .*"5"'),
        (["1-*"], ValueError, r"at 0: .*1-\*"),
        (["1-0 "], ValueError, "at 0: .*1-0 "),
        (["-1-0"], ValueError, "at 0: .*-1-0"),
        (["1-0-0"], ValueError, "at 0: .*1-0-0"),
        (["18446744073709551616-0"], ValueError, "at 0: .*18446744073709551616-0"),
        (["1-0\0"], ValueError, "at 0"),
        (["x" * 100_000], ValueError, "at 0: .{1,300}$"),
        (pl.Series(["1-0", "2-0", "zzz"]), ValueError, "at 2: .*zzz"),
        (pl.Series(["1-0", None]), ValueError, "at 1.*null"),
        (["1-0", None], TypeError, "at 1.*NoneType"),
        (["1-0", "2-0", 3], TypeError, "at 2.*int"),
        ([b"1-0"], TypeError, "at 0.*bytes"),
        ([["1-0"]], TypeError, "at 0.*list"),
        (pl.Series([1, 2]), TypeError, "Series of String.*Int64"),
        (pl.Series([b"1-0"]), TypeError, "Series of String.*Binary"),
        (pl.Series([["1-0"]]), TypeError, "Series of String.*List"),
        ("1-0", TypeError, "str"),
        (b"1-0", TypeError, "bytes"),
        (5, TypeError, "int"),
        (None, TypeError, "None"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_entry_id_is_refused_before_anything_is_sent(
    server: Server,
    client: redis_py.Redis,
    make_proxy: Callable[..., Proxy],
    stream: str,
    ack: Callable[..., int],
    ids: Any,
    error: type[Exception],
    named: str,
) -> None:
    deliver(client, stream, ["1-0", "2-0"])
    proxy = make_proxy(server)
    with pytest.raises(error, match=f"(?s){named}"):
        ack(proxy.rewrite(server.url), stream, "g", ids)
    assert proxy.connections == 0
    assert left(client, stream) == 2


@both
def test_a_frame_is_refused(stream: str, ack: Callable[..., int]) -> None:
    with pytest.raises(TypeError):
        ack("redis://127.0.0.1:1", stream, "g", pl.DataFrame({"_id": ["1-0"]}))


@both
def test_an_iterable_that_raises(
    client: redis_py.Redis, redis_url: str, stream: str, ack: Callable[..., int]
) -> None:
    deliver(client, stream, ["1-0", "2-0"])

    def ids() -> Iterable[str]:
        yield "1-0"
        msg = "no more"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="no more"):
        ack(redis_url, stream, "g", ids())
    assert left(client, stream) == 2


@both
def test_wrong_urls_and_names(ack: Callable[..., int]) -> None:
    with pytest.raises(ValueError, match="url"):
        ack("http://localhost", "s", "g", ["1-0"])
    for stream, group in ((5, "g"), ("s", b"g")):
        with pytest.raises(TypeError):
            ack("redis://127.0.0.1:1", stream, group, ["1-0"])


# -- what servers answer ------------------------------------------------------


@both
def test_a_missing_stream_or_group_has_nothing_pending(
    any_client: redis_py.Redis, any_server: Server, stream: str, ack: Callable[..., int]
) -> None:
    assert ack(any_server.url, stream, "g", ["1-0"]) == 0
    assert not any_client.exists(stream)
    add_numbered(any_client, stream, ["1-0"])
    assert ack(any_server.url, stream, "g", ["1-0"]) == 0
    assert any_client.xinfo_groups(stream) == []


@both
def test_a_key_that_is_no_stream(
    client: redis_py.Redis, redis_url: str, stream: str, ack: Callable[..., int]
) -> None:
    client.set(stream, "text")
    with pytest.raises(ResponseError, match=f"{stream}.*WRONGTYPE"):
        ack(redis_url, stream, "g", ["1-0"])
    # The connection is none the worse.
    client.delete(stream)
    assert ack(redis_url, stream, "g", ["1-0"]) == 0


@both
def test_a_server_that_is_not_there_or_refuses(
    make_server: Callable[..., Server], stream: str, ack: Callable[..., int]
) -> None:
    server = make_server(acl=["reader on >secret ~* +@read"], requirepass="right")
    with pytest.raises(AuthenticationError) as refused:
        ack(server.url_for(password="wrong-one"), stream, "g", ["1-0"])
    assert "wrong-one" not in str(refused.value)
    with pytest.raises(ResponseError, match="NOPERM"):
        ack(server.url_for("reader", "secret"), stream, "g", ["1-0"])
    server.stop()
    with pytest.raises(RedisConnectionError, match=str(server.port)):
        ack(server.url, stream, "g", ["1-0"])


# -- many ---------------------------------------------------------------------


@both
@pytest.mark.parametrize("make", [list, pl.Series], ids=["list", "Series"])
def test_a_hundred_thousand(
    any_client: redis_py.Redis,
    any_server: Server,
    stream: str,
    ack: Callable[..., int],
    make: Callable[[list[str]], Any],
) -> None:
    ids = deliver(any_client, stream, (f"{n // 7 + 1}-{n % 7}" for n in range(20_000)))
    asked = [*ids[::2], *(f"{n}-9" for n in range(80_000)), *ids[::2], "0-1"]
    assert len(asked) > 100_000 - 1
    assert ack(any_server.url, stream, "g", make(asked)) == 10_000
    assert left(any_client, stream) == 10_000
    rows = any_client.xpending_range(stream, "g", "-", "+", 100_000)
    assert [row["message_id"].decode() for row in rows] == ids[1::2]


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 3999, 4000, 4001, 5000])
def test_any_number_of_pieces(
    client: redis_py.Redis, redis_url: str, stream: str, size: int
) -> None:
    ids = deliver(client, stream, (f"{n + 1}-0" for n in range(size + 1)))
    assert redis.ack_entries(redis_url, stream, "g", ids[:-1]) == size
    assert left(client, stream) == 1


# -- connections --------------------------------------------------------------


def test_many_calls_do_not_connect_each_time(make_server: Callable[..., Server]) -> None:
    server = make_server()
    client = server.client()
    deliver(client, "s", (f"{n + 1}-0" for n in range(300)))

    def connections() -> int:
        count: int = client.info("stats")["total_connections_received"]
        return count

    before = connections()
    for n in range(100):
        assert redis.ack_entries(server.url, "s", "g", [f"{n + 1}-0"]) == 1

    async def acknowledge() -> None:
        for n in range(100, 200):
            assert await redis.ack_entries_async(server.url, "s", "g", [f"{n + 1}-0"]) == 1

    asyncio.run(acknowledge())
    assert connections() - before == 1
    options: dict[str, Any] = {"batch_size": 1, "block_ms": None, "group": "g", "consumer": "a"}
    with redis.iter_stream(server.url, "s", **options) as batches:
        for _ in batches:
            assert batches.ack() == 1
    # The iterator may keep one of its own.
    assert connections() - before <= 2
    assert left(client, "s") == 0


def test_threads_and_tasks_at_once(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    ids = deliver(client, stream, (f"{n + 1}-0" for n in range(4_000)))
    pieces = [ids[at : at + 10] for at in range(0, len(ids), 10)]

    async def acknowledge() -> list[int]:
        calls = [redis.ack_entries_async(redis_url, stream, "g", piece) for piece in pieces[::2]]
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(redis.ack_entries, redis_url, stream, "g", p) for p in pieces[1::2]]
        counts = asyncio.run(acknowledge())
    assert [*counts, *(call.result() for call in calls)] == [10] * len(pieces)
    assert left(client, stream) == 0


def test_a_connection_that_the_server_closed_is_not_used(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    client = server.client()
    deliver(client, "s", ["1-0", "2-0", "3-0"])
    for n in range(1, 4):
        assert redis.ack_entries(server.url, "s", "g", [f"{n}-0"]) == 1
        client.client_kill_filter(_type="normal", skipme=True)


def test_a_server_that_was_restarted(make_server: Callable[..., Server]) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    deliver(server.client(), "s", ["1-0", "2-0", "3-0", "4-0"])
    for n in range(1, 4):
        assert redis.ack_entries(server.url, "s", "g", [f"{n}-0"]) == 1
        server.kill()
        server.restart()
    assert left(server.client(), "s") == 1


@both
@pytest.mark.parametrize("cut", ["rst", "fin"])
def test_a_connection_cut_at_every_byte(
    client: redis_py.Redis,
    server: Server,
    stream: str,
    ack: Callable[..., int],
    cut: Literal["rst", "fin"],
) -> None:
    ids = deliver(client, stream, ["1-0", "2-0", "3-0"])

    def through(fault: Fault) -> tuple[int, int, int]:
        with Proxy(server.host, server.port) as proxy:
            proxy.set_fault(fault, connection=1)
            url = f"{proxy.rewrite(server.url)}?client_name=acknowledging"
            count = ack(url, stream, "g", ids)
            return count, proxy.bytes_down, proxy.connections

    count, length, connections = through(Fault())
    assert (count, connections) == (3, 1)
    assert 4 <= length < 1000
    for at in range(length):
        deliver_again(client, stream)
        count, _, connections = through(Fault(cut_after=at, cut=cut))
        # What was done before the reply was lost is not counted.
        assert count in (0, 3), at
        assert connections == 2, at
        assert left(client, stream) == 0, at


@both
def test_a_line_that_is_cut_again_and_again(
    client: redis_py.Redis, server: Server, stream: str, ack: Callable[..., int]
) -> None:
    ids = deliver(client, stream, (f"{n + 1}-0" for n in range(30_000)))
    with Proxy(server.host, server.port) as proxy:
        for connection in range(1, 6):
            # Behind the reply to the introduction, in that to one of the first pieces.
            proxy.set_fault(Fault(cut_after=17), connection=connection)
        count = ack(proxy.rewrite(server.url), stream, "g", ids)
        assert proxy.connections == 6
    assert 0 < count <= len(ids)
    assert left(client, stream) == 0


def test_a_silent_line_is_given_up_for_another(
    client: redis_py.Redis, server: Server, stream: str
) -> None:
    ids = deliver(client, stream, ["1-0", "2-0"])
    with Proxy(server.host, server.port) as proxy:
        assert redis.ack_entries(proxy.rewrite(server.url), stream, "g", ids) == 2
        length = proxy.bytes_down
    deliver_again(client, stream)
    with Proxy(server.host, server.port) as proxy:
        proxy.set_fault(Fault(stall_after=length - 2), connection=1)
        url = f"{proxy.rewrite(server.url)}?socket_timeout=0.5"
        assert redis.ack_entries(url, stream, "g", ids) in (0, 2)
        assert proxy.connections == 2
    assert left(client, stream) == 0


def test_a_reply_byte_by_byte(client: redis_py.Redis, server: Server, stream: str) -> None:
    ids = deliver(client, stream, (f"{n + 1}-0" for n in range(12_000)))
    with Proxy(server.host, server.port) as proxy:
        proxy.set_fault(Fault(chunk=1))
        assert redis.ack_entries(proxy.rewrite(server.url), stream, "g", ids) == len(ids)


# -- asyncio ------------------------------------------------------------------


def test_a_call_that_is_cancelled_does_no_harm(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = deliver(client, stream, (f"{n + 1}-0" for n in range(2_000)))
    proxy = make_proxy(server)
    url = proxy.rewrite(server.url)

    async def work() -> None:
        assert await redis.ack_entries_async(url, stream, "g", ids[:1]) == 1
        # All lines stand still, so that there is something to cancel.
        proxy.set_fault(Fault(stall_after=0))
        for _ in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(redis.ack_entries_async(url, stream, "g", ids), 0.05)
        proxy.heal()
        await redis.ack_entries_async(url, stream, "g", ids)
        assert left(client, stream) == 0
        # No reply to what was cancelled is taken for another one's.
        deliver_again(client, stream)
        assert await redis.ack_entries_async(url, stream, "g", ids[:7]) == 7

    asyncio.run(work())


def test_other_tasks_run_meanwhile(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = deliver(client, stream, ["1-0"])
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=0))

    async def work() -> None:
        waiting = asyncio.ensure_future(
            redis.ack_entries_async(proxy.rewrite(server.url), stream, "g", ids)
        )
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not waiting.done()
        proxy.heal()
        assert await waiting == 1

    asyncio.run(work())


def test_other_threads_run_meanwhile(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = deliver(client, stream, ["1-0"])
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=0))
    counts: list[int] = []
    worker = threading.Thread(
        target=lambda: counts.append(redis.ack_entries(proxy.rewrite(server.url), stream, "g", ids))
    )
    worker.start()
    assert sum(range(100_000)) == 4_999_950_000
    assert worker.is_alive()
    proxy.heal()
    worker.join()
    assert counts == [1]


@both
@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["1-0"]), pl.Binary, pl.Int64])
def test_a_series_that_is_no_text_is_refused(
    stream: str, ack: Callable[..., int], dtype: Any
) -> None:
    ids = pl.Series([1]) if dtype == pl.Int64 else pl.Series(["1-0"]).cast(dtype)
    with pytest.raises(TypeError, match="entry_ids: expected a Series of String, got"):
        ack("redis://127.0.0.1:1", stream, "g", ids)
