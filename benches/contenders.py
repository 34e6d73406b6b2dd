"""One contender of ``compare.py``: a way to read a stream, measured in a process of its own.

Run as ``python contenders.py NAME HOST PORT STREAM ENTRIES``. It imports what it needs, reads a
little, prints ``ready``, waits for a line, reads everything once, and prints what that took as
JSON: wall and CPU seconds of this process, and how far its memory rose over where it stood.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = 1000
IN_FLIGHT = 6
MARK = b"$4\r\ndone\r\n"
PER_MS = 3
FIRST_MS = 1_704_067_200_000

Read = Callable[[], Any]


def command(*words: object) -> bytes:
    """One command as Redis reads it."""
    encoded = [str(word).encode() for word in words]
    head = b"*%d\r\n" % len(encoded)
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def entry_id(number: int) -> str:
    """The ID of the n-th entry: three a millisecond."""
    return f"{FIRST_MS + number // PER_MS}-{number % PER_MS}"


def pages(stream: str, entries: int) -> list[bytes]:
    """The whole stream as commands for disjoint pages."""
    return [
        command("XRANGE", stream, entry_id(n), entry_id(min(n + PAGE, entries) - 1))
        for n in range(0, entries, PAGE)
    ]


def connect(host: str, port: int) -> socket.socket:
    """A connection that does not wait to send."""
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive(sock: socket.socket, buffer: bytearray) -> int:
    """Take the bytes that have come; the peer may not end before the mark."""
    count = sock.recv_into(buffer)
    if count == 0:
        msg = "the server closed the connection"
        raise ConnectionError(msg)
    return count


def last_bytes(tail: bytes, buffer: bytearray, count: int) -> bytes:
    """The last bytes of all that came: the mark may come in two pieces."""
    return (tail + buffer[max(0, count - len(MARK)) : count])[-len(MARK) :]


def drain_all_at_once(host: str, port: int, commands: list[bytes]) -> int:
    """Send every page, then an ECHO; take the bytes that come. Nothing is parsed."""
    with connect(host, port) as sock:
        everything = b"".join(commands) + command("ECHO", "done")
        sender = threading.Thread(target=sock.sendall, args=(everything,))
        sender.start()
        buffer = bytearray(1 << 20)
        received = 0
        tail = b""
        while tail != MARK:
            count = receive(sock, buffer)
            received += count
            tail = last_bytes(tail, buffer, count)
        sender.join()
        return received


def drain_few_in_flight(host: str, port: int, commands: list[bytes], total: int) -> int:
    """Send a page whenever another page's worth of bytes has come."""
    page_len = total / len(commands)
    with connect(host, port) as sock:
        buffer = bytearray(1 << 20)
        sent = received = 0
        tail = b""
        while tail != MARK:
            due = min(len(commands), int(received / page_len) + IN_FLIGHT)
            if due > sent:
                batch = b"".join(commands[sent:due])
                sock.sendall(batch + (command("ECHO", "done") if due == len(commands) else b""))
                sent = due
            count = receive(sock, buffer)
            received += count
            tail = last_bytes(tail, buffer, count)
        return received


def bare(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """The bare socket, all pages sent at once."""
    commands = pages(stream, entries)
    return lambda: drain_all_at_once(host, port, commands[:1]), lambda: drain_all_at_once(
        host, port, commands
    )


def bare_few(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """The bare socket, six pages in flight."""
    commands = pages(stream, entries)
    total = int(os.environ["RESP_BYTES"])
    return lambda: drain_all_at_once(host, port, commands[:1]), lambda: drain_few_in_flight(
        host, port, commands, total
    )


def typed(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """polars-redis, with a schema."""
    import polars as pl

    import polars_redis

    url = f"redis://{host}:{port}"
    schema = {
        "user_id": pl.String,
        "action": pl.String,
        "quantity": pl.Int64,
        "value": pl.Float64,
    }
    return lambda: polars_redis.read_stream(
        url, stream, schema, count=1
    ), lambda: polars_redis.read_stream(url, stream, schema)


def untyped(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """polars-redis, without a schema."""
    import polars_redis

    url = f"redis://{host}:{port}"
    return lambda: polars_redis.read_stream(url, stream, count=1), lambda: polars_redis.read_stream(
        url, stream
    )


def _entries_by_page(client: Any, stream: str) -> Any:
    start = "-"
    while page := client.xrange(stream, min=start, count=10_000):
        yield page
        start = "(" + page[-1][0]


def by_hand(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """redis-py with hiredis: a list a column, cast by Polars."""
    import polars as pl
    import redis

    client = redis.Redis(host, port, decode_responses=True)

    def read(limit: int | None = None) -> pl.DataFrame:
        ids: list[str] = []
        columns: dict[str, list[str]] = {
            name: [] for name in ("user_id", "action", "quantity", "value")
        }
        source = _entries_by_page(client, stream)
        for page in [client.xrange(stream, count=limit)] if limit else source:
            ids += [entry for entry, _ in page]
            for name, values in columns.items():
                values += [fields[name] for _, fields in page]
        return pl.DataFrame({"_id": ids, **columns}).with_columns(
            pl.col("_id").str.split("-").list.first().cast(pl.Int64).alias("_ts"),
            pl.col("quantity").cast(pl.Int64),
            pl.col("value").cast(pl.Float64),
        )

    return lambda: read(1), read


def dicts(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """redis-py with hiredis: one XRANGE, a dict an entry, a frame of the dicts."""
    import polars as pl
    import redis

    client = redis.Redis(host, port, decode_responses=True)

    def read(count: int | None = None) -> pl.DataFrame:
        entries: Any = client.xrange(stream, count=count)
        rows = [
            {"_id": entry, "_ts": int(entry.split("-")[0]), **fields} for entry, fields in entries
        ]
        return pl.DataFrame(rows).with_columns(
            pl.col("quantity").cast(pl.Int64), pl.col("value").cast(pl.Float64)
        )

    return lambda: read(1), read


CONTENDERS: dict[str, Callable[[str, int, str, int], tuple[Read, Read]]] = {
    "bare": bare,
    "bare_few": bare_few,
    "typed": typed,
    "untyped": untyped,
    "by_hand": by_hand,
    "dicts": dicts,
}


def memory(key: str) -> float:
    """A figure of this process's memory, in MiB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def cpu() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure one contender once."""
    name, host, port, stream, entries = sys.argv[1:]
    warm_up, read = CONTENDERS[name](host, int(port), stream, int(entries))
    warm_up()
    print("ready", flush=True)
    sys.stdin.readline()
    base, cpu_before, begun = memory("VmRSS"), cpu(), time.perf_counter()
    result = read()
    wall, used = time.perf_counter() - begun, cpu() - cpu_before
    frame = result.estimated_size("mb") if hasattr(result, "estimated_size") else None
    rows = getattr(result, "height", None)
    if rows is not None and rows != int(entries):
        msg = f"{name} read {rows} of {entries} entries"
        raise SystemExit(msg)
    peak = memory("VmHWM") - base
    print(json.dumps({"wall": wall, "cpu": used, "peak": peak, "frame": frame}))


if __name__ == "__main__":
    main()
