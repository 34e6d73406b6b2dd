"""Iterating over a stream, batch after batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polars_redis import _core
from polars_redis._arguments import ReadFrom, SchemaLike, StartLike, options
from polars_redis._counts import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import EllipsisType

    import polars as pl
    from typing_extensions import Self

__all__ = [
    "AsyncStreamIterator",
    "StreamIterator",
    "StreamStats",
    "iter_stream",
    "iter_stream_async",
]


_BLOCK_MS = 1000
"""One round of waiting, where nothing else is said."""


@dataclass(frozen=True)
class StreamStats(Counts):
    """What an iterator has done so far; also by name, as ``stats["entries"]``.

    Attributes
    ----------
    batches : int
        Frames handed over.
    entries : int
        Rows of these frames.
    bytes : int
        Bytes of the replies that held entries.
    reconnects : int
        How often a lost connection was made again.
    claimed : int
        Entries taken over from other consumers.
    """

    batches: int
    entries: int
    bytes: int
    reconnects: int
    claimed: int


class StreamIterator(_core.StreamIterator):
    """Frames of a stream, one after another: what `iter_stream` gives.

    It connects when it is first advanced, or entered as a context manager. It
    may be advanced by one thread after another; `close` and `ack` may be called
    by any thread at any time.

    Examples
    --------
    >>> import polars_redis as redis
    >>> with redis.iter_stream("redis://localhost", "events", batch_size=4, block_ms=None) as it:
    ...     for df in it:
    ...         print(df.height, it.last_id)
    4 1704067200003-0
    4 1704067200007-0
    2 1704067200009-0
    >>> it.stats.entries
    10
    """

    def ack(self, frame: pl.DataFrame | None = None) -> int:
        """Acknowledge the last batch, or the entries of a frame (``XACK``).

        Parameters
        ----------
        frame
            A frame with the column of entry IDs, such as a batch or a part of
            one, and with that of keys if the iterator is over several streams;
            None stands for the last batch.

        Returns
        -------
        int
            How many of the entries were pending, and are not any more.

        Raises
        ------
        ValueError
            If the iterator has no group, or the frame does not say which entries of
            which stream it has.
        """
        return super().ack(frame)

    def close(self) -> None:
        """End the iteration; a `next` that waits in another thread ends too.

        What was read from the server and not handed over is dropped: with a
        group it is pending, and is delivered to the next one who comes (or
        acknowledged already, with `auto_ack`).
        """
        super().close()

    @property
    def last_id(self) -> str | None:
        """The ID of the last entry handed over, to go on from there.

        ``start_id="(" + last_id`` begins after it. Of several streams, it is the ID of
        the last row: see `last_ids`.
        """
        return super().last_id

    @property
    def last_ids(self) -> dict[str, str]:
        """The ID of the last entry handed over of each stream that had any.

        ``start_id={key: "(" + last for key, last in last_ids.items()}`` begins after
        them.
        """
        return super().last_ids

    @property
    def stats(self) -> StreamStats:
        """What was done so far."""
        return StreamStats(*self._stats)


class AsyncStreamIterator(_core.AsyncStreamIterator):
    """Frames of a stream, one after another: what `iter_stream_async` gives.

    It connects when it is first advanced, or entered as a context manager.
    Cancelling an await loses nothing: the next one goes on where that stopped.

    Examples
    --------
    >>> import asyncio
    >>> import polars_redis as redis
    >>> async def read() -> None:
    ...     async with redis.iter_stream_async(
    ...         "redis://localhost", "events", batch_size=4, block_ms=None
    ...     ) as batches:
    ...         async for df in batches:
    ...             print(df.height, batches.last_id)
    >>> asyncio.run(read())
    4 1704067200003-0
    4 1704067200007-0
    2 1704067200009-0
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> pl.DataFrame:
        while True:
            await self._advance()
            # Nothing is awaited from here on, so that no cancellation comes
            # between the reader and whoever waits for the frame.
            frame = self._take()
            if frame is not None:
                return frame

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def ack(self, frame: pl.DataFrame | None = None) -> int:
        """Acknowledge the last batch, or the entries of a frame (``XACK``).

        Parameters
        ----------
        frame
            A frame with the column of entry IDs, such as a batch or a part of
            one, and with that of keys if the iterator is over several streams;
            None stands for the last batch.

        Returns
        -------
        int
            How many of the entries were pending, and are not any more.

        Raises
        ------
        ValueError
            If the iterator has no group, or the frame does not say which entries of
            which stream it has.
        """
        return await self._ack(frame)

    async def aclose(self) -> None:
        """End the iteration; another task that waits for a frame ends too.

        What was read from the server and not handed over is dropped: with a
        group it is pending, and is delivered to the next one who comes (or
        acknowledged already, with `auto_ack`).
        """
        await self._close()

    @property
    def last_id(self) -> str | None:
        """The ID of the last entry handed over, to go on from there.

        ``start_id="(" + last_id`` begins after it. Of several streams, it is the ID of
        the last row: see `last_ids`.
        """
        return super().last_id

    @property
    def last_ids(self) -> dict[str, str]:
        """The ID of the last entry handed over of each stream that had any.

        ``start_id={key: "(" + last for key, last in last_ids.items()}`` begins after
        them.
        """
        return super().last_ids

    @property
    def stats(self) -> StreamStats:
        """What was done so far."""
        return StreamStats(*self._stats)


def iter_stream(
    url: str,
    stream: str | Sequence[str],
    schema: SchemaLike | None = None,
    batch_size: int = 100,
    block_ms: int | None = _BLOCK_MS,
    *,
    start_id: StartLike | Mapping[str, StartLike] = "-",
    end_id: StartLike = "+",
    count: int | None = None,
    group: str | None = None,
    consumer: str | None = None,
    auto_ack: bool = False,
    create_group: bool = True,
    include_id: bool = True,
    include_timestamp: bool = True,
    include_sequence: bool = False,
    id_column: str = "_id",
    timestamp_column: str = "_ts",
    sequence_column: str = "_seq",
    include_key: bool = True,
    key_column_name: str = "_key",
    strict: bool = True,
    claim_idle_ms: int | None = 300_000,
    include_delivery_count: bool = False,
    delivery_count_column: str = "_deliveries",
    linger_ms: int = 0,
    reconnect_timeout_ms: int = 300_000,
    max_deliveries: int | None = None,
    dead_letter: str | None = None,
    read_from: ReadFrom = "master",
) -> StreamIterator:
    """Iterate over a stream in frames of up to `batch_size` rows.

    Without a group, the entries from `start_id` on are read, in order, each
    once: those that are there with ``XRANGE``, in large requests ahead of the
    batches, then those that come with ``XREAD BLOCK``.

    With a group, entries are delivered as they become pending for this consumer:
    first what it had been given before and has not acknowledged, then what other
    consumers have not acknowledged for `claim_idle_ms` (looked for again from
    time to time, with ``XPENDING`` and ``XCLAIM``), then what is new
    (``XREADGROUP``). Never more is taken than the next batch holds.

    Of a list of streams, the entries of each come in order; one command asks for
    those of all, and a long backlog of one does not hold up the others.

    A connection that is lost is made again, with growing pauses; the iteration
    goes on where it was, and the logger ``polars_redis`` tells of it.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    stream
        Key of the stream, or a list of keys. It need not exist yet.
    schema
        Field names and dtypes, as for `read_stream`. Without a schema, each frame
        has the fields of its own entries, as String.
    batch_size
        The most rows of a frame.
    block_ms
        Milliseconds of one round of waiting for entries (0: the longest there
        is). The iterator waits round after round, for ever; with None it ends
        where it has caught up.
    start_id
        Without a group, the first entry ID to read, as for `read_stream`. With
        one, ``"-"`` or ``">"``; or an entry ID, for this consumer's own pending
        entries after it, and no others. Of a list of streams, also a mapping of
        their keys to such values; those that it lacks begin at ``"-"``.
    end_id
        The last entry ID to read; the iteration ends when it has been passed.
        Not with a group.
    count
        The most entries to read in all.
    group
        Consumer group to read as.
    consumer
        Name of this consumer in the group; needed with a group.
    auto_ack
        Whether the entries of a frame are acknowledged (``XACK``) before the
        frame is handed over. If not, they are pending until the iterator's
        ``ack()``, or `ack_entries`.
    create_group
        Whether a missing group is made, from the stream's first entry on; also
        if it vanishes later.
    include_id, include_timestamp, include_sequence
        Whether to give the entry ID (String), its milliseconds since the epoch
        (Int64), its sequence number (Int64).
    id_column, timestamp_column, sequence_column
        Names of these columns. They come before the fields.
    include_key, key_column_name
        Whether the first column gives the key of each entry's stream (String), and
        its name; only of a list of streams.
    strict
        Whether a text that does not fit its dtype is an error; if not, it
        becomes null.
    claim_idle_ms
        Milliseconds after which pending entries are taken over from other
        consumers; None never does.
    include_delivery_count
        Whether to give how often each entry has been delivered, this time
        included, as Int64; with a group only.
    delivery_count_column
        Name of that column.
    linger_ms
        Milliseconds to wait longer for a fuller frame, once it has a row.
    reconnect_timeout_ms
        Milliseconds to try to connect again before an error is raised.
    max_deliveries
        With `dead_letter`, how often an entry is delivered at the most.
    dead_letter
        Key of a stream to which an entry goes that was delivered `max_deliveries`
        times and never acknowledged: with its fields, and before them
        ``_stream``, ``_id``, ``_group``, ``_consumer`` and ``_deliveries``. It is
        added there and acknowledged here in one transaction, for which both need the
        same hash slot in a cluster.
    read_from
        ``"replica"`` reads from a server that follows the master, if one can be
        reached: entries come a little later. Not with a group.

    Returns
    -------
    StreamIterator
        An iterator of ``polars.DataFrame``, and a context manager. No frame is
        empty.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.

    Notes
    -----
    `next` raises what `read_stream` does. After that the iterator is still where
    it was: the rows before an entry that cannot be decoded are handed over
    first, and the next `next` comes to that entry again.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> for df in redis.iter_stream(
    ...     "redis://localhost",
    ...     stream="events",
    ...     schema={"action": pl.String, "value": pl.Int64},
    ...     batch_size=5,
    ...     block_ms=None,
    ... ):
    ...     print(df["value"].sum())
    150
    400

    As a worker of a group:

    >>> with redis.iter_stream(
    ...     "redis://localhost",
    ...     stream="events",
    ...     group="sums",
    ...     consumer="worker-1",
    ...     count=10,
    ... ) as batches:
    ...     for df in batches:
    ...         print(df.height, batches.ack())
    10 10

    Several streams, of which only one has entries yet:

    >>> df = next(redis.iter_stream("redis://localhost", ["events", "alerts"], count=2))
    >>> df.select("_key", "action").rows()
    [('events', 'click'), ('events', 'view')]
    """
    return StreamIterator(*_asked(**locals()))


def iter_stream_async(
    url: str,
    stream: str | Sequence[str],
    schema: SchemaLike | None = None,
    batch_size: int = 100,
    block_ms: int | None = _BLOCK_MS,
    *,
    batch_timeout_ms: int | EllipsisType | None = ...,
    start_id: StartLike | Mapping[str, StartLike] = "-",
    end_id: StartLike = "+",
    count: int | None = None,
    group: str | None = None,
    consumer: str | None = None,
    auto_ack: bool = False,
    create_group: bool = True,
    include_id: bool = True,
    include_timestamp: bool = True,
    include_sequence: bool = False,
    id_column: str = "_id",
    timestamp_column: str = "_ts",
    sequence_column: str = "_seq",
    include_key: bool = True,
    key_column_name: str = "_key",
    strict: bool = True,
    claim_idle_ms: int | None = 300_000,
    include_delivery_count: bool = False,
    delivery_count_column: str = "_deliveries",
    linger_ms: int = 0,
    reconnect_timeout_ms: int = 300_000,
    max_deliveries: int | None = None,
    dead_letter: str | None = None,
    read_from: ReadFrom = "master",
) -> AsyncStreamIterator:
    """Iterate over a stream in frames of up to `batch_size` rows, for asyncio.

    As `iter_stream`, with the same parameters, promises and errors, and the same
    reader underneath, which runs on threads of its own. Cancelling an await (by a
    timeout, say) loses nothing: the next one goes on where that stopped.

    Parameters
    ----------
    url, stream, schema, batch_size
        As for `iter_stream`.
    block_ms
        Milliseconds of one round of waiting for entries (0: the longest there
        is); with None the iterator ends where it has caught up.
    batch_timeout_ms
        Another name of `block_ms`; not both.
    start_id, end_id, count, group, consumer, auto_ack, create_group
        As for `iter_stream`.
    include_id, include_timestamp, include_sequence
        As for `iter_stream`.
    id_column, timestamp_column, sequence_column, include_key, key_column_name
        As for `iter_stream`.
    strict
        As for `iter_stream`.
    claim_idle_ms, include_delivery_count, delivery_count_column
        As for `iter_stream`.
    linger_ms, reconnect_timeout_ms, max_deliveries, dead_letter, read_from
        As for `iter_stream`.

    Returns
    -------
    AsyncStreamIterator
        An asynchronous iterator of ``polars.DataFrame``, and an asynchronous
        context manager. No frame is empty.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.

    Examples
    --------
    >>> import asyncio
    >>> import polars_redis as redis
    >>> async def work() -> None:
    ...     async with redis.iter_stream_async(
    ...         "redis://localhost",
    ...         stream="events",
    ...         group="audit",
    ...         consumer="worker-1",
    ...         count=10,
    ...     ) as batches:
    ...         async for df in batches:
    ...             print(df.height, await batches.ack())
    >>> asyncio.run(work())
    10 10
    """
    arguments = dict(locals())
    if batch_timeout_ms is ...:
        del arguments["batch_timeout_ms"]
    elif block_ms != _BLOCK_MS:
        msg = "batch_timeout_ms: it is another name of block_ms, which is given too"
        raise ValueError(msg)
    return AsyncStreamIterator(*_asked(**arguments))


def _asked(
    url: str, stream: str | Sequence[str], **arguments: Any
) -> tuple[str, str | Sequence[str], dict[str, Any]]:
    """Bring the arguments of either function into the form that the core takes."""
    return url, stream, options(**arguments)
