"""`read_streams` and `scan_streams`: which streams, in which order, what is told of them."""

from __future__ import annotations

import inspect
import pickle
import time
from typing import TYPE_CHECKING, Any

import cloudpickle
import polars as pl
import pytest
from polars.io.plugins import register_io_source
from polars.testing import assert_frame_equal

import polars_redis as redis
from support.engines import ENGINES
from support.streams import add, add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis as redis_py

    from support.servers import Server

SCHEMA = {"n": pl.Int64, "text": pl.String}
#: More than are asked for at once of one stream.
LONG = 2_500
ERRORS = (redis.exceptions.PolarsRedisError, pl.exceptions.ComputeError)

every_engine = pytest.mark.parametrize("engine", ENGINES)


def fill(client: redis_py.Redis, lengths: dict[str, int]) -> None:
    """Streams of so many entries, which tell their stream and their number."""
    pipeline = client.pipeline(transaction=False)
    for key, length in lengths.items():
        for n in range(length):
            pipeline.xadd(key, {"n": n, "text": f"{key}, entry number {n}"}, id=f"{n + 1}-{n % 3}")
    pipeline.execute()


def one_by_one(url: str, keys: Iterable[str], schema: Any = SCHEMA, **options: Any) -> pl.DataFrame:
    """The same by a read for each stream, in the order of the keys' bytes."""
    frames = []
    for key in sorted(keys, key=str.encode):
        df = redis.read_stream(url, key, schema, **options)
        frames.append(df.select(pl.lit(key).alias("_key"), pl.all()))
    return pl.concat(frames, how="diagonal")


def mixed(client: redis_py.Redis) -> dict[str, int]:
    """Many streams: empty, short, just as long as what is asked for at once, long."""
    lengths = {f"s:{n}": n % 7 for n in range(300)}
    lengths |= {"s:long": LONG, "s:1000": 1000, "s:1001": 1001, "s:99": 99, "s:zz": 3 * LONG}
    fill(client, lengths)
    for key in [key for key, length in lengths.items() if length == 0]:
        # It is there, and has no entries.
        client.xtrim(key, 0) if client.xadd(key, {"n": 0}) else None
    return lengths


# -- rows ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start_id": 3, "end_id": 1500},
        {"start_id": "(2-1", "end_id": "(1001-0"},
        {"start_id": 5000},
        {"include_id": False, "include_timestamp": False},
        {"include_sequence": True, "id_column": "k", "sequence_column": ""},
    ],
)
def test_all_streams_are_as_each_by_itself(
    client: redis_py.Redis, redis_url: str, options: Any
) -> None:
    keys = mixed(client)
    expected = one_by_one(redis_url, keys, **options)
    assert_frame_equal(redis.read_streams(redis_url, "s:*", SCHEMA, **options), expected)
    lf = redis.scan_streams(redis_url, "s:*", SCHEMA, **options)
    assert lf.collect_schema() == expected.schema
    for engine in ENGINES:
        assert_frame_equal(lf.collect(engine=engine), expected)


@pytest.mark.parametrize("count", [0, 1, 2, 99, 100, 101, 1000, 1001, 2400, 5000])
def test_the_first_entries_of_each_stream(
    client: redis_py.Redis, redis_url: str, count: int
) -> None:
    keys = mixed(client)
    df = redis.read_streams(redis_url, "s:*", SCHEMA, count_per_stream=count)
    assert_frame_equal(df, one_by_one(redis_url, keys, count=count))


def test_two_thousand_streams(client: redis_py.Redis, redis_url: str) -> None:
    keys = {f"stream number {n}": 5 for n in range(2000)}
    fill(client, keys)
    df = redis.read_streams(redis_url, schema=SCHEMA)
    assert df["_key"].to_list() == [key for key in sorted(keys) for _ in range(5)]
    assert df["n"].to_list() == list(range(5)) * 2000
    assert df["text"].to_list() == [
        f"{key}, entry number {n}" for key in sorted(keys) for n in range(5)
    ]
    # Small streams share chunks: one of its own for each would make every query slow.
    assert df.n_chunks() < 20


@every_engine
def test_without_a_schema_fields_come_in_order_of_appearance(
    client: redis_py.Redis, redis_url: str, engine: Any
) -> None:
    add(client, "b", [("1-0", {"x": 1}), ("2-0", {"z": 2})])
    add(client, "a", [("9-0", {"y": 3, "x": 4})])
    add(client, "c", [("1-0", {"w": 5})])
    df = redis.read_streams(redis_url)
    assert df.rows() == [
        ("a", "9-0", 9, "3", "4", None, None),
        ("b", "1-0", 1, None, "1", None, None),
        ("b", "2-0", 2, None, None, "2", None),
        ("c", "1-0", 1, None, None, None, "5"),
    ]
    assert df.columns == ["_key", "_id", "_ts", "y", "x", "z", "w"]
    sampled = redis.scan_streams(redis_url, infer_schema_length=2)
    assert sampled.collect(engine=engine).columns == ["_key", "_id", "_ts", "y", "x"]
    every = redis.scan_streams(redis_url, infer_schema_length=None)
    assert_frame_equal(every.collect(engine=engine), df)


def test_without_a_schema_long_streams_lie_between_short_ones(
    client: redis_py.Redis, redis_url: str
) -> None:
    keys = mixed(client)
    expected = one_by_one(redis_url, keys, None)
    assert_frame_equal(redis.read_streams(redis_url, "s:*"), expected)


@every_engine
def test_nothing_that_matches_has_the_schema(
    client: redis_py.Redis, redis_url: str, engine: Any
) -> None:
    schema = {
        "_key": pl.String,
        "_id": pl.String,
        "_ts": pl.Int64,
        "n": pl.Int64,
        "text": pl.String,
    }
    for pattern in ["*", "missing", "[x]"]:
        assert redis.read_streams(redis_url, pattern, SCHEMA).schema == schema
        df = redis.scan_streams(redis_url, pattern, SCHEMA).collect(engine=engine)
        assert (df.height, df.schema) == (0, schema)
    fill(client, {"s": 3})
    never = redis.read_streams(redis_url, "*", SCHEMA, start_id=9, end_id=8)
    assert (never.height, never.schema) == (0, schema)


def test_the_column_of_keys(client: redis_py.Redis, redis_url: str) -> None:
    fill(client, {"a": 2, "b": 1})
    read = redis.read_streams
    assert read(redis_url, "*", {}, key_column_name="stream").columns == ["stream", "_id", "_ts"]
    without = read(redis_url, "*", SCHEMA, include_key=False)
    assert without.columns == ["_id", "_ts", "n", "text"]
    assert without["n"].to_list() == [0, 1, 0]
    alone = read(redis_url, "*", {}, include_id=False, include_timestamp=False)
    assert alone.rows() == [("a",), ("a",), ("b",)]
    client.xadd("c", {"_key": 1})
    with pytest.raises(redis.exceptions.DecodeError, match=r'stream "c".*"_key".*key_column_name'):
        read(redis_url)
    with pytest.raises(ERRORS, match=r'"_key".*key_column_name'):
        redis.scan_streams(redis_url).collect_schema()
    assert read(redis_url, "*", {"_key": pl.Int64}, include_key=False)["_key"].to_list()[-1] == 1


# -- which streams ------------------------------------------------------------


def test_patterns(client: redis_py.Redis, redis_url: str) -> None:
    keys = ["a", "ab", "b", "a*", "a?b", "[x]", "a\\b", "é", "日本:1", "日本:2", "spa ce", "", "\n"]
    fill(client, dict.fromkeys(keys, 1))

    def found(pattern: str) -> list[str]:
        return redis.read_streams(redis_url, pattern, {})["_key"].to_list()

    assert found("*") == sorted(keys, key=str.encode)
    assert found("a") == ["a"]
    assert found("a?") == ["a*", "ab"]
    assert found(r"a\*") == ["a*"]
    assert found("[ab]") == ["a", "b"]
    assert found(r"\[x\]") == ["[x]"]
    assert found("日本:*") == ["日本:1", "日本:2"]
    assert found("spa ce") == ["spa ce"]
    assert found("") == [""]
    assert found("no such*") == []


@every_engine
def test_keys_of_other_types_are_passed_over(
    client: redis_py.Redis, redis_url: str, engine: Any
) -> None:
    fill(client, {"s:1": 2})
    client.set("s:0", "text")
    client.hset("s:2", "n", "1")
    client.lpush("s:3", "x")
    for pattern, rows in {"s:*": 2, "s:0": 0, "s:1": 2}.items():
        assert redis.read_streams(redis_url, pattern, SCHEMA).height == rows
        lf = redis.scan_streams(redis_url, pattern, SCHEMA)
        assert lf.collect(engine=engine).height == rows


def test_a_stream_of_dead_letters_among_them(client: redis_py.Redis, redis_url: str) -> None:
    fill(client, {"s:1": 3})
    options: Any = {"group": "g", "consumer": "c", "max_deliveries": 1, "dead_letter": "s:dead"}
    for _ in range(2):
        # Nobody acknowledges them.
        list(redis.iter_stream(redis_url, "s:1", SCHEMA, block_ms=None, **options))
    assert client.xlen("s:dead") == 3
    with pytest.raises(redis.exceptions.DecodeError, match=r'"s:dead".*the name is taken by'):
        redis.read_streams(redis_url, "s:*")
    df = redis.read_streams(redis_url, "s:*", SCHEMA)
    assert df["_key"].to_list() == ["s:1"] * 3 + ["s:dead"] * 3
    assert df["n"].to_list() == [0, 1, 2] * 2
    assert redis.read_streams(redis_url, "s:[^d]*")["_key"].unique().to_list() == ["s:1"]


def test_a_key_that_is_not_utf8(client: redis_py.Redis, redis_url: str) -> None:
    fill(client, {"s:1": 2})
    client.xadd(b"s:\xff", {"n": 1})
    with pytest.raises(redis.exceptions.ProtocolError, match=r'pattern "s:\*".*"s:.*not UTF-8'):
        redis.read_streams(redis_url, "s:*", SCHEMA)
    assert redis.read_streams(redis_url, "s:[0-9]*", SCHEMA).height == 2


# -- what does not fit --------------------------------------------------------


@every_engine
def test_the_first_entry_that_does_not_fit_is_named(
    client: redis_py.Redis, redis_url: str, engine: Any
) -> None:
    fill(client, {f"s:{n}": 3 for n in range(10, 60)} | {"s:20": LONG})
    add(client, "s:20", [("9000-0", {"n": "late"})])
    add(client, "s:30", [("9000-0", {"n": "later"})])
    named = 'stream "s:20", entry 9000-0, field "n": expected Int64, got "late"'
    with pytest.raises(redis.exceptions.DecodeError, match=named) as caught:
        redis.read_streams(redis_url, "s:*", SCHEMA)
    assert (caught.value.stream, caught.value.entry_id) == ("s:20", "9000-0")
    lf = redis.scan_streams(redis_url, "s:*", SCHEMA)
    with pytest.raises(ERRORS, match=named):
        lf.collect(engine=engine)
    before = 30 + LONG
    assert lf.head(before).collect(engine=engine).height == before
    assert lf.select("_key").collect(engine=engine).height == 49 * 3 + LONG + 2
    lenient = redis.read_streams(redis_url, "s:*", SCHEMA, strict=False)
    assert lenient.filter(pl.col("n").is_null())["_key"].to_list() == ["s:20", "s:30"]


# -- arguments ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"start_id": "$"}, ValueError, "start_id"),
        ({"start_id": "x"}, ValueError, "start_id"),
        ({"end_id": 1.5}, TypeError, "end_id"),
        ({"count_per_stream": -1}, ValueError, "count_per_stream"),
        ({"count_per_stream": "1"}, TypeError, "count_per_stream"),
        ({"pattern": None}, TypeError, "pattern"),
        ({"key_column_name": 5}, TypeError, "key_column_name"),
        ({"key_column_name": "_id"}, ValueError, '"_id".*key_column_name'),
        ({"include_key": "yes"}, TypeError, "include_key"),
        ({"schema": {"_key": pl.String}}, ValueError, '"_key".*include_key'),
        ({"schema": {"a": pl.Object}}, ValueError, '"a"'),
        ({"read_from": "anywhere"}, ValueError, "read_from"),
        ({"strict": None}, TypeError, "strict"),
        ({"url": "http://localhost"}, ValueError, "url"),
    ],
)
@pytest.mark.parametrize("call", [redis.read_streams, redis.scan_streams])
def test_wrong_arguments_are_refused_by_the_call(
    call: Callable[..., Any], options: Any, error: Any, match: str
) -> None:
    # Nobody listens there: were anything sent, the error would be another.
    with pytest.raises(error, match=match):
        call(**{"url": "redis://127.0.0.1:1", **options})


# -- servers ------------------------------------------------------------------


def test_on_every_version(any_client: redis_py.Redis, any_server: Server) -> None:
    keys = mixed(any_client)
    df = redis.read_streams(any_server.url, "s:*", SCHEMA)
    assert_frame_equal(df, one_by_one(any_server.url, keys))


def test_no_server_is_an_error_at_once() -> None:
    begun = time.monotonic()
    for pattern in ["*", "key"]:
        with pytest.raises(redis.exceptions.RedisConnectionError, match=r"127\.0\.0\.1:1"):
            redis.read_streams("redis://127.0.0.1:1", pattern)
    assert time.monotonic() - begun < 5


def test_rights(make_server: Callable[..., Server]) -> None:
    rights = {
        "reader": "~s:* +scan +xrange",
        "blind": "~s:* +xrange",
        "narrow": "~s:1 +scan +xrange",
        "useless": "~s:* +scan",
    }
    server = make_server(acl=[f"{user} on >secret {may}" for user, may in rights.items()])
    fill(server.client(), {"s:1": 3, "s:2": LONG})

    def read(user: str, pattern: str) -> int:
        url = server.url.replace("redis://", f"redis://{user}:secret@")
        return redis.read_streams(url, pattern, SCHEMA).height

    assert read("reader", "s:*") == 3 + LONG
    assert read("blind", "s:2") == LONG
    response = redis.exceptions.ResponseError
    with pytest.raises(response, match=r'pattern "s:\*": NOPERM.*scan') as caught:
        read("blind", "s:*")
    assert "secret" not in str(caught.value)
    with pytest.raises(response, match='stream "s:2": NOPERM'):
        read("narrow", "s:*")
    assert read("narrow", "s:[1]") == 3
    with pytest.raises(response, match=r'stream "s:1": NOPERM.*xrange'):
        read("useless", "s:*")


# -- what is told, and pickled ------------------------------------------------


def test_a_plan_shows_pattern_and_url_without_secrets(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis://:hunter2@")
    lf = redis.scan_streams(url, "orders:*", SCHEMA, start_id=5)
    query = lf.filter(pl.col("_key") > "orders:5").select("n")
    told = [repr(lf), lf.explain(), query.explain()]
    with pytest.raises(ERRORS) as caught:
        query.collect()
    told.append(str(caught.value))
    assert all("hunter2" not in text for text in told)
    if "explain_name" in inspect.signature(register_io_source).parameters:
        assert "REDIS STREAMS 'orders:*'" in lf.explain()
        assert "5 to +" in lf.explain()


@pytest.mark.parametrize("module", [pickle, cloudpickle])
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_a_pickled_frame(client: redis_py.Redis, redis_url: str, module: Any, schema: Any) -> None:
    keys = mixed(client)
    lf = redis.scan_streams(redis_url, "s:*", schema)
    again = module.loads(module.dumps(lf.filter(pl.col("_key") != "s:5")))
    df = again.collect().cast({"n": pl.Int64})
    assert_frame_equal(df, one_by_one(redis_url, keys.keys() - {"s:5"}))


@every_engine
def test_usual_queries(client: redis_py.Redis, redis_url: str, engine: Any) -> None:
    mixed(client)
    lf = redis.scan_streams(redis_url, "s:*", SCHEMA)
    whole = redis.read_streams(redis_url, "s:*", SCHEMA).lazy()
    late, some = pl.col("_ts") > 500, pl.col("_key").str.contains("[13579]$")
    queries: list[Callable[[pl.LazyFrame], pl.LazyFrame]] = [
        lambda f: f.select(pl.len()),
        lambda f: f.select("text", "_key"),
        lambda f: f.filter(late).select(pl.len()),
        lambda f: f.filter(some & late),
        lambda f: f.filter(some | late),
        lambda f: f.filter(some).head(100),
        lambda f: f.head(100).filter(some),
        lambda f: f.head(3000).filter(late),
        lambda f: f.group_by("_key").agg(pl.len(), pl.col("n").sum()).sort("_key"),
        lambda f: f.join(f.filter(some), on=["_key", "_id"], how="semi").sort("_key", "_ts"),
        lambda f: f.tail(5),
        lambda f: f.filter(pl.col("_key") == pl.col("_key").max()),
        lambda f: f.filter(pl.col("_key").is_first_distinct()),
        lambda f: f.filter(pl.col("n") == pl.col("n").max().over("_key")).sort("_key"),
        lambda f: f.rename({"_key": "n", "n": "_key"}).filter(pl.col("_key") < 3),
        lambda f: f.with_columns(_key=pl.lit("s:5")).filter(pl.col("_key") == "s:5"),
        lambda f: f.select(pl.col("_key").unique().sort()),
    ]
    for number, query in enumerate(queries):
        found, expected = query(lf).collect(engine=engine), query(whole).collect()
        assert_frame_equal(found, expected), number


def test_a_stream_that_grows_meanwhile_ends(client: redis_py.Redis, redis_url: str) -> None:
    ids = add_numbered(client, "s:1", (f"{n + 1}-0" for n in range(LONG)))
    add_numbered(client, "s:2", ["1-0"])
    df = redis.read_streams(redis_url, "s:*", {"n": pl.Int64})
    assert df.filter(pl.col("_key") == "s:1")["_id"].to_list() == ids
