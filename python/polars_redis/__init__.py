"""Redis Streams as Polars DataFrames, decoded straight into Arrow columns."""

from __future__ import annotations

from importlib.metadata import version

from polars_redis import exceptions
from polars_redis._acknowledge import ack_entries, ack_entries_async
from polars_redis._info import stream_info
from polars_redis._iterate import (
    AsyncStreamIterator,
    StreamIterator,
    StreamStats,
    iter_stream,
    iter_stream_async,
)
from polars_redis._publish import publish, publish_async
from polars_redis._pubsub import (
    AsyncPubSubIterator,
    PubSubIterator,
    PubSubStats,
    collect_pubsub,
    iter_pubsub,
    iter_pubsub_async,
)
from polars_redis._read import read_stream
from polars_redis._scan import scan_stream, split_stream
from polars_redis._schema import infer_stream_schema
from polars_redis._streams import read_streams, scan_streams
from polars_redis._write_hashes import write_hashes, write_hashes_async
from polars_redis._write_stream import write_stream, write_stream_async

__version__ = version("polars-redis")

__all__ = [
    "AsyncPubSubIterator",
    "AsyncStreamIterator",
    "PubSubIterator",
    "PubSubStats",
    "StreamIterator",
    "StreamStats",
    "__version__",
    "ack_entries",
    "ack_entries_async",
    "collect_pubsub",
    "exceptions",
    "infer_stream_schema",
    "iter_pubsub",
    "iter_pubsub_async",
    "iter_stream",
    "iter_stream_async",
    "publish",
    "publish_async",
    "read_stream",
    "read_streams",
    "scan_stream",
    "scan_streams",
    "split_stream",
    "stream_info",
    "write_hashes",
    "write_hashes_async",
    "write_stream",
    "write_stream_async",
]
