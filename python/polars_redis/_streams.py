"""Reading many streams, whose keys match a pattern."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from polars_redis import _core
from polars_redis._arguments import ReadFrom, SchemaLike, options
from polars_redis._progress import watched
from polars_redis._source import StreamsSource

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

__all__ = ["read_streams", "scan_streams"]


def read_streams(
    url: str,
    pattern: str = "*",
    schema: SchemaLike | None = None,
    *,
    include_key: bool = True,
    key_column_name: str = "_key",
    start_id: str | int | datetime = "-",
    end_id: str | int | datetime = "+",
    count_per_stream: int | None = None,
    include_id: bool = True,
    include_timestamp: bool = True,
    include_sequence: bool = False,
    id_column: str = "_id",
    timestamp_column: str = "_ts",
    sequence_column: str = "_seq",
    strict: bool = True,
    read_from: ReadFrom = "master",
    progress: bool = False,
) -> pl.DataFrame:
    """Read the entries of all streams whose keys match a pattern into a DataFrame.

    The keys are found with ``SCAN``, on every server of a cluster. Then ``XRANGE``
    reads the streams, many requests in flight: the servers at the same time, and no
    round trip for each stream.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    pattern
        Which keys: ``*`` stands for any text, ``?`` for any character, ``[ab]`` for
        one of those, and a backslash takes the meaning from what follows. Without
        these it is the key of one stream. Keys of other types are passed over.
    schema
        Field names and dtypes, as for `read_stream`. Without a schema every field of
        any of the streams is a column of String, in order of first appearance.
    include_key
        Whether to give the key of the stream as a column of String.
    key_column_name
        Name of that column. It is the first.
    start_id, end_id
        First and last entry ID of the range of each stream, as for `read_stream`, but
        for ``"$"``: after what is the last entry now there is nothing.
    count_per_stream
        The most entries of each stream; the first ones count.
    include_id, include_timestamp, include_sequence
        Whether to give the entry ID (String), its milliseconds since the epoch
        (Int64), its sequence number (Int64).
    id_column, timestamp_column, sequence_column
        Names of these columns. They come before the fields.
    strict
        Whether a text that does not fit its dtype is an error; if not, it
        becomes null.
    read_from
        Which servers to read from, as for `read_stream`.
    progress
        Whether to show a bar meanwhile, as `read_stream` does. How many entries there
        will be is estimated by the streams that were read.

    Returns
    -------
    polars.DataFrame
        One row an entry, in the order of the keys' bytes, then of the entry IDs. No
        stream that matches, or none that has entries, gives a frame without rows.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.
    polars_redis.exceptions.ProtocolError
        If a key is not UTF-8, so that no column can carry it.
    polars_redis.exceptions.PolarsRedisError
        What else `read_stream` raises.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> redis.read_streams(
    ...     "redis://localhost",
    ...     pattern="event*",
    ...     schema={"user_id": pl.String, "value": pl.Int64},
    ...     count_per_stream=2,
    ... )
    shape: (2, 5)
    ┌────────┬─────────────────┬───────────────┬─────────┬───────┐
    │ _key   ┆ _id             ┆ _ts           ┆ user_id ┆ value │
    │ ---    ┆ ---             ┆ ---           ┆ ---     ┆ ---   │
    │ str    ┆ str             ┆ i64           ┆ str     ┆ i64   │
    ╞════════╪═════════════════╪═══════════════╪═════════╪═══════╡
    │ events ┆ 1704067200000-0 ┆ 1704067200000 ┆ user_1  ┆ 10    │
    │ events ┆ 1704067200001-0 ┆ 1704067200001 ┆ user_2  ┆ 20    │
    └────────┴─────────────────┴───────────────┴─────────┴───────┘
    """
    arguments = _arguments(
        schema=schema,
        include_key=include_key,
        key_column_name=key_column_name,
        start_id=start_id,
        end_id=end_id,
        count_per_stream=count_per_stream,
        include_id=include_id,
        include_timestamp=include_timestamp,
        include_sequence=include_sequence,
        id_column=id_column,
        timestamp_column=timestamp_column,
        sequence_column=sequence_column,
        strict=strict,
        read_from=read_from,
    )
    read = partial(_core.read_streams, url, pattern, arguments)
    return watched(read, pattern, progress=progress)


def scan_streams(
    url: str,
    pattern: str = "*",
    schema: SchemaLike | None = None,
    *,
    include_key: bool = True,
    key_column_name: str = "_key",
    start_id: str | int | datetime = "-",
    end_id: str | int | datetime = "+",
    count_per_stream: int | None = None,
    include_id: bool = True,
    include_timestamp: bool = True,
    include_sequence: bool = False,
    id_column: str = "_id",
    timestamp_column: str = "_ts",
    sequence_column: str = "_seq",
    strict: bool = True,
    infer_schema_length: int | None = 100,
    read_from: ReadFrom = "master",
) -> pl.LazyFrame:
    """Scan the entries of all streams whose keys match a pattern lazily.

    Nothing is sent before the schema or data is needed. Then what the query needs is
    read, as by `scan_stream` of each stream. Conditions on the key are applied to the
    keys that were found: no other streams are read.

    Parameters
    ----------
    url, pattern, schema
        As for `read_streams`. Without a schema, the fields of the first
        `infer_schema_length` entries, as String; fields that first appear later are
        passed over.
    include_key, key_column_name, start_id, end_id, count_per_stream
        As for `read_streams`.
    include_id, include_timestamp, include_sequence
        As for `read_streams`.
    id_column, timestamp_column, sequence_column, strict
        As for `read_streams`.
    infer_schema_length
        How many entries to look at for the names of the fields, without a schema:
        those of the first stream, then of the next. None looks at all.
    read_from
        As for `read_streams`.

    Returns
    -------
    polars.LazyFrame
        One row an entry, with the columns that `read_streams` gives.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.

    Notes
    -----
    Collecting raises what `read_streams` does, as it does for `scan_stream`, which
    also tells what bounds the IDs, and what is pickled.

    What leaves streams out: ``==`` and the other comparisons, ``is_in``,
    ``is_between`` and functions of strings (``.str``) on the key, and what ``&``,
    ``|`` and ``~`` make of them. The logger ``polars_redis`` tells how many are left
    (DEBUG).

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> lf = redis.scan_streams(
    ...     "redis://localhost", pattern="event*", schema={"value": pl.Float64}
    ... )
    >>> lf.filter(pl.col("_key").str.ends_with("s")).group_by("_key").agg(
    ...     pl.len(), pl.col("value").max()
    ... ).collect()
    shape: (1, 3)
    ┌────────┬─────┬───────┐
    │ _key   ┆ len ┆ value │
    │ ---    ┆ --- ┆ ---   │
    │ str    ┆ u32 ┆ f64   │
    ╞════════╪═════╪═══════╡
    │ events ┆ 10  ┆ 100.0 │
    └────────┴─────┴───────┘
    """
    arguments = _arguments(
        schema=schema,
        include_key=include_key,
        key_column_name=key_column_name,
        start_id=start_id,
        end_id=end_id,
        count_per_stream=count_per_stream,
        include_id=include_id,
        include_timestamp=include_timestamp,
        include_sequence=include_sequence,
        id_column=id_column,
        timestamp_column=timestamp_column,
        sequence_column=sequence_column,
        strict=strict,
        infer_schema_length=infer_schema_length,
        read_from=read_from,
    )
    return StreamsSource(url, pattern, arguments).lazy()


def _arguments(**given: Any) -> dict[str, Any]:
    return options(**given, include_delivery_count=False, delivery_count_column="_deliveries")
