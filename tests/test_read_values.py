"""Which texts each dtype takes, what they become, and how a misfit is reported."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import DecodeError
from support.streams import add

if TYPE_CHECKING:
    import redis as redis_py

INTEGERS = {
    pl.Int8: (-(2**7), 2**7 - 1),
    pl.Int16: (-(2**15), 2**15 - 1),
    pl.Int32: (-(2**31), 2**31 - 1),
    pl.Int64: (-(2**63), 2**63 - 1),
    pl.Int128: (-(2**127), 2**127 - 1),
    pl.UInt8: (0, 2**8 - 1),
    pl.UInt16: (0, 2**16 - 1),
    pl.UInt32: (0, 2**32 - 1),
    pl.UInt64: (0, 2**64 - 1),
    **({pl.UInt128: (0, 2**128 - 1)} if hasattr(pl, "UInt128") else {}),
}
NO_INTEGERS = [
    "",
    " ",
    "+",
    "-",
    " 1",
    "1 ",
    "1.0",
    "1e2",
    "0x1",
    "1_0",
    "--1",
    "one",
    "１",
    b"\xff",
]
FLOATS: dict[str, float] = {
    "0": 0.0,
    "-0.0": -0.0,
    "1.5": 1.5,
    "+2.25": 2.25,
    ".5": 0.5,
    "5.": 5.0,
    "1e3": 1000.0,
    "-2.5E-1": -0.25,
    "inf": math.inf,
    "-inf": -math.inf,
    "Infinity": math.inf,
    "1e400": math.inf,
    "-1e400": -math.inf,
    "1e-400": 0.0,
}
NO_FLOATS = ["", " 1", "1 ", "1,5", "e5", "0x1p3", "1_0", "one", b"\xff"]
BOOLEANS = {
    "true": True,
    "TRUE": True,
    "tRuE": True,
    "1": True,
    "false": False,
    "FALSE": False,
    "0": False,
}
NO_BOOLEANS = ["", "yes", "no", "t", "2", " true", "01", b"\xff"]
REFUSED = (
    [(dtype, text) for dtype in INTEGERS for text in NO_INTEGERS]
    + [(dtype, str(low - 1)) for dtype, (low, _) in INTEGERS.items()]
    + [(dtype, str(high + 1)) for dtype, (_, high) in INTEGERS.items()]
    + [(dtype, text) for dtype in (pl.Float32, pl.Float64) for text in NO_FLOATS]
    + [(pl.Boolean, text) for text in NO_BOOLEANS]
    + [(pl.String, text) for text in (b"\xff", b"a" * 40 + b"\xc3", b"\xed\xa0\x80", b"\xc0\x80")]
)


def column(
    url: str, client: redis_py.Redis, stream: str, texts: list[Any], dtype: Any
) -> pl.Series:
    add(client, stream, ((f"{n + 1}-0", {"v": text}) for n, text in enumerate(texts)))
    df = redis.read_stream(url, stream, {"v": dtype})
    assert df.schema["v"] == dtype
    return df["v"]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_take_their_whole_range(
    client: redis_py.Redis, redis_url: str, stream: str, dtype: Any
) -> None:
    low, high = INTEGERS[dtype]
    texts = [str(low), str(high), "0", "+7", "-0", "0" * 50 + "7", str(low // 3), str(high // 3)]
    got = column(redis_url, client, stream, texts, dtype)
    assert [str(value) for value in got.to_list()] == [str(int(text)) for text in texts]


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64], ids=str)
def test_floats(client: redis_py.Redis, redis_url: str, stream: str, dtype: Any) -> None:
    got = column(redis_url, client, stream, [*FLOATS, "nan", "NaN"], dtype)
    assert got[: len(FLOATS)].to_list() == pl.Series(list(FLOATS.values()), dtype=dtype).to_list()
    assert got.is_nan().sum() == 2


def test_float32_is_rounded_once(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    texts = ["0.1", "16777217", "3.4028236e38", "1e39", "1.00000017881393432617187499"]
    got = column(redis_url, client, stream, texts, pl.Float32)
    assert got.to_list() == pl.Series(texts).cast(pl.Float32).to_list()


def test_booleans(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    got = column(redis_url, client, stream, list(BOOLEANS), pl.Boolean)
    assert got.to_list() == list(BOOLEANS.values())


@pytest.mark.parametrize("dtype", [pl.String, pl.Binary], ids=str)
def test_texts_of_every_length(
    client: redis_py.Redis, redis_url: str, stream: str, dtype: Any
) -> None:
    texts = ["é€🦀"[:1] * (n % 3) + "x" * n for n in range(300)] + ["🦀" * 100_000, ""]
    got = column(redis_url, client, stream, texts, dtype)
    assert got.to_list() == [text.encode() if dtype == pl.Binary else text for text in texts]


def test_binary_takes_any_bytes(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    values = [bytes(range(256)), b"\r\n$5\r\n", b"\xff" * 13, b"\0"]
    assert column(redis_url, client, stream, values, pl.Binary).to_list() == values


@pytest.mark.parametrize(("dtype", "text"), REFUSED, ids=str)
def test_what_does_not_fit_is_reported_or_null(
    client: redis_py.Redis, redis_url: str, stream: str, dtype: Any, text: Any
) -> None:
    add(client, stream, [("1-0", {"w": "1"}), ("2-3", {"w": "1", "v": text})])
    with pytest.raises(DecodeError) as caught:
        redis.read_stream(redis_url, stream, {"w": pl.String, "v": dtype})
    message = str(caught.value)
    for part in (stream, "2-3", '"v"', str(dtype)):
        assert part in message
    error = caught.value
    assert (error.stream, error.entry_id, error.field) == (stream, "2-3", "v")
    df = redis.read_stream(redis_url, stream, {"w": pl.String, "v": dtype}, strict=False)
    assert df["v"].to_list() == [None, None]
    assert df["w"].to_list() == ["1", "1"]


def test_a_long_text_is_shortened(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    add(client, stream, [("1-0", {"v": "x" * 10_000})])
    with pytest.raises(DecodeError, match=r"10000 bytes") as caught:
        redis.read_stream(redis_url, stream, {"v": pl.Int64})
    assert len(str(caught.value)) < 250


def test_the_first_misfit_of_a_long_stream_is_the_one_named(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    # A burst after a quiet time: its window is fuller than thought, and what is left of it is
    # asked for again after later windows have come, with misfits of their own.
    ids = [f"{n + 1}-0" for n in range(5_000)]
    ids += [f"6000-{n}" for n in range(20_000)]
    ids += [f"{7_000 + n}-0" for n in range(20_000)]
    bad = {"6000-15000", "7001-0", "20000-0"}
    add(client, stream, ((i, {"n": "bad" if i in bad else "1"}) for i in ids))
    with pytest.raises(DecodeError) as caught:
        redis.read_stream(redis_url, stream, {"n": pl.Int64})
    assert caught.value.entry_id == "6000-15000"


def test_an_id_that_no_int64_holds(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    big = 2**64 - 1
    add(client, stream, [("1-0", {"a": "1"}), (f"2-{big}", {"a": "2"}), (f"{big}-1", {"a": "3"})])
    with pytest.raises(DecodeError, match=rf"2-{big}.*_seq.*Int64"):
        redis.read_stream(redis_url, stream, include_sequence=True)
    df = redis.read_stream(redis_url, stream, include_sequence=True, strict=False)
    assert df.rows() == [("1-0", 1, 0, "1"), (f"2-{big}", 2, None, "2"), (f"{big}-1", None, 1, "3")]
    assert redis.read_stream(redis_url, stream, include_timestamp=False).height == 3


def test_field_names_that_are_not_utf8(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    add(client, stream, [("1-0", [b"\xff", "1", "a", "2"])])
    with pytest.raises(DecodeError, match="not UTF-8"):
        redis.read_stream(redis_url, stream)
    assert redis.read_stream(redis_url, stream, {"a": pl.Int64})["a"].to_list() == [2]
    assert redis.read_stream(redis_url, stream, strict=False).columns == ["_id", "_ts", "a"]


@pytest.mark.parametrize("count", [100, 1001, 2100, 3000])
def test_a_misfit_behind_what_is_wanted_does_not_matter(
    client: redis_py.Redis, redis_url: str, stream: str, count: int
) -> None:
    # More in the first millisecond than a window is thought to hold, so that later ones come first.
    ids = [f"1000-{n}" for n in range(2500)] + [f"{1001 + n}-0" for n in range(20_000)]
    bad = ids[3700]
    add(client, stream, ((x, {"n": "bad" if x == bad else "1"}) for x in ids))
    df = redis.read_stream(redis_url, stream, {"n": pl.Int64}, count=count)
    assert df["_id"].to_list() == ids[:count]
    with pytest.raises(DecodeError, match=f"entry {bad}, "):
        redis.read_stream(redis_url, stream, {"n": pl.Int64}, count=3701)
