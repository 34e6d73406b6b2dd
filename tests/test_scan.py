"""`scan_stream` as a user of Polars meets it: schemas, arguments, errors, engines, processes."""

from __future__ import annotations

import inspect
import io
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import polars as pl
import pytest
from polars.io.plugins import register_io_source
from polars.testing import assert_frame_equal

import polars_redis as redis
from support.engines import ENGINES
from support.iterators import meanwhile, wait_until
from support.proxy import Fault, Proxy
from support.streams import add, add_numbered, assert_numbered, id_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.servers import Server

SCHEMA = {"n": pl.Int64}
SECRET = "hunter2"
#: What an error of ours comes as: older versions of Polars wrap it in their own.
ERRORS = (redis.exceptions.PolarsRedisError, pl.exceptions.ComputeError)

every_engine = pytest.mark.parametrize("engine", ENGINES)


def numbered(client: redis_py.Redis, stream: str, count: int) -> list[str]:
    return add_numbered(client, stream, (f"{n + 1}-0" for n in range(count)))


# -- schemas ------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("schema", [None, {"n": pl.Int64, "b": pl.String, "lacking": pl.Boolean}])
@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"include_id": False, "include_timestamp": False},
        {"include_sequence": True},
        {
            "include_sequence": True,
            "id_column": "k",
            "timestamp_column": "at",
            "sequence_column": "",
        },
        {"include_id": False, "id_column": "n"},
    ],
)
def test_columns_are_those_of_a_read(
    client: redis_py.Redis, redis_url: str, stream: str, engine: Any, schema: Any, columns: Any
) -> None:
    add(client, stream, [("1-0", {"n": 1}), ("1-5", {"b": "é"}), ("2-0", ["n", 2, "n", 3])])
    lf = redis.scan_stream(redis_url, stream, schema, **columns)
    expected = redis.read_stream(redis_url, stream, schema, **columns)
    assert lf.collect_schema() == expected.schema
    assert_frame_equal(lf.collect(engine=engine), expected)
    for name in expected.columns:
        assert_frame_equal(lf.select(name).collect(engine=engine), expected.select(name))
    reordered = lf.select(reversed(expected.columns)).collect(engine=engine)
    assert_frame_equal(reordered, expected.select(reversed(expected.columns)))


@every_engine
def test_a_field_that_comes_after_the_sample_is_passed_over(
    client: redis_py.Redis, redis_url: str, stream: str, engine: Any
) -> None:
    add(client, stream, [("1-0", {"a": 1}), ("2-0", {"b": 2}), ("3-0", {"c": 3})])
    lf = redis.scan_stream(redis_url, stream, infer_schema_length=2)
    assert lf.collect_schema().names() == ["_id", "_ts", "a", "b"]
    assert lf.collect(engine=engine).rows() == [
        ("1-0", 1, "1", None),
        ("2-0", 2, None, "2"),
        ("3-0", 3, None, None),
    ]
    every = redis.scan_stream(redis_url, stream, infer_schema_length=None)
    assert every.collect(engine=engine).columns == ["_id", "_ts", "a", "b", "c"]
    first = redis.scan_stream(redis_url, stream, count=1, infer_schema_length=None)
    assert first.collect(engine=engine).columns == ["_id", "_ts", "a"]


@every_engine
def test_a_sample_looks_at_names_alone(
    client: redis_py.Redis, redis_url: str, stream: str, engine: Any
) -> None:
    add(client, stream, [("1-0", {"text": "x", "blob": b"\xff"}), (f"{2**63}-0", {"text": "y"})])
    lf = redis.scan_stream(redis_url, stream)
    assert lf.collect_schema().names() == ["_id", "_ts", "text", "blob"]
    assert lf.select("text").collect(engine=engine)["text"].to_list() == ["x", "y"]
    with pytest.raises(ERRORS, match='entry 1-0, field "blob"'):
        lf.collect(engine=engine)


@every_engine
def test_a_missing_stream_has_the_schema_and_one_that_is_filled_its_rows(
    client: redis_py.Redis, redis_url: str, stream: str, engine: Any
) -> None:
    typed, bare = (redis.scan_stream(redis_url, stream, schema) for schema in (SCHEMA, None))
    for lf in [typed, typed.filter(pl.col("_ts") > 5), typed.head(3), typed.filter(n=1)]:
        df = lf.collect(engine=engine)
        assert df.is_empty()
        assert df.schema == {"_id": pl.String, "_ts": pl.Int64, "n": pl.Int64}
    reordered = typed.select("n", "_id").collect(engine=engine)
    assert_frame_equal(reordered, pl.DataFrame(schema={"n": pl.Int64, "_id": pl.String}))
    assert bare.collect(engine=engine).schema == {"_id": pl.String, "_ts": pl.Int64}
    add_numbered(client, stream, ["1-0"])
    assert typed.collect(engine=engine).rows() == [("1-0", 1, 0)]
    assert bare.collect(engine=engine).rows() == [("1-0", 1, "0")]


@every_engine
def test_a_stream_that_is_filled_between_plan_and_data(
    client: redis_py.Redis, redis_url: str, stream: str, engine: Any
) -> None:
    add_numbered(client, stream + "other", ["5-0"])

    def fill(df: pl.DataFrame) -> pl.DataFrame:
        client.xadd(stream, {"n": 1}, id="*")
        return df

    late = redis.scan_stream(redis_url, stream)
    first = redis.scan_stream(redis_url, stream + "other", {}).map_batches(
        fill, schema={"_id": pl.String, "_ts": pl.Int64}, streamable=False
    )
    df = first.join(late, on="_id", how="left", maintain_order="left").collect(engine=engine)
    assert df.columns[:2] == ["_id", "_ts"]


# -- arguments ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"count": -1}, ValueError, "count"),
        ({"count": "5"}, TypeError, "count"),
        ({"start_id": "x"}, ValueError, "start_id"),
        ({"start_id": 1.5}, TypeError, "start_id"),
        ({"end_id": "$"}, ValueError, "end_id"),
        ({"schema": {"a": pl.Object}}, ValueError, '"a"'),
        ({"schema": {"_id": pl.String}}, ValueError, '"_id"'),
        ({"schema": 5}, TypeError, "schema"),
        ({"schema": [("a", pl.Int64), ("a", pl.String)]}, ValueError, '"a"'),
        ({"id_column": "_ts"}, ValueError, '"_ts"'),
        ({"include_id": 1}, TypeError, "include_id"),
        ({"strict": 1}, TypeError, "strict"),
        ({"infer_schema_length": 0}, ValueError, "infer_schema_length"),
        ({"infer_schema_length": True}, TypeError, "infer_schema_length"),
        ({"infer_schema_length": 1.5}, TypeError, "infer_schema_length"),
        ({"infer_schema_length": "a"}, TypeError, "infer_schema_length"),
        ({"url": "http://localhost"}, ValueError, "url"),
        ({"url": "redis://localhost?nope=1"}, ValueError, "nope"),
        ({"url": None}, TypeError, "url"),
        ({"stream": None}, TypeError, "stream"),
    ],
)
def test_arguments_are_refused_by_the_call(options: Any, error: Any, match: str) -> None:
    # Nobody listens there: were anything sent, the error would be another.
    arguments = {"url": "redis://127.0.0.1:1", "stream": "s", **options}
    with pytest.raises(error, match=match):
        redis.scan_stream(**arguments)


# -- what is told -------------------------------------------------------------


def test_no_password_is_told(redis_url: str, stream: str, caplog: pytest.LogCaptureFixture) -> None:
    url = redis_url.replace("redis://", f"redis://:{SECRET}@")
    lf = redis.scan_stream(url, stream, SCHEMA)
    query = lf.filter(pl.col("_ts") > 5).select("n").head(3)
    told = [repr(lf), str(lf), lf.explain(), query.explain(), lf._repr_html_()]
    told += [query.explain(engine=engine) for engine in ENGINES]
    with caplog.at_level("DEBUG"):
        for engine in ENGINES:
            with pytest.raises(ERRORS) as caught:
                lf.collect(engine=engine)
            told += [str(caught.value), repr(caught.value)]
    with pytest.raises(ERRORS) as caught:
        redis.scan_stream(url, stream).collect_schema()
    told += [str(caught.value), repr(caught.value), caplog.text]
    assert all(SECRET not in text for text in told)


def test_a_plan_shows_the_stream(redis_url: str) -> None:
    plan = redis.scan_stream(redis_url, "events", SCHEMA, start_id=5).explain()
    if "explain_name" not in inspect.signature(register_io_source).parameters:
        pytest.skip("this Polars shows nothing of a source")
    assert "REDIS STREAM 'events'" in plan
    assert "5 to +" in plan


@every_engine
def test_a_value_that_does_not_fit(
    client: redis_py.Redis, redis_url: str, stream: str, engine: Any
) -> None:
    numbered(client, stream, 3000)
    add(client, stream, [("9000-0", {"n": "boom"})])
    lf = redis.scan_stream(redis_url, stream, SCHEMA)
    named = f'stream "{stream}", entry 9000-0, field "n": expected Int64, got "boom"'
    with pytest.raises(ERRORS, match=named):
        lf.collect(engine=engine)
    assert lf.head(3000).collect(engine=engine).height == 3000
    assert lf.select("_ts").collect(engine=engine).height == 3001
    assert lf.filter(pl.col("_ts") < 9000).collect(engine=engine).height == 3000
    lenient = redis.scan_stream(redis_url, stream, SCHEMA, strict=False)
    assert lenient.collect(engine=engine)["n"].null_count() == 1


@every_engine
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_a_key_of_another_type(
    client: redis_py.Redis, redis_url: str, stream: str, engine: Any, schema: Any
) -> None:
    client.set(stream, "text")
    with pytest.raises(ERRORS, match=f"{stream}.*WRONGTYPE"):
        redis.scan_stream(redis_url, stream, schema).collect(engine=engine)


@every_engine
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_no_server(engine: Any, schema: Any) -> None:
    with pytest.raises(ERRORS, match=r"127\.0\.0\.1:1\b.*refused"):
        redis.scan_stream("redis://127.0.0.1:1", "s", schema).collect(engine=engine)


# -- lines and streams that change --------------------------------------------


@every_engine
def test_a_line_cut_again_and_again(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    engine: Any,
) -> None:
    ids = numbered(client, stream, 60_000)
    proxy = make_proxy(server)
    for connection in range(1, 12):
        proxy.set_fault(Fault(cut_after=1000 + 12_345 * connection), connection=connection)
    df = redis.scan_stream(proxy.rewrite(server.url), stream, SCHEMA).collect(engine=engine)
    assert_numbered(df, ids)
    assert proxy.connections > 8


@every_engine
def test_a_server_killed_and_restarted_in_the_middle(
    make_server: Callable[..., Server], make_proxy: Callable[..., Proxy], engine: Any
) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    ids = numbered(server.client(), "s", 60_000)
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=1_000_000))
    lf = redis.scan_stream(proxy.rewrite(server.url), "s", SCHEMA)
    frames: list[pl.DataFrame] = []
    with meanwhile(lambda: frames.append(lf.collect(engine=engine))):
        wait_until(lambda: proxy.bytes_down >= 1_000_000)
        server.kill()
        proxy.heal()
        proxy.cut_all()
        server.restart()
    assert_numbered(frames[0], ids)


@every_engine
def test_it_ends_while_entries_are_added_and_trimmed(
    client: redis_py.Redis, server: Server, stream: str, engine: Any
) -> None:
    ids = numbered(client, stream, 50_000)
    done = threading.Event()

    def change() -> None:
        mine = server.client()
        while not done.is_set():
            pipeline = mine.pipeline(transaction=False)
            for _ in range(100):
                pipeline.xadd(stream, {"n": -1})
            pipeline.xtrim(stream, maxlen=50_000, approximate=False)
            pipeline.execute()

    with meanwhile(change):
        try:
            found = redis.scan_stream(server.url, stream, SCHEMA).collect(engine=engine)
        finally:
            done.set()
    keys = [id_key(entry_id) for entry_id in found["_id"]]
    assert keys == sorted(set(keys))
    left = {entry_id.decode() for entry_id, _ in client.xrange(stream)} & set(ids)
    assert left <= set(found["_id"])


# -- queries ------------------------------------------------------------------


@every_engine
def test_usual_queries(client: redis_py.Redis, redis_url: str, stream: str, engine: Any) -> None:
    numbered(client, stream, 5000)
    lf = redis.scan_stream(redis_url, stream, SCHEMA)
    whole = redis.read_stream(redis_url, stream, SCHEMA).lazy()
    even = pl.col("n") % 2 == 0
    late = pl.col("_ts") > 2500
    queries: list[Callable[[pl.LazyFrame], pl.LazyFrame]] = [
        lambda f: f.select(pl.len()),
        lambda f: f.filter(late).select(pl.len()),
        lambda f: f.filter(even).select(pl.len()),
        lambda f: f.select(pl.lit(1).alias("one")),
        lambda f: f.group_by(pl.col("n") % 7).agg(pl.len(), pl.col("_ts").sum()).sort("n"),
        lambda f: f.join(f.filter(even), on="_id", how="semi").sort("_ts"),
        lambda f: f.join(f.filter(late), on="n", how="left").sort("_ts"),
        lambda f: pl.concat([f.filter(late), f.filter(~late), f.head(3)]),
        lambda f: f.with_row_index().filter(pl.col("index") % 1000 == 0),
        lambda f: f.sort("n", descending=True).head(5),
        lambda f: f.tail(5),
        lambda f: f.slice(-3, 2),
        lambda f: f.reverse().head(2),
        lambda f: f.unique(subset=["n"], keep="first", maintain_order=True),
        lambda f: f.with_columns(m=pl.col("n").cum_sum()).filter(late),
        lambda f: f.filter(pl.col("n") == pl.col("n").max()),
        lambda f: f.rename({"_ts": "at"}).filter(pl.col("at") < 9).drop("_id"),
        lambda f: f.filter(pl.col("n").map_batches(lambda n: n < 9, return_dtype=pl.Boolean)),
        lambda f: f.select(pl.all().first()),
        lambda f: (
            f.with_columns(t=pl.from_epoch("_ts", time_unit="ms"))
            .group_by_dynamic("t", every="1s")
            .agg(pl.len())
        ),
        lambda f: f.cache().filter(late),
    ]
    for number, query in enumerate(queries):
        found = query(lf).collect(engine=engine)
        assert found.equals(query(whole).collect()), number


@every_engine
def test_no_columns(client: redis_py.Redis, redis_url: str, stream: str, engine: Any) -> None:
    numbered(client, stream, 3)
    options: dict[str, Any] = {"include_id": False, "include_timestamp": False}
    lf = redis.scan_stream(redis_url, stream, {}, **options)
    expected = redis.read_stream(redis_url, stream, {}, **options)
    assert lf.collect(engine=engine).shape == expected.shape
    some = redis.scan_stream(redis_url, stream, SCHEMA, **options)
    assert some.select(pl.len()).collect(engine=engine).item() == 3


@every_engine
def test_many_at_once(client: redis_py.Redis, redis_url: str, stream: str, engine: Any) -> None:
    ids = numbered(client, stream, 20_000)
    lf = redis.scan_stream(redis_url, stream, SCHEMA)
    for df in pl.collect_all([lf] * 5, engine=engine):
        assert_numbered(df, ids)
    both = pl.concat([lf, lf.filter(pl.col("_ts") > 10_000)]).collect(engine=engine)
    assert both.height == 30_000
    with ThreadPoolExecutor(8) as pool:
        for collected in [pool.submit(lf.collect, engine=engine) for _ in range(24)]:
            assert_numbered(collected.result(), ids)


def test_sinks(client: redis_py.Redis, redis_url: str, stream: str, tmp_path: Path) -> None:
    ids = numbered(client, stream, 20_000)
    lf = redis.scan_stream(redis_url, stream, SCHEMA)
    lf.sink_parquet(tmp_path / "all.parquet")
    assert_numbered(pl.read_parquet(tmp_path / "all.parquet"), ids)
    lf.filter(pl.col("n") < 10).select("n").sink_csv(tmp_path / "few.csv")
    assert pl.read_csv(tmp_path / "few.csv")["n"].to_list() == list(range(10))


# -- processes ----------------------------------------------------------------


@pytest.mark.parametrize("module", [pickle, cloudpickle])
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_a_pickled_frame(
    client: redis_py.Redis, redis_url: str, stream: str, module: Any, schema: Any
) -> None:
    ids = numbered(client, stream, 100)
    lf = redis.scan_stream(redis_url, stream, schema).filter(pl.col("_ts") > 0)
    again = module.loads(module.dumps(lf))
    assert_numbered(again.collect().cast({"n": pl.Int64}), ids)
    restored = pl.LazyFrame.deserialize(io.BytesIO(lf.serialize()))
    assert_numbered(restored.collect().cast({"n": pl.Int64}), ids)


def test_a_frame_collected_by_a_spawned_process(
    client: redis_py.Redis, redis_url: str, stream: str, tmp_path: Path
) -> None:
    ids = numbered(client, stream, 5000)
    lf = redis.scan_stream(redis_url, stream, SCHEMA)
    assert_numbered(lf.collect(), ids)
    (tmp_path / "frame").write_bytes(pickle.dumps(lf))
    code = """
import pickle, sys
lf = pickle.loads(open(sys.argv[1], "rb").read())
lf.collect(engine="streaming").write_ipc(sys.argv[2])
"""
    run = [sys.executable, "-c", code, str(tmp_path / "frame"), str(tmp_path / "result")]
    subprocess.run(run, check=True, timeout=60)
    assert_numbered(pl.read_ipc(tmp_path / "result"), ids)


FORKS = """
import os, sys
import polars_redis as redis

lf = redis.scan_stream(sys.argv[1], sys.argv[2], {"n": int})
redis.read_stream(sys.argv[1], sys.argv[2], count=1)
child = os.fork()
df = lf.collect()
if child == 0:
    os._exit(0 if df.height == 5000 else 1)
print(df.height, os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_parent_and_child_collect(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    numbered(client, stream, 5000)
    run = [sys.executable, "-c", FORKS, redis_url, stream]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "5000 0\n", done.stderr


INTERRUPTED = """
import os, signal, sys, threading
import polars_redis as redis

def interrupt():
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
scan = getattr(redis, sys.argv[3])
lf = scan(sys.argv[1], "s", {"n": int})
print("reading", flush=True)
lf.collect(engine=sys.argv[2])
print("all was read")
"""


@every_engine
@pytest.mark.parametrize("scan", ["scan_stream", "scan_streams"])
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to oneself")
def test_ctrl_c_ends_a_collection(
    make_server: Callable[..., Server], make_proxy: Callable[..., Proxy], scan: str, engine: Any
) -> None:
    server = make_server()
    numbered(server.client(), "s", 200_000)
    # The streaming engine notices it when a batch comes, so that some have to; the other one
    # on a line that is silent too.
    proxy = make_proxy(server, delay_ms=200 if engine == "streaming" else 0)
    if engine == "in-memory":
        proxy.set_fault(Fault(stall_after=1_000_000))
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, proxy.rewrite(server.url), engine, scan],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n"
            wait_until(lambda: proxy.bytes_down >= 1_000_000)
            told, errors = process.communicate("now\n", timeout=15)
        finally:
            process.kill()
    assert told == ""
    assert "KeyboardInterrupt" in errors


def test_no_descriptor_and_no_thread_is_left(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        pytest.skip("the system does not list a process's descriptors")
    numbered(client, stream, 20_000)
    lf = redis.scan_stream(redis_url, stream, SCHEMA)

    def use() -> None:
        for engine in ENGINES:
            lf.head(5).collect(engine=engine)
            lf.filter(pl.col("n") >= 0).head(5).collect(engine=engine)
            lf.filter(pl.col("_ts") < 10).collect(engine=engine)

    def opened() -> int:
        return sum(1 for _ in listing.iterdir())

    for _ in range(5):
        use()
    before = opened()
    for _ in range(100):
        use()
    # Up to four connections are kept for the next ones.
    wait_until(lambda: opened() <= before + 4)


def test_an_abandoned_source_lets_its_connection_go(
    client: redis_py.Redis, server: Server, stream: str
) -> None:
    numbered(client, stream, 50_000)
    url = f"{server.url}?client_name=abandoned"
    lf = redis.scan_stream(url, stream, SCHEMA)
    for _ in range(20):
        lf.filter(pl.col("n") >= 0).head(5).collect(engine="streaming")

    def open_ones() -> int:
        return sum(told["name"] == "abandoned" for told in client.client_list())

    wait_until(lambda: open_ones() <= 4)
