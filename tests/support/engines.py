"""Polars' engines, and what they are known to get wrong by themselves."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source
from polars.testing import assert_frame_equal

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES: list[Any] = ["in-memory", "streaming"]


@cache
def keeps_order(engine: Any) -> bool:
    """Tell whether an engine gives a source's columns in the order of the query (1.30: not all)."""

    def source(
        with_columns: list[str] | None, _predicate: Any, _n_rows: Any, _batch_size: Any
    ) -> Iterator[pl.DataFrame]:
        frame = pl.DataFrame({"a": [1], "b": [2]})
        yield frame if with_columns is None else frame.select(with_columns)

    schema = {"a": pl.Int64, "b": pl.Int64}
    swapped = register_io_source(source, schema=schema).select("b", "a").collect(engine=engine)
    return swapped.columns == ["b", "a"]


def assert_collected(found: pl.DataFrame, expected: pl.DataFrame, engine: Any) -> None:
    """Check that an engine gave what is expected, in the order of columns that it can keep."""
    assert_frame_equal(found, expected, check_column_order=keeps_order(engine))
