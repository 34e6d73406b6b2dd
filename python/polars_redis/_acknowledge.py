"""Acknowledging entries of a consumer group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polars_redis import _core

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

__all__ = ["ack_entries", "ack_entries_async"]


def ack_entries(url: str, stream: str, group: str, entry_ids: pl.Series | Iterable[str]) -> int:
    """Acknowledge entries of a consumer group.

    They leave the group's pending entries list (``XACK``). Many go as several
    commands of a thousand, on a connection that is kept for the next call.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    stream
        Key of the stream.
    group
        Name of the group.
    entry_ids
        Entry IDs, ``"ms-seq"``: a list, a Series of String such as the ``_id``
        column of a frame, or any other iterable of str.

    Returns
    -------
    int
        How many of them were pending, and are not any more. Where a reply was
        lost the command is sent again, for up to ten seconds: what it had done
        the first time is not counted.

    Raises
    ------
    ValueError, TypeError
        If one of them is no entry ID; nothing was sent.
    polars_redis.exceptions.PolarsRedisError
        As for `read_stream`.

    Examples
    --------
    >>> import polars_redis as redis
    >>> df = redis.read_stream(
    ...     "redis://localhost", stream="events", group="reports", consumer="worker-1", count=2
    ... )
    >>> redis.ack_entries("redis://localhost", "events", "reports", df["_id"])
    2
    """
    return _core.ack_entries(url, stream, group, entry_ids)


async def ack_entries_async(
    url: str, stream: str, group: str, entry_ids: pl.Series | Iterable[str]
) -> int:
    """Acknowledge entries of a consumer group, for asyncio.

    As `ack_entries`, with the same parameters, result and errors. Where the
    await is cancelled some of them may be acknowledged; to do it again does no
    harm.

    Examples
    --------
    >>> import asyncio
    >>> import polars_redis as redis
    >>> async def acknowledge() -> int:
    ...     return await redis.ack_entries_async(
    ...         "redis://localhost", "events", "reports", ["1704067200000-0"]
    ...     )
    >>> asyncio.run(acknowledge())
    0
    """
    return await _core.ack_entries_async(url, stream, group, entry_ids)
