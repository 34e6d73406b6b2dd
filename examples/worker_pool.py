"""A pool of workers that are killed at random, and lose nothing.

Starts a redis-server of its own, fills a stream, and lets worker processes share it as consumers
of a group: each acknowledges a batch once it has processed it. Meanwhile workers are killed with
SIGKILL while they have entries in hand, and new ones are started, with new names. What a dead
worker had not acknowledged goes to the others. It ends when all is acknowledged, and shows how
often each entry was processed: every one at least once. ::

    python examples/worker_pool.py
    python examples/worker_pool.py --entries 100000 --workers 8 --kills 50
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl
import redis as redis_py

import polars_redis as redis
from embedded_redis import EmbeddedRedis

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

STREAM, GROUP = "orders", "billing"
#: How often each entry was processed, kept by the workers.
PROCESSED = "processed"
BATCH_SIZE = 100
#: Entries of a worker that has not been heard of for so long are taken over by others. Longer
#: than a batch ever takes, in earnest: a worker that is slow is then not taken for a dead one.
CLAIM_IDLE_MS = 500
#: How long a batch takes at the most.
WORK_SECONDS = 0.02
DEADLINE_SECONDS = 120.0


def work(url: str, consumer: str) -> None:
    """One worker, for as long as it lives."""
    with (
        redis_py.Redis.from_url(url) as results,
        redis.iter_stream(
            url,
            STREAM,
            schema={"amount": pl.Int64},
            batch_size=BATCH_SIZE,
            group=GROUP,
            consumer=consumer,
            claim_idle_ms=CLAIM_IDLE_MS,
            # Without its server it has nothing to wait for.
            reconnect_timeout_ms=2_000,
        ) as batches,
    ):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: batches.close())
        for df in batches:
            process(results, df)
            # Only now: whoever dies before this line leaves the batch to others.
            batches.ack()


def process(results: redis_py.Redis, df: pl.DataFrame) -> None:
    """Leave a trace of each entry, in the middle of what takes some time."""
    time.sleep(random.uniform(0, WORK_SECONDS / 2))
    with results.pipeline() as pipeline:
        for entry_id in df["_id"]:
            pipeline.hincrby(PROCESSED, entry_id, 1)
        pipeline.execute()
    # Whoever dies here leaves behind what others will do a second time.
    time.sleep(random.uniform(0, WORK_SECONDS / 2))


class Pool:
    """Worker processes, each with a name that none had before it."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Not forked, as threads of this process would be missing in the children.
        self._context = multiprocessing.get_context("spawn")
        self._alive: dict[str, SpawnProcess] = {}
        self._started = 0

    def start(self) -> str:
        """Start one more."""
        self._started += 1
        name = f"worker-{self._started}"
        process = self._context.Process(target=work, args=(self._url, name), daemon=True)
        process.start()
        self._alive[name] = process
        return name

    def kill(self, name: str) -> bool:
        """Kill one, if it is alive."""
        process = self._alive.pop(name, None)
        if process is None:
            return False
        process.kill()
        process.join()
        return True

    def stop(self) -> None:
        """Ask all to end, and wait for them."""
        for process in self._alive.values():
            process.terminate()
        for process in self._alive.values():
            process.join()
        # One that had not begun its work yet is ended by the signal itself.
        well = (0, -signal.SIGTERM)
        failed = [name for name, process in self._alive.items() if process.exitcode not in well]
        if failed:
            message = f"did not end well: {', '.join(failed)}"
            raise RuntimeError(message)


def fill(client: redis_py.Redis, entries: int) -> None:
    """Write the entries that are to be processed."""
    pipeline = client.pipeline(transaction=False)
    for number in range(entries):
        pipeline.xadd(STREAM, {"order": number, "amount": number % 100})
        if number % 1000 == 999:
            pipeline.execute()
    pipeline.execute()


def in_hand(client: redis_py.Redis) -> dict[str, int]:
    """Entries that each consumer was given and has not acknowledged."""
    try:
        consumers: Any = client.xinfo_consumers(STREAM, GROUP)
    except redis_py.ResponseError:
        return {}  # no worker has made the group yet
    return {one["name"].decode(): one["pending"] for one in consumers if one["pending"]}


def run(client: redis_py.Redis, pool: Pool, entries: int, kills: int) -> None:
    """Kill and replace workers, until all is acknowledged."""
    began = time.monotonic()
    killed = 0
    while True:
        time.sleep(random.uniform(0, 0.1))
        passed = time.monotonic() - began
        busy = in_hand(client)
        if not busy and client.hlen(PROCESSED) == entries:
            return
        if passed > DEADLINE_SECONDS:
            message = f"not done after {DEADLINE_SECONDS:.0f} s; in hand: {busy}"
            raise RuntimeError(message)
        if killed < kills and busy:
            name = random.choice(sorted(busy))
            if pool.kill(name):
                killed += 1
                heir = pool.start()
                print(f"{passed:5.1f} s  killed {name} with entries in hand, started {heir}")


def report(client: redis_py.Redis, entries: int) -> bool:
    """Print how often the entries were processed; tell whether each one was."""
    counts: Any = client.hgetall(PROCESSED)
    times = Counter(int(count) for count in counts.values())
    pending: Any = client.xpending(STREAM, GROUP)
    print(f"\n{'processed':<12} {len(counts):>9,} of {entries:,}")
    print(f"{'once':<12} {times.pop(1, 0):>9,}")
    print(f"{'twice':<12} {times.pop(2, 0):>9,}")
    print(f"{'more often':<12} {sum(times.values()):>9,}")
    print(f"{'lost':<12} {entries - len(counts):>9,}")
    print(f"{'pending':<12} {pending['pending']:>9,}")
    return len(counts) == entries and pending["pending"] == 0


def main() -> int:
    """Show it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=20_000, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=3, help="default %(default)s")
    parser.add_argument("--kills", type=int, default=6, help="at the most; default %(default)s")
    options = parser.parse_args()
    with EmbeddedRedis() as server, redis_py.Redis.from_url(server.url) as client:
        version = ".".join(map(str, server.binary.version))
        print(f"Redis {version} ({server.binary.source}) on port {server.port}")
        fill(client, options.entries)
        print(f"{options.entries:,} entries, {options.workers} workers\n")
        pool = Pool(server.url)
        for _ in range(options.workers):
            pool.start()
        try:
            run(client, pool, options.entries, options.kills)
        finally:
            pool.stop()
        return 0 if report(client, options.entries) else 1


if __name__ == "__main__":
    sys.exit(main())
