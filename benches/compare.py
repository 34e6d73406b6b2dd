"""polars-redis beside redis-py and a bare socket, in turn, on one server.

Prints a Markdown table a section: what was measured, the goal, and whether it was met. Only the
ratios mean something from one machine to the next. ``--quick`` shows that it runs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import redis

import polars_redis
from common import (
    HERE,
    STREAM,
    Row,
    against,
    arguments,
    binaries,
    fill,
    interleave,
    judge,
    measure,
    middle,
    table,
)
from contenders import command, drain_all_at_once, frame_of_numbers, pages, schema
from embedded_redis import Binary, EmbeddedRedis

PROXY = HERE.parent / "tests" / "support" / "proxy.py"
SCHEMA = schema()


def section_read(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """The whole stream, by everybody."""
    resp_bytes = drain_all_at_once(server.host, server.port, pages(STREAM, entries))

    def once(name: str) -> dict[str, Any]:
        return measure(server, name, entries, resp_bytes)

    quick = ["bare", "bare_few", "typed", "untyped"]
    results = interleave(quick, rounds, once)
    beside = interleave(["typed", "by_hand", "dicts"], max(2, rounds // 3), once)
    print(f"\n{entries:,} entries, {resp_bytes / 1e6:.1f} MB of RESP, {rounds} rounds in turn.\n")
    print("| contender | wall s | client CPU s | peak over base MiB |\n|---|---|---|---|")
    for name in (*quick, "by_hand", "dicts"):
        runs = results.get(name) or beside[name]
        figures = [f"{middle(runs, key):.3f}" for key in ("wall", "cpu")]
        print(f"| {name} | {' | '.join(figures)} | {middle(runs, 'peak'):.0f} |")
    ours, theirs = results["typed"], beside["typed"]
    frame = middle(ours, "frame")
    rows = [_against(results, "typed", limit) for limit in ("bare", "bare_few")]
    for name, goal in (("by_hand", 12), ("dicts", 20)):
        ratio = middle(beside[name], "wall") / middle(theirs, "wall")
        rows.append(judge(f"redis-py {name} / ours, wall", "medians", ratio, goal, most=False))
    ratio = middle(beside["by_hand"], "cpu") / middle(theirs, "cpu")
    rows.append(judge("redis-py by_hand / ours, CPU", "medians", ratio, 30, most=False))
    peak = middle(ours, "peak")
    told = f"peak {peak:.1f} MiB over base, frame {frame:.1f} MiB"
    rows.append(judge("(peak - 16 MiB) / frame", told, (peak - 16) / frame, 1.3, most=True))
    table("Reading everything", rows)


def _against(results: dict[str, list[dict[str, Any]]], name: str, limit: str) -> Row:
    ratio, by_pair = against(results, name, limit)
    told = f"medians; {by_pair:.2f} by pairs"
    return judge(f"ours / {limit} socket, wall", told, ratio, 1.0, most=True)


PINGER = """
import socket, sys, time
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
waits = []
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    begun = time.perf_counter()
    sock.sendall(b"PING\\r\\n")
    sock.recv(64)
    waits.append(time.perf_counter() - begun)
    time.sleep(0.0002)
waits.sort()
print(waits[-1] * 1e3, waits[int(len(waits) * 0.99)] * 1e3)
"""


def neighbour(server: EmbeddedRedis, work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that another client's PING waits meanwhile: the longest, and the p99."""
    words = [sys.executable, "-c", PINGER, server.host, str(server.port)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    work()
    told, _ = process.communicate("stop\n")
    longest, p99 = map(float, told.split())
    return longest, p99


def section_neighbours(server: EmbeddedRedis, rounds: int) -> None:
    """What other clients of the server notice."""
    url = server.url
    whole = [command("XRANGE", STREAM, "-", "+")]
    big, ours = [], []
    host, port = server.host, server.port
    for _ in range(rounds):
        big.append(neighbour(server, lambda: drain_all_at_once(host, port, whole)))
        ours.append(neighbour(server, lambda: polars_redis.read_stream(url, STREAM, SCHEMA)))
    longest = max(wait for wait, _ in ours)
    base = statistics.median(wait for wait, _ in big)
    p99 = statistics.median(wait for _, wait in ours)
    told = f"max {longest:.1f} ms, p99 {p99:.1f} ms; one XRANGE of everything {base:.0f} ms"
    table(
        "Another client's PING meanwhile",
        [judge("longest wait, ours / one XRANGE", told, longest / base, 0.05, most=True)],
    )


def section_short(server: EmbeddedRedis, calls: int) -> None:
    """A hundred entries of a long stream, on kept connections."""
    client = redis.Redis(server.host, server.port, decode_responses=True)

    def ours() -> pl.DataFrame:
        return polars_redis.read_stream(server.url, STREAM, SCHEMA, count=100)

    def theirs() -> pl.DataFrame:
        entries: Any = client.xrange(STREAM, count=100)
        return frame_of_numbers(entries)

    assert ours().equals(theirs())
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(calls):
        for name, read in (("ours", ours), ("theirs", theirs)):
            begun = time.perf_counter()
            read()
            times[name].append(time.perf_counter() - begun)
    one, other = (statistics.median(times[name]) * 1e6 for name in ("ours", "theirs"))
    told = f"p50 {one:.0f} µs; redis-py + Polars {other:.0f} µs"
    table("count=100", [judge("ours / redis-py + Polars", told, one / other, 0.5, most=True)])


@contextmanager
def proxy(server: EmbeddedRedis, delay_ms: float) -> Iterator[str]:
    """A URL of the server at the end of a line with a delay, each way."""
    words = [sys.executable, str(PROXY), server.host, str(server.port)]
    process = subprocess.Popen(
        [*words, "--delay-ms", str(delay_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    try:
        yield f"redis://{server.host}:{port}"
    finally:
        process.communicate()


def section_delay(server: EmbeddedRedis, rounds: int) -> None:
    """The same line with and without 20 ms each way."""
    times: dict[float, list[float]] = {0: [], 20: []}
    with proxy(server, 0) as near, proxy(server, 20) as far:
        for _ in range(rounds):
            for delay, url in ((0, near), (20, far)):
                begun = time.perf_counter()
                polars_redis.read_stream(url, STREAM, SCHEMA)
                times[delay].append(time.perf_counter() - begun)
    without, delayed = (statistics.median(times[delay]) for delay in (0, 20))
    told = f"{delayed:.3f} s with, {without:.3f} s without, through the same proxy"
    table("20 ms of delay each way", [judge("ratio", told, delayed / without, 2, most=True)])


CSV = """
import io, statistics, sys, time
import polars as pl
frame = pl.read_parquet(sys.argv[1])
text = frame.write_csv().encode()
times = []
for _ in range(7):
    begun = time.perf_counter()
    pl.read_csv(text, schema=frame.schema)
    times.append(time.perf_counter() - begun)
print(statistics.median(times) / frame.height * 1e9)
"""


def section_csv(server: EmbeddedRedis, tmp: Path) -> None:
    """What Polars' own reader of text takes for the same columns, on one thread."""
    path = tmp / "events.parquet"
    polars_redis.read_stream(server.url, STREAM, SCHEMA).write_parquet(path)
    told = subprocess.run(
        [sys.executable, "-c", CSV, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    ).stdout
    print(f"\n`pl.read_csv` of the same columns, one thread: {float(told):.0f} ns a row.")
    print("(`cargo bench --bench decoder` prints the decoder's rows a second.)", flush=True)


def section_ten_million(binary: Binary, entries: int, resp: int) -> None:
    """Ten times the entries."""
    with EmbeddedRedis(binary) as server:
        fill(server, entries)
        one = [measure(server, "typed", entries, resp) for _ in range(3)]
    with EmbeddedRedis(binary) as server:
        fill(server, 10 * entries)
        ten = [measure(server, "typed", 10 * entries, resp) for _ in range(3)]
    time_ratio = middle(ten, "wall") / middle(one, "wall")
    peak_ratio = middle(ten, "peak") / middle(one, "peak")
    told = f"{middle(one, 'wall'):.2f} s, {middle(ten, 'wall'):.2f} s"
    rows = [judge(f"time, {10 * entries:,} / {entries:,}", told, time_ratio, 11.5, most=True)]
    told = f"{middle(one, 'peak'):.0f} MiB, {middle(ten, 'peak'):.0f} MiB"
    rows.append(judge("peak memory, the same", told, peak_ratio, 10.5, most=True))
    table("Ten times the entries", rows)


def main() -> None:
    """Run the sections asked for."""
    wanted = arguments(__doc__, ("read", "neighbours", "short", "delay", "csv"))
    for binary in binaries(wanted.servers):
        with EmbeddedRedis(binary) as server:
            fill(server, wanted.entries)
            run(server, wanted.only, wanted.entries, wanted.rounds)
        if wanted.ten_million:
            section_ten_million(binary, wanted.entries, 129 * wanted.entries)


def run(server: EmbeddedRedis, only: set[str], entries: int, rounds: int) -> None:
    """Run sections against one server."""
    if "read" in only:
        section_read(server, entries, rounds)
    if "neighbours" in only:
        section_neighbours(server, max(2, rounds // 2))
    if "short" in only:
        section_short(server, 200 if entries < 100_000 else 2000)
    if "delay" in only:
        section_delay(server, max(2, rounds // 2))
    if "csv" in only:
        with tempfile.TemporaryDirectory() as tmp:
            section_csv(server, Path(tmp))


if __name__ == "__main__":
    main()
