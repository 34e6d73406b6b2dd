"""How long a reader is without entries when the master dies, beside the failover itself.

A stream is written to and tailed; its master is killed. The failover has taken as long as it takes
until there is a new master for all to see (with sentinels: one of them names it) that accepts an
entry; the reader's gap is as long as it takes until that entry is in a frame. Prints a Markdown table. Needs ``tests`` on the Python path, beside ``examples``.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import redis

import polars_redis
from common import Row, arguments, judge, table
from support.servers import Server
from support.topologies import Cluster, Sentinels

STREAM = "events"
#: What the reader may need beyond the failover.
GOAL_S = 1.0


def add(servers: list[Server], stream: str) -> None:
    """Add an entry to whichever server takes it, as soon as one does."""
    clients = [server.client(socket_timeout=1) for server in servers]
    while True:
        for client in clients:
            try:
                client.xadd(stream, {"sent": time.perf_counter()})
            except redis.RedisError:
                continue
            return
        time.sleep(0.002)


def gap(url: str, stream: str, kill: Callable[[], list[Server]]) -> tuple[float, float]:
    """Seconds from the kill: until an entry was taken, until it was in a frame."""
    seen: list[float] = []
    batches = polars_redis.iter_stream(url, stream, start_id="$", block_ms=1000)

    def follow() -> None:
        for _ in batches:
            seen.append(time.perf_counter())

    with batches:
        reader = threading.Thread(target=follow)
        reader.start()
        killed = time.perf_counter()
        left = kill()
        add(left, stream)
        taken = time.perf_counter()
        while not seen or seen[-1] < taken:
            time.sleep(0.001)
    reader.join()
    return taken - killed, seen[-1] - killed


def of_sentinels() -> tuple[float, float]:
    """The master that sentinels watch."""
    with Sentinels() as deployment:
        deployment.master().client().xadd(STREAM, {"sent": 0})

        def kill() -> list[Server]:
            old = deployment.kill_master()
            while (new := deployment.master()) is old:
                time.sleep(0.002)
            return [new]

        return gap(deployment.url(), STREAM, kill)


def of_a_cluster() -> tuple[float, float]:
    """One of a cluster's masters."""
    with Cluster(replicas=1) as deployment:
        node = deployment.masters[1]
        stream = deployment.key_of(node, STREAM)
        node.client().xadd(stream, {"sent": 0})
        followers = deployment.replicas_of(node)

        def kill() -> list[Server]:
            deployment.kill(node)
            return followers

        return gap(deployment.url, stream, kill)


def rows(what: str, once: Callable[[], tuple[float, float]], rounds: int) -> list[Row]:
    """The failovers of one kind of deployment."""
    found = [once() for _ in range(rounds)]
    beyond = [reader - failover for failover, reader in found]
    told = ", ".join(f"{reader:.2f} of {failover:.2f} s" for failover, reader in found)
    name = f"{what}: gap beyond the failover, s"
    return [
        judge(f"{name}, median", told, statistics.median(beyond), GOAL_S, most=True),
        judge(f"{name}, longest", "", max(beyond), GOAL_S, most=True),
    ]


SECTIONS = {"sentinel": ("Sentinel", of_sentinels), "cluster": ("Cluster", of_a_cluster)}


def main() -> None:
    """Run what was asked for, once: what takes its time is the servers' own patience."""
    options = arguments(__doc__, list(SECTIONS))
    for section, (title, once) in SECTIONS.items():
        if section in options.only:
            table(title, rows(title, once, options.rounds))


if __name__ == "__main__":
    main()
