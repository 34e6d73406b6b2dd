"""The main job, shown: a Redis stream full of events becomes a Polars frame.

Starts a redis-server of its own, fills a stream with shop events, reads it with
``read_stream``, and then reads it again in turn with redis-py, the way people write it without
this library. Run it with ``make demo``.
"""

from __future__ import annotations

import random
import socket
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import redis as redis_py

import polars_redis as redis
from embedded_redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STREAM = "events"
ENTRIES = 300_000
ROUNDS = 2
SCHEMA = {
    "user_id": pl.String,
    "action": pl.String,
    "item": pl.String,
    "quantity": pl.Int64,
    "value": pl.Float64,
}
START = int(datetime(2025, 11, 28, tzinfo=timezone.utc).timestamp() * 1000)
MEAN_GAP_MS = 250


def events() -> Iterator[tuple[str, ...]]:
    """A day of a shop: mostly clicks, some purchases; each as the words of one XADD."""
    rng = random.Random(42)
    now = START
    for _ in range(ENTRIES):
        now += 1 + int(rng.expovariate(1 / MEAN_GAP_MS))
        user = f"user_{min(int(rng.expovariate(1 / 5_000)), 50_000)}"
        action = "purchase" if rng.random() < 0.08 else "click"
        quantity = rng.randint(1, 5) if action == "purchase" else 0
        yield (
            f"{now}-0",
            *("user_id", user),
            *("action", action),
            *("item", f"item_{rng.randint(1, 400)}"),
            *("quantity", str(quantity)),
            *("value", f"{rng.lognormvariate(3, 0.8):.2f}"),
        )


def fill(server: EmbeddedRedis) -> None:
    """Write the events, pipelined, as fast as the server takes them."""
    with socket.create_connection((server.host, server.port)) as connection:
        chunk: list[str] = []
        for words in events():
            chunk.append(command("XADD", STREAM, *words))
            if len(chunk) == 1000:
                send(connection, chunk)
                chunk.clear()
        if chunk:
            send(connection, chunk)


def command(*words: str) -> str:
    """One command as Redis reads it (all the words here are ASCII)."""
    return f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)


def send(connection: socket.socket, commands: list[str]) -> None:
    """Send commands that are answered by an ID each, and wait for all the answers."""
    connection.sendall("".join(commands).encode())
    lines = 0
    while lines < 2 * len(commands):
        data = connection.recv(1 << 16)
        if not data or data.startswith(b"-"):
            message = f"the server did not take the events: {data!r}"
            raise RuntimeError(message)
        lines += data.count(b"\n")


def with_this_library(url: str) -> pl.DataFrame:
    """One call."""
    return redis.read_stream(url, STREAM, schema=SCHEMA)


def with_columns_by_hand(url: str) -> pl.DataFrame:
    """The quick way with redis-py: a list a column, cast by Polars."""
    with redis_py.Redis.from_url(url, decode_responses=True) as client:
        entries: Any = client.xrange(STREAM)
    columns: dict[str, list[str | None]] = {"_id": [entry_id for entry_id, _ in entries]}
    for name in SCHEMA:
        columns[name] = [fields.get(name) for _, fields in entries]
    return typed(pl.DataFrame(columns))


def with_list_of_dicts(url: str) -> pl.DataFrame:
    """The usual way with redis-py: a dict an entry, its values converted in Python."""
    with redis_py.Redis.from_url(url, decode_responses=True) as client:
        entries: Any = client.xrange(STREAM)
    rows = [
        {
            "_id": entry_id,
            "_ts": int(entry_id.split("-")[0]),
            "user_id": fields["user_id"],
            "action": fields["action"],
            "item": fields["item"],
            "quantity": int(fields["quantity"]),
            "value": float(fields["value"]),
        }
        for entry_id, fields in entries
    ]
    return pl.DataFrame(rows)


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Give text columns the dtypes and the order that `read_stream` gives."""
    milliseconds = pl.col("_id").str.split("-").list.first().cast(pl.Int64).alias("_ts")
    return frame.select("_id", milliseconds, *(pl.col(n).cast(t) for n, t in SCHEMA.items()))


def compare(url: str, frame: pl.DataFrame) -> None:
    """Time the three ways in turn, and check that they give the same frame."""
    ways: dict[str, Callable[[str], pl.DataFrame]] = {
        "polars_redis.read_stream": with_this_library,
        "redis-py + hiredis, columns by hand": with_columns_by_hand,
        "redis-py + hiredis, list of dicts": with_list_of_dicts,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, read in ways.items():
            began = time.perf_counter()
            result = read(url)
            times[name].append(time.perf_counter() - began)
            if not result.equals(frame):
                message = f"{name} reads something else"
                raise RuntimeError(message)
    best = {name: min(seconds) for name, seconds in times.items()}
    ours = best["polars_redis.read_stream"]
    for name, seconds in best.items():
        rate = frame.height / seconds
        print(f"  {name:<36} {rate:>12,.0f} entries/s {seconds / ours:>8.1f} x the time")


def main() -> None:
    """Show it."""
    with EmbeddedRedis() as server:
        version = ".".join(map(str, server.binary.version))
        print(f"Redis {version} ({server.binary.source}) on port {server.port}")
        began = time.perf_counter()
        fill(server)
        print(f"{ENTRIES:,} events written in {time.perf_counter() - began:.1f} s\n")

        print('>>> df = redis.read_stream(url, "events", schema={...})')
        frame = with_this_library(server.url)
        print(frame, "\n")

        print('>>> df.group_by("action").agg(...)')
        summary = frame.group_by("action").agg(
            events=pl.len(),
            users=pl.col("user_id").n_unique(),
            quantity=pl.col("quantity").sum(),
            revenue=(pl.col("quantity") * pl.col("value")).sum().round(2),
        )
        print(summary.sort("events", descending=True), "\n")

        print(f"The best of {ROUNDS} reads each, in turn:")
        compare(server.url, frame)


if __name__ == "__main__":
    main()
