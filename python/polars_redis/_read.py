"""Reading one stream into a DataFrame."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from polars_redis import _core
from polars_redis._arguments import ReadFrom, SchemaLike, options
from polars_redis._progress import watched

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
    read_from: ReadFrom = "master",
    progress: bool = False,
) -> pl.DataFrame:
    """Read the entries of a stream into a DataFrame.

    Without a group, the entries of the range are read with ``XRANGE``, oldest
    first, several small requests in flight, and decoded straight into Arrow
    columns. Without `count` the range ends at what was the last entry when the
    call began, so that it returns while producers keep writing.

    With a group, the entries that other consumers left unacknowledged for
    `claim_idle_ms` are taken over (``XPENDING``, ``XCLAIM``), then the new ones
    that are there are read (``XREADGROUP``).

    Parameters
    ----------
    url
        URL of the server, or of any server of a cluster:
        ``redis://[[user]:password@]host[:port][/db]``, the same with ``rediss://``
        (TLS), or ``unix://[[user]:password@]/path``; or of sentinels,
        ``redis-sentinel://[[user]:password@]host[:port][,host[:port]...][/db]``, the
        same with ``rediss-sentinel://``. With redis-py's parameters ``db``,
        ``username``, ``password``, ``client_name``, ``socket_timeout`` and
        ``socket_connect_timeout`` (both in seconds), for TLS ``ssl_ca_certs``,
        ``ssl_certfile``, ``ssl_keyfile`` and ``ssl_cert_reqs``, and for sentinels
        ``sentinelMasterId``, ``sentinel_username`` and ``sentinel_password``.
    stream
        Key of the stream. A missing stream gives a frame without rows.
    schema
        Field names and dtypes. Fields that it does not name are passed over;
        a field that an entry lacks is null. Python types work as dtypes.
        Numbers are decimal; dates, times and durations are ISO 8601 or counts in
        the column's unit; lists, arrays and structs are JSON; an Enum takes its
        categories. `infer_stream_schema` guesses a schema to begin with.
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
        Milliseconds to wait for a first entry if none is there (``XREAD BLOCK``);
        0 waits for ever, None not at all.
    group
        Consumer group to read as. Then `start_id` is ``"-"`` or ``">"`` for new
        entries, or an entry ID for this consumer's own pending entries after it;
        `end_id` cannot be given.
    consumer
        Name of this consumer in the group; needed with a group.
    auto_ack
        Whether the entries are acknowledged (``XACK``) once they were decoded,
        before they are returned. If not, they are pending until `ack_entries`.
    create_group
        Whether a missing group is made, from the stream's first entry on; the
        stream too.
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
        Milliseconds after which pending entries are taken over from their
        consumers; None never does.
    include_delivery_count
        Whether to give how often each entry has been delivered, this time
        included, as Int64; with a group only.
    delivery_count_column
        Name of that column. It comes before the fields.
    read_from
        ``"replica"`` reads from a server that follows the master, if one can be
        reached: it may not have the newest entries yet. Not with a group.
    progress
        Whether to show a bar meanwhile, on stderr or in a notebook: entries, entries
        a second, and the time left where it is known how many there are.

    Returns
    -------
    polars.DataFrame
        One row an entry. The columns are those of the ID that were asked for,
        then the fields.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.
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
    arguments = options(
        schema=schema,
        start_id=start_id,
        end_id=end_id,
        count=count,
        block_ms=block_ms,
        group=group,
        consumer=consumer,
        auto_ack=auto_ack,
        create_group=create_group,
        include_id=include_id,
        include_timestamp=include_timestamp,
        include_sequence=include_sequence,
        id_column=id_column,
        timestamp_column=timestamp_column,
        sequence_column=sequence_column,
        strict=strict,
        claim_idle_ms=claim_idle_ms,
        include_delivery_count=include_delivery_count,
        delivery_count_column=delivery_count_column,
        read_from=read_from,
    )
    return watched(partial(_core.read_stream, url, stream, arguments), stream, progress=progress)
