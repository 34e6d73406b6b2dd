"""Writing frames to hashes: what is there afterwards, of keys that were there too."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polars_redis as redis
from polars_redis.exceptions import PolarsRedisError, RedisConnectionError, ResponseError
from support.iterators import meanwhile, wait_until
from support.proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.servers import Server
    from support.topologies import Cluster

MODES: list[Any] = ["replace", "append", "fail"]


def numbered(rows: int, prefix: str = "") -> pl.DataFrame:
    n = pl.int_range(rows, eager=True).alias("n")
    return pl.DataFrame({"n": n}).with_columns(pl.format(f"{prefix}{{}}", "n").alias("_key"))


def held(client: Any, key: str) -> dict[str, str]:
    fields: Any = client.hgetall(key)
    return {name.decode(): text.decode() for name, text in fields.items()}


@pytest.mark.parametrize("if_exists", MODES)
@pytest.mark.parametrize("ttl", [None, 100])
def test_rows_become_hashes(
    client: redis_py.Redis, redis_url: str, if_exists: Any, ttl: int | None
) -> None:
    df = pl.DataFrame(
        {"a": ["x", None, None], "_key": ["1", "2", "3"], "b": [1.5, float("inf"), None]}
    )
    written = redis.write_hashes(redis_url, df, key_prefix="k:", ttl=ttl, if_exists=if_exists)
    assert written == 3
    assert held(client, "k:1") == {"a": "x", "b": "1.5"}
    assert held(client, "k:2") == {"b": "inf"}
    assert held(client, "k:3") == {"_": ""}
    for n in (1, 2, 3):
        left: Any = client.ttl(f"k:{n}")
        assert left == -1 if ttl is None else 90 < left <= 100


@pytest.mark.parametrize(
    ("if_exists", "expected", "written"),
    [
        ("replace", {"new": "1"}, 2),
        ("append", {"old": "0", "both": "0", "new": "1"}, 2),
        ("fail", {"old": "0", "both": "0"}, 1),
    ],
)
@pytest.mark.parametrize("ttl", [None, timedelta(milliseconds=90_500)])
def test_keys_that_are_there(
    client: redis_py.Redis,
    redis_url: str,
    if_exists: Any,
    expected: dict[str, str],
    written: int,
    ttl: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.hset("there", mapping={"old": 0, "both": 0})
    client.expire("there", 10_000)
    df = pl.DataFrame({"_key": ["there", "new"], "new": [1, 1]})
    with caplog.at_level(logging.WARNING, "polars_redis"):
        told = redis.write_hashes(redis_url, df, ttl=ttl, if_exists=if_exists)
    assert told == written
    assert held(client, "there") == expected
    assert held(client, "new") == {"new": "1"}
    left: Any = client.pttl("there")
    if if_exists != "fail" and ttl is not None:
        assert 0 < left <= 90_500
    elif if_exists == "replace":
        assert left == -1
    else:
        assert left > 90_500
    message = "1 of 2 keys are there already, and were left as they are"
    assert [record.getMessage() for record in caplog.records] == [message] * (2 - written)


@pytest.mark.parametrize("if_exists", MODES)
def test_a_key_that_is_twice_in_the_frame(
    client: redis_py.Redis, redis_url: str, if_exists: Any
) -> None:
    df = pl.DataFrame({"_key": ["k", "k"], "a": [1, None], "b": [None, 2]})
    written = redis.write_hashes(redis_url, df, if_exists=if_exists)
    assert written == (1 if if_exists == "fail" else 2)
    expected = {"replace": {"b": "2"}, "append": {"a": "1", "b": "2"}, "fail": {"a": "1"}}
    assert held(client, "k") == expected[if_exists]


@pytest.mark.parametrize("if_exists", MODES)
@pytest.mark.parametrize("ttl", [None, 100])
def test_many_rows(client: redis_py.Redis, redis_url: str, if_exists: Any, ttl: Any) -> None:
    rows = 12_345
    df = numbered(rows)
    assert redis.write_hashes(df, redis_url, key_prefix="k:", ttl=ttl, if_exists=if_exists) == rows
    assert client.dbsize() == rows
    pipeline = client.pipeline(transaction=False)
    for n in range(0, rows, 100):
        pipeline.hget(f"k:{n}", "n")
    assert [int(n) for n in pipeline.execute()] == list(range(0, rows, 100))


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    keys=st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=5),
    prefix=st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    values=st.lists(st.binary(), min_size=5, max_size=5),
    if_exists=st.sampled_from(MODES),
)
def test_any_key_and_value(
    keys: list[str],
    prefix: str,
    values: list[bytes],
    if_exists: Any,
    client: redis_py.Redis,
    redis_url: str,
) -> None:
    client.flushdb()
    df = pl.DataFrame(
        {"k": keys, "value": values[: len(keys)]}, schema={"k": pl.String, "value": pl.Binary}
    )
    assert redis.write_hashes(redis_url, df, "k", prefix, if_exists=if_exists) == len(keys)
    for key, value in zip(keys, values, strict=False):
        assert client.hgetall(prefix + key) == {b"value": value}


def test_keys_of_other_dtypes(client: redis_py.Redis, redis_url: str) -> None:
    df = pl.DataFrame({"id": [5, 6], "n": [1, 2]})
    assert redis.write_hashes(redis_url, df, "id", "k:") == 2
    assert held(client, "k:6") == {"n": "2"}


def test_a_lazy_frame(client: redis_py.Redis, redis_url: str) -> None:
    lazy = numbered(5_000).lazy().filter(pl.col("n") % 2 == 0)
    assert redis.write_hashes(redis_url, lazy, batch_size=100) == 2_500
    assert client.dbsize() == 2_500


# -- what is refused ---------------------------------------------------------------

NOBODY = "redis://127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"key_column": "x"}, ValueError, 'key_column: the frame has no column "x"'),
        ({"key_column": None}, TypeError, "key_column: expected str, got NoneType"),
        ({"key_prefix": 5}, TypeError, "key_prefix: expected str"),
        ({"key_prefix": None}, TypeError, "key_prefix: expected str, got NoneType"),
        ({"ttl": 0}, ValueError, "ttl: expected more than nothing"),
        ({"ttl": -1}, ValueError, "ttl: expected more than nothing"),
        ({"ttl": timedelta(0)}, ValueError, "ttl: expected more than nothing"),
        ({"ttl": float("nan")}, ValueError, "ttl: nan seconds are no time"),
        ({"ttl": "x"}, TypeError, "ttl: expected seconds or a timedelta"),
        ({"if_exists": None}, TypeError, "if_exists: expected str, got NoneType"),
        (
            {"if_exists": "x"},
            ValueError,
            'if_exists: expected "replace" or "append" or "fail", got "x"',
        ),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        redis.write_hashes(NOBODY, numbered(1), **arguments)


def test_a_key_that_is_null(client: redis_py.Redis, redis_url: str) -> None:
    df = pl.DataFrame({"_key": ["a", "b", None], "n": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"key_column: expected a key in row 2, got null"):
        redis.write_hashes(redis_url, df, batch_size=1)
    assert client.dbsize() == 0


@pytest.mark.parametrize("ttl", [None, 100])
def test_a_key_that_is_no_hash(client: redis_py.Redis, redis_url: str, ttl: int | None) -> None:
    client.set("3", "text")
    with pytest.raises(ResponseError, match=r'key "3": WRONGTYPE .*row 3 was the first') as raised:
        redis.write_hashes(redis_url, numbered(10), ttl=ttl, if_exists="append")
    error: Any = raised.value
    assert 3 in error.failed.to_list()
    assert client.get("3") == b"text"
    assert client.ttl("3") == -1
    keys: Any = client.keys()
    assert {int(key) for key in keys if key != b"3"} == set(error.written)
    assert redis.write_hashes(redis_url, numbered(10), if_exists="replace") == 10
    assert held(client, "3") == {"n": "3"}


@pytest.mark.parametrize("if_exists", MODES)
@pytest.mark.parametrize("ttl", [None, 100])
def test_memory_runs_out(make_server: Callable[..., Server], if_exists: Any, ttl: Any) -> None:
    server = make_server(maxmemory="6mb", maxmemory_policy="noeviction")
    df = numbered(30_000).with_columns(text=pl.lit("x" * 500))
    with pytest.raises(ResponseError, match=r"OOM .*was the first to be refused") as raised:
        redis.write_hashes(server.url, df, if_exists=if_exists, ttl=ttl)
    error: Any = raised.value
    keys: Any = server.client().keys()
    assert {int(key) for key in keys} == set(error.written)
    assert error.unsure.len() == 0
    assert error.written.len() + error.failed.len() == 30_000


def test_the_row_that_was_refused_is_told_from_those_before_it(
    client: redis_py.Redis, redis_url: str
) -> None:
    client.set("1", "text")
    told = (
        "row 1 was the first to be refused; of 3 rows 0 were written, 3 were not, 0 may have been$"
    )
    with pytest.raises(ResponseError, match=rf'key "1": WRONGTYPE .*{told}') as raised:
        redis.write_hashes(redis_url, numbered(3), if_exists="append", ttl=100)
    error: Any = raised.value
    # The first was not sent, as the second was looked at, too.
    assert error.failed.to_list() == [0, 1, 2]
    assert not client.exists("0", "2")


def test_keys_that_stay_are_none_that_failed(make_server: Callable[..., Server]) -> None:
    server = make_server()
    client = server.client()
    client.hset("there", "n", 0)
    client.config_set("maxmemory", 1)
    df = pl.DataFrame({"_key": ["there", "new", "there", "other", "new"], "n": range(5)})
    told = (
        "row 1 was the first to be refused; of 5 rows 0 were written, 3 were not, 0 may have been, "
        "2 were left out, as their keys are there$"
    )
    with pytest.raises(ResponseError, match=rf'key "new": OOM .*{told}') as raised:
        redis.write_hashes(server.url, df, if_exists="fail")
    error: Any = raised.value
    assert error.kept.to_list() == [0, 2]
    # The last has the key of another row, which is not there either.
    assert error.failed.to_list() == [1, 3, 4]
    client.config_set("maxmemory", 0)
    assert redis.write_hashes(server.url, df[error.failed], if_exists="fail") == 2


@pytest.mark.parametrize("if_exists", MODES)
def test_rights_that_are_missing(make_server: Callable[..., Server], if_exists: Any) -> None:
    rights = "+hset +del +multi +exec +watch +unwatch +type"
    server = make_server(
        acl=["default on nopass ~* &* +@all", f"writer on >secret-pw ~k:* -@all {rights}"]
    )
    url = server.url_for("writer", "secret-pw")
    assert redis.write_hashes(url, numbered(5), key_prefix="k:", if_exists=if_exists) == 5
    with pytest.raises(ResponseError, match="NOPERM") as raised:
        redis.write_hashes(url, numbered(5), if_exists=if_exists)
    assert raised.value.failed.len() == 5  # type: ignore[attr-defined]
    assert "secret-pw" not in str(raised.value)


# -- lines that break --------------------------------------------------------------


@pytest.mark.parametrize("if_exists", MODES)
@pytest.mark.parametrize("direction", ["cut_after", "cut_up_after"])
def test_a_connection_cut_at_every_byte(
    client: redis_py.Redis, server: Server, if_exists: Any, direction: str
) -> None:
    def others() -> int:
        told: Any = client.client_list()
        return len(told)

    df = numbered(3)
    at_first = others()
    failures = 0
    with Proxy(server.host, server.port) as proxy:
        redis.write_hashes(proxied(proxy), df, if_exists=if_exists)
        length = proxy.bytes_down if direction == "cut_after" else proxy.bytes_up
    for at in range(length):
        client.flushdb()
        with Proxy(server.host, server.port) as proxy:
            fault: Any = {direction: at}
            proxy.set_fault(Fault(**fault))
            error: Any = None
            try:
                # Where the line is cut before anything was sent, it is made anew.
                assert redis.write_hashes(proxied(proxy), df, if_exists=if_exists) == 3
            except PolarsRedisError as raised:
                error = raised
        wait_until(lambda: others() <= at_first)
        keys: Any = client.keys()
        there = {int(key) for key in keys}
        if error is None:
            assert there == {0, 1, 2}
            continue
        failures += 1
        assert set(error.written) <= there <= set(error.written) | set(error.unsure)
        assert error.written.len() + error.failed.len() + error.unsure.len() == 3
        assert all(held(client, str(n)) == {"n": str(n)} for n in there)
    assert failures > 10


def test_keys_that_stay_are_known_where_the_line_is_cut(
    client: redis_py.Redis, server: Server
) -> None:
    df = numbered(3)

    def prepare() -> None:
        client.flushdb()
        client.hset("1", "other", 1)

    prepare()
    with Proxy(server.host, server.port) as proxy:
        assert redis.write_hashes(proxied(proxy), df, if_exists="fail") == 2
        length = proxy.bytes_down
    sent = 0
    for at in range(length):
        prepare()
        with Proxy(server.host, server.port) as proxy:
            proxy.set_fault(Fault(cut_after=at))
            try:
                redis.write_hashes(proxied(proxy), df, if_exists="fail")
            except PolarsRedisError as raised:
                error: Any = raised
            else:
                continue
        fates = [error.written, error.failed, error.unsure, error.kept]
        assert sorted(row for rows in fates for row in rows) == [0, 1, 2]
        if error.unsure.len():
            # It was looked at before.
            assert error.kept.to_list() == [1]
            sent += 1
    assert sent > 10


def proxied(proxy: Proxy) -> str:
    return f"redis://{proxy.host}:{proxy.port}"


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(RedisConnectionError) as raised:
        redis.write_hashes(NOBODY, numbered(5), if_exists="fail")
    assert raised.value.failed.len() == 5  # type: ignore[attr-defined]
    assert "row 0" not in str(raised.value)


def test_others_who_write_the_same_keys(client: redis_py.Redis, redis_url: str) -> None:
    rows = 2_000
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for n in range(0, rows, 7):
                client.hsetnx(str(n), "other", 1)

    other = threading.Thread(target=write)
    other.start()
    try:
        written = redis.write_hashes(redis_url, numbered(rows), if_exists="fail")
    finally:
        stop.set()
        other.join()
    first_there = [n for n in range(rows) if "n" not in held(client, str(n))]
    assert written == rows - len(first_there)
    assert all(held(client, str(n)) == {"other": "1"} for n in first_there)


# -- clusters ----------------------------------------------------------------------


@pytest.mark.parametrize("if_exists", MODES)
@pytest.mark.parametrize("ttl", [None, 100])
def test_a_cluster(cluster: Cluster, if_exists: Any, ttl: Any) -> None:
    prefix = f"{if_exists}:{ttl}:"
    df = numbered(1_000)
    written = redis.write_hashes(
        cluster.url, df, key_prefix=prefix, ttl=ttl, if_exists=if_exists, batch_size=300
    )
    assert written == 1_000
    client = cluster.client()
    assert all(held(client, f"{prefix}{n}") == {"n": str(n)} for n in range(0, 1_000, 50))


@pytest.mark.parametrize("if_exists", MODES)
def test_a_slot_that_moves_meanwhile(make_cluster: Callable[..., Cluster], if_exists: Any) -> None:
    cluster = make_cluster()
    first, second = cluster.masters[:2]
    key = cluster.key_of(first, "k")
    df = pl.DataFrame({"_key": [f"{key}:{n}" for n in range(2_000)], "n": range(2_000)})
    assert redis.write_hashes(cluster.url, df[:10], if_exists=if_exists) == 10
    migration = cluster.migrate(key, second).begin()
    mover = threading.Timer(0.2, lambda: (migration.move_keys(), migration.finish()))
    mover.start()
    written = redis.write_hashes(cluster.url, df[10:], if_exists=if_exists)
    mover.join()
    assert written == 1_990
    client = cluster.client()
    assert all(held(client, f"{key}:{n}") == {"n": str(n)} for n in range(0, 2_000, 100))


@pytest.mark.parametrize("if_exists", MODES)
@pytest.mark.parametrize("ttl", [None, 100])
def test_some_keys_have_gone_and_some_have_not(
    make_cluster: Callable[..., Cluster], if_exists: Any, ttl: Any
) -> None:
    cluster = make_cluster(masters=2)
    keys = [f"{{t}}:{n}" for n in range(8)]
    client = cluster.client()
    for key in keys[:6]:
        client.hset(key, "old", "1")
    target = next(node for node in cluster.masters if node is not cluster.node_of(keys[0]))
    migration = cluster.migrate(keys[0], target).begin().move_keys(keys[0], keys[2])
    df = pl.DataFrame({"_key": keys, "n": range(8)})
    with meanwhile(lambda: migration.move_keys().finish()):
        written = redis.write_hashes(cluster.url, df, if_exists=if_exists, ttl=ttl)
    assert written == (2 if if_exists == "fail" else 8)
    for n, key in enumerate(keys):
        old = {"old": "1"} if n < 6 and if_exists != "replace" else {}
        new = {"n": str(n)} if n >= 6 or if_exists != "fail" else {}
        assert held(client, key) == {**old, **new}


@pytest.mark.parametrize(
    "options", [{}, {"if_exists": "append", "ttl": 100}, {"if_exists": "fail"}]
)
def test_without_transactions_nothing_is_written(
    make_server: Callable[..., Server], options: dict[str, Any]
) -> None:
    server = make_server(acl=["w on >secret ~* +@all -multi"])
    server.client().hset("1", "old", "1")
    with pytest.raises(ResponseError, match=r"NOPERM.*multi") as raised:
        redis.write_hashes(server.url_for("w", "secret"), numbered(3), **options)
    assert raised.value.failed is not None
    assert raised.value.failed.to_list() == [0, 1, 2]
    assert server.client().dbsize() == 1
    assert held(server.client(), "1") == {"old": "1"}
    # One command a row needs none.
    url = server.url_for("w", "secret")
    assert redis.write_hashes(url, numbered(3), if_exists="append") == 3


def test_keys_that_were_watched_are_no_matter_to_the_next_write(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(acl=["w on >secret ~* +@all -type"])
    url = server.url_for("w", "secret")
    # They are watched, and then it shows that nobody may look at them.
    with pytest.raises(ResponseError, match=r"NOPERM.*type"):
        redis.write_hashes(url, numbered(3), if_exists="fail")
    server.client().hset("1", "old", "1")
    assert redis.write_hashes(url, numbered(3)) == 3
    assert held(server.client(), "1") == {"n": "1"}
