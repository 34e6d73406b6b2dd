"""`stream_info` where several servers have the streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars_redis as redis
from support.streams import add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.topologies import Cluster, Replicated, Sentinels


def test_streams_of_all_servers_of_a_cluster_are_told_by_key(cluster: Cluster) -> None:
    client = cluster.client()
    keys = [f"info:{n:02}" for n in range(30)]
    for n, key in enumerate(keys):
        add_numbered(client, key, [f"{m}-0" for m in range(1, n + 2)])
        client.xgroup_create(key, "g", "0")
    assert len({cluster.node_of(key).port for key in keys}) == 3
    df = redis.stream_info(cluster.url, "info:*")
    assert df["_key"].to_list() == keys
    assert df["length"].to_list() == list(range(1, 31))
    for key in keys[:3]:
        assert redis.stream_info(cluster.url, key)["length"].to_list() == [int(key[-2:]) + 1]
        assert redis.stream_info(cluster.url, key, read_from="replica").height == 1


def test_a_stream_on_its_way_to_another_server_is_told(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster()
    client = cluster.client()
    source, target, *_ = cluster.masters
    moving, staying = cluster.key_of(source, "moving"), cluster.key_of(target, "staying")
    for key in (moving, staying):
        add_numbered(client, key, ["1-0"])
    expected = [moving, staying]

    def told() -> list[str]:
        keys: list[str] = redis.stream_info(cluster.url, "*ing:*")["_key"].to_list()
        return keys

    assert told() == expected
    migration = cluster.migrate(moving, target).begin()
    assert told() == expected
    migration.move_keys()
    assert told() == expected
    assert redis.stream_info(cluster.url, moving)["length"].to_list() == [1]
    migration.finish()
    assert told() == expected


def test_a_replica_tells_what_its_master_does(replicated: Replicated, stream: str) -> None:
    client = replicated.master().client()
    add_numbered(client, stream, ["1-0", "2-0"])
    client.xgroup_create(stream, "g", "1-0")
    replicated.wait_caught_up()
    for pattern in (stream, f"{stream}*"):
        df = redis.stream_info(replicated.url(), pattern, read_from="replica")
        assert df.equals(redis.stream_info(replicated.url(), pattern))
        assert df.select("length", "group").rows() == [(2, "g")]


def test_the_master_that_sentinels_name_tells(sentinels: Sentinels, stream: str) -> None:
    add_numbered(sentinels.master().client(), stream, ["1-0"])
    for pattern in (stream, f"{stream}*"):
        assert redis.stream_info(sentinels.url(), pattern)["length"].to_list() == [1]
