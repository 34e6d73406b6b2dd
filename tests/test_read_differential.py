"""Random streams, read here and by redis-py with plain Python: equal in every column."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polars_redis as redis
from support.streams import id_key

if TYPE_CHECKING:
    import redis as redis_py

MAX = 2**64 - 1
DTYPES = (pl.String, pl.Binary, pl.Boolean, pl.Int8, pl.Int64, pl.UInt16, pl.UInt64, pl.Float64)
NAMES = st.sampled_from(["a", "b", "long field name of many bytes, é", "", "n"])
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str), st.floats(allow_nan=False).map(repr), st.just("true")
)
VALUES = st.one_of(NUMBERS.map(str.encode), st.text().map(str.encode), st.binary(max_size=40))
PARTS = st.one_of(st.integers(0, 30), st.integers(0, 2**62))
RANGE_IDS = st.tuples(PARTS, PARTS)
FIELDS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=6)
ENTRIES = st.dictionaries(RANGE_IDS.filter(lambda i: i > (0, 0)), FIELDS, max_size=40)


def parse(dtype: Any, raw: bytes) -> Any:
    """What a text is as a dtype, or None: written anew, in plain Python."""
    if dtype == pl.Binary:
        return raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    if dtype == pl.String:
        return text
    if dtype == pl.Boolean:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if not text.isascii() or text != text.strip() or "_" in text:
        return None
    try:
        if dtype == pl.Float64:
            return float(text)
        value = int(text)
    except ValueError:
        return None
    low, high = _limits(dtype)
    return value if low <= value <= high else None


def _limits(dtype: Any) -> tuple[int, int]:
    bits = int("".join(filter(str.isdigit, str(dtype))))
    return (
        (0, 2**bits - 1)
        if str(dtype).startswith("U")
        else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )


def same(ours: Any, theirs: Any) -> bool:
    """Equality, with nan equal to itself."""
    if isinstance(ours, float) and isinstance(theirs, float) and math.isnan(ours):
        return math.isnan(theirs)
    return bool(ours == theirs)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    entries=ENTRIES,
    schema=st.one_of(st.none(), st.dictionaries(NAMES, st.sampled_from(DTYPES))),
    bounds=st.tuples(st.one_of(st.none(), RANGE_IDS), st.one_of(st.none(), RANGE_IDS)),
    count=st.one_of(st.none(), st.integers(1, 50)),
)
def test_equal_to_plain_python(
    client: redis_py.Redis,
    redis_url: str,
    entries: dict[tuple[int, int], list[tuple[str, bytes]]],
    schema: dict[str, Any] | None,
    bounds: tuple[tuple[int, int] | None, tuple[int, int] | None],
    count: int | None,
) -> None:
    stream = uuid.uuid4().hex
    for (ms, seq), fields in sorted(entries.items()):
        words = [word for pair in fields for word in pair]
        client.execute_command("XADD", stream, f"{ms}-{seq}", *words)
    start, end = (
        f"{b[0]}-{b[1]}" if b else default for b, default in zip(bounds, "-+", strict=True)
    )
    df = redis.read_stream(redis_url, stream, schema, start, end, count, strict=False)

    raw = client.execute_command("XRANGE", stream, start, end, *(["COUNT", count] if count else []))
    found = [(e.decode(), _pairs(f)) for e, f in raw]
    assert df["_id"].to_list() == [entry_id for entry_id, _ in found]
    assert df["_ts"].to_list() == [id_key(entry_id)[0] for entry_id, _ in found]
    if schema is None:
        names = dict.fromkeys(name.decode() for _, fields in found for name, _ in fields)
        schema = dict.fromkeys(names, pl.String)
    assert dict(df.schema) == {"_id": pl.String, "_ts": pl.Int64, **schema}
    for name, dtype in schema.items():
        expected = []
        for _, fields in found:
            texts = [value for field, value in fields if field.decode() == name]
            expected.append(parse(dtype, texts[-1]) if texts else None)
        ours = df[name].to_list()
        assert all(map(same, ours, expected)), (name, dtype, ours, expected)
    client.delete(stream)


def _pairs(fields: Any) -> list[tuple[bytes, bytes]]:
    """The fields of an entry in a raw reply: a flat list, or a dict where redis-py made one."""
    if isinstance(fields, dict):
        return list(fields.items())
    return list(zip(fields[::2], fields[1::2], strict=True))
