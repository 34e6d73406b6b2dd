"""Iterators among other things of their process: signals, threads, tasks, forks, leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from support.iterators import (
    KINDS,
    connections_of,
    is_blocked,
    iterating,
    meanwhile,
    named,
    once_blocked,
    wait_until,
)
from support.streams import add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.proxy import Proxy
    from support.servers import Server

SCHEMA = {"n": pl.Int64}
HOUR = 3_600_000
#: Promised are 0.2 s; the rest is for a machine that is busy with other things.
SOON = 1.0

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
needs_timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="there are no timers here"
)


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`iter_stream`, and then `iter_stream_async`, as a plain iterator."""
    with iterating(request.param) as make:
        yield make


@pytest.fixture
def name(stream: str) -> str:
    """A name by which the server knows the connections of one test."""
    return stream.partition(":")[2]


def numbers(first: int, last: int) -> list[str]:
    return [f"{n}-0" for n in range(first, last + 1)]


def add_slowly(client: redis_py.Redis, stream: str, ids: list[str]) -> None:
    """Add numbered entries in bursts, with pauses in which a reader has to wait."""
    chance = random.Random(1)
    n = 0
    while n < len(ids):
        burst = chance.choice((1, 1, 1, 3, 20))
        with client.pipeline(transaction=False) as pipeline:
            for entry_id in ids[n : n + burst]:
                pipeline.xadd(stream, {"n": n}, id=entry_id)
                n += 1
            pipeline.execute()
        time.sleep(chance.choice((0, 0.001, 0.003)))


def assert_all(frames: list[pl.DataFrame], ids: list[str]) -> None:
    # Without Polars' own threads, which a forked child does not have.
    assert [entry_id for df in frames for entry_id in df["_id"].to_list()] == ids
    assert [n for df in frames for n in df["n"].to_list()] == list(range(len(ids)))


# -- interrupts ----------------------------------------------------------------


INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
import polars_redis as redis

url, kind = sys.argv[1:]
times = []
def interrupt():
    sys.stdin.readline()
    times.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

async def wait(it):
    async for _ in it:
        pass

threading.Thread(target=interrupt, daemon=True).start()
print("reading", flush=True)
it = None
try:
    if kind == "sync":
        it = redis.iter_stream(url, "s", block_ms=0)
        next(it)
    elif kind == "read":
        redis.read_stream(url, "s", block_ms=0)
    else:
        asyncio.run(wait(redis.iter_stream_async(url, "s", block_ms=0)))
except KeyboardInterrupt:
    print(time.monotonic() - times[0], flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to oneself")
@pytest.mark.parametrize("kind", ["sync", "async", "read"])
def test_ctrl_c_ends_a_wait(client: redis_py.Redis, redis_url: str, name: str, kind: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, named(redis_url, name), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    wait_until(lambda: is_blocked(client, name))
    told, _ = process.communicate("now\n", timeout=60)
    assert float(told) < SOON
    assert process.returncode == 0


class Interrupts:
    """Raises `KeyboardInterrupt` in the main thread, by a timer, at random moments."""

    def __init__(self, seed: int, longest: float) -> None:
        self._chance = random.Random(seed)
        self._longest = longest
        self.count = 0

    def __enter__(self) -> Interrupts:
        # Whoever else uses this timer gets it back.
        self._timer = signal.setitimer(signal.ITIMER_REAL, 0)
        # What others call back from the collector cannot raise, and would swallow an interrupt.
        gc.disable()
        self._before = signal.signal(signal.SIGALRM, self._raise)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        signal.setitimer(signal.ITIMER_REAL, *self._timer)
        gc.enable()

    def _raise(self, *_: object) -> None:
        raise KeyboardInterrupt

    def arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(1e-5, self._longest))

    def disarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def read_all(self, frames: Any) -> list[pl.DataFrame]:
        """Iterate to the end through all the interrupts; only one can be pending at a time."""
        found: list[pl.DataFrame] = []
        ended = False
        while not ended:
            try:
                self.arm()
                for df in frames:
                    found.append(df)
                self.disarm()
                ended = True
            except KeyboardInterrupt:
                self.count += 1
        return found


@needs_timers
@pytest.mark.parametrize("batch_size", [1, 7, 1_000])
def test_interrupts_at_any_moment_of_a_backlog_lose_nothing(
    client: redis_py.Redis, redis_url: str, stream: str, batch_size: int
) -> None:
    ids = add_numbered(client, stream, (f"{n // 5 + 1}-{n % 5}" for n in range(5_000)))
    interrupts = Interrupts(batch_size, 0.002)
    with interrupts:
        # Over and over, until there were many; a frame of many rows comes fast.
        while interrupts.count < 150:
            with iterating("sync") as iterate:
                frames = iterate(redis_url, stream, SCHEMA, batch_size, block_ms=None)
                assert_all(interrupts.read_all(frames), ids)
                assert frames.stats.entries == len(ids)


@needs_timers
def test_interrupts_at_any_moment_of_a_tail_lose_nothing(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = numbers(1, 3_000)
    interrupts = Interrupts(3, 0.02)
    with iterating("sync") as iterate:
        frames = iterate(redis_url, stream, SCHEMA, 5, block_ms=30, count=len(ids), linger_ms=1)
        with meanwhile(lambda: add_slowly(client, stream, ids)), interrupts:
            found = interrupts.read_all(frames)
    assert_all(found, ids)
    assert interrupts.count > 10


@needs_timers
def test_an_interrupt_ends_the_wait_for_a_server_that_is_away(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "polars_redis")
    proxy = make_proxy(server)
    ids = add_numbered(client, stream, ["1-0", "2-0"])
    interrupts = Interrupts(4, 0.3)
    with iterating("sync") as iterate, interrupts:
        frames = iterate(f"redis://127.0.0.1:{proxy.port}", stream, SCHEMA, 1, block_ms=20)
        found = [next(frames), next(frames)]
        proxy.refuse()
        proxy.cut_all()
        for _ in range(3):
            began = time.monotonic()
            interrupts.arm()
            with pytest.raises(KeyboardInterrupt):
                next(frames)
            assert time.monotonic() - began < 0.3 + SOON
        proxy.accept()
        client.xadd(stream, {"n": 2}, id="3-0")
        found.append(next(frames))
    assert_all(found, [*ids, "3-0"])
    assert "connected again" in caplog.text


# -- closing -------------------------------------------------------------------


def test_closing_from_another_thread_ends_a_wait(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    for block_ms in (20, HOUR, 0):
        with iterating("sync") as iterate:
            frames = iterate(named(redis_url, name), stream, block_ms=block_ms)
            closed: list[float] = []

            def close(frames: Any = frames, closed: list[float] = closed) -> None:
                closed.append(time.monotonic())
                frames.close()

            with once_blocked(client, name, close):
                assert list(frames) == []
                assert time.monotonic() - closed[0] < SOON
        # What waits for nobody is not kept.
        wait_until(lambda: not is_blocked(client, name))


def test_closing_from_many_threads_at_any_moment(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = add_numbered(client, stream, numbers(1, 2_000))
    chance = random.Random(5)
    for _ in range(60):
        frames = redis.iter_stream(redis_url, stream, SCHEMA, 10, 20)
        found: list[pl.DataFrame] = []
        pause = chance.uniform(0, 0.02)

        def close(frames: Any = frames, pause: float = pause) -> None:
            time.sleep(pause)
            frames.close()

        with meanwhile(close), meanwhile(close):
            found.extend(frames)
        assert [entry_id for df in found for entry_id in df["_id"]] == ids[: 10 * len(found)]
        assert frames.last_id == (found[-1]["_id"][-1] if found else None)


def test_closing_by_another_task_ends_a_wait(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    async def wait_and_close() -> tuple[list[pl.DataFrame], float]:
        frames = redis.iter_stream_async(named(redis_url, name), stream, block_ms=0)

        async def read() -> list[pl.DataFrame]:
            return [df async for df in frames]

        reading = asyncio.create_task(read())
        while not await asyncio.to_thread(is_blocked, client, name):
            assert not reading.done()
        began = time.monotonic()
        await frames.aclose()
        return await reading, time.monotonic() - began

    found, took = asyncio.run(wait_and_close())
    assert found == []
    assert took < SOON


# -- cancellation --------------------------------------------------------------


async def read_cancelled(
    frames: Any, chance: random.Random, longest: float
) -> tuple[list[pl.DataFrame], int]:
    """Read to the end; every wait is cut short at a random moment, in one of three ways."""
    found: list[pl.DataFrame] = []
    cancelled = 0
    way = 0
    while True:
        way += 1
        pause = chance.choice((0, chance.uniform(0, longest)))
        try:
            if way % 3 == 0:
                found.append(await asyncio.wait_for(frames.__anext__(), pause))
                continue
            task = asyncio.ensure_future(frames.__anext__())
            if way % 3 == 1:
                await asyncio.sleep(pause)
            else:
                await asyncio.wait([task], timeout=pause)
            task.cancel()
            found.append(await task)
        except (asyncio.CancelledError, asyncio.TimeoutError):
            cancelled += 1
        except StopAsyncIteration:
            return found, cancelled


@pytest.mark.parametrize("batch_size", [1, 10, 1_000])
def test_a_backlog_cancelled_at_any_moment_loses_nothing(
    client: redis_py.Redis, redis_url: str, stream: str, batch_size: int
) -> None:
    ids = add_numbered(client, stream, (f"{n // 5 + 1}-{n % 5}" for n in range(2_000)))
    chance = random.Random(batch_size)

    async def read() -> int:
        frames = redis.iter_stream_async(redis_url, stream, SCHEMA, batch_size, None)
        async with frames:
            found, cancelled = await read_cancelled(frames, chance, 0.0006)
            assert_all(found, ids)
            assert frames.stats.entries == len(ids)
        return cancelled

    async def read_often() -> None:
        cancelled = 0
        while cancelled < 1_000:
            cancelled += await read()

    asyncio.run(read_often())


def test_a_tail_cancelled_a_thousand_times_loses_nothing(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = numbers(1, 3_000)

    async def read() -> tuple[list[pl.DataFrame], int]:
        frames = redis.iter_stream_async(
            redis_url, stream, SCHEMA, 5, 3, count=len(ids), linger_ms=1
        )
        async with frames:
            return await read_cancelled(frames, random.Random(6), 0.002)

    with meanwhile(lambda: add_slowly(client, stream, ids)):
        found, cancelled = asyncio.run(read())
    assert_all(found, ids)
    assert cancelled > 1_000


def test_cancelled_over_a_line_that_is_cut_loses_nothing(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = numbers(1, 1_000)
    proxy = make_proxy(server)
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.03):
            proxy.cut_all()

    async def read() -> tuple[list[pl.DataFrame], int]:
        url = f"redis://127.0.0.1:{proxy.port}"
        frames = redis.iter_stream_async(url, stream, SCHEMA, 5, 3, count=len(ids))
        async with frames:
            # So long that there is some progress now and then.
            return await read_cancelled(frames, random.Random(7), 0.01)

    with meanwhile(cut), meanwhile(lambda: add_slowly(client, stream, ids)):
        try:
            found, cancelled = asyncio.run(read())
        finally:
            done.set()
    assert_all(found, ids)
    assert cancelled > 100


def test_several_tasks_advance_one_iterator(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = numbers(1, 2_000)

    async def read() -> list[pl.DataFrame]:
        found: list[pl.DataFrame] = []
        frames = redis.iter_stream_async(redis_url, stream, SCHEMA, 3, 5, count=len(ids))

        async def one() -> None:
            async for df in frames:
                found.append(df)

        async with frames:
            await asyncio.gather(*(one() for _ in range(8)))
        return found

    with meanwhile(lambda: add_slowly(client, stream, ids)):
        found = asyncio.run(read())
    # Which task gets which frame, and resumes first, is up to the loop.
    assert_all(sorted(found, key=lambda df: df["n"][0]), ids)


def test_one_loop_after_another_advances_one_iterator(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = add_numbered(client, stream, numbers(1, 1_000))
    frames = redis.iter_stream_async(redis_url, stream, SCHEMA, 100, 20)

    async def advance() -> pl.DataFrame:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(frames.__anext__(), 0)
        return await frames.__anext__()

    found: list[pl.DataFrame] = []
    while sum(df.height for df in found) < len(ids):
        # An await that is cut short by its end may have been given a frame.
        found.append(asyncio.run(advance()))
        missed = int(found[-1]["n"][0]) - sum(df.height for df in found[:-1])
        assert missed == 0
    asyncio.run(frames.aclose())
    assert_all(found, ids)


# -- threads -------------------------------------------------------------------


def test_several_threads_advance_one_iterator(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = numbers(1, 3_000)
    with iterating("sync") as iterate:
        frames = iterate(redis_url, stream, SCHEMA, 3, 5, count=len(ids))
        with (
            meanwhile(lambda: add_slowly(client, stream, ids)),
            ThreadPoolExecutor(6) as pool,
        ):
            parts = [pool.submit(list, frames) for _ in range(6)]
            found = [df for part in parts for df in part.result()]
    assert_all(sorted(found, key=lambda df: df["n"][0]), ids)
    for part in parts:
        seen = [df["n"][0] for df in part.result()]
        assert seen == sorted(seen)


def test_one_thread_after_another_advances_one_iterator(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = add_numbered(client, stream, numbers(1, 2_000))
    frames = redis.iter_stream(redis_url, stream, SCHEMA, 50, None)
    found: list[pl.DataFrame] = []
    while sum(df.height for df in found) < len(ids):
        with meanwhile(lambda: found.append(next(frames))):
            pass
    frames.close()
    assert_all(found, ids)


def test_other_threads_run_while_it_waits(
    client: redis_py.Redis, redis_url: str, stream: str, name: str, iterate: Callable[..., Any]
) -> None:
    counted = 0

    def count() -> None:
        nonlocal counted
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            counted += 1
        client.xadd(stream, {"n": 1})

    with once_blocked(client, name, count):
        assert next(iterate(named(redis_url, name), stream, block_ms=HOUR)).height == 1
    assert counted > 1_000


def test_the_loop_runs_on_while_it_waits(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    async def read() -> int:
        turns = 0
        async with redis.iter_stream_async(named(redis_url, name), stream, block_ms=HOUR) as frames:
            waiting = asyncio.ensure_future(frames.__anext__())
            while not await asyncio.to_thread(is_blocked, client, name):
                assert not waiting.done()
            for _ in range(2_000):
                await asyncio.sleep(0)
                turns += 1
            assert not waiting.done()
            client.xadd(stream, {"n": 1})
            assert (await waiting).height == 1
        return turns

    assert asyncio.run(read()) == 2_000


@pytest.mark.parametrize("block_ms", [500, HOUR])
def test_a_wait_takes_no_processor_time(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    name: str,
    iterate: Callable[..., Any],
    block_ms: int,
) -> None:
    took: list[float] = []

    def measure() -> None:
        before = time.process_time()
        time.sleep(1)
        took.append(time.process_time() - before)
        client.xadd(stream, {"n": 1})

    with once_blocked(client, name, measure):
        assert next(iterate(named(redis_url, name), stream, block_ms=block_ms)).height == 1
    assert took[0] < 0.2


# -- forks ---------------------------------------------------------------------


def in_child(act: Callable[[], object]) -> int:
    """Fork a child that does something; its status is 0 if that did not fail."""
    child = os.fork()
    if child == 0:
        # Whatever happens, the child must not go on as a second pytest.
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 60)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def status_of(child: int) -> int:
    return os.waitpid(child, 0)[1]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("advanced", [0, 1, 7])
def test_parent_and_children_go_on_from_the_same_place(
    make_server: Callable[..., Server], advanced: int
) -> None:
    server = make_server()
    client = server.client()
    ids = add_numbered(client, "s", numbers(1, 10_000))
    frames = redis.iter_stream(server.url, "s", SCHEMA, 100, 50, count=10_010)
    found = [next(frames) for _ in range(advanced)]

    def go_on() -> None:
        assert_all(found + list(frames), [*ids, *numbers(10_001, 10_010)])
        frames.close()

    children = [in_child(go_on) for _ in range(3)]
    found_here = found + [next(frames) for _ in range(100 - advanced)]
    with meanwhile(lambda: add_later(server)):
        found_here += list(frames)
    assert_all(found_here, [*ids, *numbers(10_001, 10_010)])
    assert [status_of(child) for child in children] == [0] * 3
    assert frames.stats.reconnects == 0
    frames.close()


def add_later(server: Server) -> None:
    client = server.client()
    for n in range(10_001, 10_011):
        client.xadd("s", {"n": n - 1}, id=f"{n}-0")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("end", ["drop", "close", "exit", "advance"])
def test_what_a_child_does_leaves_the_parent_alone(
    make_server: Callable[..., Server], end: str
) -> None:
    server = make_server()
    client = server.client()
    made = [redis.iter_stream(server.url, "s", SCHEMA, 100, 200)]
    made[0].__enter__()
    client.xadd("s", {"n": 0}, id="1-0")
    found = [next(made[0])]

    def leave() -> None:
        if end == "drop":
            made.clear()
            gc.collect()
        elif end == "close":
            made[0].close()
        elif end == "advance":
            client.connection_pool.disconnect()
            server.client().xadd("s", {"n": 1}, id="2-0")
            assert next(made[0])["n"].to_list() == [1]
            made.clear()

    assert status_of(in_child(leave)) == 0
    if end != "advance":
        client.xadd("s", {"n": 1}, id="2-0")
    began = time.monotonic()
    found.append(next(made[0]))
    assert_all(found, ["1-0", "2-0"])
    # It noticed nothing, and did not wait until a silent server was given up.
    assert time.monotonic() - began < 4
    assert made[0].stats.reconnects == 0
    made[0].close()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_parent_and_child_go_on_asynchronously(make_server: Callable[..., Server]) -> None:
    server = make_server()
    ids = add_numbered(server.client(), "s", numbers(1, 5_000))
    frames = redis.iter_stream_async(server.url, "s", SCHEMA, 100, None)

    async def some() -> list[pl.DataFrame]:
        return [await frames.__anext__() for _ in range(5)]

    async def rest() -> list[pl.DataFrame]:
        return [df async for df in frames]

    found = asyncio.run(some())
    child = in_child(lambda: assert_all(found + asyncio.run(rest()), ids))
    dropping = in_child(gc.collect)
    found += asyncio.run(rest())
    assert_all(found, ids)
    assert [status_of(child), status_of(dropping)] == [0, 0]
    assert frames.stats.reconnects == 0
    asyncio.run(frames.aclose())


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_waits(make_server: Callable[..., Server]) -> None:
    server = make_server()
    client = server.client()
    found: list[pl.DataFrame] = []
    frames = redis.iter_stream(named(server.url, "me"), "s", SCHEMA, block_ms=HOUR)

    def use() -> None:
        # The reader is in the middle of something that only the parent can end.
        with pytest.raises(RuntimeError, match="fork"):
            next(frames)
        fresh = redis.iter_stream(server.url, "other", SCHEMA, block_ms=None)
        assert list(fresh) == []

    with meanwhile(lambda: found.append(next(frames))):
        wait_until(lambda: is_blocked(client, "me"))
        child = in_child(use)
        assert status_of(child) == 0
        client.xadd("s", {"n": 0}, id="1-0")
    assert_all(found, ["1-0"])
    assert frames.stats.reconnects == 0
    frames.close()


# -- leaks ---------------------------------------------------------------------


def descriptors() -> int:
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        pytest.skip("the system does not list a process's descriptors")
    return sum(1 for _ in listing.iterdir())


def system_threads() -> int:
    listing = Path("/proc/self/task")
    if not listing.is_dir():
        pytest.skip("the system does not list a process's threads")
    return sum(1 for _ in listing.iterdir())


def test_an_abandoned_iterator_frees_its_socket(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    add_numbered(client, stream, numbers(1, 5_000))
    url = named(redis_url, name)
    for block_ms in (None, 20):
        frames = redis.iter_stream(url, stream, SCHEMA, 100, block_ms)
        next(frames)
        assert len(connections_of(client, name)) == 1
        cycle: list[Any] = [frames]
        cycle.append(cycle)
        del frames, cycle
        gc.collect()
        wait_until(lambda: not connections_of(client, name))


def test_an_abandoned_asynchronous_iterator_frees_its_socket(
    client: redis_py.Redis, redis_url: str, stream: str, name: str
) -> None:
    url = named(redis_url, name)

    async def abandon(*, waits: bool) -> None:
        frames = redis.iter_stream_async(url, stream, SCHEMA, 100, HOUR)
        add_numbered(client, stream, numbers(1, 500))
        await frames.__anext__()
        if waits:
            for _ in range(4):
                await frames.__anext__()
            task = asyncio.ensure_future(frames.__anext__())
            while not await asyncio.to_thread(is_blocked, client, name):
                assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
        assert len(connections_of(client, name)) == 1
        del frames
        gc.collect()
        deadline = time.monotonic() + 30
        while await asyncio.to_thread(connections_of, client, name):
            assert time.monotonic() < deadline
        client.delete(stream)

    asyncio.run(abandon(waits=False))
    asyncio.run(abandon(waits=True))


def use_many(url: str, stream: str, number: int) -> None:
    """Leave iterators in every way: read to the end, in their middle, closed, abandoned."""
    for n in range(number):
        frames = redis.iter_stream(url, stream, SCHEMA, 10, None if n % 4 else 1)
        if n % 4 == 1:
            assert sum(df.height for df in frames) == 50
        elif n % 4 == 2:
            next(frames)
        elif n % 4 == 3:
            with frames:
                next(frames)


async def use_many_async(url: str, stream: str, number: int) -> None:
    for n in range(number):
        frames = redis.iter_stream_async(url, stream, SCHEMA, 10, None if n % 4 else 1)
        if n % 4 == 1:
            assert sum([df.height async for df in frames]) == 50
        elif n % 4 == 2:
            await frames.__anext__()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(frames.__anext__(), 0)
        elif n % 4 == 3:
            async with frames:
                await frames.__anext__()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_descriptor_and_no_thread_is_left(
    client: redis_py.Redis, redis_url: str, stream: str, host: str
) -> None:
    add_numbered(client, stream, numbers(1, 50))
    url = redis_url.replace("127.0.0.1", host)
    use_many(url, stream, 10)
    asyncio.run(use_many_async(url, stream, 10))
    gc.collect()
    before = descriptors(), system_threads()
    use_many(url, stream, 300)
    asyncio.run(use_many_async(url, stream, 300))
    gc.collect()
    # Up to four connections are kept for the next ones; a thread that looked a name up may
    # stay for some seconds.
    wait_until(lambda: descriptors() <= before[0] + 4)
    wait_until(lambda: system_threads() <= before[1] + 4)
