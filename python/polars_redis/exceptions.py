"""Exceptions of polars-redis.

No message of any of them holds a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "AuthenticationError",
    "DecodeError",
    "MessageDecodeError",
    "PolarsRedisError",
    "ProtocolError",
    "RedisConnectionError",
    "RedisTimeoutError",
    "ResponseError",
]


class PolarsRedisError(Exception):
    """Base of all exceptions of this package but wrong arguments.

    Attributes
    ----------
    written, failed, unsure : polars.Series or None
        Of a write: the numbers of the rows that were written, that were not, and that
        were sent and may have been, as no reply came.
    kept : polars.Series or None
        Of a write: the numbers of the rows that were not to be written, as their keys
        were there (``if_exists="fail"`` of `write_hashes`).
    entry_ids : polars.Series or None
        Of a write: the IDs of the entries that the rows became, null for those that
        are not known to be written.
    """

    written: pl.Series | None = None
    failed: pl.Series | None = None
    unsure: pl.Series | None = None
    kept: pl.Series | None = None
    entry_ids: pl.Series | None = None


class RedisConnectionError(PolarsRedisError, ConnectionError):
    """The server could not be reached, or the connection broke for good."""


class RedisTimeoutError(RedisConnectionError, TimeoutError):
    """The server did not answer in time; it may as well not be there."""


class AuthenticationError(PolarsRedisError):
    """The server refused the user or the password, or asks for one."""


class ResponseError(PolarsRedisError):
    """The server answered with an error; the message holds its own words."""


class ProtocolError(PolarsRedisError):
    """The server sent something that is not the reply to the command."""


class DecodeError(PolarsRedisError, ValueError):
    """A field of an entry does not fit its column.

    Parameters
    ----------
    message
        What was expected, and the text that came, shortened.
    stream
        Key of the stream.
    entry_id
        ID of the entry.
    field
        Name of the field.

    Attributes
    ----------
    stream : str
        Key of the stream.
    entry_id : str
        ID of the entry.
    field : str
        Name of the field.
    """

    def __init__(self, message: str, stream: str, entry_id: str, field: str) -> None:
        super().__init__(message, stream, entry_id, field)
        self.stream = stream
        self.entry_id = entry_id
        self.field = field

    def __str__(self) -> str:
        return str(self.args[0])


class MessageDecodeError(PolarsRedisError, ValueError):
    """A message of a channel is not what was asked for.

    Parameters
    ----------
    message
        What was expected, and the text that came, shortened.
    channel
        The channel that the message was published on.
    field
        The column that it does not fit; None if it is no JSON object at all.

    Attributes
    ----------
    channel : str
        The channel that the message was published on.
    field : str or None
        The column that it does not fit; None if it is no JSON object at all.
    """

    def __init__(self, message: str, channel: str, field: str | None) -> None:
        super().__init__(message, channel, field)
        self.channel = channel
        self.field = field

    def __str__(self) -> str:
        return str(self.args[0])
