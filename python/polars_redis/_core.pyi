from collections.abc import Sequence

import polars as pl
from polars.datatypes import DataType, DataTypeClass

def read_stream(
    url: str,
    stream: str,
    schema: Sequence[tuple[str, DataType | DataTypeClass]] | None,
    start_id: str | int,
    end_id: str | int,
    count: int | None,
    *,
    id_column: str | None,
    timestamp_column: str | None,
    sequence_column: str | None,
    strict: bool,
) -> pl.Series | None: ...
