"""What a server knows of streams and of their groups."""

from __future__ import annotations

import polars as pl

from polars_redis import _core
from polars_redis._arguments import ReadFrom, SchemaDtype

__all__ = ["stream_info"]

_CONSUMER = pl.Struct(
    {"name": pl.String, "pending": pl.Int64, "idle_ms": pl.Int64, "inactive_ms": pl.Int64}
)
_SCHEMA: dict[str, SchemaDtype] = {
    "_key": pl.String,
    "length": pl.Int64,
    "entries_added": pl.Int64,
    "first_id": pl.String,
    "last_id": pl.String,
    "last_generated_id": pl.String,
    "max_deleted_id": pl.String,
    "group": pl.String,
    "consumers": pl.Int64,
    "pending": pl.Int64,
    "lag": pl.Int64,
    "last_delivered_id": pl.String,
    "entries_read": pl.Int64,
    "idle_ms": pl.Int64,
    "consumer_details": pl.List(_CONSUMER),
}


def stream_info(url: str, stream: str, *, read_from: ReadFrom = "master") -> pl.DataFrame:
    """Tell how long streams are, and how far their groups and consumers are.

    It asks ``XINFO STREAM``, ``XINFO GROUPS`` and, for each group, ``XINFO
    CONSUMERS``, in two round trips for a hundred streams. No entry is delivered.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    stream
        Key of the stream, or a pattern of keys as for `read_streams`, such as
        ``"orders:*"``: the streams are then found with ``SCAN``. A missing stream, and
        a pattern that no stream matches, give a frame without rows.
    read_from
        Which servers to ask, as for `read_stream`.

    Returns
    -------
    polars.DataFrame
        One row a group, in the order of the keys, then of the names; one row for a
        stream that has no groups, with nulls from ``group`` on. Counts and
        milliseconds are Int64, IDs are String. Columns of the stream:

        - ``_key``: its key.
        - ``length``: entries that it has.
        - ``entries_added``: entries that were ever added, those deleted or trimmed
          since included; null before Redis 7.0.
        - ``first_id``, ``last_id``: IDs of its oldest and its newest entry; null if
          it has none.
        - ``last_generated_id``: the last ID that was given, even if that entry is
          gone.
        - ``max_deleted_id``: the greatest ID of an entry deleted by ``XDEL``; null if
          there is none, and before Redis 7.0.

        Columns of the group:

        - ``group``: its name. Bytes that are not UTF-8 are shown as U+FFFD.
        - ``consumers``: how many consumers it knows, be they there or not.
        - ``pending``: entries that were delivered and not acknowledged.
        - ``lag``: entries that no consumer was given yet. Null where the server cannot
          tell, as after an entry in the midst was deleted or where the group was made
          at an ID in the midst; null before Redis 7.0.
        - ``last_delivered_id``: ID of the last entry that was delivered, ``"0-0"`` if
          none was.
        - ``entries_read``: entries up to that one, as the server counts them; null
          where it cannot tell, and before Redis 7.0.
        - ``idle_ms``: milliseconds since any of its consumers last asked for entries,
          the least of theirs; null without consumers.
        - ``consumer_details``: a list of structs, one a consumer: its ``name``, its
          ``pending`` entries, ``idle_ms`` since it last asked, and ``inactive_ms``
          since it last was given an entry (-1 if it never was; null before Redis 7.2).

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.
    polars_redis.exceptions.ResponseError
        If the key is no stream (with a pattern it is passed over), or the user may
        not run ``XINFO``, or ``SCAN`` for a pattern.
    polars_redis.exceptions.PolarsRedisError
        As for `read_stream`.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> df = redis.read_stream(
    ...     "redis://localhost", stream="events", group="reports", consumer="worker-1", count=4
    ... )
    >>> info = redis.stream_info("redis://localhost", "events")
    >>> info.select("_key", "length", "group", "pending", "last_delivered_id")
    shape: (1, 5)
    ┌────────┬────────┬─────────┬─────────┬───────────────────┐
    │ _key   ┆ length ┆ group   ┆ pending ┆ last_delivered_id │
    │ ---    ┆ ---    ┆ ---     ┆ ---     ┆ ---               │
    │ str    ┆ i64    ┆ str     ┆ i64     ┆ str               │
    ╞════════╪════════╪═════════╪═════════╪═══════════════════╡
    │ events ┆ 10     ┆ reports ┆ 4       ┆ 1704067200003-0   │
    └────────┴────────┴─────────┴─────────┴───────────────────┘

    Who has what of it, a row a consumer:

    >>> consumers = info.select("group", "consumer_details").explode("consumer_details")
    >>> consumers.unnest("consumer_details").select("group", "name", "pending")
    shape: (1, 3)
    ┌─────────┬──────────┬─────────┐
    │ group   ┆ name     ┆ pending │
    │ ---     ┆ ---      ┆ ---     │
    │ str     ┆ str      ┆ i64     │
    ╞═════════╪══════════╪═════════╡
    │ reports ┆ worker-1 ┆ 4       │
    └─────────┴──────────┴─────────┘
    """
    return pl.DataFrame(_core.stream_info(url, stream, {"read_from": read_from}), schema=_SCHEMA)
