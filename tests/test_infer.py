"""Guessing schemas: what is guessed, and that a guess can be read with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polars_redis as redis
from polars_redis.exceptions import RedisConnectionError, ResponseError
from support.streams import add

if TYPE_CHECKING:
    import redis as redis_py

US, NS, UTC = pl.Datetime("us"), pl.Datetime("ns"), pl.Datetime("us", "UTC")
GUESSES: list[tuple[list[Any], Any]] = [
    (["1", "-2", str(2**63 - 1), str(-(2**63))], pl.Int64),
    (["1", "2.5"], pl.Float64),
    (["1e3", "-.5", "2."], pl.Float64),
    (["1", "nan", "-inf"], pl.Float64),
    (["1.5", str(2**63)], pl.Float64),
    (["nan", "inf"], pl.String),
    ([str(2**63)], pl.String),
    (["+1"], pl.String),
    (["0049"], pl.String),
    (["1", ""], pl.String),
    (["1e999"], pl.String),
    (["true", "FALSE"], pl.Boolean),
    (["true", "1"], pl.String),
    (["1", "0"], pl.Int64),
    (["2024-01-01", "1999-12-31"], pl.Date),
    (["2024-01-01", "2024-02-30"], pl.String),
    (["2024-01-01T12:00", "2024-01-01 12:00:00.123456"], US),
    (["2024-01-01T12:00", "2024-01-01"], US),
    (["2024-01-01T12:00:00.123456789"], NS),
    (["2024-01-01T12:00:00.123456789", "2300-01-01T00:00"], US),
    (["2024-01-01T12:00Z", "2024-01-01T12:00+05:30"], UTC),
    (["2024-01-01T12:00:00.1234567Z"], pl.Datetime("ns", "UTC")),
    (["2024-01-01T12:00Z", "2024-01-01T12:00"], pl.String),
    (["12:00", "13:00"], pl.String),
    (["[1, 2]", "[]", "null"], pl.List(pl.Int64)),
    (["[1, 2.5, null]"], pl.List(pl.Float64)),
    (['["a"]', "[true]"], pl.String),
    (["[[1]]", "[null]"], pl.List(pl.List(pl.Int64))),
    (["[]", "null", "[[null]]"], pl.String),
    (["null"], pl.String),
    (['{"b": 1}', '{"a": true, "b": 2.5}'], pl.Struct({"b": pl.Float64, "a": pl.Boolean})),
    (['{"a": null, "b": 1}'], pl.Struct({"a": pl.String, "b": pl.Int64})),
    (['{"a": [], "b": 1}'], pl.Struct({"a": pl.List(pl.String), "b": pl.Int64})),
    (['{"a": {"b": [{"c": "x"}]}}'],
     pl.Struct({"a": pl.Struct({"b": pl.List(pl.Struct({"c": pl.String}))})})),
    (['{"a": 1}', '{"a": "x"}'], pl.String),
    (['{"a": {}}', "{}"], pl.String),
    (["[1]", '{"a": 1}'], pl.String),
    (["[1"], pl.String),
    (["[" * 1000 + "]" * 1000], pl.String),
    ([b"1", b"\xff"], pl.Binary),
    (["é", "x"], pl.String),
    ([""], pl.String),
]  # fmt: skip


def full(dtype: Any) -> Any:
    """The dtype itself, where its class was given."""
    return dtype() if isinstance(dtype, type) else dtype


def fill(client: redis_py.Redis, stream: str, columns: dict[Any, list[Any]]) -> None:
    """One entry a row; None leaves a field out."""
    client.delete(stream)
    rows = max((len(texts) for texts in columns.values()), default=0)
    for n in range(rows):
        given = {name: texts[n] for name, texts in columns.items() if n < len(texts)}
        fields = {name: text for name, text in given.items() if text is not None}
        add(client, stream, [(f"{n + 1}-0", fields or {"-": ""})])


@pytest.mark.parametrize(("texts", "dtype"), GUESSES, ids=lambda value: str(value)[:60])
def test_guesses(
    client: redis_py.Redis, redis_url: str, stream: str, texts: list[Any], dtype: Any
) -> None:
    # What is lacking does not matter; nor does what comes first, but for the order of keys.
    for column in (texts, [None, *reversed(texts), None]):
        fill(client, stream, {"v": column})
        schema = redis.infer_stream_schema(redis_url, stream)
        assert sorted(str(schema["v"])) == sorted(str(full(dtype)))
        assert schema["v"] == dtype or column is not texts
        df = redis.read_stream(redis_url, stream, schema)
        assert df.height == len(column)


def test_a_whole_schema_is_in_order_prints_and_pastes(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    fill(client, stream, {
        "zeta": ["1", "2"], "alpha": ["2024-01-01T00:00Z"], "_id": ["mine"],
        "l": ["[1]"], "s": ['{"x y": [1.5]}'], "late": [None, "true"], "d": ["2024-01-01"],
    })  # fmt: skip
    schema = redis.infer_stream_schema(redis_url, stream)
    assert isinstance(schema, pl.Schema)
    assert list(schema) == ["zeta", "alpha", "_id", "l", "s", "d", "late"]
    assert eval(repr(schema), vars(pl)) == schema
    assert eval(repr(dict(schema)), vars(pl)) == schema
    # Columns of the ID are the reader's to name.
    with pytest.raises(ValueError, match="_id"):
        redis.read_stream(redis_url, stream, schema)
    df = redis.read_stream(redis_url, stream, schema, id_column="id")
    assert df.columns == ["id", "_ts", *schema]


@pytest.mark.parametrize(("length", "expected"), [(1, "Int64"), (2, "Float64"), (None, "String")])
def test_as_many_entries_as_were_asked_for_are_looked_at(
    client: redis_py.Redis, redis_url: str, stream: str, length: int | None, expected: str
) -> None:
    fill(client, stream, {"v": ["1", "2.5", *["3"] * 2500, "x"]})
    schema = redis.infer_stream_schema(redis_url, stream, length)
    assert schema == {"v": getattr(pl, expected)}
    assert redis.infer_stream_schema(redis_url, stream, infer_schema_length=length) == schema


def test_a_hundred_entries_by_default(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    fill(client, stream, {"v": [*["1"] * 100, "x"]})
    assert redis.infer_stream_schema(redis_url, stream) == {"v": pl.Int64}
    assert redis.infer_stream_schema(redis_url, stream, 101) == {"v": pl.String}


def test_a_stream_that_is_missing_or_empty(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    assert redis.infer_stream_schema(redis_url, stream) == pl.Schema()
    assert redis.infer_stream_schema(redis_url, stream, None) == pl.Schema()
    fill(client, stream, {"v": ["1"]})
    client.xtrim(stream, maxlen=0)
    assert redis.infer_stream_schema(redis_url, stream) == pl.Schema()


def test_names_that_no_schema_can_hold_are_left_out(
    client: redis_py.Redis, redis_url: str, stream: str
) -> None:
    fill(client, stream, {b"\xff": ["1"], "a": ["1"], "": ["2"], "n\0l": ["1.5"]})
    schema = redis.infer_stream_schema(redis_url, stream)
    assert schema == {"a": pl.Int64, "": pl.Int64, "n\0l": pl.Float64}
    df = redis.read_stream(redis_url, stream, schema, include_id=False, include_timestamp=False)
    assert df.rows() == [(1, 2, 1.5)]


@pytest.mark.parametrize("length", [0, -1, -(2**70)])
def test_a_wrong_length_is_refused_before_anything_is_sent(length: int) -> None:
    with pytest.raises(ValueError, match="infer_schema_length"):
        redis.infer_stream_schema("redis://127.0.0.1:1", "s", length)


@pytest.mark.parametrize("length", [1.5, "100", True])
def test_a_wrong_type_is_refused_before_anything_is_sent(length: Any) -> None:
    with pytest.raises(TypeError, match="infer_schema_length"):
        redis.infer_stream_schema("redis://127.0.0.1:1", "s", length)


def test_errors(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    client.set(stream, "no stream")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        redis.infer_stream_schema(redis_url, stream)
    with pytest.raises(RedisConnectionError):
        redis.infer_stream_schema("redis://127.0.0.1:1", stream)


# -- whatever is there, a guess can be read with --------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
texts = st.one_of(
    st.integers(-(2**65), 2**65).map(str),
    st.floats().map(repr),
    st.decimals().map(str),
    st.booleans().map(str),
    st.dates().map(str),
    st.datetimes().map(lambda at: at.isoformat()),
    st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()),
    st.times().map(str),
    documents.map(json.dumps),
    st.text('0123456789-+.:TZ eEinfa[]{}",null', max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.binary(max_size=8),
)
kinds = st.one_of(
    st.lists(st.none() | texts, max_size=8),
    # All of one kind, so that there is something to guess.
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1).map(str), max_size=8),
    st.lists(st.none() | st.floats().map(repr), max_size=8),
    st.lists(st.none() | st.datetimes().map(lambda at: at.isoformat()), max_size=8),
    st.lists(st.none() | st.lists(st.integers(-9, 9), max_size=3).map(json.dumps), max_size=8),
    st.lists(st.none() | st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(-9, 9),
                                         max_size=3).map(json.dumps), max_size=8),
    st.lists(documents.map(json.dumps), min_size=1, max_size=3),
)  # fmt: skip


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(columns=st.lists(kinds, min_size=1, max_size=4))
def test_reading_the_sample_with_the_guess_never_fails(
    client: redis_py.Redis, redis_url: str, stream: str, columns: list[list[Any]]
) -> None:
    fill(client, stream, {f"f{n}": column for n, column in enumerate(columns)})
    schema = redis.infer_stream_schema(redis_url, stream)
    df = redis.read_stream(redis_url, stream, schema, include_id=False, include_timestamp=False)
    assert dict(df.schema) == dict(schema)
    assert df.height == max(map(len, columns))
    # Nothing is lost: what was text is there, but for nulls of JSON.
    for n, column in enumerate(columns):
        wrote = sum(text is not None and text.strip() not in ("null", b"null") for text in column)
        if f"f{n}" in schema:
            assert df.height - df[f"f{n}"].null_count() >= wrote
