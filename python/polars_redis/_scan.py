"""Scanning one stream lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polars_redis import _core
from polars_redis._arguments import ReadFrom, SchemaLike, options
from polars_redis._source import StreamSource

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

__all__ = ["scan_stream", "split_stream"]


def scan_stream(
    url: str,
    stream: str,
    schema: SchemaLike | None = None,
    start_id: str | int | datetime = "-",
    end_id: str | int | datetime = "+",
    count: int | None = None,
    *,
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
    """Scan the entries of a stream lazily.

    Nothing is sent before the schema or data is needed. Then ``XRANGE`` reads what
    the query needs: fields that it does not use are passed over, comparisons of the
    entry ID's columns with constants bound the IDs that are read, ``head`` bounds
    their number, and batches go to Polars' engine as they come.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    stream
        Key of the stream. A missing stream gives a frame without rows.
    schema
        Field names and dtypes, as for `read_stream`. Without a schema, the fields
        of the first `infer_schema_length` entries of the range, as String; fields
        that first appear later are passed over.
    start_id, end_id
        First and last entry ID of the range, as for `read_stream`. What is the last
        entry, or comes after ``"$"``, is found out each time that the frame is
        collected.
    count
        The most entries to read. The first ones count, before any filter.
    include_id, include_timestamp, include_sequence
        Whether to give the entry ID (String), its milliseconds since the epoch
        (Int64), its sequence number (Int64).
    id_column, timestamp_column, sequence_column
        Names of these columns. They come before the fields.
    strict
        Whether a text that does not fit its dtype is an error; if not, it
        becomes null. A field that the query does not use is not looked at.
    infer_schema_length
        How many entries to look at for the names of the fields, without a schema;
        None looks at all.
    read_from
        Which servers to read from, as for `read_stream`.

    Returns
    -------
    polars.LazyFrame
        One row an entry, with the columns that `read_stream` gives.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.

    Notes
    -----
    Collecting raises what `read_stream` does. Older versions of Polars wrap it in a
    ``polars.exceptions.ComputeError``, and all do where the schema was sampled.

    What bounds the IDs: ``==``, ``<``, ``<=``, ``>``, ``>=``, ``is_between`` and
    ``is_in`` of the timestamp or the sequence number with constants, also made a
    Datetime; ``==`` and ``is_in`` of the ID, and its order as text where all IDs have
    as many digits; and what ``&`` and ``|`` make of them. The logger ``polars_redis``
    tells the bounds (DEBUG). Consumer groups and waiting are not for lazy frames: see
    `iter_stream`.

    A pickled frame holds the URL as it was given, with its password.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> lf = redis.scan_stream(
    ...     "redis://localhost",
    ...     stream="events",
    ...     schema={"action": pl.String, "value": pl.Float64},
    ... )
    >>> lf.filter(pl.col("value") > 50).group_by("action").agg(pl.len()).sort("action").collect()
    shape: (3, 2)
    ┌──────────┬─────┐
    │ action   ┆ len │
    │ ---      ┆ --- │
    │ str      ┆ u32 │
    ╞══════════╪═════╡
    │ click    ┆ 2   │
    │ purchase ┆ 2   │
    │ view     ┆ 1   │
    └──────────┴─────┘

    Only the entries from one millisecond on are read:

    >>> lf.filter(pl.col("_ts") >= 1704067200008).select("_id").collect()["_id"].to_list()
    ['1704067200008-0', '1704067200009-0']
    """
    arguments = options(
        schema=schema,
        start_id=start_id,
        end_id=end_id,
        count=count,
        include_id=include_id,
        include_timestamp=include_timestamp,
        include_sequence=include_sequence,
        include_delivery_count=False,
        id_column=id_column,
        timestamp_column=timestamp_column,
        sequence_column=sequence_column,
        delivery_count_column="_deliveries",
        strict=strict,
        infer_schema_length=infer_schema_length,
        read_from=read_from,
    )
    return StreamSource(url, stream, arguments).lazy()


def split_stream(
    url: str,
    stream: str,
    splits: int,
    schema: SchemaLike | None = None,
    start_id: str | int | datetime = "-",
    end_id: str | int | datetime = "+",
    *,
    include_id: bool = True,
    include_timestamp: bool = True,
    include_sequence: bool = False,
    id_column: str = "_id",
    timestamp_column: str = "_ts",
    sequence_column: str = "_seq",
    strict: bool = True,
    infer_schema_length: int | None = 100,
    read_from: ReadFrom = "master",
) -> list[pl.LazyFrame]:
    """Split a stream into lazy frames that together are what is in it now.

    Each frame scans a range of IDs of its own, as `scan_stream` does, so that
    several processes or machines can read a stream together: a frame can be pickled.

    The ranges have about as many entries each, however these lie in time. Up to
    20,000 entries are counted; where there are more, a few of them are looked at in
    many places (``XINFO STREAM`` and ``XRANGE``, some megabytes at the most), and the
    ranges are as even as that shows.

    Parameters
    ----------
    url, stream, schema, start_id, end_id
        As for `scan_stream`. Without a schema the fields are those of the first
        entries, the same for all frames.
    splits
        How many frames to make. Where there are fewer entries, some have no rows.
    include_id, include_timestamp, include_sequence
        As for `scan_stream`.
    id_column, timestamp_column, sequence_column, strict, infer_schema_length
        As for `scan_stream`.
    read_from
        As for `scan_stream`.

    Returns
    -------
    list[polars.LazyFrame]
        The frames in the order of their entries. Concatenated they have the rows
        that `read_stream` gives now; what is added later is in none of them. The
        same arguments give the same ranges for the same entries, and with an `end_id`
        also when others were added behind it.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.
    polars_redis.exceptions.PolarsRedisError
        What `read_stream` raises, but for values that do not fit.

    Examples
    --------
    >>> import polars as pl
    >>> import polars_redis as redis
    >>> parts = redis.split_stream(
    ...     "redis://localhost", stream="events", splits=2, schema={"value": pl.Int64}
    ... )
    >>> [part.select(pl.col("value").sum()).collect().item() for part in parts]
    [150, 400]
    """
    arguments = options(
        schema=schema,
        start_id=start_id,
        end_id=end_id,
        count=None,
        include_id=include_id,
        include_timestamp=include_timestamp,
        include_sequence=include_sequence,
        include_delivery_count=False,
        id_column=id_column,
        timestamp_column=timestamp_column,
        sequence_column=sequence_column,
        delivery_count_column="_deliveries",
        strict=strict,
        infer_schema_length=infer_schema_length,
        read_from=read_from,
    )
    whole = StreamSource(url, stream, arguments)
    ranges = _core.split_range(url, stream, {**arguments, "splits": splits})
    if ranges:
        # Once, so that all parts have the same columns.
        arguments["schema"] = whole.fields()
    parts = [whole.part(start_id=start, end_id=end) for start, end in ranges]
    nothing = whole.part(count=0)
    return [part.lazy() for part in parts + [nothing] * (splits - len(parts))]
