"""What Polars scans: streams as sources of its lazy frames."""

from __future__ import annotations

import inspect
import json
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source

from polars_redis import _core
from polars_redis._predicate import IdColumns, bounds_of, filter_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

_OWN_COLUMNS: dict[str, pl.DataType] = {
    "key_column_name": pl.String(),
    "id_column": pl.String(),
    "timestamp_column": pl.Int64(),
    "sequence_column": pl.Int64(),
}
"""The columns that are no fields, by the parameters that name them, in their order."""

_KEEPS_CATEGORIES = tuple(int(part) for part in pl.__version__.split(".")[:2]) >= (1, 36)
"""Whether Polars takes Enum and Categorical from a source: older ones lose or mix them up."""


class Source(ABC):
    """Streams as Polars scans them; holds what a scan needs, and pickles."""

    kind: str
    """What it is, in a plan."""

    def __init__(self, url: str, name: str, arguments: dict[str, Any]) -> None:
        self.url = url
        self.name = name
        self.arguments = arguments
        self.shown_url = self.check(arguments)
        self.sampled: list[str] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown_url!r}, {self.name!r})"

    @abstractmethod
    def check(self, arguments: dict[str, Any]) -> str:
        """Check arguments, sending nothing; the URL without its secrets."""

    @abstractmethod
    def names(self) -> list[str]:
        """Read the names of fields off the first entries."""

    @abstractmethod
    def batches(
        self,
        arguments: dict[str, Any],
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,
    ) -> _core.ScanBatches:
        """Begin to read; what the predicate leaves out may be there or not."""

    def part(self, **changes: Any) -> Self:
        """Make a source with other arguments."""
        return type(self)(self.url, self.name, {**self.arguments, **changes})

    def lazy(self) -> pl.LazyFrame:
        """Make the frame."""
        shown: dict[str, Any] = {}
        if "explain_name" in inspect.signature(register_io_source).parameters:
            bounds = f"{self.arguments['start_id']} to {self.arguments['end_id']}"
            shown["explain_name"] = f"{self.kind} {self.name!r}"
            shown["explain_detail"] = f"{self.shown_url}, {bounds}"
        frame = register_io_source(self, schema=self.schema, **shown)
        casts = [pl.col(name).cast(dtype) for name, dtype in self.cast_behind()]
        return frame.with_columns(casts) if casts else frame

    def cast_behind(self) -> list[tuple[str, Any]]:
        """Give the fields that become what they are only behind the source."""
        if _KEEPS_CATEGORIES:
            return []
        given = self.arguments["schema"] or []
        fields = ((name, pl.Series(dtype=dtype).dtype) for name, dtype in given)
        return [(name, dtype) for name, dtype in fields if _stored(dtype) != dtype]

    def schema(self) -> pl.Schema:
        """Give the schema of the frame; samples the stream for it if need be."""
        # An empty stream has told nothing yet.
        self.sampled = self.sampled or None
        return self.planned()

    def planned(self) -> pl.Schema:
        """Give the schema that the frame was last said to have."""
        ids = {name: _OWN_COLUMNS[parameter] for parameter, name in self.own_columns().items()}
        # Polars wants to know all parameters of a dtype; it fills in what was left out.
        fields = {name: pl.Series(dtype=dtype).dtype for name, dtype in self.fields()}
        stored = {name: _stored(dtype) for name, dtype in self.cast_behind()}
        return pl.Schema({**ids, **fields, **stored})

    def own_columns(self) -> dict[str, str]:
        """Give the names of the columns that are no fields, by the parameters that name them."""
        names = ((parameter, self.arguments[parameter]) for parameter in _OWN_COLUMNS)
        return {parameter: name for parameter, name in names if name is not None}

    def id_columns(self) -> IdColumns:
        """Give the names of the columns made of the entry ID."""
        return IdColumns(*(self.arguments[f"{part}_column"] for part in IdColumns._fields))

    def fields(self) -> list[tuple[str, Any]]:
        """Give the fields to read: those of the schema, or those last sampled."""
        schema: list[tuple[str, Any]] | None = self.arguments["schema"]
        if schema is not None:
            return schema
        # What Polars plans with is what it gets, however the stream grows meanwhile.
        if self.sampled is None:
            self.sampled = self.sample()
        return [(name, pl.String()) for name in self.sampled]

    def sample(self) -> list[str]:
        """Read the names of fields off the first entries, and check that they may be columns."""
        names = self.names()
        own = self.own_columns().values()
        if taken := [name for name in names if name in own]:
            # It raises what it does where the schema names the field.
            fields = [(name, pl.String()) for name in taken]
            self.check({**self.arguments, "schema": fields})
        return names

    def __call__(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,
    ) -> Iterator[pl.DataFrame]:
        """Give the batches of one collection."""
        wanted = None if with_columns is None else set(with_columns)
        if predicate is not None and wanted is not None:
            wanted |= set(predicate.meta.root_names())
        batches = self.batches(self.projected(wanted), predicate, n_rows, batch_size)
        is_empty = True
        for frame in batches:
            is_empty = False
            yield _narrowed(frame, predicate, with_columns)
        if is_empty:
            yield _narrowed(self.planned().to_frame(), None, with_columns)

    def projected(self, wanted: set[str] | None) -> dict[str, Any]:
        """Give the arguments with which only the wanted columns are read."""
        fields = self.fields()
        if wanted is None:
            return {**self.arguments, "schema": fields}
        own = self.own_columns()
        kept = {parameter: own.get(parameter) for parameter in _OWN_COLUMNS}
        kept = {parameter: name if name in wanted else None for parameter, name in kept.items()}
        if not wanted:
            # A frame without columns has no rows: one that costs little counts them.
            kept["timestamp_column"] = own.get("timestamp_column", "_ts")
        return {
            **self.arguments,
            **kept,
            "schema": [(name, dtype) for name, dtype in fields if name in wanted],
        }


class StreamSource(Source):
    """One stream."""

    kind = "REDIS STREAM"

    def check(self, arguments: dict[str, Any]) -> str:
        return _core.check_scan(self.url, self.name, arguments)

    def names(self) -> list[str]:
        return _core.sample_fields(self.url, self.name, self.arguments)

    def batches(
        self,
        arguments: dict[str, Any],
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,
    ) -> _core.ScanBatches:
        bounds = None if predicate is None else bounds_of(predicate, self.id_columns())
        return _core.ScanBatches.of_stream(
            self.url,
            self.name,
            arguments,
            bounds,
            n_rows,
            batch_size,
            casts=_KEEPS_CATEGORIES,
        )


class StreamsSource(Source):
    """The streams whose keys match a pattern."""

    kind = "REDIS STREAMS"

    def check(self, arguments: dict[str, Any]) -> str:
        return _core.check_streams(self.url, self.name, arguments)

    def names(self) -> list[str]:
        return _core.sample_streams(self.url, self.name, self.arguments)

    def batches(
        self,
        arguments: dict[str, Any],
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,
    ) -> _core.ScanBatches:
        bounds = keys = None
        # The first rows count before the predicate: of which streams they are, nobody knows.
        if predicate is not None and n_rows is None:
            bounds = bounds_of(predicate, self.id_columns())
            keys = self.keys(predicate)
        return _core.ScanBatches.of_streams(
            self.url,
            self.name,
            arguments,
            keys,
            bounds,
            n_rows,
            batch_size,
            casts=_KEEPS_CATEGORIES,
        )

    def keys(self, predicate: pl.Expr) -> list[str] | None:
        """Find the keys of the streams that a predicate wants; None if it wants all."""
        column = self.own_columns().get("key_column_name")
        wanted = None if column is None else filter_of(predicate, column)
        if column is None or wanted is None:
            return None
        found = pl.Series(column, _core.find_keys(self.url, self.name, self.arguments), pl.String)
        try:
            kept: list[str] = found.to_frame().filter(wanted)[column].to_list()
        except pl.exceptions.PolarsError:
            # It fails for some key, maybe not for one that has entries.
            return found.to_list()
        logging.getLogger("polars_redis").debug(
            "pattern %s: the predicate leaves %d of %d streams to read",
            json.dumps(self.name, ensure_ascii=False),
            len(kept),
            len(found),
        )
        return kept


def _stored(dtype: pl.DataType) -> pl.DataType:
    """Give the dtype of a column before Polars casts it: categories are text."""
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(_stored(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Array):
        return pl.Array(_stored(dtype.inner), dtype.size)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        fields = dtype.fields
        return pl.Struct([pl.Field(field.name, _stored(field.dtype)) for field in fields])  # type: ignore[arg-type]
    return dtype


def _narrowed(
    frame: pl.DataFrame, predicate: pl.Expr | None, with_columns: list[str] | None
) -> pl.DataFrame:
    if predicate is not None:
        frame = frame.filter(predicate)
    if with_columns is None:
        return frame
    # The streaming engine of Polars 1.30 takes them to be in the schema's order.
    return frame.select([name for name in frame.columns if name in with_columns])
