"""Redis Streams as Polars DataFrames, decoded straight into Arrow columns."""

from __future__ import annotations

from importlib.metadata import version

from polars_redis import exceptions
from polars_redis._read import read_stream

__version__ = version("polars-redis")

__all__ = ["__version__", "exceptions", "read_stream"]
