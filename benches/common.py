"""What the benchmarks share: the stream, running contenders in turn, the tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contenders import command, connect, entry_id
from embedded_redis import Binary, EmbeddedRedis, find_binaries

HERE = Path(__file__).resolve().parent
STREAM = "events"
ACTIONS = ("click", "view", "purchase", "search", "login", "logout")

Row = tuple[str, str, str, str, str]
#: What each contender told, a round after another.
Results = dict[str, list[dict[str, Any]]]


def event(n: int) -> Iterable[object]:
    """The n-th entry of the stream: names of fields, each followed by its value."""
    return (
        *("user_id", f"user_{n * 7919 % 100_000}"),
        *("action", ACTIONS[n % 6]),
        *("quantity", n * 31 % 1000),
        *("value", f"{n * 17 % 500}.{n % 100:02}"),
    )


def fill(
    server: EmbeddedRedis,
    entries: int,
    stream: str = STREAM,
    fields: Callable[[int], Iterable[object]] = event,
) -> None:
    """Write a stream; that of events has about 129 bytes of RESP an entry when it is read."""
    with connect(server.host, server.port) as sock:
        reader = threading.Thread(target=_swallow, args=(sock,))
        reader.start()
        batch: list[bytes] = []
        for n in range(entries):
            batch.append(command("XADD", stream, entry_id(n), *fields(n)))
            if len(batch) == 5000:
                sock.sendall(b"".join(batch))
                batch.clear()
        sock.sendall(b"".join(batch) + command("ECHO", "done"))
        reader.join()


def _swallow(sock: socket.socket) -> None:
    tail = b""
    while not tail.endswith(b"done\r\n"):
        tail = (tail + sock.recv(1 << 20))[-16:]


def measure(
    server: EmbeddedRedis,
    name: str,
    amount: int,
    resp_bytes: int = 0,
    *,
    script: str = "contenders.py",
    stream: str = STREAM,
    once_ready: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Run one contender once, in a process of its own; first do what it has to be ready for."""
    words = [sys.executable, str(HERE / script), name, server.host, str(server.port)]
    words += [stream, str(amount)]
    return told_by(words, once_ready=once_ready, RESP_BYTES=str(resp_bytes))


def told_by(
    words: list[str], *, once_ready: Callable[[], object] = lambda: None, **environment: str
) -> dict[str, Any]:
    """Run one contender once, by its command line; what it tells."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        msg = f"{words} did not start"
        raise RuntimeError(msg)
    once_ready()
    told, _ = process.communicate("go\n")
    if process.returncode != 0:
        msg = f"{words} failed"
        raise RuntimeError(msg)
    result: dict[str, Any] = json.loads(told)
    return result


def interleave(names: list[str], rounds: int, once: Callable[[str], dict[str, Any]]) -> Results:
    """Every contender in every round, the order rotated."""
    results: Results = {name: [] for name in names}
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            results[name].append(once(name))
    return results


def middle(results: list[dict[str, Any]], key: str) -> float:
    """The median of one figure."""
    return statistics.median(result[key] for result in results)


def judge(
    what: str, measured: str, value: float, goal: float, *, most: bool, digits: int = 2
) -> Row:
    """One row: a value that should be at most, or at least, its goal."""
    met = value <= goal if most else value >= goal
    sign = "≤" if most else "≥"
    return what, measured, f"{value:.{digits}f}", f"{sign} {goal:g}", "ok" if met else "MISS"


def against(
    results: Results,
    name: str,
    limit: str,
    key: str = "wall",
) -> tuple[float, float]:
    """One contender's figure over another's: of the medians, and the median by pairs."""
    pairs = zip(results[name], results[limit], strict=True)
    by_pair = statistics.median(one[key] / other[key] for one, other in pairs)
    return middle(results[name], key) / middle(results[limit], key), by_pair


def compared(
    results: Results,
    one: str,
    other: str,
    what: str,
    goal: float,
    *,
    most: bool,
    key: str = "wall",
    note: str = "",
) -> Row:
    """One row: seconds of one contender over another's."""
    ratio, by_pair = against(results, one, other, key)
    told = f"{middle(results[one], key):.3f} s / {middle(results[other], key):.3f} s"
    return judge(what, f"{told}; {by_pair:.2f} by pairs{note}", ratio, goal, most=most)


def table(title: str, rows: list[Row]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n\n| what | measured | value | goal | |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def heading(binary: Binary) -> None:
    """The machine and the versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    packages = ", ".join(f"{p} {version(p)}" for p in ("polars", "redis", "hiredis"))
    print(f"## {binary}\n")
    print(f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}.")


def arguments(about: str | None, sections: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--servers", default="", help="such as 7.0,8.2; all found if left out")
    parser.add_argument("--only", default=",".join(sections))
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--ten-million", action="store_true", help="ten times the entries too")
    wanted = parser.parse_args()
    if wanted.quick:
        wanted.entries, wanted.rounds = 50_000, 2
    wanted.only = set(wanted.only.split(","))
    return wanted


def binaries(servers: str) -> Iterator[Binary]:
    """Give the servers that were asked for, each with its heading printed."""
    for binary in find_binaries():
        if not servers or any(v in str(binary) for v in servers.split(",")):
            heading(binary)
            yield binary
