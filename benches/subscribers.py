"""One contender of ``pubsub.py``: a way to make frames of messages, in a process of its own.

Run as ``python subscribers.py NAME HOST PORT CHANNEL AMOUNT``, in the manner of ``contenders.py``.
It has subscribed when it is ready, and all messages are in the server when it is told to go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from contenders import Contenders, Read, command, connect, main, receive, schema

BATCH = 1000
#: What ends the last message.
LAST = b"the last one"


def bare(host: str, port: int, channel: str, amount: int) -> tuple[Read, Read]:
    """Take the bytes that come; nothing is parsed."""
    sock = connect(host, port)
    sock.sendall(command("SUBSCRIBE", channel))
    buffer = bytearray(1 << 18)
    receive(sock, buffer)

    def read() -> None:
        tail = b""
        while LAST not in tail:
            count = receive(sock, buffer)
            tail = (tail + buffer[max(0, count - 200) : count])[-200:]

    return lambda: None, read


def ours(has_schema: bool, host: str, port: int, channel: str, amount: int) -> tuple[Read, Read]:
    """polars-redis: frames of a thousand."""
    import polars_redis

    frames = polars_redis.iter_pubsub(
        f"redis://{host}:{port}",
        channel,
        schema() if has_schema else None,
        batch_size=BATCH,
        batch_timeout_ms=60_000,
        count=amount,
    )

    def read() -> dict[str, Any]:
        return {"rows": sum(frame.height for frame in frames)}

    def subscribe() -> None:
        _load(_raw)
        frames.__enter__()

    return subscribe, read


def redis_py(
    frame_of: Callable[[list[bytes]], Any], host: str, port: int, channel: str, amount: int
) -> tuple[Read, Read]:
    """redis-py and Polars: frames of a thousand."""
    import redis

    pubsub = redis.Redis(host, port).pubsub(ignore_subscribe_messages=True)

    def subscribe() -> None:
        _load(frame_of)
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=10)

    def read() -> dict[str, Any]:
        messages = (message["data"] for message in pubsub.listen())
        rows = 0
        for batch in _batches(islice(messages, amount)):
            rows += frame_of(batch).height
        return {"rows": rows}

    return subscribe, read


def _batches(messages: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(islice(messages, BATCH)):
        yield batch


def _load(frame_of: Callable[[list[bytes]], Any]) -> None:
    """Make a frame, so that everything is loaded."""
    frame_of([b"{}"])


def _raw(messages: list[bytes]) -> Any:
    import polars as pl

    return pl.DataFrame({"message": [message.decode() for message in messages]})


def _loads(messages: list[bytes]) -> Any:
    """Python's JSON."""
    import polars as pl

    return pl.DataFrame([json.loads(message) for message in messages], schema=schema())


def _json_decode(messages: list[bytes]) -> Any:
    """Polars' JSON."""
    import polars as pl

    texts = pl.Series([message.decode() for message in messages])
    return texts.str.json_decode(pl.Struct(schema())).struct.unnest()


CONTENDERS: Contenders = {
    "bare": bare,
    "raw_ours": partial(ours, False),
    "raw_redis_py": partial(redis_py, _raw),
    "json_ours": partial(ours, True),
    "json_redis_py_loads": partial(redis_py, _loads),
    "json_redis_py_json_decode": partial(redis_py, _json_decode),
}


if __name__ == "__main__":
    main(CONTENDERS)
