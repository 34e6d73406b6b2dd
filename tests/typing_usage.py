"""The public API as a typed program uses it. Never run: mypy --strict checks it.

A wrong use carries a ``type: ignore`` that mypy would call unused if the types let it through.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import polars as pl
from typing_extensions import assert_type

import polars_redis as redis
from polars_redis import exceptions

URL = "redis://localhost"


def plain() -> pl.DataFrame:
    return assert_type(redis.read_stream(URL, "events"), pl.DataFrame)


def schemas() -> None:
    redis.read_stream(URL, "events", {"user": pl.String, "value": pl.Float64})
    redis.read_stream(URL, "events", schema={"user": str, "value": float})
    redis.read_stream(URL, "events", schema=pl.Schema({"user": pl.String()}))
    redis.read_stream(URL, "events", schema=None)


def nested_schemas() -> None:
    point = pl.Struct({"x": pl.Int64, "at": pl.Datetime("ms", "UTC")})
    redis.read_stream(URL, "events", {"near": pl.List(point), "pair": pl.Array(pl.Int64, 2)})
    redis.read_stream(URL, "events", {"day": date, "cost": pl.Decimal(10, 2), "tags": list[str]})
    redis.read_stream(URL, "events", {"kind": pl.String, "cost": pl.Decimal(10, 2), "n": int})
    redis.read_stream(URL, "events", {"a": pl.Int8, "b": pl.Duration}.items())
    redis.read_stream(URL, "events", ((name, pl.Int64) for name in "ab"))
    redis.read_stream(URL, "events", [("kind", pl.Enum(["a", "b"])), ("took", pl.Duration)])


def guessed() -> pl.DataFrame:
    schema = assert_type(redis.infer_stream_schema(URL, "events"), pl.Schema)
    redis.infer_stream_schema(URL, "events", None)
    redis.infer_stream_schema(URL, "events", infer_schema_length=10)
    return redis.read_stream(URL, "events", schema)


def ranges() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    redis.read_stream(URL, "events", start_id="-", end_id="+", count=100)
    redis.read_stream(URL, "events", start_id="(1704067200000-0", end_id=1704067300000)
    redis.read_stream(URL, "events", start_id=noon, end_id=noon)


def every_option() -> pl.DataFrame:
    return redis.read_stream(
        URL,
        "events",
        schema={"user": pl.String},
        start_id="-",
        end_id="+",
        count=None,
        block_ms=None,
        group=None,
        consumer=None,
        auto_ack=False,
        create_group=True,
        include_id=True,
        include_timestamp=True,
        include_sequence=True,
        id_column="_id",
        timestamp_column="_ts",
        sequence_column="_seq",
        strict=False,
        claim_idle_ms=300_000,
        include_delivery_count=False,
        delivery_count_column="_deliveries",
    )


def iterate() -> None:
    batches: redis.StreamIterator = redis.iter_stream(
        URL, "events", {"n": pl.Int64}, 100, None, linger_ms=5, reconnect_timeout_ms=1000
    )
    with batches as entered:
        for df in entered:
            height: int = df.height
            last: str | None = entered.last_id
            print(height, last, entered.stats.entries, entered.stats["bytes"])
    batches.close()
    several = redis.iter_stream(
        URL, ["events", "alerts"], start_id={"events": "(5-0", "alerts": 7}, key_column_name="key"
    )
    after: dict[str, str] = several.last_ids
    print(after, redis.iter_stream_async(URL, ("events",), include_key=False).last_ids)


def work() -> None:
    with redis.iter_stream(
        URL,
        "events",
        group="g",
        consumer="c",
        max_deliveries=3,
        dead_letter="dead",
        include_delivery_count=True,
    ) as batches:
        for df in batches:
            acknowledged: int = batches.ack()
            print(acknowledged, batches.ack(df))
    count: int = redis.ack_entries(URL, "events", "g", ["1-0"])
    print(count, redis.ack_entries(URL, "events", "g", pl.Series(["1-0"])))


async def work_async() -> None:
    batches: redis.AsyncStreamIterator = redis.iter_stream_async(
        URL, "events", batch_size=10, batch_timeout_ms=1000
    )
    async with batches as entered:
        async for df in entered:
            acknowledged: int = await entered.ack(df)
            print(acknowledged, entered.last_id, entered.stats.reconnects)
    await batches.aclose()
    count: int = await redis.ack_entries_async(URL, "events", "g", ("1-0",))
    print(count)


def info() -> None:
    about: pl.DataFrame = redis.stream_info(URL, "events", read_from="replica")
    print(about)


def listen() -> None:
    df: pl.DataFrame = redis.collect_pubsub(URL, "channel", count=1, timeout_ms=None)
    redis.collect_pubsub(URL, ["a", "b"], {"n": int, "s": pl.String}, timeout_ms=5)
    redis.collect_pubsub(URL, ("a",), pl.Binary, timeout_ms=5, pattern=True)
    with redis.iter_pubsub(URL, "c", pl.List(pl.Int64), batch_size=10, count=5) as batches:
        entered: redis.PubSubIterator = batches
        for df in entered:
            gaps: int = entered.stats.gaps
            print(df.height, gaps, entered.stats["messages"])


async def listen_async() -> None:
    async with redis.iter_pubsub_async(URL, "c", float, include_channel=True) as batches:
        entered: redis.AsyncPubSubIterator = batches
        async for df in entered:
            print(df.height, entered.stats.reconnects)


def errors() -> None:
    try:
        redis.read_stream(URL, "events")
    except exceptions.DecodeError as error:
        bad_value: ValueError = error
        raise bad_value from None
    except exceptions.MessageDecodeError as error:
        of_a_channel: tuple[str, str | None] = error.channel, error.field
        print(of_a_channel)
    except exceptions.RedisTimeoutError as error:
        late: TimeoutError = error
        raise late from None
    except exceptions.RedisConnectionError as error:
        gone: ConnectionError = error
        raise gone from None
    except (
        exceptions.AuthenticationError,
        exceptions.ResponseError,
        exceptions.ProtocolError,
    ) as error:
        any_of_ours: exceptions.PolarsRedisError = error
        raise any_of_ours from None


def wrong() -> None:
    redis.read_stream(URL)  # type: ignore[call-arg]
    redis.read_stream(URL, "events", count="100")  # type: ignore[arg-type]
    redis.read_stream(URL, "events", start_id=1.5)  # type: ignore[arg-type]
    redis.read_stream(URL, "events", strict="no")  # type: ignore[arg-type]
    redis.read_stream(URL, "events", no_such_option=1)  # type: ignore[call-arg]
    redis.read_stream(URL, "events", {"n": "Int64"})  # type: ignore[dict-item]
    redis.read_stream(URL, "events", ["n"])  # type: ignore[list-item]
    redis.infer_stream_schema(URL, "events", "100")  # type: ignore[arg-type]
    redis.iter_stream(URL, "events", batch_size="100")  # type: ignore[arg-type]
    redis.iter_stream(URL, ["events", 5])  # type: ignore[list-item]
    redis.ack_entries(URL, "events", "g", [1])  # type: ignore[list-item]
    redis.collect_pubsub(URL, 1, count=1)  # type: ignore[arg-type]
    redis.iter_pubsub(URL, "c", timeout_ms=1.5)  # type: ignore[arg-type]


version: str = redis.__version__


def many_streams() -> None:
    df = redis.read_streams(URL, "orders:*", {"amount": float}, count_per_stream=10)
    assert_type(df, pl.DataFrame)
    lf = redis.scan_streams(URL, pattern="orders:*", key_column_name="stream", start_id=5)
    assert_type(lf, pl.LazyFrame)
    redis.scan_streams(URL, count_per_stream="10")  # type: ignore[arg-type]
    redis.read_streams(URL, infer_schema_length=5)  # type: ignore[call-arg]


def writing() -> None:
    df = pl.DataFrame({"n": [1]})
    ids = assert_type(redis.write_stream(URL, df, "events"), pl.Series)
    redis.write_stream(df.lazy(), URL, stream_column="n", id_column="n", null="raise")
    redis.write_stream(URL, df, "events", maxlen=10, approximate=False, progress=True)
    redis.write_stream(URL, df, "events", minid=datetime(2024, 1, 1), batch_size=10)
    redis.write_stream(URL, df, "events", null="none")  # type: ignore[arg-type]
    redis.ack_entries(URL, "events", "workers", ids)
    assert_type(redis.write_hashes(URL, df, "n", "k:", 60, "append"), int)
    redis.write_hashes(df, URL, ttl=timedelta(hours=1), if_exists="fail")
    assert_type(redis.publish(URL, df, "alerts"), int)
    redis.publish(URL, df, channel_column="n", sharded=True)


async def writing_async() -> None:
    df = pl.DataFrame({"n": [1]})
    assert_type(await redis.write_stream_async(URL, df, "events"), pl.Series)
    assert_type(await redis.write_hashes_async(URL, df, "n"), int)
    assert_type(await redis.publish_async(URL, df, "alerts"), int)


def what_was_written() -> pl.Series | None:
    try:
        redis.write_stream(URL, pl.DataFrame({"n": [1]}), "events")
    except exceptions.PolarsRedisError as error:
        return error.written
    return None
