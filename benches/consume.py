"""Consuming with polars-redis beside redis-py and a bare socket, in turn, on one server.

Groups, batches, latency, acknowledging, memory, idleness. Prints a Markdown table a section: what
was measured, the goal, and whether it was met. Only the ratios mean something from one machine to
the next. ``--quick`` shows that it runs; ``--ten-million`` adds the memory of a long iteration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis

from common import (
    STREAM,
    Row,
    against,
    arguments,
    binaries,
    compared,
    fill,
    interleave,
    judge,
    measure,
    middle,
    table,
)
from consumers import ECHO, GROUP, read_group
from contenders import drain
from embedded_redis import Binary, EmbeddedRedis

SCRIPT = "consumers.py"
TAILED = "tailed"
NOTHING = "nothing"
#: Entries of one command where a group is filled, not measured.
FILL = 10_000


@contextmanager
def group(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """Make a group that nobody has read with, and destroy it at the end."""
    with redis.Redis(server.host, server.port, decode_responses=True) as client:
        client.xgroup_create(STREAM, GROUP, "0")
        try:
            yield client
        finally:
            client.xgroup_destroy(STREAM, GROUP)


def expect_pending(client: redis.Redis, entries: int) -> None:
    """Stop where a contender did not do what was measured."""
    summary: Any = client.xpending(STREAM, GROUP)
    if summary["pending"] != entries:
        msg = f"{summary['pending']} entries are pending, not {entries}"
        raise RuntimeError(msg)


def in_group(server: EmbeddedRedis, entries: int, name: str) -> dict[str, Any]:
    """Measure a contender that reads all entries in a group of its own."""
    with group(server) as client:
        result = measure(server, name, entries, script=SCRIPT)
        expect_pending(client, entries)
        return result


def acknowledging(server: EmbeddedRedis, entries: int, name: str) -> dict[str, Any]:
    """Measure a contender that acknowledges all entries."""
    with group(server) as client:
        commands = read_group(STREAM, FILL) * -(-entries // FILL)
        drain(server.host, server.port, commands + ECHO)
        expect_pending(client, entries)
        result = measure(server, name, entries, script=SCRIPT)
        expect_pending(client, 0)
        return result


def tailing(server: EmbeddedRedis, adds: int, name: str) -> dict[str, Any]:
    """Measure a contender that follows a stream of its own."""
    with redis.Redis(server.host, server.port) as client:
        client.delete(TAILED)
        return measure(server, name, adds, script=SCRIPT, stream=TAILED)


def beside(rounds: int) -> int:
    """Rounds with redis-py, which takes several times as long."""
    return max(2, rounds // 3)


def section_group(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """All entries as new ones of a group."""
    once = partial(in_group, server, entries)
    results = interleave(["group_bare", "group_ours"], rounds, once)
    slow = interleave(["group_redis_py", "group_ours"], beside(rounds), once)
    bare = "ours / bare socket"
    py = "redis-py + Polars / ours"
    table(
        f"Group, {entries:,} entries, batch_size=1000, auto_ack=False",
        [
            compared(results, "group_ours", "group_bare", bare, 1.2, most=True),
            compared(slow, "group_redis_py", "group_ours", py, 3, most=False),
        ],
    )


def section_batches(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """A backlog in small batches."""

    def once(name: str) -> dict[str, Any]:
        return measure(server, name, entries, script=SCRIPT)

    results = interleave(["batches_bare", "batches_ours"], rounds, once)
    ways = {
        "cast": "redis-py + Polars, lists cast by Polars / ours",
        "numbers": "redis-py + Polars, lists of Python's numbers / ours",
    }
    names = [f"batches_redis_py_{way}" for way in ways]
    slow = interleave([*names, "batches_ours"], beside(rounds), once)
    rows = [
        compared(slow, f"batches_redis_py_{way}", "batches_ours", what, 10, most=False)
        for way, what in ways.items()
    ]
    bare = "ours / bare socket, all pages sent at once"
    rows.append(compared(results, "batches_ours", "batches_bare", bare, 2, most=True))
    table(f"Position, {entries:,} entries, batch_size=100", rows)


def section_latency(server: EmbeddedRedis, adds: int, rounds: int) -> None:
    """From XADD to the frame in the user's hands."""
    pairs = {"tail_ours": "tail_redis_py", "tail_ours_async": "tail_redis_py_async"}
    names = [name for pair in pairs.items() for name in pair]
    results = interleave(names, rounds, partial(tailing, server, adds))
    rows = []
    for ours, theirs in pairs.items():
        other = "redis.asyncio" if ours.endswith("async") else "redis-py"
        for key in ("p50", "p99"):
            ratio, by_pair = against(results, ours, theirs, key)
            told = f"{middle(results[ours], key):.3f} ms / {middle(results[theirs], key):.3f} ms"
            told = f"{told}; {by_pair:.2f} by pairs"
            rows.append(judge(f"{key}, ours / {other} + Polars", told, ratio, 0.6, most=True))
    table(f"XADD to frame, {adds:,} entries a run", rows)


def section_streams(server: EmbeddedRedis, adds: int, rounds: int) -> None:
    """From XADD to the frame in the user's hands, of one stream of a thousand."""
    pairs = {"tail_thousand": "tail_ours", "tail_group_thousand": "tail_group"}
    names = [name for pair in pairs.items() for name in pair]
    results = interleave(names, rounds, partial(tailing, server, adds))
    rows = []
    for thousand, one in pairs.items():
        ratio, by_pair = against(results, thousand, one, "p50")
        told = f"{middle(results[thousand], 'p50'):.3f} ms / {middle(results[one], 'p50'):.3f} ms"
        told = f"{told}; {by_pair:.2f} by pairs"
        what = "with a group" if "group" in one else "without a group"
        rows.append(judge(f"p50, 1,000 streams / one, {what}", told, ratio, 2, most=True))
    table(f"XADD to frame, 1,000 streams, {adds:,} entries a run", rows)


def section_ack(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """All entries acknowledged in one call."""
    names = ["ack_bare", "ack_series", "ack_list", "ack_redis_py"]
    results = interleave(names, rounds, partial(acknowledging, server, entries))
    rows = [
        compared(results, f"ack_{kind}", "ack_bare", f"ours, a {kind} / bare XACKs", 1.2, most=True)
        for kind in ("series", "list")
    ]
    py = "redis-py, a thousand a call / ours, a list"
    rows.append(compared(results, "ack_redis_py", "ack_list", py, 1, most=False))
    table(f"ack_entries of {entries:,} IDs", rows)


def section_idle(server: EmbeddedRedis, seconds: int) -> None:
    """What waiting costs."""
    rows = []
    for name in ("idle", "idle_async"):
        for block_ms in (1000, 0):
            told = measure(server, f"{name}_{block_ms}", seconds, script=SCRIPT, stream=NOTHING)
            iterator = "iter_stream_async" if name == "idle_async" else "iter_stream"
            what = f"{iterator}, block_ms={block_ms}: CPU seconds a second"
            measured = f"{told['cpu'] * 1e3:.1f} ms in {told['wall']:.1f} s"
            used = told["cpu"] / told["wall"]
            rows.append(judge(what, measured, used, 0.01, most=True, digits=4))
    table("Blocked and idle", rows)


def section_memory(server: EmbeddedRedis, entries: int) -> None:
    """Memory of an iteration whose frames are dropped, in a group."""
    told = in_group(server, entries, "memory_group")
    table(f"Memory, group, {entries:,} entries, auto_ack=False", [_growth(told)])


def section_ten_million(binary: Binary, entries: int) -> None:
    """Memory of a long iteration whose frames are dropped."""
    with EmbeddedRedis(binary) as server:
        fill(server, 10 * entries)
        told = measure(server, "memory_position", 10 * entries, script=SCRIPT)
    table(f"Memory, position, {10 * entries:,} entries, batch_size=1000", [_growth(told)])


def _growth(told: dict[str, Any]) -> Row:
    measured = f"{told['base']:.0f} MiB after the first batches"
    return judge("growth from there, MiB", measured, told["growth"], 50, most=True)


def run(server: EmbeddedRedis, only: set[str], entries: int, rounds: int) -> None:
    """Run sections against one server."""
    is_small = entries < 100_000
    if "group" in only:
        section_group(server, entries, rounds)
    if "batches" in only:
        section_batches(server, entries, rounds)
    if "latency" in only:
        section_latency(server, 200 if is_small else 2000, max(2, rounds // 2))
    if "streams" in only:
        section_streams(server, 200 if is_small else 2000, max(2, rounds // 2))
    if "ack" in only:
        section_ack(server, entries, rounds)
    if "idle" in only:
        section_idle(server, 1 if is_small else 5)
    if "memory" in only:
        section_memory(server, entries)


def main() -> None:
    """Run the sections asked for."""
    sections = ("group", "batches", "latency", "streams", "ack", "idle", "memory")
    wanted = arguments(__doc__, sections)
    for binary in binaries(wanted.servers):
        with EmbeddedRedis(binary) as server:
            fill(server, wanted.entries)
            run(server, wanted.only, wanted.entries, wanted.rounds)
        if wanted.ten_million:
            section_ten_million(binary, wanted.entries)


if __name__ == "__main__":
    main()
