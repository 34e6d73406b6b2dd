"""Iterators over several streams: each stream's entries once and in order, whatever happens."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polars_redis
from polars_redis.exceptions import DecodeError, ResponseError
from support.iterators import (
    KINDS,
    is_blocked,
    iterating,
    meanwhile,
    named,
    once_blocked,
    rows_in_a_storm,
    wait_until,
)
from support.proxy import Fault, Proxy
from support.streams import add, add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import redis as redis_py

    from support.servers import Server

SCHEMA = {"n": pl.Int64}


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`iter_stream`, and then `iter_stream_async`, as a plain iterator."""
    with iterating(request.param) as make:
        yield make


@pytest.fixture
def keys(stream: str) -> list[str]:
    """Keys of three streams that nobody has used."""
    return [f"{stream}:{name}" for name in "abc"]


def numbers(first: int, last: int) -> list[str]:
    return [f"{n}-0" for n in range(first, last + 1)]


def by_key(frames: Iterable[pl.DataFrame]) -> dict[str, list[str]]:
    """Give the IDs of each stream, in the order in which they came."""
    found: dict[str, list[str]] = defaultdict(list)
    for df in frames:
        for key, entry_id in zip(df["_key"], df["_id"], strict=True):
            found[key].append(entry_id)
    return dict(found)


def fill(client: redis_py.Redis, keys: list[str], entries: int) -> dict[str, list[str]]:
    return {key: add_numbered(client, key, numbers(1, entries)) for key in keys}


def pending(client: redis_py.Redis, keys: list[str], group: str = "g") -> dict[str, int]:
    return {key: client.xpending(key, group)["pending"] for key in keys}  # type: ignore[index]


# -- what comes, and in which columns ------------------------------------------


def test_entries_of_all_streams_with_their_keys(
    any_server: Server, any_client: redis_py.Redis, keys: list[str], iterate: Callable[..., Any]
) -> None:
    expected = fill(any_client, keys, 250)
    frames = iterate(any_server.url, keys, SCHEMA, 100, block_ms=None)
    found = list(frames)
    assert by_key(found) == expected
    assert [df.height for df in found] == [100] * 7 + [50]
    assert found[0].schema == {
        "_key": pl.String,
        "_id": pl.String,
        "_ts": pl.Int64,
        "n": pl.Int64,
    }
    assert frames.stats.entries == 750
    assert frames.last_ids == dict.fromkeys(keys, "250-0")
    assert frames.last_id == "250-0"


def test_a_group_delivers_the_entries_of_all_streams(
    any_server: Server, any_client: redis_py.Redis, keys: list[str], iterate: Callable[..., Any]
) -> None:
    expected = fill(any_client, keys, 250)
    options: dict[str, Any] = {"group": "g", "consumer": "c", "block_ms": None}
    found = list(iterate(any_server.url, keys, SCHEMA, 100, **options))
    assert by_key(found) == expected
    assert pending(any_client, keys) == dict.fromkeys(keys, 250)
    # What was not acknowledged comes again, then what is new.
    for key in keys:
        expected[key] += add_numbered(any_client, key, numbers(251, 260))
    again = list(iterate(any_server.url, keys, SCHEMA, 100, auto_ack=True, **options))
    assert by_key(again) == expected
    assert pending(any_client, keys) == dict.fromkeys(keys, 0)


def test_a_list_of_one_stream_is_a_list(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    ids = add_numbered(client, stream, numbers(1, 3))
    for listed in ([stream], (stream,), iter([stream])):
        frame = next(iterate(redis_url, listed))
        assert by_key([frame]) == {stream: ids}
    one = iterate(redis_url, stream, include_key=True, key_column_name="k")
    assert next(one).columns == ["_id", "_ts", "n"]
    assert one.last_ids == {stream: "3-0"}


def test_the_column_of_keys_is_named_or_left_out(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    fill(client, keys, 1)
    frame = next(iterate(redis_url, keys, key_column_name="where"))
    assert frame.columns == ["where", "_id", "_ts", "n"]
    frame = next(iterate(redis_url, keys, include_key=False))
    assert frame.columns == ["_id", "_ts", "n"]
    # The name is free where there is no such column.
    add(client, keys[0], [("9-0", {"_key": "x"})])
    frame = next(iterate(redis_url, keys[0], {"_key": pl.String}, start_id=9))
    assert frame["_key"].to_list() == ["x"]


@pytest.mark.parametrize(
    ("stream", "options", "error", "text"),
    [
        ([], {}, ValueError, "no streams"),
        (["a", "b", "a"], {}, ValueError, '"a" is in the list twice'),
        (["a", 5], {}, TypeError, "stream: at 1: expected str, got int"),
        (b"a", {}, TypeError, "expected str or a list of str, got bytes"),
        (5, {}, TypeError, "expected str or a list of str, got int"),
        (["a"], {"start_id": {"b": "-"}}, ValueError, "'b' is not in the list"),
        (["a"], {"start_id": {"a": "x"}}, ValueError, "start_id"),
        ("a", {"start_id": {"a": "-"}}, TypeError, "start_id"),
        (["a"], {"include_key": 1}, TypeError, "include_key"),
        (["a"], {"schema": {"_key": pl.String}}, ValueError, "key_column_name"),
        (
            ["a", "b"],
            {"group": "g", "consumer": "c", "max_deliveries": 1, "dead_letter": "b"},
            ValueError,
            "dead_letter",
        ),
    ],
)
def test_wrong_arguments(stream: Any, options: Any, error: type[Exception], text: str) -> None:
    for make in (polars_redis.iter_stream, polars_redis.iter_stream_async):
        with pytest.raises(error, match=text):
            make("redis://nobody.invalid", stream, **options)


def test_its_repr_names_a_few_streams() -> None:
    url = "redis://:secret@nobody.invalid"
    few = repr(polars_redis.iter_stream(url, ["a", "b"]))
    assert '["a", "b"]' in few
    many = repr(polars_redis.iter_stream(url, [f"s{n}" for n in range(1000)]))
    assert '"s2", ... 997 more' in many
    assert "secret" not in few + many


# -- where it begins and ends --------------------------------------------------


def test_to_go_on_where_another_iterator_was(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    expected = fill(client, keys, 50)
    first = iterate(redis_url, keys, SCHEMA, 37, count=74)
    begun = list(first)
    assert sum(df.height for df in begun) == 74
    start = {key: f"({last}" for key, last in first.last_ids.items()}
    rest = list(iterate(redis_url, keys, SCHEMA, block_ms=None, start_id=start))
    assert by_key([*begun, *rest]) == expected


def test_after_what_was_last_when_it_was_opened(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    fill(client, keys[:2], 5)
    with iterate(redis_url, keys, start_id="$", count=3) as frames:
        for key in keys:
            add_numbered(client, key, ["6-0"])
        assert by_key(frames) == {key: ["6-0"] for key in keys}


def test_it_ends_when_all_streams_have_passed_the_end(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    fill(client, keys, 9)
    client.xadd(keys[0], {"n": "beyond"}, id="20-0")
    client.xadd(keys[1], {"n": 0}, id="10-0")
    client.xdel(keys[2], "9-0")
    client.xadd(keys[2], {"n": 0}, id="15-0")
    client.xdel(keys[2], "15-0")
    frames = iterate(redis_url, keys, SCHEMA, block_ms=5, end_id="10-0")
    assert by_key(frames) == {
        keys[0]: numbers(1, 9),
        keys[1]: numbers(1, 10),
        keys[2]: numbers(1, 8),
    }


@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_it_reads_no_more_than_the_count(
    client: redis_py.Redis, redis_url: str, keys: list[str], options: Any, iterate: Any
) -> None:
    fill(client, keys, 20)
    found = list(iterate(redis_url, keys, SCHEMA, 4, count=10, **options))
    assert [df.height for df in found] == [4, 4, 2]
    if options:
        assert sum(pending(client, keys).values()) == 10


def test_a_group_of_more_streams_than_the_count_takes_no_more(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    keys = [f"{stream}:{n}" for n in range(20)]
    options: dict[str, Any] = {"group": "g", "consumer": "c", "create_group": True}
    list(iterate(redis_url, keys, block_ms=None, **options))
    frames = iterate(named(redis_url, stream), keys, SCHEMA, block_ms=1000, count=3, **options)
    with once_blocked(client, stream, lambda: fill(client, keys, 2)):
        found = list(frames)
    assert sum(df.height for df in found) == 3
    assert sum(pending(client, keys).values()) == 3


@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_streams_that_are_created_and_deleted_meanwhile(
    client: redis_py.Redis, redis_url: str, keys: list[str], options: Any, iterate: Any
) -> None:
    fill(client, keys[:1], 3)
    frames = iterate(named(redis_url, keys[0]), keys, SCHEMA, block_ms=1000, **options)
    assert by_key([next(frames)]) == {keys[0]: numbers(1, 3)}
    with once_blocked(client, keys[0], lambda: add_numbered(client, keys[2], ["7-0"])):
        assert by_key([next(frames)]) == {keys[2]: ["7-0"]}
    client.delete(keys[0])
    with once_blocked(client, keys[0], lambda: add_numbered(client, keys[1], ["8-0"])):
        assert by_key([next(frames)]) == {keys[1]: ["8-0"]}
    with once_blocked(client, keys[0], lambda: add_numbered(client, keys[0], ["9-0"])):
        assert by_key([next(frames)]) == {keys[0]: ["9-0"]}


def test_it_waits_longer_for_a_fuller_batch(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    frames = iterate(named(redis_url, keys[0]), keys, batch_size=3, linger_ms=60_000)

    def trickle() -> None:
        for key in keys:
            wait_until(lambda: is_blocked(client, keys[0]))
            add_numbered(client, key, ["1-0"])

    with once_blocked(client, keys[0], trickle):
        assert by_key([next(frames)]) == {key: ["1-0"] for key in keys}


# -- fair, and many ------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_a_long_backlog_does_not_starve_the_others(
    client: redis_py.Redis, redis_url: str, stream: str, options: Any, iterate: Any
) -> None:
    keys = [f"{stream}:{n}" for n in range(30)]
    busy = keys[7]
    add_numbered(client, busy, numbers(1, 30_000))
    frames = iterate(redis_url, keys, SCHEMA, 100, **options)
    for _ in range(30):
        next(frames)
    others = [key for key in keys if key != busy]
    fill(client, others, 2)
    seen: dict[str, list[str]] = {}
    rows = 0
    while len(seen) < len(others) or rows < 2 * len(others):
        df = next(frames)
        assert df.height == 100
        new = by_key([df.filter(pl.col("_key") != busy)])
        rows += sum(map(len, new.values()))
        seen |= new
    # What was read ahead comes first, but it is far from all.
    assert frames.stats.entries < 12_000


@pytest.mark.parametrize("batch_size", [10, 100, 5000])
@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_a_thousand_streams(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    batch_size: int,
    options: Any,
    iterate: Callable[..., Any],
) -> None:
    keys = [f"{stream}:{n}" for n in range(1000)]
    pipeline = client.pipeline(transaction=False)
    expected: dict[str, list[str]] = {}
    for n, key in enumerate(keys):
        expected[key] = numbers(1, n % 6)
        for entry_id in expected[key]:
            pipeline.xadd(key, {"n": 1}, id=entry_id)
    pipeline.execute()
    expected = {key: ids for key, ids in expected.items() if ids}
    total = sum(map(len, expected.values()))
    frames = iterate(redis_url, keys, SCHEMA, batch_size, count=total, **options)
    found = list(frames)
    assert by_key(found) == expected
    assert max(df.height for df in found) <= batch_size
    assert len(found) <= 2 * (total // batch_size + 1)


@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_it_does_not_end_before_the_last_of_many_was_asked(
    client: redis_py.Redis, redis_url: str, stream: str, options: Any, iterate: Any
) -> None:
    keys = [f"{stream}:{n}" for n in range(100)]
    fill(client, keys[-1:], 3)
    found = list(iterate(redis_url, keys, SCHEMA, 10, block_ms=None, **options))
    assert by_key(found) == {keys[-1]: numbers(1, 3)}


def test_a_group_takes_no_more_than_the_batch(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    keys = [f"{stream}:{n}" for n in range(50)]
    fill(client, keys, 20)
    frames = iterate(redis_url, keys, SCHEMA, 30, group="g", consumer="c")
    for batches in range(1, 10):
        assert next(frames).height == 30
        assert sum(pending(client, keys).values()) == 30 * batches


def test_what_is_held_beyond_a_batch_comes_next(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    """All streams at once have an entry while it waits for one: a batch has fewer rows."""
    keys = [f"{stream}:{n}" for n in range(50)]
    options: dict[str, Any] = {"group": "g", "consumer": "c", "auto_ack": True}
    frames = iterate(named(redis_url, stream), keys, SCHEMA, 4, count=100, **options)

    def add_at_once() -> None:
        pipeline = client.pipeline(transaction=True)
        for key in keys:
            pipeline.xadd(key, {"n": 1}, id="1-0")
            pipeline.xadd(key, {"n": 1}, id="2-0")
        pipeline.execute()

    with once_blocked(client, stream, add_at_once):
        found = list(frames)
    assert by_key(found) == {key: ["1-0", "2-0"] for key in keys}
    assert max(df.height for df in found) <= 4
    assert sum(pending(client, keys).values()) == 0


# -- acknowledging, claims, dead letters ---------------------------------------


def test_acknowledging_by_stream(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    fill(client, keys, 20)
    frames = iterate(redis_url, keys, SCHEMA, 30, group="g", consumer="c")
    df = next(frames)
    assert frames.ack() == 30
    assert frames.ack() == 0
    assert sum(pending(client, keys).values()) == 0
    df = next(frames)
    of_one = df.filter(pl.col("_key") == keys[1])
    assert frames.ack(of_one) == of_one.height
    left = pending(client, keys)
    assert left[keys[1]] == 0
    assert sum(left.values()) == 30 - of_one.height
    with pytest.raises(ValueError, match='no column "_key" of keys'):
        frames.ack(df.drop("_key"))
    with pytest.raises(ValueError, match="none of the iterator's"):
        frames.ack(df.with_columns(_key=pl.lit("another")))
    assert frames.ack(df) == 30 - of_one.height


def test_a_frame_without_keys_cannot_be_acknowledged(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    fill(client, keys, 2)
    options: dict[str, Any] = {"group": "g", "consumer": "c", "include_key": False}
    frames = iterate(redis_url, keys, SCHEMA, **options)
    df = next(frames)
    with pytest.raises(ValueError, match="include_key=False"):
        frames.ack(df)
    assert frames.ack() == 6


def test_entries_that_others_left_are_claimed(
    client: redis_py.Redis, redis_url: str, stream: str, iterate: Callable[..., Any]
) -> None:
    keys = [f"{stream}:{n}" for n in range(100)]
    expected = fill(client, keys, 3)
    lost = iterate(redis_url, keys, SCHEMA, 1000, group="g", consumer="gone", block_ms=None)
    assert sum(df.height for df in lost) == 300
    wait_until(lambda: client.xpending_range(keys[0], "g", "-", "+", 1, idle=1))
    options: dict[str, Any] = {"claim_idle_ms": 1, "include_delivery_count": True}
    frames = iterate(redis_url, keys, SCHEMA, 70, group="g", consumer="c", count=300, **options)
    found = list(frames)
    assert by_key(found) == expected
    assert {count for df in found for count in df["_deliveries"]} == {2}
    assert frames.stats.claimed == 300


def test_entries_that_go_stale_meanwhile_are_claimed(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    options: dict[str, Any] = {"group": "g", "consumer": "c", "claim_idle_ms": 50, "count": 2}
    frames = iterate(named(redis_url, keys[0]), keys, SCHEMA, **options)

    def leave() -> None:
        add_numbered(client, keys[1], ["1-0", "2-0"])

    client.xgroup_create(keys[1], "g", "0", mkstream=True)
    leave()
    client.xreadgroup("g", "gone", {keys[1]: ">"})
    with meanwhile(lambda: None):
        assert by_key(frames) == {keys[1]: ["1-0", "2-0"]}
    assert frames.stats.claimed == 2


def test_entries_delivered_too_often_go_to_the_dead_letters(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    expected = fill(client, keys, 2)
    dead = f"{keys[0]}:dead"
    options: dict[str, Any] = {
        "group": "g",
        "consumer": "c",
        "max_deliveries": 2,
        "dead_letter": dead,
        "block_ms": None,
        "include_delivery_count": True,
    }
    for times in (1, 2):
        found = list(iterate(redis_url, keys, SCHEMA, **options))
        assert by_key(found) == expected
        assert {count for df in found for count in df["_deliveries"]} == {times}
    assert list(iterate(redis_url, keys, SCHEMA, **options)) == []
    letters = polars_redis.read_stream(redis_url, dead, {"_stream": pl.String}, id_column="at")
    assert sorted(letters["_stream"]) == sorted(keys * 2)
    assert pending(client, keys) == dict.fromkeys(keys, 0)


def test_own_pending_entries_after_an_id(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    fill(client, keys, 5)
    options: dict[str, Any] = {"group": "g", "consumer": "c", "block_ms": None}
    list(iterate(redis_url, keys, SCHEMA, **options))
    client.xdel(keys[1], "4-0")
    fill_more = [client.xadd(key, {"n": 9}, id="9-0") for key in keys]
    assert len(fill_more) == 3
    frames = iterate(redis_url, keys, SCHEMA, start_id="(3-0", **options)
    assert by_key(frames) == {
        keys[0]: numbers(4, 5),
        keys[1]: ["5-0"],
        keys[2]: numbers(4, 5),
    }


def test_a_missing_group_that_is_not_to_be_made(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    client.xgroup_create(keys[0], "g", mkstream=True)
    frames = iterate(redis_url, keys, group="g", consumer="c", create_group=False)
    with pytest.raises(ResponseError, match=r"NOGROUP.*create_group=True"):
        next(frames)


def test_groups_that_vanish_are_made_again(
    client: redis_py.Redis, redis_url: str, keys: list[str], iterate: Callable[..., Any]
) -> None:
    fill(client, keys, 2)
    options: dict[str, Any] = {"group": "g", "consumer": "c", "count": 11}
    frames = iterate(named(redis_url, keys[0]), keys, SCHEMA, **options)
    assert by_key([next(frames)]) == {key: numbers(1, 2) for key in keys}

    def vanish() -> None:
        client.xgroup_destroy(keys[1], "g")
        client.delete(keys[2])
        add_numbered(client, keys[0], ["3-0"])
        add_numbered(client, keys[2], numbers(1, 2))

    with once_blocked(client, keys[0], vanish):
        found = by_key(frames)
    # Of the others nothing comes again.
    assert found == {keys[0]: ["3-0"], keys[1]: numbers(1, 2), keys[2]: numbers(1, 2)}


# -- entries that do not fit ---------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"group": "g", "consumer": "c"},
        {"group": "g", "consumer": "c", "include_delivery_count": True},
    ],
    ids=["plain", "group", "counting"],
)
def test_an_entry_that_does_not_fit(
    client: redis_py.Redis, redis_url: str, keys: list[str], options: Any, iterate: Any
) -> None:
    expected = fill(client, keys, 6)
    client.xdel(keys[1], "4-0")
    client.delete(keys[1])
    for n in range(1, 7):
        client.xadd(keys[1], {"n": "four" if n == 4 else n}, id=f"{n}-0")
    frames = iterate(redis_url, keys, SCHEMA, 100, block_ms=50, **options)
    found: list[pl.DataFrame] = []
    errors: list[str] = []
    while len(errors) < 3:
        try:
            found.append(next(frames))
        except DecodeError as error:
            errors.append(str(error))
    assert all(keys[1] in text and "4-0" in text and '"n"' in text for text in errors)
    # The others go on all the same.
    expected[keys[1]] = numbers(1, 3)
    assert by_key(found) == expected
    if "include_delivery_count" in options:
        assert {count for df in found for count in df["_deliveries"]} == {1}
    # Once it is gone, what follows comes.
    client.xdel(keys[1], "4-0")
    assert by_key([next(frames)]) == {keys[1]: ["5-0", "6-0"]}


# -- faults --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "stride", "options"),
    [
        ("sync", 1, {}),
        ("async", 4, {}),
        ("async", 1, {"group": "g", "consumer": "c"}),
        ("sync", 3, {"group": "g", "consumer": "c", "auto_ack": True}),
        ("sync", 3, {"group": "g", "consumer": "c", "include_delivery_count": True}),
    ],
    ids=["sync", "async", "group", "auto_ack", "counting"],
)
def test_a_conversation_cut_at_every_byte(
    client: redis_py.Redis, server: Server, stream: str, kind: str, stride: int, options: Any
) -> None:
    before_entries: list[int] = []

    def conversation(proxy: Proxy, keys: list[str]) -> dict[str, list[str]]:
        fill(client, keys, 2)
        with iterating(kind) as iterate:
            url = f"redis://{proxy.host}:{proxy.port}"
            frames = iterate(url, keys, SCHEMA, 4, count=9, **options)
            frames.__enter__()
            before_entries.append(proxy.bytes_down)
            found = [next(frames)]
            for key in keys:
                add_numbered(client, key, ["3-0"])
            found += frames
        return by_key(found)

    keys = [f"{stream}:{name}" for name in "abc"]
    with Proxy(server.host, server.port) as proxy:
        expected = conversation(proxy, keys)
        length = proxy.bytes_down
    assert expected == {key: numbers(1, 3) for key in keys}
    for at in range(before_entries[0], length, stride):
        how: Literal["rst", "fin"] = "rst" if at % 2 else "fin"
        keys = [f"{stream}:{name}:{at:04}" for name in "abc"]
        with Proxy(server.host, server.port) as proxy:
            proxy.set_fault(Fault(cut_after=at, cut=how), connection=1)
            found = conversation(proxy, keys)
        assert found == {key: numbers(1, 3) for key in keys}, at
        client.delete(*keys)


class Producer:
    """Adds entries to streams in a random order, in another thread."""

    def __init__(self, client: redis_py.Redis, keys: list[str], total: int, seed: int) -> None:
        self.client = client
        self.added: dict[str, list[str]] = {}
        choose = random.Random(seed)
        self.order = [choose.choice(keys) for _ in range(total)]

    def run(self) -> None:
        for key in self.order:
            ids = self.added.setdefault(key, [])
            ids.append(f"{len(ids) + 1}-0")
            self.client.xadd(key, {"n": len(ids)}, id=ids[-1])


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    streams=st.integers(2, 40),
    batch_size=st.integers(1, 60),
    seed=st.integers(0, 1000),
    pause_ms=st.integers(3, 30),
    mode=st.sampled_from(["plain", "group", "auto_ack", "counting"]),
    kind=st.sampled_from(KINDS),
)
def test_producers_and_cuts_at_random(
    client: redis_py.Redis,
    server: Server,
    streams: int,
    batch_size: int,
    seed: int,
    pause_ms: int,
    mode: str,
    kind: str,
) -> None:
    client.flushdb()
    keys = [f"random:{n}" for n in range(streams)]
    producer = Producer(client, keys, 500, seed)
    options: dict[str, Any] = {
        "plain": {},
        "group": {"group": "g", "consumer": "c"},
        "auto_ack": {"group": "g", "consumer": "c", "auto_ack": True},
        "counting": {"group": "g", "consumer": "c", "include_delivery_count": True},
    }[mode]
    done = threading.Event()
    with Proxy(server.host, server.port) as proxy, iterating(kind) as iterate:

        def cut() -> None:
            while not done.wait(pause_ms / 1000):
                proxy.cut_all()

        url = f"redis://{proxy.host}:{proxy.port}"
        frames = iterate(url, keys, SCHEMA, batch_size, block_ms=20, count=500, **options)
        with meanwhile(producer.run):
            frames.__enter__()
            with meanwhile(cut):
                try:
                    found = list(frames)
                finally:
                    done.set()
    assert by_key(found) == producer.added
    if mode == "auto_ack":
        assert pending(client, list(producer.added)) == dict.fromkeys(producer.added, 0)
    if mode == "counting":
        # A reply that was lost was no delivery.
        assert {count for df in found for count in df["_deliveries"]} == {1}


@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_a_storm_of_cancellations_loses_nothing(
    client: redis_py.Redis, redis_url: str, stream: str, options: Any
) -> None:
    keys = [f"{stream}:{n}" for n in range(100)]
    producer = Producer(client, keys, 2000, seed=1)

    async def read() -> list[pl.DataFrame]:
        async with polars_redis.iter_stream_async(
            redis_url, keys, SCHEMA, 50, count=2000, **options
        ) as frames:
            return await rows_in_a_storm(frames, 2000)

    with meanwhile(producer.run):
        found = asyncio.run(read())
    assert by_key(found) == producer.added


@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_a_server_that_is_killed_and_started_again(
    make_server: Callable[..., Server], keys: list[str], options: Any, iterate: Any
) -> None:
    server = make_server(appendonly=True)
    expected = fill(server.client(), keys, 500)
    frames = iterate(server.url, keys, SCHEMA, 40, count=1500, **options)
    found = [next(frames) for _ in range(10)]
    server.kill()
    server.start()
    found += frames
    assert by_key(found) == expected
    assert frames.stats.reconnects >= 1


def test_closing_ends_the_wait(client: redis_py.Redis, redis_url: str, keys: list[str]) -> None:
    frames = polars_redis.iter_stream(named(redis_url, keys[0]), keys, block_ms=0)
    ended: list[float] = []

    def close() -> None:
        ended.append(time.monotonic())
        frames.close()

    with once_blocked(client, keys[0], close):
        assert list(frames) == []
    assert time.monotonic() - ended[0] < 5


def test_it_holds_no_more_than_a_few_replies(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    """Large entries are asked for a few at a time, however many streams have them."""
    keys = [f"{stream}:{n}" for n in range(20)]
    large = "x" * 200_000
    for key in keys:
        add(client, key, [(entry_id, {"n": large}) for entry_id in numbers(1, 20)])
    frames = polars_redis.iter_stream(redis_url, keys, batch_size=1, count=400)
    rows = 0
    for df in frames:
        rows += df.height
        behind = frames.stats.bytes - rows * 200_000
        assert behind < 25_000_000
    assert rows == 400


@pytest.mark.parametrize("options", [{}, {"group": "g", "consumer": "c"}], ids=["plain", "group"])
def test_a_key_that_is_no_stream_is_named(
    client: redis_py.Redis, redis_url: str, keys: list[str], options: dict[str, Any]
) -> None:
    fill(client, keys, 2)
    client.delete(keys[1])
    client.set(keys[1], "text")
    batches = polars_redis.iter_stream(redis_url, keys, block_ms=None, **options)
    with pytest.raises(ResponseError, match=f'stream "{keys[1]}": WRONGTYPE'):
        next(batches)
    client.delete(keys[1])
    assert by_key(batches).keys() == {keys[0], *keys[2:]}
