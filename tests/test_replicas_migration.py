"""Reads from a cluster's replicas while a slot is on its way: a replica does not know of that.

A stream that has gone ahead to the new server is missing at the replicas of the old one, and those
of the new one do not answer for it yet.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import polars_redis as redis
from support.iterators import KINDS, iterating, meanwhile
from support.producing import ids_of
from support.streams import add_numbered
from support.topologies import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.topologies import Migration

SCHEMA = {"n": pl.Int64}
REPLICA: dict[str, Any] = {"read_from": "replica"}
ROUND_MS = 500
#: Streams of the slot that moves, of which every other one has gone ahead, and of other slots. Some
#: have as many entries as one reply, or as several.
MOVING = {f"s:{{moving}}:{n:02}": n for n in (1, 2, 3, 4, 99, 100, 101, 250, 2500, 7000)}
STAYING = {f"s:{n:02}": n for n in (1, 2, 5, 100, 1500)}
GONE = list(MOVING)[::2]
#: A stream that is alone in its slot, and has gone ahead too.
ALONE = "s:{alone}"
#: Streams with long gaps between few entries, one that stays and one that has gone ahead.
GAPPY = ["gappy:{moving}:stays", "gappy:{moving}:goes"]
GAPPY_IDS = [f"{burst * 10**6 + n}-0" for burst in range(1, 40) for n in range(burst * 7)]
#: A stream that is nowhere, in the slot that moves.
NOWHERE = "s:{moving}:nowhere"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no redis-server for Windows")


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with iterating(request.param) as make:
        yield make


def fill(cluster: Cluster, lengths: dict[str, int]) -> None:
    for key, entries in lengths.items():
        ids = (f"{n}-1" for n in range(1, entries + 1))
        add_numbered(cluster.node_of(key).kept_client(), key, ids)
    cluster.wait_caught_up()


def elsewhere(cluster: Cluster, key: str) -> Any:
    return next(node for node in cluster.masters if node is not cluster.node_of(key))


def move_some(cluster: Cluster, keys: list[str]) -> Migration:
    """Move some of the keys of a slot, which stays on its way."""
    migration = cluster.migrate(keys[0], elsewhere(cluster, keys[0])).begin()
    migration.move_keys(*keys)
    cluster.wait_caught_up()
    return migration


@pytest.fixture(scope="module")
def half(own_servers: None) -> Iterator[Cluster]:
    """A cluster with a slot of which half is moved, and one of which all is. Not to be written."""
    with Cluster(masters=3, replicas=1) as cluster:
        fill(cluster, MOVING | STAYING | {ALONE: 300})
        for key in GAPPY:
            add_numbered(cluster.node_of(key).kept_client(), key, GAPPY_IDS)
        move_some(cluster, [*GONE, GAPPY[1]])
        move_some(cluster, [ALONE])
        yield cluster


def test_many_streams(half: Cluster) -> None:
    expected = redis.read_streams(half.url, "s:*", SCHEMA)
    assert expected.height == sum((MOVING | STAYING).values()) + 300
    assert_frame_equal(redis.read_streams(half.url, "s:*", SCHEMA, **REPLICA), expected)
    for engine in ("in-memory", "streaming"):
        scan = redis.scan_streams(half.url, "s:*", SCHEMA, **REPLICA)
        assert_frame_equal(scan.collect(engine=engine), expected)
        # Rows are handed over as they come.
        firsts = scan.head(1500).collect(engine=engine)
        assert_frame_equal(firsts, expected.head(1500))


def test_a_part_of_many_streams(half: Cluster) -> None:
    """In most streams nothing is in the range, and few of those are elsewhere."""
    bounds: dict[str, Any] = {"start_id": 95, "end_id": 240}
    expected = redis.read_streams(half.url, "s:*", SCHEMA, **bounds)
    assert set(expected["_key"]) & set(GONE)
    found = redis.read_streams(half.url, "s:*", SCHEMA, **bounds, **REPLICA)
    assert_frame_equal(found, expected)
    firsts = redis.read_streams(half.url, "s:*", SCHEMA, count_per_stream=120, **REPLICA)
    assert_frame_equal(firsts, redis.read_streams(half.url, "s:*", SCHEMA, count_per_stream=120))


@pytest.mark.parametrize("key", [*GONE, ALONE, NOWHERE])
def test_one_stream(half: Cluster, key: str) -> None:
    entries = (MOVING | {ALONE: 300, NOWHERE: 0})[key]
    ids = [f"{n}-1" for n in range(1, entries + 1)]
    for options in ({}, {"count": 10_000}, {"block_ms": 1}, {"end_id": 8000}):
        df = redis.read_stream(half.url, key, SCHEMA, **options, **REPLICA)
        assert df["_id"].to_list() == ids
    few = redis.read_stream(half.url, key, SCHEMA, count=3, **REPLICA)
    assert few["_id"].to_list() == ids[:3]
    assert redis.read_stream(half.url, key, SCHEMA, start_id="$", **REPLICA).is_empty()
    scan = redis.scan_stream(half.url, key, SCHEMA, **REPLICA)
    assert scan.collect()["_id"].to_list() == ids
    parts = redis.split_stream(half.url, key, 3, SCHEMA, **REPLICA)
    assert sum(part.collect().height for part in parts) == entries


@pytest.mark.parametrize("key", GAPPY)
def test_long_gaps_are_no_end(half: Cluster, key: str, iterate: Callable[..., Any]) -> None:
    whole = redis.read_stream(half.url, key, SCHEMA)
    assert whole["_id"].to_list() == GAPPY_IDS
    for start, end in [
        (0, 10**9),
        (0, 30 * 10**6 - 1),
        (5 * 10**6 + 20, 20 * 10**6 - 9),
        (300, 900),
    ]:
        expected = whole.filter(pl.col("_ts").is_between(start, end))
        bounds: dict[str, Any] = {"start_id": start, "end_id": end, **REPLICA}
        assert_frame_equal(redis.read_stream(half.url, key, SCHEMA, **bounds), expected)
        scan = redis.scan_stream(half.url, key, SCHEMA, **bounds)
        assert_frame_equal(scan.collect(engine="streaming"), expected)
        assert_frame_equal(scan.head(50).collect(), expected.head(50))
        frames = iterate(half.url, key, SCHEMA, 100, block_ms=None, **bounds)
        assert ids_of(frames) == expected["_id"].to_list()


def test_what_is_known_of_streams(half: Cluster) -> None:
    expected = redis.stream_info(half.url, "s:*")
    assert expected.height == len(MOVING | STAYING) + 1
    assert_frame_equal(redis.stream_info(half.url, "s:*", **REPLICA), expected)
    for key in (*GONE, ALONE):
        [length] = redis.stream_info(half.url, key, **REPLICA)["length"]
        assert length == (MOVING | {ALONE: 300})[key]
    assert redis.stream_info(half.url, NOWHERE, **REPLICA).is_empty()


@pytest.mark.parametrize("key", [*GONE, ALONE, NOWHERE])
def test_an_iterator_that_does_not_wait(
    half: Cluster, key: str, iterate: Callable[..., Any]
) -> None:
    entries = (MOVING | {ALONE: 300, NOWHERE: 0})[key]
    frames = iterate(half.url, key, SCHEMA, 1000, block_ms=None, **REPLICA)
    assert ids_of(frames) == [f"{n}-1" for n in range(1, entries + 1)]


def test_an_iterator_of_a_list_that_does_not_wait(
    half: Cluster, iterate: Callable[..., Any]
) -> None:
    keys = [ALONE, *STAYING]
    frames = iterate(half.url, keys, SCHEMA, 1000, block_ms=None, **REPLICA)
    found = pl.concat(frames).sort("_key", "n")
    expected = [redis.read_streams(half.url, key, SCHEMA) for key in sorted(keys)]
    assert_frame_equal(found, pl.concat(expected))


@pytest.mark.parametrize("several", [False, True], ids=["one stream", "a list"])
def test_what_is_last_is_asked_where_it_is(
    make_cluster: Callable[..., Cluster], iterate: Callable[..., Any], several: bool
) -> None:
    """`$` is not the beginning of a stream that is elsewhere."""
    cluster = make_cluster(replicas=1)
    keys = ["s:{moving}:0", "s:{moving}:1"]
    fill(cluster, dict.fromkeys(keys, 10))
    migration = move_some(cluster, keys[:1])
    which = keys if several else keys[0]
    options: dict[str, Any] = {"start_id": "$", "block_ms": ROUND_MS, **REPLICA}
    with iterate(cluster.url, which, SCHEMA, **options) as frames:
        migration.move_keys()
        migration.finish()
        for key in keys:
            migration.target.kept_client().xadd(key, {"n": 1}, id="99-1")
        found: list[str] = []
        while len(found) < (len(keys) if several else 1):
            found += list(next(frames)["_id"])
    assert set(found) == {"99-1"}


def test_a_stream_that_leaves_while_it_is_read(
    make_cluster: Callable[..., Cluster], iterate: Callable[..., Any]
) -> None:
    cluster = make_cluster(replicas=1)
    key, entries = "s:{moving}", 50_000
    fill(cluster, {key: entries})
    frames = iterate(cluster.url, key, SCHEMA, 100, block_ms=None, **REPLICA)
    found = list(next(frames)["_id"])
    move_some(cluster, [key])
    found += ids_of(frames)
    assert found == [f"{n}-1" for n in range(1, entries + 1)]


def test_slots_that_move_while_they_are_read(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(replicas=1)
    lengths = {f"s:{{{tag}}}:{n}": 150 for tag in range(6) for n in range(10)}
    fill(cluster, lengths)
    expected = redis.read_streams(cluster.url, "s:*", SCHEMA)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = redis.read_streams(cluster.url, "s:*", SCHEMA, **REPLICA)
            assert_frame_equal(found, expected)

    with meanwhile(read):
        try:
            for tag in range(6):
                key = f"s:{{{tag}}}:0"
                cluster.migrate(key, elsewhere(cluster, key)).run()
        finally:
            done.set()
