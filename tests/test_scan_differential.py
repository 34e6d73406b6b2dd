"""Random queries on random streams: lazily scanned they give what the whole stream, read, gives."""

from __future__ import annotations

import operator
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import reduce
from itertools import cycle
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import polars_redis as redis
from support.engines import ENGINES
from support.streams import add

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

MAX = 2**64 - 1
DAY = 1_704_067_200_000
DATED = st.one_of(
    st.integers(0, 12),
    st.integers(95, 105),
    st.integers(DAY, DAY + 3),
    st.integers(-3, 3).map(lambda n: DAY + n * 1_800_000),
)
MILLISECONDS = st.one_of(
    DATED,
    st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, 2**62, (2**64 + 2) // 3, 2**63 - 1, 2**63, MAX]),
)
SEQUENCES = st.one_of(
    st.integers(0, 3),
    st.sampled_from([9, 10, 2**53 + 1, (2**64 + 2) // 3, 2**63 - 1, 2**63, MAX]),
)
IDS = st.tuples(MILLISECONDS, SEQUENCES)
VALUES = [
    "3",
    "",
    "a",
    "5",
    "1704067200000",
    "true",
    "5-1",
    None,
    "-2",
    "nan",
    "9",
    "1",
    "é",
    "100",
]


def streams(milliseconds: st.SearchStrategy[int]) -> st.SearchStrategy[dict[Any, Any]]:
    """IDs, and fields that differ in number and values."""
    ids = st.tuples(milliseconds, SEQUENCES).filter(lambda i: i > (0, 0))
    few = st.sets(ids, min_size=4, max_size=10) | st.just(set())
    return st.builds(filled, few, st.integers(1, len(VALUES) - 1))


def filled(ids: set[tuple[int, int]], step: int) -> dict[tuple[int, int], dict[str, str]]:
    texts = cycle(VALUES[::step] + VALUES)
    fields = ({name: next(texts) for name in ["n", "s", "_ts", "b"]} for _ in ids)
    filled = [{name: text for name, text in one.items() if text is not None} for one in fields]
    return dict(zip(sorted(ids), filled, strict=True))


SCHEMAS = st.fixed_dictionaries(
    {"n": st.sampled_from([pl.Int64, pl.UInt64, pl.Float64, pl.Int8])},
    optional={"s": st.just(pl.String), "b": st.just(pl.Boolean), "lacking": st.just(pl.Int64)},
)
INTEGERS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128]
UNSIGNED = [pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]
UNITS = st.sampled_from(["ms", "us", "ns"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"])
FACTORS = st.sampled_from([1, 2, 3, 10, 1000, 1_000_000, 0, -1])
COMPARISONS: list[Callable[[Any, Any], pl.Expr]] = [
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
    lambda left, right: left.eq_missing(right),
    lambda left, right: left.ne_missing(right),
]


@dataclass
class Names:
    """Which columns of the entry ID there are, and how they are called."""

    #: Whether all milliseconds are in years that Polars can tell the local time of.
    dated: bool

    id: str | None
    timestamp: str | None
    sequence: str | None
    arguments: dict[str, Any]
    #: The IDs of the stream: what is compared with them is most often near one of them.
    ids: list[tuple[int, int]] = field(default_factory=list)


@st.composite
def namings(draw: st.DrawFn) -> Names:
    names: dict[str, Any] = {"dated": draw(st.booleans())}
    arguments: dict[str, Any] = {}
    for part, default in [("id", "_id"), ("timestamp", "_ts"), ("sequence", "_seq")]:
        name = draw(st.sampled_from([default, default, default, f"my {part}", None]))
        names[part] = name
        arguments[f"include_{part}"] = name is not None
        arguments[f"{part}_column"] = default if name is None else name
    return Names(**names, arguments=arguments)


@st.composite
def literals(draw: st.DrawFn, names: Names, factor: int) -> Any:
    """A number, as Polars may be told it."""
    value = draw(st.one_of(MILLISECONDS, SEQUENCES, st.integers(-5, 5), st.just(-(2**63))))
    if names.ids and draw(st.integers(0, 3)):
        value = draw(st.sampled_from(draw(st.sampled_from(names.ids)))) * factor
        if draw(st.booleans()):
            # As Polars calculates.
            value = (value + 2**63) % 2**64 - 2**63
    value += draw(st.integers(-1, 1))
    kind = draw(st.sampled_from(["plain", "plain", "typed", "float", "single", "sum", "null"]))
    if kind == "typed":
        dtype = draw(st.sampled_from(INTEGERS if value < 0 else INTEGERS + UNSIGNED))
        return pl.lit(value).cast(dtype, strict=False)
    if kind in {"float", "single"}:
        number = float(value) + draw(st.sampled_from([0.0, 0.5, -0.25, float("inf")]))
        return number if kind == "float" else pl.lit(number, dtype=pl.Float32)
    if kind == "sum":
        return pl.lit(value - 5) + 5
    if kind == "null":
        return pl.lit(None, dtype=draw(st.sampled_from([None, pl.Int64, pl.Float64])))
    return value


@st.composite
def numbers(draw: st.DrawFn, names: Names) -> tuple[pl.Expr, int]:
    """A column of numbers, calculated with or not, and what it was multiplied with."""
    ids = [name for name in (names.timestamp, names.sequence) if name is not None]
    column = pl.col(draw(st.sampled_from([*ids, *ids, *ids, "n"])))
    product = 1
    changes = st.sampled_from(["cast", "multiply", "multiply", "add", "divide"])
    for change in draw(st.lists(changes, max_size=2)):
        if change == "cast":
            dtype = draw(st.sampled_from([pl.Int128, pl.UInt64, pl.Float64, pl.Int32, pl.Float32]))
            column = column.cast(dtype, strict=draw(st.booleans()))
        elif change == "multiply":
            factor = draw(FACTORS)
            product *= factor
            dtype = draw(st.sampled_from([pl.Int64, pl.UInt64, pl.Int8]))
            typed = pl.lit(factor).cast(dtype, strict=False)
            column = column * draw(st.sampled_from([factor, typed]))
        elif change == "add":
            column = column + draw(st.integers(-5, 5))
        else:
            column = column // draw(st.sampled_from([1, 2, 1000]))
    return column, product


@st.composite
def instants(draw: st.DrawFn, names: Names) -> tuple[pl.Expr, Any, Any]:
    """A column made a Datetime, and two moments to compare it with."""
    unit: Any = draw(UNITS)
    zone = draw(st.one_of(st.none(), ZONES))
    factor = {"ms": 1, "us": 1000, "ns": 1_000_000}[unit] if draw(st.integers(0, 4)) else 1
    column = pl.col(names.timestamp or "n") * factor
    if draw(st.booleans()) and zone is None:
        column = pl.from_epoch(column, time_unit=unit)
    else:
        column = column.cast(pl.Datetime(unit, zone))
    for change in draw(st.lists(st.sampled_from(["replace", "convert", "none"]), max_size=3)):
        zone = draw(ZONES) if change != "none" else None
        if change == "convert":
            column = column.dt.convert_time_zone(zone or "UTC")
        else:
            column = column.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return column, draw(moments(unit, zone)), draw(moments(unit, zone))


@st.composite
def moments(draw: st.DrawFn, unit: Any, zone: str | None) -> Any:
    day = datetime(2024, 1, 1, tzinfo=draw(st.sampled_from([None, timezone.utc])))
    moment = day + draw(st.integers(-5, 5)) * timedelta(milliseconds=draw(FACTORS))
    moment += draw(st.integers(-4, 4)) * timedelta(minutes=30)
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from([moment, moment.date(), pl.datetime(2024, 1, 1, 1)]))
    naive = moment.replace(tzinfo=None)
    literal = pl.lit(naive).cast(pl.Datetime(unit))
    return literal if zone is None else literal.dt.replace_time_zone(zone)


@st.composite
def texts(draw: st.DrawFn, names: Names) -> str:
    ms, seq = draw(st.sampled_from(names.ids) | IDS if names.ids else IDS)
    odd = ["", "-", "5", "5-", "05-1", "5-01", "5-1 ", "é", "a", "1", "17", f"{ms}", f"{ms}-"]
    return draw(st.sampled_from([f"{ms}-{seq}", f"{ms}-{seq}", *odd]))


@st.composite
def operands(draw: st.DrawFn, names: Names) -> tuple[pl.Expr, Any, Any]:
    """A column, and two constants to compare it with."""
    kind = draw(st.sampled_from(["number", "number", "number", "text", "instant"]))
    if kind == "number" or (kind == "instant" and not (names.dated and names.timestamp)):
        column, factor = draw(numbers(names))
        return column, draw(literals(names, factor)), draw(literals(names, factor))
    if kind == "text":
        column = pl.col(names.id or "s")
        return column, pl.lit(draw(texts(names))), pl.lit(draw(texts(names)))
    return draw(instants(names))


@st.composite
def comparisons(draw: st.DrawFn, names: Names) -> pl.Expr:
    kind = draw(st.sampled_from(["order", "order", "order", "between", "among", "null", "columns"]))
    if kind == "null":
        column = pl.col(names.timestamp or "n")
        return draw(st.sampled_from([column.is_null(), column.is_not_null()]))
    if kind == "columns":
        return draw(st.sampled_from(COMPARISONS))(draw(numbers(names))[0], draw(numbers(names))[0])
    if kind == "among":
        return draw(members(names))
    column, one, other = draw(operands(names))
    if kind == "between":
        return column.is_between(
            one, other, closed=draw(st.sampled_from(["both", "left", "right", "none"]))
        )
    pair = [column, one if isinstance(one, pl.Expr) else pl.lit(one)]
    if draw(st.booleans()):
        pair.reverse()
    return draw(st.sampled_from(COMPARISONS))(*pair)


@st.composite
def members(draw: st.DrawFn, names: Names) -> pl.Expr:
    negated = draw(st.booleans())
    if names.id is not None and draw(st.booleans()):
        listed: Any = draw(st.lists(st.one_of(texts(names), st.none()), max_size=3))
        column = pl.col(names.id)
        found = column.is_in(pl.Series(listed, dtype=pl.String).implode(), nulls_equal=negated)
    else:
        dtype = draw(st.sampled_from([pl.Int64, pl.Int64, pl.Int64, pl.UInt64, pl.Int32]))
        column, factor = draw(numbers(names))
        values = [number for pair in names.ids for number in pair] or [0]
        one = st.sampled_from(values).map(lambda value: value * factor)
        listed = draw(st.lists(one | MILLISECONDS | st.none(), max_size=3))
        series = pl.Series(listed, dtype=pl.Int128).cast(dtype, strict=False).implode()
        found = column.is_in(series, nulls_equal=negated)
    return ~found if negated else found


def predicates(names: Names) -> st.SearchStrategy[pl.Expr]:
    def joined(inner: st.SearchStrategy[pl.Expr]) -> st.SearchStrategy[pl.Expr]:
        ways: list[Callable[..., pl.Expr]] = [operator.and_, operator.or_, operator.xor]
        ways += [pl.all_horizontal, pl.any_horizontal]
        ways += [lambda one, other: pl.when(one).then(other).otherwise(statement=one)]
        pairs = st.tuples(st.sampled_from(ways), inner, inner)
        return st.one_of(pairs.map(lambda p: p[0](p[1], p[2])), inner.map(operator.invert))

    return st.recursive(comparisons(names), joined, max_leaves=4)


@st.composite
def steps(
    draw: st.DrawFn, names: Names, columns: list[str], kinds: list[str]
) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """One thing that is done to a frame."""
    kind = draw(st.sampled_from(kinds))
    amount = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 12]))
    if kind == "filter":
        predicate = draw(predicates(names))
        note(f"filter {predicate}")
        return lambda frame: frame.filter(predicate)
    if kind == "slice":
        offset = draw(st.integers(-6, 3))
        note(f"slice {offset} {amount}")
        return lambda frame: frame.slice(offset, amount)
    if kind == "select":
        chosen = draw(st.lists(st.sampled_from(columns), unique=True, min_size=1))
        note(f"select {chosen}")
        return lambda frame: frame.select(chosen)
    note(f"{kind} {amount}")
    return lambda frame: getattr(frame, kind)(amount)


@st.composite
def queries(
    draw: st.DrawFn, names: Names, columns: list[str]
) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """A filter most often, and what goes before and after it."""
    parts = [
        *draw(st.lists(steps(names, columns, ["head", "slice"]), max_size=1)),
        *draw(st.lists(steps(names, columns, ["filter"]), min_size=1, max_size=2)),
        *draw(st.lists(steps(names, columns, ["head", "tail", "slice", "filter"]), max_size=2)),
        *draw(st.lists(steps(names, columns, ["select"]), max_size=1)),
    ]
    return lambda frame: reduce(lambda done, step: step(done), parts, frame)


@st.composite
def ends(draw: st.DrawFn, open_end: str, near: st.SearchStrategy[tuple[int, int]]) -> str:
    if draw(st.integers(0, 3)):
        return open_end
    ms, seq = draw(near | IDS)
    return draw(st.sampled_from(["", "("])) + f"{ms}-{seq}"


def at(moment: datetime, unit: Any = "ms", zone: str | None = None) -> pl.Expr:
    literal = pl.lit(moment).cast(pl.Datetime(unit))
    return literal if zone is None else literal.dt.replace_time_zone(zone)


NOON = datetime(2024, 1, 1, 12)
ts, seq, entry_id = pl.col("_ts"), pl.col("_seq"), pl.col("_id")
local = ts.cast(pl.Datetime("ms", "Europe/Berlin"))
hard = [
    # Products that Polars lets wrap.
    ts * 3 == 2,
    seq * 3 == 2,
    ts * 1000 < 0,
    (ts * 3).is_in([2]),
    (ts * 1000).is_between(-(2**63), -1),
    ts * 1000 >= 0,
    # Wall clocks.
    local.dt.replace_time_zone("UTC") > at(NOON, zone="UTC"),
    local.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    > at(NOON, zone="Asia/Tokyo"),
    local.dt.replace_time_zone(None) > at(NOON),
    local.dt.convert_time_zone("UTC") > at(NOON, zone="UTC"),
    local < at(NOON, zone="Europe/Berlin"),
    (ts * 1000).cast(pl.Datetime("us")) >= NOON,
    pl.from_epoch(ts, time_unit="ms") >= NOON,
    pl.from_epoch(ts, time_unit="ms").dt.date() == NOON.date(),
    # Floats: neighbours that are one number, and those that are written with many digits.
    ts == float(2**53 - 1),
    ts == float(2**53),
    ts.is_between(float(2**53 - 1), float(2**53 + 1)),
    ts.cast(pl.Float64) == 2**53 + 1,
    pl.lit(2**53 + 1, dtype=pl.UInt64) == ts,
    ts <= 3985124781135382.0,
    ts >= 3985124781135382.0,
    ts > float("nan"),
    ts < float("inf"),
    ts >= pl.lit(float(2**24 + 2), dtype=pl.Float32),
    # Numbers that no ID can have.
    ts > -1,
    ts >= pl.lit(-(2**100), dtype=pl.Int128),
    ts < pl.lit(2**100, dtype=pl.Int128),
    ts == pl.lit(2**64 - 1, dtype=pl.UInt64),
    ts.cast(pl.UInt64) > -5,
    ts.is_between(9, 5),
    # The order of text.
    entry_id < "5",
    entry_id >= "1704067200000",
    entry_id.is_between(pl.lit("10-"), pl.lit("9")),
    entry_id == "05-0",
    entry_id.is_in(["5-0", "05-0", "x", "9"]),
    entry_id.eq_missing(pl.lit("5-0")),
    entry_id != "5-0",
    # Nulls.
    ts.is_in([5, None]),
    ts.is_in([5, None], nulls_equal=True),
    ts.is_null() | (seq == 0),
    ts.eq_missing(pl.lit(None)),
    ts == pl.lit(None, dtype=pl.Int64),
    # Combinations.
    ((ts == 5) & (seq > 2)) | ((ts == 9) & (seq == 0)),
    ((ts <= 5) & (seq == 3)) | (ts == 9),
    (ts == 5) ^ (seq == 0),
    ~((ts > 5) & (ts < 2**60)),
    (ts > 5) & (pl.col("n") < 0),
    (ts > 5) | (pl.col("n") < 0),
    (ts & 4) == 4,
    ts < seq,
]
HARD_IDS = [
    (ms, seq)
    for ms in [
        *(0, 5, 9, 10, 99, 100, 1_704_067_200_000, 1_704_106_800_000, 1_704_110_400_000),
        *(1_704_112_200_000, 3_985_124_781_135_382, 2**53 - 1, 2**53, 2**53 + 1),
        *((2**64 + 2) // 3, 2**63 - 1, 2**63, MAX),
    ]
    for seq in [0, 3, 10, (2**64 + 2) // 3, MAX]
    if (ms, seq) > (0, 0)
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("last", [MAX, 2**63 - 1, 2**60, 10**13, 99])
def test_hard_predicates(client: redis_py.Redis, redis_url: str, engine: Any, last: int) -> None:
    stream = uuid.uuid4().hex
    ids = [(ms, seq) for ms, seq in HARD_IDS if ms <= last]
    add(client, stream, ((f"{ms}-{seq}", {"n": seq % 7 - 3}) for ms, seq in ids))
    schema = {"n": pl.Int64}
    parts: list[dict[str, Any]] = [{}, {"count": 7}, {"start_id": "5-3"}, {"end_id": "100"}]
    for part in parts:
        options = {"include_sequence": True, "strict": False, **part}
        whole = redis.read_stream(redis_url, stream, schema, **options).lazy()
        scanned = redis.scan_stream(redis_url, stream, schema, **options)
        for predicate in hard:
            try:
                expected = whole.filter(predicate).collect()
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
                # Years that Polars has no local time of.
                assert last > 10**13
                continue
            found = scanned.filter(predicate).collect(engine=engine)
            assert found.equals(expected), f"{predicate} with {part}"


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_equal_to_what_is_read_whole(
    client: redis_py.Redis, redis_url: str, data: st.DataObject
) -> None:
    names, schema = data.draw(namings()), data.draw(SCHEMAS)
    entries = data.draw(streams(DATED if names.dated else MILLISECONDS))
    if names.timestamp != "_ts" and data.draw(st.booleans()):
        schema["_ts"] = pl.Int64
    names.ids = sorted(entries)
    near = st.sampled_from(names.ids) if entries else IDS
    options: dict[str, Any] = {
        **names.arguments,
        "start_id": data.draw(ends("-", near)),
        "end_id": data.draw(ends("+", near)),
        "count": data.draw(st.sampled_from([None, None, None, 0, 1, 5, 20])),
        "strict": False,
    }
    stream = uuid.uuid4().hex
    add(client, stream, ((f"{ms}-{seq}", fields) for (ms, seq), fields in entries.items()))
    whole = redis.read_stream(redis_url, stream, schema, **options).lazy()
    scanned = redis.scan_stream(redis_url, stream, schema, **options)
    for _ in range(3):
        query = data.draw(queries(names, whole.collect_schema().names()))
        compare(scanned, whole, query)
    client.delete(stream)


def compare(
    scanned: pl.LazyFrame, whole: pl.LazyFrame, query: Callable[[pl.LazyFrame], pl.LazyFrame]
) -> None:
    for engine in ENGINES:
        try:
            expected = query(whole).collect(engine=engine)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            # No query that Polars takes; what it says of it is not ours.
            return
        assert_frame_equal(query(scanned).collect(engine=engine), expected)
