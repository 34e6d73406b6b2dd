"""One contender of ``consume.py``: a way to consume a stream, measured in a process of its own.

Run as ``python consumers.py NAME HOST PORT STREAM AMOUNT``, in the manner of ``contenders.py``.
The amount is one of entries, or of seconds for those that only wait. The group that some of them
need has been made, and is emptied or destroyed, by whoever runs them.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from contenders import (
    MARK,
    PAGE,
    Contenders,
    Read,
    bare,
    command,
    connect,
    drain,
    entry_id,
    frame_of_numbers,
    frame_of_texts,
    last_bytes,
    main,
    memory,
    receive,
    schema,
)

GROUP = "bench"
CONSUMER = "worker"
SMALL_BATCH = 100
FIELDS = ("user_id", "action", "quantity", "value")
ECHO = command("ECHO", "done")
#: Entries of a tailing reader that are not counted: the first ones.
UNCOUNTED = 50
LONGEST_PAUSE = 0.002

Result = dict[str, Any]


def _client(host: str, port: int) -> Any:
    import redis

    return redis.Redis(host, port, decode_responses=True)


def _iterate(host: str, port: int, stream: str, **options: Any) -> Any:
    """polars-redis, with a schema."""
    import polars_redis

    return polars_redis.iter_stream(f"redis://{host}:{port}", stream, schema(), **options)


def _rows(frames: Any) -> Result:
    """Take every frame, and keep none."""
    return {"rows": sum(frame.height for frame in frames)}


def _once(host: str, port: int, stream: str) -> Read:
    """Read one entry with polars-redis, so that everything is loaded."""
    return lambda: _rows(_iterate(host, port, stream, count=1, block_ms=None))


# -- a group's new entries, a thousand at a time --------------------------------------------------


def read_group(stream: str, count: int = PAGE) -> bytes:
    """Take the next new entries of the group."""
    words = ("XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", count, "STREAMS", stream, ">")
    return command(*words)


def group_bare(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """A bare socket: one XREADGROUP after another, each with an ECHO that ends its reply.

    Nothing is parsed, so that something must tell where a reply ends. The ECHO goes in the same
    packet as its command and comes back in the same stream of bytes: that is a few microseconds
    of the server's time beside the millisecond and more of a thousand entries, and it is right
    whatever the lengths are.
    """
    question = read_group(stream) + ECHO

    def read() -> None:
        buffer = bytearray(1 << 20)
        with connect(host, port) as sock:
            for _ in range(0, amount, PAGE):
                sock.sendall(question)
                tail = b""
                while tail != MARK:
                    tail = last_bytes(tail, buffer, receive(sock, buffer))

    return lambda: drain(host, port, ECHO), read


def group_ours(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """polars-redis, frames dropped."""
    options = {"batch_size": PAGE, "group": GROUP, "consumer": CONSUMER, "block_ms": None}
    return _once(host, port, stream), lambda: _rows(_iterate(host, port, stream, **options))


def _frame_by_cast(entries: Any) -> Any:
    """A frame of lists that Polars casts."""
    columns = {name: [fields[name] for _, fields in entries] for name in FIELDS}
    return frame_of_texts([entry for entry, _ in entries], columns)


def group_redis_py(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """redis-py with hiredis: XREADGROUP, a list a column, cast by Polars."""
    client = _client(host, port)

    def frames() -> Iterator[Any]:
        while found := client.xreadgroup(GROUP, CONSUMER, {stream: ">"}, count=PAGE):
            yield _frame_by_cast(found[0][1])

    return lambda: _frame_by_cast(client.xrange(stream, count=1)), lambda: _rows(frames())


# -- a backlog, a hundred at a time ---------------------------------------------------------------


def batches_ours(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """polars-redis, frames dropped."""
    options = {"batch_size": SMALL_BATCH, "block_ms": None}
    return _once(host, port, stream), lambda: _rows(_iterate(host, port, stream, **options))


def batches_redis_py(
    to_frame: Callable[[Any], Any], host: str, port: int, stream: str, amount: int
) -> tuple[Read, Read]:
    """redis-py with hiredis: XREAD, and a frame in one of two ways."""
    client = _client(host, port)

    def frames() -> Iterator[Any]:
        last = "0"
        while found := client.xread({stream: last}, count=SMALL_BATCH):
            entries = found[0][1]
            last = entries[-1][0]
            yield to_frame(entries)

    return lambda: to_frame(client.xrange(stream, count=1)), lambda: _rows(frames())


# -- XADD to frame --------------------------------------------------------------------------------


def produce(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """Add entries with random small pauses; each holds the moment when it was sent."""
    pauses = random.Random(0)
    buffer = bytearray(4096)
    fields = ("user_id", "user_1", "action", "click", "quantity", 1, "value", "0.5")

    def send() -> None:
        with connect(host, port) as sock:
            for _ in range(amount):
                time.sleep(pauses.uniform(0, LONGEST_PAUSE))
                sent = time.monotonic_ns()
                sock.sendall(command("XADD", stream, "*", *fields, "sent", sent))
                receive(sock, buffer)

    return lambda: None, send


@contextmanager
def _producer(host: str, port: int, stream: str, amount: int) -> Iterator[Callable[[], None]]:
    """Start a producer in a process of its own; gives what makes it begin."""
    words = [sys.executable, __file__, "produce", host, str(port), stream, str(amount)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        stdin = process.stdin

        def begin() -> None:
            stdin.write("go\n")
            stdin.flush()

        yield begin
        process.communicate()


def _note(waits: list[int], frame: Any) -> None:
    """The frame is here: note how long ago each of its entries was sent."""
    now = time.monotonic_ns()
    waits += [now - sent for sent in frame["sent"].to_list()]


def _percentiles(waits: list[int]) -> Result:
    counted = sorted(waits[UNCOUNTED:])
    return {
        "rows": len(counted),
        "p50": counted[len(counted) // 2] / 1e6,
        "p99": counted[len(counted) * 99 // 100] / 1e6,
    }


#: Who reads a group of streams that are followed.
_CONSUMER = {"group": GROUP, "consumer": "bench", "auto_ack": True}


def _tail_options() -> dict[str, Any]:
    import polars as pl

    return {"schema": {**schema(), "sent": pl.Int64}, "block_ms": 1000}


def _frames_ours(
    host: str, port: int, stream: str, *, streams: int = 1, **options: Any
) -> Iterator[Any]:
    """Follow a stream; or as many, of which only the first ever gets an entry."""
    import polars_redis

    url = f"redis://{host}:{port}"
    others = [f"{stream}:{n}" for n in range(1, streams)]
    which = [stream, *others] if others else stream
    with polars_redis.iter_stream(url, which, **_tail_options(), **options) as frames:
        yield from frames


def _frames_redis_py(host: str, port: int, stream: str) -> Iterator[Any]:
    client = _client(host, port)
    last = "0"
    while True:
        found = client.xread({stream: last}, count=SMALL_BATCH, block=1000)
        if found:
            entries = found[0][1]
            last = entries[-1][0]
            yield frame_of_numbers(entries, "sent")


async def _frames_ours_async(host: str, port: int, stream: str) -> AsyncIterator[Any]:
    import polars_redis

    url = f"redis://{host}:{port}"
    async with polars_redis.iter_stream_async(url, stream, **_tail_options()) as frames:
        async for frame in frames:
            yield frame


async def _frames_redis_py_async(host: str, port: int, stream: str) -> AsyncIterator[Any]:
    import redis.asyncio

    async with redis.asyncio.Redis(host=host, port=port, decode_responses=True) as client:
        last = "0"
        while True:
            found: Any = await client.xread({stream: last}, count=SMALL_BATCH, block=1000)
            if found:
                entries = found[0][1]
                last = entries[-1][0]
                yield frame_of_numbers(entries, "sent")


def _add_one(host: str, port: int, stream: str) -> None:
    """Add an entry for a reader to warm up with."""
    produce(host, port, stream, 1)[1]()


def tail(
    frames: Callable[[str, int, str], Any], host: str, port: int, stream: str, amount: int
) -> tuple[Read, Read]:
    """Follow a stream that a producer writes to, blocked in between."""
    source = frames(host, port, stream)

    def warm_up() -> None:
        _add_one(host, port, stream)
        next(source)

    def read() -> Result:
        waits: list[int] = []
        with _producer(host, port, stream, amount + UNCOUNTED) as begin:
            begin()
            while len(waits) < amount + UNCOUNTED:
                frame = next(source)
                _note(waits, frame)
        source.close()
        return _percentiles(waits)

    return warm_up, read


def tail_async(
    frames: Callable[[str, int, str], Any], host: str, port: int, stream: str, amount: int
) -> tuple[Read, Read]:
    """The same on asyncio."""
    source = frames(host, port, stream)
    loop = asyncio.new_event_loop()

    async def warm_up() -> None:
        _add_one(host, port, stream)
        await anext(source)

    async def read() -> Result:
        waits: list[int] = []
        with _producer(host, port, stream, amount + UNCOUNTED) as begin:
            begin()
            while len(waits) < amount + UNCOUNTED:
                frame = await anext(source)
                _note(waits, frame)
        await source.aclose()
        return _percentiles(waits)

    def read_all() -> Result:
        try:
            return loop.run_until_complete(read())
        finally:
            loop.close()

    return lambda: loop.run_until_complete(warm_up()), read_all


# -- acknowledging --------------------------------------------------------------------------------


def _ids(amount: int) -> list[str]:
    return [entry_id(number) for number in range(amount)]


def _pieces(ids: list[str]) -> Iterator[list[str]]:
    return (ids[at : at + PAGE] for at in range(0, len(ids), PAGE))


def ack_bare(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """A bare socket: XACKs of a thousand IDs, made beforehand and sent at once."""
    commands = [command("XACK", stream, GROUP, *piece) for piece in _pieces(_ids(amount))]
    everything = b"".join(commands) + ECHO
    return lambda: drain(host, port, ECHO), lambda: {"bytes": drain(host, port, everything)}


def _ack_ours(host: str, port: int, stream: str, ids: Any) -> tuple[Read, Read]:
    import polars_redis

    ack = partial(polars_redis.ack_entries, f"redis://{host}:{port}", stream, GROUP)
    return lambda: ack(["0-1"]), lambda: {"rows": ack(ids)}


def ack_series(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """polars-redis, of a Series."""
    import polars as pl

    return _ack_ours(host, port, stream, pl.Series(_ids(amount)))


def ack_list(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """polars-redis, of a list."""
    return _ack_ours(host, port, stream, _ids(amount))


def ack_redis_py(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """redis-py: one XACK of a thousand IDs after another."""
    client = _client(host, port)
    ids = _ids(amount)
    return lambda: client.xack(stream, GROUP, "0-1"), lambda: {
        "rows": sum(client.xack(stream, GROUP, *piece) for piece in _pieces(ids))
    }


# -- memory and idleness --------------------------------------------------------------------------


def _growth(frames: Any, amount: int) -> Result:
    """Drop every frame; how far memory rose over where it stood after the first tenth."""
    rows = 0
    base = highest = 0.0
    for number, frame in enumerate(frames):
        rows += frame.height
        if number % 10 == 0:
            resident = memory("VmRSS")
            base = resident if rows <= min(amount // 10, 100 * PAGE) else base
            highest = max(highest, resident)
    return {"rows": rows, "base": base, "growth": highest - base}


def memory_position(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """polars-redis, over a backlog."""
    options = {"batch_size": PAGE, "block_ms": None}
    frames = _iterate(host, port, stream, **options)
    return _once(host, port, stream), lambda: _growth(frames, amount)


def memory_group(host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """polars-redis, in a group, nothing acknowledged."""
    options = {"batch_size": PAGE, "group": GROUP, "consumer": CONSUMER, "block_ms": None}
    frames = _iterate(host, port, stream, **options)
    return _once(host, port, stream), lambda: _growth(frames, amount)


def idle(block_ms: int, host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """Wait for entries that do not come, until another thread closes the iterator."""
    frames = _iterate(host, port, stream, block_ms=block_ms)

    def wait() -> None:
        timer = threading.Timer(amount, frames.close)
        timer.start()
        for _ in frames:
            pass
        timer.join()

    return lambda: None, wait


def idle_async(block_ms: int, host: str, port: int, stream: str, amount: int) -> tuple[Read, Read]:
    """The same on asyncio, until the task is cancelled."""
    import polars_redis

    url = f"redis://{host}:{port}"

    async def wait() -> None:
        async with polars_redis.iter_stream_async(url, stream, block_ms=block_ms) as frames:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(anext(frames), amount)

    return lambda: None, lambda: asyncio.run(wait())


CONTENDERS: Contenders = {
    "group_bare": group_bare,
    "group_ours": group_ours,
    "group_redis_py": group_redis_py,
    "batches_bare": bare,
    "batches_ours": batches_ours,
    "batches_redis_py_cast": partial(batches_redis_py, _frame_by_cast),
    "batches_redis_py_numbers": partial(batches_redis_py, frame_of_numbers),
    "produce": produce,
    "tail_ours": partial(tail, _frames_ours),
    "tail_thousand": partial(tail, partial(_frames_ours, streams=1000)),
    "tail_group": partial(tail, partial(_frames_ours, **_CONSUMER)),
    "tail_group_thousand": partial(tail, partial(_frames_ours, streams=1000, **_CONSUMER)),
    "tail_redis_py": partial(tail, _frames_redis_py),
    "tail_ours_async": partial(tail_async, _frames_ours_async),
    "tail_redis_py_async": partial(tail_async, _frames_redis_py_async),
    "ack_bare": ack_bare,
    "ack_series": ack_series,
    "ack_list": ack_list,
    "ack_redis_py": ack_redis_py,
    "memory_position": memory_position,
    "memory_group": memory_group,
    "idle_1000": partial(idle, 1000),
    "idle_0": partial(idle, 0),
    "idle_async_1000": partial(idle_async, 1000),
    "idle_async_0": partial(idle_async, 0),
}


if __name__ == "__main__":
    main(CONTENDERS)
