"""Pub/Sub messages into frames: polars-redis beside redis-py + Polars and a bare socket, in turn.

Everybody subscribes; then all messages are published, and held by the server; then the time is
taken that it needs to make frames of them. Prints Markdown tables, as ``consume.py`` does.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import redis

from common import arguments, binaries, compared, event, interleave, measure, middle, table
from embedded_redis import EmbeddedRedis
from subscribers import CONTENDERS, LAST

SCRIPT = "subscribers.py"
CHANNEL = "events"
#: Messages published at once.
AT_ONCE = 10_000
#: Contenders of ours, each with those that it is measured beside.
OURS = {
    "raw_ours": ["raw_redis_py"],
    "json_ours": ["json_redis_py_loads", "json_redis_py_json_decode"],
}


def message(n: int) -> str:
    """The n-th message: the fields of the n-th entry of the stream, as JSON."""
    words = list(event(n))
    fields: dict[Any, Any] = dict(zip(words[::2], words[1::2], strict=True))
    return json.dumps({**fields, "value": float(fields["value"])})


def once(server: EmbeddedRedis, messages: list[str], name: str) -> dict[str, Any]:
    """Measure one contender once."""

    def publish() -> None:
        with redis.Redis(server.host, server.port) as client:
            for begin in range(0, len(messages), AT_ONCE):
                pipeline = client.pipeline(transaction=False)
                for text in messages[begin : begin + AT_ONCE]:
                    pipeline.publish(CHANNEL, text)
                pipeline.execute()

    return measure(server, name, len(messages), script=SCRIPT, stream=CHANNEL, once_ready=publish)


def section(server: EmbeddedRedis, entries: int, rounds: int) -> None:
    """Every contender, and what the goals are about."""
    messages = [message(n) for n in range(entries)]
    # Whoever parses nothing has to know where they end.
    messages[-1] = json.dumps({"user_id": LAST.decode()})
    results = interleave(list(CONTENDERS), rounds, partial(once, server, messages))
    rows = [
        compared(results, other, name, f"{other} / {name}", 8, most=False)
        for name, others in OURS.items()
        for other in others
    ]
    table(f"{entries:,} messages of four members, frames of 1,000", rows)
    print("\n| contender | wall s | client CPU s | messages/s |\n|---|---|---|---|")
    for name, measured in results.items():
        wall, cpu = middle(measured, "wall"), middle(measured, "cpu")
        print(f"| {name} | {wall:.3f} | {cpu:.3f} | {entries / wall:,.0f} |")


def main() -> None:
    """Run on each server."""
    wanted = arguments(__doc__, ["messages"])
    for binary in binaries(wanted.servers):
        with EmbeddedRedis(binary, client_output_buffer_limit="pubsub 0 0 0") as server:
            section(server, wanted.entries // 4, wanted.rounds)


if __name__ == "__main__":
    main()
