"""Writing frames to streams: what comes back, what is refused, and which rows were written."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal
from polars.testing.parametric import dataframes

import polars_redis as redis
from polars_redis.exceptions import (
    PolarsRedisError,
    RedisConnectionError,
    RedisTimeoutError,
    ResponseError,
)
from support.iterators import wait_until
from support.proxy import Fault, Proxy
from support.tls import tls_binary
from support.topologies import Replicated

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.servers import Server
    from support.tls import Files
    from support.topologies import Cluster, Sentinels

ONLY_FIELDS: dict[str, Any] = {"include_id": False, "include_timestamp": False}
#: What readers have a text for.
DTYPES: list[Any] = [
    pl.String,
    pl.Binary,
    pl.Boolean,
    pl.Int8,
    pl.Int16,
    pl.Int32,
    pl.Int64,
    pl.UInt8,
    pl.UInt16,
    pl.UInt32,
    pl.UInt64,
    pl.Float32,
    pl.Float64,
    pl.Date,
    pl.Time,
    pl.Datetime,
    pl.Duration,
    pl.Categorical,
    pl.Enum,
    pl.List,
    pl.Struct,
]
if hasattr(pl.LazyFrame, "collect_batches"):
    # Of older versions of Polars some arrays are broken, and decimals without a precision.
    DTYPES += [pl.Array, pl.Decimal]
REPEATED = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def numbered(rows: int, text: str = "") -> pl.DataFrame:
    return pl.DataFrame({"n": range(rows)}).with_columns(pl.lit(text).alias("text"))


def there(client: redis_py.Redis, stream: str) -> list[int]:
    entries: Any = client.xrange(stream)
    return [int(fields[b"n"]) for _, fields in entries]


def assert_told(error: Any, client: redis_py.Redis, stream: str, rows: int) -> None:
    """Check that what an exception tells of the rows is what the stream holds."""
    written, failed, unsure = (getattr(error, name).to_list() for name in FATES)
    assert sorted(written + failed + unsure) == list(range(rows))
    held = there(client, stream)
    assert held == sorted(held)
    assert len(held) == len(set(held))
    assert set(written) <= set(held) <= set(written) | set(unsure)
    ids = error.entry_ids
    assert ids.len() == rows
    assert ids.is_not_null().arg_true().to_list() == written
    entries: Any = client.xrange(stream)
    by_row = {int(fields[b"n"]): entry_id.decode() for entry_id, fields in entries}
    assert ids.gather(written).to_list() == [by_row[row] for row in written]


FATES = ("written", "failed", "unsure")

# -- what comes back ---------------------------------------------------------------


@REPEATED
@given(df=dataframes(allowed_dtypes=DTYPES, max_cols=6, max_size=12, allow_masked=False))
def test_any_frame_comes_back_equal(
    df: pl.DataFrame, client: redis_py.Redis, redis_url: str
) -> None:
    client.delete("s")
    ids = redis.write_stream(redis_url, df, "s")
    assert (ids.name, ids.dtype, ids.len()) == ("_id", pl.String, df.height)
    if df.width == 0:
        return
    back = redis.read_stream(redis_url, "s", df.schema, include_timestamp=False)
    assert_series_equal(back["_id"], ids)
    assert_frame_equal(back.drop("_id"), df, categorical_as_str=True)


#: Those that not every version of Polars makes frames of by itself.
HUGE: dict[Any, Any] = {
    pl.Int128: st.integers(-(2**127), 2**127 - 1),
    **({pl.UInt128: st.integers(0, 2**128 - 1)} if hasattr(pl, "UInt128") else {}),
}


@pytest.mark.parametrize("dtype", HUGE)
@REPEATED
@given(data=st.data())
def test_any_huge_integer_comes_back(
    dtype: Any, data: st.DataObject, client: redis_py.Redis, redis_url: str
) -> None:
    client.delete("s")
    values = data.draw(st.lists(st.none() | HUGE[dtype], min_size=1, max_size=10))
    df = pl.DataFrame({"n": pl.Series(values, dtype=dtype)})
    df = df.with_columns(of=pl.concat_list("n", "n"))
    redis.write_stream(redis_url, df, "s")
    assert redis.read_stream(redis_url, "s", df.schema, **ONLY_FIELDS).equals(df)


@REPEATED
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        unique=True,
        min_size=1,
        max_size=4,
    ).filter(lambda names: not {"_id", "_ts", "_seq", "_key", "_deliveries"} & set(names)),
    values=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
    binary=st.lists(st.none() | st.binary(), min_size=1, max_size=4),
)
def test_any_name_and_text_comes_back(
    names: list[str],
    values: list[str],
    binary: list[bytes | None],
    client: redis_py.Redis,
    redis_url: str,
) -> None:
    client.delete("s")
    columns = [pl.Series(name, values) for name in names]
    df = pl.DataFrame(columns).with_columns(
        pl.Series("binary", (binary * 4)[: len(values)], pl.Binary)
    )
    redis.write_stream(redis_url, df, "s")
    assert_frame_equal(redis.read_stream(redis_url, "s", df.schema, **ONLY_FIELDS), df)


EXTREMES: dict[str, tuple[Any, list[Any]]] = {
    "floats": (pl.Float64, [0.1, -0.0, 5e-324, 1.7976931348623157e308, float("inf"), 1e16]),
    "singles": (pl.Float32, [0.1, 3.4028235e38, 1e-45, float("-inf"), 16777216.0, 0.3]),
    "huge": (pl.Int128, [2**127 - 1, -(2**127), 0, 1, -1, 10**30]),
    "unsigned": (pl.UInt64, [2**64 - 1, 0, 1, 2, 3, 4]),
    "days": (pl.Int32, [-(2**31), 2**31 - 1, -719_529, -719_528, 2_932_896, 2_932_897]),
    "counts": (pl.Int64, [-(2**63), 2**63 - 1, -1, 0, 253_402_300_799_999, -62_167_219_200_001]),
}


def extremes() -> pl.DataFrame:
    df = pl.DataFrame(
        {name: pl.Series(values, dtype=to) for name, (to, values) in EXTREMES.items()}
    )
    moments = {
        f"{unit}{zone}": pl.col("counts").cast(pl.Datetime(unit, zone))
        for unit in ("ms", "us", "ns")
        for zone in (None, "Europe/Paris")
    }
    durations = {f"d{unit}": pl.col("counts").cast(pl.Duration(unit)) for unit in ("ms", "ns")}
    return df.with_columns(date=pl.col("days").cast(pl.Date), **moments, **durations)


def test_the_ends_of_each_dtype_come_back(redis_url: str, stream: str) -> None:
    df = extremes()
    redis.write_stream(redis_url, df, stream)
    # What Polars cannot print it can compare.
    assert redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS).equals(df)


def test_the_ends_of_each_dtype_come_back_from_json(redis_url: str, stream: str) -> None:
    flat = extremes()
    df = flat.select(
        pl.struct(flat.columns).alias("struct"), *(pl.concat_list(name) for name in flat.columns)
    )
    redis.write_stream(redis_url, df, stream)
    assert redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS).equals(df)


def test_nan_comes_back(redis_url: str, stream: str) -> None:
    df = pl.DataFrame({"x": [float("nan")], "in": [[float("nan"), float("-inf"), None]]})
    redis.write_stream(redis_url, df, stream)
    assert_frame_equal(redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS), df)


def test_bytes_that_are_no_text_come_back_from_json(redis_url: str, stream: str) -> None:
    df = pl.DataFrame({"in": [[b"\xff\x00", b"text", b"", None]]})
    redis.write_stream(redis_url, df, stream)
    assert_frame_equal(redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS), df)


def test_arrays_of_nothing_come_back(redis_url: str, stream: str) -> None:
    nothing = pl.Array(pl.Int64, 0)
    df = pl.DataFrame(
        {"n": [1, 2, 3], "a": [[], None, []], "in": [[[], None], None, []]},
        schema={"n": pl.Int64, "a": nothing, "in": pl.List(nothing)},
    )
    redis.write_stream(redis_url, df, stream)
    back = redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS)
    assert (back.schema, back.rows()) == (df.schema, df.rows())


def test_what_is_written_is_plain_to_see(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    df = pl.DataFrame(
        {
            "text": ["é"],
            "n": [-5],
            "x": [1.5],
            "flag": [True],
            "day": [date(2024, 2, 29)],
            "at": [datetime(2024, 2, 29, 1, 2, 3, 4000)],
            "utc": pl.Series([datetime(2024, 2, 29, 1, 2, 3, tzinfo=timezone.utc)]),
            "took": [timedelta(milliseconds=5)],
            "price": pl.Series(["19.90"]).cast(pl.Decimal(10, 2)),
            "kind": pl.Series(["a"], dtype=pl.Enum(["a"])),
            "in": [{"day": date(2024, 2, 29), "near": [1, None]}],
        }
    )
    redis.write_stream(redis_url, df, stream)
    entries: Any = client.xrange(stream)
    assert {name.decode(): text.decode() for name, text in entries[0][1].items()} == {
        "text": "é",
        "n": "-5",
        "x": "1.5",
        "flag": "true",
        "day": "2024-02-29",
        "at": "2024-02-29T01:02:03.004000",
        "utc": "2024-02-29T01:02:03Z",
        "took": "5000",
        "price": "19.90",
        "kind": "a",
        "in": '{"day":"2024-02-29","near":[1,null]}',
    }


@pytest.mark.parametrize("rows", [0, 1, 9_999, 10_000, 10_001, 70_000])
def test_many_rows_come_back_in_order(redis_url: str, stream: str, rows: int) -> None:
    df = numbered(rows, "a text of more than twelve bytes")
    ids = redis.write_stream(redis_url, df, stream)
    back = redis.read_stream(redis_url, stream, df.schema, include_timestamp=False)
    assert_frame_equal(back.drop("_id"), df)
    assert_series_equal(back["_id"], ids)


@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_long_values_come_back(redis_url: str, stream: str, size: int) -> None:
    df = pl.DataFrame({"n": range(20), "long": ["x" * size] * 20})
    redis.write_stream(redis_url, df, stream)
    assert_frame_equal(redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS), df)


def test_slices_and_chunks_of_a_frame(redis_url: str, stream: str) -> None:
    whole = pl.DataFrame(
        {
            "n": range(1000),
            "flag": [n % 3 == 0 for n in range(1000)],
            "list": [[n] * (n % 4) for n in range(1000)],
            "pair": pl.Series([[n, None] for n in range(1000)], dtype=pl.Array(pl.Int64, 2)),
            "struct": [{"a": str(n), "b": [n]} for n in range(1000)],
            "sparse": [None if n % 5 else n for n in range(1000)],
        }
    )
    df = pl.concat([whole.slice(3, 500), whole.slice(900), whole.slice(10, 1)], rechunk=False)
    df = df.with_columns(pl.concat([df["n"][:7], df["n"][7:]], rechunk=False).alias("other"))
    redis.write_stream(redis_url, df, stream, batch_size=17)
    assert_frame_equal(redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS), df)


@pytest.mark.parametrize("scheme", ["redis", "unix"])
def test_either_order_and_any_line(
    make_server: Callable[..., Server], stream: str, scheme: str
) -> None:
    server = make_server(unixsocket=True)
    url = server.url if scheme == "redis" else server.unix_url
    df = numbered(30_000)
    redis.write_stream(df, url, stream)
    assert_frame_equal(redis.read_stream(url, stream, df.schema, **ONLY_FIELDS), df)


# -- nulls -------------------------------------------------------------------------

WITH_NULLS = pl.DataFrame({"a": ["x", None, None], "b": [None, 2, None]})


def test_nulls_are_left_out(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    redis.write_stream(redis_url, WITH_NULLS, stream)
    entries: Any = client.xrange(stream)
    assert [fields for _, fields in entries] == [{b"a": b"x"}, {b"b": b"2"}, {b"_": b""}]


def test_nulls_as_empty_texts(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    redis.write_stream(redis_url, WITH_NULLS, stream, null="empty")
    entries: Any = client.xrange(stream)
    assert [list(fields.values()) for _, fields in entries] == [[b"x", b""], [b"", b"2"], [b""] * 2]


@pytest.mark.parametrize("lazy", [False, True])
def test_nulls_are_refused(client: redis_py.Redis, redis_url: str, stream: str, lazy: bool) -> None:
    df: Any = WITH_NULLS.select("b", "a").slice(1)
    with pytest.raises(ValueError, match=r"column 'a' is null in row 0"):
        redis.write_stream(redis_url, df.lazy() if lazy else df, stream, null="raise")
    assert not client.exists(stream)
    redis.write_stream(redis_url, df.drop_nulls(), stream, null="raise")
    # What is no field is not written, null or not.
    replayed = pl.DataFrame({"_id": ["9999999999999-1"], "_ts": [None], "a": [1]})
    redis.write_stream(redis_url, replayed, stream, id_column="_id", null="raise")


def test_a_column_that_has_the_name_of_the_placeholder(redis_url: str, stream: str) -> None:
    df = pl.DataFrame({"_": [None, ""], "__": [None, "x"]}, schema={"_": pl.String, "__": str})
    redis.write_stream(redis_url, df, stream)
    assert_frame_equal(redis.read_stream(redis_url, stream, df.schema, **ONLY_FIELDS), df)


def test_a_column_of_nothing(redis_url: str, stream: str) -> None:
    df = pl.DataFrame({"n": [1, 2], "nothing": [None, None]})
    redis.write_stream(redis_url, df, stream)
    back = redis.read_stream(redis_url, stream, {"n": int, "nothing": str}, **ONLY_FIELDS)
    assert back.rows() == df.rows()


# -- IDs and streams ---------------------------------------------------------------


def test_a_stream_is_copied_with_its_ids(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    for n in range(100):
        client.xadd(stream, {"n": n}, id=f"{n // 3 + 1}-{n % 3}")
    df = redis.read_stream(redis_url, stream, {"n": int}, include_sequence=True)
    ids = redis.write_stream(redis_url, df, f"{stream}:copy", id_column="_id")
    assert_series_equal(ids, df["_id"])
    assert client.xrange(f"{stream}:copy") == client.xrange(stream)


@pytest.mark.parametrize("bad", [None, "", "x", "1", "1-", "-", "0-0", "1-x", "1-1 ", "*", "$"])
def test_an_id_that_is_none(
    client: redis_py.Redis, redis_url: str, stream: str, bad: str | None
) -> None:
    df = pl.DataFrame({"id": ["1-1", "1-2", bad], "n": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"id_column: expected an entry ID in row 2, got"):
        redis.write_stream(redis_url, df, stream, id_column="id", batch_size=1)
    assert not client.exists(stream)


def test_an_id_that_is_too_small(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    df = pl.DataFrame({"id": ["1-1", "1-2", "1-1", "1-3"], "n": range(4)})
    with pytest.raises(ResponseError, match=r"equal or smaller.*row 2 was the first") as raised:
        redis.write_stream(redis_url, df, stream, id_column="id")
    assert_told(raised.value, client, stream, 4)
    assert 2 in raised.value.failed


@pytest.mark.parametrize("name", ["_id", "_ts", "_seq", "_deliveries", "_key"])
def test_names_that_readers_give(redis_url: str, stream: str, name: str) -> None:
    df = pl.DataFrame({name: ["1-1"], "n": [1]})
    with pytest.raises(ValueError, match=rf"column \"{name}\" .* drop or rename"):
        redis.write_stream(redis_url, df, stream)


def test_streams_by_column(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    df = numbered(1000).with_columns(to=pl.format(f"{stream}:{{}}", pl.col("n") % 7))
    ids = redis.write_stream(redis_url, df, stream_column="to")
    for n in range(7):
        rows = df.with_columns(ids).filter(pl.col("n") % 7 == n)
        back = redis.read_stream(redis_url, f"{stream}:{n}", {"n": int}, include_timestamp=False)
        assert back.rows() == rows.select("_id", "n").rows()


def test_a_stream_that_is_null(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    df = pl.DataFrame({"to": [stream, None], "n": [1, 2]})
    with pytest.raises(ValueError, match=r"stream_column: .* in row 1, got null"):
        redis.write_stream(redis_url, df, stream_column="to", batch_size=1)
    assert not client.exists(stream)


def test_streams_are_trimmed(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    redis.write_stream(redis_url, numbered(500), stream, maxlen=10, approximate=False)
    assert there(client, stream) == list(range(490, 500))
    redis.write_stream(redis_url, numbered(1000), stream, maxlen=10)
    length: Any = client.xlen(stream)
    assert 10 <= length < 1000


def test_streams_are_trimmed_by_id(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    df = pl.DataFrame({"id": [f"{n}-0" for n in range(1, 101)], "n": range(100)})
    redis.write_stream(redis_url, df, stream, id_column="id", minid="91", approximate=False)
    assert there(client, stream) == list(range(90, 100))


# -- wrong arguments ---------------------------------------------------------------

NOBODY = "redis://127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "stream: name a stream"),
        ({"stream": "s", "stream_column": "n"}, ValueError, "stream_column: only where no"),
        ({"stream_column": "x"}, ValueError, 'stream_column: the frame has no column "x"'),
        ({"stream": "s", "id_column": "x"}, ValueError, 'id_column: the frame has no column "x"'),
        ({"stream": "s", "id_column": 5}, TypeError, "id_column: expected str"),
        ({"stream": 5}, TypeError, "stream: expected str"),
        ({"stream": "s", "null": "x"}, ValueError, "null: expected"),
        ({"stream": "s", "maxlen": -1}, ValueError, "maxlen: expected at least 0"),
        ({"stream": "s", "maxlen": 1, "minid": "1"}, ValueError, "minid: only where no maxlen"),
        ({"stream": "s", "minid": "x"}, ValueError, "minid: "),
        ({"stream": "s", "minid": "$"}, ValueError, "minid: expected an entry ID"),
        ({"stream": "s", "approximate": 1}, TypeError, "approximate: expected bool"),
        ({"stream": "s", "batch_size": 0}, ValueError, "batch_size: expected at least 1"),
        ({"stream": "s", "batch_size": "x"}, TypeError, "batch_size: expected int"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        redis.write_stream(NOBODY, numbered(1), **arguments)


def test_no_frame_or_no_url() -> None:
    with pytest.raises(TypeError, match="df: expected a DataFrame or a LazyFrame, got dict"):
        redis.write_stream(NOBODY, {"a": 1}, "s")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="url: expected str, got int"):
        redis.write_stream(5, numbered(1), "s")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a", "stream_of_them"])
def test_dtypes_without_a_text(name: str) -> None:
    df = pl.DataFrame({"n": [1], name: pl.Series([object()], dtype=pl.Object)})
    with pytest.raises(ValueError, match=rf"column '{name}': Object has no text"):
        redis.write_stream(NOBODY, df, "s")


# -- failures ----------------------------------------------------------------------


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(RedisConnectionError) as raised:
        redis.write_stream(NOBODY, numbered(5), "s")
    assert raised.value.failed.to_list() == list(range(5))
    assert raised.value.entry_ids.null_count() == 5


def test_a_key_that_is_no_stream(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    client.set(stream, "text")
    message = rf'stream "{stream}": WRONGTYPE.*row 0 was the first to be refused; of 5 rows 0 were written'
    with pytest.raises(ResponseError, match=message) as raised:
        redis.write_stream(redis_url, numbered(5), stream)
    assert raised.value.failed.to_list() == list(range(5))


def test_one_stream_of_many_is_none(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    client.set(f"{stream}:3", "text")
    df = numbered(50_000).with_columns(to=pl.format(f"{stream}:{{}}", pl.col("n") % 5))
    with pytest.raises(ResponseError, match=rf'stream "{stream}:3": WRONGTYPE.*row 3 ') as raised:
        redis.write_stream(redis_url, df, stream_column="to")
    error: Any = raised.value
    assert {3, 8} <= set(error.failed)
    held = sorted(n for at in (0, 1, 2, 4) for n in there(client, f"{stream}:{at}"))
    assert held == error.written.to_list()
    # Not everything was sent.
    assert len(held) < 40_000
    assert error.unsure.len() == 0


def test_memory_runs_out(make_server: Callable[..., Server], stream: str) -> None:
    server = make_server(maxmemory="8mb", maxmemory_policy="noeviction")
    client = server.client()
    rows = 60_000
    with pytest.raises(ResponseError, match=r"OOM .*was the first to be refused") as raised:
        redis.write_stream(server.url, numbered(rows, "x" * 500), stream)
    client.config_set("maxmemory", 0)
    assert_told(raised.value, client, stream, rows)
    assert raised.value.written.len() > 0
    assert raised.value.unsure.len() == 0


def test_a_replica_takes_nothing(replicated: Replicated, stream: str) -> None:
    replica = replicated.replicas[0]
    with pytest.raises(ResponseError, match="READONLY") as raised:
        redis.write_stream(replica.url, numbered(5), stream)
    assert raised.value.failed.len() == 5


def test_rights_that_are_missing(make_server: Callable[..., Server]) -> None:
    users = ["writer on >secret-pw ~events* -@all +xadd", "reader on >secret-pw ~* +@read"]
    server = make_server(acl=["default on nopass ~* &* +@all", *users])
    writer = server.url_for("writer", "secret-pw")
    redis.write_stream(writer, numbered(5), "events")
    redis.write_stream(writer, numbered(5), "events")
    assert server.client().xlen("events") == 10
    for url, stream in ((writer, "others"), (server.url_for("reader", "secret-pw"), "events")):
        with pytest.raises(ResponseError, match="NOPERM") as raised:
            redis.write_stream(url, numbered(5), stream)
        assert "secret-pw" not in str(raised.value)
        assert raised.value.failed.len() == 5


def proxied(proxy: Proxy, parameters: str = "") -> str:
    return f"redis://{proxy.host}:{proxy.port}{parameters}"


@pytest.mark.parametrize("direction", ["cut_after", "cut_up_after"])
@pytest.mark.parametrize("cut", ["rst", "fin"])
def test_a_connection_cut_at_every_byte(
    client: redis_py.Redis, server: Server, stream: str, direction: str, cut: Any
) -> None:
    df = numbered(6)
    others = clients_of(client)
    with Proxy(server.host, server.port) as proxy:
        redis.write_stream(proxied(proxy), df, stream)
        length = proxy.bytes_down if direction == "cut_after" else proxy.bytes_up
    fates = set()
    for at in range(length):
        client.delete(stream)
        with Proxy(server.host, server.port) as proxy:
            fault: Any = {direction: at, "cut": cut}
            proxy.set_fault(Fault(**fault))
            try:
                redis.write_stream(proxied(proxy), df, stream)
            except PolarsRedisError as error:
                wait_until(lambda: clients_of(client) <= others)
                assert_told(error, client, stream, 6)
                fates |= {name for name in FATES if getattr(error, name).len()}
            else:
                # Before the first row, another connection may do.
                assert client.xlen(stream) == 6
    # On the way up all goes at once: no reply comes back before the cut.
    assert fates == set(FATES) - ({"written"} if direction == "cut_up_after" else set())


def clients_of(client: redis_py.Redis) -> int:
    """How many there are: when one is gone, the server has taken what came from it."""
    told: Any = client.client_list()
    return len(told)


def test_a_connection_cut_in_a_long_write(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    others = clients_of(client)
    proxy = make_proxy(server)
    proxy.set_fault(Fault(cut_after=100_000))
    with pytest.raises(RedisConnectionError, match="may have been") as raised:
        redis.write_stream(proxied(proxy), numbered(100_000), stream)
    wait_until(lambda: clients_of(client) <= others)
    assert_told(raised.value, client, stream, 100_000)
    error: Any = raised.value
    assert all(getattr(error, name).len() > 0 for name in FATES)


def test_a_server_that_is_killed(make_server: Callable[..., Server], stream: str) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    client = server.client()
    rows = 400_000

    def kill() -> None:
        wait_until(lambda: int(client.xlen(stream)) > 1000)
        server.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RedisConnectionError) as raised:
        redis.write_stream(server.url, numbered(rows), stream)
    killer.join()
    server.restart()
    assert_told(raised.value, server.client(), stream, rows)


def test_a_server_that_is_silent(make_server: Callable[..., Server], stream: str) -> None:
    server = make_server()
    redis.write_stream(server.url, numbered(5), "other")
    server.pause()
    with pytest.raises(RedisTimeoutError) as raised:
        redis.write_stream(f"{server.url}?socket_timeout=0.3", numbered(5), stream)
    server.resume()
    assert_told(raised.value, server.client(), stream, 5)


def test_a_connection_that_was_closed_meanwhile(
    make_server: Callable[..., Server], stream: str
) -> None:
    server = make_server()
    client = server.client()
    for _ in range(3):
        redis.write_stream(server.url, numbered(5), stream)
        client.client_kill_filter(_type="normal", skipme=True)
    assert client.xlen(stream) == 15


INTERRUPTED = """
import os, signal, sys, threading
import polars as pl, polars_redis as redis

threading.Thread(
    target=lambda: (sys.stdin.readline(), os.kill(os.getpid(), signal.SIGINT)), daemon=True
).start()
print("writing", flush=True)
try:
    redis.write_stream(sys.argv[1], pl.DataFrame({"n": range(100)}), "s")
except KeyboardInterrupt as error:
    print(error.written.len(), error.failed.len(), error.unsure.len(), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to oneself")
def test_ctrl_c_ends_a_write(
    make_server: Callable[..., Server], make_proxy: Callable[..., Proxy]
) -> None:
    server = make_server()
    with Proxy(server.host, server.port) as proxy:
        redis.write_stream(proxied(proxy), numbered(1), "one")
        # All that comes before the ID.
        greeting = proxy.bytes_down - len("$15\r\n1704067200000-0\r\n")
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=greeting))
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, proxied(proxy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    wait_until(lambda: server.client().xlen("s") == 100)
    told, _ = process.communicate("now\n", timeout=60)
    assert told == "0 0 100\n"


# -- lazy frames -------------------------------------------------------------------


def test_a_lazy_frame(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    lazy = numbered(50_000).lazy().filter(pl.col("n") % 2 == 0).with_columns(m=pl.col("n") * 2)
    ids = redis.write_stream(redis_url, lazy, stream, batch_size=1000)
    back = redis.read_stream(redis_url, stream, lazy.collect_schema(), include_timestamp=False)
    assert_frame_equal(back.drop("_id"), lazy.collect())
    assert_series_equal(back["_id"], ids)


def test_from_stream_to_stream(redis_url: str, stream: str) -> None:
    df = numbered(5_000)
    redis.write_stream(redis_url, df, stream)
    scan = redis.scan_stream(redis_url, stream, df.schema)
    ids = redis.write_stream(redis_url, scan, f"{stream}:copy", id_column="_id")
    assert ids.len() == 5_000
    assert_frame_equal(redis.read_stream(redis_url, f"{stream}:copy", df.schema), scan.collect())


def test_a_query_that_fails(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    lazy = pl.LazyFrame({"n": ["1", "2", "x"]}).select(pl.col("n").cast(int))
    with pytest.raises(pl.exceptions.InvalidOperationError) as raised:
        redis.write_stream(redis_url, lazy, stream)
    assert raised.value.written.len() == 0  # type: ignore[attr-defined]
    assert not client.exists(stream)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how far memory rose")
def test_memory_is_bounded(make_server: Callable[..., Server]) -> None:
    server = make_server()
    told = subprocess.run(
        [sys.executable, "-c", MEASURED, server.url], capture_output=True, text=True, check=True
    ).stdout
    peak_over_frame, ids = map(float, told.split())
    # Beside the IDs, which are what comes back.
    assert peak_over_frame - ids < 32


MEASURED = """
import re, sys
from pathlib import Path
import polars as pl, polars_redis as redis

def status(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

n = pl.int_range(1_000_000, eager=True)
df = pl.DataFrame({
    "user": pl.select(pl.format("user_{}", n)).to_series(), "action": pl.select(
        pl.format("a text of some length {}", n % 7)).to_series(), "quantity": n, "value": n / 7,
})
redis.write_stream(sys.argv[1], df.head(1000), "warm")
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
ids = redis.write_stream(sys.argv[1], df, "s")
print(status("VmHWM") - before, ids.estimated_size("mb"))
"""


# -- sentinels and clusters --------------------------------------------------------


def test_the_master_that_sentinels_name(
    make_sentinels: Callable[..., Sentinels], stream: str
) -> None:
    deployment = make_sentinels()
    redis.write_stream(deployment.url(), numbered(10), stream)
    old = deployment.failover()
    master = deployment.wait_for_new_master(old)
    # The old one may not know yet that it is none any more.
    redis.write_stream(deployment.url(), numbered(10), stream)
    assert there(master.client(), stream) == [*range(10), *range(10)]


@pytest.mark.parametrize("rows", [1, 20_000])
def test_streams_of_a_cluster(cluster: Cluster, stream: str, rows: int) -> None:
    df = numbered(rows).with_columns(to=pl.format(f"{stream}:{{}}", pl.col("n") % 30))
    ids = redis.write_stream(cluster.url, df, stream_column="to", batch_size=3_000)
    client = cluster.client()
    for n in range(30):
        of_one = df.with_columns(ids).filter(pl.col("n") % 30 == n)
        entries: Any = client.xrange(f"{stream}:{n}")
        found = [(entry_id.decode(), int(fields[b"n"])) for entry_id, fields in entries]
        assert found == of_one.select("_id", "n").rows()


def test_one_stream_by_any_node(cluster: Cluster, stream: str) -> None:
    for node in cluster.masters:
        redis.write_stream(node.url, numbered(100), stream)
    assert there(cluster.client(), stream) == list(range(100)) * 3


def test_one_shard_refuses(cluster: Cluster, stream: str) -> None:
    client: Any = cluster.client()
    client.set(f"{stream}:7", "text")
    df = numbered(20_000).with_columns(to=pl.format(f"{stream}:{{}}", pl.col("n") % 30))
    with pytest.raises(ResponseError, match=rf'stream "{stream}:7": WRONGTYPE.*row 7 ') as raised:
        redis.write_stream(cluster.url, df, stream_column="to")
    error: Any = raised.value
    held = sorted(n for at in range(30) if at != 7 for n in there(client, f"{stream}:{at}"))
    assert held == error.written.to_list()
    assert error.unsure.len() == 0
    assert error.failed.len() == 20_000 - len(held)


@pytest.mark.parametrize("by_column", [False, True])
def test_a_slot_that_moves_meanwhile(
    make_cluster: Callable[..., Cluster], stream: str, by_column: bool
) -> None:
    cluster = make_cluster()
    first, second = cluster.masters[:2]
    key = cluster.key_of(first, stream)
    client: Any = cluster.client()
    rows = 300_000
    df = numbered(rows)
    if by_column:
        others = pl.format("other:{}", pl.col("n") % 10)
        df = df.with_columns(to=pl.when(pl.col("n") % 2 == 0).then(pl.lit(key)).otherwise(others))

    def move() -> None:
        wait_until(lambda: first.client().xlen(key) > 500)
        cluster.migrate(key, second).run()

    mover = threading.Thread(target=move)
    mover.start()
    options: dict[str, Any] = {"stream_column": "to"} if by_column else {"stream": key}
    ids = redis.write_stream(cluster.url, df, **options)
    mover.join()
    assert cluster.node_of(key) is second
    mine = range(0, rows, 2) if by_column else range(rows)
    assert there(client, key) == list(mine)
    assert ids.null_count() == 0
    entries: Any = client.xrange(key)
    assert ids.gather(mine).to_list() == [entry_id.decode() for entry_id, _ in entries]


def test_a_slot_that_is_on_its_way_all_the_time(
    make_cluster: Callable[..., Cluster], stream: str
) -> None:
    cluster = make_cluster()
    first, second = cluster.masters[:2]
    key = cluster.key_of(first, stream)
    cluster.migrate(key, second).begin()
    # It is not there yet, so the old server sends whoever asks to the new one.
    redis.write_stream(cluster.url, numbered(5_000), key, batch_size=500)
    redis.write_stream(cluster.url, numbered(10).with_columns(to=pl.lit(key)), stream_column="to")
    cluster.migrate(key, second).finish()
    assert there(cluster.client(), key) == [*range(5_000), *range(10)]


def test_a_shard_that_is_gone(make_cluster: Callable[..., Cluster], stream: str) -> None:
    cluster = make_cluster()
    lost = cluster.masters[1]
    keys = [cluster.key_of(node, stream) for node in cluster.masters]
    df = numbered(300).with_columns(to=pl.Series([keys[n % 3] for n in range(300)]))
    redis.write_stream(cluster.url, df, stream_column="to")
    lost.kill()
    with pytest.raises(RedisConnectionError) as raised:
        redis.write_stream(cluster.url, df, stream_column="to")
    error: Any = raised.value
    assert set(range(1, 300, 3)) <= set(error.failed)
    assert error.unsure.len() == 0


def test_a_bar_shows_how_far_it_is(
    redis_url: str, stream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    redis.write_stream(redis_url, numbered(25_000), stream)
    assert capsys.readouterr().err == ""
    redis.write_stream(redis_url, numbered(25_000), stream, progress=True)
    shown = capsys.readouterr().err
    assert "writing" in shown
    assert "25.0k/25.0k" in shown
    redis.write_stream(redis_url, numbered(25_000).lazy(), stream, progress=True)
    assert "25.0k rows" in capsys.readouterr().err
    with pytest.raises(TypeError, match="progress: expected bool"):
        redis.write_stream(redis_url, numbered(1), stream, progress=1)  # type: ignore[arg-type]


def test_a_line_of_tls(make_server: Callable[..., Server], files: Files, stream: str) -> None:
    binary = tls_binary()
    if binary is None:
        pytest.skip("no redis-server here speaks TLS")
    with Replicated(binary, replicas=0, files=files) as deployment:
        df = numbered(100_000, "a text of more than twelve bytes")
        ids = redis.write_stream(deployment.url(), df, stream)
        back = redis.read_stream(deployment.url(), stream, df.schema, include_timestamp=False)
    assert_series_equal(back["_id"], ids)
    assert_frame_equal(back.drop("_id"), df)


def test_what_was_sent_is_waited_for_where_the_rest_cannot_be_written(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    ids = [f"1-{n}" for n in range(1, 20_001)]
    rows = pl.LazyFrame({"_id": [*ids, "no ID"], "n": 1})
    with pytest.raises(ValueError, match="in row 20000") as raised:
        redis.write_stream(redis_url, rows, stream, id_column="_id", batch_size=1000)
    error: Any = raised.value
    assert (error.unsure.len(), error.failed.len()) == (0, 0)
    assert client.xlen(stream) == error.written.len() > 0
