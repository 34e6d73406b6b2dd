"""Reads as a consumer of a group: what is delivered, in which order, and what stays pending."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import DecodeError, ResponseError
from support.iterators import is_blocked, named, wait_until
from support.streams import add, add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.proxy import Proxy
    from support.servers import Server

SCHEMA = {"n": pl.Int64}
GROUP = {"group": "g", "consumer": "a"}
#: Longer than the default claim_idle_ms.
STALE = 600_000


def fill(client: redis_py.Redis, stream: str, size: int, first: int = 1) -> list[str]:
    """Add `size` entries, "1-0", "2-0" and so on, and make the group."""
    ids = add_numbered(client, stream, (f"{first + n}-0" for n in range(size)))
    if not client.xinfo_groups(stream):
        client.xgroup_create(stream, "g", "0")
    return ids


def take(client: redis_py.Redis, stream: str, consumer: str, size: int, idle: int = 0) -> list[str]:
    """Have a consumer take new entries as one that dies then would; idle for so long."""
    [[_, entries]] = client.xreadgroup("g", consumer, {stream: ">"}, count=size)
    ids = [entry_id.decode() for entry_id, _ in entries]
    client.xclaim(stream, "g", consumer, 0, ids, idle=idle, justid=True)
    return ids


def details(client: redis_py.Redis, stream: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.xpending_range(stream, "g", "-", "+", 10_000)
    return found


def pending(client: redis_py.Redis, stream: str) -> dict[str, str]:
    """Which consumer has which entries."""
    return {row["message_id"].decode(): row["consumer"].decode() for row in details(client, stream)}


def ids_of(frames: list[pl.DataFrame]) -> list[list[str]]:
    return [df["_id"].to_list() for df in frames]


def flat(batches: list[list[str]]) -> list[str]:
    return [entry_id for batch in batches for entry_id in batch]


def drain(
    kind: str, url: str, stream: str, schema: Any = None, **options: Any
) -> list[pl.DataFrame]:
    """Take all there is, by one of the two iterators."""
    options = {"block_ms": None, **options}
    if kind == "sync":
        with redis.iter_stream(url, stream, schema, **options) as batches:
            return list(batches)

    async def collect() -> list[pl.DataFrame]:
        async with redis.iter_stream_async(url, stream, schema, **options) as batches:
            return [df async for df in batches]

    return asyncio.run(collect())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What the library has warned of so far."""
    with caplog.at_level(logging.INFO, logger="polars_redis"):
        yield lambda: [
            record.getMessage()
            for record in caplog.records
            if record.name == "polars_redis" and record.levelno >= logging.WARNING
        ]


# -- read_stream ---------------------------------------------------------------


def test_a_read_gives_new_entries_and_leaves_them_pending(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = fill(any_client, stream, 5)
    df = redis.read_stream(any_server.url, stream, SCHEMA, count=3, **GROUP)
    assert df.columns == ["_id", "_ts", "n"]
    assert df["_id"].to_list() == ids[:3]
    assert df["n"].to_list() == [0, 1, 2]
    assert pending(any_client, stream) == dict.fromkeys(ids[:3], "a")
    df = redis.read_stream(any_server.url, stream, SCHEMA, **GROUP)
    assert df["_id"].to_list() == ids[3:]
    assert redis.read_stream(any_server.url, stream, SCHEMA, **GROUP).is_empty()
    assert pending(any_client, stream) == dict.fromkeys(ids, "a")


def test_a_read_without_count_takes_more_than_a_page(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = fill(client, stream, 3_456)
    df = redis.read_stream(redis_url, stream, SCHEMA, **GROUP)
    assert df["_id"].to_list() == ids
    assert client.xpending(stream, "g")["pending"] == len(ids)


def test_a_read_without_count_ends_while_a_producer_writes(
    client: redis_py.Redis, server: Server, stream: str
) -> None:
    ids = fill(client, stream, 2_500)
    done = threading.Event()

    def produce() -> None:
        mine = server.client()
        while not done.is_set():
            mine.xadd(stream, {"n": -1})

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        df = redis.read_stream(server.url, stream, SCHEMA, **GROUP)
    finally:
        done.set()
        producer.join()
    assert df["_id"].to_list()[: len(ids)] == ids


@pytest.mark.parametrize("start_id", ["-", ">"])
def test_a_start_that_means_new_entries(
    client: redis_py.Redis, redis_url: str, stream: str, start_id: str
) -> None:
    ids = fill(client, stream, 4)
    take(client, stream, "a", 2)
    df = redis.read_stream(redis_url, stream, SCHEMA, start_id, **GROUP)
    assert df["_id"].to_list() == ids[2:]


@pytest.mark.parametrize(
    ("start_id", "expected"),
    [
        ("0", ["1-0", "2-0", "3-0"]),
        ("0-0", ["1-0", "2-0", "3-0"]),
        ("1-0", ["2-0", "3-0"]),
        ("1", ["2-0", "3-0"]),
        ("(1-0", ["2-0", "3-0"]),
        (1, ["2-0", "3-0"]),
        ("1-1", ["2-0", "3-0"]),
        ("3-0", []),
        ("18446744073709551615-18446744073709551615", []),
    ],
)
def test_a_start_that_is_an_id_means_own_pending_entries_after_it(
    any_client: redis_py.Redis, any_server: Server, stream: str, start_id: Any, expected: list[str]
) -> None:
    fill(any_client, stream, 8)
    take(any_client, stream, "a", 3)
    # Others' entries are no business of this read, however stale, and new ones neither.
    take(any_client, stream, "b", 2, idle=STALE)
    df = redis.read_stream(any_server.url, stream, SCHEMA, start_id, **GROUP)
    assert df["_id"].to_list() == expected
    batches = drain("sync", any_server.url, stream, start_id=start_id, batch_size=2, **GROUP)
    assert flat(ids_of(batches)) == expected
    assert sorted(pending(any_client, stream).values()) == list("aaabb")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"end_id": "5-0"}, "end_id"),
        ({"end_id": "-"}, "end_id"),
        ({"start_id": "$"}, "start_id"),
        ({"start_id": "+"}, "start_id"),
        ({"start_id": "x"}, "start_id"),
        ({"consumer": None}, "consumer"),
        ({"group": None}, "consumer"),
        ({"group": None, "consumer": None, "auto_ack": True}, "auto_ack"),
        ({"group": None, "consumer": None, "include_delivery_count": True}, "delivery_count"),
        ({"claim_idle_ms": -1}, "claim_idle_ms"),
        ({"count": -1}, "count"),
        ({"block_ms": -1}, "block_ms"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    options: dict[str, Any],
    named: str,
) -> None:
    proxy = make_proxy(server)
    url = proxy.rewrite(server.url)
    for function in (redis.read_stream, redis.iter_stream, redis.iter_stream_async):
        with pytest.raises(ValueError, match=named):
            function(url, stream, **{**GROUP, **options})
    assert proxy.connections == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_deliveries": 3}, "dead_letter"),
        ({"dead_letter": "d"}, "max_deliveries"),
        ({"max_deliveries": 0, "dead_letter": "d"}, "max_deliveries"),
        (
            {"max_deliveries": 3, "dead_letter": "d", "group": None, "consumer": None},
            "max_deliveries",
        ),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_arguments_of_iterators(stream: str, options: dict[str, Any], named: str) -> None:
    for function in (redis.iter_stream, redis.iter_stream_async):
        with pytest.raises(ValueError, match=named):
            function("redis://127.0.0.1:1", stream, **{**GROUP, **options})


def test_a_stream_cannot_be_its_own_dead_letters(stream: str) -> None:
    for function in (redis.iter_stream, redis.iter_stream_async):
        with pytest.raises(ValueError, match="dead_letter"):
            function("redis://127.0.0.1:1", stream, max_deliveries=3, dead_letter=stream, **GROUP)


@pytest.mark.parametrize(
    "options",
    [{"auto_ack": 1}, {"create_group": "yes"}, {"claim_idle_ms": 1.5}, {"group": b"g"}],
)
def test_wrong_types_are_refused(stream: str, options: dict[str, Any]) -> None:
    for function in (redis.read_stream, redis.iter_stream, redis.iter_stream_async):
        with pytest.raises(TypeError, match=next(iter(options))):
            function("redis://127.0.0.1:1", stream, **{**GROUP, **options})


def test_a_missing_group_is_made_from_the_first_entry_on(
    any_client: redis_py.Redis, any_server: Server, stream: str, warnings: Callable[[], list[str]]
) -> None:
    ids = add_numbered(any_client, stream, ["1-0", "2-0"])
    assert ids_of([redis.read_stream(any_server.url, stream, **GROUP)]) == [ids]
    assert ids_of(drain("sync", any_server.url, stream, group="h", consumer="a")) == [ids]
    assert warnings() == []


def test_a_missing_stream_is_made_too_and_the_frame_has_its_schema(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    df = redis.read_stream(any_server.url, stream, SCHEMA, **GROUP)
    assert df.is_empty()
    assert df.schema == {"_id": pl.String, "_ts": pl.Int64, "n": pl.Int64}
    assert [group["name"] for group in any_client.xinfo_groups(stream)] == [b"g"]


@both
def test_without_create_group_a_missing_group_is_an_error_that_says_so(
    any_client: redis_py.Redis, any_server: Server, stream: str, kind: str
) -> None:
    def read() -> None:
        with pytest.raises(ResponseError, match=r"NOGROUP .*'g'.*create_group=True") as error:
            redis.read_stream(any_server.url, stream, create_group=False, **GROUP)
        assert stream in str(error.value)
        with pytest.raises(ResponseError, match=r"NOGROUP .*create_group=True"):
            drain(kind, any_server.url, stream, create_group=False, **GROUP)

    read()
    assert not any_client.exists(stream)
    add_numbered(any_client, stream, ["1-0"])
    read()
    assert any_client.xinfo_groups(stream) == []


def test_a_group_that_is_there_is_left_where_it_is(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add_numbered(client, stream, ["1-0", "2-0"])
    client.xgroup_create(stream, "g", "$")
    assert redis.read_stream(redis_url, stream, **GROUP).is_empty()
    add_numbered(client, stream, ["3-0"])
    assert redis.read_stream(redis_url, stream, **GROUP)["_id"].to_list() == ["3-0"]


def test_a_key_that_is_no_stream(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    client.set(stream, "text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        redis.read_stream(redis_url, stream, **GROUP)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        drain("sync", redis_url, stream, **GROUP)
    assert client.get(stream) == b"text"


def test_names_of_any_characters(client: redis_py.Redis, redis_url: str) -> None:
    stream, names = "a stream\r\n\0é", {"group": "my group\r\n", "consumer": "{é} 🦀"}
    ids = add_numbered(client, stream, ["1-0"])
    assert ids_of([redis.read_stream(redis_url, stream, **names)]) == [ids]
    assert ids_of(drain("sync", redis_url, stream, **names)) == [ids]
    assert redis.ack_entries(redis_url, stream, names["group"], ids) == 1


def test_auto_ack_of_a_read(any_client: redis_py.Redis, any_server: Server, stream: str) -> None:
    ids = fill(any_client, stream, 5)
    df = redis.read_stream(any_server.url, stream, SCHEMA, count=3, auto_ack=True, **GROUP)
    assert df["_id"].to_list() == ids[:3]
    assert pending(any_client, stream) == {}
    take(any_client, stream, "b", 1, idle=STALE)
    df = redis.read_stream(any_server.url, stream, SCHEMA, auto_ack=True, **GROUP)
    assert df["_id"].to_list() == ids[3:]
    assert pending(any_client, stream) == {}


def test_a_read_takes_stale_entries_first(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = fill(any_client, stream, 8)
    take(any_client, stream, "c", 1)
    take(any_client, stream, "b", 2, idle=STALE)
    take(any_client, stream, "a", 2)
    take(any_client, stream, "a", 1, idle=STALE)
    df = redis.read_stream(any_server.url, stream, SCHEMA, count=1, **GROUP)
    assert df["_id"].to_list() == ids[1:2]
    df = redis.read_stream(any_server.url, stream, SCHEMA, **GROUP)
    # Its own that are stale are among them, as nobody else will ever read them.
    assert df["_id"].to_list() == [ids[2], ids[5], ids[6], ids[7]]
    assert [*pending(any_client, stream).values()] == list("caaaaaaa")


@pytest.mark.parametrize("claim_idle_ms", [None, 2 * STALE])
def test_a_read_that_claims_nothing(
    client: redis_py.Redis, redis_url: str, stream: str, claim_idle_ms: int | None
) -> None:
    ids = fill(client, stream, 4)
    take(client, stream, "b", 2, idle=STALE)
    options = {"claim_idle_ms": claim_idle_ms, **GROUP}
    assert ids_of([redis.read_stream(redis_url, stream, count=1, **options)]) == [ids[2:3]]
    assert ids_of(drain("sync", redis_url, stream, **options)) == [ids[2:]]
    assert [*pending(client, stream).values()] == list("bbaa")


def test_a_read_that_waits_for_the_first_entry(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    fill(any_client, stream, 2)
    take(any_client, stream, "b", 2)
    url = named(any_server.url, stream)
    for block_ms in (30_000, 0):
        found: list[pl.DataFrame] = []
        options = {"block_ms": block_ms, **GROUP}

        def read(options: dict[str, Any] = options, found: list[pl.DataFrame] = found) -> None:
            found.append(redis.read_stream(url, stream, SCHEMA, **options))

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: is_blocked(any_client, stream))
        added = any_client.xadd(stream, {"n": 7}).decode()
        reader.join()
        assert ids_of(found) == [[added]]
        assert pending(any_client, stream)[added] == "a"


def test_a_read_that_waits_in_vain(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    begun = time.monotonic()
    df = redis.read_stream(redis_url, stream, SCHEMA, block_ms=200, **GROUP)
    assert time.monotonic() - begun >= 0.19
    assert df.is_empty()
    assert df.columns == ["_id", "_ts", "n"]


# -- what an iterator delivers ------------------------------------------------


@both
@pytest.mark.parametrize("counted", [False, True])
def test_own_entries_then_stale_ones_then_new_ones(
    any_client: redis_py.Redis, any_server: Server, stream: str, kind: str, counted: bool
) -> None:
    fill(any_client, stream, 8)
    stale = take(any_client, stream, "b", 2, idle=STALE)
    theirs = take(any_client, stream, "c", 1)
    own = take(any_client, stream, "a", 2)
    options = {"batch_size": 2, "include_delivery_count": counted, **GROUP}
    batches = drain(kind, any_server.url, stream, **options)
    assert ids_of(batches) == [own, stale, ["6-0", "7-0"], ["8-0"]]
    expected = {**dict.fromkeys([*own, *stale, "6-0", "7-0", "8-0"], "a"), theirs[0]: "c"}
    assert pending(any_client, stream) == expected


def test_a_batch_is_filled_from_all_of_them(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    fill(any_client, stream, 7)
    stale = take(any_client, stream, "b", 2, idle=STALE)
    own = take(any_client, stream, "a", 3)
    batches = drain("sync", any_server.url, stream, batch_size=4, **GROUP)
    assert ids_of(batches) == [[*own, stale[0]], [stale[1], "6-0", "7-0"]]


@both
def test_never_more_is_taken_than_the_next_batch_holds(
    any_client: redis_py.Redis, any_server: Server, stream: str, kind: str
) -> None:
    ids = fill(any_client, stream, 16)
    stale = take(any_client, stream, "b", 5, idle=STALE)
    own = take(any_client, stream, "a", 2)
    expected = own + stale + ids[7:]
    handed: list[str] = []

    def check(df: pl.DataFrame) -> None:
        assert df.height <= 3
        handed.extend(df["_id"])
        assert handed == expected[: len(handed)]
        mine = {*own, *handed}
        assert {k for k, v in pending(any_client, stream).items() if v == "a"} == mine
        [group] = any_client.xinfo_groups(stream)
        last = max(int(entry_id.split("-")[0]) for entry_id in [ids[6], *handed])
        assert group["last-delivered-id"].decode() == f"{last}-0"

    options = {"batch_size": 3, "block_ms": None, **GROUP}
    if kind == "sync":
        with redis.iter_stream(any_server.url, stream, **options) as batches:
            for df in batches:
                check(df)
    else:

        async def iterate() -> None:
            async with redis.iter_stream_async(any_server.url, stream, **options) as batches:
                async for df in batches:
                    check(df)

        asyncio.run(iterate())
    assert len(handed) == 16


def test_nothing_is_taken_before_the_first_next(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = fill(client, stream, 3)
    with redis.iter_stream(redis_url, stream, batch_size=2, **GROUP) as batches:
        assert pending(client, stream) == {}
        assert next(batches)["_id"].to_list() == ids[:2]
    assert pending(client, stream) == dict.fromkeys(ids[:2], "a")


@both
def test_count_is_the_most_in_all(
    client: redis_py.Redis, redis_url: str, stream: str, kind: str
) -> None:
    ids = fill(client, stream, 10)
    take(client, stream, "a", 2)
    options = {"batch_size": 3, "count": 4, "block_ms": 1000, **GROUP}
    assert ids_of(drain(kind, redis_url, stream, **options)) == [ids[:3], ids[3:4]]
    assert list(pending(client, stream)) == ids[:4]


def test_batches_larger_than_a_page(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    ids = fill(client, stream, 5_500)
    own = take(client, stream, "a", 1_500)
    stale = take(client, stream, "b", 1_500, idle=STALE)
    batches = drain("sync", redis_url, stream, batch_size=2_500, **GROUP)
    assert [df.height for df in batches] == [2_500, 2_500, 500]
    assert flat(ids_of(batches)) == own + stale + ids[3_000:]


def test_stale_entries_are_looked_for_again_from_time_to_time(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    fill(any_client, stream, 1)
    options = {"claim_idle_ms": 1000, "block_ms": 30_000, "batch_size": 1, **GROUP}
    with redis.iter_stream(any_server.url, stream, **options) as batches:
        next(batches)
        for n in range(2, 5):
            any_client.xadd(stream, {"n": n}, f"{n}-0")
            stale = take(any_client, stream, "b", 1, idle=STALE)
            assert next(batches)["_id"].to_list() == stale
        assert batches.stats.claimed == 3


@pytest.mark.parametrize("claim_idle_ms", [0, 1])
def test_what_is_claimed_is_counted(
    client: redis_py.Redis, redis_url: str, stream: str, claim_idle_ms: int
) -> None:
    fill(client, stream, 4)
    take(client, stream, "a", 1, idle=STALE)
    take(client, stream, "b", 2, idle=STALE)
    options = {"claim_idle_ms": claim_idle_ms, "block_ms": None, **GROUP}
    with redis.iter_stream(redis_url, stream, **options) as batches:
        assert sum(df.height for df in batches) == 4
        assert batches.stats.claimed == 2


def test_entries_being_processed_do_not_come_again_to_the_same_iterator(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = fill(any_client, stream, 3)
    options = {"claim_idle_ms": 1, "block_ms": 30_000, **GROUP}
    with redis.iter_stream(any_server.url, stream, **options) as batches:
        assert next(batches)["_id"].to_list() == ids
        for n in range(4, 7):
            # That this one is claimed shows that stale entries were looked for again.
            any_client.xadd(stream, {"n": n}, f"{n}-0")
            stale = take(any_client, stream, "b", 1, idle=STALE)
            assert next(batches)["_id"].to_list() == stale
        deliveries = {row["times_delivered"] for row in details(any_client, stream)[:3]}
        assert deliveries == {1}


def test_a_consumer_that_died_is_succeeded_by_another_as_the_guide_says(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = fill(any_client, stream, 3)
    first = redis.iter_stream(any_server.url, stream, batch_size=2, **GROUP)
    assert next(first)["_id"].to_list() == ids[:2]
    del first
    options = {"group": "g", "consumer": "b", "claim_idle_ms": 50, "batch_size": 1}
    with redis.iter_stream(any_server.url, stream, count=3, block_ms=30_000, **options) as batches:
        found = [df["_id"].item() for df in batches]
    assert sorted(found) == ids
    assert pending(any_client, stream) == dict.fromkeys(ids, "b")


@both
def test_how_often_entries_were_delivered(
    any_client: redis_py.Redis, any_server: Server, stream: str, kind: str
) -> None:
    fill(any_client, stream, 3)
    url = any_server.url
    options = {"include_delivery_count": True, **GROUP}
    df = redis.read_stream(url, stream, SCHEMA, count=1, **options)
    assert df.schema == {
        "_id": pl.String,
        "_ts": pl.Int64,
        "_deliveries": pl.Int64,
        "n": pl.Int64,
    }
    take(any_client, stream, "b", 1, idle=STALE)
    for life in range(2, 5):
        df = pl.concat(drain(kind, url, stream, batch_size=1, **options))
        assert dict(df.select("_id", "_deliveries").iter_rows()) == {
            "1-0": life,
            "2-0": life,
            "3-0": life - 1,
        }
        counts = [row["times_delivered"] for row in details(any_client, stream)]
        assert counts == [life, life, life - 1]
    df = redis.read_stream(url, stream, None, "0", delivery_count_column="times", **options)
    assert df.columns == ["_id", "_ts", "times", "n"]
    assert df["times"].to_list() == [5, 5, 4]


def test_a_delivery_count_column_that_clashes(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add(client, stream, [("1-0", {"_deliveries": "3"})])
    options = {"include_delivery_count": True, **GROUP}
    with pytest.raises(ValueError, match="_deliveries"):
        redis.read_stream(redis_url, stream, {"_deliveries": int}, **options)
    with pytest.raises(DecodeError, match="_deliveries"):
        redis.read_stream(redis_url, stream, **options)


# -- acknowledgement ----------------------------------------------------------


def test_ack_of_the_last_batch_and_of_a_frame(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = fill(any_client, stream, 6)
    with redis.iter_stream(any_server.url, stream, SCHEMA, 3, None, **GROUP) as batches:
        assert batches.ack() == 0
        df = next(batches)
        assert batches.ack(df.filter(pl.col("n") == 1)) == 1
        assert list(pending(any_client, stream)) == [ids[0], ids[2]]
        assert batches.ack() == 2
        assert batches.ack() == 0
        later = next(batches)
        assert batches.ack(later.clear()) == 0
        assert list(pending(any_client, stream)) == ids[3:]
        assert batches.ack(pl.concat([df, later])) == 3
        assert batches.stats.entries == 6
    assert pending(any_client, stream) == {}


def test_ack_after_the_end_and_after_close(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    fill(client, stream, 3)
    with redis.iter_stream(redis_url, stream, batch_size=2, block_ms=None, **GROUP) as batches:
        assert [df.height for df in batches] == [2, 1]
        assert batches.ack() == 1
    with redis.iter_stream(redis_url, stream, batch_size=2, block_ms=None, **GROUP) as batches:
        next(batches)
    assert batches.ack() == 2


def test_ack_with_other_id_columns(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    fill(client, stream, 4)
    with redis.iter_stream(redis_url, stream, batch_size=2, id_column="key", **GROUP) as batches:
        assert batches.ack(next(batches)) == 2
    with redis.iter_stream(redis_url, stream, include_id=False, block_ms=None, **GROUP) as batches:
        df = next(batches)
        assert df.columns == ["_ts", "n"]
        with pytest.raises(ValueError, match="include_id"):
            batches.ack(df)
        assert batches.ack() == 2


def test_what_ack_refuses(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    fill(client, stream, 2)
    with redis.iter_stream(redis_url, stream, block_ms=None) as batches:
        next(batches)
        with pytest.raises(ValueError, match="group"):
            batches.ack()
    with redis.iter_stream(redis_url, stream, block_ms=None, **GROUP) as batches:
        df = next(batches)
        with pytest.raises(ValueError, match="_id"):
            batches.ack(df.drop("_id"))
        with pytest.raises(ValueError, match="at 1"):
            batches.ack(df.with_columns(_id=pl.Series(["1-0", None])))
    assert len(pending(client, stream)) == 2


def test_ack_of_the_async_iterator(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    ids = fill(client, stream, 6)

    async def work() -> None:
        options = {"batch_size": 3, "block_ms": None, **GROUP}
        async with redis.iter_stream_async(redis_url, stream, SCHEMA, **options) as batches:
            assert await batches.ack() == 0
            df = await batches.__anext__()
            assert await batches.ack(df.filter(pl.col("n") == 1)) == 1
            assert await batches.ack() == 2
            await batches.__anext__()
        assert list(pending(client, stream)) == ids[3:]
        assert await batches.ack() == 3
        position = redis.iter_stream_async(redis_url, stream)
        with pytest.raises(ValueError, match="group"):
            await position.ack()
        await position.aclose()

    asyncio.run(work())
    assert pending(client, stream) == {}


@both
def test_auto_ack_acknowledges_each_batch_before_it_is_handed_over(
    any_client: redis_py.Redis, any_server: Server, stream: str, kind: str
) -> None:
    ids = fill(any_client, stream, 9)
    take(any_client, stream, "b", 2, idle=STALE)
    own = take(any_client, stream, "a", 2)
    options = {"batch_size": 2, "block_ms": None, "auto_ack": True, **GROUP}
    if kind == "async":
        batches = drain(kind, any_server.url, stream, **options)
        assert ids_of(batches) == [own, ids[:2], ids[4:6], ids[6:8], ids[8:]]
    else:
        frames = [own, ids[:2], ids[4:6], ids[6:8], ids[8:]]
        left = [ids[:2], [], [], [], []]
        with redis.iter_stream(any_server.url, stream, **options) as batches:
            for df, frame, expected in zip(batches, frames, left, strict=True):
                assert df["_id"].to_list() == frame
                assert list(pending(any_client, stream)) == expected
            assert batches.ack() == 0
    assert pending(any_client, stream) == {}


# -- entries that cannot be decoded -------------------------------------------

BAD = [(f"{n}-0", {"n": "x" if n == 3 else str(n)}) for n in range(1, 6)]


@pytest.mark.parametrize("auto_ack", [False, True])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("state", ["new", "own", "stale"])
def test_an_entry_that_cannot_be_decoded(
    any_client: redis_py.Redis,
    any_server: Server,
    stream: str,
    auto_ack: bool,
    counted: bool,
    state: str,
) -> None:
    ids = add(any_client, stream, BAD)
    any_client.xgroup_create(stream, "g", "0")
    if state != "new":
        take(any_client, stream, "a" if state == "own" else "b", 5, idle=STALE)
    options = {"include_delivery_count": counted, "auto_ack": auto_ack, "block_ms": None, **GROUP}
    with redis.iter_stream(any_server.url, stream, SCHEMA, **options) as batches:
        assert next(batches)["_id"].to_list() == ids[:2]
        assert batches.last_id == ids[1]
        for _ in range(3):
            with pytest.raises(DecodeError, match='got "x"') as error:
                next(batches)
            assert (error.value.entry_id, error.value.field) == (ids[2], "n")
            kept = pending(any_client, stream)
            assert list(kept) == (ids[2:] if auto_ack else ids)
            assert batches.last_id == ids[1]
        assert batches.ack() == (0 if auto_ack else 2)
        # Somebody puts it aside.
        assert redis.ack_entries(any_server.url, stream, "g", [ids[2]]) == 1
        assert next(batches)["_id"].to_list() == ids[3:]
        assert list(pending(any_client, stream)) == ([] if auto_ack else ids[3:])
        with pytest.raises(StopIteration):
            next(batches)


def test_an_entry_that_cannot_be_decoded_and_is_then_deleted(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = add(any_client, stream, BAD)
    with redis.iter_stream(any_server.url, stream, SCHEMA, block_ms=None, **GROUP) as batches:
        next(batches)
        with pytest.raises(DecodeError):
            next(batches)
        any_client.xdel(stream, ids[2])
        assert next(batches)["_id"].to_list() == ids[3:]


@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_read_that_cannot_be_decoded_gives_and_acknowledges_nothing(
    any_client: redis_py.Redis, any_server: Server, stream: str, auto_ack: bool
) -> None:
    ids = add(any_client, stream, BAD)
    with pytest.raises(DecodeError) as error:
        redis.read_stream(any_server.url, stream, SCHEMA, auto_ack=auto_ack, **GROUP)
    assert error.value.entry_id == ids[2]
    assert list(pending(any_client, stream)) == ids
    options = {"strict": False, "auto_ack": auto_ack, **GROUP}
    df = redis.read_stream(any_server.url, stream, SCHEMA, "0", **options)
    assert df["n"].to_list() == [1, 2, None, 4, 5]
    assert list(pending(any_client, stream)) == ([] if auto_ack else ids)


def test_decode_errors_of_the_async_iterator(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = add(client, stream, BAD)

    async def work() -> None:
        options = {"block_ms": None, "auto_ack": True, **GROUP}
        async with redis.iter_stream_async(redis_url, stream, SCHEMA, **options) as batches:
            assert (await batches.__anext__())["_id"].to_list() == ids[:2]
            for _ in range(3):
                with pytest.raises(DecodeError):
                    await batches.__anext__()
                assert list(pending(client, stream)) == ids[2:]
            client.xack(stream, "g", ids[2])
            assert (await batches.__anext__())["_id"].to_list() == ids[3:]

    asyncio.run(work())


# -- dead letters -------------------------------------------------------------

BINARY = [b"blob", b"\x00\xff\r\n", b"n", b"1", b"n", b"2", b"\xff", b"", b"_id", b"mine"]


def test_entries_delivered_too_often_go_to_the_dead_letters(
    any_client: redis_py.Redis, any_server: Server, stream: str, warnings: Callable[[], list[str]]
) -> None:
    add(
        any_client, stream, [("1-0", BINARY), ("2-0", BINARY), ("3-0", {"n": 3}), ("4-0", {"n": 4})]
    )
    any_client.xgroup_create(stream, "g", "0")
    take(any_client, stream, "a", 1)
    take(any_client, stream, "b", 2, idle=STALE)
    dead = f"{stream}:dead"
    options = {"max_deliveries": 2, "dead_letter": dead, "include_delivery_count": True, **GROUP}
    df = pl.concat(drain("sync", any_server.url, stream, {"n": pl.String}, **options))
    assert df.rows() == [
        ("1-0", 1, 2, "2"),
        ("2-0", 2, 2, "2"),
        ("3-0", 3, 2, "3"),
        ("4-0", 4, 1, "4"),
    ]
    any_client.xclaim(stream, "g", "b", 0, ["2-0"], idle=STALE, justid=True)
    df = pl.concat(drain("sync", any_server.url, stream, {"n": pl.String}, **options))
    assert df.rows() == [("4-0", 4, 2, "4")]
    letters = sorted(raw_fields(any_client, dead), key=lambda fields: fields[3])
    before = [b"_stream", stream.encode(), b"_id", None, b"_group", b"g", b"_consumer", None]
    before += [b"_deliveries", b"2"]
    for found, entry_id, consumer, own in zip(
        letters,
        [b"1-0", b"2-0", b"3-0"],
        [b"a", b"b", b"a"],
        [BINARY, BINARY, [b"n", b"3"]],
        strict=True,
    ):
        expected = list(before)
        expected[3], expected[7] = entry_id, consumer
        assert found == expected + own
    assert list(pending(any_client, stream)) == ["4-0"]
    told = [text for text in warnings() if dead in text]
    assert len(told) == 3
    # They stay in the stream that they came from.
    assert any_client.xlen(stream) == 4


def raw_fields(client: redis_py.Redis, stream: str) -> list[list[bytes]]:
    """Names and values of each entry in their order, where a client would make a dict of them."""
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    return [fields for _, fields in client.eval(script, 1, stream)]


@both
def test_a_poison_entry_ends_in_the_dead_letters_and_nothing_else_does(
    any_client: redis_py.Redis, any_server: Server, stream: str, kind: str
) -> None:
    ids = add(any_client, stream, BAD)
    dead = f"{stream}:dead"
    options = {"max_deliveries": 3, "dead_letter": dead, **GROUP}
    found: list[str] = []
    failed: list[str] = []

    def life() -> None:
        with redis.iter_stream(any_server.url, stream, SCHEMA, 10, None, **options) as batches:
            for df in batches:
                found.extend(df["_id"])
                batches.ack()

    async def life_async() -> None:
        async with redis.iter_stream_async(
            any_server.url, stream, SCHEMA, 10, None, **options
        ) as batches:
            async for df in batches:
                found.extend(df["_id"])
                await batches.ack()

    while True:
        try:
            life() if kind == "sync" else asyncio.run(life_async())
            break
        except DecodeError as error:
            failed.append(error.entry_id)
            if len(failed) > 10:
                raise
    assert failed == [ids[2]] * 3
    assert pending(any_client, stream) == {}
    letters = any_client.xrange(dead)
    assert [fields[b"_id"] for _, fields in letters] == [b"3-0"]
    assert sorted(found) == [ids[0], ids[1], ids[3], ids[4]]


def test_a_poison_entry_in_one_life_of_an_iterator(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = add(any_client, stream, BAD)
    dead = f"{stream}:dead"
    options = {"max_deliveries": 3, "dead_letter": dead, **GROUP}
    found: list[str] = []
    with redis.iter_stream(any_server.url, stream, SCHEMA, 10, None, **options) as batches:
        for _ in range(20):
            try:
                df = next(batches)
            except DecodeError:
                continue
            except StopIteration:
                break
            found.extend(df["_id"])
            batches.ack()
    assert [fields[b"_id"] for _, fields in any_client.xrange(dead)] == [b"3-0"]
    assert found == [ids[0], ids[1], ids[3], ids[4]]
    assert pending(any_client, stream) == {}


def test_dead_letters_under_a_key_of_another_type_lose_nothing(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    fill(any_client, stream, 3)
    own = take(any_client, stream, "a", 1)
    stale = take(any_client, stream, "b", 1, idle=STALE)
    dead = f"{stream}:dead"
    any_client.set(dead, "text")
    options = {"max_deliveries": 1, "dead_letter": dead, "block_ms": None, **GROUP}
    with redis.iter_stream(any_server.url, stream, **options) as batches:
        for _ in range(3):
            with pytest.raises(ResponseError, match=f"{dead}.*WRONGTYPE"):
                next(batches)
            assert list(pending(any_client, stream)) == [*own, *stale]
        assert any_client.get(dead) == b"text"
        any_client.delete(dead)
        assert next(batches)["_id"].to_list() == ["3-0"]
    letters = [fields for _, fields in any_client.xrange(dead)]
    # The claim that came before the error is not taken for the one who had it.
    assert sorted((fields[b"_id"], fields[b"_consumer"]) for fields in letters) == [
        (own[0].encode(), b"a"),
        (stale[0].encode(), b"b"),
    ]
    assert list(pending(any_client, stream)) == ["3-0"]


def test_a_dead_entry_that_was_deleted_is_only_acknowledged(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    fill(any_client, stream, 3)
    take(any_client, stream, "a", 1)
    take(any_client, stream, "b", 1, idle=STALE)
    any_client.xdel(stream, "1-0", "2-0")
    dead = f"{stream}:dead"
    options = {"max_deliveries": 1, "dead_letter": dead, **GROUP}
    assert ids_of(drain("sync", any_server.url, stream, **options)) == [["3-0"]]
    assert any_client.xlen(dead) == 0
    assert list(pending(any_client, stream)) == ["3-0"]


# -- entries that go away -----------------------------------------------------


@both
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("how", ["XDEL", "XTRIM"])
@pytest.mark.parametrize("consumer", ["a", "b"])
def test_entries_that_were_deleted_while_pending(
    any_client: redis_py.Redis,
    any_server: Server,
    stream: str,
    kind: str,
    counted: bool,
    how: str,
    consumer: str,
) -> None:
    ids = fill(any_client, stream, 6)
    take(any_client, stream, consumer, 4, idle=STALE)
    if how == "XDEL":
        any_client.xdel(stream, "2-0", "3-0")
        left = [ids[0], *ids[3:]]
    else:
        any_client.xtrim(stream, maxlen=3, approximate=False)
        left = ids[3:]
    options = {"include_delivery_count": counted, "auto_ack": True, **GROUP}
    assert ids_of(drain(kind, any_server.url, stream, **options)) == [left]
    assert pending(any_client, stream) == {}


@pytest.mark.parametrize("counted", [False, True])
def test_all_pending_entries_were_deleted(
    any_client: redis_py.Redis, any_server: Server, stream: str, counted: bool
) -> None:
    fill(any_client, stream, 4)
    take(any_client, stream, "b", 2, idle=STALE)
    take(any_client, stream, "a", 2)
    any_client.xtrim(stream, maxlen=0, approximate=False)
    options = {"include_delivery_count": counted, **GROUP}
    assert drain("sync", any_server.url, stream, **options) == []
    assert redis.read_stream(any_server.url, stream, **options).is_empty()
    any_client.xadd(stream, {"n": 5}, "5-0")
    assert ids_of(drain("sync", any_server.url, stream, **options)) == [["5-0"]]


def test_ack_of_a_batch_acknowledges_what_was_found_deleted(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    fill(any_client, stream, 3)
    take(any_client, stream, "a", 3)
    any_client.xdel(stream, "2-0")
    with redis.iter_stream(any_server.url, stream, block_ms=None, **GROUP) as batches:
        assert next(batches)["_id"].to_list() == ["1-0", "3-0"]
        batches.ack()
    assert pending(any_client, stream) == {}


# -- groups that go away ------------------------------------------------------


def vanish(client: redis_py.Redis, stream: str, how: str) -> None:
    if how == "FLUSHALL":
        client.flushall()
    elif how == "DEL":
        client.delete(stream)
    else:
        client.xgroup_destroy(stream, "g")


vanishing = pytest.mark.parametrize("how", ["FLUSHALL", "DEL", "XGROUP DESTROY"])


@vanishing
def test_a_group_that_vanishes_is_made_again(
    any_client: redis_py.Redis,
    any_server: Server,
    stream: str,
    how: str,
    warnings: Callable[[], list[str]],
) -> None:
    ids = fill(any_client, stream, 4)
    with redis.iter_stream(any_server.url, stream, batch_size=2, **GROUP) as batches:
        assert next(batches)["_id"].to_list() == ids[:2]
        assert batches.ack() == 2
        vanish(any_client, stream, how)
        any_client.xadd(stream, {"n": 9}, "9-0")
        expected = [*ids, "9-0"] if how == "XGROUP DESTROY" else ["9-0"]
        found: list[str] = []
        while len(found) < len(expected):
            found.extend(next(batches)["_id"])
    assert found == expected
    assert list(pending(any_client, stream)) == expected
    [told] = warnings()
    assert "'g'" in told or '"g"' in told
    assert stream in told


@both
@vanishing
def test_a_group_that_vanishes_while_an_iterator_waits(
    any_client: redis_py.Redis,
    any_server: Server,
    stream: str,
    kind: str,
    how: str,
    warnings: Callable[[], list[str]],
) -> None:
    fill(any_client, stream, 1)
    found: list[pl.DataFrame] = []
    options = {"count": 2, "batch_size": 1, "block_ms": 300, "auto_ack": True, **GROUP}
    expected = ["1-0"] if how == "XGROUP DESTROY" else ["9-0"]

    def work() -> None:
        found.extend(drain(kind, named(any_server.url, stream), stream, **options))

    worker = threading.Thread(target=work)
    worker.start()
    wait_until(lambda: is_blocked(any_client, stream))
    vanish(any_client, stream, how)
    # The server may let it wait for the round's rest; then the group is made again.
    if how == "XGROUP DESTROY":
        wait_until(lambda: any_client.xinfo_groups(stream))
    else:
        wait_until(lambda: any_client.exists(stream))
        any_client.xadd(stream, {"n": 9}, "9-0")
    worker.join()
    assert ids_of(found)[1] == expected
    assert len(warnings()) == 1


@both
@vanishing
def test_without_create_group_a_group_that_vanishes_is_an_error(
    any_client: redis_py.Redis,
    any_server: Server,
    stream: str,
    kind: str,
    how: str,
    warnings: Callable[[], list[str]],
) -> None:
    fill(any_client, stream, 1)
    errors: list[BaseException] = []
    options = {"block_ms": 300, "create_group": False, **GROUP}

    def work() -> None:
        with pytest.raises(ResponseError, match="create_group=True") as error:
            drain(kind, named(any_server.url, stream), stream, **options)
        errors.append(error.value)

    worker = threading.Thread(target=work)
    worker.start()
    wait_until(lambda: is_blocked(any_client, stream))
    vanish(any_client, stream, how)
    worker.join()
    assert len(errors) == 1
    assert not any_client.exists(stream) or any_client.xinfo_groups(stream) == []
    assert warnings() == []


def test_a_group_that_vanished_and_came_back_by_other_hands(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = fill(any_client, stream, 3)
    with redis.iter_stream(any_server.url, stream, batch_size=2, block_ms=None, **GROUP) as batches:
        assert next(batches)["_id"].to_list() == ids[:2]
        any_client.flushall()
        ids = fill(any_client, stream, 3)
        assert next(batches)["_id"].to_list() == ids[:2]
        assert next(batches)["_id"].to_list() == ids[2:]
    assert list(pending(any_client, stream)) == ids


# -- users who may do little --------------------------------------------------


def test_a_user_who_may_not_claim(
    any_server: Server,
    make_server: Callable[..., Server],
    stream: str,
    warnings: Callable[[], list[str]],
) -> None:
    acl = ["worker on >secret ~* +xreadgroup +xack +xgroup"]
    server = make_server(any_server.binary, acl=acl)
    client = server.client()
    url = server.url_for("worker", "secret")
    ids = fill(client, stream, 8)
    stale = take(client, stream, "b", 2, idle=STALE)
    own = take(client, stream, "a", 1)
    # Every 100 ms it would look for stale entries.
    options = {"batch_size": 2, "count": 6, "claim_idle_ms": 1, **GROUP}
    with redis.iter_stream(url, stream, **options) as batches:
        for df in batches:
            assert batches.ack(df) == df.height
        assert batches.stats.entries == 6
    assert list(pending(client, stream)) == stale
    assert own[0] == ids[2]
    [told] = warnings()
    assert "XPENDING" in told
    assert "secret" not in told
    add_numbered(client, stream, ["20-0"])
    df = redis.read_stream(url, stream, auto_ack=True, **GROUP)
    assert df["_id"].to_list() == ["20-0"]
    assert len(warnings()) == 2


def test_a_user_who_may_see_but_not_claim(
    any_server: Server,
    make_server: Callable[..., Server],
    stream: str,
    warnings: Callable[[], list[str]],
) -> None:
    acl = ["worker on >secret ~* +xreadgroup +xack +xgroup +xpending"]
    server = make_server(any_server.binary, acl=acl)
    client = server.client()
    fill(client, stream, 4)
    stale = take(client, stream, "b", 2, idle=STALE)
    url = server.url_for("worker", "secret")
    batches = drain("sync", url, stream, auto_ack=True, **GROUP)
    assert ids_of(batches) == [["3-0", "4-0"]]
    assert list(pending(client, stream)) == stale
    assert len(warnings()) == 1


def test_a_user_who_may_not_make_groups(make_server: Callable[..., Server], stream: str) -> None:
    server = make_server(acl=["worker on >secret ~* +xreadgroup +xack"])
    client = server.client()
    url = server.url_for("worker", "secret")
    with pytest.raises(ResponseError, match="NOPERM"):
        redis.read_stream(url, stream, **GROUP)
    fill(client, stream, 1)
    assert redis.read_stream(url, stream, claim_idle_ms=None, **GROUP).height == 1


# -- odds and ends ------------------------------------------------------------


def test_the_first_entry_ends_a_wait_at_once(
    client: redis_py.Redis, server: Server, stream: str
) -> None:
    client.xgroup_create(stream, "g", "0", mkstream=True)
    url = named(server.url, stream)
    with redis.iter_stream(url, stream, block_ms=60_000, count=20, **GROUP) as batches:
        found: list[pl.DataFrame] = []
        worker = threading.Thread(target=lambda: found.extend(batches))
        worker.start()
        for n in range(20):
            wait_until(lambda: is_blocked(client, stream))
            client.xadd(stream, {"n": n}, f"{n + 1}-0")
            wait_until(lambda expected=n + 1: batches.stats.entries == expected)
        worker.join()
    assert flat(ids_of(found)) == [f"{n + 1}-0" for n in range(20)]


def test_linger_waits_for_a_fuller_batch(
    client: redis_py.Redis, server: Server, stream: str
) -> None:
    fill(client, stream, 1)
    options = {"batch_size": 3, "count": 3, "linger_ms": 60_000, **GROUP}
    with redis.iter_stream(named(server.url, stream), stream, **options) as batches:
        found: list[pl.DataFrame] = []
        worker = threading.Thread(target=lambda: found.extend(batches))
        worker.start()
        for n in (2, 3):
            wait_until(lambda: is_blocked(client, stream))
            client.xadd(stream, {"n": n}, f"{n}-0")
        worker.join()
    assert ids_of(found) == [["1-0", "2-0", "3-0"]]


def test_two_consumers_share_a_stream(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    ids = fill(client, stream, 10)
    options = {"group": "g", "batch_size": 2, "block_ms": None}
    with (
        redis.iter_stream(redis_url, stream, consumer="a", **options) as one,
        redis.iter_stream(redis_url, stream, consumer="b", **options) as other,
    ):
        mine, theirs = next(one)["_id"].to_list(), next(other)["_id"].to_list()
        mine += next(one)["_id"].to_list()
        theirs += flat(ids_of(list(other)))
        assert list(one) == []
    assert sorted(mine + theirs, key=ids.index) == ids
    assert pending(client, stream) == {
        **dict.fromkeys(mine, "a"),
        **dict.fromkeys(theirs, "b"),
    }


def test_stale_entries_go_to_one_of_many_who_claim_them(
    any_client: redis_py.Redis, any_server: Server, stream: str
) -> None:
    ids = fill(any_client, stream, 300)
    take(any_client, stream, "dead", 300, idle=STALE)

    def work(consumer: str) -> list[str]:
        options = {"group": "g", "consumer": consumer, "batch_size": 5}
        return flat(ids_of(drain("sync", any_server.url, stream, **options)))

    with ThreadPoolExecutor(6) as pool:
        found = flat(list(pool.map(work, "abcdef")))
    assert sorted(found, key=ids.index) == ids
    assert "dead" not in pending(any_client, stream).values()


def test_two_groups_each_get_everything(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = fill(client, stream, 5)
    for group in ("g", "h"):
        batches = drain("sync", redis_url, stream, group=group, consumer="a", auto_ack=True)
        assert ids_of(batches) == [ids]


@pytest.mark.parametrize(
    "frame", [["1-0"], "1-0", pl.Series(["1-0"]), pl.LazyFrame({"_id": ["1-0"]})]
)
def test_only_a_frame_can_be_acknowledged(redis_url: str, stream: str, frame: Any) -> None:
    batches = redis.iter_stream(redis_url, stream, group="g", consumer="a")
    with pytest.raises(TypeError, match="ack: expected a DataFrame, got"):
        batches.ack(frame)
    with pytest.raises(ValueError, match='ack: the frame has no column "_id"'):
        batches.ack(pl.DataFrame({"n": [1]}))
