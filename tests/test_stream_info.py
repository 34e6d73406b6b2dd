"""What `stream_info` tells, beside what the server tells redis-py."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import ResponseError
from support.streams import add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.proxy import Proxy
    from support.servers import Server

CONSUMER = pl.Struct(
    {"name": pl.String, "pending": pl.Int64, "idle_ms": pl.Int64, "inactive_ms": pl.Int64}
)
SCHEMA = {
    "_key": pl.String,
    "length": pl.Int64,
    "entries_added": pl.Int64,
    "first_id": pl.String,
    "last_id": pl.String,
    "last_generated_id": pl.String,
    "max_deleted_id": pl.String,
    "group": pl.String,
    "consumers": pl.Int64,
    "pending": pl.Int64,
    "lag": pl.Int64,
    "last_delivered_id": pl.String,
    "entries_read": pl.Int64,
    "idle_ms": pl.Int64,
    "consumer_details": pl.List(CONSUMER),
}
#: What goes on between two questions.
CLOCKS = ["idle_ms", "inactive_ms"]


def text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def told(client: redis_py.Redis, stream: str) -> list[dict[str, Any]]:
    """The rows that redis-py's answers make."""
    about: Any = client.xinfo_stream(stream)
    of_stream = {
        "_key": stream,
        "length": about["length"],
        "entries_added": about.get("entries-added"),
        "first_id": text((about["first-entry"] or [None])[0]),
        "last_id": text((about["last-entry"] or [None])[0]),
        "last_generated_id": text(about["last-generated-id"]),
        "max_deleted_id": text(about.get("max-deleted-entry-id", b"0-0")).replace("0-0", "")
        or None,
    }
    groups: Any = client.xinfo_groups(stream)
    return [{**of_stream, **of_group(client, stream, group)} for group in groups or [None]]


def of_group(client: redis_py.Redis, stream: str, group: dict[str, Any] | None) -> dict[str, Any]:
    if group is None:
        return dict.fromkeys(list(SCHEMA)[7:])
    details: Any = client.xinfo_consumers(stream, group["name"])
    return {
        "group": text(group["name"]),
        "consumers": group["consumers"],
        "pending": group["pending"],
        "lag": group.get("lag"),
        "last_delivered_id": text(group["last-delivered-id"]),
        "entries_read": group.get("entries-read"),
        "consumer_details": [
            {"name": text(consumer["name"]), "pending": consumer["pending"]} for consumer in details
        ],
    }


def without_clocks(df: pl.DataFrame) -> list[dict[str, Any]]:
    rows = df.drop("idle_ms").to_dicts()
    for row in rows:
        for consumer in row["consumer_details"] or []:
            for clock in CLOCKS:
                del consumer[clock]
    return rows


def assert_as_told(df: pl.DataFrame, client: redis_py.Redis, stream: str) -> None:
    assert df.schema == SCHEMA
    expected = [{k: v for k, v in row.items() if k != "idle_ms"} for row in told(client, stream)]
    assert without_clocks(df) == expected


@pytest.fixture
def url(any_server: Server) -> str:
    return any_server.url


def test_a_missing_stream_has_no_rows_and_all_columns(
    url: str, any_client: redis_py.Redis, stream: str
) -> None:
    df = redis.stream_info(url, stream)
    assert df.is_empty()
    assert df.schema == SCHEMA


def test_a_stream_without_groups_is_one_row(
    url: str, any_client: redis_py.Redis, stream: str
) -> None:
    add_numbered(any_client, stream, ["1-0", "2-5", "3-0"])
    df = redis.stream_info(url, stream)
    assert_as_told(df, any_client, stream)
    assert df.select("length", "first_id", "last_id", "group").rows() == [(3, "1-0", "3-0", None)]
    assert df.row(0)[7:] == (None,) * 8


def test_each_group_is_a_row_in_the_order_of_names(
    url: str, any_client: redis_py.Redis, stream: str
) -> None:
    add_numbered(any_client, stream, [f"{n}-0" for n in range(1, 11)])
    for name in ("slow", "fast", "idle"):
        any_client.xgroup_create(stream, name, "0")
    any_client.xreadgroup("fast", "a", {stream: ">"}, count=6)
    any_client.xreadgroup("fast", "b", {stream: ">"}, count=4)
    any_client.xack(stream, "fast", "1-0", "7-0")
    any_client.xreadgroup("slow", "a", {stream: ">"}, count=2)
    df = redis.stream_info(url, stream)
    assert_as_told(df, any_client, stream)
    assert df["group"].to_list() == ["fast", "idle", "slow"]
    assert df["pending"].to_list() == [8, 0, 2]
    assert df["consumers"].to_list() == [2, 0, 1]
    details = df["consumer_details"][0].to_list()
    assert [(each["name"], each["pending"]) for each in details] == [("a", 5), ("b", 3)]
    assert df["consumer_details"][1].to_list() == []


def test_lag_is_what_was_not_delivered_where_the_server_tells(
    any_server: Server, any_client: redis_py.Redis, stream: str
) -> None:
    any_client.xgroup_create(stream, "g", "0", mkstream=True)
    add_numbered(any_client, stream, [f"{n}-0" for n in range(1, 11)])
    any_client.xreadgroup("g", "a", {stream: ">"}, count=4)
    df = redis.stream_info(any_server.url, stream)
    assert_as_told(df, any_client, stream)
    knows = any_server.binary.version >= (7, 0, 0)
    assert df.select("lag", "entries_read", "entries_added").row(0) == (
        (6, 4, 10) if knows else (None, None, None)
    )
    # An entry that is missing in the midst: nobody counts any more.
    any_client.xdel(stream, "8-0")
    df = redis.stream_info(any_server.url, stream)
    assert_as_told(df, any_client, stream)
    assert df["lag"].to_list() == [None]
    assert df["max_deleted_id"].to_list() == ["8-0" if knows else None]


def test_a_stream_whose_entries_are_gone_has_no_first_and_no_last(
    url: str, any_client: redis_py.Redis, stream: str
) -> None:
    add_numbered(any_client, stream, ["1-0", "2-0"])
    any_client.xtrim(stream, maxlen=0)
    df = redis.stream_info(url, stream)
    assert_as_told(df, any_client, stream)
    assert df.select("length", "first_id", "last_id", "last_generated_id").row(0) == (
        (0, None, None, "2-0")
    )


def test_a_group_is_as_idle_as_the_consumer_who_asked_last(
    any_server: Server, any_client: redis_py.Redis, stream: str
) -> None:
    add_numbered(any_client, stream, ["1-0"])
    any_client.xgroup_create(stream, "g", "0")
    any_client.xreadgroup("g", "early", {stream: ">"})
    idle: Any = any_client.xinfo_consumers(stream, "g")
    while idle[0]["idle"] < 30:
        idle = any_client.xinfo_consumers(stream, "g")
    any_client.xgroup_createconsumer(stream, "g", "late")
    df = redis.stream_info(any_server.url, stream)
    details = {each["name"]: each for each in df["consumer_details"][0].to_list()}
    assert details["early"]["idle_ms"] >= details["late"]["idle_ms"] + 30
    assert df["idle_ms"].to_list() == [details["late"]["idle_ms"]]
    if any_server.binary.version >= (7, 2, 0):
        assert details["early"]["inactive_ms"] >= 30
        assert details["late"]["inactive_ms"] == -1
    else:
        assert details["early"]["inactive_ms"] is None


def test_names_that_are_no_text_are_shown_as_far_as_they_are(
    url: str, any_client: redis_py.Redis, stream: str
) -> None:
    add_numbered(any_client, stream, ["1-0"])
    any_client.xgroup_create(stream, b"g\xff", "0")
    any_client.xreadgroup(b"g\xff", b"\xfec", {stream: ">"})  # type: ignore[arg-type]
    df = redis.stream_info(url, stream)
    assert_as_told(df, any_client, stream)
    assert df["group"].to_list() == ["g\ufffd"]
    assert df["consumer_details"][0][0]["name"] == "\ufffdc"


def test_a_key_that_is_no_stream_is_an_error_that_names_it(
    url: str, any_client: redis_py.Redis, stream: str
) -> None:
    any_client.set(stream, "text")
    with pytest.raises(ResponseError, match=f'stream "{stream}": WRONGTYPE'):
        redis.stream_info(url, stream)


def test_a_right_that_is_missing_is_named(
    make_server: Callable[..., Server], any_server: Server
) -> None:
    acl = [
        "nobody on >secret ~* +xrange",
        "somebody on >secret ~* +xinfo",
    ]
    server = make_server(any_server.binary, acl=acl)
    add_numbered(server.client(), "events", ["1-0"])
    address = f"{server.host}:{server.port}"
    with pytest.raises(ResponseError, match=r'stream "events": NOPERM .*xinfo') as raised:
        redis.stream_info(f"redis://nobody:secret@{address}", "events")
    assert "secret" not in str(raised.value)
    df = redis.stream_info(f"redis://somebody:secret@{address}", "events")
    assert df["length"].to_list() == [1]


def test_the_connection_is_kept(make_server: Callable[..., Server], stream: str) -> None:
    server = make_server()
    client = server.client()
    for n in range(20):
        client.xgroup_create(stream, f"g{n}", "0", mkstream=True)

    def connections() -> int:
        stats: Any = client.info("stats")
        count: int = stats["total_connections_received"]
        return count

    assert redis.stream_info(server.url, stream).height == 20
    before = connections()
    assert redis.stream_info(server.url, stream).height == 20
    assert connections() == before


# -- many streams -------------------------------------------------------------


def test_a_pattern_tells_of_all_streams_by_key_then_by_group(
    url: str, any_client: redis_py.Redis
) -> None:
    for key in ("orders:b", "orders:a", "orders:é", "other"):
        add_numbered(any_client, key, ["1-0", "2-0"])
    for group in ("z", "y"):
        any_client.xgroup_create("orders:a", group, "0")
    any_client.xgroup_create("orders:b", "x", "0")
    any_client.xreadgroup("x", "c", {"orders:b": ">"}, count=1)
    any_client.set("orders:text", "none")
    df = redis.stream_info(url, "orders:*")
    assert df.select("_key", "group", "pending").rows() == [
        ("orders:a", "y", 0),
        ("orders:a", "z", 0),
        ("orders:b", "x", 1),
        ("orders:é", None, None),
    ]
    alone = [redis.stream_info(url, key) for key in ("orders:a", "orders:b", "orders:é")]
    assert without_clocks(df) == without_clocks(pl.concat(alone))
    assert redis.stream_info(url, r"orders:[\a]")["_key"].to_list() == ["orders:a"] * 2
    assert redis.stream_info(url, "nothing:*").schema == SCHEMA


def test_hundreds_of_streams_take_few_round_trips(
    any_server: Server, any_client: redis_py.Redis, make_proxy: Callable[..., Proxy]
) -> None:
    keys = [f"many:{n:03}" for n in range(250)]
    for key in keys:
        any_client.xgroup_create(key, "g", "$", mkstream=True)
    proxy = make_proxy(any_server, delay_ms=20)
    begun = time.monotonic()
    df = redis.stream_info(proxy.rewrite(any_server.url), "many:*")
    assert df["_key"].to_list() == keys
    # One for each stream would take ten seconds.
    assert time.monotonic() - begun < 5


def test_a_pattern_needs_the_right_to_look_for_keys(make_server: Callable[..., Server]) -> None:
    server = make_server(acl=["watcher on >secret ~* +xinfo"])
    add_numbered(server.client(), "events", ["1-0"])
    url = server.url_for("watcher", "secret")
    with pytest.raises(ResponseError, match=r'pattern "event\*": NOPERM .*scan'):
        redis.stream_info(url, "event*")
    assert redis.stream_info(url, "events")["length"].to_list() == [1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stream": 1}, TypeError, "stream: expected str, got int"),
        ({"stream": "s", "read_from": "nearest"}, ValueError, 'read_from: expected "master"'),
        ({"stream": "s", "url": "http://localhost"}, ValueError, "url"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    # Nobody listens there.
    given = {"url": "redis://127.0.0.1:1", **arguments}
    with pytest.raises(error, match=message):
        redis.stream_info(**given)


def test_a_replica_tells_too(
    make_server: Callable[..., Server], any_server: Server, stream: str
) -> None:
    add_numbered(any_server.client(), stream, ["1-0"])
    df = redis.stream_info(any_server.url, stream, read_from="replica")
    assert df["length"].to_list() == [1]
