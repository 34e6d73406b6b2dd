"""Frames from what the core hands over."""

from __future__ import annotations

import polars as pl


def to_frame(structs: pl.Series | None) -> pl.DataFrame:
    """Make the fields of structs columns; None stands for a frame without any."""
    return pl.DataFrame() if structs is None else structs.struct.unnest()
