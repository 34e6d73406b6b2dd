"""Listening to channels: messages as frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import polars as pl
from polars.datatypes import DataTypeClass

from polars_redis import _core
from polars_redis._arguments import SchemaDtype, SchemaLike, column_name, to_fields
from polars_redis._counts import Counts

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "AsyncPubSubIterator",
    "PubSubIterator",
    "PubSubStats",
    "collect_pubsub",
    "iter_pubsub",
    "iter_pubsub_async",
]

MessageSchema: TypeAlias = "SchemaLike | SchemaDtype"
"""Names and dtypes of a JSON object's members, or one dtype for the whole message."""

_BUFFER_SIZE = 100_000
"""Messages that are held, where nothing else is said."""


@dataclass(frozen=True)
class PubSubStats(Counts):
    """What an iterator over messages has done so far; also by name, as ``stats["gaps"]``.

    Attributes
    ----------
    batches : int
        Frames handed over.
    messages : int
        Rows of these frames.
    bytes : int
        Bytes received.
    reconnects : int
        How often a lost connection was made again.
    gaps : int
        How often the subscription, or a part of it, was interrupted: messages that
        were published meanwhile, or were still on their way, are lost, and nobody
        knows how many.
    """

    batches: int
    messages: int
    bytes: int
    reconnects: int
    gaps: int


class PubSubIterator(_core.PubSubIterator):
    """Frames of messages, one after another: what `iter_pubsub` gives.

    It subscribes when it is first advanced, or entered as a context manager:
    messages that are published before that are not seen. It may be advanced by one
    thread after another; `close` may be called by any thread at any time.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> from redis import Redis
    >>> with redis.iter_pubsub("redis://localhost", "prices", pl.Float64, count=2) as messages:
    ...     with Redis.from_url("redis://localhost") as client:
    ...         _ = client.publish("prices", "2.5"), client.publish("prices", "4")
    ...     for df in messages:
    ...         print(df["message"].to_list())
    [2.5, 4.0]
    >>> messages.stats.messages
    2
    """

    def close(self) -> None:
        """End the iteration; a `next` that waits in another thread ends too.

        Messages that were received and not handed over are dropped.
        """
        super().close()

    @property
    def stats(self) -> PubSubStats:
        """What was done so far."""
        return PubSubStats(*self._stats)


class AsyncPubSubIterator(_core.AsyncPubSubIterator):
    """Frames of messages, one after another: what `iter_pubsub_async` gives.

    It subscribes when it is first advanced, or entered as a context manager:
    messages that are published before that are not seen. Cancelling an await loses
    nothing: the next one goes on where that stopped.

    Examples
    --------
    >>> import asyncio
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> from redis.asyncio import Redis
    >>> async def listen() -> None:
    ...     url = "redis://localhost"
    ...     async with redis.iter_pubsub_async(url, "prices", pl.Float64, count=1) as messages:
    ...         async with Redis.from_url(url) as client:
    ...             await client.publish("prices", "2.5")
    ...         async for df in messages:
    ...             print(df["message"].to_list())
    >>> asyncio.run(listen())
    [2.5]
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

    async def aclose(self) -> None:
        """End the iteration; another task that waits for a frame ends too.

        Messages that were received and not handed over are dropped.
        """
        await self._close()

    @property
    def stats(self) -> PubSubStats:
        """What was done so far."""
        return PubSubStats(*self._stats)


def collect_pubsub(
    url: str,
    channels: str | Iterable[str],
    schema: MessageSchema | None = None,
    *,
    pattern: bool = False,
    sharded: bool = False,
    count: int | None = None,
    timeout_ms: int | None = None,
    include_channel: bool = False,
    include_timestamp: bool = False,
    channel_column: str = "_channel",
    message_column: str = "message",
    timestamp_column: str = "_received_at",
    strict: bool = True,
) -> pl.DataFrame:
    """Collect the messages of channels in a frame.

    Messages are seen from the moment on at which the subscription begins. A
    connection that is lost is made again for up to ten seconds; the logger
    ``polars_redis`` warns that messages may have been missed.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    channels
        The channels, or their patterns.
    schema
        Names and dtypes of the members of the JSON object that each message is:
        each becomes a column, null where a message lacks it; other members are
        ignored. Or one dtype, which each whole message has, in the column
        `message_column`; String, if nothing is said.
    pattern
        Whether `channels` are glob patterns (``PSUBSCRIBE``). A message that
        several of them match comes once for each.
    sharded
        Whether they are sharded channels (``SSUBSCRIBE``, since Redis 7.0). In a
        cluster they may be on several servers: there is a connection to each.
    count
        The most messages to collect.
    timeout_ms
        Milliseconds after which to return what came, counted from when the
        subscription began. This or `count` is needed; both work together.
    include_channel
        Whether to give the channel of each message, as String.
    include_timestamp
        Whether to give the time at which each message was received here, as
        Datetime of microseconds in UTC.
    channel_column, message_column, timestamp_column
        Names of these columns. The channel comes first, then the time.
    strict
        Whether a message that is no JSON object, or does not fit its dtype, is an
        error; if not, what does not fit becomes null.

    Returns
    -------
    polars.DataFrame
        A row for each message, in the order in which they came.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.
    polars_redis.exceptions.MessageDecodeError
        If a message does not fit, and `strict` is true.
    polars_redis.exceptions.ResponseError
        If the server refuses a channel.
    polars_redis.exceptions.RedisConnectionError
        If the server cannot be reached.

    Examples
    --------
    >>> import threading
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> from redis import Redis
    >>> def publish() -> None:
    ...     with Redis.from_url("redis://localhost") as client:
    ...         while not client.publish("orders", '{"item": "tea", "amount": 3}'):
    ...             pass
    >>> publisher = threading.Thread(target=publish)
    >>> publisher.start()
    >>> df = redis.collect_pubsub(
    ...     "redis://localhost", "orders", {"item": pl.String, "amount": pl.Int64}, count=1
    ... )
    >>> publisher.join()
    >>> df.rows()
    [('tea', 3)]
    """
    return _core.collect_pubsub(*_asked(**locals()))


def iter_pubsub(
    url: str,
    channels: str | Iterable[str],
    schema: MessageSchema | None = None,
    batch_size: int = 100,
    batch_timeout_ms: int = 1000,
    *,
    pattern: bool = False,
    sharded: bool = False,
    count: int | None = None,
    timeout_ms: int | None = None,
    include_channel: bool = False,
    include_timestamp: bool = False,
    channel_column: str = "_channel",
    message_column: str = "message",
    timestamp_column: str = "_received_at",
    strict: bool = True,
    buffer_size: int = _BUFFER_SIZE,
    reconnect_timeout_ms: int = 300_000,
) -> PubSubIterator:
    """Iterate over the messages of channels, in frames of up to `batch_size` rows.

    A frame is given when it is full, or `batch_timeout_ms` after its first message
    was received. No frame is empty.

    Messages are received while the iterator is asked for a frame: then all that are
    there are taken, up to `buffer_size`. Meanwhile they wait in the buffers of the
    kernel and of the server. Who is too slow for too long is disconnected by the
    server (``client-output-buffer-limit pubsub``).

    A connection that is lost is made again, with growing pauses, and the channels
    are subscribed again; so is a sharded channel that moves to another server.
    Messages that were published meanwhile, or were on their way, are lost: the
    logger ``polars_redis`` warns of that, and ``stats.gaps`` counts it.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    channels
        The channels, or their patterns.
    schema
        As for `collect_pubsub`: names and dtypes of the members of JSON objects, or
        one dtype for the whole message.
    batch_size
        The most rows of a frame.
    batch_timeout_ms
        Milliseconds after its first message at which a frame is given that is not
        full.
    pattern, sharded
        As for `collect_pubsub`.
    count
        The most messages in all; the iteration ends there.
    timeout_ms
        Milliseconds without a message after which the iteration ends; None waits for
        ever.
    include_channel, include_timestamp
        As for `collect_pubsub`.
    channel_column, message_column, timestamp_column
        Names of these columns. The channel comes first, then the time.
    strict
        Whether a message that does not fit is an error; if not, what does not fit
        becomes null.
    buffer_size
        The most messages that are received and not handed over; if `batch_size` is
        larger, that many.
    reconnect_timeout_ms
        Milliseconds to try to connect again before an error is raised.

    Returns
    -------
    PubSubIterator
        An iterator of ``polars.DataFrame``, and a context manager.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.

    Notes
    -----
    `next` raises what `collect_pubsub` does. A message that does not fit is raised
    once, after the rows before it were handed over; the next `next` goes on after it.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> from redis import Redis
    >>> with redis.iter_pubsub(
    ...     "redis://localhost",
    ...     "sensors.*",
    ...     {"celsius": pl.Float64},
    ...     pattern=True,
    ...     include_channel=True,
    ...     batch_size=2,
    ...     count=3,
    ... ) as messages:
    ...     with Redis.from_url("redis://localhost") as client:
    ...         for place, celsius in [("attic", 25.5), ("attic", 26), ("cellar", 12)]:
    ...             _ = client.publish(f"sensors.{place}", f'{{"celsius": {celsius}}}')
    ...     for df in messages:
    ...         print(df.rows())
    [('sensors.attic', 25.5), ('sensors.attic', 26.0)]
    [('sensors.cellar', 12.0)]
    """
    return PubSubIterator(*_asked(**locals()))


def iter_pubsub_async(
    url: str,
    channels: str | Iterable[str],
    schema: MessageSchema | None = None,
    batch_size: int = 100,
    batch_timeout_ms: int = 1000,
    *,
    pattern: bool = False,
    sharded: bool = False,
    count: int | None = None,
    timeout_ms: int | None = None,
    include_channel: bool = False,
    include_timestamp: bool = False,
    channel_column: str = "_channel",
    message_column: str = "message",
    timestamp_column: str = "_received_at",
    strict: bool = True,
    buffer_size: int = _BUFFER_SIZE,
    reconnect_timeout_ms: int = 300_000,
) -> AsyncPubSubIterator:
    """Iterate over the messages of channels, for asyncio.

    As `iter_pubsub`, with the same parameters, promises and errors, and the same
    reader underneath, which runs on threads of its own. Cancelling an await (by a
    timeout, say) loses nothing: the next one goes on where that stopped.

    Parameters
    ----------
    url, channels, schema, batch_size, batch_timeout_ms
        As for `iter_pubsub`.
    pattern, sharded, count, timeout_ms
        As for `iter_pubsub`.
    include_channel, include_timestamp
        As for `iter_pubsub`.
    channel_column, message_column, timestamp_column
        As for `iter_pubsub`.
    strict, buffer_size, reconnect_timeout_ms
        As for `iter_pubsub`.

    Returns
    -------
    AsyncPubSubIterator
        An asynchronous iterator of ``polars.DataFrame``, and an asynchronous
        context manager.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.

    Examples
    --------
    >>> import asyncio
    >>> import polars_redis as redis
    >>> from redis.asyncio import Redis
    >>> async def listen() -> None:
    ...     url = "redis://localhost"
    ...     async with redis.iter_pubsub_async(url, ["news", "sport"], count=2) as messages:
    ...         async with Redis.from_url(url) as client:
    ...             await client.publish("news", "rain")
    ...             await client.publish("sport", "2:1")
    ...         async for df in messages:
    ...             print(df["message"].to_list())
    >>> asyncio.run(listen())
    ['rain', '2:1']
    """
    return AsyncPubSubIterator(*_asked(**locals()))


def _channels(channels: str | Iterable[str]) -> list[str]:
    if isinstance(channels, str):
        return [channels]
    if not isinstance(channels, Iterable) or isinstance(channels, bytes):
        msg = f"channels: expected str or several of them, got {type(channels).__name__}"
        raise TypeError(msg)
    return list(channels)


def _asked(
    url: str,
    channels: str | Iterable[str],
    schema: MessageSchema | None,
    include_channel: bool,
    include_timestamp: bool,
    channel_column: str,
    message_column: str,
    timestamp_column: str,
    **others: Any,
) -> tuple[str, list[str], dict[str, Any]]:
    """Bring the arguments of whichever function into the form that the core takes."""
    # Checked even where a schema names the columns.
    column_name("message_column", message_column, include=True)
    wanted = pl.String if schema is None else schema
    fields: SchemaLike
    if isinstance(wanted, (pl.DataType, DataTypeClass, type, GenericAlias)):
        fields = [(message_column, cast("SchemaDtype", wanted))]
    else:
        fields = wanted
    arguments = {
        "is_whole": fields is not wanted,
        "schema": to_fields(fields),
        "channel_column": column_name("channel_column", channel_column, include=include_channel),
        "timestamp_column": column_name(
            "timestamp_column", timestamp_column, include=include_timestamp
        ),
        **others,
    }
    return url, _channels(channels), arguments
