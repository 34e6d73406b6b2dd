"""The users' guide's basic calls of `read_stream`, as a reader copies them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

import polars_redis as redis
from support.streams import add

if TYPE_CHECKING:
    import redis as redis_py

FIRST_MS = 1_704_067_200_000
LAST_OF_RANGE = "1704067300000-0"
#: The entries up to LAST_OF_RANGE; those after it share its millisecond.
IN_RANGE = 91
IDS = [
    *(f"{FIRST_MS + n}-0" for n in range(IN_RANGE - 1)),
    *(f"1704067300000-{n}" for n in range(10)),
]
ACTIONS = ("click", "view")


@pytest.fixture
def url(client: redis_py.Redis, redis_url: str) -> str:
    """The server, with the guide's stream of a hundred events."""
    entries = (
        (entry_id, {"user_id": f"user_{n + 1}", "action": ACTIONS[n % 2], "value": 10 * (n + 1)})
        for n, entry_id in enumerate(IDS)
    )
    add(client, "events", entries)
    return redis_url


def test_reading_all_entries(url: str) -> None:
    df = redis.read_stream(
        url,
        stream="events",
        schema={"user_id": pl.Utf8, "action": pl.Utf8, "value": pl.Int64},
    )
    assert df.shape == (100, 5)
    assert dict(df.schema) == {
        "_id": pl.String,
        "_ts": pl.Int64,
        "user_id": pl.String,
        "action": pl.String,
        "value": pl.Int64,
    }
    assert df.rows()[:2] == [
        ("1704067200000-0", FIRST_MS, "user_1", "click", 10),
        ("1704067200001-0", FIRST_MS + 1, "user_2", "view", 20),
    ]


def test_the_parts_of_an_entry_id(url: str) -> None:
    df = redis.read_stream(
        url,
        stream="events",
        include_id=True,
        include_timestamp=True,
        include_sequence=True,
    )
    assert df.columns == ["_id", "_ts", "_seq", "user_id", "action", "value"]
    assert df.select("_id", "_ts", "_seq").rows()[-1] == ("1704067300000-9", 1_704_067_300_000, 9)
    assert set(df.dtypes[3:]) == {pl.String}
    assert df["_id"].to_list() == IDS


def test_a_limit(url: str, client: redis_py.Redis) -> None:
    client.xadd("events", {"user_id": "user_101"})
    df = redis.read_stream(
        url,
        stream="events",
        count=100,
    )
    assert df["_id"].to_list() == IDS


def test_a_range_of_ids_with_both_its_ends(url: str) -> None:
    df = redis.read_stream(
        url,
        stream="events",
        start_id="1704067200000-0",
        end_id=LAST_OF_RANGE,
    )
    assert df["_id"].to_list() == IDS[:IN_RANGE]


def test_from_the_oldest_to_the_newest(url: str) -> None:
    df = redis.read_stream(url, stream="events", start_id="-", end_id="+")
    assert df.equals(redis.read_stream(url, stream="events"))
    assert df["_id"].to_list() == IDS
