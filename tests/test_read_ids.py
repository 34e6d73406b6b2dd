"""Which entries a range holds, for every way to say it, beside redis-py's XRANGE."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from support.streams import add_numbered, assert_numbered, id_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

IDS = ["1-0", "5-0", "5-1", "5-7", "6-0", "1700000000000-0", "1700000000000-3", "1700000000001-0"]
MAX = 2**64 - 1
SCHEMA = {"n": pl.Int64}


@pytest.fixture
def short(client: redis_py.Redis, redis_url: str, stream: str) -> Callable[..., list[str]]:
    """Reads a stream of the IDs above; gives the IDs found."""
    add_numbered(client, stream, IDS)
    return lambda **options: redis.read_stream(redis_url, stream, SCHEMA, **options)[
        "_id"
    ].to_list()


STARTS: list[tuple[Any, str]] = [
    ("-", "1-0"),
    ("5", "5-0"),
    ("5-1", "5-1"),
    ("(5-1", "5-7"),
    ("(5", "5-1"),
    (5, "5-0"),
    (0, "1-0"),
    ("(1-0", "5-0"),
    ("5-2", "5-7"),
    (datetime(2023, 11, 14, 22, 13, 20), "1700000000000-0"),
    (datetime(2023, 11, 14, 22, 13, 20, 1999), "1700000000001-0"),
    (datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc), "1700000000000-0"),
    (
        datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))),
        "1700000000000-0",
    ),
]
ENDS: list[tuple[Any, str]] = [
    ("+", "1700000000001-0"),
    ("5", "5-7"),
    ("5-1", "5-1"),
    ("(5-1", "5-0"),
    ("(5", "5-7"),
    ("(6-0", "5-7"),
    (5, "5-7"),
    (datetime(2023, 11, 14, 22, 13, 20), "1700000000000-3"),
    (datetime(2023, 11, 14, 22, 13, 20, 999), "1700000000000-3"),
]


@pytest.mark.parametrize(("start", "first"), STARTS)
def test_starts(short: Callable[..., list[str]], start: Any, first: str) -> None:
    assert short(start_id=start) == IDS[IDS.index(first) :]
    assert short(start_id=start, count=2) == IDS[IDS.index(first) :][:2]


@pytest.mark.parametrize(("end", "last"), ENDS)
def test_ends(short: Callable[..., list[str]], end: Any, last: str) -> None:
    assert short(end_id=end) == IDS[: IDS.index(last) + 1]


@pytest.mark.parametrize(
    "options",
    [
        {"start_id": "6", "end_id": "5"},
        {"start_id": "$"},
        {"start_id": "+"},
        {"end_id": "-"},
        {"end_id": "(0-0"},
        {"start_id": f"({MAX}-{MAX}"},
        {"start_id": "7", "end_id": "1699999999999"},
        {"count": 0},
    ],
)
def test_empty_ranges(short: Callable[..., list[str]], options: dict[str, Any]) -> None:
    assert short(**options) == []


@pytest.mark.parametrize("count", [1, 3, len(IDS), 10_000, MAX])
def test_counts(short: Callable[..., list[str]], count: int) -> None:
    assert short(count=count) == IDS[:count]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *[("start_id", v) for v in ("", "x", "1-", "-1", "(", "($", "(-", ">", "1-2-3", "1 ", -1)],
        *[("end_id", v) for v in ("", "x", "$", "(+", "1-*", "+1", 2**64)],
        ("start_id", datetime(1969, 1, 1)),
        ("count", -1),
    ],
)
def test_wrong_values_name_the_parameter(parameter: str, value: Any) -> None:
    with pytest.raises(ValueError, match=parameter):
        redis.read_stream("redis://127.0.0.1:1", "s", **{parameter: value})


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *[("start_id", v) for v in (None, 1.5, True, b"1-0")],
        ("end_id", 1.0),
        *[("count", v) for v in (1.5, "1", True)],
    ],
)
def test_wrong_types_name_the_parameter(parameter: str, value: Any) -> None:
    with pytest.raises(TypeError, match=parameter):
        redis.read_stream("redis://127.0.0.1:1", "s", **{parameter: value})


def test_pieces_make_the_whole(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    ids = add_numbered(client, stream, (f"{n // 7 + 1}-{n % 7}" for n in range(5000)))
    found: list[str] = []
    start = "-"
    while (df := redis.read_stream(redis_url, stream, SCHEMA, start, count=777)).height:
        found += df["_id"].to_list()
        start = "(" + found[-1]
    assert found == ids


def _bursts() -> list[str]:
    return [f"{burst * 10_000_000 + 1}-{n}" for burst in range(10) for n in range(3000)]


SHAPES: dict[str, list[str]] = {
    "one millisecond": [f"5-{n}" for n in range(50_000)],
    "years apart": [f"{n * 31_536_000_000 + 1}-0" for n in range(5_000)],
    "sparse, then dense": [f"{n * 10**9 + 1}-0" for n in range(50)]
    + [f"{10**12 + n // 9}-{n % 9}" for n in range(40_000)],
    "dense, then sparse": [f"{n + 1}-0" for n in range(40_000)]
    + [f"{10**12 + n * 10**9}-0" for n in range(50)],
    "bursts": _bursts(),
    "a far last entry": [f"{n + 1}-0" for n in range(20_000)] + [f"{MAX}-{MAX}"],
    "huge sequence numbers": [f"7-{n * 2**48}" for n in range(20_000)],
    "a thousand": [f"{n + 1}-0" for n in range(1_000)],
    "one": ["9-9"],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_streams_of_every_shape(
    any_client: redis_py.Redis, any_server: Any, stream: str, shape: str
) -> None:
    ids = add_numbered(any_client, stream, SHAPES[shape])
    options = {"include_timestamp": False}
    assert_numbered(redis.read_stream(any_server.url, stream, SCHEMA, **options), ids)
    for count in (1_001, 2_500):
        df = redis.read_stream(any_server.url, stream, SCHEMA, count=count, **options)
        assert_numbered(df, ids[:count])
    middle = ids[len(ids) // 3]
    df = redis.read_stream(any_server.url, stream, start_id=middle, **options)
    assert df["_id"].to_list() == ids[len(ids) // 3 :]


def test_deleted_and_trimmed_entries_are_gone(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(30_000)))
    client.xdel(stream, *ids[5_000:15_000])
    client.xdel(stream, *ids[::7])
    client.xdel(stream, *ids[-3:])
    client.xtrim(stream, minid="1000-0", approximate=False)
    expected = [entry.decode() for entry, _ in client.xrange(stream)]
    df = redis.read_stream(redis_url, stream, SCHEMA)
    assert df["_id"].to_list() == expected
    assert sorted(expected, key=id_key) == expected


def test_a_stream_whose_entries_are_all_deleted_is_empty(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(100)))
    client.xdel(stream, *ids)
    assert redis.read_stream(redis_url, stream, SCHEMA).height == 0
