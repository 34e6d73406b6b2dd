"""Publishing the rows of frames as messages."""

from __future__ import annotations

from polars_redis import _core
from polars_redis._write import Frame, Rows, in_order, write, write_async

__all__ = ["publish", "publish_async"]


def publish(
    url: str | Frame,
    df: Frame | str,
    channel: str | None = None,
    *,
    channel_column: str | None = None,
    sharded: bool = False,
    batch_size: int = 10_000,
    progress: bool = False,
) -> int:
    """Publish the rows of a frame as messages.

    One message a row (``PUBLISH``), in their order: an object of JSON with a member a
    column, null where the row is. The JSON is what readers take for the same dtypes.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    df
        The frame, or a LazyFrame, which is published batch by batch as the engine gives
        it. It may also come first, and the URL second.
    channel
        The channel.
    channel_column
        Column that names the channel of each row, in place of `channel`. It is not in
        the message.
    sharded
        Whether the messages go only to the servers of a cluster that have the channel's
        hash slot (``SPUBLISH``, from Redis 7.0 on), where sharded subscribers listen.
    batch_size
        How many rows are taken from the frame at a time.
    progress
        Whether a bar in the terminal or the notebook shows how far it is.

    Returns
    -------
    int
        How many messages were published, whether anybody listened or not.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, a dtype has no text, or a row has no channel; nothing
        was sent (of a LazyFrame: nothing of the batch).
    polars_redis.exceptions.PolarsRedisError
        As for `write_stream`, with the rows that were published, and those that were not.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> df = pl.DataFrame({"user_id": ["ann", "bob"], "value": [1.5, None]})
    >>> redis.publish("redis://localhost", df, "alerts")
    2
    """
    rows, writer = _prepared(url, df, channel, channel_column, sharded, batch_size, progress)
    write(rows, writer)
    return writer.written()


async def publish_async(
    url: str | Frame,
    df: Frame | str,
    channel: str | None = None,
    *,
    channel_column: str | None = None,
    sharded: bool = False,
    batch_size: int = 10_000,
    progress: bool = False,
) -> int:
    """Publish the rows of a frame as messages, for asyncio.

    As `publish`, with the same parameters, result and errors. Where the await is
    cancelled, the CancelledError tells which rows were published.

    Examples
    --------
    >>> import asyncio
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> df = pl.DataFrame({"user_id": ["ann", "bob"]})
    >>> asyncio.run(redis.publish_async("redis://localhost", df, "alerts"))
    2
    """
    rows, writer = _prepared(url, df, channel, channel_column, sharded, batch_size, progress)
    await write_async(rows, writer)
    return writer.written()


def _prepared(
    url: str | Frame,
    df: Frame | str,
    channel: str | None,
    channel_column: str | None,
    sharded: bool,
    batch_size: int,
    progress: bool,
) -> tuple[Rows, _core.RowWriter]:
    """Check the arguments; nothing is sent."""
    url, df = in_order(url, df)
    rows = Rows(df, batch_size, progress=progress)
    arguments = {"channel": channel, "channel_column": channel_column, "sharded": sharded}
    return rows, _core.message_writer(url, rows.names, arguments)
