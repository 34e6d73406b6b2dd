"""Who writes while a test reads: a producer that no failover stops, and what came of its entries."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import redis

from support.iterators import PATIENCE, wait_until
from support.servers import ServerError
from support.streams import id_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import polars as pl
    from typing_extensions import Self

#: What the last entry of a stream counts, so that who reads knows that it was the last.
LAST = -1


class Producer(threading.Thread):
    """Adds entries whose field ``n`` counts them, again and again until it is told to stop.

    Parameters
    ----------
    add
        Adds one entry, given its number.
    pause
        Seconds between two of them.
    """

    def __init__(self, add: Callable[[int], object], pause: float = 0.001) -> None:
        super().__init__()
        self._add = add
        self._pause = pause
        self._done = threading.Event()
        #: How many entries were added, and the last reason why one was not.
        self.added = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        n = 0
        while not self._done.wait(self._pause):
            n += 1
            try:
                self._add(n)
            except (redis.RedisError, OSError, ServerError) as failure:
                self.failure = failure
            else:
                self.added += 1

    def add_more(self, entries: int) -> None:
        """Wait until so many more entries were added."""
        due = self.added + entries
        wait_until(lambda: self.added >= due, 2 * PATIENCE, f"{entries} entries ({self.failure!r})")

    def stop(self) -> None:
        """End it; what it added is there."""
        self._done.set()
        self.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def ids_of(frames: Iterable[pl.DataFrame]) -> list[str]:
    """Give the IDs of all rows, in order."""
    return [entry_id for df in frames for entry_id in df["_id"]]


def ids_in(client: Any, stream: str) -> list[str]:
    """Give the IDs of all entries that a server has."""
    return [entry_id.decode() for entry_id, _ in client.xrange(stream)]


def read_to_last(batches: Iterable[pl.DataFrame], frames: list[pl.DataFrame]) -> None:
    """Read up to the entry that is `LAST`, and add what comes to `frames`."""
    for df in batches:
        frames.append(df)
        if LAST in df["n"]:
            return


def assert_each_once(frames: list[pl.DataFrame], there: list[str]) -> None:
    """Check that all that is there was read, in order, and nothing twice.

    What is not there any more, as a master took it to its grave, may have been read too.
    """
    read = ids_of(frames)
    assert read == sorted(set(read), key=id_key)
    assert missing(frames, there) == []


def missing(frames: list[pl.DataFrame], there: list[str]) -> list[str]:
    """Give the IDs that are there and were not read."""
    read = set(ids_of(frames))
    return [entry_id for entry_id in there if entry_id not in read]
