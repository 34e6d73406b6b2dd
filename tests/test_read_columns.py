"""Which columns `read_stream` gives: their order, names and dtypes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import DecodeError
from support.streams import add

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py


@pytest.fixture
def nobody() -> Iterator[Callable[[], str]]:
    """A URL where somebody listens and counts: nobody may connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield lambda: f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_ids_come_first_then_the_fields_of_the_schema(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add(client, stream, [("5-7", {"b": "2", "a": "1", "c": "3"})])
    df = redis.read_stream(redis_url, stream, {"a": pl.Int64, "b": pl.Int8}, include_sequence=True)
    assert dict(df.schema) == {
        "_id": pl.String,
        "_ts": pl.Int64,
        "_seq": pl.Int64,
        "a": pl.Int64,
        "b": pl.Int8,
    }
    assert df.rows() == [("5-7", 5, 7, 1, 2)]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["_id", "_ts", "a"]),
        ({"include_id": False}, ["_ts", "a"]),
        ({"include_id": False, "include_timestamp": False}, ["a"]),
        ({"include_timestamp": False, "include_sequence": True}, ["_id", "_seq", "a"]),
        ({"id_column": "i", "timestamp_column": "t"}, ["i", "t", "a"]),
        ({"include_sequence": True, "sequence_column": "s"}, ["_id", "_ts", "s", "a"]),
    ],
)
@pytest.mark.parametrize("schema", [{"a": pl.String}, None])
def test_id_columns_are_those_asked_for(
    client: redis_py.Redis,
    redis_url: str,
    stream: str,
    options: dict[str, Any],
    names: list[str],
    schema: dict[str, Any] | None,
) -> None:
    add(client, stream, [("1-0", {"a": "x"})])
    df = redis.read_stream(redis_url, stream, schema, **options)
    assert (df.columns, df.height) == (names, 1)


def test_missing_fields_are_null_extra_ones_passed_over_and_the_last_of_a_name_counts(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    entries = [
        ("1-0", {"a": "1"}),
        ("2-0", {"other": "x"}),
        ("3-0", ["a", "2", "a", "3"]),
        ("4-0", {"b": "4", "a": "5"}),
    ]
    add(client, stream, entries)
    df = redis.read_stream(redis_url, stream, {"a": pl.Int64, "b": pl.Int64, "none": pl.Float32})
    assert df["a"].to_list() == [1, None, 3, 5]
    assert df["b"].to_list() == [None, None, None, 4]
    assert df["none"].to_list() == [None] * 4


def test_fields_are_discovered_in_order_of_first_appearance(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    entries = [("1-0", {"b": "1"}), ("2-0", {"c": "2", "a": "3"}), ("3-0", {"a": "4", "b": "5"})]
    add(client, stream, entries)
    df = redis.read_stream(redis_url, stream)
    assert df.columns == ["_id", "_ts", "b", "c", "a"]
    assert df["a"].to_list() == [None, "3", "4"]
    assert set(df.dtypes[2:]) == {pl.String}


@pytest.mark.parametrize("schema", [None, {"a\0b": pl.Int64, "c": pl.Int64}])
def test_a_field_name_may_hold_a_zero_byte(
    client: redis_py.Redis, redis_url: str, stream: str, schema: dict[str, Any] | None
) -> None:
    # Such a name cannot go through Arrow's C interface.
    add(client, stream, [("1-0", {"a\0b": "1", "c": "2"})])
    df = redis.read_stream(redis_url, stream, schema, include_timestamp=False)
    assert df.columns == ["_id", "a\0b", "c"]
    assert [int(value) for value in df.row(0)[1:]] == [1, 2]
    assert df.clear().columns == df.columns
    [batch] = redis.iter_stream(redis_url, stream, schema, block_ms=None, include_timestamp=False)
    assert batch.equals(df)


def test_a_field_may_first_appear_very_late(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    late = 70_000

    def entries() -> Iterator[tuple[str, dict[str, Any]]]:
        for n in range(150_000):
            yield f"{n + 1}-0", {"n": n, "late": "x"} if n in (late, 140_000) else {"n": n}

    add(client, stream, entries())
    df = redis.read_stream(redis_url, stream)
    assert df.columns == ["_id", "_ts", "n", "late"]
    assert df["late"].is_not_null().arg_true().to_list() == [late, 140_000]
    assert df["n"].to_list() == [str(n) for n in range(150_000)]


def test_count_leaves_no_trace_of_later_fields(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add(client, stream, ((f"{n + 1}-0", {"a" if n < 2500 else "b": n}) for n in range(5000)))
    df = redis.read_stream(redis_url, stream, count=2500)
    assert (df.columns, df.height) == (["_id", "_ts", "a"], 2500)


@pytest.mark.parametrize(
    "schema",
    [
        {"s": str, "i": int, "f": float, "b": bool, "y": bytes},
        pl.Schema(
            {"s": pl.String, "i": pl.Int64, "f": pl.Float64, "b": pl.Boolean, "y": pl.Binary}
        ),
        [("s", pl.Utf8), ("i", pl.Int64()), ("f", pl.Float64), ("b", pl.Boolean), ("y", pl.Binary)],
    ],
)
def test_a_schema_may_be_said_in_several_ways(
    client: redis_py.Redis, redis_url: str, stream: str, schema: Any
) -> None:
    add(client, stream, [("1-0", {"s": "x", "i": "1", "f": "0.5", "b": "true", "y": b"\xff"})])
    df = redis.read_stream(redis_url, stream, schema, include_id=False, include_timestamp=False)
    assert df.rows() == [("x", 1, 0.5, True, b"\xff")]


def test_an_empty_schema_gives_the_id_columns_alone(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add(client, stream, [("1-0", {"a": "1"}), ("2-0", {"a": "1"})])
    assert redis.read_stream(redis_url, stream, {}).rows() == [("1-0", 1), ("2-0", 2)]


@pytest.mark.parametrize(
    "options", [{}, {"count": 0}, {"start_id": "9"}, {"end_id": "0-1"}, {"start_id": "$"}]
)
@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_frame_has_its_full_schema(
    client: redis_py.Redis, redis_url: str, stream: str, options: dict[str, Any], exists: bool
) -> None:
    if exists:
        add(client, stream, [("5-0", {"a": "1"})])
    if exists and not options:
        client.xtrim(stream, maxlen=0)
    schema = {"a": pl.Int32, "b": pl.Binary, "c": pl.Boolean, "d": pl.String}
    df = redis.read_stream(redis_url, stream, schema, include_sequence=True, **options)
    ids = {"_id": pl.String, "_ts": pl.Int64, "_seq": pl.Int64}
    assert (df.height, dict(df.schema)) == (0, {**ids, **schema})
    assert redis.read_stream(redis_url, stream, **options).columns == ["_id", "_ts"]


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        ({"_id": pl.String}, {}),
        ({"_ts": pl.Int64}, {}),
        ({"_seq": pl.Int64}, {"include_sequence": True}),
        ({"mine": pl.Int64}, {"id_column": "mine"}),
    ],
)
def test_a_schema_with_the_name_of_an_id_column_is_refused_before_anything_is_sent(
    nobody: Callable[[], str], schema: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"rename the column .* or leave it out"):
        redis.read_stream(nobody(), "s", schema, **options)


def test_the_name_of_an_id_column_that_is_left_out_is_free(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add(client, stream, [("1-0", {"_id": "mine", "_seq": "5"})])
    df = redis.read_stream(
        redis_url, stream, {"_id": pl.String, "_seq": pl.Int64}, include_id=False
    )
    assert df.rows() == [(1, "mine", 5)]


def test_a_discovered_field_with_the_name_of_an_id_column_is_an_error(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    add(client, stream, [("1-0", {"a": "1"}), ("2-0", {"_ts": "1"})])
    with pytest.raises(DecodeError, match=r"2-0.*_ts.*rename the column .* or leave it out"):
        redis.read_stream(redis_url, stream)
    assert redis.read_stream(redis_url, stream, timestamp_column="t").columns[-1] == "_ts"


@pytest.mark.parametrize(
    "arguments",
    [
        {"id_column": "_ts"},
        {"schema": [("a", pl.Int64), ("a", pl.String)]},
        {"schema": {"a": pl.Object}},
        {"schema": {"a": pl.List}},
        {"schema": {"a": pl.List(pl.Object)}},
        {"schema": {"a": pl.Null}},
        {"group": "g"},
        {"consumer": "c"},
        {"auto_ack": True},
        {"include_delivery_count": True},
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    nobody: Callable[[], str], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments)).split("_")[0]):
        redis.read_stream(nobody(), "s", **arguments)


@pytest.mark.parametrize(
    "arguments", [{"schema": {"a": "no dtype"}}, {"schema": {5: pl.Int64}}, {"id_column": 5}]
)
def test_wrong_types_are_refused_before_anything_is_sent(
    nobody: Callable[[], str], arguments: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=next(iter(arguments))):
        redis.read_stream(nobody(), "s", **arguments)
