"""Polars' engines, and what they hand over to a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polars.io.plugins import register_io_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

ENGINES: list[Any] = ["in-memory", "streaming"]


def hands_over(predicate: pl.Expr, frame: pl.DataFrame) -> bool:
    """Tell whether Polars gives a predicate to its source: 1.30 keeps some to itself."""
    given = []

    def source(
        _with_columns: Any, predicate: pl.Expr | None, _n_rows: Any, _batch_size: Any
    ) -> Iterator[pl.DataFrame]:
        given.append(predicate is not None)
        yield frame.clear()

    register_io_source(source, schema=frame.schema).filter(predicate).collect()
    return given == [True]
