"""One contender of ``compare.py``: a way to read a stream, measured in a process of its own.

``consumers.py`` has those of ``consume.py``, ``scanners.py`` those of ``scan.py``, ``streamers.py``
those of ``streams.py``; they share the sockets, frames and measuring of this file.

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
from collections.abc import Callable, Mapping
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
    return drain(host, port, b"".join(commands) + command("ECHO", "done"))


def drain(host: str, port: int, everything: bytes) -> int:
    """Send commands of which the last is the ECHO; take the bytes that come."""
    with connect(host, port) as sock:
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


def schema() -> Any:
    """The stream's fields."""
    import polars as pl

    return {
        "user_id": pl.String,
        "action": pl.String,
        "quantity": pl.Int64,
        "value": pl.Float64,
    }


def frame_of_texts(ids: list[str], columns: dict[str, list[str]]) -> Any:
    """Lists of what redis-py gave, cast by Polars: the quicker way for many entries."""
    import polars as pl

    return pl.DataFrame({"_id": ids, **columns}).with_columns(
        pl.col("_id").str.split("-").list.first().cast(pl.Int64).alias("_ts"),
        pl.col("quantity").cast(pl.Int64),
        pl.col("value").cast(pl.Float64),
    )


def frame_of_numbers(entries: Any, *more: str) -> Any:
    """Lists of numbers made by Python: the quicker way for a hundred entries.

    `more` are further fields that hold integers.
    """
    import polars as pl

    ids = [entry for entry, _ in entries]
    return pl.DataFrame(
        {
            "_id": ids,
            "_ts": [int(entry.split("-")[0]) for entry in ids],
            "user_id": [fields["user_id"] for _, fields in entries],
            "action": [fields["action"] for _, fields in entries],
            "quantity": [int(fields["quantity"]) for _, fields in entries],
            "value": [float(fields["value"]) for _, fields in entries],
            **{name: [int(fields[name]) for _, fields in entries] for name in more},
        }
    )


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
    return _typed(f"redis://{host}:{port}", stream)


def typed_tls(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """The same over TLS."""
    return _typed(f"rediss://{host}:{port}?ssl_ca_certs={os.environ['TLS_CA']}", stream)


def _typed(url: str, stream: str) -> tuple[Read, Read]:
    import polars_redis

    typed = schema()
    return lambda: polars_redis.read_stream(
        url, stream, typed, count=1
    ), lambda: polars_redis.read_stream(url, stream, typed)


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
    import redis

    return _by_hand(redis.Redis(host, port, decode_responses=True), stream)


def by_hand_tls(host: str, port: int, stream: str, entries: int) -> tuple[Read, Read]:
    """The same over TLS."""
    import redis

    ca = os.environ["TLS_CA"]
    return _by_hand(
        redis.Redis(host, port, decode_responses=True, ssl=True, ssl_ca_certs=ca), stream
    )


def _by_hand(client: Any, stream: str) -> tuple[Read, Read]:
    def read(limit: int | None = None) -> Any:
        ids: list[str] = []
        columns: dict[str, list[str]] = {
            name: [] for name in ("user_id", "action", "quantity", "value")
        }
        source = _entries_by_page(client, stream)
        for page in [client.xrange(stream, count=limit)] if limit else source:
            ids += [entry for entry, _ in page]
            for name, values in columns.items():
                values += [fields[name] for _, fields in page]
        return frame_of_texts(ids, columns)

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


Contenders = Mapping[str, Callable[[str, int, str, int], tuple[Read, Read]]]

CONTENDERS: Contenders = {
    "bare": bare,
    "bare_few": bare_few,
    "typed": typed,
    "untyped": untyped,
    "by_hand": by_hand,
    "dicts": dicts,
    "typed_tls": typed_tls,
    "by_hand_tls": by_hand_tls,
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


def main(contenders: Contenders) -> None:
    """Measure one contender once."""
    name, host, port, stream, amount = sys.argv[1:]
    warm_up, read = contenders[name](host, int(port), stream, int(amount))
    warm_up()
    print("ready", flush=True)
    sys.stdin.readline()
    base, cpu_before, begun = memory("VmRSS"), cpu(), time.perf_counter()
    result = read()
    wall, used = time.perf_counter() - begun, cpu() - cpu_before
    more = result if isinstance(result, dict) else {}
    frame = result.estimated_size("mb") if hasattr(result, "estimated_size") else None
    rows = more.get("rows", getattr(result, "height", None))
    if rows is not None and rows != int(amount):
        msg = f"{name} read {rows} of {amount} entries"
        raise SystemExit(msg)
    peak = memory("VmHWM") - base
    print(json.dumps({"wall": wall, "cpu": used, "peak": peak, "frame": frame, **more}))


if __name__ == "__main__":
    main(CONTENDERS)
