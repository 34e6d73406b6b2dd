"""One contender of ``scan.py``: a lazy query or a read, measured in a process of its own.

Run as ``python scanners.py NAME HOST PORT STREAM ENTRIES``, in the manner of ``contenders.py``.
Of the dtypes, two contenders each: one reads the values as the dtype, the other reads String and
lets Polars make the dtype of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import polars as pl

import polars_redis
from contenders import FIRST_MS, PER_MS, Contenders, Read, main, schema

ENGINES = ("in-memory", "streaming")
#: Of how many entries the filter keeps one.
KEEPS_ONE_OF = 100
FIELDS = tuple(schema())

Scan = Callable[[pl.LazyFrame], pl.LazyFrame]


def scan(url: str, stream: str) -> pl.LazyFrame:
    """The stream as it is scanned everywhere."""
    return polars_redis.scan_stream(url, stream, schema())


# -- queries --------------------------------------------------------------------------------------


def read(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """``read_stream``, at once."""
    read_stream = partial(polars_redis.read_stream, f"redis://{host}:{port}", stream, schema())
    return lambda: read_stream(count=1), read_stream


def query(
    make: Scan, engine: str, host: str, port: int, stream: str, entries: int
) -> tuple[Read, Read]:
    """A lazy query that gives a row an entry."""
    whole = scan(f"redis://{host}:{port}", stream)

    def warm_up() -> pl.DataFrame:
        return _collect(make(whole.head(1)), engine)

    return warm_up, lambda: _collect(make(whole), engine)


def _collect(frame: pl.LazyFrame, engine: str) -> pl.DataFrame:
    return frame.collect(engine=engine)  # type: ignore[call-overload, no-any-return]


def everything(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Nothing is left out."""
    return frame


def only(*fields: str) -> Scan:
    """Some fields, without the columns of the entry ID."""
    return lambda frame: frame.select(fields)


def slice_of_time(frame: pl.LazyFrame, entries: int) -> tuple[pl.LazyFrame, int]:
    """One entry of a hundred, from the middle of the stream; and how many those are."""
    moments = max(1, entries // PER_MS // KEEPS_ONE_OF)
    start = FIRST_MS + entries // PER_MS // 2
    is_wanted = pl.col("_ts").is_between(start, start + moments, closed="left")
    return frame.filter(is_wanted), moments * PER_MS


def one_percent(engine: str, host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """A filter of the timestamp."""
    whole = scan(f"redis://{host}:{port}", stream)
    kept, rows = slice_of_time(whole, entries)

    def read_kept() -> dict[str, Any]:
        frame = _collect(kept, engine)
        _expect(frame.height, rows)
        return {"rows": entries}

    return lambda: _collect(whole.head(1), engine), read_kept


def grouped(by: str, host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """A group_by on the streaming engine."""

    def of(frame: pl.LazyFrame) -> pl.DataFrame:
        sums = frame.group_by(by).agg(pl.len(), pl.col("quantity").sum(), pl.col("value").mean())
        return sums.collect(engine="streaming")

    def group() -> dict[str, Any]:
        return {"rows": int(of(whole)["len"].sum())}

    whole = scan(f"redis://{host}:{port}", stream)
    return lambda: of(whole.head(1)), group


def _expect(rows: int, expected: int) -> None:
    if rows != expected:
        msg = f"{rows} rows came, not {expected}"
        raise RuntimeError(msg)


# -- dtypes ---------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A dtype, texts of it, and what people write to make it of String."""

    dtype: pl.DataType
    text: Callable[[int], str]
    casts: dict[str, pl.Expr]
    """The ways that Polars has, of which the quickest one counts."""

    def fields(self, n: int) -> Iterable[object]:
        """The n-th entry of a stream that has nothing else."""
        return VALUE, self.text(n)


VALUE = "value"
_STRUCT = pl.Struct({"a": pl.Int64(), "b": pl.String(), "c": pl.Float64()})
_LIST = pl.List(pl.Int64())
_NAMES = tuple(f"name_{n}" for n in range(1000))
_ENUM = pl.Enum(["click", "view", "purchase", "search", "login", "logout"])
_DAY = date(2000, 1, 1)
_MOMENT = datetime(2024, 1, 1)


def _moment(n: int) -> datetime:
    # Always with digits of a fraction, so that all texts have one form.
    return _MOMENT + timedelta(seconds=n * 7919 % 10_000_000, microseconds=1 + n % 999_999)


def _struct(n: int) -> str:
    return json.dumps({"a": n, "b": _NAMES[n % 1000], "c": n / 4})


def _kinds() -> dict[str, Kind]:
    value = pl.col(VALUE)
    text = value.str

    def by_cast(dtype: pl.DataType, of: Callable[[int], str]) -> Kind:
        return Kind(dtype, of, {"cast": value.cast(dtype)})

    moment = "%Y-%m-%dT%H:%M:%S%.f"
    return {
        "Int64": by_cast(pl.Int64(), lambda n: str(n * 7919)),
        "Float64": by_cast(pl.Float64(), lambda n: f"{n * 17 % 500}.{n % 100:02}"),
        # Polars casts no String to Boolean.
        "Boolean": Kind(
            pl.Boolean(),
            lambda n: "true" if n * 7919 % 3 else "false",
            {'== "true"': value == "true"},
        ),
        "Date": Kind(
            pl.Date(),
            lambda n: (_DAY + timedelta(n * 7919 % 9000)).isoformat(),
            {
                "to_date, format": text.to_date("%Y-%m-%d"),
                "to_date, format, no cache": text.to_date("%Y-%m-%d", cache=False),
            },
        ),
        "Datetime": Kind(
            pl.Datetime("us"),
            lambda n: _moment(n).isoformat(),
            {
                "to_datetime": text.to_datetime(time_unit="us"),
                "to_datetime, format": text.to_datetime(moment, time_unit="us"),
            },
        ),
        # Polars reads no text of ISO 8601 as a Duration: both have integers.
        "Duration": by_cast(pl.Duration("us"), lambda n: str(n * 1_000_003)),
        "Time": Kind(
            pl.Time(),
            lambda n: _moment(n).time().isoformat(),
            {"to_time": text.to_time(), "to_time, format": text.to_time("%H:%M:%S%.f")},
        ),
        "Decimal": by_cast(pl.Decimal(18, 2), lambda n: f"{n * 17}.{n % 100:02}"),
        "Categorical": by_cast(pl.Categorical(), lambda n: _NAMES[n * 7919 % 1000]),
        "Enum": by_cast(_ENUM, lambda n: _ENUM.categories[n % 6]),
        "List(Int64)": Kind(
            _LIST,
            lambda n: f"[{n % 10}, {n % 1000}, {n}]",
            {"json_decode": text.json_decode(_LIST)},
        ),
        "Struct": Kind(_STRUCT, _struct, {"json_decode": text.json_decode(_STRUCT)}),
    }


KINDS = _kinds()


def values(url: str, stream: str, dtype: Any, **options: Any) -> pl.DataFrame:
    """The values alone, read as a dtype."""
    return polars_redis.read_stream(
        url, stream, {VALUE: dtype}, include_id=False, include_timestamp=False, **options
    )


def as_dtype(kind: Kind, host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """Read as the dtype."""
    of = partial(values, f"redis://{host}:{port}", stream, kind.dtype)
    return lambda: of(count=1), of


def as_text(cast: pl.Expr, host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """Read as String, then given to Polars."""
    of = partial(values, f"redis://{host}:{port}", stream, pl.String())
    return lambda: of(count=1).select(cast), lambda: of().select(cast)


CONTENDERS: Contenders = {
    "read": read,
    **{f"scan {engine}": partial(query, everything, engine) for engine in ENGINES},
    **{f"1 % {engine}": partial(one_percent, engine) for engine in ENGINES},
    "fields": partial(query, only(*FIELDS), "in-memory"),
    **{field: partial(query, only(field), "in-memory") for field in FIELDS},
    **{f"group by {field}": partial(grouped, field) for field in ("action", "user_id")},
    **{f"{name} as dtype": partial(as_dtype, kind) for name, kind in KINDS.items()},
    **{
        f"{name} by {way}": partial(as_text, cast)
        for name, kind in KINDS.items()
        for way, cast in kind.casts.items()
    },
}


if __name__ == "__main__":
    main(CONTENDERS)
