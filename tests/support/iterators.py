"""Iterators for tests: both kinds driven alike, and the moment at which one waits."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import polars_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl
    import redis as redis_py
    from typing_extensions import Self

    from polars_redis import StreamStats

#: Both kinds of iterator, see `iterating`.
KINDS = ["sync", "async"]
#: How long to wait for what is bound to come.
PATIENCE = 30.0
#: What iterators over streams are tried with: without a group, and with one in each way.
GROUP = {"group": "g", "consumer": "c"}
MODES: list[dict[str, Any]] = [
    {},
    GROUP,
    {**GROUP, "auto_ack": True},
    {**GROUP, "include_delivery_count": True},
]
MODE_NAMES = ["plain", "group", "auto_ack", "counting"]


class Driven:
    """An asynchronous iterator, advanced from outside of its loop as if it were a plain one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, iterator: polars_redis.AsyncStreamIterator
    ) -> None:
        self._loop = loop
        self._iterator = iterator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pl.DataFrame:
        try:
            return self._loop.run_until_complete(self._iterator.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        self._loop.run_until_complete(self._iterator.__aenter__())
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.run_until_complete(self._iterator.__aexit__(*exception))

    def __repr__(self) -> str:
        return repr(self._iterator)

    def close(self) -> None:
        self._loop.run_until_complete(self._iterator.aclose())

    def ack(self, frame: pl.DataFrame | None = None) -> int:
        return self._loop.run_until_complete(self._iterator.ack(frame))

    @property
    def last_id(self) -> str | None:
        return self._iterator.last_id

    @property
    def last_ids(self) -> dict[str, str]:
        return self._iterator.last_ids

    @property
    def stats(self) -> StreamStats:
        return self._iterator.stats


@contextmanager
def iterating(kind: str, verb: str = "iter_stream") -> Iterator[Callable[..., Any]]:
    """Give `iter_stream`, or what looks like it and is `iter_stream_async`; closes what it made."""
    with ExitStack() as made:
        if kind == "async":
            loop = asyncio.new_event_loop()
            made.callback(loop.close)

        def make(*args: Any, **options: Any) -> Any:
            iterator: Any
            if kind == "sync":
                iterator = getattr(polars_redis, verb)(*args, **options)
            else:
                awaited = getattr(polars_redis, f"{verb}_async")(*args, **options)
                iterator = Driven(loop, awaited)
            made.callback(iterator.close)
            return iterator

        yield make


def wait_until(
    condition: Callable[[], object],
    seconds: float = PATIENCE,
    what: str = "it",
    pause: float = 0.002,
) -> None:
    """Wait until something is so; fail if it does not come to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came to be"
        time.sleep(pause)


async def rows_in_a_storm(
    frames: polars_redis.AsyncStreamIterator, rows: int
) -> list[pl.DataFrame]:
    """Read so many rows, every other await of which is cancelled soon after it began."""
    choose = random.Random(0)
    found: list[pl.DataFrame] = []
    cancelled = 0
    while sum(df.height for df in found) < rows:
        task = asyncio.ensure_future(frames.__anext__())
        for _ in range(choose.randint(1, 6)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            found.append(await task)
        except asyncio.CancelledError:
            cancelled += 1
            found.append(await asyncio.wait_for(frames.__anext__(), PATIENCE))
    assert cancelled > 5, "it was no storm"
    return found


def named(url: str, name: str) -> str:
    """Give the URL whose connections the server lists by this name."""
    return f"{url}{'&' if '?' in url else '?'}client_name={name}"


def connections_of(client: redis_py.Redis, name: str) -> list[dict[str, str]]:
    """List the connections of this name that the server knows of."""
    return [known for known in client.client_list() if known["name"] == name]


def is_blocked(client: redis_py.Redis, name: str) -> bool:
    """Tell whether a connection of this name waits for entries."""
    return any("b" in known["flags"] for known in connections_of(client, name))


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread, and fail if that fails."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def once_blocked(client: redis_py.Redis, name: str, act: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread as soon as a connection of this name waits for entries."""

    def wait_and_act() -> None:
        wait_until(lambda: is_blocked(client, name))
        act()

    with meanwhile(wait_and_act):
        yield
