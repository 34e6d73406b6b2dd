"""Real-time analytics: sensors write to a stream, workers add up what comes, a page shows it.

Producers write measurements of sensors to a stream, some at a time. Workers share the stream as
consumers of a group: each adds up the batches that it gets, by sensor and window of time, and
keeps what it has as hashes. In the end the hashes of all workers are put together, and drawn as
one HTML file that needs nothing else. Uses the server of REDIS_URL, where it leaves nothing behind,
or starts a redis-server of its own. ::

    python examples/analytics.py
    python examples/analytics.py --seconds 30 --workers 4 --out analytics.html
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import redis as redis_py

import analytics_chart
import polars_redis as redis
from embedded_redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

#: Its keys are its own, and are removed before and after.
STREAM, GROUP = "polars-redis:analytics:metrics", "analytics"
#: What the keys of the hashes begin with.
HASHES = "polars-redis:analytics:sums:"
SCHEMA = {"sensor_id": pl.String, "value": pl.Float64}
#: What is known of the measurements of a sensor in a window of time.
SUMS = {
    "window": pl.Int64,
    "sensor_id": pl.String,
    "count": pl.Int64,
    "total": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}
SENSORS_OF_A_PRODUCER = 2
MEASUREMENTS_OF_A_SENSOR = 10
#: How long a producer collects measurements before it writes them.
PAUSE_SECONDS = 0.02
#: How long a worker waits for a fuller batch, which is less work an entry.
LINGER_MS = 20
#: How many windows the whole run is cut into, about, and how short they may get.
WINDOWS, SHORTEST_WINDOW_MS = 40, 50
DRAIN_SECONDS = 60.0


def produce(url: str, number: int, stop: threading.Event) -> int:
    """Write measurements until it is time to stop; how many there were."""
    first = number * SENSORS_OF_A_PRODUCER
    sensors = range(first, first + SENSORS_OF_A_PRODUCER)
    written = 0
    while True:
        rows = [measure(n) for n in sensors for _ in range(MEASUREMENTS_OF_A_SENSOR)]
        df = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        written += redis.write_stream(url, df, STREAM).len()
        if stop.wait(PAUSE_SECONDS):
            return written


def measure(number: int) -> tuple[str, float]:
    """What a sensor measures now: each has its own level, swing and noise."""
    swing = math.sin(time.time() * 2 * math.pi / (2 + number) + number)
    value = 18 + 2 * number + (2 + number % 3) * swing + random.gauss(0, 0.8)
    return f"sensor-{number + 1}", round(value, 2)


class Worker:
    """One consumer of the group, and what it has added up."""

    def __init__(self, url: str, name: str, window_ms: int) -> None:
        self.name = name
        self.batches = redis.iter_stream(
            url,
            STREAM,
            schema=SCHEMA,
            batch_size=1000,
            linger_ms=LINGER_MS,
            group=GROUP,
            consumer=name,
            auto_ack=True,
        )
        #: How old the oldest entry of each batch was when its sums were written.
        self.delays_ms: list[int] = []
        self.entries = 0
        self._url = url
        self._window_ms = window_ms
        self._sums = pl.DataFrame(schema=SUMS)

    def work(self) -> None:
        """Add up batch after batch, and write what has changed; until the iterator is closed."""
        for df in self.batches:
            of_batch = self._windows(df)
            self._sums = merged([self._sums, of_batch])
            changed = self._sums.join(of_batch, on=["window", "sensor_id"], how="semi")
            # The worker's name is in the key: no other one writes there.
            key = pl.format("{}:{}:{}", "window", "sensor_id", pl.lit(self.name))
            redis.write_hashes(self._url, changed.with_columns(_key=key), key_prefix=HASHES)
            self.entries += df.height
            self.delays_ms.append(int(time.time() * 1000) - int(df["_ts"][0]))

    def _windows(self, df: pl.DataFrame) -> pl.DataFrame:
        # An entry ID begins with the time at which the server added the entry.
        window = pl.col("_ts") // self._window_ms * self._window_ms
        value = pl.col("value")
        return merged(
            [
                df.select(
                    "sensor_id",
                    window=window,
                    count=pl.lit(1, pl.Int64),
                    total=value,
                    low=value,
                    high=value,
                ).select(*SUMS)
            ]
        )


def merged(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The sums of the same sensor and window as one."""
    return (
        pl.concat(parts)
        .group_by("window", "sensor_id")
        .agg(pl.col("count", "total").sum(), pl.col("low").min(), pl.col("high").max())
        .sort("window", "sensor_id")
    )


def run(url: str, producers: int, workers: list[Worker], seconds: float) -> int:
    """Produce for some seconds, and work until all of it is added up; how much was written."""
    stop = threading.Event()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(producers + len(workers)))
        # Before the pool waits for its threads, whatever has happened, they are to end.
        for worker in workers:
            stack.callback(worker.batches.close)
        stack.callback(stop.set)
        working = [pool.submit(worker.work) for worker in workers]
        producing = [pool.submit(produce, url, number, stop) for number in range(producers)]
        stop.wait(seconds)
        stop.set()
        written = sum(one.result() for one in producing)
        drain(workers, working, written)
    for one in working:
        one.result()
    return written


def drain(workers: list[Worker], working: list[Future[None]], written: int) -> None:
    """Wait until all that was written is added up."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while sum(worker.entries for worker in workers) < written:
        if any(one.done() for one in working) or time.monotonic() > deadline:
            return
        time.sleep(0.005)


def kept(client: redis_py.Redis) -> pl.DataFrame:
    """The sums of all workers, read back from the hashes."""
    with client.pipeline(transaction=False) as pipeline:
        for key in client.scan_iter(f"{HASHES}*", count=1000):
            pipeline.hgetall(key)
        hashes: list[Any] = pipeline.execute()
    rows = [{name.decode(): text.decode() for name, text in one.items()} for one in hashes]
    texts = pl.DataFrame(rows, schema=dict.fromkeys(SUMS, pl.String))
    return merged([texts.cast(SUMS)])  # type: ignore[arg-type]  # the dtypes of names are meant


def forget(client: redis_py.Redis) -> None:
    """Remove all keys that this program makes."""
    client.delete(STREAM, *client.scan_iter(f"{HASHES}*", count=1000))


def report(url: str, written: int, sums: pl.DataFrame) -> bool:
    """Print whether everything written is in the sums, and nothing is left over."""
    added_up = int(sums["count"].sum())
    pending = int(redis.stream_info(url, STREAM)["pending"].sum())
    print(f"{'written':<10} {written:>9,}")
    print(f"{'added up':<10} {added_up:>9,}")
    print(f"{'pending':<10} {pending:>9,}")
    return added_up == written and pending == 0


@contextmanager
def server_url() -> Iterator[str]:
    """The server that was given, or one of our own."""
    given = os.environ.get("REDIS_URL")
    if given:
        yield given
        return
    with EmbeddedRedis() as server:
        version = ".".join(map(str, server.binary.version))
        print(f"Redis {version} ({server.binary.source}) on port {server.port}\n")
        yield server.url


def main() -> int:
    """Show it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--producers", type=int, default=3, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, help="default %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("analytics.html"), help="default %(default)s"
    )
    options = parser.parse_args()
    window_ms = max(SHORTEST_WINDOW_MS, round(options.seconds * 1000 / WINDOWS))
    with server_url() as url, redis_py.Redis.from_url(url) as client:
        forget(client)
        workers = [Worker(url, f"worker-{n + 1}", window_ms) for n in range(options.workers)]
        try:
            written = run(url, options.producers, workers, options.seconds)
            sums = kept(client)
            well = report(url, written, sums)
        finally:
            forget(client)
    page = analytics_chart.page(
        sums,
        window_ms,
        entries={worker.name: worker.entries for worker in workers},
        delays_ms=[delay for worker in workers for delay in worker.delays_ms],
    )
    options.out.write_text(page, encoding="utf-8")
    print(f"\nthe chart is in {options.out}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
