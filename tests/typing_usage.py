"""The public API as a typed program uses it. Never run: mypy --strict checks it.

A wrong use carries a ``type: ignore`` that mypy would call unused if the types let it through.
"""

from __future__ import annotations

from datetime import datetime, timezone

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


def errors() -> None:
    try:
        redis.read_stream(URL, "events")
    except exceptions.DecodeError as error:
        bad_value: ValueError = error
        raise bad_value from None
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


version: str = redis.__version__
