"""`split_stream`: parts that together are the stream, about as many entries in each."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import RedisConnectionError, ResponseError
from support.streams import add

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis as redis_py

    from support.servers import Server

SCHEMA = {"n": pl.Int64}


def even() -> Iterable[str]:
    """Three entries a millisecond."""
    return (f"{1_700_000_000_000 + n // 3}-{n % 3}" for n in range(50_000))


def bursts() -> Iterable[str]:
    """Ten bursts with hours between them."""
    return (f"{1_000_000 + 10_000_000 * (n // 5000)}-{n % 5000}" for n in range(50_000))


def slowing() -> Iterable[str]:
    """Ever more time between one entry and the next."""
    return (f"{n * n}-{n % 5}" for n in range(1, 50_000))


def one_millisecond() -> Iterable[str]:
    """Nothing but sequence numbers."""
    return (f"5-{n}" for n in range(50_000))


def fill(client: redis_py.Redis, stream: str, ids: Iterable[str]) -> None:
    add(client, stream, ((entry, {"n": str(n)}) for n, entry in enumerate(ids)))


def heights(parts: list[pl.LazyFrame]) -> list[int]:
    return [part.select(pl.len()).collect().item() for part in parts]


@pytest.mark.parametrize("splits", [1, 3, 8])
@pytest.mark.parametrize("ids", [even, bursts, slowing, one_millisecond])
def test_parts_are_even_and_the_stream_together(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    ids: Callable[[], Iterable[str]],
    splits: int,
) -> None:
    fill(client, stream, ids())
    parts = redis.split_stream(redis_url, stream, splits, SCHEMA)
    whole = redis.read_stream(redis_url, stream, SCHEMA)
    assert pl.concat(parts).collect().equals(whole)
    assert len(parts) == splits
    due = whole.height / splits
    assert all(abs(height - due) < 0.15 * due + 1 for height in heights(parts))


def test_entries_that_are_added_later_are_in_no_part(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    fill(client, stream, even())
    parts = redis.split_stream(redis_url, stream, 4, SCHEMA)
    client.xadd(stream, {"n": "1"})
    assert sum(heights(parts)) == 50_000


def test_the_same_arguments_split_the_same_entries_in_the_same_way(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    fill(client, stream, slowing())
    last = redis.read_stream(redis_url, stream, {})["_id"][-1]
    assert heights(redis.split_stream(redis_url, stream, 7, SCHEMA)) == heights(
        redis.split_stream(redis_url, stream, 7, SCHEMA)
    )
    before = heights(redis.split_stream(redis_url, stream, 7, SCHEMA, end_id=last))
    for _ in range(1000):
        client.xadd(stream, {"n": "1"})
    assert heights(redis.split_stream(redis_url, stream, 7, SCHEMA, end_id=last)) == before


@pytest.mark.parametrize(
    ("start_id", "end_id"),
    [("-", "1700000010000"), ("1700000000100-1", "+"), ("(1700000000100-1", "1700000009000-0")],
)
def test_bounds_are_kept(
    client: redis_py.Redis, redis_url: str, stream: str, start_id: str, end_id: str
) -> None:
    fill(client, stream, even())
    parts = redis.split_stream(redis_url, stream, 5, SCHEMA, start_id, end_id)
    whole = redis.read_stream(redis_url, stream, SCHEMA, start_id, end_id)
    assert pl.concat(parts).collect().equals(whole)
    due = whole.height / 5
    assert all(abs(height - due) < 0.15 * due + 1 for height in heights(parts))


def test_where_there_are_fewer_entries_some_parts_have_no_rows(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    fill(client, stream, ["1-1", "1-2", "7-0"])
    parts = redis.split_stream(redis_url, stream, 5, SCHEMA)
    assert sorted(heights(parts)) == [0, 0, 1, 1, 1]
    assert {str(part.collect_schema()) for part in parts} == {str(parts[0].collect_schema())}
    missing = redis.split_stream(redis_url, "no such stream", 2, SCHEMA)
    assert heights(missing) == [0, 0]
    assert missing[0].collect().schema == parts[0].collect().schema


def test_without_a_schema_all_parts_have_the_same_columns(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add(client, stream, ((f"{n}-1", {"a" if n < 50 else "b": "x"}) for n in range(100)))
    parts = redis.split_stream(redis_url, stream, 4, infer_schema_length=60)
    for part in parts:
        assert part.collect_schema().names() == ["_id", "_ts", "a", "b"]


def test_parts_are_columns_like_those_of_a_scan_and_pickle(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    fill(client, stream, even())
    columns: dict[str, Any] = {
        "include_id": False,
        "include_sequence": True,
        "timestamp_column": "at",
    }
    parts = redis.split_stream(redis_url, stream, 3, SCHEMA, **columns)
    again = [pickle.loads(pickle.dumps(part)) for part in parts]
    whole = redis.scan_stream(redis_url, stream, SCHEMA, **columns).collect()
    assert pl.concat(again).collect().equals(whole)


def test_little_is_read_to_split(make_server: Callable[..., Server]) -> None:
    server = make_server()
    client = server.client()
    fill(client, "s", even())
    before: Any = client.info("stats")
    redis.split_stream(server.url, "s", 8, SCHEMA)
    after: Any = client.info("stats")
    sent = after["total_net_output_bytes"] - before["total_net_output_bytes"]
    assert sent < 0.25 * 50_000 * 50


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"splits": 0}, ValueError, "splits"),
        ({"splits": "2"}, TypeError, "splits"),
        ({"splits": True}, TypeError, "splits"),
        ({"splits": 2, "end_id": "x"}, ValueError, "end_id"),
        ({"splits": 2, "schema": {"_id": str}}, ValueError, "id column"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        redis.split_stream("redis://127.0.0.1:1", "s", **arguments)


def test_errors_of_the_server_are_raised(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    client.set(stream, "no stream")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        redis.split_stream(redis_url, stream, 2, SCHEMA)
    with pytest.raises(RedisConnectionError):
        redis.split_stream("redis://127.0.0.1:1", stream, 2, SCHEMA)
