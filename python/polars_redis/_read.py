"""Reading one stream into a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polars_redis import _core
from polars_redis._arguments import SchemaLike, column_name, to_bound, to_fields
from polars_redis._frames import to_frame

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

__all__ = ["read_stream"]


def read_stream(
    url: str,
    stream: str,
    schema: SchemaLike | None = None,
    start_id: str | int | datetime = "-",
    end_id: str | int | datetime = "+",
    count: int | None = None,
    block_ms: int | None = None,
    group: str | None = None,
    consumer: str | None = None,
    auto_ack: bool = False,
    create_group: bool = True,
    *,
    include_id: bool = True,
    include_timestamp: bool = True,
    include_sequence: bool = False,
    id_column: str = "_id",
    timestamp_column: str = "_ts",
    sequence_column: str = "_seq",
    strict: bool = True,
    claim_idle_ms: int | None = 300_000,
    include_delivery_count: bool = False,
    delivery_count_column: str = "_deliveries",
) -> pl.DataFrame:
    """Read the entries of a stream into a DataFrame.

    The entries of the range are read with ``XRANGE``, oldest first, several
    small requests in flight, and decoded straight into Arrow columns. Without
    `count` the range ends at what was the last entry when the call began, so
    that it returns while producers keep writing.

    Parameters
    ----------
    url
        URL of the server:
        ``redis://[[user]:password@]host[:port][/db]``, with redis-py's
        parameters ``db``, ``username``, ``password``, ``client_name``,
        ``socket_timeout`` and ``socket_connect_timeout`` (both in seconds).
    stream
        Key of the stream. A missing stream gives a frame without rows.
    schema
        Field names and dtypes. Fields that it does not name are passed over;
        a field that an entry lacks is null. Python types work as dtypes.
        String, Binary, Boolean, and all integer and float dtypes are supported.
        Without a schema every field is a column of String, in order of first
        appearance.
    start_id
        First entry ID of the range, inclusive: ``"-"`` (the oldest entry),
        ``"ms-seq"``, ``"ms"``, ``"("`` before an ID to exclude it, an int of
        milliseconds since the epoch, a datetime (naive means UTC), or ``"$"``
        (after what is the last entry now).
    end_id
        Last entry ID of the range, inclusive, in the same forms (without
        ``"$"``); ``"+"`` is the newest entry.
    count
        The most entries to read.
    block_ms
        Milliseconds to wait for a first entry. Not supported yet.
    group
        Consumer group to read as. Not supported yet.
    consumer
        Name of this consumer in the group. Not supported yet.
    auto_ack
        Acknowledge what was decoded. Not supported yet.
    create_group
        Make the group if it is missing. Group reads are not supported yet.
    include_id
        Whether to give the entry ID as a column of String.
    include_timestamp
        Whether to give the ID's milliseconds since the epoch, as Int64.
    include_sequence
        Whether to give the ID's sequence number, as Int64.
    id_column, timestamp_column, sequence_column
        Names of these columns. They come before the fields.
    strict
        Whether a text that does not fit its dtype is an error; if not, it
        becomes null.
    claim_idle_ms
        Idle milliseconds after which entries of other consumers are claimed.
        Group reads are not supported yet.
    include_delivery_count
        Whether to give how often an entry was delivered. Group reads are not
        supported yet.
    delivery_count_column
        Name of that column.

    Returns
    -------
    polars.DataFrame
        One row an entry. The columns are those of the ID that were asked for,
        then the fields.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.
    NotImplementedError
        If an argument asks for what is not supported yet.
    polars_redis.exceptions.DecodeError
        If a value does not fit its dtype (with `strict`), naming the first such
        entry. It is a ValueError too.
    polars_redis.exceptions.RedisConnectionError
        If the server cannot be reached, or not again within ten seconds after
        the connection broke.
    polars_redis.exceptions.RedisTimeoutError
        If the server does not answer.
    polars_redis.exceptions.AuthenticationError
        If the server refuses the user or the password.
    polars_redis.exceptions.ResponseError
        If the server answers with an error, as for a key that is no stream.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> redis.read_stream(
    ...     "redis://localhost",
    ...     stream="events",
    ...     schema={"user_id": pl.String, "action": pl.String, "value": pl.Int64},
    ...     count=2,
    ... )
    shape: (2, 5)
    ┌─────────────────┬───────────────┬─────────┬────────┬───────┐
    │ _id             ┆ _ts           ┆ user_id ┆ action ┆ value │
    │ ---             ┆ ---           ┆ ---     ┆ ---    ┆ ---   │
    │ str             ┆ i64           ┆ str     ┆ str    ┆ i64   │
    ╞═════════════════╪═══════════════╪═════════╪════════╪═══════╡
    │ 1704067200000-0 ┆ 1704067200000 ┆ user_1  ┆ click  ┆ 10    │
    │ 1704067200001-0 ┆ 1704067200001 ┆ user_2  ┆ view   ┆ 20    │
    └─────────────────┴───────────────┴─────────┴────────┴───────┘

    To go on where a frame ended:

    >>> df = redis.read_stream("redis://localhost", stream="events", count=2)
    >>> more = redis.read_stream(
    ...     "redis://localhost", stream="events", start_id="(" + df["_id"][-1]
    ... )
    """
    _refuse_group_arguments(
        group=group,
        consumer=consumer,
        auto_ack=auto_ack,
        include_delivery_count=include_delivery_count,
    )
    if block_ms is not None:
        msg = "block_ms: blocking reads are not supported yet"
        raise NotImplementedError(msg)
    structs = _core.read_stream(
        url,
        stream,
        to_fields(schema),
        to_bound(start_id),
        to_bound(end_id),
        count,
        id_column=column_name("id_column", id_column, include=include_id),
        timestamp_column=column_name(
            "timestamp_column", timestamp_column, include=include_timestamp
        ),
        sequence_column=column_name("sequence_column", sequence_column, include=include_sequence),
        strict=strict,
    )
    return to_frame(structs)


def _refuse_group_arguments(
    *,
    group: str | None,
    consumer: str | None,
    auto_ack: bool,
    include_delivery_count: bool,
) -> None:
    if group is not None and consumer is None:
        msg = "group: a group read needs a consumer too"
        raise ValueError(msg)
    if group is not None:
        msg = "group: reads as a consumer group are not supported yet"
        raise NotImplementedError(msg)
    given = {
        "consumer": consumer is not None,
        "auto_ack": auto_ack,
        "include_delivery_count": include_delivery_count,
    }
    for parameter, is_given in given.items():
        if is_given:
            msg = f"{parameter}: only for a read with a group"
            raise ValueError(msg)
