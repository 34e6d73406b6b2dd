"""Many streams over lines that break, from servers that die, and of a cluster that changes."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import polars_redis as redis
from support.engines import ENGINES
from support.iterators import meanwhile, wait_until
from support.proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.servers import Server
    from support.topologies import Cluster

SCHEMA = {"n": pl.Int64, "text": pl.String}
#: Streams so long that they are not read at once, among short ones.
LENGTHS = {f"s:{n:03}": 3000 if n % 40 == 7 else 100 for n in range(200)}
ROWS = sum(LENGTHS.values())

every_engine = pytest.mark.parametrize("engine", ENGINES)


def fill(client: Any, lengths: dict[str, int]) -> pl.DataFrame:
    """Fill streams, and give the frame that they are."""
    pipeline = client.pipeline(transaction=False)
    rows = []
    for key, length in lengths.items():
        for n in range(length):
            fields = {"n": n, "text": f"{key}, entry number {n}"}
            pipeline.execute_command(
                "XADD", key, f"{n + 1}-0", *(x for f in fields.items() for x in f)
            )
            rows.append((key, f"{n + 1}-0", n + 1, *fields.values()))
        if len(pipeline) > 5000:
            pipeline.execute()
    pipeline.execute()
    names = ["_key", "_id", "_ts", "n", "text"]
    return pl.DataFrame(rows, names, orient="row").sort("_key", maintain_order=True)


def is_told(frame: pl.DataFrame) -> None:
    assert frame.height > 0


# -- lines that break ---------------------------------------------------------


@pytest.mark.parametrize("cut", ["rst", "fin"])
def test_a_line_cut_again_and_again(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], cut: Any
) -> None:
    expected = fill(client, LENGTHS)
    proxy = make_proxy(server)
    for connection in range(1, 14):
        fault = Fault(cut_after=17_000 * connection + 1_234, cut=cut)
        proxy.set_fault(fault, connection=connection)
    df = redis.read_streams(proxy.rewrite(server.url), "s:*", SCHEMA)
    assert_frame_equal(df, expected)
    assert proxy.connections > 8


@every_engine
def test_a_scan_over_a_line_that_is_cut(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], engine: Any
) -> None:
    expected = fill(client, LENGTHS)
    proxy = make_proxy(server)
    for connection in range(1, 10):
        proxy.set_fault(Fault(cut_after=30_000 * connection), connection=connection)
    lf = redis.scan_streams(proxy.rewrite(server.url), "s:*", SCHEMA)
    assert_frame_equal(lf.collect(engine=engine), expected)
    assert proxy.connections > 3


def test_a_line_that_goes_silent(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy]
) -> None:
    expected = fill(client, LENGTHS)
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=500_000), connection=1)
    url = proxy.rewrite(server.url) + "?socket_timeout=0.5"
    assert_frame_equal(redis.read_streams(url, "s:*", SCHEMA), expected)


def test_a_trickle(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy]
) -> None:
    expected = fill(client, dict.fromkeys(["s:1", "s:2", "s:3"], 20))
    proxy = make_proxy(server)
    proxy.set_fault(Fault(chunk=1))
    url = proxy.rewrite(server.url)
    assert_frame_equal(redis.read_streams(url, "s:*", SCHEMA), expected)


def test_a_long_line_is_waited_for_a_few_times_only(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy]
) -> None:
    expected = fill(client, {f"s:{n:03}": 20 for n in range(400)})
    proxy = make_proxy(server, delay_ms=25)
    begun = time.monotonic()
    df = redis.read_streams(proxy.rewrite(server.url), "s:*", SCHEMA)
    assert_frame_equal(df, expected)
    # A round trip each would take twenty seconds.
    assert time.monotonic() - begun < 10


def test_a_server_killed_and_restarted_in_the_middle(
    make_server: Callable[..., Server],
    make_proxy: Callable[..., Proxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    expected = fill(server.client(), LENGTHS)
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=1_000_000))
    url = proxy.rewrite(server.url)
    frames: list[pl.DataFrame] = []
    with (
        caplog.at_level(logging.INFO, "polars_redis"),
        meanwhile(lambda: frames.append(redis.read_streams(url, "s:*", SCHEMA))),
    ):
        wait_until(lambda: proxy.bytes_down >= 1_000_000)
        server.kill()
        proxy.heal()
        proxy.cut_all()
        server.restart()
    assert_frame_equal(frames[0], expected)
    assert "trying again" in caplog.text
    assert "connected again" in caplog.text


def test_what_was_tried_in_vain_is_told(
    make_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    """A replica that has lost its master before it had a copy answers nobody, and says so."""
    server = make_server(replica_serve_stale_data="no")
    server.kept_client().replicaof("127.0.0.1", "1")
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: redis.read_streams(server.url, "s:*", SCHEMA),
        "scan": lambda: redis.scan_streams(server.url, "s:*", SCHEMA).collect(),
        "info": lambda: redis.stream_info(server.url, "s:1"),
        "infos": lambda: redis.stream_info(server.url, "s:*"),
        "split": lambda: redis.split_stream(server.url, "s:1", 4, SCHEMA),
        "ack": lambda: redis.ack_entries(server.url, "s:1", "g", ["1-0"]),
    }

    def call(name: str) -> None:
        with pytest.raises(redis.exceptions.ResponseError, match="MASTERDOWN"):
            calls[name]()

    threads = [threading.Thread(target=call, args=(name,), name=name) for name in calls]
    with caplog.at_level(logging.INFO, "polars_redis"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = {line.threadName for line in caplog.records if "trying again" in line.getMessage()}
    # Polars scans on a thread of its own.
    assert set(calls) - {"scan"} <= told
    assert len(told) == len(calls)


@pytest.mark.parametrize(
    "words", [b"-ERR Cluster is disabled.", b"-ERR no such thing", b"+OK", b"*1\r\n:7"]
)
def test_a_server_that_has_no_cluster_in_other_words(
    server: Server, client: redis_py.Redis, make_proxy: Callable[..., Proxy], words: bytes
) -> None:
    expected = fill(client, {"s:1": 3, "s:2": 700})
    proxy = make_proxy(server)
    refusal = b"-ERR This instance has cluster support disabled"
    proxy.set_fault(Fault(words=(refusal, words)))
    url = proxy.rewrite(server.url)
    assert_frame_equal(redis.read_streams(url, "s:*", SCHEMA), expected)
    assert redis.stream_info(url, "s:*")["length"].to_list() == [3, 700]


def test_a_part_of_a_cluster_is_never_taken_for_all(make_cluster: Callable[..., Cluster]) -> None:
    rights = {"reader": "~*", "limited": "~s:*"}
    may = "on >secret -@all +scan +xrange"
    users = [f"{user} {may} {keys}" for user, keys in rights.items()]
    cluster = make_cluster(acl=["default on nopass ~* &* +@all", *users])
    fill(cluster.client(), {f"s:{n}": 3 for n in range(20)})
    for user in rights:
        url = cluster.nodes[0].url_for(user, "secret")
        with pytest.raises(redis.exceptions.ResponseError, match=r"NOPERM.*cluster"):
            redis.read_streams(url, "s:*", SCHEMA)
        assert redis.read_streams(url, "s:1", SCHEMA).height == 3


#: Around what is asked for at once, and what is read by itself.
EDGES = [0, 1, 2, 99, 100, 101, 199, 999, 1000, 1001, 1100, 2000, 3100, 4100, 5000, 5100, 7000]


@pytest.mark.parametrize("seed", range(12))
def test_any_lengths_over_any_cuts(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], seed: int
) -> None:
    chance = random.Random(seed)
    lengths = {f"s:{chance.randrange(10_000)}": chance.choice(EDGES) for _ in range(25)}
    expected = fill(client, lengths)
    proxy = make_proxy(server)
    for connection in range(1, chance.randrange(1, 12)):
        cut = Fault(cut_after=chance.randrange(5_000, 800_000))
        proxy.set_fault(cut, connection=connection)
    url = proxy.rewrite(server.url)
    count = chance.choice([None, 50, 1500, 4500])
    start, end = sorted(chance.choice([1, 2, 101, 1001, 3000, 9000]) for _ in range(2))
    expected = expected.filter(pl.col("_ts").is_between(start, end))
    if count is not None:
        expected = expected.group_by("_key", maintain_order=True).head(count)
    options: dict[str, Any] = {"start_id": start, "end_id": end, "count_per_stream": count}
    df = redis.read_streams(url, "s:*", SCHEMA, **options)
    assert_frame_equal(df, expected.select(df.columns))
    lf = redis.scan_streams(url, "s:*", SCHEMA, **options)
    engine = chance.choice(ENGINES)
    assert_frame_equal(lf.collect(engine=engine), df)
    rows = chance.randrange(1, 20_000)
    assert_frame_equal(lf.head(rows).collect(engine=engine), df.head(rows))


@pytest.mark.parametrize("seed", range(8))
def test_of_many_entries_that_do_not_fit_the_first_is_named(
    client: redis_py.Redis, redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    lengths = {f"s:{chance.randrange(10_000)}": chance.choice(EDGES) for _ in range(25)}
    fill(client, lengths)
    keys = [key for key, length in lengths.items() if length > 0]
    wrong = [(key, lengths[key] + 1) for key in chance.sample(keys, 3)]
    for key, ms in wrong:
        client.xadd(key, {"n": "boom"}, id=f"{ms}-0")
        client.xadd(key, {"n": "boom"}, id=f"{ms + 1}-0")
    key, ms = min(wrong)
    with pytest.raises(redis.exceptions.DecodeError) as caught:
        redis.read_streams(redis_url, "s:*", SCHEMA)
    assert (caught.value.stream, caught.value.entry_id) == (key, f"{ms}-0")
    lf = redis.scan_streams(redis_url, "s:*", SCHEMA)
    with pytest.raises((redis.exceptions.DecodeError, pl.exceptions.ComputeError), match=key):
        lf.collect()
    before = sum(lengths[other] for other in keys if other <= key)
    assert lf.head(before).collect().height == before


# -- streams that change ------------------------------------------------------


def test_streams_that_vanish_or_become_something_else(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy]
) -> None:
    expected = fill(client, LENGTHS)
    proxy = make_proxy(server)
    # What is asked for now is not yet all of it.
    proxy.set_fault(Fault(stall_after=100_000), connection=1)
    url = proxy.rewrite(server.url)
    frames: list[pl.DataFrame] = []
    with meanwhile(lambda: frames.append(redis.read_streams(url, "s:*", SCHEMA))):
        wait_until(lambda: proxy.bytes_down >= 100_000)
        client.delete("s:150")
        client.set("s:199", client.delete("s:199"))
        proxy.heal()
    gone = pl.col("_key").is_in(["s:150", "s:199"])
    assert_frame_equal(frames[0], expected.filter(~gone))


def test_streams_that_come_go_and_grow_all_the_time(client: redis_py.Redis, server: Server) -> None:
    expected = fill(client, LENGTHS)
    done = threading.Event()

    def change() -> None:
        mine = server.client()
        while not done.is_set():
            for n in range(0, 200, 10):
                mine.xadd(f"s:{n:03}", {"n": -1})
                mine.xadd(f"s:{n:03}:new", {"n": -1})
                mine.delete(f"s:{n:03}:new")

    with meanwhile(change):
        try:
            df = redis.read_streams(server.url, "s:*", SCHEMA)
        finally:
            done.set()
    assert_frame_equal(df.filter(pl.col("n") >= 0), expected)
    assert df["_key"].is_sorted()


# -- clusters -----------------------------------------------------------------


@pytest.fixture
def thirty(cluster: Cluster) -> pl.DataFrame:
    """Thirty streams on three nodes, some of them long."""
    lengths = {f"s:{n}": 5000 if n % 9 == 4 else n for n in range(1, 31)}
    client = cluster.client()
    client.flushall(target_nodes=client.PRIMARIES)
    expected = fill(client, lengths)
    nodes = {cluster.node_of(key) for key in lengths}
    assert len(nodes) == 3
    return expected


@pytest.mark.parametrize("count", [None, 3, 2000])
def test_a_cluster_has_what_its_nodes_have(
    cluster: Cluster, thirty: pl.DataFrame, count: int | None
) -> None:
    df = redis.read_streams(cluster.url, "s:*", SCHEMA, count_per_stream=count)
    expected = thirty.group_by("_key", maintain_order=True).head(count or 9999)
    assert_frame_equal(df, expected.select(thirty.columns))
    for node in cluster.masters:
        assert redis.read_streams(node.url, "s:*", SCHEMA).height == thirty.height


@every_engine
def test_a_scan_of_a_cluster(cluster: Cluster, thirty: pl.DataFrame, engine: Any) -> None:
    lf = redis.scan_streams(cluster.url, "s:*", SCHEMA)
    assert_frame_equal(lf.collect(engine=engine), thirty)
    for rows in [1, 10, 5000, 9000]:
        assert_frame_equal(lf.head(rows).collect(engine=engine), thirty.head(rows))
    some = pl.col("_key").str.ends_with("3") & (pl.col("_ts") < 100)
    assert_frame_equal(lf.filter(some).collect(engine=engine), thirty.filter(some))
    one = lf.filter(pl.col("_key") == "s:13").collect(engine=engine)
    assert_frame_equal(one, thirty.filter(pl.col("_key") == "s:13"))
    untyped = redis.scan_streams(cluster.url, "s:*").collect(engine=engine)
    assert_frame_equal(untyped.cast({"n": pl.Int64}), thirty)


def test_the_first_entry_of_a_cluster_that_does_not_fit(
    cluster: Cluster, thirty: pl.DataFrame
) -> None:
    is_told(thirty)
    client = cluster.client()
    for key in ["s:13", "s:22", "s:9", "s:30", "s:4"]:
        client.xadd(key, {"n": f"boom of {key}"}, id="9000-0")
    for _ in range(5):
        with pytest.raises(redis.exceptions.DecodeError, match='stream "s:13", entry 9000-0'):
            redis.read_streams(cluster.url, "s:*", SCHEMA)


def test_replicas_of_a_cluster(cluster: Cluster, thirty: pl.DataFrame) -> None:
    def read() -> pl.DataFrame:
        return redis.read_streams(cluster.url, "s:*", SCHEMA, read_from="replica")

    wait_until(lambda: read().height == thirty.height)
    assert_frame_equal(read(), thirty)


@pytest.mark.parametrize("until", ["begun", "moved", "finished"])
def test_a_slot_that_moves(make_cluster: Callable[..., Cluster], until: str) -> None:
    cluster = make_cluster()
    lengths = {f"s:{n}": n for n in range(1, 20)} | {f"s:{{moving}}:{n}": 2500 for n in range(3)}
    expected = fill(cluster.client(), lengths)
    assert_frame_equal(redis.read_streams(cluster.url, "s:*", SCHEMA), expected)
    source = cluster.node_of("s:{moving}:0")
    target = next(node for node in cluster.masters if node is not source)
    migration = cluster.migrate("s:{moving}:0", target).begin()
    if until != "begun":
        migration.move_keys()
    if until == "finished":
        migration.finish()
    assert_frame_equal(redis.read_streams(cluster.url, "s:*", SCHEMA), expected)
    lf = redis.scan_streams(cluster.url, "s:*", SCHEMA)
    assert_frame_equal(lf.collect(engine="streaming"), expected)


def test_slots_that_move_while_they_are_read(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    lengths = {f"s:{{{tag}}}:{n}": 700 for tag in range(12) for n in range(10)}
    expected = fill(cluster.client(), lengths)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            assert_frame_equal(redis.read_streams(cluster.url, "s:*", SCHEMA), expected)

    with meanwhile(read):
        try:
            for tag in range(12):
                key = f"s:{{{tag}}}:0"
                source = cluster.node_of(key)
                target = next(node for node in cluster.masters if node is not source)
                cluster.migrate(key, target).run()
        finally:
            done.set()


def test_a_master_of_a_cluster_that_is_killed(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(replicas=1)
    client = cluster.client()
    expected = fill(client, {f"s:{n}": 100 for n in range(60)})
    for node in cluster.masters:
        node.kept_client().wait(1, 30_000)
    assert_frame_equal(redis.read_streams(cluster.url, "s:*", SCHEMA), expected)
    victim = cluster.masters[-1]
    slots = cluster.kill(victim)
    cluster.wait_until_failed_over(victim, slots)
    assert_frame_equal(redis.read_streams(cluster.url, "s:*", SCHEMA), expected)
