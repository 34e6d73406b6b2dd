"""Writing from asyncio: the same as from threads, and what a cancelled write tells."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal, assert_series_equal

import polars_redis as redis
from polars_redis.exceptions import RedisConnectionError, ResponseError
from support.proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.servers import Server

DF = pl.DataFrame({"n": range(25_000)}).with_columns(text=pl.format("text {}", "n"))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_frame_comes_back(redis_url: str, stream: str, lazy: bool) -> None:
    df: Any = DF.lazy() if lazy else DF
    ids = asyncio.run(redis.write_stream_async(redis_url, df, stream))
    back = redis.read_stream(redis_url, stream, DF.schema, include_timestamp=False)
    assert_frame_equal(back.drop("_id"), DF)
    assert_series_equal(back["_id"], ids)


def test_many_at_once(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    async def write() -> list[pl.Series]:
        writes = (redis.write_stream_async(DF, redis_url, f"{stream}:{n}") for n in range(10))
        return list(await asyncio.gather(*writes))

    for n, ids in enumerate(asyncio.run(write())):
        back = redis.read_stream(redis_url, f"{stream}:{n}", DF.schema, include_timestamp=False)
        assert_frame_equal(back.drop("_id"), DF)
        assert_series_equal(back["_id"], ids)


def test_hashes(client: redis_py.Redis, redis_url: str) -> None:
    written = asyncio.run(redis.write_hashes_async(redis_url, DF, "n", "k:", if_exists="fail"))
    assert written == client.dbsize() == DF.height


def test_others_run_meanwhile(redis_url: str, stream: str) -> None:
    async def write() -> int:
        turns = 0
        task = asyncio.ensure_future(redis.write_stream_async(redis_url, DF, stream))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        await task
        return turns

    assert asyncio.run(write()) > 20


def test_what_is_refused(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    client.set(stream, "text")
    with pytest.raises(ResponseError, match="WRONGTYPE") as raised:
        asyncio.run(redis.write_stream_async(redis_url, DF, stream))
    assert raised.value.failed.len() == DF.height
    with pytest.raises(ValueError, match="stream: name a stream"):
        asyncio.run(redis.write_stream_async(redis_url, DF))
    with pytest.raises(RedisConnectionError):
        asyncio.run(redis.write_stream_async("redis://127.0.0.1:1", DF, stream))


def test_a_write_that_is_cancelled(
    make_server: Callable[..., Server], make_proxy: Callable[..., Proxy]
) -> None:
    server = make_server()
    client = server.client()
    with Proxy(server.host, server.port) as proxy:
        redis.write_stream(f"redis://{proxy.host}:{proxy.port}", DF[:1], "one")
        greeting = proxy.bytes_down - len("$15\r\n1704067200000-0\r\n")
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=greeting))

    async def write() -> asyncio.CancelledError:
        url = f"redis://{proxy.host}:{proxy.port}"
        task = asyncio.ensure_future(redis.write_stream_async(url, DF[:100], "s"))
        while client.xlen("s") < 100:
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        return raised.value

    told: Any = asyncio.run(write())
    assert told.unsure.to_list() == list(range(100))
    assert told.entry_ids.null_count() == 100
