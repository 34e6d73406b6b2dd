"""Iterators over bad lines and servers that go away: every entry once, in order, all the same."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from polars_redis.exceptions import (
    AuthenticationError,
    PolarsRedisError,
    RedisConnectionError,
    RedisTimeoutError,
)
from support.iterators import (
    KINDS,
    connections_of,
    is_blocked,
    iterating,
    meanwhile,
    named,
    once_blocked,
    wait_until,
)
from support.proxy import Fault, Proxy
from support.streams import add, add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Server

SCHEMA = {"n": pl.Int64}
SECRET = "hunter2"
SMALL = [
    ("1-0", {"name": "a text of more than twelve bytes", "n": "1"}),
    ("1-1", {"n": "-22", "other": "é€🦀"}),
    ("2-0", ["name", "x", "n", "3", "n", "33"]),
]
LATER = [("2-1", {"n": "4"}), ("9223372036854775807-7", {"n": "5", "name": ""})]


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`iter_stream`, and then `iter_stream_async`, as a plain iterator."""
    with iterating(request.param) as make:
        yield make


def proxied(proxy: Proxy, parameters: str = "") -> str:
    return f"redis://{proxy.host}:{proxy.port}{parameters}"


def numbers(first: int, last: int) -> list[str]:
    return [f"{n}-0" for n in range(first, last + 1)]


def ids_of(frames: list[pl.DataFrame]) -> list[str]:
    return [entry_id for df in frames for entry_id in df["_id"]]


def records_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in list(caplog.records) if record.name == "polars_redis"]


def stubborn_client(server: Server) -> redis_py.Redis:
    """A client that fails at once, so that `add_surely` tries again at once."""
    return server.client(retry=Retry(NoBackoff(), 0), socket_timeout=1, socket_connect_timeout=1)


def add_surely(client: redis_py.Redis, stream: str, ids: list[str], pause: float = 0.0) -> None:
    """Add numbered entries one by one, whatever becomes of the server meanwhile."""
    for n, entry_id in enumerate(ids):
        while True:
            try:
                client.xadd(stream, {"n": n}, id=entry_id)
            except (redis_py.ConnectionError, redis_py.TimeoutError):
                time.sleep(0.005)
            except redis_py.ResponseError as error:
                # It was added, and the reply to that got lost.
                if "equal or smaller" not in str(error):
                    raise
                break
            else:
                break
        time.sleep(pause)


def assert_all(frames: list[pl.DataFrame], ids: list[str]) -> None:
    assert ids_of(frames) == ids
    assert [n for df in frames for n in df["n"]] == list(range(len(ids)))


# -- the line ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parity", "schema"),
    [("sync", 0, None), ("async", 1, {"n": pl.Int64, "name": pl.String})],
    ids=KINDS,
)
def test_a_connection_cut_at_every_byte(
    client: redis_py.Redis, server: Server, stream: str, kind: str, parity: int, schema: Any
) -> None:
    before_entries: list[int] = []

    def conversation(proxy: Proxy) -> tuple[list[dict[str, Any]], int]:
        """Read a backlog of three entries, and two that come later."""
        client.delete(stream)
        add(client, stream, SMALL)
        rows: list[dict[str, Any]] = []
        with iterating(kind) as iterate:
            frames = iterate(proxied(proxy), stream, schema, include_sequence=True, count=5)
            frames.__enter__()
            before_entries.append(proxy.bytes_down)
            rows += next(frames).to_dicts()
            add(client, stream, LATER)
            for df in frames:
                rows += df.to_dicts()
            return rows, frames.stats.reconnects

    with Proxy(server.host, server.port) as proxy:
        expected, _ = conversation(proxy)
        length = proxy.bytes_down
    assert [row["_id"] for row in expected] == [entry_id for entry_id, _ in [*SMALL, *LATER]]
    assert [int(row["n"]) for row in expected] == [1, -22, 33, 4, 5]
    assert 300 < length < 1500
    # Cut is each byte of the entries, and some before them; in both ways, one for each kind.
    begin = before_entries[0]
    assert begin < length - 150
    for at in [*range(0, begin, 9), *range(begin, length)]:
        how: Literal["rst", "fin"] = "rst" if at % 2 == parity else "fin"
        with Proxy(server.host, server.port) as proxy:
            proxy.set_fault(Fault(cut_after=at, cut=how), connection=1)
            rows, reconnects = conversation(proxy)
            assert [{k: v for k, v in row.items() if v is not None} for row in rows] == [
                {k: v for k, v in row.items() if v is not None} for row in expected
            ], at
            assert proxy.connections == 2, at
            # One that was cut while it was made does not count as lost.
            assert reconnects == 1 or at < 100


def test_a_backlog_cut_again_and_again(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
) -> None:
    ids = add_numbered(client, stream, (f"{n // 3 + 1}-{n % 3}" for n in range(40_000)))
    proxy = make_proxy(server)
    for connection in range(1, 16):
        cut: Literal["rst", "fin"] = "rst" if connection % 2 else "fin"
        fault = Fault(cut_after=1000 + 9_876 * connection, cut=cut)
        proxy.set_fault(fault, connection=connection)
    frames = iterate(proxied(proxy), stream, SCHEMA, 700, block_ms=None)
    found = list(frames)
    assert_all(found, ids)
    assert {df.height for df in found[:-1]} == {700}
    assert frames.stats.entries == len(ids)
    assert frames.stats.reconnects > 10


@pytest.mark.parametrize("start", ["-", "$"])
def test_a_tail_cut_again_and_again(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
    start: str,
) -> None:
    add_numbered(client, stream, [] if start == "-" else ["0-1"])
    ids = numbers(1, 600)
    proxy = make_proxy(server)
    done = threading.Event()

    def cut() -> None:
        n = 0
        while not done.is_set():
            n += 1
            proxy.cut_all("rst" if n % 2 else "fin")
            time.sleep(0.015)

    options: dict[str, Any] = {"block_ms": 5, "count": len(ids), "start_id": start}
    with iterate(proxied(proxy), stream, SCHEMA, 10, **options) as frames:
        with meanwhile(cut), meanwhile(lambda: add_surely(client, stream, ids, 0.0005)):
            try:
                found = list(frames)
            finally:
                done.set()
        assert_all(found, ids)
        assert frames.stats.reconnects > 3


def test_lines_cut_at_bytes_that_grow_while_entries_come(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
) -> None:
    # Each connection gets a few bytes further than the one before.
    ids = numbers(1, 400)
    proxy = make_proxy(server)
    for connection in range(1, 12):
        proxy.set_fault(Fault(cut_after=400 + 101 * connection), connection=connection)
    frames = iterate(proxied(proxy), stream, SCHEMA, 3, block_ms=5, count=len(ids))
    with meanwhile(lambda: add_surely(client, stream, ids, 0.0005)):
        found = list(frames)
    assert_all(found, ids)
    assert frames.stats.reconnects > 3


def test_a_line_that_stalls_in_a_backlog(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(20_000)))
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=300_000), connection=1)
    frames = iterate(proxied(proxy, "?socket_timeout=0.5"), stream, SCHEMA, 1_000, block_ms=None)
    assert_all(list(frames), ids)
    assert (proxy.connections, frames.stats.reconnects) == (2, 1)


@pytest.mark.parametrize("bytes_more", [0, 1, 20])
def test_a_line_that_stalls_while_it_waits(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    caplog: pytest.LogCaptureFixture,
    iterate: Callable[..., Any],
    bytes_more: int,
) -> None:
    add_numbered(client, stream, ["1-0"])
    proxy = make_proxy(server)
    frames = iterate(proxied(proxy, "?socket_timeout=0.3"), stream, SCHEMA, block_ms=100)
    assert next(frames)["_id"].to_list() == ["1-0"]
    proxy.set_fault(Fault(stall_after=proxy.bytes_down + bytes_more), connection=1)
    add_numbered(client, stream, ["2-0"])
    assert next(frames)["_id"].to_list() == ["2-0"]
    assert (proxy.connections, frames.stats.reconnects) == (2, 1)
    assert "silent" in caplog.text


def test_a_slow_line(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
) -> None:
    ids = numbers(1, 8_000)
    add_numbered(client, stream, ids[:5_000])
    proxy = make_proxy(server, delay_ms=15)
    with iterate(proxied(proxy), stream, SCHEMA, 100, block_ms=10, count=len(ids)) as frames:
        found = [next(frames)]
        later = [(entry_id, {"n": n}) for n, entry_id in enumerate(ids)][5_000:]
        with meanwhile(lambda: add(client, stream, later)):
            found += list(frames)
        assert_all(found, ids)
        assert (proxy.connections, frames.stats.reconnects) == (1, 0)


def test_a_trickle(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
) -> None:
    ids = numbers(1, 20)
    add_numbered(client, stream, ids[:10])
    proxy = make_proxy(server)
    proxy.set_fault(Fault(chunk=1))
    frames = iterate(proxied(proxy), stream, SCHEMA, 7, block_ms=20, count=20)
    found = [next(frames)]
    add(client, stream, [(f"{n + 1}-0", {"n": n}) for n in range(10, 20)])
    assert_all(found + list(frames), ids)
    assert proxy.connections == 1


# -- the server ----------------------------------------------------------------


def has_more_than(frames: Any, entries: int) -> bool:
    return bool(frames.stats.entries > entries)


def read_through(
    server: Server,
    frames: Any,
    ids: list[str],
    fault: Callable[[], object],
    *,
    times: int,
    pause: float = 0.001,
) -> None:
    """Read entries while they are added, and something happens again and again."""
    step = len(ids) // (times + 1)

    def happen() -> None:
        for n in range(times):
            wait_until(partial(has_more_than, frames, n * step))
            fault()

    producer = stubborn_client(server)
    with meanwhile(happen), meanwhile(lambda: add_surely(producer, "s", ids, pause)):
        found = list(frames)
    assert_all(found, ids)
    assert frames.stats.entries == len(ids)


def test_a_server_killed_and_started_again_and_again(
    make_server: Callable[..., Server], iterate: Callable[..., Any]
) -> None:
    server = make_server(appendonly=True, appendfsync="always")

    def fault() -> None:
        server.kill()
        server.start()

    ids = numbers(1, 1_000)
    frames = iterate(server.url, "s", SCHEMA, 20, block_ms=20, count=len(ids))
    read_through(server, frames, ids, fault, times=4)
    assert frames.stats.reconnects >= 4


def test_a_server_killed_in_a_long_backlog(
    make_server: Callable[..., Server],
    make_proxy: Callable[..., Proxy],
    iterate: Callable[..., Any],
) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    ids = add_numbered(server.client(), "s", numbers(1, 60_000))
    proxy = make_proxy(server)

    def fault() -> None:
        server.kill()
        proxy.heal()
        proxy.cut_all()
        server.start()

    frames = iterate(proxied(proxy), "s", SCHEMA, 1_000, block_ms=None)
    found = [next(frames)]
    for times in range(1, 4):
        # It stands still in its middle until the server is dead, whatever the machine's speed.
        proxy.set_fault(Fault(stall_after=150_000))
        with meanwhile(fault):
            while frames.stats.reconnects < times:
                found.append(next(frames))
    assert len(found) < 60
    found += list(frames)
    assert_all(found, ids)


def test_connections_killed_again_and_again(
    make_server: Callable[..., Server], iterate: Callable[..., Any]
) -> None:
    server = make_server()
    client = server.client()

    def fault() -> None:
        wait_until(lambda: connections_of(client, "me"))
        for known in connections_of(client, "me"):
            client.client_kill_filter(_id=known["id"])

    ids = numbers(1, 1_000)
    frames = iterate(named(server.url, "me"), "s", SCHEMA, 20, block_ms=20, count=len(ids))
    read_through(server, frames, ids, fault, times=30, pause=0.0005)
    assert frames.stats.reconnects >= 30


def test_a_server_that_pauses_for_a_moment(
    make_server: Callable[..., Server], iterate: Callable[..., Any]
) -> None:
    server = make_server()

    def fault() -> None:
        server.pause()
        time.sleep(0.15)
        server.resume()

    ids = numbers(1, 500)
    frames = iterate(server.url, "s", SCHEMA, 20, block_ms=10, count=len(ids))
    read_through(server, frames, ids, fault, times=4)
    # That is no reason to give a connection up.
    assert frames.stats.reconnects == 0


def test_a_server_that_pauses_for_long(
    make_server: Callable[..., Server],
    iterate: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server()

    def fault() -> None:
        before = len(records_of(caplog))
        server.pause()
        try:
            wait_until(lambda: len(records_of(caplog)) > before)
        finally:
            server.resume()

    ids = numbers(1, 300)
    url = f"{server.url}?socket_timeout=0.2"
    frames = iterate(url, "s", SCHEMA, 20, block_ms=10, count=len(ids))
    read_through(server, frames, ids, fault, times=2)
    assert frames.stats.reconnects >= 2
    assert "silent for" in caplog.text


def test_a_server_that_forgot_everything(
    make_server: Callable[..., Server], iterate: Callable[..., Any]
) -> None:
    server = make_server()
    add_numbered(server.client(), "s", numbers(1, 10))
    frames = iterate(server.url, "s", SCHEMA, block_ms=20)
    assert ids_of([next(frames)]) == numbers(1, 10)
    server.kill()
    server.start()
    add_numbered(server.client(), "s", numbers(5, 15))
    assert ids_of([next(frames)]) == numbers(11, 15)


def test_a_server_that_is_busy(
    make_server: Callable[..., Server],
    iterate: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server(lua_time_limit=5)
    client = server.client()
    add_numbered(client, "s", ["1-0"])
    frames = iterate(server.url, "s", SCHEMA, block_ms=20)
    assert next(frames)["_id"].to_list() == ["1-0"]

    def keep_busy() -> None:
        with pytest.raises(redis_py.ResponseError):
            server.client(socket_timeout=60).eval("while true do end", 0)

    def refused() -> bool:
        try:
            client.ping()
        except redis_py.ResponseError as error:
            return "BUSY" in str(error)
        except redis_py.TimeoutError:
            pass
        return False

    def relieve() -> None:
        wait_until(lambda: "BUSY" in caplog.text)
        client.script_kill()
        # It lives a moment longer than that.
        wait_until(lambda: not refused())
        add_numbered(client, "s", ["2-0"])

    with meanwhile(keep_busy):
        wait_until(refused)
        with meanwhile(relieve):
            assert next(frames)["_id"].to_list() == ["2-0"]


def test_a_server_that_loads_its_data(
    make_server: Callable[..., Server],
    iterate: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Slowed down, it says for a while that it is loading: every so many commands it answers.
    server = make_server(
        appendonly=True,
        appendfsync="always",
        key_load_delay=300,
    )
    client = server.client()
    add_numbered(client, "s", numbers(1, 10))
    with client.pipeline(transaction=False) as pipeline:
        for n in range(6_000):
            pipeline.set("key", n)
        pipeline.execute()
    frames = iterate(server.url, "s", SCHEMA, block_ms=20)
    assert ids_of([next(frames)]) == numbers(1, 10)

    def restart() -> None:
        server.kill()
        server.start()
        add_numbered(stubborn_client(server), "s", numbers(11, 12))

    with meanwhile(restart):
        found = next(frames)
        while found.height < 2:
            found = found.vstack(next(frames))
    assert found["_id"].to_list() == numbers(11, 12)
    assert "LOADING" in caplog.text


# -- what is told --------------------------------------------------------------


def test_lost_and_restored_connections_are_told(
    make_server: Callable[..., Server],
    iterate: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "polars_redis")
    server = make_server(requirepass=SECRET)
    client = server.client()
    add_numbered(client, "s", ["1-0"])
    frames = iterate(f"{server.url}?client_name=me", "s", SCHEMA, block_ms=20)
    assert next(frames)["_id"].to_list() == ["1-0"]
    assert records_of(caplog) == []
    (known,) = connections_of(client, "me")
    client.client_kill_filter(_id=known["id"])
    add_numbered(client, "s", ["2-0"])
    assert next(frames)["_id"].to_list() == ["2-0"]
    told = [(record.levelname, record.name, record.getMessage()) for record in records_of(caplog)]
    (lost, again) = told
    assert lost[:2] == ("WARNING", "polars_redis")
    assert again[:2] == ("INFO", "polars_redis")
    assert "trying again in" in lost[2]
    assert "connected again" in again[2]
    assert all(f"127.0.0.1:{server.port}" in text for _, _, text in told)
    assert frames.stats.reconnects == 1

    server.kill()
    caplog.clear()

    def revive() -> None:
        wait_until(lambda: len(records_of(caplog)) > 3)
        server.start()

    with meanwhile(revive):
        wait_until(lambda: not server.running)
        with meanwhile(lambda: add_after_start(server)):
            assert next(frames).height == 1
    *before, last = records_of(caplog)
    assert last.levelname == "INFO"
    assert {record.levelname for record in before} == {"WARNING"}
    assert frames.stats.reconnects == 2
    everything = caplog.text + repr(frames) + repr(told)
    assert SECRET not in everything


def add_after_start(server: Server) -> None:
    client = server.client(retry=Retry(NoBackoff(), 0))
    add_surely(client, "s", ["3-0"])


def test_a_log_handler_that_fails_loses_nothing(
    make_server: Callable[..., Server],
    iterate: Callable[..., Any],
) -> None:
    server = make_server()
    client = server.client()
    add_numbered(client, "s", ["1-0"])
    frames = iterate(named(server.url, "me"), "s", SCHEMA, block_ms=20)
    assert next(frames)["_id"].to_list() == ["1-0"]
    add_numbered(client, "s", ["2-0"])
    (known,) = connections_of(client, "me")
    client.client_kill_filter(_id=known["id"])

    class Failing(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ZeroDivisionError

    handler = Failing()
    logging.getLogger("polars_redis").addHandler(handler)
    try:
        with pytest.raises(ZeroDivisionError):
            next(frames)
    finally:
        logging.getLogger("polars_redis").removeHandler(handler)
    assert next(frames)["_id"].to_list() == ["2-0"]


# -- giving up -----------------------------------------------------------------


@pytest.mark.parametrize("timeout_ms", [0, 300])
def test_it_gives_up_after_a_time_and_can_go_on(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
    timeout_ms: int,
) -> None:
    ids = numbers(1, 6)
    add(client, stream, [(entry_id, {"n": n}) for n, entry_id in enumerate(ids[:3])])
    proxy = make_proxy(server)
    frames = iterate(
        proxied(proxy), stream, SCHEMA, 2, block_ms=20, count=6, reconnect_timeout_ms=timeout_ms
    )
    found = [next(frames)]
    proxy.refuse()
    proxy.cut_all()
    # What it has read ahead is handed over first.
    found.append(next(frames))
    assert ids_of(found) == ids[:3]
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(RedisConnectionError, match=f"{proxy.host}:{proxy.port}"):
            next(frames)
        assert timeout_ms / 1000 - 0.05 < time.monotonic() - began < 10
    assert (frames.last_id, frames.stats.entries) == ("3-0", 3)
    add(client, stream, [(f"{n + 1}-0", {"n": n}) for n in range(3, 6)])
    proxy.accept()
    assert_all(found + list(frames), ids)


def test_it_gives_up_in_the_middle_of_a_backlog_and_can_go_on(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
) -> None:
    ids = add_numbered(client, stream, numbers(1, 20_000))
    proxy = make_proxy(server)
    frames = iterate(proxied(proxy), stream, SCHEMA, 999, block_ms=None, reconnect_timeout_ms=100)
    found = []
    failures = 0
    for round_ in range(1, 6):
        proxy.set_fault(Fault(cut_after=150_000), connection=proxy.connections + 1)
        if round_ == 1:
            found.append(next(frames))
        proxy.refuse()
        proxy.cut_all()
        with pytest.raises(RedisConnectionError):
            found.extend(frames)
        failures += 1
        proxy.accept()
        found.append(next(frames))
    found += list(frames)
    assert_all(found, ids)
    assert failures == 5


def test_the_first_connection_fails_fast(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    iterate: Callable[..., Any],
) -> None:
    add_numbered(client, stream, ["1-0"])
    proxy = make_proxy(server)
    proxy.refuse()
    url = f"redis://:{SECRET}@{proxy.host}:{proxy.port}"
    frames = iterate(proxied(proxy), stream, SCHEMA)
    for advance in (lambda: next(frames), lambda: next(frames), frames.__enter__):
        began = time.monotonic()
        with pytest.raises(RedisConnectionError, match="refused"):
            advance()
        assert time.monotonic() - began < 5
    with pytest.raises(RedisConnectionError) as caught:
        next(iterate(url, stream))
    assert SECRET not in str(caught.value) + repr(caught.value)
    proxy.accept()
    assert next(frames)["_id"].to_list() == ["1-0"]
    assert frames.stats.reconnects == 0


def test_a_peer_that_never_introduces_itself(
    server: Server, make_proxy: Callable[..., Proxy], stream: str, iterate: Callable[..., Any]
) -> None:
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=0))
    frames = iterate(proxied(proxy, "?socket_connect_timeout=0.2&client_name=x"), stream)
    with pytest.raises(RedisTimeoutError):
        next(frames)


def test_a_password_that_is_refused(
    make_server: Callable[..., Server], iterate: Callable[..., Any]
) -> None:
    server = make_server(requirepass=SECRET)
    client = server.client()
    add_numbered(client, "s", ["1-0"])
    frames = iterate(f"redis://:wrong{SECRET}@127.0.0.1:{server.port}", "s")
    with pytest.raises(AuthenticationError) as caught:
        next(frames)
    assert SECRET not in str(caught.value)

    # One that was right is so no more, and then again.
    frames = iterate(f"{server.url}?client_name=me", "s", SCHEMA, block_ms=20)
    assert next(frames)["_id"].to_list() == ["1-0"]
    client.config_set("requirepass", "other")
    (known,) = connections_of(client, "me")
    client.client_kill_filter(_id=known["id"])
    for _ in range(2):
        with pytest.raises(AuthenticationError) as caught:
            next(frames)
        assert SECRET not in str(caught.value)
    client.config_set("requirepass", SECRET)
    add_numbered(client, "s", ["2-0"])
    assert next(frames)["_id"].to_list() == ["2-0"]


def test_closing_ends_the_wait_for_a_server_that_is_away(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = make_proxy(server)
    url = named(proxied(proxy), stream.partition(":")[2])
    with iterating("sync") as iterate:
        frames = iterate(url, stream, SCHEMA, block_ms=20)

        def close() -> None:
            proxy.refuse()
            proxy.cut_all()
            wait_until(lambda: len(records_of(caplog)) > 5)
            frames.close()

        with once_blocked(client, stream.partition(":")[2], close):
            assert list(frames) == []


def has_connected(proxy: Proxy, times: int) -> bool:
    return proxy.connections >= times


def test_one_read_that_waits_over_cuts(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    import polars_redis as redis

    name = stream.partition(":")[2]
    proxy = make_proxy(server)
    url = named(proxied(proxy), name)

    def fault() -> None:
        for n in range(4):
            wait_until(lambda: is_blocked(client, name))
            proxy.cut_all("rst" if n % 2 else "fin")
            wait_until(partial(has_connected, proxy, n + 2))
        wait_until(lambda: is_blocked(client, name))
        add_numbered(client, stream, ["2-0"])

    add_numbered(client, stream, ["1-0"])
    with meanwhile(fault):
        df = redis.read_stream(url, stream, SCHEMA, start_id="$", block_ms=0)
    assert df["_id"].to_list() == ["2-0"]


def test_one_read_that_waits_gives_up_after_ten_seconds(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    import polars_redis as redis

    name = stream.partition(":")[2]
    proxy = make_proxy(server)

    def fault() -> None:
        proxy.refuse()
        proxy.cut_all()

    began = time.monotonic()
    with once_blocked(client, name, fault), pytest.raises(PolarsRedisError):
        redis.read_stream(named(proxied(proxy), name), stream, block_ms=0)
    assert 9 < time.monotonic() - began < 30
