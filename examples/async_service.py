"""An asyncio service: it follows a stream, and keeps sums of what comes.

Starts a redis-server of its own, and a few producers that add measurements of sensors to a stream.
The service takes them as a consumer of a group, batch after batch, adds them up with Polars, and
acknowledges each batch once it is in the sums. It stops after some seconds, or on Ctrl-C: first the
producers, then, when nothing is left to take, itself. ::

    python examples/async_service.py
    python examples/async_service.py --seconds 60 --producers 20
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from contextlib import suppress
from typing import Any

import polars as pl
import redis.asyncio as redis_py

import polars_redis as redis
from embedded_redis import EmbeddedRedis

STREAM, GROUP = "measurements", "sums"
SCHEMA = {"sensor": pl.String, "value": pl.Float64}
#: How long a producer waits between two measurements, on average.
PAUSE_SECONDS = 0.005
#: How long the service waits for fuller batches, which are less work an entry.
LINGER_MS = 20
REPORT_SECONDS = 1.0
DRAIN_SECONDS = 30.0


class Sums:
    """What the service knows of each sensor."""

    def __init__(self) -> None:
        self.frame = pl.DataFrame(
            schema={"sensor": pl.String, "count": pl.UInt32, "sum": pl.Float64, "max": pl.Float64}
        )
        self.batches = 0
        self.slowest_ms = 0

    @property
    def entries(self) -> int:
        """How many measurements are in the sums."""
        return int(self.frame["count"].sum())

    def add(self, df: pl.DataFrame) -> None:
        """Take a batch in."""
        of_batch = df.group_by("sensor").agg(
            count=pl.len().cast(pl.UInt32), sum=pl.col("value").sum(), max=pl.col("value").max()
        )
        self.frame = (
            pl.concat([self.frame, of_batch])
            .group_by("sensor")
            .agg(pl.col("count", "sum").sum(), pl.col("max").max())
            .sort("sensor")
        )
        self.batches += 1
        # An entry ID begins with the time at which the server added the entry.
        oldest_ms = int(df["_ts"][0])
        self.slowest_ms = max(self.slowest_ms, int(time.time() * 1000) - oldest_ms)

    def __str__(self) -> str:
        return f"{self.entries:,} measurements in {self.batches:,} batches"


async def consume(batches: redis.AsyncStreamIterator, sums: Sums) -> None:
    """The service itself; it ends when the iterator is closed."""
    async for df in batches:
        sums.add(df)
        await batches.ack()


async def produce(url: str, sensor: str, stop: asyncio.Event) -> int:
    """Add measurements until it is time to stop; how many there were."""
    added = 0
    async with redis_py.Redis.from_url(url) as client:
        while not stop.is_set():
            await client.xadd(STREAM, {"sensor": sensor, "value": random.gauss(20, 5)})
            added += 1
            await asyncio.sleep(random.expovariate(1 / PAUSE_SECONDS))
    return added


async def report(sums: Sums) -> None:
    """Tell from time to time how it goes."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        print(sums, flush=True)


async def drained(service: asyncio.Task[None], sums: Sums, added: int) -> None:
    """Wait until all that was added is in the sums."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while sums.entries < added and not service.done() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


async def serve(url: str, producers: int, seconds: float) -> bool:
    """Run it all; tell whether it ended with nothing left over."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # as on Windows
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sums = Sums()
    batches = redis.iter_stream_async(
        url,
        STREAM,
        schema=SCHEMA,
        batch_size=1000,
        group=GROUP,
        consumer="service-1",
        linger_ms=LINGER_MS,
    )
    async with batches:
        service = asyncio.create_task(consume(batches, sums))
        reporter = asyncio.create_task(report(sums))
        sensors = [f"sensor-{number + 1}" for number in range(producers)]
        producing = [asyncio.create_task(produce(url, sensor, stop)) for sensor in sensors]
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        stop.set()
        added = sum(await asyncio.gather(*producing))
        await drained(service, sums, added)
        reporter.cancel()
        # The batch that the service has in hand is acknowledged before its loop ends.
        await batches.aclose()
        await service
    print(f"\nstopped: {sums} of {added:,} that were added")
    print(f"the slowest was in the sums {sums.slowest_ms} ms after it was added")
    print(sums.frame.with_columns(mean=(pl.col("sum") / pl.col("count")).round(2)))
    return sums.entries == added and await pending(url) == 0


async def pending(url: str) -> int:
    """Entries that nobody has acknowledged."""
    async with redis_py.Redis.from_url(url) as client:
        found: Any = await client.xpending(STREAM, GROUP)
    count = int(found["pending"])
    print(f"pending: {count}")
    return count


def main() -> int:
    """Show it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--producers", type=int, default=4, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="default %(default)s")
    options = parser.parse_args()
    with EmbeddedRedis() as server:
        version = ".".join(map(str, server.binary.version))
        print(f"Redis {version} ({server.binary.source}) on port {server.port}\n")
        well = asyncio.run(serve(server.url, options.producers, options.seconds))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
