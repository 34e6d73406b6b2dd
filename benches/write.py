"""Writes of polars-redis beside a bare socket and pipelines of redis-py.

Entries of a stream, hashes, memory, and what a neighbour of the writer waits. Prints a Markdown
table a section: what was measured, the goal, and whether it was met. Only the ratios mean
something from one machine to the next. ``--quick`` shows that it runs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import redis

from common import (
    HERE,
    STREAM,
    Results,
    Row,
    arguments,
    binaries,
    compared,
    interleave,
    judge,
    measure,
    middle,
    table,
)
from embedded_redis import EmbeddedRedis

SCRIPT = "writers.py"
VERBS = {
    "entries": "write_stream",
    "append": 'write_hashes, "append"',
    "replace": 'write_hashes, "replace"',
}
#: What a write may take beside the frame and what it gives back.
MOST_MIB = 32


def written(server: EmbeddedRedis, name: str, rows: int) -> dict[str, Any]:
    """Run one contender once, on an empty server."""
    with redis.Redis(server.host, server.port) as client:
        client.flushall()
    return measure(server, name, rows, script=SCRIPT)


def section(server: EmbeddedRedis, verb: str, rows: int, rounds: int) -> None:
    """One verb beside the bare socket and redis-py, and its memory."""
    bare, by_hand = f"{verb}, bare", f"{verb}, redis-py"
    results = interleave([verb, bare], rounds, lambda name: written(server, name, rows))
    # It takes long, and its ratio is far from the goal.
    slow = interleave([verb, by_hand], max(2, rounds // 3), lambda n: written(server, n, rows))
    print("\n| contender | wall s | client CPU s | peak over base MiB |\n|---|---|---|---|")
    for name, runs in {**slow, **results}.items():
        figures = [f"{middle(runs, key):.3f}" for key in ("wall", "cpu")]
        print(f"| {name} | {' | '.join(figures)} | {middle(runs, 'peak'):.0f} |")
    rows_of = [
        compared(results, verb, bare, f"{verb} / bare socket", 1.2, most=True),
        compared(slow, by_hand, verb, f"redis-py / {verb}", 8, most=False),
        memory(results, verb),
    ]
    table(f"{VERBS[verb]} of {rows:,} rows", rows_of)


def memory(results: Results, verb: str) -> Row:
    """What it takes beside the frame, and beside the IDs that it gives back."""
    given = middle(results[verb], "frame") if verb == "entries" else 0
    peak = middle(results[verb], "peak")
    told = f"peak {peak:.1f} MiB over base, {given:.1f} MiB of it given back"
    return judge("MiB", told, peak - given, MOST_MIB, most=True, digits=0)


def section_neighbours(server: EmbeddedRedis, rows: int) -> None:
    """How long another client waits for a PING while rows are written."""
    rows_of = []
    for name in ("entries", "entries, bare"):
        waits = neighbour(server, name, rows)
        told = f"p50 {waits[len(waits) // 2]:.1f} ms, max {waits[-1]:.1f} ms"
        p99 = waits[len(waits) * 99 // 100]
        rows_of.append(judge(f"ms, p99, {name}", told, p99, 20, most=True))
    table("A neighbour's PING", rows_of)


def neighbour(server: EmbeddedRedis, name: str, rows: int) -> list[float]:
    """What the PINGs take meanwhile, in ms, in order."""
    words = [sys.executable, str(HERE / SCRIPT), name, server.host, str(server.port)]
    waits = []
    with redis.Redis(server.host, server.port) as client:
        client.flushall()
        process = subprocess.Popen(
            [*words, STREAM, str(rows)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.write("go\n")
        process.stdin.flush()
        while process.poll() is None:
            begun = time.perf_counter()
            client.ping()
            waits.append((time.perf_counter() - begun) * 1e3)
        process.communicate()
    return sorted(waits)


def main() -> None:
    """Run the sections asked for."""
    wanted = arguments(__doc__, (*VERBS, "neighbours"))
    for binary in binaries(wanted.servers):
        with EmbeddedRedis(binary) as server:
            for verb in VERBS:
                if verb in wanted.only:
                    section(server, verb, wanted.entries, wanted.rounds)
            if "neighbours" in wanted.only:
                section_neighbours(server, wanted.entries)


if __name__ == "__main__":
    main()
