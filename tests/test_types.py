"""Dates, decimals, categories and nested dtypes: which texts they take, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

import polars_redis as redis
from polars_redis.exceptions import DecodeError
from support.streams import add

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis as redis_py

EPOCH = datetime(1970, 1, 1)
PARIS = "Europe/Paris"
US, NS, MS = pl.Datetime("us"), pl.Datetime("ns"), pl.Datetime("ms")
UTC = pl.Datetime("us", "UTC")
SPRING = pl.Datetime("us", PARIS)
COLOURS = pl.Enum(["red", "green", "blue and a tail that is not inline"])
POINT = pl.Struct({"x": pl.Int8, "y": pl.Float64})
DEEP = pl.List(
    pl.Struct(
        {
            "at": pl.Datetime("ms", PARIS),
            "cost": pl.Decimal(10, 2),
            "kind": COLOURS,
            "tags": pl.List(pl.Categorical),
            "wide": pl.Int128,
            "span": pl.Duration,
            "pair": pl.Array(pl.Boolean, 2),
        }
    )
)

TAKEN: list[tuple[Any, str, Any]] = [
    # Dates: ISO, or days.
    (pl.Date, "2024-02-29", date(2024, 2, 29)),
    (pl.Date, "0001-01-01", date(1, 1, 1)),
    (pl.Date, "9999-12-31", date(9999, 12, 31)),
    (pl.Date, "0", date(1970, 1, 1)),
    (pl.Date, "-1", date(1969, 12, 31)),
    (pl.Date, "+19782", date(2024, 2, 29)),
    # Times: ISO, or nanoseconds.
    (pl.Time, "00:00", time()),
    (pl.Time, "23:59:59.999999", time(23, 59, 59, 999_999)),
    (pl.Time, "23:59:59.99999999999999", time(23, 59, 59, 999_999)),
    (pl.Time, "0", time()),
    (pl.Time, "86399999999999", time(23, 59, 59, 999_999)),
    # Moments.
    (US, "2024-01-01", datetime(2024, 1, 1)),
    (US, "2024-01-01 12:34", datetime(2024, 1, 1, 12, 34)),
    (US, "2024-01-01T12:34:56.789", datetime(2024, 1, 1, 12, 34, 56, 789_000)),
    (US, "2024-01-01T00:30:00+02:00", datetime(2023, 12, 31, 22, 30)),
    (US, "2023-12-31T19:30-0300", datetime(2023, 12, 31, 22, 30)),
    (US, "2024-01-01T03:30+05", datetime(2023, 12, 31, 22, 30)),
    (US, "2023-12-31T22:30:00Z", datetime(2023, 12, 31, 22, 30)),
    (US, "1969-12-31T23:59:59.9999999", EPOCH - timedelta(microseconds=1)),
    (US, "-1", EPOCH - timedelta(microseconds=1)),
    (MS, "1500", EPOCH + timedelta(milliseconds=1500)),
    (MS, "1970-01-01T00:00:00.0019", EPOCH + timedelta(milliseconds=1)),
    (NS, "1970-01-01T00:00:00.000001999", EPOCH + timedelta(microseconds=1)),
    (pl.Datetime, "2024-01-01", datetime(2024, 1, 1)),
    (UTC, "2024-01-01T12:00", datetime(2024, 1, 1, 12, tzinfo=timezone.utc)),
    (UTC, "2024-01-01T12:00+01:30", datetime(2024, 1, 1, 10, 30, tzinfo=timezone.utc)),
    # An hour that Paris has twice, and one that it has not: instants, both.
    (SPRING, "2024-10-27T00:30Z", datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo(PARIS))),
    (SPRING, "2024-10-27T01:30Z", datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo(PARIS), fold=1)),
    (SPRING, "2024-03-31T01:00", datetime(2024, 3, 31, 3, tzinfo=ZoneInfo(PARIS))),
    (SPRING, "2024-03-31T02:30+01:00", datetime(2024, 3, 31, 3, 30, tzinfo=ZoneInfo(PARIS))),
    # Durations.
    (pl.Duration, "P1W2DT3H4M5.000006S", timedelta(9, 11_045, 6)),
    (pl.Duration, "-PT1.5S", timedelta(seconds=-1.5)),
    (pl.Duration, "PT0.0000009S", timedelta()),
    (pl.Duration("ms"), "-PT0.0019S", timedelta(milliseconds=-1)),
    (pl.Duration("ms"), "-1500", timedelta(seconds=-1.5)),
    (pl.Duration("ns"), "PT36H", timedelta(1.5)),
    # Decimals.
    (pl.Decimal(10, 2), "1.5", Decimal("1.50")),
    (pl.Decimal(10, 2), "-0.010000", Decimal("-0.01")),
    (pl.Decimal(10, 2), "+1e3", Decimal("1000.00")),
    (pl.Decimal(10, 2), "99999999.99", Decimal("99999999.99")),
    (pl.Decimal(38, 0), "9" * 38, Decimal("9" * 38)),
    (pl.Decimal(38, 38), "-0." + "9" * 38, Decimal("-0." + "9" * 38)),
    (pl.Decimal, "-17", Decimal(-17)),
    # Categories.
    (pl.Categorical, "é€🦀 and so on", "é€🦀 and so on"),
    (pl.Categorical, "", ""),
    (COLOURS, "green", "green"),
    (COLOURS, "blue and a tail that is not inline", "blue and a tail that is not inline"),
    # JSON.
    (pl.List(pl.Int64), " [1, -2,\tnull]\n", [1, -2, None]),
    (pl.List(pl.Int64), "[]", []),
    (pl.List(pl.Int64), "null", None),
    (pl.List(pl.Int64), " null ", None),
    (pl.List(pl.Int8), "[127, -128, -0]", [127, -128, 0]),
    (pl.List(pl.UInt64), f"[{2**64 - 1}]", [2**64 - 1]),
    (pl.List(pl.Int128), f"[{-(2**127)}]", [-(2**127)]),
    (pl.List(pl.Float64), '[1, 1.5, 1e3, 1e999, "-inf", "Infinity"]',
     [1.0, 1.5, 1e3, math.inf, -math.inf, math.inf]),
    (pl.List(pl.Float32), "[0.5]", [0.5]),
    (pl.List(pl.Boolean), "[true, false, null]", [True, False, None]),
    (pl.List(pl.String), '["", "\\u00e9", "\\ud83e\\udd80", "null", null]',
     ["", "é", "🦀", "null", None]),
    (pl.List(pl.Binary), '["\\u00e9"]', ["é".encode()]),
    (pl.List(pl.Date), '["2024-02-29", 0, -1]',
     [date(2024, 2, 29), date(1970, 1, 1), date(1969, 12, 31)]),
    (pl.List(pl.Time), '["12:30", 0]', [time(12, 30), time()]),
    (pl.List(UTC), '["2024-01-01T12:00+02:00", 0]',
     [datetime(2024, 1, 1, 10, tzinfo=timezone.utc), datetime(1970, 1, 1, tzinfo=timezone.utc)]),
    (pl.List(pl.Duration), '["PT1S", 1]', [timedelta(seconds=1), timedelta(microseconds=1)]),
    (pl.List(pl.Decimal(5, 2)), '[1, 1.5, "2.25", 1e2]',
     [Decimal(1), Decimal("1.5"), Decimal("2.25"), Decimal(100)]),
    (pl.List(COLOURS), '["red", null]', ["red", None]),
    (pl.List(pl.Categorical), '["a", "b", "a"]', ["a", "b", "a"]),
    (pl.List(pl.List(pl.Int64)), "[[1], [], null, [2, 3]]", [[1], [], None, [2, 3]]),
    (pl.Array(pl.Int64, 2), "[1, null]", [1, None]),
    (pl.Array(pl.Int64, 2), "null", None),
    (pl.Array(pl.Int64, (2, 3)), "[[1, 2, 3], null]", [[1, 2, 3], None]),
    (pl.Array(COLOURS, 1), '["red"]', ["red"]),
    (pl.Array(pl.Int64, 0), "[]", []),
    (POINT, '{"x": 1, "y": 2}', {"x": 1, "y": 2.0}),
    (POINT, '{"y": 2, "z": [{"deep": "and ignored"}], "x": 1}', {"x": 1, "y": 2.0}),
    (POINT, '{"x": 1}', {"x": 1, "y": None}),
    (POINT, "{}", {"x": None, "y": None}),
    (POINT, "null", None),
    (POINT, '{"x": "bad", "x": 1000, "x": 1}', {"x": 1, "y": None}),
    (POINT, '{"\\u0078": 1}', {"x": 1, "y": None}),
    (POINT, '{"$serde_json::private::Number": "1"}', {"x": None, "y": None}),
    (pl.Struct({"a": pl.Struct({"b": pl.List(POINT)})}), '{"a": {"b": [{"x": 1}, null]}}',
     {"a": {"b": [{"x": 1, "y": None}, None]}}),
    (DEEP, '[null, {"at": "2024-07-01T12:00Z", "cost": "1.5", "kind": "red", "tags": ["a"], '
           '"wide": 170141183460469231731687303715884105727, "span": "PT1S", '
           '"pair": [true, null]}]',
     [None, {"at": datetime(2024, 7, 1, 14, tzinfo=ZoneInfo(PARIS)), "cost": Decimal("1.50"),
             "kind": "red", "tags": ["a"], "wide": 2**127 - 1, "span": timedelta(seconds=1),
             "pair": [True, None]}]),
]  # fmt: skip

REFUSED: list[tuple[Any, str | bytes]] = [
    *((pl.Date, text) for text in (
        "", " ", "2023-02-29", "2024-02-30", "2024-13-01", "2024-1-1", "2024-01", "10000-01-01",
        "2024-01-01 ", " 2024-01-01", "2024-01-01T00:00", "20240101000", "1.0", "2147483648",
        "-2147483649", "+5881580-07-12", "today", b"\xff")),
    *((pl.Time, text) for text in (
        "", "24:00", "23:60", "23:59:60", "1:00", "01:", "01:00:00,5", "01:00Z", "01:00 ",
        "-1", "86400000000000", "01:00:00.")),
    *((dtype, text) for dtype in (US, NS, MS, UTC) for text in (
        "", "2024-01-01T", "2024-01-01T24:00", "2024-06-30T23:59:60Z", "2024-02-30T00:00",
        "2024-01-01  00:00", "2024-01-01T00:00 Z", "2024-01-01T00:00z", "2024-01-01Z",
        "2024-01-01T00:00+24:00", "2024-01-01T00:00+1", "2024-01-01T00:00+01:60",
        "2024-01-01T00:00 Europe/Paris", "1.5", "1e3", str(2**63), str(-(2**63) - 1), b"\xff")),
    (NS, "2300-01-01"),
    (NS, "1677-09-21T00:12:43.145224191"),
    (NS, "2262-04-11T23:47:16.854775808"),
    (US, "+294247-01-10T04:00:54.775808"),
    *((pl.Duration, text) for text in (
        "", "P", "PT", "P1Y", "P1M", "P1", "P1DT", "PT1M1H", "PT1.5M1S", "P-1D", "PT1", "1 day",
        "PT1S ", "1.5", "01:00:00", "PT9223372036854.775808S", str(2**63))),
    *((pl.Decimal(10, 2), text) for text in (
        "", ".", "+", "1.255", "0.001", "100000000", "1e8", "1e-3", "1,5", " 1", "1 ", "inf",
        "nan", "0x1", "1e", "1e99999999999999999999", b"\xff")),
    (pl.Decimal(38, 0), "1" + "0" * 38),
    (pl.Decimal(38, 38), "1"),
    (pl.Decimal, "0.5"),
    *((COLOURS, text) for text in ("", "Red", "red ", "blue", "null", b"\xff")),
    (pl.Categorical, b"\xff"),
    *((pl.List(pl.Int64), text) for text in (
        "", "1", "[1", "1]", "[1,]", "[1] [2]", "[1]x", "{}", '"[1]"', "[1.0]", "[1.5]", "[1e3]",
        '["1"]', "[true]", "[01]", "[+1]", "[NaN]", "[[1]]", "[{}]", f"[{2**63}]", "nul", "None",
        "[1 2]", "['a']", b"[\xff]", "[" * 100_000, "[" * 100_000 + "]" * 100_000)),
    (pl.List(pl.Int8), "[128]"),
    (pl.List(pl.UInt8), "[-1]"),
    *((pl.List(pl.Float64), text) for text in ('["1.5"]', '["1e999"]', '[""]', "[true]")),
    *((pl.List(pl.Boolean), text) for text in ("[1]", '["true"]', "[True]")),
    *((pl.List(pl.String), text) for text in ("[1]", "[true]", "[{}]", '["\\ud800"]', '["\n"]')),
    *((pl.List(pl.Date), text) for text in ('["0"]', '["2024-02-30"]', "[1.5]", "[true]")),
    (pl.List(UTC), '["2024-06-30T23:59:60Z"]'),
    (pl.List(pl.Decimal(5, 2)), "[1.255]"),
    (pl.List(COLOURS), '["pink"]'),
    *((pl.Array(pl.Int64, 2), text) for text in ("[]", "[1]", "[1, 2, 3]", "1", "{}")),
    (pl.Array(pl.Int64, (2, 2)), "[[1, 2], [3]]"),
    (pl.Array(pl.Int64, 0), "[1]"),
    *((POINT, text) for text in (
        "[]", "1", '{"x": 128}', '{"x": "1"}', '{"x": 1, "x": 1.5}', "{'x': 1}", '{"x": 1,}',
        '{"y": 1}{"y": 2}', '{"x": [')),
    (DEEP, '[{"kind": "pink"}]'),
    (DEEP, '[{"pair": [true]}]'),
]  # fmt: skip


def frames(
    url: str, client: redis_py.Redis, stream: str, texts: Iterable[Any], dtype: Any, **options: Any
) -> pl.Series:
    """The column of these texts; None leaves the field out."""
    entries = (
        (f"{n + 1}-0", {"w": n} if text is None else {"w": n, "v": text})
        for n, text in enumerate(texts)
    )
    client.delete(stream)
    add(client, stream, entries)
    return redis.read_stream(url, stream, {"v": dtype}, **options)["v"]


def full(dtype: Any) -> Any:
    """The dtype as Polars makes columns of it."""
    return pl.Series([], dtype=dtype).dtype


@pytest.mark.parametrize("dtype", list({str(case[0]): case[0] for case in TAKEN}.values()), ids=str)
def test_what_is_taken(client: redis_py.Redis, redis_url: str, stream: str, dtype: Any) -> None:
    cases = [(text, value) for other, text, value in TAKEN if str(other) == str(dtype)]
    # Fields that are lacking in between, and more than one chunk's worth of shapes.
    texts = [text for text, _ in cases for text in (None, text)]
    got = frames(redis_url, client, stream, texts, dtype)
    assert got.dtype == full(dtype) or dtype is pl.Decimal
    assert got.to_list() == [value for _, value in cases for value in (None, value)]
    assert frames(redis_url, client, stream, texts, dtype, strict=False).equals(got)


@pytest.mark.parametrize(("dtype", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused(
    client: redis_py.Redis, redis_url: str, stream: str, dtype: Any, text: Any
) -> None:
    with pytest.raises(DecodeError) as caught:
        frames(redis_url, client, stream, [None, text], dtype)
    error = caught.value
    assert (error.stream, error.entry_id, error.field) == (stream, "2-0", "v")
    expected = full(dtype)
    if expected.base_type() not in (pl.Categorical, pl.Decimal):
        assert f"expected {expected}, got " in str(error)
    # What comes before and after it stays what it is.
    fitting = next((sample for other, sample, _ in TAKEN if str(other) == str(dtype)), "null")
    texts = [fitting, text, None, fitting, text]
    got = frames(redis_url, client, stream, texts, dtype, strict=False)
    alone = frames(redis_url, client, stream, [fitting], dtype)[0]
    expect = [alone, None, None, alone, None]
    plain = [v.to_list() if isinstance(v, pl.Series) else v for v in expect]
    assert got.to_list() == plain


def test_the_texts_of_errors(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    for dtype, text, shown in (
        (US, "noon", "expected Datetime(time_unit='us', time_zone=None), got \"noon\""),
        (SPRING, "noon", "expected Datetime(time_unit='us', time_zone='Europe/Paris'), got"),
        (pl.Duration, "x", "expected Duration(time_unit='us'), got \"x\""),
        (pl.Decimal(10, 2), "x", 'expected Decimal(precision=10, scale=2), got "x"'),
        (pl.Enum(["a", "b"]), "x", "expected Enum(categories=['a', 'b']), got \"x\""),
        (pl.Enum([str(n) for n in range(999)]), "x", "'7', … (999 in all)]), got"),
        (pl.List(pl.Int64), '["x"]', r'expected List(Int64), got "[\"x\"]"'),
        (pl.Array(pl.Int64, (2, 3)), "x", 'expected Array(Int64, shape=(2, 3)), got "x"'),
        (POINT, "x", "expected Struct({'x': Int8, 'y': Float64}), got \"x\""),
        (pl.List(pl.Int64), "[" * 1000, "(1000 bytes)"),
    ):
        with pytest.raises(DecodeError) as caught:
            frames(redis_url, client, stream, [text], dtype)
        assert shown in str(caught.value)
        assert f'stream "{stream}", entry 1-0, field "v": ' in str(caught.value)


def test_dates_as_far_as_they_go(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    texts = ["+5881580-07-11", "-5877641-06-23", "-0001-12-31", "+10000-01-01"]
    got = frames(redis_url, client, stream, texts, pl.Date).to_physical().to_list()
    assert got == [2**31 - 1, -(2**31), -719_529, 2_932_897]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_moments_and_durations_as_far_as_they_go(
    client: redis_py.Redis, redis_url: str, stream: str, unit: Any
) -> None:
    for dtype in (pl.Datetime(unit), pl.Datetime(unit, PARIS), pl.Duration(unit)):
        texts = [str(2**63 - 1), str(-(2**63)), "0"]
        got = frames(redis_url, client, stream, texts, dtype).to_physical().to_list()
        assert got == [2**63 - 1, -(2**63), 0]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (pl.Object, "Object"),
        (pl.Null, "Null"),
        (pl.Unknown, "Unknown"),
        (pl.List(pl.Object), "Object"),
        (pl.Array(pl.Null, 2), "Null"),
        (pl.Struct({"a": pl.List(pl.Object)}), "Object"),
        (pl.List, "inner dtype"),
        (pl.Array, "inner dtype"),
        (pl.Struct, "inner dtype"),
        (list, "inner dtype"),
        (pl.List(pl.List), "inner dtype"),
        (pl.Struct({"a": pl.Struct}), "inner dtype"),
        (pl.Enum, "categories"),
        (pl.Decimal(39, 2), "38"),
        (pl.Decimal(5, 6), "scale"),
        (pl.Datetime("us", "No/Where"), "No/Where"),
        (pl.Datetime("us", "*"), "time zone"),
        (pl.List(pl.Datetime("us", "No/Where")), "No/Where"),
        (pl.Struct([pl.Field("a", pl.Int64), pl.Field("a", pl.Int64)]), "two fields"),
        (pl.Struct({"a\0b": pl.Int64}), "zero byte"),
        (object, "Object"),
        (type(None), "Null"),
        *([(pl.Float16, "Float16")] if hasattr(pl, "Float16") else []),
    ],
    ids=str,
)
def test_dtypes_that_no_text_becomes(dtype: Any, name: str) -> None:
    # Nobody listens there: it is refused before anything is sent.
    nobody = "redis://127.0.0.1:1?socket_connect_timeout=0.1"
    for read in (redis.read_stream, redis.iter_stream, redis.iter_stream_async):
        with pytest.raises(ValueError, match=name) as caught:
            read(nobody, "s", {"ok": pl.Int64, "bad one": dtype})
        assert '"bad one"' in str(caught.value)
        assert "supported" not in str(caught.value)


def test_a_dtype_may_be_deep_and_not_too_deep(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    def nest(depth: int) -> Any:
        dtype: Any = pl.Int64()
        for _ in range(depth):
            dtype = pl.List(dtype)
        return dtype

    got = frames(redis_url, client, stream, ["[" * 60 + "7" + "]" * 60, "[" * 61], nest(60),
                 strict=False)  # fmt: skip
    for _ in range(60):
        got = got.explode()
    assert got.to_list() == [7, None]
    with pytest.raises(ValueError, match="128"):
        redis.read_stream(redis_url, stream, {"v": nest(200)})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (date, pl.Date()),
        (time, pl.Time()),
        (datetime, pl.Datetime("us")),
        (timedelta, pl.Duration("us")),
        (Decimal, pl.Decimal(38, 0)),
        (list[int], pl.List(pl.Int64)),
        (list[list[str]], pl.List(pl.List(pl.String))),
        (pl.Datetime, pl.Datetime("us")),
        (pl.Duration, pl.Duration("us")),
        (pl.Decimal, pl.Decimal(38, 0)),
        (pl.Decimal(None, 3), pl.Decimal(38, 3)),
        (pl.List(pl.Datetime), pl.List(pl.Datetime("us"))),
        (pl.List(date), pl.List(pl.Date)),
        (pl.Struct({"a": pl.Duration, "b": int}), pl.Struct({"a": pl.Duration("us"), "b": pl.Int64})),
        (pl.Datetime("ms", timezone.utc), pl.Datetime("ms", "UTC")),
        (pl.Datetime("us", "+02:00"), pl.Datetime("us", "Etc/GMT-2")),
        (pl.Array(pl.Int64, (2, 3)), pl.Array(pl.Int64, (2, 3))),
        (pl.Struct([]), pl.Struct([])),
    ],
    ids=str,
)  # fmt: skip
def test_dtypes_are_filled_in_as_polars_does(
    client: redis_py.Redis, redis_url: str, stream: str, given: Any, expected: Any
) -> None:
    assert frames(redis_url, client, stream, [None], given).dtype == expected
    assert frames(redis_url, client, stream, [], given).dtype == expected


def test_a_cell_of_json_that_is_replaced_leaves_nothing_behind(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    # A field that is named twice: the last value counts, the first may be anything.
    schema = {"l": pl.List(pl.Int64), "a": pl.Array(pl.Int64, 2), "s": POINT, "e": COLOURS}
    twice = ["l", "[1, 2, 3]", "a", "[1, 2]", "s", '{"x": 1, "y": 2}', "e", "red",
             "l", "[4]", "a", "[3, 4]", "s", '{"x": 5}', "e", "green"]  # fmt: skip
    wrong = ["l", "[1, 2, x", "a", "[1]", "s", '{"x": 1, "y": "x"}', "e", "pink",
             "l", "[5]", "a", "null", "s", "{}", "e", "red"]  # fmt: skip
    add(client, stream, [("1-0", twice), ("2-0", wrong), ("3-0", ["z", "1"]), ("4-0", twice)])
    df = redis.read_stream(redis_url, stream, schema, include_id=False, include_timestamp=False)
    row = ([4], [3, 4], {"x": 5, "y": None}, "green")
    other = ([5], None, {"x": None, "y": None}, "red")
    assert df.rows() == [row, other, (None, None, None, None), row]


def test_every_way_a_frame_is_handed_over(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    schema = {
        "e": COLOURS,
        "c": pl.Categorical,
        "deep": DEEP,
        "a\0b": pl.List(COLOURS),
        "n": pl.Int64,
        "none": pl.Array(pl.Int64, 0),
    }
    fields = [
        {"e": "red", "c": f"c{n % 3}", "n": n, "a\0b": '["green"]', "none": "[]",
         "deep": json.dumps([{"kind": "red", "tags": [f"t{n % 5}"], "cost": n}, None])}
        if n % 4 else {"n": n}
        for n in range(50)
    ]  # fmt: skip
    add(client, stream, ((f"{n + 1}-0", entry) for n, entry in enumerate(fields)))
    whole = redis.read_stream(redis_url, stream, schema)
    assert whole["e"].dtype == COLOURS
    assert whole["c"].dtype.base_type() is pl.Categorical
    assert whole["deep"].dtype.inner.fields[2].dtype == COLOURS
    assert whole["a\0b"].to_list()[:2] == [None, ["green"]]
    assert whole["deep"].to_list()[7][0]["tags"] == ["t2"]

    def same(parts: list[pl.DataFrame]) -> None:
        assert {part.height for part in parts} <= {7, 1}
        assert all(part.schema == whole.schema for part in parts)
        rows = [row for part in parts for row in part.rows()]
        assert rows == whole.rows()

    with redis.iter_stream(redis_url, stream, schema, batch_size=7, block_ms=None) as batches:
        same(list(batches))

    async def collect() -> list[pl.DataFrame]:
        batches = redis.iter_stream_async(redis_url, stream, schema, batch_size=7, block_ms=None)
        return [df async for df in batches]

    same(asyncio.run(collect()))
    as_group = redis.read_stream(redis_url, stream, schema, group="g", consumer="c")
    assert_frame_equal(as_group, whole, categorical_as_str=True)
    empty = redis.read_stream(redis_url, "no such stream", schema)
    assert (empty.schema, empty.height) == (whole.schema, 0)


def test_a_misfit_in_an_iterator_comes_after_what_is_before_it(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    texts = ["[1, 2]", "[3]", "[4, x]", "[5]"]
    add(client, stream, ((f"{n + 1}-0", {"v": text}) for n, text in enumerate(texts)))
    batches = redis.iter_stream(redis_url, stream, {"v": pl.List(pl.Int64)}, block_ms=None)
    assert next(batches)["v"].to_list() == [[1, 2], [3]]
    with pytest.raises(DecodeError, match="entry 3-0"):
        next(batches)


# -- round trips: value, the text one would write, the value read ---------------------------------

naive = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31))
near = st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(2250, 1, 1))
# Before that, Paris was 9 minutes and 21 seconds ahead, and ISO 8601 has no seconds of an offset.
zoned = st.datetimes(min_value=datetime(1912, 1, 1), max_value=datetime(2250, 1, 1))
spans = st.timedeltas(min_value=timedelta(days=-100_000), max_value=timedelta(days=100_000))
characters = st.text(st.characters(codec="utf-8"), max_size=20)
decimals = st.decimals(min_value=-(10**8) + 1, max_value=10**8 - 1, places=2)
int64 = st.integers(-(2**63), 2**63 - 1)
by_iso = {
    "Date": (pl.Date, st.dates()),
    "Time": (pl.Time, st.times()),
    "Datetime us": (US, naive),
    "Datetime ms": (MS, naive.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))),
    "Datetime ns": (NS, near),
    "Datetime UTC": (UTC, naive.map(lambda at: at.replace(tzinfo=timezone.utc))),
    "Datetime Paris": (SPRING, zoned.map(lambda at: at.replace(tzinfo=timezone.utc))),
    "Duration us": (pl.Duration("us"), spans),
    "Duration ns": (pl.Duration("ns"), spans),
}  # fmt: skip
many = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("kind", by_iso)
@many
@given(data=st.data())
def test_iso_round_trips(
    client: redis_py.Redis, redis_url: str, stream: str, kind: str, data: st.DataObject
) -> None:
    dtype, values = by_iso[kind]
    wrote = pl.Series("v", data.draw(st.lists(st.none() | values, min_size=1)), dtype=dtype)
    texts = wrote.dt.to_string("iso")
    assert_series_equal(frames(redis_url, client, stream, texts, dtype), wrote)
    counts = wrote.to_physical().cast(pl.String)
    assert_series_equal(frames(redis_url, client, stream, counts, dtype), wrote)
    inside = [json.dumps([text, count]) if text else None
              for text, count in zip(texts, wrote.to_physical(), strict=True)]  # fmt: skip
    got = frames(redis_url, client, stream, inside, pl.List(dtype))
    assert_series_equal(got.list.get(0), wrote)
    assert_series_equal(got.list.get(1), wrote)


@many
@given(values=st.lists(st.none() | decimals, min_size=1))
def test_decimals_round_trip(
    client: redis_py.Redis, redis_url: str, stream: str, values: list[Decimal | None]
) -> None:
    dtype = pl.Decimal(10, 2)
    for write in (str, "{:e}".format, "{:f}".format):
        texts = [None if value is None else write(value) for value in values]
        assert frames(redis_url, client, stream, texts, dtype).to_list() == values


@many
@given(values=st.lists(st.none() | characters, min_size=1))
def test_categories_round_trip(
    client: redis_py.Redis, redis_url: str, stream: str, values: list[str | None]
) -> None:
    assert frames(redis_url, client, stream, values, pl.Categorical).to_list() == values
    categories = list({value for value in values if value is not None})
    assert frames(redis_url, client, stream, values, pl.Enum(categories)).to_list() == values


def structs(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"a": inner, "b\n'\"é": inner})


nested: dict[str, tuple[Any, st.SearchStrategy[Any], Any]] = {
    "Int64": (pl.Int64, int64, lambda v: v),
    "Int128": (pl.Int128, st.integers(-(2**127), 2**127 - 1), lambda v: v),
    "Float64": (pl.Float64, st.floats(allow_nan=False, allow_infinity=False), lambda v: v),
    "Boolean": (pl.Boolean, st.booleans(), lambda v: v),
    "String": (pl.String, characters, lambda v: v),
    "Binary": (pl.Binary, characters.map(str.encode), bytes.decode),
    "Date": (pl.Date, st.dates(), str),
    "Decimal": (pl.Decimal(10, 2), decimals, str),
}


@pytest.mark.parametrize("kind", nested)
@many
@given(data=st.data())
def test_json_round_trips(
    client: redis_py.Redis, redis_url: str, stream: str, kind: str, data: st.DataObject
) -> None:
    dtype, values, write = nested[kind]
    leaf = st.none() | values

    def to_json(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: to_json(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [to_json(inner) for inner in value]
        return None if value is None else write(value)

    fields = {"a": dtype, "b\n'\"é": dtype}
    for shape, strategy in (
        (pl.List(dtype), st.lists(leaf, max_size=4)),
        (pl.Array(dtype, 2), st.lists(leaf, min_size=2, max_size=2)),
        (pl.Struct(fields), structs(leaf)),
        (pl.List(pl.Struct(fields)), st.lists(st.none() | structs(leaf), max_size=3)),
        (pl.Array(pl.List(dtype), 2), st.lists(st.lists(leaf, max_size=3), min_size=2, max_size=2)),
    ):
        wrote = data.draw(st.lists(st.none() | strategy, min_size=1, max_size=6))
        for escape in (True, False):
            texts = [json.dumps(to_json(value), ensure_ascii=escape) for value in wrote]
            assert frames(redis_url, client, stream, texts, shape).to_list() == wrote
