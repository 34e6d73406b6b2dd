"""Iterating over a stream without a group, and reads that wait: what comes, in which frames."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import DecodeError, RedisConnectionError, ResponseError
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
from support.streams import add, add_numbered, id_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.proxy import Proxy
    from support.servers import Server

SCHEMA = {"n": pl.Int64}
MAX = 2**64 - 1


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`iter_stream`, and then `iter_stream_async`, as a plain iterator."""
    with iterating(request.param) as make:
        yield make


@pytest.fixture
def name(stream: str) -> str:
    """A name by which the server knows the connections of one test."""
    return stream.partition(":")[2]


def ids_of(frames: list[pl.DataFrame]) -> list[str]:
    return [entry_id for df in frames for entry_id in df["_id"]]


def heights(frames: list[pl.DataFrame]) -> list[int]:
    return [df.height for df in frames]


def add_at_once(client: redis_py.Redis, stream: str, entries: list[tuple[str, Any]]) -> None:
    """Add entries so that nobody sees some of them without the others."""
    with client.pipeline(transaction=True) as pipeline:
        for entry_id, fields in entries:
            pipeline.xadd(stream, fields, id=entry_id)
        pipeline.execute()


def numbers(first: int, last: int) -> list[str]:
    return [f"{n}-0" for n in range(first, last + 1)]


# -- what is there -------------------------------------------------------------


SHAPES: dict[str, list[str]] = {
    "one millisecond": [f"5-{n}" for n in range(12_000)],
    "years apart": [f"{n * 31_536_000_000 + 1}-0" for n in range(3_000)],
    "sparse, then dense": [f"{n * 10**9 + 1}-0" for n in range(50)]
    + [f"{10**12 + n // 9}-{n % 9}" for n in range(12_000)],
    "dense, then sparse": [f"{n + 1}-0" for n in range(12_000)]
    + [f"{10**12 + n * 10**9}-0" for n in range(50)],
    "bursts": [f"{burst * 10**7 + 1}-{n}" for burst in range(5) for n in range(3_000)],
    "a far last entry": [f"{n + 1}-0" for n in range(6_000)] + [f"{MAX}-{MAX - 1}"],
    "one": ["9-9"],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_backlog_of_any_shape_is_cut_into_full_batches(
    client: redis_py.Redis, redis_url: str, stream: str, shape: str
) -> None:
    ids = add_numbered(client, stream, SHAPES[shape])
    options: dict[str, Any] = {"include_timestamp": False, "block_ms": None}
    for kind in KINDS:
        with iterating(kind) as iterate:
            for batch_size in (7, 100, 2_500, 10**9):
                df_list = list(iterate(redis_url, stream, SCHEMA, batch_size, **options))
                assert ids_of(df_list) == ids
                assert [n for df in df_list for n in df["n"]] == list(range(len(ids)))
                full, rest = divmod(len(ids), batch_size)
                assert heights(df_list) == [batch_size] * full + [rest] * (rest > 0)


def test_a_backlog_and_what_comes_on_every_server(
    any_client: redis_py.Redis, any_server: Server, stream: str, iterate: Callable[..., Any]
) -> None:
    ids = add_numbered(any_client, stream, numbers(1, 2_500))
    later = numbers(3_000, 6_000)
    with iterate(any_server.url, stream, SCHEMA, 1_000, block_ms=20, count=5_501) as frames:
        found = [next(frames) for _ in range(3)]
        assert heights(found) == [1_000, 1_000, 500]
        with meanwhile(lambda: add_numbered(any_client, stream, later)):
            found += list(frames)
    assert ids_of(found) == ids + later
    assert max(heights(found)) <= 1_000
    assert min(heights(found)) >= 1


def test_a_missing_stream(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    assert list(iterate(redis_url, stream, SCHEMA, block_ms=None)) == []
    assert client.exists(stream) == 0


def test_an_empty_stream(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    client.xdel(stream, *add_numbered(client, stream, numbers(1, 3)))
    assert list(iterate(redis_url, stream, SCHEMA, block_ms=None)) == []
    frames = iterate(redis_url, stream, SCHEMA, block_ms=20)
    with meanwhile(lambda: add_numbered(client, stream, ["7-0"])):
        assert next(frames)["_id"].to_list() == ["7-0"]


@pytest.mark.parametrize("batch_size", [1, 4, 1_000])
@pytest.mark.parametrize("count", [0, 1, 4, 9, 10, 11])
def test_counts(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    count: int,
    batch_size: int,
) -> None:
    ids = add_numbered(client, stream, numbers(1, 10))
    block_ms = 60_000 if count <= len(ids) else None
    frames = iterate(redis_url, stream, SCHEMA, batch_size, block_ms, count=count)
    found = list(frames)
    assert ids_of(found) == ids[:count]
    assert all(1 <= height <= batch_size for height in heights(found))
    if count <= len(ids):
        client.xadd(stream, {"n": 1})
        assert list(frames) == []


def test_a_count_that_is_reached_later(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 3))
    frames = iterate(named(redis_url, name), stream, SCHEMA, count=5)
    assert next(frames)["_id"].to_list() == numbers(1, 3)
    more = [(entry_id, {"n": 0}) for entry_id in numbers(4, 9)]
    with once_blocked(client, name, lambda: add_at_once(client, stream, more)):
        assert ids_of(list(frames)) == numbers(4, 5)


# -- where it begins and ends --------------------------------------------------


IDS = ["1-0", "5-0", "5-1", "5-7", "6-0", "1700000000000-0", "1700000000000-3", "1700000000001-0"]
STARTS: list[tuple[Any, str]] = [
    ("-", "1-0"),
    ("5", "5-0"),
    ("5-1", "5-1"),
    ("(5-1", "5-7"),
    ("(5", "5-1"),
    ("5-2", "5-7"),
    (5, "5-0"),
    (0, "1-0"),
    ("0-0", "1-0"),
    (datetime(2023, 11, 14, 22, 13, 20), "1700000000000-0"),
    (datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc), "1700000000000-0"),
]
ENDS: list[tuple[Any, str]] = [
    ("5", "5-7"),
    ("5-1", "5-1"),
    ("(5-1", "5-0"),
    ("(6-0", "5-7"),
    (5, "5-7"),
    (7, "6-0"),
    (datetime(2023, 11, 14, 22, 13, 20), "1700000000000-3"),
    ("1700000000001-0", "1700000000001-0"),
]


@pytest.mark.parametrize(("start", "first"), STARTS)
def test_starts(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    start: Any,
    first: str,
) -> None:
    add_numbered(client, stream, IDS)
    frames = iterate(redis_url, stream, SCHEMA, 2, block_ms=None, start_id=start)
    assert ids_of(list(frames)) == IDS[IDS.index(first) :]


@pytest.mark.parametrize(("end", "last"), ENDS)
def test_it_ends_when_the_end_was_passed(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    end: Any,
    last: str,
) -> None:
    add_numbered(client, stream, IDS)
    frames = iterate(redis_url, stream, SCHEMA, 2, block_ms=0, end_id=end)
    assert ids_of(list(frames)) == IDS[: IDS.index(last) + 1]
    client.xadd(stream, {"n": 1})
    assert list(frames) == []


@pytest.mark.parametrize(
    ("start", "end"), [("7", "6"), ("2", "4"), (f"({MAX}-{MAX}", "+"), ("-", "(0-0"), ("-", "-")]
)
def test_a_range_that_can_never_have_an_entry_ends_at_once(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    start: str,
    end: str,
) -> None:
    add_numbered(client, stream, IDS)
    assert list(iterate(redis_url, stream, SCHEMA, start_id=start, end_id=end)) == []


@pytest.mark.parametrize(
    ("end", "passing", "expected"),
    [
        ("5", ["5-0", "5-18446744073709551615"], ["5-0", "5-18446744073709551615"]),
        ("5-3", ["5-3"], ["5-3"]),
        ("5-3", ["5-4"], []),
        ("(5-3", ["5-2", "5-3", "5-4"], ["5-2"]),
        (5, ["5-1", "7-0", "8-0"], ["5-1"]),
        ("5", ["6-0"], []),
    ],
)
@pytest.mark.parametrize("backlog", [[], ["1-0", "2-0"]])
def test_an_end_that_is_passed_later(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    name: str,
    iterate: Callable[..., Any],
    backlog: list[str],
    end: Any,
    passing: list[str],
    expected: list[str],
) -> None:
    add_numbered(client, stream, backlog)
    frames = iterate(named(redis_url, name), stream, SCHEMA, 1, end_id=end)
    found = [next(frames) for _ in backlog]
    entries = [(entry_id, {"n": 1}) for entry_id in ["3-0", *passing]]
    with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
        found += list(frames)
    assert ids_of(found) == [*backlog, "3-0", *expected]
    assert list(frames) == []


def test_what_lies_behind_the_end_is_not_decoded(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    frames = iterate(named(redis_url, name), stream, SCHEMA, end_id="5")
    entries = [("3-0", {"n": 1}), ("6-0", {"n": "bad"})]
    with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
        assert ids_of(list(frames)) == ["3-0"]
    assert ids_of(list(iterate(redis_url, stream, SCHEMA, end_id="5"))) == ["3-0"]
    assert ids_of(list(iterate(redis_url, stream, SCHEMA, count=1))) == ["3-0"]


def test_a_start_that_is_reached_later(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 3))
    frames = iterate(named(redis_url, name), stream, SCHEMA, start_id="(10-5")
    entries = [(entry_id, {"n": 1}) for entry_id in ("9-0", "10-4", "10-5", "10-6", "11-0")]
    with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
        assert next(frames)["_id"].to_list() == ["10-6", "11-0"]


@pytest.mark.parametrize("way", ["deleted", "trimmed"])
def test_an_end_that_only_deleted_entries_passed(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    way: str,
) -> None:
    def add_and_remove() -> None:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.xadd(stream, {"n": 1}, id="9-0")
            if way == "deleted":
                pipeline.xdel(stream, "9-0")
            else:
                pipeline.xtrim(stream, maxlen=0, approximate=False)
            pipeline.execute()

    add_numbered(client, stream, ["5-0"])
    waiting = iterate(redis_url, stream, SCHEMA, block_ms=20, end_id="7")
    assert next(waiting)["_id"].to_list() == ["5-0"]
    with meanwhile(add_and_remove):
        assert list(waiting) == []
    # Nobody can add an entry before that any more.
    left = ["5-0"] if way == "deleted" else []
    assert ids_of(list(iterate(redis_url, stream, SCHEMA, block_ms=20, end_id="7"))) == left


@pytest.mark.parametrize("options", [{}, {"count": 9}, {"end_id": "2"}])
def test_the_end_is_final(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    options: dict[str, Any],
) -> None:
    add_numbered(client, stream, ["1-0", "2-0"])
    frames = iterate(redis_url, stream, SCHEMA, block_ms=None, **options)
    assert ids_of(list(frames)) == ["1-0", "2-0"]
    for entry_id in ("2-5", "4-0"):
        add_numbered(client, stream, [entry_id])
        assert list(frames) == []
    assert frames.stats.batches == 1


# -- "$" -----------------------------------------------------------------------


@pytest.mark.parametrize("backlog", [[], ["1-0", "2-0"]])
def test_dollar_is_resolved_when_it_is_entered(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    backlog: list[str],
) -> None:
    add_numbered(client, stream, backlog)
    made = iterate(redis_url, stream, SCHEMA, 1, block_ms=20, start_id="$")
    add_numbered(client, stream, ["3-0"])
    with made as frames:
        add_numbered(client, stream, ["4-0", "5-0"])
        assert next(frames)["_id"].to_list() == ["4-0"]
        add_numbered(client, stream, ["6-0"])
        assert next(frames)["_id"].to_list() == ["5-0"]
        assert next(frames)["_id"].to_list() == ["6-0"]


def test_dollar_is_resolved_once_when_it_is_advanced(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, ["1-0"])
    frames = iterate(named(redis_url, name), stream, SCHEMA, 1, block_ms=1, start_id="$")
    add_numbered(client, stream, ["2-0"])
    with once_blocked(client, name, lambda: add_numbered(client, stream, ["3-0"])):
        assert next(frames)["_id"].to_list() == ["3-0"]
    # Each of these comes between two reads that block.
    for n in range(4, 40):
        add_numbered(client, stream, [f"{n}-0"])
        assert next(frames)["_id"].to_list() == [f"{n}-0"]


@pytest.mark.parametrize("batch_size", [1, 100])
def test_nothing_that_comes_at_any_moment_is_skipped(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    batch_size: int,
) -> None:
    # Rounds are short, so that many entries come between two of them.
    ids = numbers(1, 1_500)

    def produce() -> None:
        for n, entry_id in enumerate(ids):
            client.xadd(stream, {"n": n}, id=entry_id)
            if n % 10 == 0:
                time.sleep(0.002)

    with (
        iterate(
            redis_url, stream, SCHEMA, batch_size, 1, start_id="$", count=len(ids), linger_ms=1
        ) as frames,
        meanwhile(produce),
    ):
        found = list(frames)
    assert ids_of(found) == ids
    assert max(heights(found)) <= batch_size


def test_dollar_without_waiting_is_nothing(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, ["1-0"])
    assert list(iterate(redis_url, stream, SCHEMA, block_ms=None, start_id="$")) == []


def test_dollar_where_the_last_entry_was_deleted(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 5))
    client.xdel(stream, "4-0", "5-0")
    with iterate(redis_url, stream, SCHEMA, block_ms=20, start_id="$") as frames:
        add_numbered(client, stream, ["6-0"])
        assert next(frames)["_id"].to_list() == ["6-0"]


# -- waiting -------------------------------------------------------------------


def one_by_one(client: redis_py.Redis, stream: str, ids: list[str], pause: float) -> None:
    for entry_id in ids:
        client.xadd(stream, {"n": 1}, id=entry_id)
        time.sleep(pause)


@pytest.mark.parametrize("limit", [{"batch_size": 5}, {"count": 5}, {"end_id": "5-0"}])
def test_lingering_ends_when_the_batch_can_get_no_fuller(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    name: str,
    iterate: Callable[..., Any],
    limit: dict[str, Any],
) -> None:
    frames = iterate(named(redis_url, name), stream, SCHEMA, linger_ms=3_600_000, **limit)
    ids = numbers(1, 5)
    with once_blocked(client, name, lambda: one_by_one(client, stream, ids, 0.01)):
        assert next(frames)["_id"].to_list() == ids


def test_lingering_ends_when_its_time_is_over(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    frames = iterate(named(redis_url, name), stream, SCHEMA, linger_ms=300)
    for first in (1, 11):
        began = time.monotonic()
        ids = numbers(first, first + 2)
        with once_blocked(client, name, partial(one_by_one, client, stream, ids, 0.001)):
            df = next(frames)
            assert time.monotonic() - began > 0.29
        # On a machine that stands still the last one may be late.
        while df.height < len(ids):
            df = df.vstack(next(frames))
        assert df["_id"].to_list() == ids


def test_without_lingering_an_entry_comes_at_once(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    frames = iterate(named(redis_url, name), stream, SCHEMA, block_ms=3_600_000)
    for entry_id in numbers(1, 20):
        with once_blocked(client, name, partial(add_numbered, client, stream, [entry_id])):
            assert next(frames)["_id"].to_list() == [entry_id]


def test_many_rounds_are_waited_for(
    make_server: Callable[..., Server], iterate: Callable[..., Any]
) -> None:
    server = make_server()
    client = server.client()

    def rounds() -> int:
        calls: int = client.info("commandstats").get("cmdstat_xread", {"calls": 0})["calls"]
        return calls

    def later() -> None:
        wait_until(lambda: rounds() > 5)
        add_numbered(client, "s", ["1-0"])

    frames = iterate(server.url, "s", SCHEMA, block_ms=10)
    with meanwhile(later):
        assert next(frames)["_id"].to_list() == ["1-0"]
    assert frames.stats.batches == 1


@pytest.mark.parametrize("block_ms", [0, 3_600_000])
def test_a_long_round_needs_no_other(
    make_server: Callable[..., Server], iterate: Callable[..., Any], block_ms: int
) -> None:
    server = make_server()
    client = server.client()
    frames = iterate(named(server.url, "me"), "s", SCHEMA, block_ms=block_ms)

    def later() -> None:
        wait_until(lambda: is_blocked(client, "me"))
        time.sleep(0.3)
        add_numbered(client, "s", ["1-0"])

    with meanwhile(later):
        assert next(frames)["_id"].to_list() == ["1-0"]
    assert client.info("commandstats")["cmdstat_xread"]["calls"] == 1


# -- where it is, and what it has done -----------------------------------------


@pytest.mark.parametrize("ids", [numbers(1, 3_000), [f"7-{n}" for n in range(3_000)]])
def test_another_one_goes_on_after_the_last_id(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    ids: list[str],
) -> None:
    add_numbered(client, stream, ids)
    found: list[str] = []
    start = "-"
    for batches in (1, 3, 1, 7, 2):
        frames = iterate(redis_url, stream, SCHEMA, 123, start_id=start, include_id=True)
        for _ in range(batches):
            found += next(frames)["_id"].to_list()
            assert frames.last_id == found[-1]
        frames.close()
        assert frames.last_id == found[-1]
        start = f"({frames.last_id}"
    found += ids_of(list(iterate(redis_url, stream, SCHEMA, block_ms=None, start_id=start)))
    assert found == ids


def test_the_last_id_without_a_column_for_it(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 5))
    frames = iterate(
        redis_url, stream, SCHEMA, 2, block_ms=None, include_id=False, include_timestamp=False
    )
    assert [frames.last_id] == [None]
    assert [(df["n"].to_list(), frames.last_id) for df in frames] == [
        ([0, 1], "2-0"),
        ([2, 3], "4-0"),
        ([4], "5-0"),
    ]
    assert frames.last_id == "5-0"


def test_stats(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 250))
    frames = iterate(redis_url, stream, SCHEMA, 100, block_ms=None)
    nothing = {"batches": 0, "entries": 0, "bytes": 0, "reconnects": 0, "claimed": 0}
    assert dict(frames.stats) == nothing
    next(frames)
    first = frames.stats
    assert (first.batches, first.entries, first["batches"], first["entries"]) == (1, 100, 1, 100)
    list(frames)
    last = frames.stats
    # A reply names each entry, its ID, its field and its value.
    assert last.bytes > 250 * len("*2$3\r\n1-0\r\n*2\r\n$1\r\nn\r\n$1\r\n1\r\n") - 100
    assert last == redis.StreamStats(
        batches=3, entries=250, bytes=last.bytes, reconnects=0, claimed=0
    )
    # It is what was so far, not what will be.
    assert (first.batches, first.entries) == (1, 100)
    with pytest.raises(KeyError, match="rows"):
        last["rows"]
    with pytest.raises(AttributeError):
        last.batches = 4


def test_a_block_closes_it(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 10))
    made = iterate(named(redis_url, name), stream, SCHEMA, 3)
    with made as frames:
        assert frames is made
        assert len(connections_of(client, name)) == 1
        assert next(frames)["_id"].to_list() == numbers(1, 3)
    assert list(made) == []
    assert (made.last_id, made.stats.entries) == ("3-0", 3)
    made.close()


def test_a_block_lets_an_exception_out(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 10))
    made = iterate(redis_url, stream, SCHEMA)
    with pytest.raises(ZeroDivisionError), made:
        raise ZeroDivisionError
    assert list(made) == []


def test_one_that_was_never_advanced_can_be_closed(
    make_server: Callable[..., Server],
    make_proxy: Callable[..., Proxy],
    iterate: Callable[..., Any],
) -> None:
    proxy = make_proxy(make_server())
    frames = iterate(f"redis://127.0.0.1:{proxy.port}", "s")
    frames.close()
    frames.close()
    assert list(frames) == []
    with pytest.raises(ValueError, match=r"^the iterator is closed$"), frames:
        pass
    assert proxy.connections == 0


def test_one_that_was_left_cannot_be_entered_again(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 10))
    with iterate(redis_url, stream, SCHEMA, block_ms=None) as frames:
        assert sum(df.height for df in frames) == 10
    with pytest.raises(ValueError, match=r"^the iterator is closed$"), frames:
        pass
    assert list(frames) == []


# -- arguments -----------------------------------------------------------------


WRONG: list[tuple[type[Exception], dict[str, Any]]] = [
    (ValueError, {"batch_size": 0}),
    (ValueError, {"batch_size": -1}),
    (TypeError, {"batch_size": None}),
    (TypeError, {"batch_size": 1.5}),
    (TypeError, {"batch_size": True}),
    (ValueError, {"block_ms": -1}),
    (TypeError, {"block_ms": "1"}),
    (TypeError, {"block_ms": 0.5}),
    (ValueError, {"linger_ms": -1}),
    (TypeError, {"linger_ms": None}),
    (ValueError, {"reconnect_timeout_ms": -1}),
    (TypeError, {"reconnect_timeout_ms": None}),
    (ValueError, {"count": -1}),
    (TypeError, {"count": "1"}),
    *[(ValueError, {"start_id": v}) for v in ("", ">", "x", "1-", "($", "1-2-3", -1)],
    *[(ValueError, {"end_id": v}) for v in ("", "$", "x", "(+", 2**64)],
    (TypeError, {"start_id": None}),
    (TypeError, {"end_id": 1.0}),
    (TypeError, {"strict": 1}),
    (TypeError, {"schema": 5}),
    (ValueError, {"schema": {"_id": str}}),
    (ValueError, {"schema": {"n": pl.Object}}),
    (ValueError, {"id_column": "_ts"}),
    (TypeError, {"id_column": None}),
    (ValueError, {"consumer": "c"}),
    (ValueError, {"auto_ack": True}),
    (ValueError, {"include_delivery_count": True}),
    (ValueError, {"max_deliveries": 3, "dead_letter": "d"}),
]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments_are_told_before_anything_is_sent(
    make_server: Callable[..., Server], make_proxy: Callable[..., Proxy], kind: str
) -> None:
    proxy = make_proxy(make_server())
    url = f"redis://127.0.0.1:{proxy.port}"
    make = redis.iter_stream if kind == "sync" else redis.iter_stream_async
    for expected, options in WRONG:
        # The message names the parameter, or what it holds.
        (parameter, *_) = options
        with pytest.raises(expected, match=f"{parameter}|schema|_ts|not iterable"):
            make(url, "s", **options)
    for wrong in ("http://127.0.0.1", "redis://127.0.0.1:port", "redis://127.0.0.1?no_such=1"):
        with pytest.raises(ValueError, match=r"url|no_such"):
            make(wrong, "s")
    with pytest.raises(ValueError, match=r"block_ms|batch_timeout_ms"):
        redis.iter_stream_async(url, "s", batch_timeout_ms=-1)
    assert proxy.connections == 0


def test_nothing_is_connected_before_it_is_advanced(
    server: Server,
    client: redis_py.Redis,
    stream: str,
    make_proxy: Callable[..., Proxy],
    iterate: Callable[..., Any],
) -> None:
    add_numbered(client, stream, ["1-0"])
    proxy = make_proxy(server)
    url = f"redis://127.0.0.1:{proxy.port}"
    advanced, entered = (iterate(url, stream, SCHEMA) for _ in range(2))
    assert (repr(advanced), advanced.last_id) == (repr(entered), None)
    assert advanced.stats.bytes == 0
    assert iter(advanced) is advanced
    assert proxy.connections == 0
    next(advanced)
    assert proxy.connections == 1
    with entered:
        assert proxy.connections == 2


@pytest.mark.parametrize("huge", [2**32, 2**63, MAX, 2**70])
def test_numbers_of_any_size(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    huge: int,
) -> None:
    ids = add_numbered(client, stream, numbers(1, 3))
    frames = iterate(
        redis_url, stream, SCHEMA, huge, huge, reconnect_timeout_ms=huge, end_id="3-0", count=huge
    )
    assert ids_of(list(frames)) == ids
    assert redis.read_stream(redis_url, stream, SCHEMA, count=huge, block_ms=huge).height == 3


def test_a_block_time_by_its_other_name(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    with iterating("async") as iterate:
        frames = iterate(named(redis_url, name), stream, batch_timeout_ms=60_000)
        with once_blocked(client, name, lambda: add_numbered(client, stream, ["1-0"])):
            assert next(frames)["_id"].to_list() == ["1-0"]


# -- columns -------------------------------------------------------------------


def test_without_a_schema_a_frame_has_the_fields_of_its_entries(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    kinds: list[dict[str, Any]] = [{"a": "1"}, {"a": "2", "b": "é"}, {"c": ""}, {"b": "4"}]
    add(client, stream, ((f"{n + 1}-0", kinds[n // 3]) for n in range(12)))
    found = [
        df.drop("_ts").to_dict(as_series=False)
        for df in iterate(redis_url, stream, None, 3, block_ms=None)
    ]
    assert found == [
        {"_id": numbers(1, 3), "a": ["1"] * 3},
        {"_id": numbers(4, 6), "a": ["2"] * 3, "b": ["é"] * 3},
        {"_id": numbers(7, 9), "c": [""] * 3},
        {"_id": numbers(10, 12), "b": ["4"] * 3},
    ]
    (df,) = iterate(redis_url, stream, batch_size=12, block_ms=None)
    assert df.columns == ["_id", "_ts", "a", "b", "c"]
    assert df["a"].to_list() == ["1"] * 3 + ["2"] * 3 + [None] * 6
    assert set(df.drop("_ts").dtypes) == {pl.String}


@pytest.mark.parametrize("waits", [False, True])
def test_columns_that_were_asked_for(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    name: str,
    iterate: Callable[..., Any],
    waits: bool,
) -> None:
    entries = [
        ("1-5", {"n": "1", "x": "1.5", "other": "?"}),
        ("1-6", {"x": "inf"}),
        ("2-0", {"n": "-3", "b": "TRUE"}),
    ]
    frames = iterate(
        named(redis_url, name),
        stream,
        {"x": float, "n": pl.Int8, "b": bool},
        include_sequence=True,
        id_column="id",
        timestamp_column="ms",
        sequence_column="seq",
    )
    if waits:
        with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
            df = next(frames)
    else:
        add(client, stream, entries)
        df = next(frames)
    assert df.schema == {
        "id": pl.String,
        "ms": pl.Int64,
        "seq": pl.Int64,
        "x": pl.Float64,
        "n": pl.Int8,
        "b": pl.Boolean,
    }
    assert df.rows() == [
        ("1-5", 1, 5, 1.5, 1, None),
        ("1-6", 1, 6, float("inf"), None, None),
        ("2-0", 2, 0, None, -3, True),
    ]


def test_a_text_that_does_not_fit_is_null_where_that_was_asked_for(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add(client, stream, [("1-0", {"n": "1"}), ("2-0", {"n": "x"}), ("3-0", {"n": ""})])
    (df,) = iterate(redis_url, stream, SCHEMA, block_ms=None, strict=False)
    assert df["n"].to_list() == [1, None, None]


# -- entries that go away ------------------------------------------------------


def test_entries_that_are_deleted_meanwhile(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    ids = add_numbered(client, stream, numbers(1, 20_000))
    frames = iterate(redis_url, stream, SCHEMA, 100, block_ms=None)
    found = [next(frames), next(frames)]
    gone = {*ids[::3], *ids[5_000:9_000], *ids[-5:]}
    client.xdel(stream, *gone)
    client.xtrim(stream, minid="15000-0", approximate=False)
    found += list(frames)
    assert min(heights(found)) >= 1
    seen = ids_of(found)
    keys = [id_key(entry_id) for entry_id in seen]
    assert keys == sorted(set(keys))
    entries: Any = client.xrange(stream)
    left = {entry.decode() for entry, _ in entries}
    assert left <= set(seen) <= set(ids)
    # What was far away when it was deleted is not among them.
    assert not gone & set(seen) & set(ids[15_000:])


def test_a_stream_that_is_deleted_while_it_is_waited_for(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    add_numbered(client, stream, numbers(1, 3))
    frames = iterate(named(redis_url, name), stream, SCHEMA, block_ms=50)
    assert next(frames).height == 3

    def replace() -> None:
        client.delete(stream)
        add_numbered(client, stream, ["4-0", "5-0"])

    with once_blocked(client, name, replace):
        found = next(frames)["_id"].to_list()
        while len(found) < 2:
            found += next(frames)["_id"].to_list()
    assert found == ["4-0", "5-0"]


def test_a_stream_that_is_deleted_before_its_backlog_was_read(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    ids = add_numbered(client, stream, numbers(1, 20_000))
    frames = iterate(redis_url, stream, SCHEMA, 100, block_ms=20, count=15_000)
    found = [next(frames)]
    client.delete(stream)
    later = add_numbered(client, stream, numbers(30_000, 45_000))
    found += list(frames)
    seen = ids_of(found)
    assert len(seen) == 15_000
    read = sum(id_key(entry_id) < (30_000, 0) for entry_id in seen)
    assert 100 <= read < 15_000
    assert seen == ids[:read] + later[: 15_000 - read]


def test_a_key_that_is_no_stream_for_a_while(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    client.set(stream, "text")
    frames = iterate(redis_url, stream, SCHEMA, block_ms=20)
    for _ in range(3):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            next(frames)
    client.delete(stream)
    add_numbered(client, stream, ["1-0"])
    assert next(frames)["_id"].to_list() == ["1-0"]
    client.delete(stream)
    client.set(stream, "text")
    with pytest.raises(ResponseError, match=stream):
        next(frames)
    client.delete(stream)
    add_numbered(client, stream, ["1-0", "2-0"])
    assert next(frames)["_id"].to_list() == ["2-0"]


# -- entries that cannot be decoded --------------------------------------------


def with_bad(ids: list[str], bad: set[str]) -> list[tuple[str, Any]]:
    return [(entry_id, {"n": "bad" if entry_id in bad else "1"}) for entry_id in ids]


def assert_stuck(frames: Any, stream: str, bad: str) -> None:
    before = frames.last_id, frames.stats.entries, frames.stats.batches
    for _ in range(3):
        with pytest.raises(DecodeError, match=r'expected Int64, got "bad"') as caught:
            next(frames)
        assert (caught.value.stream, caught.value.entry_id) == (stream, bad)
        assert caught.value.field == "n"
    assert (frames.last_id, frames.stats.entries, frames.stats.batches) == before


@pytest.mark.parametrize(
    ("ids", "bad"),
    [
        (numbers(1, 5_000), ["1-0", "2-0", "103-0", "2000-0", "2001-0", "4999-0", "5000-0"]),
        ([f"1-{n}" for n in range(5_000)], ["1-0", "1-1", "1-3000"]),
        (SHAPES["bursts"], ["1-1500", "20000001-1", "40000001-2999"]),
    ],
)
def test_what_comes_before_a_bad_entry_is_handed_over_first(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    ids: list[str],
    bad: list[str],
) -> None:
    add(client, stream, with_bad(ids, set(bad)))
    frames = iterate(redis_url, stream, SCHEMA, 100, block_ms=None)
    found: list[str] = []
    for entry_id in bad:
        before = ids[len(found) : ids.index(entry_id)]
        while before:
            df = next(frames)
            assert df["_id"].to_list() == before[:100]
            before = before[100:]
        assert_stuck(frames, stream, entry_id)
        found = ids[: ids.index(entry_id) + 1]
        client.xdel(stream, entry_id)
    rest = ids_of(list(frames))
    assert rest == ids[len(found) :]
    assert frames.stats.entries == len(ids) - len(bad)
    assert frames.stats.reconnects == 0


def test_a_bad_entry_that_comes_while_it_waits(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    frames = iterate(named(redis_url, name), stream, SCHEMA, 2, count=6)
    entries = with_bad(numbers(1, 8), {"4-0", "5-0"})
    with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
        assert next(frames)["_id"].to_list() == ["1-0", "2-0"]
    assert next(frames)["_id"].to_list() == ["3-0"]
    assert_stuck(frames, stream, "4-0")
    client.xdel(stream, "4-0")
    assert_stuck(frames, stream, "5-0")
    add_numbered(client, stream, ["9-0"])
    assert_stuck(frames, stream, "5-0")
    client.xtrim(stream, minid="6-0", approximate=False)
    assert [df["_id"].to_list() for df in frames] == [["6-0", "7-0"], ["8-0"]]


def test_a_bad_entry_does_not_wait_for_lingering(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add(client, stream, with_bad(numbers(1, 3), {"3-0"}))
    frames = iterate(redis_url, stream, SCHEMA, linger_ms=3_600_000)
    assert next(frames)["_id"].to_list() == ["1-0", "2-0"]
    assert_stuck(frames, stream, "3-0")


@pytest.mark.parametrize("fields", [{"_id": "1"}, {b"\xff": "1"}])
def test_a_field_that_cannot_be_a_column(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    iterate: Callable[..., Any],
    fields: dict[Any, Any],
) -> None:
    add(client, stream, [("1-0", {"a": "1"}), ("2-0", fields), ("3-0", {"b": "3"})])
    frames = iterate(redis_url, stream, block_ms=20)
    assert next(frames).drop("_ts").to_dicts() == [{"_id": "1-0", "a": "1"}]
    for _ in range(3):
        with pytest.raises(DecodeError, match="2-0"):
            next(frames)
    client.xdel(stream, "2-0")
    assert next(frames).drop("_ts").to_dicts() == [{"_id": "3-0", "b": "3"}]


# -- one read that waits -------------------------------------------------------


@pytest.mark.parametrize("block_ms", [0, 60_000])
@pytest.mark.parametrize("start", ["-", "$", "2", "(1-0"])
def test_a_read_waits_for_the_first_entry(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, start: str, block_ms: int
) -> None:
    client.xdel(stream, *add_numbered(client, stream, ["1-0"]))
    entries = [(entry_id, {"n": 7}) for entry_id in ("2-0", "2-1", "3-0")]
    with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
        df = redis.read_stream(
            named(redis_url, name), stream, SCHEMA, start_id=start, block_ms=block_ms
        )
    assert df.drop("_ts").rows() == [("2-0", 7), ("2-1", 7), ("3-0", 7)]


@pytest.mark.parametrize("block_ms", [0, 60_000])
def test_a_read_waits_for_nothing_where_something_is_there(
    client: redis_py.Redis, redis_url: str, stream: str, block_ms: int
) -> None:
    ids = add_numbered(client, stream, numbers(1, 5_000))
    began = time.monotonic()
    df = redis.read_stream(redis_url, stream, SCHEMA, block_ms=block_ms)
    assert df["_id"].to_list() == ids
    df = redis.read_stream(redis_url, stream, SCHEMA, "(10-0", count=7, block_ms=block_ms)
    assert df["_id"].to_list() == numbers(11, 17)
    df = redis.read_stream(redis_url, stream, SCHEMA, "11", "17", block_ms=block_ms)
    assert df["_id"].to_list() == numbers(11, 17)
    assert redis.read_stream(redis_url, stream, SCHEMA, count=0, block_ms=block_ms).height == 0
    # A range that has been passed has nothing to wait for.
    df = redis.read_stream(redis_url, stream, SCHEMA, "7-1", "7-9", block_ms=block_ms)
    assert df.height == 0
    assert time.monotonic() - began < 30


def test_a_read_that_waited_in_vain(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    client.xdel(stream, *add_numbered(client, stream, ["1-0"]))
    schema = {"n": pl.Int64, "x": pl.Float32, "t": str}
    for key in (stream, stream + ":missing"):
        for start in ("-", "$", "5"):
            began = time.monotonic()
            df = redis.read_stream(redis_url, key, schema, start_id=start, block_ms=120)
            assert 0.119 < time.monotonic() - began < 10
            assert df.height == 0
            assert df.schema == {
                "_id": pl.String,
                "_ts": pl.Int64,
                "n": pl.Int64,
                "x": pl.Float32,
                "t": pl.String,
            }
    df = redis.read_stream(redis_url, stream, block_ms=20, include_sequence=True)
    assert df.schema == {"_id": pl.String, "_ts": pl.Int64, "_seq": pl.Int64}


def test_a_read_that_waits_takes_no_more_than_its_count(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    entries = [(entry_id, {"n": 1}) for entry_id in numbers(1, 5)]
    with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
        df = redis.read_stream(named(redis_url, name), stream, SCHEMA, count=2, block_ms=60_000)
    assert df["_id"].to_list() == numbers(1, 2)


def test_a_read_that_waits_stops_at_its_end(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    url = named(redis_url, name)
    entries = [(entry_id, {"n": 1}) for entry_id in numbers(1, 3)]
    with once_blocked(client, name, lambda: add_at_once(client, stream, entries)):
        df = redis.read_stream(url, stream, SCHEMA, end_id="2", block_ms=60_000)
    assert df["_id"].to_list() == numbers(1, 2)
    # What comes is behind the end: there is nothing more to wait for.
    with once_blocked(client, name, lambda: add_numbered(client, stream, ["9-0"])):
        df = redis.read_stream(url, stream, SCHEMA, "4", "8", block_ms=60_000)
    assert df.height == 0


def test_reads_that_wait_one_after_another_skip_nothing(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = numbers(1, 400)
    found: list[str] = []
    with meanwhile(lambda: one_by_one(client, stream, ids, 0.0005)):
        while len(found) < len(ids):
            start = f"({found[-1]}" if found else "-"
            df = redis.read_stream(redis_url, stream, SCHEMA, start_id=start, block_ms=60_000)
            assert df.height > 0
            found += df["_id"].to_list()
    assert found == ids


def test_a_read_ends_though_producers_go_on(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add_numbered(client, stream, numbers(1, 1_000))
    done: list[bool] = []

    def produce() -> None:
        n = 1_000
        while not done:
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(50):
                    n += 1
                    pipeline.xadd(stream, {"n": n}, id=f"{n}-0")
                pipeline.execute()

    with meanwhile(produce):
        try:
            for _ in range(5):
                df = redis.read_stream(redis_url, stream, SCHEMA, block_ms=60_000)
                assert df["_id"].to_list() == numbers(1, df.height)
                assert df.height >= 1_000
        finally:
            done.append(True)


def test_a_read_that_waits_for_what_cannot_be_decoded(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    entries = with_bad(numbers(1, 3), {"2-0"})
    url = named(redis_url, name)
    with (
        once_blocked(client, name, lambda: add_at_once(client, stream, entries)),
        pytest.raises(DecodeError, match="2-0"),
    ):
        redis.read_stream(url, stream, SCHEMA, block_ms=60_000)
    df = redis.read_stream(url, stream, SCHEMA, block_ms=60_000, strict=False)
    assert df["n"].to_list() == [1, None, 1]


@pytest.mark.parametrize("wrong", [-1, "1", 1.5, True])
def test_a_wrong_time_to_wait_is_told_before_anything_is_sent(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="block_ms"):
        redis.read_stream("redis://127.0.0.1:1", "s", block_ms=wrong)


def test_a_read_that_waits_fails_fast_where_nobody_is() -> None:
    began = time.monotonic()
    with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:1"):
        redis.read_stream("redis://127.0.0.1:1", "s", block_ms=60_000)
    assert time.monotonic() - began < 5


def test_field_names_that_never_come_again_cost_nothing_later(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    add(client, stream, ((f"{n + 1}-0", {f"f{n}": n, "n": n}) for n in range(5_000)))
    seen = 0
    for df in iterate(redis_url, stream, batch_size=7, block_ms=None):
        names = [f"f{n}" for n in range(seen, seen + df.height)]
        assert sorted(df.columns) == sorted(["_id", "_ts", "n", *names])
        assert df["n"].to_list() == [str(n) for n in range(seen, seen + df.height)]
        assert df[names[0]].to_list() == [str(seen), *[None] * (df.height - 1)]
        seen += df.height
    assert seen == 5_000


def test_a_block_time_may_be_none_by_both_names_and_is_given_once(
    redis_url: str, stream: str
) -> None:
    with iterating("async") as iterate:
        assert list(iterate(redis_url, stream, batch_timeout_ms=None)) == []
        assert list(iterate(redis_url, stream, block_ms=None)) == []
    with pytest.raises(ValueError, match=r"batch_timeout_ms: .*block_ms"):
        redis.iter_stream_async(redis_url, stream, block_ms=None, batch_timeout_ms=5)
