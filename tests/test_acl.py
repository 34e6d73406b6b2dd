"""Users who may do little: what their rights allow works, and a right that is missing is named.

`tests/test_read_errors.py` and `tests/test_group.py` have the details of one read; here is what
the least rights are worth to every function, on every server.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import AuthenticationError, PolarsRedisError, ResponseError
from support.iterators import KINDS, is_blocked, iterating, meanwhile, wait_until
from support.streams import add_numbered, id_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.servers import Server

SECRET = "hunter2-of-acl"
SCHEMA = {"n": pl.Int64}
GROUP: dict[str, Any] = {"group": "g", "consumer": "a"}
#: Users of the tests by the rights they have, and no other ones.
RIGHTS = {
    "nobody": "",
    "ranger": "+xrange",
    "tailer": "+xrange +xread",
    "worker": "+xreadgroup +xack",
    "maker": "+xreadgroup +xack +xgroup|create",
    "acker": "+xack",
    "lister": "+xread +xreadgroup",
    "prober": "+xrange +xinfo|stream +xrevrange",
}


class Guarded:
    """A server with users of few rights, and a stream in it that they may use."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client: redis_py.Redis = server.client()

    def url(self, user: str, **parameters: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return self.server.url_for(user, SECRET) + (f"?{query}" if query else "")


@pytest.fixture(scope="module")
def shared(any_server: Server) -> Iterator[Guarded]:
    # A server before 7.0 has no subcommands in what it forbids at first and then allows.
    users = [
        f"{user} on >{SECRET} resetchannels ~events* -@all {rights}"
        for user, rights in RIGHTS.items()
    ]
    owner = "default on nopass ~* &* +@all"
    with type(any_server)(any_server.binary, acl=[owner, *users]) as server:
        yield Guarded(server)


@pytest.fixture
def guarded(shared: Guarded) -> Guarded:
    shared.client.flushall()
    return shared


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with iterating(request.param) as make:
        yield make


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the library logged so far, as warnings or worse."""
    caplog.set_level(logging.DEBUG, logger="polars_redis")

    def texts() -> list[str]:
        records = [record for record in caplog.records if record.name == "polars_redis"]
        assert not any(SECRET in record.getMessage() for record in records)
        return [record.getMessage() for record in records if record.levelno >= logging.WARNING]

    return texts


def ids_of(frames: list[pl.DataFrame]) -> list[str]:
    return [entry_id for df in frames for entry_id in df["_id"]]


def fill(guarded: Guarded, entries: int = 3000) -> list[str]:
    return add_numbered(
        guarded.client, "events", (f"{10**12 + n // 3}-{n % 3}" for n in range(entries))
    )


def pending(guarded: Guarded) -> list[str]:
    rows = guarded.client.xpending_range("events", "g", "-", "+", 100_000)
    return [row["message_id"].decode() for row in rows]


# -- a user who may XRANGE -----------------------------------------------------


@pytest.mark.parametrize("user", ["ranger", "prober"])
def test_xrange_is_enough_for_every_form_of_a_read(guarded: Guarded, user: str) -> None:
    ids = fill(guarded)
    read = partial(redis.read_stream, guarded.url(user), "events", SCHEMA)
    assert read()["n"].to_list() == list(range(len(ids)))
    assert read(count=7)["_id"].to_list() == ids[:7]
    assert read(f"({ids[9]}", ids[19])["_id"].to_list() == ids[10:20]
    assert read(start_id=10**12 + 1, end_id=10**12 + 1)["_id"].to_list() == ids[3:6]
    assert read(start_id="$").height == 0
    assert redis.read_stream(guarded.url(user), "events")["n"].dtype == pl.String
    assert redis.read_stream(guarded.url(user), "events:missing").height == 0


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_xrange_is_enough_for_a_scan(guarded: Guarded, engine: Any) -> None:
    ids = fill(guarded)
    frame = redis.scan_stream(guarded.url("ranger"), "events", SCHEMA)
    assert frame.collect(engine=engine)["_id"].to_list() == ids
    some = frame.filter(pl.col("_ts") >= 10**12 + 990, pl.col("n") % 2 == 0)
    expected = [n for n in range(3 * 990, len(ids)) if n % 2 == 0]
    assert some.select("n").collect(engine=engine)["n"].to_list() == expected
    assert frame.head(5).collect(engine=engine)["_id"].to_list() == ids[:5]
    # Which fields there are is found out by the same right.
    inferred = redis.scan_stream(guarded.url("ranger"), "events")
    assert inferred.collect_schema()["n"] == pl.String
    assert inferred.select(pl.len()).collect(engine=engine).item() == len(ids)


@pytest.mark.parametrize("user", ["ranger", "prober"])
def test_xrange_is_enough_for_splits(guarded: Guarded, user: str) -> None:
    ids = fill(guarded)
    parts = redis.split_stream(guarded.url(user), "events", 4, SCHEMA)
    found = [part.collect()["_id"].to_list() for part in parts]
    assert sorted((entry_id for part in found for entry_id in part), key=id_key) == ids
    assert sum(map(bool, found)) > 1


def test_xrange_is_enough_to_infer_a_schema(guarded: Guarded) -> None:
    fill(guarded, 10)
    assert redis.infer_stream_schema(guarded.url("ranger"), "events") == pl.Schema({"n": pl.Int64})


def test_xrange_is_enough_to_iterate_over_what_is_there(
    guarded: Guarded, iterate: Callable[..., Any]
) -> None:
    ids = fill(guarded, 300)
    url = guarded.url("ranger")
    assert ids_of(list(iterate(url, "events", SCHEMA, block_ms=None))) == ids
    batches = iterate(url, "events", SCHEMA, end_id=ids[99], block_ms=None)
    assert ids_of(list(batches)) == ids[:100]
    assert ids_of(list(iterate(url, "events", SCHEMA, count=150))) == ids[:150]


def test_xread_is_named_where_it_is_missing_to_wait(
    guarded: Guarded, iterate: Callable[..., Any]
) -> None:
    ids = fill(guarded, 10)
    batches = iterate(guarded.url("ranger"), "events", SCHEMA, block_ms=100)
    assert next(batches)["_id"].to_list() == ids
    with pytest.raises(ResponseError, match=r"NOPERM.*xread"):
        next(batches)


# -- a user who may also XREAD ---------------------------------------------------


@pytest.mark.parametrize("start_id", ["-", "$"])
def test_xread_and_xrange_are_enough_to_tail(
    guarded: Guarded, iterate: Callable[..., Any], start_id: str
) -> None:
    old = fill(guarded, 10)
    url = guarded.url("tailer")
    new = [f"{2 * 10**12 + n}-0" for n in range(20)]

    def produce() -> None:
        for entry_id in new:
            wait_until(lambda: is_blocked(guarded.client, ""))
            add_numbered(guarded.client, "events", [entry_id])

    expected = new if start_id == "$" else old + new
    batches = iterate(
        url, "events", SCHEMA, block_ms=10_000, start_id=start_id, count=len(expected)
    )
    # Entered first, so that it knows where the stream ended.
    with batches, meanwhile(produce):
        assert ids_of(list(batches)) == expected


def test_xread_is_enough_to_wait_in_a_read(guarded: Guarded) -> None:
    url = guarded.url("tailer")

    def produce() -> None:
        wait_until(lambda: is_blocked(guarded.client, ""))
        add_numbered(guarded.client, "events", ["1-0"])

    with meanwhile(produce):
        df = redis.read_stream(url, "events", SCHEMA, block_ms=20_000)
    assert df["_id"].to_list() == ["1-0"]


# -- a user who may work in a group ------------------------------------------------


@pytest.mark.parametrize("auto_ack", [False, True])
def test_xreadgroup_and_xack_are_enough_for_a_worker(
    guarded: Guarded,
    iterate: Callable[..., Any],
    told: Callable[[], list[str]],
    auto_ack: bool,
) -> None:
    ids = fill(guarded, 20)
    guarded.client.xgroup_create("events", "g", "0")
    # What an earlier life of it had been given comes first.
    guarded.client.xreadgroup("g", "a", {"events": ">"}, count=3)
    options = {"create_group": False, "auto_ack": auto_ack, "block_ms": None, **GROUP}
    with iterate(guarded.url("worker"), "events", SCHEMA, 7, **options) as batches:
        found = ids_of(list(batches))
    assert found == ids
    assert pending(guarded) == ([] if auto_ack else ids)
    if not auto_ack:
        acked = redis.ack_entries(guarded.url("worker"), "events", "g", found)
        assert acked == len(ids)
    # It cannot look for what others left, and says once which right that needs.
    [warning] = told()
    assert "XPENDING" in warning


def test_nothing_is_told_where_nothing_is_to_be_claimed(
    guarded: Guarded, iterate: Callable[..., Any], told: Callable[[], list[str]]
) -> None:
    ids = fill(guarded, 20)
    guarded.client.xgroup_create("events", "g", "0")
    options = {"create_group": False, "claim_idle_ms": None, "block_ms": None, **GROUP}
    with iterate(guarded.url("worker"), "events", SCHEMA, 7, **options) as batches:
        assert ids_of(list(batches)) == ids
    assert told() == []


@pytest.mark.parametrize("auto_ack", [False, True])
def test_xreadgroup_and_xack_are_enough_for_a_read(guarded: Guarded, auto_ack: bool) -> None:
    ids = fill(guarded, 20)
    guarded.client.xgroup_create("events", "g", "0")
    options = {"create_group": False, "auto_ack": auto_ack, **GROUP}
    df = redis.read_stream(guarded.url("worker"), "events", SCHEMA, **options)
    assert df["_id"].to_list() == ids
    assert pending(guarded) == ([] if auto_ack else ids)


def test_a_worker_waits_for_new_entries(guarded: Guarded, iterate: Callable[..., Any]) -> None:
    guarded.client.xgroup_create("events", "g", "0", mkstream=True)
    options = {"create_group": False, "block_ms": 10_000, "count": 1, **GROUP}

    def produce() -> None:
        wait_until(lambda: is_blocked(guarded.client, ""))
        add_numbered(guarded.client, "events", ["1-0"])

    batches = iterate(guarded.url("worker"), "events", SCHEMA, **options)
    with batches, meanwhile(produce):
        assert ids_of(list(batches)) == ["1-0"]


def test_a_group_that_is_there_needs_no_right_to_make_it(guarded: Guarded) -> None:
    ids = fill(guarded, 5)
    guarded.client.xgroup_create("events", "g", "0")
    df = redis.read_stream(guarded.url("worker"), "events", SCHEMA, **GROUP)
    assert df["_id"].to_list() == ids


def test_a_group_that_is_missing_needs_the_right_to_make_it(
    guarded: Guarded, iterate: Callable[..., Any]
) -> None:
    ids = fill(guarded, 5)
    with pytest.raises(ResponseError, match=r"NOPERM.*xgroup"):
        next(iterate(guarded.url("worker"), "events", SCHEMA, **GROUP))
    batches = iterate(guarded.url("maker"), "events", SCHEMA, block_ms=None, **GROUP)
    assert ids_of(list(batches)) == ids


def test_an_ack_needs_no_more_than_xack(guarded: Guarded) -> None:
    ids = fill(guarded, 9)
    guarded.client.xgroup_create("events", "g", "0")
    guarded.client.xreadgroup("g", "a", {"events": ">"})
    url = guarded.url("acker")
    assert redis.ack_entries(url, "events", "g", ids[:4]) == 4
    assert asyncio.run(redis.ack_entries_async(url, "events", "g", ids)) == 5
    assert pending(guarded) == []


# -- what nobody has asked for -------------------------------------------------


def test_a_name_is_not_worth_an_error(guarded: Guarded) -> None:
    ids = fill(guarded, 5)
    url = guarded.url("tailer", client_name="reader")
    assert redis.read_stream(url, "events", SCHEMA)["_id"].to_list() == ids
    with redis.iter_stream(url, "events", SCHEMA, block_ms=100) as batches:
        assert next(batches)["_id"].to_list() == ids


def test_another_database_needs_the_right_to_select_it(guarded: Guarded) -> None:
    with pytest.raises(ResponseError, match=r"NOPERM.*select"):
        redis.read_stream(guarded.url("ranger", db="3"), "events")
    assert redis.read_stream(guarded.url("ranger", db="0"), "events").height == 0


ASKED: dict[str, Callable[[str, str], object]] = {
    "read_stream": redis.read_stream,
    "scan_stream": lambda url, stream: redis.scan_stream(url, stream, SCHEMA).collect(),
    "split_stream": lambda url, stream: redis.split_stream(url, stream, 2, SCHEMA)[0].collect(),
    "infer_stream_schema": redis.infer_stream_schema,
    "iter_stream": lambda url, stream: next(redis.iter_stream(url, stream)),
    "read_stream in a group": lambda url, stream: redis.read_stream(url, stream, **GROUP),
    "iter_stream in a group": lambda url, stream: next(redis.iter_stream(url, stream, **GROUP)),
    "ack_entries": lambda url, stream: redis.ack_entries(url, stream, "g", ["1-0"]),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_user_who_may_do_nothing_is_told_what_is_missing(guarded: Guarded, name: str) -> None:
    fill(guarded, 5)
    with pytest.raises(ResponseError, match=r"NOPERM.*x(range|readgroup|ack|group)") as raised:
        ASKED[name](guarded.url("nobody"), "events")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("name", ["read_stream", "scan_stream", "split_stream", "iter_stream"])
def test_a_key_that_a_user_may_not_read_is_told(guarded: Guarded, name: str) -> None:
    with pytest.raises(ResponseError, match=r"NOPERM.*key"):
        ASKED[name](guarded.url("prober"), "others")


@pytest.mark.parametrize("options", [{}, GROUP], ids=["plain", "group"])
def test_a_stream_of_a_list_that_a_user_may_not_read_is_named(
    guarded: Guarded, iterate: Callable[..., Any], options: dict[str, Any]
) -> None:
    keys = [f"events:{n}" for n in range(20)]
    forbidden = "others:7"
    for key in [*keys, forbidden]:
        add_numbered(guarded.client, key, ["1-0"])
        guarded.client.xgroup_create(key, "g", "0")
    url = guarded.url("lister")
    mixed = [*keys[:7], forbidden, *keys[7:]]
    for block_ms in (None, 100):
        batches = iterate(url, mixed, SCHEMA, block_ms=block_ms, **options)
        with pytest.raises(ResponseError, match=f'^stream "{forbidden}": NOPERM') as raised:
            next(batches)
        assert SECRET not in str(raised.value)
    # To find out has taken nothing from anybody.
    batches = iterate(url, keys, SCHEMA, block_ms=None, **options)
    assert sum(df.height for df in batches) == len(keys)


@pytest.mark.parametrize("options", [{}, GROUP], ids=["plain", "group"])
def test_a_command_that_is_forbidden_is_of_no_stream(
    guarded: Guarded, options: dict[str, Any]
) -> None:
    keys = ["events:1", "events:2"]
    for key in keys:
        guarded.client.xgroup_create(key, "g", "0", mkstream=True)
    batches = redis.iter_stream(guarded.url("ranger"), keys, block_ms=None, **options)
    with pytest.raises(ResponseError, match=r'^streams "events:1", "events:2": NOPERM.*xread'):
        next(batches)


@pytest.mark.parametrize("name", ASKED)
def test_a_user_of_a_wrong_password_is_told(guarded: Guarded, name: str) -> None:
    url = guarded.server.url_for("ranger", f"{SECRET}-not")
    with pytest.raises(AuthenticationError) as raised:
        ASKED[name](url, "events")
    assert isinstance(raised.value, PolarsRedisError)
    assert SECRET not in str(raised.value)
