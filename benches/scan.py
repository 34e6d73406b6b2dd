"""Lazy scans of polars-redis beside reading at once, and dtypes beside Polars' own casts.

The whole stream, a filter of time, projection, ``head``, memory of the streaming engine, dtypes.
Prints a Markdown table a section: what was measured, the goal, and whether it was met. Only the
ratios mean something from one machine to the next. ``--quick`` shows that it runs;
``--ten-million`` asks for ``head`` and the memory on a stream ten times as long.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis

import polars_redis
from common import (
    STREAM,
    Row,
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
from embedded_redis import Binary, EmbeddedRedis
from scanners import ENGINES, FIELDS, KINDS, VALUE, Kind, scan, slice_of_time, values

SCRIPT = "scanners.py"
VALUES = "values"
MB = 1e6
MIB_IN_MB = 2**20 / MB
#: What is meant by a few kB.
FEW_KB = 5


def sent(server: EmbeddedRedis, work: Callable[[], object]) -> int:
    """Bytes that the server sends because of some work, by its own counter."""
    with redis.Redis(server.host, server.port) as client:

        def counter() -> int:
            stats: Any = client.info("stats")
            return int(stats["total_net_output_bytes"])

        # The reply that tells the counter is itself counted.
        before, between = counter(), counter()
        work()
        return counter() - between - (between - before)


def section_full(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """The whole stream."""
    scans = [f"scan {engine}" for engine in ENGINES]
    once = partial(measure, server, amount=entries, script=SCRIPT)
    results = interleave(["read", *scans], rounds, once)
    rows = [
        compared(results, name, "read", f"{name} / read_stream", 1.05, most=True) for name in scans
    ]
    print("\n| contender | wall s | client CPU s | peak over base MiB |\n|---|---|---|---|")
    for name, runs in results.items():
        figures = [f"{middle(runs, key):.3f}" for key in ("wall", "cpu")]
        print(f"| {name} | {' | '.join(figures)} | {middle(runs, 'peak'):.0f} |")
    table(f"scan_stream(...).collect() of {entries:,} entries", rows)


def section_filter(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """A filter of the timestamp that keeps one entry of a hundred."""
    once = partial(measure, server, amount=entries, script=SCRIPT)
    pairs = {f"1 % {engine}": f"scan {engine}" for engine in ENGINES}
    results = interleave([name for pair in pairs.items() for name in pair], rounds, once)
    whole = scan(server.url, STREAM)
    kept, _ = slice_of_time(whole, entries)
    rows = []
    for engine in ENGINES:
        few, all_of_it = (
            sent(server, partial(frame.collect, engine=engine)) for frame in (kept, whole)
        )
        told = f"{few:,} / {all_of_it:,}"
        what = f"bytes, filter / full, {engine}"
        rows.append(judge(what, told, few / all_of_it, 0.02, most=True, digits=4))
    for few_of, all_of in pairs.items():
        rows.append(compared(results, few_of, all_of, f"{few_of} / {all_of}", 0.05, most=True))
    table("A filter of _ts that keeps 1 %", rows)


def section_projection(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """One field of four."""
    once = partial(measure, server, amount=entries, script=SCRIPT)
    wholes = {"fields": "all four, no ID", "scan in-memory": "all four and the ID's columns"}
    results = interleave([*wholes, *FIELDS], rounds, once)
    table(
        "Client CPU, 1 field of 4",
        [
            compared(results, field, whole, f"{field} / {what}", 0.6, most=True, key="cpu")
            for whole, what in wholes.items()
            for field in FIELDS
        ],
    )


def section_head(server: EmbeddedRedis, entries: int, calls: int) -> None:
    """The first rows of a long stream."""
    head = scan(server.url, STREAM).head(10)
    client = redis.Redis(server.host, server.port)
    works: dict[str, Callable[[], object]] = {
        "ping": client.ping,
        **{engine: partial(head.collect, engine=engine) for engine in ENGINES},
    }
    waits: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(calls):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            waits[name].append((time.perf_counter() - begun) * 1e3)
    ping = statistics.median(waits["ping"])
    rows = []
    for engine in ENGINES:
        p50, p99 = statistics.median(waits[engine]), statistics.quantiles(waits[engine], n=100)[-1]
        told = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; PING p50 {ping:.2f} ms"
        rows.append(judge(f"ms over a PING, {engine}", told, p50 - ping, 5, most=True))
    for engine in ENGINES:
        count = sent(server, works[engine])
        told = f"{count:,} bytes"
        rows.append(judge(f"kB, {engine}", told, count / 1e3, FEW_KB, most=True))
    table(f"head(10) of {entries:,} entries", rows)


def section_memory(server: EmbeddedRedis, entries: int) -> None:
    """What a group_by takes on the streaming engine."""
    rows = []
    for field in ("action", "user_id"):
        told = measure(server, f"group by {field}", entries, script=SCRIPT)
        measured = f"peak {told['peak']:.0f} MiB over base, {told['wall']:.2f} s"
        peak = told["peak"] * MIB_IN_MB
        rows.append(judge(f"group_by({field!r}), MB", measured, peak, 250, most=True))
    table(f"Memory, streaming engine, {entries:,} entries", rows)


def section_dtypes(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """Each dtype beside what Polars makes of String."""
    rows = []
    left_out = []
    for name, kind in KINDS.items():
        if is_supported(kind):
            rows.append(dtype_row(server, entries, rounds, name, kind))
        else:
            left_out.append(name)
    table(f"{entries:,} values as their dtype / as String, then by Polars", rows)
    if left_out:
        print(f"\nLeft out, as they are not supported: {', '.join(left_out)}.")


def is_supported(kind: Kind) -> bool:
    """Whether a dtype is read; nothing is sent."""
    try:
        polars_redis.scan_stream("redis://localhost", VALUES, {VALUE: kind.dtype})
    except ValueError as error:
        if "not supported" not in str(error):
            raise
        return False
    return True


def dtype_row(server: EmbeddedRedis, entries: int, rounds: int, name: str, kind: Kind) -> Row:
    """Measure one dtype, on a stream of its own."""
    with redis.Redis(server.host, server.port) as client:
        client.delete(VALUES)
        fill(server, entries, VALUES, kind.fields)
        read = values(server.url, VALUES, kind.dtype)
        texts = values(server.url, VALUES, str)
        for way, cast in kind.casts.items():
            if not texts.select(cast).equals(read):
                msg = f"{name}: {way} gives other values"
                raise RuntimeError(msg)
        ours, ways = f"{name} as dtype", {f"{name} by {way}": way for way in kind.casts}
        once = partial(measure, server, amount=entries, script=SCRIPT, stream=VALUES)
        results = interleave([ours, *ways], rounds, once)
        client.delete(VALUES)
    quickest = min(ways, key=lambda way: middle(results[way], "wall"))
    return compared(results, ours, quickest, f"{name} / String, {ways[quickest]}", 1, most=True)


def section_ten_million(binary: Binary, only: set[str], entries: int, rounds: int) -> None:
    """What is to be had of a long stream."""
    with EmbeddedRedis(binary) as server:
        fill(server, entries)
        run_long(server, only, entries, rounds)


def run_long(server: EmbeddedRedis, only: set[str], entries: int, rounds: int) -> None:
    """Run the sections for which the stream should be long."""
    if "head" in only:
        section_head(server, entries, 20 * rounds)
    if "memory" in only:
        section_memory(server, entries)


def run(server: EmbeddedRedis, only: set[str], entries: int, rounds: int) -> None:
    """Run the other sections against one server."""
    if "full" in only:
        section_full(server, entries, rounds)
    if "filter" in only:
        section_filter(server, entries, rounds)
    if "projection" in only:
        section_projection(server, entries, max(2, rounds // 2))
    if "dtypes" in only:
        section_dtypes(server, entries, max(2, rounds // 2))


def main() -> None:
    """Run the sections asked for."""
    sections = ("full", "filter", "projection", "head", "memory", "dtypes")
    wanted = arguments(__doc__, sections)
    for binary in binaries(wanted.servers):
        with EmbeddedRedis(binary) as server:
            fill(server, wanted.entries)
            run(server, wanted.only, wanted.entries, wanted.rounds)
            if not wanted.ten_million:
                run_long(server, wanted.only, wanted.entries, wanted.rounds)
        if wanted.ten_million:
            section_ten_million(binary, wanted.only, 10 * wanted.entries, wanted.rounds)


if __name__ == "__main__":
    main()
