"""Guessing the schema of a stream."""

from __future__ import annotations

import polars as pl

from polars_redis import _core

__all__ = ["infer_stream_schema"]


def infer_stream_schema(url: str, stream: str, infer_schema_length: int | None = 100) -> pl.Schema:
    """Guess the dtypes of a stream's fields from its oldest entries.

    Those entries are read with ``XRANGE``, and each field gets a dtype that all
    its texts fit: reading the same entries with the schema never fails. Later
    entries may hold other texts, so look at the schema before you rely on it; it
    prints as Python that can be pasted and adjusted.

    Parameters
    ----------
    url
        URL of the server, as for `read_stream`.
    stream
        Key of the stream. A missing stream has a schema without fields.
    infer_schema_length
        How many entries to look at; None looks at all of them.

    Returns
    -------
    polars.Schema
        The fields in order of first appearance, without columns of the entry ID.
        Int64 for integers without a plus or zeros in front; Float64 for numbers
        one of which has a point or an exponent, and ``inf`` and ``nan`` beside
        numbers; Boolean for ``true`` and ``false`` in any case; Date, and Datetime
        in microseconds, or in nanoseconds where texts have the digits, of ISO 8601,
        the latter in UTC where all have an offset; List and Struct for JSON whose
        values agree; Binary for what is not UTF-8. Anything else is String, as are
        integers that no Int64 holds.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong; nothing was sent.
    polars_redis.exceptions.PolarsRedisError
        As for `read_stream`.

    Examples
    --------
    >>> import polars_redis as redis
    >>> schema = redis.infer_stream_schema("redis://localhost", "events")
    >>> dict(schema)
    {'user_id': String, 'action': String, 'value': Int64}
    >>> df = redis.read_stream("redis://localhost", "events", schema)
    """
    arguments = {"infer_schema_length": infer_schema_length}
    return pl.Schema(_core.infer_stream_schema(url, stream, arguments))
