"""Streams of one hash slot, of which some have gone to another node and some have not."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import ResponseError
from support.iterators import (
    GROUP,
    KINDS,
    MODE_NAMES,
    MODES,
    iterating,
    meanwhile,
    wait_until,
)
from support.topologies import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.topologies import Migration

SCHEMA = {"n": pl.Int64}
KEYS = ["{t}:a", "{t}:b", "{t}:c", "{t}:d"]
#: Which of them have gone.
GONE = {"the first": KEYS[:1], "the last": KEYS[3:], "half": KEYS[1:3], "all": KEYS}

every_mode = pytest.mark.parametrize("options", MODES, ids=MODE_NAMES)
gone_keys = pytest.mark.parametrize("gone", GONE.values(), ids=GONE)


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`iter_stream`, and then `iter_stream_async`, as a plain iterator."""
    with iterating(request.param) as make:
        yield make


@pytest.fixture(scope="module")
def cluster_of_two(own_servers: None) -> Iterator[Cluster]:
    """A cluster of which a slot is moved to and fro."""
    with Cluster(masters=2) as found:
        yield found


@pytest.fixture
def cluster(cluster_of_two: Cluster) -> Cluster:
    """The same, without the streams of the test before."""
    for node in cluster_of_two.masters:
        node.client().flushall()
    return cluster_of_two


def begin(cluster: Cluster) -> Migration:
    source = cluster.node_of(KEYS[0])
    target = next(node for node in cluster.masters if node is not source)
    return cluster.migrate(KEYS[0], target).begin()


def fill(cluster: Cluster, first: int, last: int) -> None:
    client = cluster.client()
    for n in range(first, last + 1):
        for key in KEYS:
            client.xadd(key, {"n": n}, id=f"{n}-0")


def by_key(frames: Iterable[pl.DataFrame]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {key: [] for key in KEYS}
    for df in frames:
        for key, n in df.select("_key", "n").rows():
            found[key].append(n)
    return found


def expected(first: int, last: int) -> dict[str, list[int]]:
    return {key: list(range(first, last + 1)) for key in KEYS}


def commands(cluster: Cluster) -> int:
    """How many commands the nodes have been given."""
    told = [node.kept_client().info("stats") for node in cluster.nodes]
    return sum(node["total_commands_processed"] for node in told)


def pending(cluster: Cluster) -> int:
    told = redis.stream_info(cluster.url, "{t}:*")
    return int(told["pending"].sum())


@every_mode
@gone_keys
def test_each_stream_is_read_where_it_is(
    cluster: Cluster, iterate: Callable[..., Any], options: Any, gone: list[str]
) -> None:
    fill(cluster, 1, 5)
    move = begin(cluster).move_keys(*gone)
    with iterate(cluster.url, KEYS, SCHEMA, 7, block_ms=None, **options) as frames:
        assert by_key(frames) == expected(1, 5)
        assert frames.last_ids == dict.fromkeys(KEYS, "5-0")
    # Nothing was made where it was not: what is left can follow.
    move.move_keys().finish()
    assert redis.read_streams(cluster.url, "{t}:*", SCHEMA).height == 20
    if options:
        assert pending(cluster) == (0 if options.get("auto_ack") else 20)


@every_mode
def test_a_reader_goes_on_through_all_of_a_move(
    cluster: Cluster, iterate: Callable[..., Any], options: Any
) -> None:
    fill(cluster, 1, 3)
    found = []
    with iterate(cluster.url, KEYS, SCHEMA, 50, block_ms=50, **options) as frames:

        def read_up_to(last: int) -> None:
            while sum(df.height for df in found) < 4 * last:
                found.append(next(frames))

        read_up_to(3)
        move = begin(cluster)
        fill(cluster, 4, 6)
        read_up_to(6)
        for number, key in enumerate(KEYS):
            move.move_keys(key)
            fill(cluster, 7 + number, 7 + number)
            read_up_to(7 + number)
        move.finish()
        fill(cluster, 11, 13)
        read_up_to(13)
        if options == GROUP:
            assert frames.ack(pl.concat(found)) == 4 * 13
    assert by_key(found) == expected(1, 13)
    assert redis.read_streams(cluster.url, "{t}:*", SCHEMA).height == 4 * 13


def test_it_does_not_ask_again_and_again(
    cluster: Cluster, iterate: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    fill(cluster, 1, 2)
    move = begin(cluster).move_keys(KEYS[0])
    with (
        caplog.at_level(logging.INFO, "polars_redis"),
        iterate(cluster.url, KEYS, SCHEMA, block_ms=50) as frames,
    ):
        found = [next(frames)]
        while sum(df.height for df in found) < 8:
            found.append(next(frames))
        before = commands(cluster)
        waiting = threading.Timer(1, lambda: fill(cluster, 3, 3))
        waiting.start()
        found.append(next(frames))
        waiting.join()
        after = commands(cluster)
    move.move_keys().finish()
    # Of each of them some twenty rounds of waiting, and whatever the nodes have to say.
    assert after - before < 400
    assert len(caplog.records) < 20


@gone_keys
@pytest.mark.parametrize("is_iterators", [True, False], ids=["iterator", "ack_entries"])
def test_entries_are_acknowledged_where_they_are(
    cluster: Cluster, iterate: Callable[..., Any], is_iterators: bool, gone: list[str]
) -> None:
    fill(cluster, 1, 10)
    with iterate(cluster.url, KEYS, SCHEMA, 40, block_ms=None, **GROUP) as frames:
        found = pl.concat(list(frames))
        assert found.height == 40
        move = begin(cluster).move_keys(*gone)
        if is_iterators:
            assert frames.ack(found) == 40
        else:
            for (key,), df in found.group_by("_key"):
                assert redis.ack_entries(cluster.url, str(key), "g", df["_id"]) == 10
    assert pending(cluster) == 0
    move.move_keys().finish()
    assert pending(cluster) == 0


@pytest.mark.parametrize("gone", ["{t}:dead", KEYS[0]], ids=["letters", "stream"])
def test_entries_wait_until_the_dead_letters_are_beside_them(
    cluster: Cluster, iterate: Callable[..., Any], gone: str
) -> None:
    key, letters = KEYS[0], "{t}:dead"
    fill(cluster, 1, 3)
    client = cluster.client()
    client.xadd(letters, {"before": 1})
    options: dict[str, Any] = {**GROUP, "max_deliveries": 1, "dead_letter": letters}
    with iterate(cluster.url, key, SCHEMA, block_ms=None, **options) as frames:
        assert sum(df.height for df in frames) == 3
    move = begin(cluster).move_keys(gone)
    with (
        pytest.raises(ResponseError, match=f'stream "{key}": .*its hash slot is on its way'),
        iterate(
            cluster.url, key, SCHEMA, block_ms=None, reconnect_timeout_ms=300, **options
        ) as frames,
    ):
        next(frames)
    assert pending(cluster) == 3
    with (
        iterate(cluster.url, key, SCHEMA, block_ms=None, **options) as frames,
        meanwhile(lambda: move.move_keys().finish()),
    ):
        assert sum(df.height for df in frames) == 0
    assert client.xlen(letters) == 4
    assert client.xlen(key) == 3
    assert redis.stream_info(cluster.url, key)["pending"].to_list() == [0]


def test_a_group_that_is_missing_is_made_where_the_stream_is(
    cluster: Cluster, iterate: Callable[..., Any]
) -> None:
    fill(cluster, 1, 2)
    move = begin(cluster).move_keys(*KEYS[:2])
    options = {**GROUP, "block_ms": None, "create_group": False}
    with (
        iterate(cluster.url, KEYS, SCHEMA, **options) as frames,
        pytest.raises(ResponseError, match=r"NOGROUP.*create_group"),
    ):
        next(frames)
    client = cluster.client()
    for key in KEYS:
        client.xgroup_create(key, "g", "0")
    with iterate(cluster.url, KEYS, SCHEMA, **options) as frames:
        assert by_key(frames) == expected(1, 2)
    move.move_keys().finish()
    assert pending(cluster) == 8


def test_a_storm_of_moves(cluster: Cluster, iterate: Callable[..., Any]) -> None:
    done = threading.Event()
    moves = 0

    def write() -> None:
        try:
            for number in range(6):
                wait_until(lambda due=number: moves > due)
                fill(cluster, 20 * number + 1, 20 * number + 20)
        finally:
            done.set()

    def move() -> None:
        nonlocal moves
        while not done.is_set():
            step = begin(cluster)
            for key in KEYS[moves % 4 :] + KEYS[: moves % 4]:
                step.move_keys(key)
            step.finish()
            moves += 1

    options = {**GROUP, "auto_ack": True}
    with (
        iterate(cluster.url, KEYS, SCHEMA, 50, count=480, block_ms=100, **options) as frames,
        meanwhile(write),
        meanwhile(move),
    ):
        found = list(frames)
    assert by_key(found) == expected(1, 120)
    wait_until(lambda: pending(cluster) == 0)
