"""Streams on a cluster: whoever is asked, whichever node has them, and wherever they move."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from redis.crc import key_slot

import polars_redis as redis
from polars_redis.exceptions import (
    AuthenticationError,
    PolarsRedisError,
    RedisConnectionError,
    ResponseError,
)
from support.iterators import KINDS, is_blocked, iterating, meanwhile, named, wait_until
from support.producing import (
    LAST,
    Producer,
    assert_each_once,
    ids_in,
    ids_of,
    missing,
    read_to_last,
)
from support.streams import add_numbered, assert_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.servers import Server
    from support.topologies import Cluster

SECRET = "hunter2-of-the-cluster"
SCHEMA = {"n": pl.Int64}
GROUP: dict[str, Any] = {"group": "g", "consumer": "a"}
#: One round of waiting of the iterators here.
ROUND_MS = 500
STALE = 600_000

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no redis-server for Windows")


@pytest.fixture(params=KINDS)
def iterate(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with iterating(request.param) as make:
        yield make


@pytest.fixture
def keys(cluster: Cluster, stream: str) -> list[str]:
    """Streams that nobody has used, one on each master."""
    return [cluster.key_of(master, stream) for master in cluster.masters]


@pytest.fixture
def own(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster of the test's own, without replicas."""
    return make_cluster()


def fill(cluster: Cluster, key: str, entries: int = 500) -> list[str]:
    client = cluster.node_of(key).client()
    return add_numbered(client, key, (f"{n + 1}-0" for n in range(entries)))


def seeds(cluster: Cluster) -> list[str]:
    """The URLs of all nodes: replicas too know who has what."""
    return [node.url for node in cluster.nodes]


def pending(cluster: Cluster, key: str) -> dict[str, str]:
    """Which consumer has which entries."""
    rows = cluster.node_of(key).client().xpending_range(key, "g", "-", "+", 100_000)
    return {row["message_id"].decode(): row["consumer"].decode() for row in rows}


# -- every function, from every node ---------------------------------------------


def test_every_way_to_read(cluster: Cluster, keys: list[str]) -> None:
    for key in keys:
        ids = fill(cluster, key)
        for url in seeds(cluster):
            assert_numbered(redis.read_stream(url, key, SCHEMA), ids)
            assert redis.read_stream(url, key, SCHEMA, count=7)["_id"].to_list() == ids[:7]
            assert redis.read_stream(url, key, start_id="$").height == 0
            scan = redis.scan_stream(url, key, SCHEMA)
            assert_numbered(scan.collect(), ids)
            assert scan.filter(pl.col("_ts") > 400).select("n").collect().height == 100
            parts = redis.split_stream(url, key, 3, SCHEMA)
            assert pl.concat([part.collect() for part in parts]).sort("n")["_id"].to_list() == ids
            assert redis.infer_stream_schema(url, key) == pl.Schema({"n": pl.Int64})


def test_every_way_to_iterate(
    cluster: Cluster, keys: list[str], iterate: Callable[..., Any]
) -> None:
    for key in keys:
        ids = fill(cluster, key)
        for number, url in enumerate(seeds(cluster)):
            frames = list(iterate(url, key, SCHEMA, batch_size=90, block_ms=None))
            assert_numbered(pl.concat(frames), ids)
            # Its group is made where the stream is.
            options = {"group": f"g{number}", "consumer": "a", "block_ms": None}
            with iterate(url, key, SCHEMA, batch_size=90, **options) as batches:
                frames = list(batches)
            assert_numbered(pl.concat(frames), ids)


def test_a_stream_that_is_missing(cluster: Cluster, keys: list[str]) -> None:
    for key in keys:
        for url in seeds(cluster):
            assert redis.read_stream(url, key, SCHEMA).height == 0
        df = redis.read_stream(cluster.url, key, SCHEMA, **GROUP)
        assert df.height == 0
        (group,) = cluster.node_of(key).client().xinfo_groups(key)
        assert group["name"] == b"g"


@pytest.mark.parametrize("options", [{}, GROUP], ids=["position", "group"])
def test_an_entry_that_comes_is_waited_for(
    cluster: Cluster, keys: list[str], iterate: Callable[..., Any], options: dict[str, Any]
) -> None:
    for key in keys:
        client = cluster.node_of(key).client()

        def produce(client: Any = client, key: str = key) -> None:
            wait_until(lambda: is_blocked(client, key))
            add_numbered(client, key, ["1-0"])

        url = named(cluster.url, key)
        batches = iterate(url, key, SCHEMA, block_ms=20_000, count=1, **options)
        with meanwhile(produce):
            assert ids_of(batches) == ["1-0"]


def test_acks_go_where_the_stream_is(cluster: Cluster, keys: list[str]) -> None:
    for key in keys:
        ids = fill(cluster, key, 100)
        df = redis.read_stream(cluster.url, key, SCHEMA, **GROUP)
        assert df.height == 100
        acked = 0
        for url in seeds(cluster):
            acked += redis.ack_entries(url, key, "g", ids[acked : acked + 5])
            acked += asyncio.run(redis.ack_entries_async(url, key, "g", ids[acked : acked + 5]))
        assert acked == 10 * len(cluster.nodes)
        assert list(pending(cluster, key)) == ids[acked:]


@pytest.mark.parametrize("auto_ack", [False, True])
def test_stale_entries_are_claimed(
    cluster: Cluster, keys: list[str], iterate: Callable[..., Any], auto_ack: bool
) -> None:
    for key in keys:
        ids = fill(cluster, key, 10)
        client = cluster.node_of(key).client()
        client.xgroup_create(key, "g", "0")
        client.xreadgroup("g", "dead", {key: ">"}, count=4)
        client.xclaim(key, "g", "dead", 0, ids[:4], idle=STALE, justid=True)
        options = {"auto_ack": auto_ack, "block_ms": None, **GROUP}
        with iterate(cluster.url, key, SCHEMA, **options) as batches:
            assert ids_of(batches) == ids
            assert batches.stats.claimed == 4
        assert pending(cluster, key) == ({} if auto_ack else dict.fromkeys(ids, "a"))


def delivered_too_often(cluster: Cluster, key: str) -> list[str]:
    ids = fill(cluster, key, 3)
    client = cluster.node_of(key).client()
    client.xgroup_create(key, "g", "0")
    client.xreadgroup("g", "a", {key: ">"}, count=2)
    return ids


@pytest.mark.parametrize("auto_ack", [False, True])
def test_dead_letters_beside_their_stream(
    cluster: Cluster, keys: list[str], iterate: Callable[..., Any], auto_ack: bool
) -> None:
    for key in keys:
        ids = delivered_too_often(cluster, key)
        # The tag of the key, so that both have one slot.
        letters = f"dead:{key}"
        options = {"auto_ack": auto_ack, "block_ms": None, **GROUP}
        with iterate(
            cluster.url, key, SCHEMA, max_deliveries=1, dead_letter=letters, **options
        ) as batches:
            assert ids_of(batches) == ids[2:]
        client: Any = cluster.node_of(key).client()
        found = [fields[b"_id"].decode() for _, fields in client.xrange(letters)]
        assert found == ids[:2]
        assert list(pending(cluster, key)) == ([] if auto_ack else ids[2:])


@pytest.mark.parametrize("far", [0, 1], ids=["same node", "another node"])
def test_dead_letters_of_another_slot_are_refused(
    cluster: Cluster, stream: str, iterate: Callable[..., Any], far: int
) -> None:
    key = cluster.key_of(cluster.masters[0], stream)
    names = (f"{stream}:dead:{n}" for n in count())
    letters = next(
        name
        for name in names
        if key_slot(name.encode()) != key_slot(key.encode())
        and cluster.node_of(name) is cluster.masters[far]
    )
    ids = delivered_too_often(cluster, key)
    # One transaction cannot span two slots, and an entry must not be lost between two.
    options = {"max_deliveries": 1, "dead_letter": letters, "block_ms": None, **GROUP}
    with pytest.raises((ValueError, PolarsRedisError)) as raised:
        list(iterate(cluster.url, key, SCHEMA, **options))
    assert key in str(raised.value)
    assert letters in str(raised.value)
    assert set(ids[:2]) <= set(pending(cluster, key))
    assert cluster.node_of(letters).client().xlen(letters) == 0


# -- who may ask, and for what ------------------------------------------------------


@pytest.mark.parametrize("how", ["?db=3", "/3"])
def test_a_cluster_has_one_database(cluster: Cluster, keys: list[str], how: str) -> None:
    url = cluster.url.rstrip("/") + how
    for key in keys:
        with pytest.raises(PolarsRedisError, match=r"(?i)cluster|DB index"):
            redis.read_stream(url, key)
        with pytest.raises(PolarsRedisError, match=r"(?i)cluster|DB index"):
            next(redis.iter_stream(url, key))
    assert redis.read_stream(f"{cluster.url}?db=0", keys[0]).height == 0


def test_every_node_is_told_the_password(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(password=SECRET)
    for master in cluster.masters:
        key = cluster.key_of(master)
        ids = fill(cluster, key, 10)
        assert_numbered(redis.read_stream(cluster.url, key, SCHEMA), ids)
        with redis.iter_stream(cluster.url, key, SCHEMA, block_ms=None, **GROUP) as batches:
            assert ids_of(batches) == ids
    with pytest.raises(AuthenticationError) as raised:
        redis.read_stream(cluster.url.replace(SECRET, f"{SECRET}-not"), key)
    assert SECRET not in str(raised.value)


def test_a_user_who_may_not_ask_for_the_map(make_cluster: Callable[..., Cluster]) -> None:
    users = ["default on nopass ~* &* +@all", f"reader on >{SECRET} ~* -@all +xrange +xread"]
    cluster = make_cluster(acl=users)
    url = cluster.nodes[0].url_for("reader", SECRET)
    for master in cluster.masters:
        key = cluster.key_of(master)
        ids = fill(cluster, key, 10)
        # Each node tells where a key is, to whoever may ask for the key.
        assert_numbered(redis.read_stream(url, key, SCHEMA), ids)
        with redis.iter_stream(url, key, SCHEMA, block_ms=None) as batches:
            assert ids_of(batches) == ids


def test_a_seed_that_is_not_there(own: Cluster) -> None:
    seed = own.nodes[0]
    key = own.key_of(own.nodes[1])
    fill(own, key, 10)
    seed.kill()
    # Nobody has been told of the others yet.
    with pytest.raises(RedisConnectionError, match=str(seed.port)):
        redis.read_stream(seed.url, key)


# -- slots that move --------------------------------------------------------------


class Drill:
    """What becomes of a cluster while a producer writes and somebody reads."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.cluster = cluster
        self.key = key
        self.frames: list[pl.DataFrame] = []

    def run(self, *steps: Callable[[], object]) -> Callable[[], None]:
        """Give what takes the steps, lets entries come before and after each, and adds the last."""

        def act() -> None:
            add = self.cluster.adds(self.key)
            with Producer(add) as producer:
                producer.add_more(100)
                wait_until(lambda: self.frames)
                for step in steps:
                    step()
                    producer.add_more(100)
            add(LAST)

        return act

    def there(self) -> list[str]:
        """What the stream has now."""
        return ids_in(self.cluster.node_of(self.key).client(), self.key)


@pytest.fixture
def drill(own: Cluster) -> Drill:
    return Drill(own, own.key_of(own.masters[1]))


@pytest.fixture
def moving(drill: Drill) -> Callable[[], None]:
    """What moves the slot of the drill's stream, a step at a time."""
    move = drill.cluster.migrate(drill.key, drill.cluster.masters[2])
    return drill.run(move.begin, move.move_keys, move.finish)


def test_an_iterator_follows_a_slot(
    drill: Drill, moving: Callable[[], None], iterate: Callable[..., Any]
) -> None:
    batches = iterate(drill.cluster.url, drill.key, SCHEMA, 50, ROUND_MS)
    with batches, meanwhile(moving):
        read_to_last(batches, drill.frames)
    assert_each_once(drill.frames, drill.there())


@pytest.mark.parametrize("auto_ack", [False, True], ids=["acked", "auto-acked"])
def test_a_worker_follows_a_slot(
    drill: Drill, moving: Callable[[], None], iterate: Callable[..., Any], auto_ack: bool
) -> None:
    options = {"auto_ack": auto_ack, **GROUP}
    batches = iterate(drill.cluster.url, drill.key, SCHEMA, 50, ROUND_MS, **options)
    with batches, meanwhile(moving):
        read_to_last(batches, drill.frames)
    there = drill.there()
    # The group moved with its stream, so nothing is delivered anew.
    assert ids_of(drill.frames) == there
    assert list(pending(drill.cluster, drill.key)) == ([] if auto_ack else there)
    if not auto_ack:
        assert redis.ack_entries(drill.cluster.url, drill.key, "g", there) == len(there)


def test_reads_at_every_step_of_a_move(own: Cluster) -> None:
    source, target = own.masters[1:]
    key = own.key_of(source)
    ids = fill(own, key)
    move = own.migrate(key, target)
    group_read = 0
    for step in (lambda: None, move.begin, move.move_keys, move.finish):
        step()
        for url in seeds(own):
            assert_numbered(redis.read_stream(url, key, SCHEMA), ids)
            assert_numbered(redis.scan_stream(url, key, SCHEMA).collect(), ids)
            assert sum(p.collect().height for p in redis.split_stream(url, key, 2, SCHEMA)) == 500
            assert redis.infer_stream_schema(url, key) == pl.Schema(SCHEMA)
            with redis.iter_stream(url, key, SCHEMA, block_ms=None) as batches:
                assert ids_of(batches) == ids
            df = redis.read_stream(url, key, SCHEMA, count=5, **GROUP)
            assert df["_id"].to_list() == ids[group_read : group_read + 5]
            assert redis.ack_entries(url, key, "g", df["_id"]) == 5
            group_read += 5


def test_a_group_is_made_on_the_way(own: Cluster) -> None:
    """A stream that is not there yet, in a slot that moves, is the new master's."""
    source, target = own.masters[1:]
    key = own.key_of(source)
    move = own.migrate(key, target).begin()
    with redis.iter_stream(own.url, key, SCHEMA, 10, ROUND_MS, **GROUP) as batches:
        add = own.adds(key)
        with meanwhile(lambda: add(1)):
            assert next(batches)["n"].item() == 1
        move.move_keys().finish()
        add(2)
        assert next(batches)["n"].item() == 2
    assert own.node_of(key).client().xlen(key) == 2


@pytest.mark.parametrize("options", [{}, GROUP], ids=["position", "group"])
def test_a_reader_that_waits_is_sent_along(
    own: Cluster, iterate: Callable[..., Any], options: dict[str, Any]
) -> None:
    """However long its round of waiting is, the old master ends it."""
    source, target = own.masters[1:]
    key = own.key_of(source)
    fill(own, key, 1)
    batches = iterate(named(own.url, key), key, SCHEMA, 10, 60_000, **options)
    assert next(batches).height == 1

    def move() -> None:
        wait_until(lambda: is_blocked(source.client(), key))
        own.migrate(key, target).run()
        add_numbered(target.client(), key, ["2-0"])

    with meanwhile(move):
        assert next(batches)["_id"].to_list() == ["2-0"]


@pytest.mark.parametrize("read", ["read_stream", "scan_stream", "iter_stream"])
def test_large_reads_while_the_slot_moves_to_and_fro(own: Cluster, read: str) -> None:
    key = own.key_of(own.masters[1])
    ids = fill(own, key, 20_000)
    done = threading.Event()
    moves = 0

    def move() -> None:
        nonlocal moves
        while not done.is_set():
            target = own.masters[2 if own.node_of(key) is own.masters[1] else 1]
            own.migrate(key, target).run()
            moves += 1

    def read_all() -> pl.DataFrame:
        if read == "read_stream":
            return redis.read_stream(own.url, key, SCHEMA)
        if read == "scan_stream":
            return redis.scan_stream(own.url, key, SCHEMA).collect()
        with redis.iter_stream(own.url, key, SCHEMA, 1000, block_ms=None) as batches:
            return pl.concat(list(batches))

    with meanwhile(move):
        try:
            for number in range(10):
                wait_until(lambda due=number: moves > due)
                assert_numbered(read_all(), ids)
        finally:
            done.set()


# -- nodes that go ------------------------------------------------------------------


@pytest.fixture
def replicated(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster of the test's own whose masters have a replica each."""
    return make_cluster(replicas=1)


def failing_over(cluster: Cluster, victim: Server) -> Callable[[], object]:
    """What kills a master, and waits until its replica has its place."""
    return lambda: cluster.wait_until_failed_over(victim, cluster.kill(victim))


@pytest.mark.parametrize("seed", [0, 1], ids=["seed lives", "seed dies"])
def test_an_iterator_outlasts_its_node(
    replicated: Cluster, iterate: Callable[..., Any], seed: int
) -> None:
    victim = replicated.masters[1]
    drill = Drill(replicated, replicated.key_of(victim))
    url = replicated.nodes[seed].url
    with iterate(url, drill.key, SCHEMA, 50, ROUND_MS) as batches:
        with meanwhile(drill.run(failing_over(replicated, victim))):
            read_to_last(batches, drill.frames)
        assert batches.stats.reconnects >= 1
    assert_each_once(drill.frames, drill.there())


@pytest.mark.parametrize("auto_ack", [False, True], ids=["acked", "auto-acked"])
def test_a_worker_outlasts_its_node(
    replicated: Cluster, iterate: Callable[..., Any], auto_ack: bool
) -> None:
    victim = replicated.masters[0]
    drill = Drill(replicated, replicated.key_of(victim))
    options = {"auto_ack": auto_ack, **GROUP}
    url = replicated.url
    with iterate(url, drill.key, SCHEMA, 50, ROUND_MS, **options) as batches:
        with meanwhile(drill.run(failing_over(replicated, victim))):
            read_to_last(batches, drill.frames)
        assert batches.stats.reconnects >= 1
    there = drill.there()
    assert missing(drill.frames, there) == []
    # The seed is dead, and known to be no more than a seed.
    redis.ack_entries(url, drill.key, "g", there)
    assert pending(replicated, drill.key) == {}


def test_a_seed_that_dies_is_not_missed(
    make_cluster: Callable[..., Cluster], iterate: Callable[..., Any]
) -> None:
    cluster = make_cluster(cluster_require_full_coverage=False)
    seed, source, target = cluster.masters
    key = cluster.key_of(source)
    fill(cluster, key, 1)
    batches = iterate(seed.url, key, SCHEMA, 10, ROUND_MS)
    assert next(batches)["_id"].to_list() == ["1-0"]
    seed.kill()
    client: redis_py.Redis = source.client()
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    add_numbered(client, key, ["2-0"])
    assert next(batches)["_id"].to_list() == ["2-0"]
    cluster.migrate(key, target).run()
    add_numbered(target.client(), key, ["3-0"])
    assert next(batches)["_id"].to_list() == ["3-0"]
    assert redis.read_stream(seed.url, key).height == 3


def test_a_read_outlasts_its_node(replicated: Cluster) -> None:
    victim = replicated.masters[1]
    key = replicated.key_of(victim)
    ids = fill(replicated, key)
    url = replicated.url
    assert_numbered(redis.read_stream(url, key, SCHEMA), ids)
    (replica,) = replicated.replicas_of(victim)
    wait_until(lambda: replica.client().dbsize() == 1)
    replicated.kill(victim)
    # Nobody has noticed yet.
    assert_numbered(redis.read_stream(url, key, SCHEMA), ids)


def test_two_streams_are_read_while_one_node_goes(replicated: Cluster) -> None:
    victim, other = replicated.masters[1:]
    drills = [Drill(replicated, replicated.key_of(node)) for node in (victim, other)]

    def read(drill: Drill) -> None:
        with redis.iter_stream(replicated.url, drill.key, SCHEMA, 50, ROUND_MS) as batches:
            read_to_last(batches, drill.frames)

    with ExitStack() as going_on:
        for drill in drills:
            going_on.enter_context(meanwhile(lambda d=drill: read(d)))
        kill = failing_over(replicated, victim)
        going_on.enter_context(meanwhile(drills[1].run()))
        drills[0].run(kill)()
    for drill in drills:
        assert_each_once(drill.frames, drill.there())


def test_a_cluster_that_has_lost_slots_says_so(own: Cluster) -> None:
    """Without a replica nobody takes the place of a master."""
    victim = own.masters[1]
    key = own.key_of(own.masters[0])
    fill(own, key, 1)
    victim.kill()
    own.wait_until_down()
    with pytest.raises((ResponseError, RedisConnectionError), match="CLUSTERDOWN"):
        redis.read_stream(own.url, key)
