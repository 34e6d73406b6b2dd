"""Reads from replicas: who is really asked, and what comes of it where there is none."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from polars_redis.exceptions import RedisConnectionError
from support.iterators import (
    KINDS,
    connections_of,
    is_blocked,
    iterating,
    meanwhile,
    named,
    wait_until,
)
from support.producing import (
    LAST,
    Producer,
    assert_each_once,
    ids_in,
    ids_of,
    read_to_last,
)
from support.streams import add_numbered, assert_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Server
    from support.topologies import Cluster, Replicated, Sentinels

SECRET = "hunter2-of-replicas"
SCHEMA = {"n": pl.Int64}
GROUP: dict[str, Any] = {"group": "g", "consumer": "a"}
REPLICA: dict[str, Any] = {"read_from": "replica"}
#: One round of waiting of the iterators here.
ROUND_MS = 500

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no redis-server for Windows")


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with iterating(request.param) as make:
        yield make


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the library logged so far, but for details."""
    caplog.set_level(logging.DEBUG, logger="polars_redis")

    def texts() -> list[str]:
        records = [record for record in caplog.records if record.name == "polars_redis"]
        assert not any(SECRET in record.getMessage() for record in records)
        return [record.getMessage() for record in records if record.levelno >= logging.INFO]

    return texts


class Place:
    """A stream on a master, and the replicas that have it too."""

    def __init__(self, url: str, key: str, master: Server, replicas: list[Server]) -> None:
        self.url = url
        self.key = key
        self.master = master
        self.replicas = replicas

    def fill(self, entries: int = 500, first: int = 1) -> list[str]:
        """Add entries, and wait until all replicas have them."""
        ids = [f"{n}-0" for n in range(first, first + entries)]
        add_numbered(self.master.client(), self.key, ids)
        self.wait_until_all_have(ids[-1])
        return ids

    def wait_until_all_have(self, last: str) -> None:
        for client in map(reader, self.replicas):
            wait_until(lambda c=client: last in ids_in(c, self.key)[-1:])


def reader(server: Server) -> Any:
    """A client that may read from a replica, also from one of a cluster."""
    client = server.client(single_connection_client=True)
    if client.info("cluster")["cluster_enabled"]:
        client.readonly()
    return client


def is_waiting_at(server: Server, name: str) -> bool:
    """Tell whether a connection of this name waits for entries there."""
    return is_blocked(server.kept_client(), name)


@pytest.fixture(params=["plain", "sentinels", "cluster"])
def place(request: pytest.FixtureRequest, stream: str) -> Place:
    """A stream in each kind of deployment, in turn."""
    deployment: Any
    if request.param == "cluster":
        deployment = request.getfixturevalue("cluster")
        master = deployment.masters[1]
        key = deployment.key_of(master, stream)
        return Place(deployment.url, key, master, deployment.replicas_of(master))
    name = "replicated" if request.param == "plain" else "sentinels"
    deployment = request.getfixturevalue(name)
    return Place(deployment.url(), stream, deployment.master(), deployment.replicas)


def calls(server: Server) -> int:
    """How often a server was asked for entries."""
    told: Any = server.kept_client().info("commandstats")
    names = ("cmdstat_xrange", "cmdstat_xrevrange", "cmdstat_xread")
    return sum(told[name]["calls"] for name in names if name in told)


class Asked:
    """Who was asked for entries during a block, and who was not."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __enter__(self) -> None:
        self.before = [calls(server) for server in self._servers()]

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is not None:
            return
        after = [calls(server) for server in self._servers()]
        master, *replicas = (now - then for then, now in zip(self.before, after, strict=True))
        assert master == 0
        assert sum(replicas) > 0

    def _servers(self) -> list[Server]:
        return [self.place.master, *self.place.replicas]


# -- who is asked ----------------------------------------------------------------


def test_a_read_asks_a_replica(place: Place) -> None:
    ids = place.fill()
    with Asked(place):
        df = redis.read_stream(place.url, place.key, SCHEMA, **REPLICA)
        assert_numbered(df, ids)
        df = redis.read_stream(place.url, place.key, SCHEMA, count=7, **REPLICA)
        assert df["_id"].to_list() == ids[:7]
        assert redis.read_stream(place.url, place.key, start_id="$", **REPLICA).height == 0


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_scan_asks_a_replica(place: Place, engine: Any) -> None:
    ids = place.fill()
    with Asked(place):
        scan = redis.scan_stream(place.url, place.key, SCHEMA, **REPLICA)
        assert_numbered(scan.collect(engine=engine), ids)
        some = scan.filter(pl.col("_ts") > 400).select("n")
        assert some.collect(engine=engine).height == 100
        # Without a schema the fields are looked up there too.
        found = redis.scan_stream(place.url, place.key, **REPLICA).collect(engine=engine)
        assert found["_id"].to_list() == ids


def test_splits_ask_a_replica(place: Place) -> None:
    ids = place.fill()
    with Asked(place):
        parts = redis.split_stream(place.url, place.key, 3, SCHEMA, **REPLICA)
        assert pl.concat([part.collect() for part in parts]).sort("n")["_id"].to_list() == ids


def test_an_iterator_asks_a_replica(place: Place, iterate: Callable[..., Any]) -> None:
    ids = place.fill()
    with Asked(place):
        frames = list(iterate(place.url, place.key, SCHEMA, block_ms=None, **REPLICA))
    assert_numbered(pl.concat(frames), ids)


def test_a_replica_gives_what_its_master_gets(place: Place, iterate: Callable[..., Any]) -> None:
    ids = place.fill(1) + [f"{n}-0" for n in range(2, 6)]
    url = named(place.url, place.key)

    def produce() -> None:
        for entry_id in ids[1:]:
            wait_until(lambda: any(is_waiting_at(r, place.key) for r in place.replicas))
            assert not is_waiting_at(place.master, place.key)
            add_numbered(place.master.kept_client(), place.key, [entry_id])

    with Asked(place):
        batches = iterate(url, place.key, SCHEMA, block_ms=20_000, count=5, **REPLICA)
        with meanwhile(produce):
            assert ids_of(batches) == ids


def test_a_read_waits_at_a_replica(place: Place) -> None:
    url = named(place.url, place.key)

    def produce() -> None:
        wait_until(lambda: any(is_waiting_at(r, place.key) for r in place.replicas))
        add_numbered(place.master.client(), place.key, ["1-0"])

    with Asked(place), meanwhile(produce):
        df = redis.read_stream(url, place.key, SCHEMA, block_ms=20_000, **REPLICA)
    assert df["_id"].to_list() == ["1-0"]


@pytest.mark.parametrize("options", [{}, {"read_from": "master"}], ids=["default", "told"])
def test_the_master_is_asked_otherwise(place: Place, options: dict[str, Any]) -> None:
    ids = place.fill()
    before = [calls(replica) for replica in place.replicas]
    assert_numbered(redis.read_stream(place.url, place.key, SCHEMA, **options), ids)
    assert redis.scan_stream(place.url, place.key, SCHEMA, **options).collect().height == 500
    assert len(redis.split_stream(place.url, place.key, 2, SCHEMA, **options)) == 2
    with redis.iter_stream(place.url, place.key, block_ms=None, **options) as batches:
        assert ids_of(batches) == ids
    # One that reads from replicas does not lend its connections.
    redis.read_stream(place.url, place.key, **REPLICA)
    after = [calls(replica) for replica in place.replicas]
    assert redis.read_stream(place.url, place.key, **options).height == 500
    assert [calls(replica) for replica in place.replicas] == after
    assert sum(after) > sum(before)


def test_a_url_of_a_replica_is_followed_by_none(replicated: Replicated, stream: str) -> None:
    """Its own URL names the server to read from: it has no replicas, and is asked itself."""
    place = Place(replicated.url(), stream, replicated.master(), replicated.replicas)
    ids = place.fill(10)
    with Asked(place):
        df = redis.read_stream(replicated.url_of(place.replicas[0]), stream, SCHEMA, **REPLICA)
        assert df["_id"].to_list() == ids


def test_a_password_is_told_to_replicas(make_replicated: Callable[..., Replicated]) -> None:
    deployment = make_replicated(password=SECRET)
    place = Place(deployment.url(), "events", deployment.master(), deployment.replicas)
    ids = place.fill(10)
    with Asked(place):
        assert_numbered(redis.read_stream(place.url, "events", SCHEMA, **REPLICA), ids)


# -- what cannot be meant ------------------------------------------------------------

FUNCTIONS: dict[str, Callable[..., object]] = {
    "read_stream": redis.read_stream,
    "scan_stream": redis.scan_stream,
    "split_stream": lambda url, stream, **options: redis.split_stream(url, stream, 2, **options),
    "iter_stream": redis.iter_stream,
    "iter_stream_async": redis.iter_stream_async,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", ["slave", "", "Replica", "any"])
def test_only_master_and_replica_are_known(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"read_from.*master.*replica"):
        FUNCTIONS[name]("redis://127.0.0.1:1", "events", read_from=value)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", [1, True, b"replica"])
def test_it_is_told_by_a_word(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match="read_from"):
        FUNCTIONS[name]("redis://127.0.0.1:1", "events", read_from=value)


@pytest.mark.parametrize("name", ["read_stream", "iter_stream", "iter_stream_async"])
def test_groups_are_the_masters(name: str) -> None:
    with pytest.raises(ValueError, match=r"read_from.*group|group.*read_from"):
        FUNCTIONS[name]("redis://127.0.0.1:1", "events", **GROUP, **REPLICA)


# -- where there is no replica ---------------------------------------------------------


def test_a_master_without_replicas(
    make_replicated: Callable[..., Replicated], told: Callable[[], list[str]]
) -> None:
    deployment = make_replicated(replicas=0)
    ids = add_numbered(deployment.master().client(), "events", ["1-0", "2-0"])
    df = redis.read_stream(deployment.url(), "events", **REPLICA)
    assert df["_id"].to_list() == ids
    [line] = told()
    assert "replica" in line
    with redis.iter_stream(deployment.url(), "events", block_ms=None, **REPLICA) as batches:
        assert ids_of(batches) == ids


def test_replicas_that_died(
    make_replicated: Callable[..., Replicated],
    iterate: Callable[..., Any],
    told: Callable[[], list[str]],
) -> None:
    deployment = make_replicated(replicas=2, password=SECRET)
    place = Place(deployment.url(), "events", deployment.master(), deployment.replicas)
    ids = place.fill(3)
    for replica in place.replicas:
        replica.kill()
    batches = iterate(place.url, "events", SCHEMA, block_ms=ROUND_MS, **REPLICA)
    assert next(batches)["_id"].to_list() == ids
    add_numbered(place.master.client(), "events", ["4-0"])
    assert next(batches)["_id"].to_list() == ["4-0"]
    assert len([line for line in told() if "replica" in line]) == 1


@pytest.mark.parametrize("read_from", ["master", "replica"])
def test_servers_of_sentinels_that_are_not_there_yet(
    make_sentinels: Callable[..., Sentinels],
    iterate: Callable[..., Any],
    told: Callable[[], list[str]],
    read_from: str,
) -> None:
    """Sentinels that name servers are there, so the servers may be so again."""
    deployment = make_sentinels(replicas=1, down_after_ms=60_000, appendonly="yes")
    ids = add_numbered(deployment.master().client(), "events", ["1-0", "2-0"])
    for server in deployment.servers:
        server.kill()

    def restart() -> None:
        wait_until(lambda: any("trying again" in line for line in told()))
        for server in deployment.servers:
            server.start()

    batches = iterate(deployment.url(), "events", SCHEMA, block_ms=ROUND_MS, read_from=read_from)
    with meanwhile(restart):
        assert next(batches)["_id"].to_list() == ids


def test_a_cluster_without_replicas(
    make_cluster: Callable[..., Cluster], told: Callable[[], list[str]]
) -> None:
    cluster = make_cluster()
    key = cluster.key_of(cluster.masters[1])
    ids = add_numbered(cluster.node_of(key).client(), key, ["1-0", "2-0"])
    df = redis.read_stream(cluster.url, key, **REPLICA)
    assert df["_id"].to_list() == ids
    assert any("replica" in line for line in told())


def test_a_replica_that_may_not_be_asked_now(
    make_replicated: Callable[..., Replicated], stream: str
) -> None:
    """One that lost its master before it had a copy says so: somebody else is asked."""
    deployment = make_replicated(replicas=2)
    place = Place(deployment.url(), stream, deployment.master(), deployment.replicas)
    ids = place.fill(3)
    lost = place.replicas[0].client()
    lost.config_set("replica-serve-stale-data", "no")
    # Nobody is there.
    lost.execute_command("REPLICAOF", "127.0.0.1", "1")
    for _ in range(10):
        df = redis.read_stream(place.url, stream, SCHEMA, **REPLICA)
        assert df["_id"].to_list() == ids


# -- replicas that go -------------------------------------------------------------------


def test_another_replica_takes_the_place_of_one_that_dies(
    make_replicated: Callable[..., Replicated], stream: str, iterate: Callable[..., Any]
) -> None:
    deployment = make_replicated(replicas=2)
    place = Place(deployment.url(), stream, deployment.master(), deployment.replicas)
    master, name = place.master.client(), f"{stream}:reader"
    frames: list[pl.DataFrame] = []

    def asked() -> list[Server]:
        living = [replica for replica in place.replicas if replica.running]
        return [r for r in living if connections_of(r.kept_client(), name)]

    def act() -> None:
        with Producer(lambda n: master.xadd(stream, {"n": n})) as producer:
            for _ in place.replicas:
                producer.add_more(100)
                wait_until(asked)
                (victim, *_) = asked()
                seen = len(frames)
                victim.kill()
                producer.add_more(100)
                wait_until(lambda seen=seen: len(frames) > seen)
        # Now the master alone is left.
        master.xadd(stream, {"n": LAST})

    with iterate(named(place.url, name), stream, SCHEMA, 50, ROUND_MS, **REPLICA) as batches:
        with meanwhile(act):
            read_to_last(batches, frames)
        assert batches.stats.reconnects >= 2
    there = ids_in(master, stream)
    assert_each_once(frames, there)
    assert ids_of(frames) == there


def test_a_replica_that_becomes_the_master_behind_sentinels(
    make_sentinels: Callable[..., Sentinels], stream: str, iterate: Callable[..., Any]
) -> None:
    deployment = make_sentinels()
    frames: list[pl.DataFrame] = []

    def act() -> None:
        add = deployment.adds(stream)
        with Producer(add) as producer:
            producer.add_more(200)
            wait_until(lambda: frames)
            deployment.wait_for_new_master(deployment.kill_master())
            producer.add_more(200)
        add(LAST)

    batches = iterate(deployment.url(), stream, SCHEMA, 50, ROUND_MS, **REPLICA)
    with batches, meanwhile(act):
        read_to_last(batches, frames)
    assert_each_once(frames, ids_in(deployment.master().client(), stream))


def test_a_replica_that_becomes_the_master_of_a_cluster(
    make_cluster: Callable[..., Cluster], iterate: Callable[..., Any]
) -> None:
    cluster = make_cluster(replicas=1)
    victim = cluster.masters[1]
    key = cluster.key_of(victim)
    frames: list[pl.DataFrame] = []

    def act() -> None:
        add = cluster.adds(key)
        with Producer(add) as producer:
            producer.add_more(200)
            wait_until(lambda: frames)
            cluster.wait_until_failed_over(victim, cluster.kill(victim))
            producer.add_more(200)
        add(LAST)

    with iterate(cluster.url, key, SCHEMA, 50, ROUND_MS, **REPLICA) as batches, meanwhile(act):
        read_to_last(batches, frames)
    assert_each_once(frames, ids_in(cluster.node_of(key).client(), key))


def test_a_slot_that_moves_under_a_reader_of_replicas(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(replicas=1)
    source, target = cluster.masters[:2]
    key = cluster.key_of(source)
    ids = add_numbered(cluster.node_of(key).client(), key, (f"{n + 1}-0" for n in range(100)))
    (replica,) = cluster.replicas_of(target)
    move = cluster.migrate(key, target)
    with redis.iter_stream(cluster.url, key, SCHEMA, 50, ROUND_MS, **REPLICA) as batches:
        found = list(next(batches)["_id"])
        move.run()
        place = Place(cluster.url, key, target, [replica])
        place.wait_until_all_have(ids[-1])
        ids += place.fill(10, first=101)
        while len(found) < len(ids):
            found += list(next(batches)["_id"])
    assert found == ids
    assert redis.read_stream(cluster.url, key, SCHEMA, **REPLICA).height == 110


def test_nobody_is_there(make_replicated: Callable[..., Replicated]) -> None:
    deployment = make_replicated()
    for server in deployment.servers:
        server.kill()
    with pytest.raises(RedisConnectionError, match=str(deployment.servers[0].port)):
        redis.read_stream(deployment.url(), "events", **REPLICA)

    async def first() -> None:
        await redis.iter_stream_async(deployment.url(), "events", **REPLICA).__anext__()

    with pytest.raises(RedisConnectionError):
        asyncio.run(first())
