"""Writing frames to streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polars_redis import _core
from polars_redis._arguments import to_bound
from polars_redis._write import Frame, Nulls, Rows, in_order, write, write_async

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

__all__ = ["write_stream", "write_stream_async"]


def write_stream(
    url: str | Frame,
    df: Frame | str,
    stream: str | None = None,
    *,
    id_column: str | None = None,
    stream_column: str | None = None,
    maxlen: int | None = None,
    minid: str | int | datetime | None = None,
    approximate: bool = True,
    null: Nulls = "skip",
    batch_size: int = 10_000,
    progress: bool = False,
) -> pl.Series:
    """Write the rows of a frame as entries of a stream.

    One entry a row (``XADD``), one field a column, in the order of the frame. What
    is written is what `read_stream` reads: with the same schema the frame comes
    back equal.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    df
        The frame, or a LazyFrame, which is written batch by batch as the engine
        gives it. It may also come first, and the URL second.
    stream
        Key of the stream. It is made if it is missing.
    id_column
        Column of the entries' IDs, ``"ms-seq"`` as read, each greater than the one
        before; without it the server makes them. Then the columns ``_ts``,
        ``_seq``, ``_deliveries`` and ``_key`` are left out, as they are made of the
        ID or tell of the reading.
    stream_column
        Column that names the stream of each row, in place of `stream`. It is not a
        field.
    maxlen
        Trim the stream to this many entries, the newest.
    minid
        Trim the entries before this ID: ``"ms-seq"``, ``"ms"``, an int of
        milliseconds since the epoch, or a datetime (naive means UTC).
    approximate
        Whether a few more entries may stay, which costs the server much less.
    null
        What becomes of a null: ``"skip"`` leaves the field out of the entry,
        ``"empty"`` writes an empty text, ``"raise"`` is a ValueError before
        anything is sent (of a LazyFrame: before the batch that has it). As an entry
        needs a field, a row of nulls is written with one field ``_``, which is
        empty.
    batch_size
        How many rows are taken from the frame at a time.
    progress
        Whether a bar in the terminal or the notebook shows how far it is.

    Returns
    -------
    polars.Series
        The entry IDs, one a row: String, of the name ``_id``.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, a dtype has no text, or a row has no ID or stream
        where it needs one; nothing was sent (of a LazyFrame: nothing of the batch).
    polars_redis.exceptions.PolarsRedisError
        As for `read_stream`, and for what the server refuses. Nothing is sent after
        the first error, and nothing is sent twice. The exception, whatever it is,
        also KeyboardInterrupt, has the attributes ``written``, ``failed`` and
        ``unsure``: Series of the numbers of the rows that were written, that were
        not, and that were sent and may have been, as no reply came. Its
        ``entry_ids`` are what the function would have returned, null for a row that
        is not known to be written.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> df = pl.DataFrame({"user_id": ["ann", "bob"], "value": [1.5, None]})
    >>> ids = redis.write_stream("redis://localhost", df, "results")
    >>> redis.read_stream(
    ...     "redis://localhost", "results", df.schema, include_id=False, include_timestamp=False
    ... ).equals(df)
    True
    """
    rows, writer = _prepared(**locals())
    write(rows, writer)
    return writer.ids()


async def write_stream_async(
    url: str | Frame,
    df: Frame | str,
    stream: str | None = None,
    *,
    id_column: str | None = None,
    stream_column: str | None = None,
    maxlen: int | None = None,
    minid: str | int | datetime | None = None,
    approximate: bool = True,
    null: Nulls = "skip",
    batch_size: int = 10_000,
    progress: bool = False,
) -> pl.Series:
    """Write the rows of a frame as entries of a stream, for asyncio.

    As `write_stream`, with the same parameters, result and errors. Where the await is
    cancelled, the CancelledError tells which rows were written.

    Examples
    --------
    >>> import asyncio
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> async def write() -> int:
    ...     df = pl.DataFrame({"user_id": ["ann", "bob"]})
    ...     ids = await redis.write_stream_async("redis://localhost", df, "results")
    ...     return ids.len()
    >>> asyncio.run(write())
    2
    """
    rows, writer = _prepared(**locals())
    await write_async(rows, writer)
    return writer.ids()


def _prepared(
    url: str | Frame,
    df: Frame | str,
    batch_size: int,
    progress: bool,
    minid: str | int | datetime | None,
    null: Nulls,
    **arguments: Any,
) -> tuple[Rows, _core.RowWriter]:
    """Check the arguments; nothing is sent."""
    url, df = in_order(url, df)
    rows = Rows(df, batch_size, progress=progress)
    bound = None if minid is None else to_bound("minid", minid)
    asked = {"minid": bound, "null": null, **arguments}
    writer = _core.entry_writer(url, rows.names, asked)
    if null == "raise":
        rows.refuse_nulls(_core.entry_fields(rows.names, asked))
    return rows, writer
