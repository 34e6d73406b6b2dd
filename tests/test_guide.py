"""The users' guide's calls, up to those that write, as a reader copies them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import polars as pl
import pytest

import polars_redis as redis
from support.streams import add

if TYPE_CHECKING:
    from collections.abc import Callable

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


# -- reading -----------------------------------------------------------------------


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


# -- consumer groups ---------------------------------------------------------------


class Stop(Exception):  # noqa: N818
    """Raised by what the guide leaves to its reader, to leave a loop that has no other end."""


def pending(client: redis_py.Redis) -> int:
    return client.xpending("events", "analytics")["pending"]


def test_as_a_consumer_of_a_group(url: str, client: redis_py.Redis) -> None:
    df = redis.read_stream(
        url,
        stream="events",
        group="analytics",
        consumer="worker-1",
        auto_ack=True,
    )
    assert df["_id"].to_list() == IDS
    assert pending(client) == 0
    client.xadd("events", {"user_id": "user_101"})
    more = redis.read_stream(
        url, stream="events", group="analytics", consumer="worker-1", auto_ack=True
    )
    assert more["user_id"].to_list() == ["user_101"]


def read_without_acknowledging(url: str, consumer: str) -> pl.DataFrame:
    return redis.read_stream(
        url,
        stream="events",
        group="analytics",
        consumer=consumer,
        auto_ack=False,
    )


def work(url: str, consumer: str, process: Callable[[pl.DataFrame], object]) -> Exception | None:
    """Acknowledge what was processed, and tell what went wrong otherwise."""
    df = read_without_acknowledging(url, consumer)
    try:
        process(df)
        entry_ids = df["_id"].to_list()
        redis.ack_entries(url, "events", "analytics", entry_ids)
    except Exception as error:  # noqa: BLE001
        return error
    return None


def test_acknowledging_by_hand(url: str, client: redis_py.Redis) -> None:
    seen: list[str] = []
    assert work(url, "worker-1", lambda df: seen.extend(df["_id"])) is None
    assert seen == IDS
    assert pending(client) == 0
    assert read_without_acknowledging(url, "worker-1").is_empty()


def test_what_failed_comes_again_to_another_consumer(url: str, client: redis_py.Redis) -> None:
    def fail(df: pl.DataFrame) -> None:
        raise Stop(df.height)

    assert isinstance(work(url, "worker-1", fail), Stop)
    assert pending(client) == len(IDS)
    # Not at once, as worker-1 might still be at work; five minutes later it has given up.
    assert read_without_acknowledging(url, "worker-2").is_empty()
    client.xclaim("events", "analytics", "worker-1", 0, IDS, idle=300_000, justid=True)
    seen: list[str] = []
    assert work(url, "worker-2", lambda df: seen.extend(df["_id"])) is None
    assert seen == IDS
    assert pending(client) == 0


def test_several_consumers_share_the_entries(url: str, client: redis_py.Redis) -> None:
    more = [f"1704067300001-{n}" for n in range(50)]
    add(client, "events", ((entry_id, {"action": "click"}) for entry_id in more))
    df1 = redis.read_stream(
        url,
        stream="events",
        group="analytics",
        consumer="worker-1",
        count=100,
        auto_ack=True,
    )
    df2 = redis.read_stream(
        url,
        stream="events",
        group="analytics",
        consumer="worker-2",
        count=100,
        auto_ack=True,
    )
    assert df1["_id"].to_list() == IDS
    assert df2["_id"].to_list() == more
    assert pending(client) == 0


# -- waiting for entries -----------------------------------------------------------


def test_a_read_that_waits_for_new_entries(url: str, client: redis_py.Redis) -> None:
    named = f"{url}{'&' if '?' in url else '?'}client_name=waiting"

    def is_blocked() -> bool:
        # "b" stands for a client that a blocking command holds.
        return any(c["name"] == "waiting" and "b" in c["flags"] for c in client.client_list())

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(
            redis.read_stream,
            named,
            stream="events",
            start_id="$",
            block_ms=5000,
            count=100,
        )
        while not is_blocked():
            assert not reading.done()
        client.xadd("events", {"user_id": "user_101"}, id="1704067400000-0")
        df = reading.result()
    assert df["_id"].to_list() == ["1704067400000-0"]
    assert df["user_id"].to_list() == ["user_101"]


# -- iterators ---------------------------------------------------------------------


def test_an_iterator(url: str, client: redis_py.Redis) -> None:
    seen: list[str] = []
    summaries: list[pl.DataFrame] = []

    def should_stop() -> bool:
        return len(seen) > len(IDS)

    for batch_df in redis.iter_stream(
        url,
        stream="events",
        batch_size=100,
        block_ms=1000,
    ):
        summaries.append(batch_df.group_by("action").len().sort("action"))
        seen.extend(batch_df["_id"])
        if should_stop():
            break
        client.xadd("events", {"action": "purchase"}, id="1704067400000-0")
    assert seen == [*IDS, "1704067400000-0"]
    counts = [summary.rows() for summary in summaries]
    assert counts == [[("click", 50), ("view", 50)], [("purchase", 1)]]


def test_an_iterator_of_a_group(url: str, client: redis_py.Redis) -> None:
    seen: list[str] = []

    def process_batch(batch_df: pl.DataFrame) -> None:
        seen.extend(batch_df["_id"])
        if len(seen) > len(IDS):
            raise Stop
        client.xadd("events", {"action": "purchase"}, id="1704067400000-0")

    def run() -> None:
        for batch_df in redis.iter_stream(
            url,
            stream="events",
            group="analytics",
            consumer="worker-1",
            batch_size=100,
            auto_ack=True,
        ):
            process_batch(batch_df)

    with pytest.raises(Stop):
        run()
    assert seen == [*IDS, "1704067400000-0"]
    assert pending(client) == 0


def test_an_asynchronous_iterator(url: str, client: redis_py.Redis) -> None:
    seen: list[str] = []

    async def process_async(batch_df: pl.DataFrame) -> None:
        await asyncio.sleep(0)
        seen.extend(batch_df["_id"])

    def should_stop() -> bool:
        return len(seen) > len(IDS)

    async def process_stream() -> None:
        async for batch_df in redis.iter_stream_async(
            url,
            stream="events",
            batch_size=100,
            batch_timeout_ms=1000,
        ):
            await process_async(batch_df)
            if should_stop():
                break
            client.xadd("events", {"action": "purchase"}, id="1704067400000-0")

    asyncio.run(process_stream())
    assert seen == [*IDS, "1704067400000-0"]


# -- scanning ----------------------------------------------------------------------


def test_a_lazy_scan(url: str) -> None:
    lf = redis.scan_stream(
        url,
        stream="events",
        schema={"action": pl.Utf8, "value": pl.Float64},
    )
    assert isinstance(lf, pl.LazyFrame)
    result = (
        lf.filter(pl.col("value") > 100).group_by("action").agg(pl.col("value").mean()).collect()
    )
    assert dict(result.schema) == {"action": pl.String, "value": pl.Float64}
    # Of the values 110 to 1000 every second one is a click's, and every other a view's.
    assert sorted(result.rows()) == [("click", 550.0), ("view", 560.0)]
