"""Redis Streams as Polars DataFrames, decoded straight into Arrow columns."""

from __future__ import annotations

from importlib.metadata import version

from polars_redis import exceptions
from polars_redis._acknowledge import ack_entries, ack_entries_async
from polars_redis._iterate import (
    AsyncStreamIterator,
    StreamIterator,
    StreamStats,
    iter_stream,
    iter_stream_async,
)
from polars_redis._publish import publish, publish_async
from polars_redis._read import read_stream
from polars_redis._scan import scan_stream, split_stream
from polars_redis._schema import infer_stream_schema
from polars_redis._write_hashes import write_hashes, write_hashes_async
from polars_redis._write_stream import write_stream, write_stream_async

__version__ = version("polars-redis")

__all__ = [
    "AsyncStreamIterator",
    "StreamIterator",
    "StreamStats",
    "__version__",
    "ack_entries",
    "ack_entries_async",
    "exceptions",
    "infer_stream_schema",
    "iter_stream",
    "iter_stream_async",
    "publish",
    "publish_async",
    "read_stream",
    "scan_stream",
    "split_stream",
    "write_hashes",
    "write_hashes_async",
    "write_stream",
    "write_stream_async",
]
