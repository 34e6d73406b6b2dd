"""Pub/Sub in a cluster: sharded channels are with the servers that have their slots."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis
from polars_redis.exceptions import ResponseError
from support.iterators import KINDS, PATIENCE, connections_of, iterating, meanwhile, wait_until
from support.iterators import named as with_name
from support.publishing import listen_until, publish, repeating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Server
    from support.topologies import Cluster

#: By this name the servers list the connections that a test is about.
NAME = "listens"


@pytest.fixture(params=KINDS)
def iter_pubsub(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Both kinds of iterator, driven alike, over sharded channels; each batch as soon as it is."""
    with iterating(request.param, "iter_pubsub") as make:

        def make_sharded(
            cluster: Cluster, channels: Any, *, timeout: int = 60, **options: Any
        ) -> Any:
            url = f"{with_name(cluster.url, NAME)}&socket_timeout={timeout}"
            return make(url, channels, **{**SHARDED, **options})

        yield make_sharded


SHARDED: dict[str, Any] = {"sharded": True, "batch_timeout_ms": 0, "include_channel": True}


def spublish(node: Server, channel: str, messages: Any) -> list[Any]:
    return publish(node.kept_client(), channel, messages, "SPUBLISH")


def saying(node: Server, channel: str, message: str) -> Any:
    return repeating(node.kept_client(), channel, message, "SPUBLISH")


def in_cluster(node: Server, *words: object) -> Any:
    return node.kept_client().execute_command("CLUSTER", *words)


def lines_to(node: Server) -> set[str]:
    """The subscribed connections that a server has."""
    known = connections_of(node.kept_client(), NAME)
    return {line["id"] for line in known if "P" in line["flags"]}


def channel_of_each(cluster: Cluster) -> dict[str, Server]:
    """A channel on each master."""
    return {cluster.key_of(node): node for node in cluster.masters}


def channels_of(cluster: Cluster, node: Server, number: int) -> list[str]:
    """So many channels on a master, each of another slot."""
    names = (f"events:{{{n}}}" for n in itertools.count())
    return list(itertools.islice((n for n in names if cluster.node_of(n) is node), number))


def read_until(messages: Any, *last: str) -> dict[str, list[str]]:
    """What comes of each channel, in the order in which it comes, until all these have come."""
    seen: dict[str, list[str]] = {}
    while not {text for texts in seen.values() for text in texts}.issuperset(last):
        for name, text in next(messages).rows():
            seen.setdefault(name, []).append(text)
    return seen


def test_any_server_will_do(iter_pubsub: Callable[..., Any], cluster: Cluster, stream: str) -> None:
    with iter_pubsub(cluster, f"{stream}*", sharded=False, pattern=True, count=9) as messages:
        for number, node in enumerate(cluster.masters * 3):
            node.kept_client().publish(f"{stream}:{number}", "hello")
        seen = {name for df in messages for name in df["_channel"]}
    assert seen == {f"{stream}:{number}" for number in range(9)}


def test_channels_on_one_server(iter_pubsub: Callable[..., Any], cluster: Cluster) -> None:
    for node in cluster.masters:
        channels = channels_of(cluster, node, 2)
        with iter_pubsub(cluster, channels, count=2) as messages:
            lines = {other.port: len(lines_to(other)) for other in cluster.masters}
            assert lines == {other.port: int(other is node) for other in cluster.masters}
            for name in channels:
                assert spublish(node, name, [name]) == [1]
            assert pl.concat(list(messages))["message"].to_list() == channels
            assert messages.stats.reconnects == 0


def test_channels_on_all_servers(iter_pubsub: Callable[..., Any], cluster: Cluster) -> None:
    nodes = {name: node for node in cluster.masters for name in channels_of(cluster, node, 20)}
    texts = [str(n) for n in range(300)]
    with iter_pubsub(cluster, nodes, batch_size=70, count=len(nodes) * len(texts)) as messages:
        # All is confirmed.
        assert [len(lines_to(node)) for node in cluster.masters] == [1, 1, 1]
        for begin in range(0, len(texts), 50):
            for name, node in nodes.items():
                assert spublish(node, name, texts[begin : begin + 50]) == [1] * 50
        df = pl.concat(list(messages))
    seen = {name: part["message"].to_list() for (name,), part in df.group_by("_channel")}
    assert seen == dict.fromkeys(nodes, texts)
    stats = messages.stats
    assert (stats.messages, stats.gaps, stats.reconnects) == (df.height, 0, 0)
    assert stats["bytes"] > df["message"].str.len_bytes().sum()
    wait_until(lambda: not any(lines_to(node) for node in cluster.masters))


def test_collecting(cluster: Cluster) -> None:
    nodes = channel_of_each(cluster)

    def publish_all() -> None:
        for name, node in nodes.items():
            wait_until(lambda node=node, name=name: spublish(node, name, [name]) == [1])

    with meanwhile(publish_all):
        df = polars_redis.collect_pubsub(cluster.url, nodes, sharded=True, count=3)
    assert sorted(df["message"]) == sorted(nodes)
    # Time counts from when all are subscribed.
    assert polars_redis.collect_pubsub(cluster.url, nodes, sharded=True, timeout_ms=1).is_empty()


def test_lines_take_turns(iter_pubsub: Callable[..., Any], cluster: Cluster) -> None:
    (busy, node), (quiet, other), _ = channel_of_each(cluster).items()
    with iter_pubsub(
        cluster, [busy, quiet], batch_size=10, buffer_size=100, batch_timeout_ms=60_000
    ) as messages:
        spublish(node, busy, range(5000))
        spublish(other, quiet, ["quiet"])
        seen = read_until(messages, "quiet")
    # As many as are held, twice, and what was on the way.
    assert len(seen.get(busy, [])) < 500


def test_only_what_is_lost_is_subscribed_again(
    iter_pubsub: Callable[..., Any], cluster: Cluster, told: Callable[[], list[str]]
) -> None:
    nodes = channel_of_each(cluster)
    (cut, node), *others = nodes.items()
    with iter_pubsub(cluster, nodes) as messages:
        lines = {name: lines_to(node) for name, node in nodes.items()}
        for name, other in others:
            spublish(other, name, ["before"])
        node.kept_client().client_kill_filter(_id=next(iter(lines[cut])))
        for name, other in others:
            assert spublish(other, name, ["after"]) == [1]
        with saying(node, cut, "again"):
            seen = read_until(messages, "again")
        for name, other in others:
            assert seen[name] == ["before", "after"]
            assert lines_to(other) == lines[name]
        assert not lines[cut] & lines_to(node)
        assert (messages.stats.gaps, messages.stats.reconnects) == (1, 1)
    lost, again = told()
    assert "trying again" in lost
    assert "messages that were published meanwhile were missed" in again
    assert f":{node.port}: " in lost
    assert f":{node.port}: " in again


def test_a_silent_server_keeps_no_other_waiting(
    iter_pubsub: Callable[..., Any],
    make_cluster: Callable[..., Cluster],
    told: Callable[[], list[str]],
) -> None:
    # No other is to be told that it failed.
    cluster = make_cluster(node_timeout_ms=60_000)
    nodes = channel_of_each(cluster)
    (silent, node), *others = reversed(nodes.items())
    with iter_pubsub(cluster, nodes, timeout=3) as messages:
        node.pause()
        try:
            deadline = time.monotonic() + PATIENCE
            while not any("was silent" in warning for warning in told()):
                assert time.monotonic() < deadline, "it was never noticed"
                for name, other in others:
                    assert spublish(other, name, [name]) == [1]
                read_until(messages, *(name for name, _ in others))
        finally:
            node.resume()
        with saying(node, silent, "again"):
            read_until(messages, "again")
        assert messages.stats.gaps == 1
    assert all(f":{node.port}: " in warning for warning in told())


def test_a_line_is_made_again_however_busy_another_is(
    iter_pubsub: Callable[..., Any], cluster: Cluster
) -> None:
    (busy, node), (cut, other), _ = channel_of_each(cluster).items()
    with iter_pubsub(cluster, [busy, cut], batch_size=10, buffer_size=10) as messages:
        spublish(node, busy, range(1000))
        other.kept_client().client_kill_filter(_id=lines_to(other).pop())
        deadline = time.monotonic() + PATIENCE
        while spublish(other, cut, ["again"]) == [0]:
            assert time.monotonic() < deadline, "it was never subscribed again"
            # There is always more.
            spublish(node, busy, range(10))
            assert next(messages)["_channel"].to_list() == [busy] * 10
        read_until(messages, "again")


@pytest.mark.parametrize("to", ["a server of others", "a new server"])
def test_only_what_moves_is_subscribed_again(
    iter_pubsub: Callable[..., Any],
    make_cluster: Callable[..., Cluster],
    told: Callable[[], list[str]],
    to: str,
) -> None:
    cluster = make_cluster()
    source, target, third = cluster.masters
    moving, stays = channels_of(cluster, source, 2)
    there = cluster.key_of(target if to == "a server of others" else third)
    # Of one slot.
    moving_all = [f"{moving}:{n}" for n in range(3)]
    nodes = {stays: source, there: cluster.node_of(there)}
    with iter_pubsub(cluster, [*moving_all, *nodes]) as messages:
        for name in moving_all:
            spublish(source, name, ["before"])
        for name, node in nodes.items():
            spublish(node, name, ["before"])
        lines = {name: lines_to(node) for name, node in nodes.items()}
        cluster.migrate(moving, target).run()
        for name, node in nodes.items():
            assert spublish(node, name, ["after"]) == [1]
        # What was sent before comes first, whoever sent it.
        seen: dict[str, list[str]] = {}
        for name in moving_all:
            with saying(target, name, f"again {name}"):
                for known, texts in read_until(messages, f"again {name}").items():
                    seen.setdefault(known, []).extend(texts)
        for name in nodes:
            assert seen[name] == ["before", "after"]
        for name in moving_all:
            assert seen[name][0] == "before"
            assert set(seen[name][1:]) == {f"again {name}"}
        assert {name: lines_to(node) for name, node in nodes.items()} == lines
        assert len(lines_to(target)) == 1
        assert (messages.stats.gaps, messages.stats.reconnects) == (1, 0)
    # The new line may have the first of them before the old one is told of the last.
    warnings = told()
    assert 1 <= len(warnings) <= len(moving_all)
    assert all("messages that were published meanwhile were missed" in t for t in warnings)


def test_a_slot_that_moves_to_and_fro(
    iter_pubsub: Callable[..., Any], make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster()
    source, target, _ = cluster.masters
    channel = cluster.key_of(source)
    with iter_pubsub(cluster, channel) as messages:
        for number, (node, other) in enumerate([(source, target), (target, source)] * 3):
            with saying(node, channel, str(number)):
                listen_until(messages, str(number))
            assert (len(lines_to(node)), len(lines_to(other))) == (1, 0)
            assert messages.stats.gaps == number
            cluster.migrate(channel, other).run()


@pytest.mark.parametrize("by", ["nobody", "one says the other"])
def test_a_channel_that_nobody_has_waits_by_itself(
    iter_pubsub: Callable[..., Any],
    make_cluster: Callable[..., Cluster],
    told: Callable[[], list[str]],
    by: str,
) -> None:
    cluster = make_cluster(cluster_require_full_coverage=False)
    source, target, _ = cluster.masters
    moving, stays = channels_of(cluster, source, 2)
    there = cluster.key_of(target)
    nodes = {stays: source, there: target}
    migration = cluster.migrate(moving, target)
    with iter_pubsub(cluster, [moving, *nodes]) as messages:
        lines = {name: lines_to(node) for name, node in nodes.items()}
        if by == "nobody":
            in_cluster(source, "DELSLOTS", migration.slot)
        else:
            in_cluster(source, "SETSLOT", migration.slot, "NODE", in_cluster(target, "MYID"))
        for name, node in nodes.items():
            spublish(node, name, [name])
        while not any("trying again" in warning for warning in told()):
            read_until(messages, stays, there)
            for name, node in nodes.items():
                assert spublish(node, name, [name]) == [1]
        migration.finish()
        with saying(target, moving, "again"):
            read_until(messages, "again")
        assert lines[stays] == lines_to(source)
        assert lines[there] <= lines_to(target)
        assert messages.stats.gaps == 1


def test_a_failover_of_one_server(
    iter_pubsub: Callable[..., Any],
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(replicas=1)
    nodes = channel_of_each(cluster)
    (lost, node), *others = nodes.items()
    with iter_pubsub(cluster, nodes) as messages:
        lines = [lines_to(other) for _, other in others]
        slots = cluster.kill(node)
        for name, other in others:
            assert spublish(other, name, [name]) == [1]
        meanwhile_heard = [name for name, _ in others]
        assert read_until(messages, *meanwhile_heard) == {name: [name] for name in meanwhile_heard}
        cluster.wait_until_failed_over(node, slots)
        with saying(cluster.node_of(lost), lost, "again"):
            read_until(messages, "again")
        assert [lines_to(other) for _, other in others] == lines
        assert messages.stats.gaps == 1


def test_closing_it_ends_the_wait(cluster: Cluster) -> None:
    nodes = channel_of_each(cluster)
    messages = polars_redis.iter_pubsub(with_name(cluster.url, NAME), nodes, sharded=True)
    closed_at = []

    def wait_and_close() -> None:
        wait_until(lambda: all(lines_to(node) for node in nodes.values()))
        messages.close()
        closed_at.append(time.monotonic())

    with meanwhile(wait_and_close):
        assert list(messages) == []
        ended = time.monotonic()
    assert ended - closed_at[0] < 0.2 + PATIENCE / 10
    wait_until(lambda: not any(lines_to(node) for node in nodes.values()))


def test_cancelling_loses_nothing(cluster: Cluster) -> None:
    nodes = channel_of_each(cluster)
    texts = [str(n) for n in range(1000)]

    def publish_slowly() -> None:
        for begin in range(0, len(texts), 10):
            for name, node in nodes.items():
                spublish(node, name, texts[begin : begin + 10])

    async def run() -> pl.DataFrame:
        frames: list[pl.DataFrame] = []
        # Also the way to the servers is broken off, again and again.
        messages = polars_redis.iter_pubsub_async(
            cluster.url, nodes, batch_size=7, **{**SHARDED, "batch_timeout_ms": 3}
        )
        patience, publisher = 0.0001, None
        async with messages:
            publisher = asyncio.create_task(asyncio.to_thread(publish_slowly))
            while sum(df.height for df in frames) < len(nodes) * len(texts):
                try:
                    frames.append(await asyncio.wait_for(anext(messages), patience))
                except asyncio.TimeoutError:
                    patience = patience * 2 if patience < 0.05 else 0.0001
            await publisher
            assert messages.stats.gaps == 0
        return pl.concat(frames)

    df = asyncio.run(run())
    seen = {name: part["message"].to_list() for (name,), part in df.group_by("_channel")}
    assert seen == dict.fromkeys(nodes, texts)


def test_connecting_that_is_broken_off_goes_on(cluster: Cluster) -> None:
    nodes = channel_of_each(cluster)

    async def run() -> None:
        messages = polars_redis.iter_pubsub_async(with_name(cluster.url, NAME), nodes, **SHARDED)
        deadline = time.monotonic() + PATIENCE
        while not all(lines_to(node) for node in nodes.values()):
            assert time.monotonic() < deadline, "it never gets there"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(messages), 0.0001)
        await messages.aclose()

    asyncio.run(run())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_subscribes_for_itself(iter_pubsub: Callable[..., Any], cluster: Cluster) -> None:
    nodes = channel_of_each(cluster)

    def publish_all(text: str, listeners: int) -> list[str]:
        for name, node in nodes.items():
            assert spublish(node, name, [f"{text} {name}"]) == [listeners]
        return [f"{text} {name}" for name in nodes]

    with iter_pubsub(cluster, nodes) as messages:
        read_until(messages, *publish_all("before", 1))
        child = os.fork()
        if child == 0:
            try:
                seen = read_until(messages, *(f"after {name}" for name in nodes))
                expected = {name: [f"after {name}"] for name in nodes}
                os._exit(0 if seen == expected and messages.stats.gaps == 0 else 1)
            finally:
                os._exit(2)
        wait_until(lambda: all(len(lines_to(node)) == 2 for node in nodes.values()))
        after = publish_all("after", 2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        read_until(messages, *after)
        assert messages.stats.gaps == 0


def test_a_refused_channel_is_named(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(acl=["few on >hunter2 &* -@all +ssubscribe"])
    nodes = channel_of_each(cluster)
    refused, node = list(nodes.items())[-1]
    node.kept_client().execute_command("ACL", "SETUSER", "few", "resetchannels")
    url = cluster.url.replace("//", "//few:hunter2@")
    # Who may ask for nothing else is told by the servers what is where.
    with polars_redis.iter_pubsub(url, nodes, **SHARDED) as messages:
        for _ in range(2):
            told = re.escape(f'channel "{refused}": NOPERM')
            with pytest.raises(ResponseError, match=told) as raised:
                next(messages)
            assert "hunter2" not in str(raised.value)
        # Once it may, all are listened to.
        node.kept_client().execute_command("ACL", "SETUSER", "few", "allchannels")
        with saying(node, refused, "at last"):
            read_until(messages, "at last")
        for name, other in nodes.items():
            assert spublish(other, name, [name]) == [1]
        read_until(messages, *nodes)
        assert messages.stats.gaps == 0
