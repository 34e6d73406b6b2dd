"""Iterators over streams that the nodes of a cluster have between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import redis as redis_py

import polars_redis
from polars_redis.exceptions import DecodeError, RedisConnectionError
from support.iterators import (
    GROUP,
    KINDS,
    MODE_NAMES,
    MODES,
    connections_of,
    iterating,
    meanwhile,
    named,
    rows_in_a_storm,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.topologies import Cluster

SCHEMA = {"n": pl.Int64}


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`iter_stream`, and then `iter_stream_async`, as a plain iterator."""
    with iterating(request.param) as make:
        yield make


@pytest.fixture
def keys(stream: str) -> list[str]:
    """Keys of twelve streams; two of them are in the same slot."""
    return [f"{stream}:{n}" for n in range(10)] + [f"{{{stream}}}:a", f"{{{stream}}}:b"]


def fill(client: Any, keys: list[str], first: int, last: int) -> None:
    for n in range(first, last + 1):
        for key in keys:
            client.xadd(key, {"n": n}, id=f"{n}-0")


def by_key(frames: Iterable[pl.DataFrame]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for df in frames:
        for key, n in zip(df["_key"], df["n"], strict=True):
            found[key].append(n)
    return dict(found)


def expected(keys: list[str], last: int) -> dict[str, list[int]]:
    return {key: list(range(1, last + 1)) for key in keys}


def pending(client: Any, keys: list[str]) -> int:
    return sum(client.xpending(key, "g")["pending"] for key in keys)


@pytest.mark.parametrize("options", MODES, ids=MODE_NAMES)
def test_streams_of_all_nodes(
    cluster: Cluster, keys: list[str], options: Any, iterate: Callable[..., Any]
) -> None:
    client = cluster.client()
    fill(client, keys, 1, 30)
    frames = iterate(cluster.url, keys, SCHEMA, 50, count=12 * 40, block_ms=200, **options)
    found = []
    while sum(df.height for df in found) < 12 * 30:
        found.append(next(frames))
    with meanwhile(lambda: fill(client, keys, 31, 40)):
        found += frames
    assert by_key(found) == expected(keys, 40)
    assert max(df.height for df in found) <= 50
    assert frames.last_ids == dict.fromkeys(keys, "40-0")
    if options == GROUP:
        assert pending(client, keys) == 12 * 40
        assert frames.ack() == found[-1].height
        assert frames.ack(pl.concat(found)) == 12 * 40 - found[-1].height
        assert pending(client, keys) == 0
    elif options.get("auto_ack"):
        assert pending(client, keys) == 0


@pytest.mark.parametrize("options", MODES[:2], ids=MODE_NAMES[:2])
def test_it_ends_where_it_has_caught_up(
    cluster: Cluster, keys: list[str], options: Any, iterate: Callable[..., Any]
) -> None:
    client = cluster.client()
    fill(client, keys, 1, 5)
    found = list(iterate(cluster.url, keys, SCHEMA, 7, block_ms=None, **options))
    assert by_key(found) == expected(keys, 5)
    if options:
        # What was not acknowledged comes again, then what is new.
        fill(client, keys, 6, 7)
        again = list(iterate(cluster.url, keys, SCHEMA, 7, block_ms=None, **options))
        assert by_key(again) == expected(keys, 7)


def test_where_it_begins_and_ends(
    cluster: Cluster, keys: list[str], iterate: Callable[..., Any]
) -> None:
    client = cluster.client()
    fill(client, keys, 1, 5)
    with iterate(cluster.url, keys, SCHEMA, start_id="$", count=12) as frames:
        fill(client, keys, 6, 6)
        assert by_key(frames) == {key: [6] for key in keys}
    frames = iterate(cluster.url, keys, SCHEMA, end_id="4-5", block_ms=50)
    assert by_key(frames) == expected(keys, 4)
    first = iterate(cluster.url, keys, SCHEMA, 10, count=20)
    begun = list(first)
    start = {key: f"({last}" for key, last in first.last_ids.items()}
    rest = list(iterate(cluster.url, keys, SCHEMA, start_id=start, block_ms=None))
    assert by_key([*begun, *rest]) == expected(keys, 6)


def test_a_group_takes_no_more_than_the_count(
    cluster: Cluster, keys: list[str], iterate: Callable[..., Any]
) -> None:
    client = cluster.client()
    fill(client, keys, 1, 5)
    for key in keys:
        client.xgroup_create(key, "g", "0")
    for count in (5, 17):
        before = 0 if count == 5 else 5
        frames = iterate(cluster.url, keys, SCHEMA, 4, count=count, group="g", consumer=str(count))
        assert sum(df.height for df in frames) == count
        assert pending(client, keys) == before + count


@pytest.mark.parametrize("options", MODES[:2], ids=MODE_NAMES[:2])
def test_an_entry_that_does_not_fit(
    cluster: Cluster, keys: list[str], options: Any, iterate: Callable[..., Any]
) -> None:
    client = cluster.client()
    fill(client, keys, 1, 3)
    client.xadd(keys[3], {"n": "four"}, id="4-0")
    frames = iterate(cluster.url, keys, SCHEMA, 100, block_ms=50, **options)
    found: list[pl.DataFrame] = []
    errors: list[str] = []
    while len(errors) < 2 or sum(df.height for df in found) < 36:
        try:
            found.append(next(frames))
        except DecodeError as error:
            errors.append(str(error))
    assert all(keys[3] in text and "4-0" in text for text in errors)
    assert by_key(found) == expected(keys, 3)


@pytest.mark.parametrize("options", MODES, ids=MODE_NAMES)
def test_connections_cut_again_and_again(
    make_cluster: Callable[..., Cluster], keys: list[str], options: Any
) -> None:
    cluster = make_cluster()
    client = cluster.client()
    fill(client, keys, 1, 1)
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.02):
            for node in cluster.nodes:
                server = node.kept_client()
                for connection in connections_of(server, "iterator"):
                    with contextlib.suppress(redis_py.ResponseError):
                        server.client_kill_filter(_id=connection["id"])

    with iterating("sync") as iterate:
        url = named(cluster.url, "iterator")
        frames = iterate(url, keys, SCHEMA, 20, count=12 * 41, block_ms=50, **options)
        frames.__enter__()
        with meanwhile(lambda: fill(client, keys, 2, 41)), meanwhile(cut):
            try:
                found = list(frames)
            finally:
                done.set()
    assert by_key(found) == expected(keys, 41)
    assert frames.stats.reconnects > 0


def test_a_storm_of_cancellations_loses_nothing(cluster: Cluster, keys: list[str]) -> None:
    client = cluster.client()

    async def read() -> list[pl.DataFrame]:
        async with polars_redis.iter_stream_async(
            cluster.url, keys, SCHEMA, 20, **GROUP, auto_ack=True
        ) as frames:
            return await rows_in_a_storm(frames, 12 * 40)

    with meanwhile(lambda: fill(client, keys, 1, 40)):
        found = asyncio.run(read())
    assert by_key(found) == expected(keys, 40)
    assert pending(client, keys) == 0


@pytest.mark.parametrize("options", MODES[:2], ids=MODE_NAMES[:2])
def test_a_slot_that_moves_under_it(
    make_cluster: Callable[..., Cluster], keys: list[str], options: Any, iterate: Any
) -> None:
    cluster = make_cluster()
    client = cluster.client()
    fill(client, keys, 1, 3)
    frames = iterate(cluster.url, keys, SCHEMA, 50, count=12 * 9, block_ms=200, **options)
    found: list[pl.DataFrame] = []

    def read_up_to(rows: int) -> None:
        while sum(df.height for df in found) < rows:
            found.append(next(frames))

    read_up_to(12 * 3)
    # The slot of two of the streams.
    moved = keys[-1]
    to = next(node for node in cluster.masters if node is not cluster.node_of(moved))
    migration = cluster.migrate(moved, to).begin()
    fill(client, keys[:-2], 4, 6)
    migration.move_keys()
    migration.finish()
    fill(client, keys[-2:], 4, 6)
    read_up_to(12 * 6)
    fill(client, keys, 7, 9)
    read_up_to(12 * 9)
    assert by_key(found) == expected(keys, 9)


@pytest.mark.parametrize("options", MODES[:2], ids=MODE_NAMES[:2])
def test_a_master_that_is_killed(
    make_cluster: Callable[..., Cluster], keys: list[str], options: Any
) -> None:
    cluster = make_cluster(replicas=1)
    client = cluster.client()
    fill(client, keys, 1, 3)
    for node in cluster.masters:
        assert node.kept_client().wait(1, 10_000) == 1
    with iterating("sync") as iterate:
        frames = iterate(cluster.url, keys, SCHEMA, 50, count=12 * 6, block_ms=200, **options)
        found = []
        while sum(df.height for df in found) < 12 * 3:
            found.append(next(frames))
        killed = cluster.node_of(keys[0])
        slots = cluster.kill(killed)
        cluster.wait_until_failed_over(killed, slots)
        fill(cluster.client(), keys, 4, 6)
        found += frames
    assert {key: sorted(set(ids)) for key, ids in by_key(found).items()} == expected(keys, 6)
    assert sum(df.height for df in found) == 12 * 6


def test_in_a_forked_child_it_says_that_it_cannot_go_on(cluster: Cluster, keys: list[str]) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    fill(cluster.client(), keys, 1, 2)
    frames = polars_redis.iter_stream(cluster.url, keys, SCHEMA, batch_size=5, block_ms=60_000)
    next(frames)
    pid = os.fork()
    if pid == 0:
        try:
            next(frames)
        except RuntimeError:
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    # The parent's own goes on.
    assert next(frames).height > 0
    frames.close()


def test_many_slots(cluster: Cluster, iterate: Callable[..., Any]) -> None:
    keys = [f"{uuid.uuid4().hex}" for _ in range(200)]
    fill(cluster.client(), keys, 1, 2)
    frames = iterate(cluster.url, keys, SCHEMA, 30, count=400)
    assert by_key(frames) == expected(keys, 2)


@pytest.fixture
def worker(cluster: Cluster) -> Iterator[str]:
    """The URL of the cluster for a user who may read groups and acknowledge, and no more."""
    name = f"worker-{uuid.uuid4().hex}"
    rights: dict[str, Any] = {"keys": ["*"], "commands": ["+xreadgroup", "+xack"]}
    nodes = [node.client() for node in cluster.nodes]
    try:
        for node in nodes:
            node.acl_setuser(name, enabled=True, passwords=["+right"], **rights)
        yield cluster.url.replace("://", f"://{name}:right@")
    finally:
        for node in nodes:
            node.acl_deluser(name)


def test_that_nothing_is_claimed_is_told_once(
    cluster: Cluster,
    worker: str,
    keys: list[str],
    iterate: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="polars_redis")
    client = cluster.client()
    fill(client, keys, 1, 3)
    for key in keys:
        client.xgroup_create(key, "g", "0")
    with iterate(worker, keys, SCHEMA, block_ms=None, **GROUP) as batches:
        assert by_key(batches) == expected(keys, 3)
    [warning] = [record.getMessage() for record in caplog.records if "claimed" in record.message]
    assert "XPENDING" in warning


def test_who_asks_again_begins_anew_with_all_of_them(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(appendonly=True, appendfsync="always")
    node = cluster.nodes[2]
    keys = [cluster.key_of(node, f"{n}") for n in range(8)] + [cluster.key_of(cluster.nodes[0])]
    fill(cluster.client(), keys, 1, 1)
    with iterating("sync") as iterate:
        frames = iterate(cluster.url, keys, SCHEMA, block_ms=100, reconnect_timeout_ms=500)
        found = []
        while sum(df.height for df in found) < len(keys):
            found.append(next(frames))
        node.kill()
        with pytest.raises(RedisConnectionError, match=str(node.port)):
            found += frames
        node.restart()
        wait_until(lambda: all(map(cluster.is_ok, cluster.nodes)))
        fill(cluster.client(), keys, 2, 2)
        # What else was tried in vain while it was away is no matter any more.
        while sum(df.height for df in found) < 2 * len(keys):
            found.append(next(frames))
    assert by_key(found) == expected(keys, 2)
