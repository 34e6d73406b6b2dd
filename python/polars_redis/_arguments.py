"""Python's ways to say things, turned into the few that the core takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import polars as pl
from polars.datatypes import DataTypeClass

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, Sequence

    from polars.datatypes import DataType

SchemaDtype: TypeAlias = "DataType | DataTypeClass | type[Any]"
SchemaLike: TypeAlias = (
    "Mapping[str, SchemaDtype] | Sequence[tuple[str, SchemaDtype]]"
    "| Iterator[tuple[str, SchemaDtype]] | ItemsView[str, SchemaDtype]"
)
"""Field names and dtypes; Python types stand for dtypes as in Polars.

Any iterable of pairs works. But a mapping is an iterable too: were that said here, a type checker
would not know what to take a dict of classes and instances for.
"""

StartLike: TypeAlias = "str | int | datetime"
"""An entry ID, the milliseconds of one, or the moment that these stand for."""

ReadFrom: TypeAlias = Literal["master", "replica"]
"""Which servers a stream is read from."""

_INCLUDES = {
    "id_column": "include_id",
    "timestamp_column": "include_timestamp",
    "sequence_column": "include_sequence",
    "delivery_count_column": "include_delivery_count",
    "key_column_name": "include_key",
    "channel_column": "include_channel",
}
"""What says whether the column of this parameter is wanted."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_bound(parameter: str, value: StartLike) -> str | int:
    """Turn a datetime into the millisecond it falls in; naive means UTC."""
    if not isinstance(value, datetime):
        return value
    moment = value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value
    if moment < _EPOCH:
        msg = f"{parameter}: {value} is before 1970, where no entry ID can be"
        raise ValueError(msg)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def to_starts(
    start_id: StartLike | Mapping[str, StartLike],
) -> str | int | dict[str, str | int]:
    """Turn the datetimes of a start, or of one a stream, into milliseconds."""
    if isinstance(start_id, Mapping):
        return {key: to_bound("start_id", value) for key, value in start_id.items()}
    return to_bound("start_id", start_id)


def to_fields(
    schema: SchemaLike | None,
) -> list[tuple[str, DataType | DataTypeClass]] | None:
    """Turn a schema into names and Polars dtypes, in order."""
    if schema is None:
        return None
    if not isinstance(schema, Iterable) or isinstance(schema, str):
        msg = f"schema: expected a mapping or pairs of names and dtypes, got {schema!r}"
        raise TypeError(msg)
    pairs = list(schema.items()) if isinstance(schema, Mapping) else list(schema)
    fields: list[tuple[str, DataType | DataTypeClass]] = []
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            msg = f"schema: expected pairs of a field name and a dtype, got {pair!r}"
            raise TypeError(msg)
        fields.append((pair[0], _to_dtype(*pair)))
    return fields


def _to_dtype(name: str, dtype: Any) -> DataType | DataTypeClass:
    if isinstance(dtype, pl.DataType):
        return dtype
    if isinstance(dtype, DataTypeClass):
        return dtype
    try:
        return pl.Field(name, dtype).dtype
    except (TypeError, ValueError) as error:
        msg = f"schema: field {name!r}: {dtype!r} is not a dtype"
        raise TypeError(msg) from error


def options(
    *,
    schema: SchemaLike | None,
    start_id: StartLike | Mapping[str, StartLike],
    end_id: StartLike,
    include_id: bool,
    include_timestamp: bool,
    include_sequence: bool,
    include_delivery_count: bool,
    id_column: str,
    timestamp_column: str,
    sequence_column: str,
    delivery_count_column: str,
    include_key: bool = False,
    key_column_name: str = "_key",
    max_deliveries: int | None = None,
    dead_letter: str | None = None,
    read_from: ReadFrom = "master",
    **others: Any,
) -> dict[str, Any]:
    """Bring the arguments of a read into the form that the core takes."""
    return {
        "schema": to_fields(schema),
        "start_id": to_starts(start_id),
        "end_id": to_bound("end_id", end_id),
        "id_column": column_name("id_column", id_column, include=include_id),
        "timestamp_column": column_name(
            "timestamp_column", timestamp_column, include=include_timestamp
        ),
        "sequence_column": column_name(
            "sequence_column", sequence_column, include=include_sequence
        ),
        "delivery_count_column": column_name(
            "delivery_count_column", delivery_count_column, include=include_delivery_count
        ),
        "key_column_name": column_name("key_column_name", key_column_name, include=include_key),
        "read_from": read_from,
        "max_deliveries": max_deliveries,
        "dead_letter": dead_letter,
        **others,
    }


def column_name(parameter: str, name: str, *, include: bool) -> str | None:
    """Give the name of an id column, or None for one that is left out."""
    if not isinstance(name, str):
        msg = f"{parameter}: expected str, got {type(name).__name__}"
        raise TypeError(msg)
    if not isinstance(include, bool):
        msg = f"{_INCLUDES[parameter]}: expected bool, got {type(include).__name__}"
        raise TypeError(msg)
    return name if include else None
