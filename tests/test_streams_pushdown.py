"""What a query does not need of many streams is not read: told by the server's own counters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from support.counting import LITTLE, Counting
from support.engines import ENGINES, hands_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Server

STREAMS = 500
EACH = 50
FIRST = 1_704_067_200_000
SCHEMA = {"n": pl.Int64, "text": pl.String}
KEYS = [f"s:{n:03}" for n in range(STREAMS)]


class Streams(Counting):
    """Many streams of some entries each, all of the same moments."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        pipeline = self.client.pipeline(transaction=False)
        for key in KEYS:
            for n in range(EACH):
                pipeline.xadd(key, {"n": n, "text": f"{key}, {n}"}, id=f"{FIRST + n}-0")
        pipeline.execute()
        with self.counted() as counted:
            redis.read_streams(self.url, "s:*", SCHEMA)
        self.whole = counted.sent

    def scan(self, **options: Any) -> pl.LazyFrame:
        return redis.scan_streams(self.url, "s:*", SCHEMA, **options)


@pytest.fixture(scope="module")
def many(request: pytest.FixtureRequest) -> Iterator[Streams]:
    request.getfixturevalue("own_servers")
    from support.servers import Server

    with Server() as server:
        yield Streams(server)


def test_each_stream_is_asked_for_once(many: Streams) -> None:
    with many.counted() as counted:
        assert redis.read_streams(many.url, "s:*", SCHEMA).height == STREAMS * EACH
    assert counted.calls["xrange"] == STREAMS
    assert counted.calls["scan"] <= 1 + STREAMS // 500
    assert set(counted.calls) <= {"xrange", "scan", "cluster", "cluster|slots", "ping"}


def test_a_pattern_that_is_a_key_needs_no_scan(many: Streams) -> None:
    heard = many.heard(lambda: redis.read_streams(many.url, "s:007", SCHEMA))
    assert [words[:2] for words in heard if words[0] != "PING"] == [["XRANGE", "s:007"]]


def test_nothing_is_sent_before_schema_or_data_is_needed(many: Streams) -> None:
    def plan() -> None:
        for schema in [None, SCHEMA]:
            lf = redis.scan_streams(many.url, "s:*", schema)
            repr(lf.filter(pl.col("_key") > "s:3").head(3))
        lf.filter(pl.col("_key") > "s:3").select("n").explain()
        assert lf.collect_schema().names() == ["_key", "_id", "_ts", "n", "text"]

    assert many.heard(plan) == []


def test_a_sample_asks_for_no_more_than_it_looks_at(many: Streams) -> None:
    lf = redis.scan_streams(many.url, "s:*", infer_schema_length=70)
    with many.counted() as counted:
        assert lf.collect_schema().names() == ["_key", "_id", "_ts", "n", "text"]
    assert counted.calls["xrange"] == 2


KEY = pl.col("_key")
KEYED = {
    "equal": (KEY == "s:007", 1),
    "the other order": (pl.lit("s:007") == KEY, 1),
    "order": (KEY >= "s:490", 10),
    "is_in": (KEY.is_in(["s:003", "s:004", "other"]), 2),
    "is_between": (KEY.is_between(pl.lit("s:010"), pl.lit("s:019")), 10),
    "starts_with": (KEY.str.starts_with("s:12"), 10),
    "contains": (KEY.str.contains(r"^s:1.5$"), 10),
    "either": ((KEY == "s:001") | (KEY == "s:002"), 2),
    "not": (~(KEY > "s:004"), 5),
    "both": ((KEY > "s:004") & KEY.str.ends_with("9"), 50),
    "part": (KEY.str.slice(2).str.to_integer() < 5, 5),
    "beside a field": ((KEY == "s:007") & (pl.col("n") >= 0), 1),
    "beside a moment": ((KEY == "s:007") & (pl.col("_ts") >= FIRST), 1),
    "none": (KEY == "other", 0),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KEYED)
def test_streams_that_the_predicate_leaves_out_are_not_read(
    many: Streams, name: str, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    predicate, streams = KEYED[name]
    if not hands_over(predicate, many.scan().head(1).collect()):
        pytest.skip("this Polars keeps such a predicate to itself")
    with many.counted() as counted, caplog.at_level(logging.DEBUG, "polars_redis"):
        df = many.scan().filter(predicate).collect(engine=engine)
    assert df["_key"].unique(maintain_order=True).len() == streams
    assert df.height == streams * EACH
    assert counted.calls.get("xrange", 0) == streams
    assert f"leaves {streams} of {STREAMS} streams" in caplog.text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "predicate",
    [
        KEY.max() == KEY,
        KEY.is_first_distinct(),
        pl.col("text") == KEY,
        (KEY == "s:499") | (pl.col("n") == EACH),
        KEY.shift() != KEY,
    ],
)
def test_what_other_rows_decide_leaves_no_stream_out(
    many: Streams, predicate: pl.Expr, engine: Any
) -> None:
    whole = redis.read_streams(many.url, "s:*", SCHEMA)
    with many.counted() as counted:
        df = many.scan().filter(predicate).collect(engine=engine)
    assert df.equals(whole.filter(predicate))
    assert counted.calls["xrange"] == STREAMS


@pytest.mark.parametrize("engine", ENGINES)
def test_bounds_hold_for_each_stream(many: Streams, engine: Any) -> None:
    few = pl.col("_ts").is_between(FIRST + 10, FIRST + 10)
    if not hands_over(few, many.scan().head(1).collect()):
        pytest.skip("this Polars keeps such a predicate to itself")
    with many.counted() as counted:
        df = many.scan().filter(few).collect(engine=engine)
    assert df["n"].to_list() == [10] * STREAMS
    assert counted.sent < many.whole / EACH * 3 + LITTLE
    counts = many.scan(count_per_stream=10).filter(pl.col("_ts") >= FIRST + 9)
    assert counts.collect(engine=engine)["n"].to_list() == [9] * STREAMS


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_rows_cost_little(many: Streams, engine: Any) -> None:
    lf = many.scan().head(10)
    heard = many.heard(lambda: lf.collect(engine=engine))
    ranges = [words for words in heard if words[0] == "XRANGE"]
    assert [(words[1], words[-1]) for words in ranges] == [("s:000", "10")]
    with many.counted() as counted:
        df = many.scan().head(3 * EACH).collect(engine=engine)
    assert df["_key"].unique(maintain_order=True).to_list() == KEYS[:3]
    assert counted.calls["xrange"] <= 8


@pytest.mark.parametrize("engine", ENGINES)
def test_a_filter_after_head_has_the_first_rows_only(many: Streams, engine: Any) -> None:
    lf = many.scan().head(EACH + 10)
    assert lf.filter(KEY == "s:001").collect(engine=engine)["n"].to_list() == list(range(10))
    assert lf.filter(pl.col("_ts") < FIRST + 2).collect(engine=engine)["n"].to_list() == [0, 1] * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_field_that_no_one_asks_for_is_not_decoded(many: Streams, engine: Any) -> None:
    lf = redis.scan_streams(many.url, "s:*", {"n": pl.Int64, "text": pl.Int64})
    assert lf.select(pl.col("n").sum()).collect(engine=engine).item() == STREAMS * sum(range(EACH))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_server_is_never_asked_for_much_at_once(many: Streams, engine: Any) -> None:
    many.client.delete("long")
    pipeline = many.client.pipeline(transaction=False)
    for n in range(20_000):
        pipeline.xadd("long", {"n": n}, id=f"{n + 1}-0")
    pipeline.execute()
    lf = redis.scan_streams(many.url, "lon[g]", SCHEMA).select(pl.col("n").sum())
    heard = many.heard(lambda: lf.collect(engine=engine))
    many.client.delete("long")
    ranges = [words for words in heard if words[0] == "XRANGE"]
    assert all(words[-2] == "COUNT" and int(words[-1]) <= 2000 for words in ranges)
