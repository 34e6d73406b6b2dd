"""Writing frames to hashes."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from polars_redis import _core
from polars_redis._write import Frame, Rows, in_order, write, write_async

__all__ = ["write_hashes", "write_hashes_async"]

IfExists: TypeAlias = Literal["replace", "append", "fail"]
"""What becomes of a key that is there."""

_LOGGER = logging.getLogger("polars_redis")


def write_hashes(
    url: str | Frame,
    df: Frame | str,
    key_column: str = "_key",
    key_prefix: str = "",
    ttl: float | timedelta | None = None,
    if_exists: IfExists = "replace",
    *,
    batch_size: int = 10_000,
    progress: bool = False,
) -> int:
    """Write the rows of a frame as hashes.

    One hash a row (``HSET``), one field a column. The texts are those that
    `write_stream` writes. Nulls are left out; as a hash needs a field, a row of nulls is
    written with one field ``_``, which is empty.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    df
        The frame, or a LazyFrame, which is written batch by batch as the engine gives
        it. It may also come first, and the URL second.
    key_column
        Column of the keys. It is not a field.
    key_prefix
        What the keys begin with, before what the column says.
    ttl
        Seconds, or a timedelta, after which the keys expire; None lets them stay. With
        ``"append"`` it counts anew for keys that are there.
    if_exists
        What becomes of a key that is there: ``"replace"`` puts the row in its place,
        in one transaction; ``"append"`` adds the row's fields to it and replaces those
        of the same names; ``"fail"`` leaves it as it is, and a warning in the log of
        ``polars_redis`` tells how many there were.
    batch_size
        How many rows are taken from the frame at a time.
    progress
        Whether a bar in the terminal or the notebook shows how far it is.

    Returns
    -------
    int
        How many rows were written: one a key, if no key is there twice.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, a dtype has no text, or a row has no key; nothing was
        sent (of a LazyFrame: nothing of the batch).
    polars_redis.exceptions.PolarsRedisError
        As for `write_stream`, with the rows that were written, and those that were not.
        Those whose keys were there, and that were left out for that, are in ``kept``.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> df = pl.DataFrame({"_key": ["ann", "bob"], "visits": [3, 5]})
    >>> redis.write_hashes("redis://localhost", df, key_prefix="user:", ttl=3600)
    2
    """
    rows, writer = _prepared(url, df, key_column, key_prefix, ttl, if_exists, batch_size, progress)
    write(rows, writer)
    return _told(writer)


async def write_hashes_async(
    url: str | Frame,
    df: Frame | str,
    key_column: str = "_key",
    key_prefix: str = "",
    ttl: float | timedelta | None = None,
    if_exists: IfExists = "replace",
    *,
    batch_size: int = 10_000,
    progress: bool = False,
) -> int:
    """Write the rows of a frame as hashes, for asyncio.

    As `write_hashes`, with the same parameters, result and errors. Where the await is
    cancelled, the CancelledError tells which rows were written.

    Examples
    --------
    >>> import asyncio
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> df = pl.DataFrame({"_key": ["ann", "bob"], "visits": [3, 5]})
    >>> asyncio.run(redis.write_hashes_async("redis://localhost", df, key_prefix="user:"))
    2
    """
    rows, writer = _prepared(url, df, key_column, key_prefix, ttl, if_exists, batch_size, progress)
    await write_async(rows, writer)
    return _told(writer)


def _prepared(
    url: str | Frame,
    df: Frame | str,
    key_column: str,
    key_prefix: str,
    ttl: float | timedelta | None,
    if_exists: IfExists,
    batch_size: int,
    progress: bool,
) -> tuple[Rows, _core.RowWriter]:
    """Check the arguments; nothing is sent."""
    url, df = in_order(url, df)
    rows = Rows(df, batch_size, progress=progress)
    arguments: dict[str, Any] = {
        "key_column": key_column,
        "key_prefix": key_prefix,
        "ttl_ms": _milliseconds(ttl),
        "if_exists": if_exists,
    }
    return rows, _core.hash_writer(url, rows.names, arguments)


def _milliseconds(ttl: float | timedelta | None) -> int | None:
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float, timedelta)):
        msg = f"ttl: expected seconds or a timedelta, got {type(ttl).__name__}"
        raise TypeError(msg)
    try:
        time = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    except (OverflowError, ValueError) as error:
        msg = f"ttl: {ttl} seconds are no time to live"
        raise ValueError(msg) from error
    ms = time // timedelta(milliseconds=1)
    if ms < 1:
        msg = f"ttl: expected more than nothing, got {ttl}"
        raise ValueError(msg)
    return ms


def _told(writer: _core.RowWriter) -> int:
    written, kept = writer.written(), writer.kept()
    if kept:
        _LOGGER.warning(
            "%d of %d keys are there already, and were left as they are", kept, kept + written
        )
    return written
