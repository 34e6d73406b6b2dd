"""What a query does not need is not read: told by the server's own counters."""

from __future__ import annotations

import logging
import re
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from support.counting import LITTLE, Counting
from support.engines import ENGINES, hands_over
from support.streams import add

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Server

ENTRIES = 100_000
FIRST = 1_704_067_200_000
SCHEMA = {"n": pl.Int64, "text": pl.String}


class Stream(Counting):
    """A long stream."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        entries = (
            (f"{FIRST + n}-0", {"n": n, "text": f"entry number {n}"}) for n in range(ENTRIES)
        )
        add(self.client, "s", entries)
        with self.counted() as counted:
            redis.read_stream(self.url, "s", SCHEMA)
        self.whole = counted.sent

    def scan(self, **options: Any) -> pl.LazyFrame:
        return redis.scan_stream(self.url, "s", SCHEMA, **options)


@pytest.fixture(scope="module")
def long(request: pytest.FixtureRequest) -> Iterator[Stream]:
    request.getfixturevalue("own_servers")
    from support.servers import Server

    with Server() as server:
        yield Stream(server)


def test_nothing_is_sent_before_schema_or_data_is_needed(long: Stream) -> None:
    def plan() -> None:
        for schema in [None, SCHEMA]:
            lf = redis.scan_stream(long.url, "s", schema, start_id=FIRST)
            lf.filter(pl.col("_ts") > FIRST).head(3)
            repr(lf)
        lf.filter(pl.col("_ts") > FIRST).select("n").explain()
        assert lf.collect_schema().names() == ["_id", "_ts", "n", "text"]

    assert long.heard(plan) == []


def test_a_schema_is_sampled_once_and_no_more_than_asked(long: Stream) -> None:
    lf = redis.scan_stream(long.url, "s", infer_schema_length=7)
    heard = long.heard(lf.collect_schema)
    assert [words[-2:] for words in heard if words[0] == "XRANGE"] == [["COUNT", "7"]]
    with long.counted() as counted:
        assert lf.collect_schema().names() == ["_id", "_ts", "n", "text"]
        assert lf.select("n").head(3).collect()["n"].to_list() == ["0", "1", "2"]
    assert counted.sent < LITTLE


FRACTIONS = {
    "a range": (pl.col("_ts") >= FIRST + ENTRIES - 1000, 1000),
    "the other order": (pl.lit(FIRST + 999) >= pl.col("_ts"), 1000),
    "is_between": (pl.col("_ts").is_between(FIRST + 5000, FIRST + 6000, closed="left"), 1000),
    "is_in": (pl.col("_ts").is_in([FIRST + 5000, FIRST + 5999]), 2),
    "both": ((pl.col("_ts") >= FIRST + 5000) & (pl.col("_ts") < FIRST + 6000), 1000),
    "beside a field": ((pl.col("_ts") < FIRST + 1000) & (pl.col("n") % 2 == 0), 500),
    "near ends": ((pl.col("_ts") == FIRST + 5000) | (pl.col("_ts") == FIRST + 5999), 2),
    "a datetime": (
        pl.from_epoch("_ts", time_unit="ms") < pl.from_epoch(pl.lit(FIRST + 1000), time_unit="ms"),
        1000,
    ),
    "a float": (pl.col("_ts") < FIRST + 1000.0, 1000),
    "a wide integer": (pl.col("_ts") < pl.lit(FIRST + 1000, dtype=pl.Int128), 1000),
    "microseconds": (
        (pl.col("_ts") * 1000).cast(pl.Datetime("us"))
        < pl.from_epoch(pl.lit(FIRST + 1000), time_unit="ms").cast(pl.Datetime("us")),
        1000,
    ),
    "the order of text": (pl.col("_id") < f"{FIRST + 1000}", 1000),
    "text in a list": (pl.col("_id").is_in([f"{FIRST + 5}-0", f"{FIRST + 900}-0", "x"]), 2),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FRACTIONS)
def test_one_percent_costs_two_at_the_most(long: Stream, name: str, engine: Any) -> None:
    predicate, rows = FRACTIONS[name]
    if not hands_over(predicate, long.scan().head(1).collect()):
        pytest.skip("this Polars keeps such a predicate to itself")
    with long.counted() as counted:
        df = long.scan().filter(predicate).collect(engine=engine)
    assert df.height == rows
    assert counted.sent <= 0.02 * long.whole


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("_id") == f"{FIRST + 77_777}-0",
        pl.col("_ts") == FIRST + 77_777,
        (pl.col("_ts") == FIRST + 77_777) & (pl.col("_seq") == 0),
    ],
)
def test_one_entry_costs_next_to_nothing(long: Stream, predicate: pl.Expr, engine: Any) -> None:
    with long.counted() as counted:
        df = long.scan(include_sequence=True).filter(predicate).collect(engine=engine)
    assert df["n"].to_list() == [77_777]
    assert counted.sent < LITTLE


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("_ts") < 5,
        pl.col("_ts") > 2**62,
        pl.col("_ts").is_between(FIRST + 6, FIRST + 5),
        pl.col("_id") == "no ID",
        (pl.col("_ts") < FIRST + 5) & (pl.col("_ts") > FIRST + 5),
        pl.col("_ts").is_in([]),
    ],
)
def test_what_cannot_be_there_is_not_read(long: Stream, predicate: pl.Expr, engine: Any) -> None:
    if not hands_over(predicate, long.scan().head(1).collect()):
        pytest.skip("this Polars keeps such a predicate to itself")
    with long.counted() as counted:
        df = long.scan().filter(predicate).collect(engine=engine)
    assert df.shape == (0, 4)
    assert counted.sent < LITTLE


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("n") < 10,
        (pl.col("_ts") < FIRST + 5) | (pl.col("_ts") >= FIRST + ENTRIES - 5),
        (pl.col("_ts") < FIRST + 5) | (pl.col("n") < 10),
        pl.col("_ts") % 10_000 == FIRST % 10_000,
    ],
)
def test_what_bounds_nothing_reads_everything(
    long: Stream, predicate: pl.Expr, engine: Any
) -> None:
    with long.counted() as counted:
        df = long.scan().filter(predicate).collect(engine=engine)
    assert df.height == 10
    assert 0.9 * long.whole < counted.sent < 1.05 * long.whole


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("limit", ["head", "count", "both"])
def test_the_first_ten_cost_ten(long: Stream, limit: str, engine: Any) -> None:
    lf = {
        "head": lambda: long.scan().head(10),
        "count": lambda: long.scan(count=10),
        "both": lambda: long.scan(count=10_000).head(10),
    }[limit]()
    with long.counted() as counted:
        assert lf.collect(engine=engine)["n"].to_list() == list(range(10))
    assert counted.calls.get("xrange") == 1
    assert counted.sent < LITTLE
    heard = long.heard(lambda: lf.collect(engine=engine))
    assert [words[-2:] for words in heard if words[0] == "XRANGE"] == [["COUNT", "10"]]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_filter_after_head_has_the_first_rows_only(long: Stream, engine: Any) -> None:
    late = pl.col("_ts") >= FIRST + 8
    with long.counted() as counted:
        df = long.scan().head(10).filter(late).collect(engine=engine)
    assert df["n"].to_list() == [8, 9]
    assert counted.sent < LITTLE
    assert long.scan().head(5).filter(late).collect(engine=engine).height == 0
    assert long.scan(count=5).filter(late).collect(engine=engine).height == 0
    df = long.scan().head(3000).filter(pl.col("_ts") >= FIRST + 2999).collect(engine=engine)
    assert df["n"].to_list() == [2999]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_filter_before_head_has_what_it_takes(long: Stream, engine: Any) -> None:
    lf = long.scan().filter(pl.col("_ts") >= FIRST + 50_000).head(10)
    assert lf.collect(engine=engine)["n"].to_list() == list(range(50_000, 50_010))


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_that_are_not_read_do_not_raise(long: Stream, engine: Any) -> None:
    is_late = pl.col("_ts") >= FIRST + 10_000
    # It has no five digits before that.
    is_number = pl.col("text").str.slice(-5).str.to_integer() >= 0
    with pytest.raises(pl.exceptions.PolarsError):
        long.scan().filter(is_number).collect(engine=engine)
    df = redis.read_stream(long.url, "s", SCHEMA)
    with pytest.raises(pl.exceptions.PolarsError):
        df.filter(is_late & is_number)
    if not hands_over(is_late & is_number, df):
        pytest.skip("this version of Polars keeps the predicate to itself")
    late = long.scan().filter(is_late & is_number).collect(engine=engine)
    assert late.height == ENTRIES - 10_000


def test_ends_of_the_range_and_of_the_predicate_meet(long: Stream) -> None:
    lf = long.scan(start_id=FIRST + 50_000, end_id=FIRST + 60_000)
    with long.counted() as counted:
        df = lf.filter(pl.col("_ts") <= FIRST + 50_999).collect()
    assert df["n"].to_list() == list(range(50_000, 51_000))
    assert counted.sent <= 0.02 * long.whole


def test_a_renamed_column_bounds_too_and_one_of_that_name_does_not(long: Stream) -> None:
    lf = long.scan(timestamp_column="at", include_id=False)
    with long.counted() as counted:
        assert lf.filter(pl.col("at") < FIRST + 10).collect().height == 10
    assert counted.sent < 0.02 * long.whole
    schema = {"n": pl.Int64, "_ts": pl.Int64}
    other = redis.scan_stream(long.url, "s", schema, timestamp_column="at")
    assert other.filter(pl.col("_ts").is_null() & (pl.col("at") < FIRST + 3)).collect().height == 3
    assert other.filter(pl.col("_ts") == FIRST).collect().height == 0


def test_a_column_that_was_made_anew_does_not_bound(long: Stream) -> None:
    lf = long.scan().with_columns(_ts=pl.col("n")).filter(pl.col("_ts") < 10)
    assert lf.collect()["n"].to_list() == list(range(10))
    swapped = long.scan().rename({"_ts": "n", "n": "_ts"}).filter(pl.col("_ts") < 10)
    assert swapped.collect()["_ts"].to_list() == list(range(10))


def test_bounds_are_told(long: Stream, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "polars_redis"):
        long.scan().filter(pl.col("_ts").is_between(FIRST + 3, FIRST + 5)).collect()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert any(re.search(rf"\"s\".*{FIRST + 3}-0 to {FIRST + 5}-", text) for text in told), told


@pytest.mark.parametrize("engine", ENGINES)
def test_the_server_is_never_asked_for_much_at_once(long: Stream, engine: Any) -> None:
    heard = long.heard(lambda: long.scan().select(pl.col("n").sum()).collect(engine=engine))
    ranges = [words for words in heard if words[0] == "XRANGE"]
    assert len(ranges) >= ENTRIES // 2000
    assert all(words[-2] == "COUNT" and int(words[-1]) <= 2000 for words in ranges)


def test_two_scans_of_one_frame_that_filter_alike_are_read_once(long: Stream) -> None:
    few = long.scan().filter(pl.col("_ts") < FIRST + 1000)
    with long.counted() as counted:
        df = few.join(few, on="_id").collect()
    assert df.height == 1000
    assert counted.sent <= 0.03 * long.whole


def test_a_predicate_that_is_nested_too_deep_bounds_nothing(client: Any, redis_url: str) -> None:
    add(client, "deep", [("1-0", {"n": "1"}), ("9-0", {"n": "2"})])
    deep = reduce(or_, [pl.col("_ts") == ms for ms in range(3, 700)])
    for frame in (
        redis.scan_stream(redis_url, "deep", {"n": pl.Int64}),
        redis.scan_streams(redis_url, "dee*", {"n": pl.Int64}),
    ):
        assert frame.filter(deep).collect()["n"].to_list() == [2]
