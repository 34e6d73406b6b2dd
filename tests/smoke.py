"""Tries an installed polars_redis, with nothing of the source tree: what a user meets first.

Needs only the package and the standard library::

    python -I smoke.py [--url redis://...]

Without a URL it starts a redis-server if ``embedded_redis`` can be imported and finds one
(``PYTHONPATH=examples``), else it checks what can be checked without a server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import polars as pl

import polars_redis as redis
from polars_redis import exceptions

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s3cret"


def require(condition: bool, what: str) -> None:
    """Fail where a condition does not hold (also under ``python -O``)."""
    if not condition:
        sys.exit(f"smoke test failed: {what}")


def check_package() -> None:
    """The package is whole: version, types, extension."""
    require(redis.__version__ == importlib.metadata.version("polars-redis"), "versions differ")
    package = Path(redis.__file__).parent
    require((package / "py.typed").is_file(), "py.typed is missing")
    require(any(package.glob("_core*.pyi")), "the extension has no types")


def check_no_server() -> None:
    """Where nobody listens, the error comes soon and names host and port, not the password."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        began = time.monotonic()
        try:
            redis.read_stream(f"redis://user:{SECRET}@127.0.0.1:{port}", "events")
        except exceptions.RedisConnectionError as error:
            message = str(error)
            require(isinstance(error, ConnectionError), "RedisConnectionError is ConnectionError")
        else:
            sys.exit("smoke test failed: no error without a server")
    require(time.monotonic() - began < 10, "the error took long")
    require(f"127.0.0.1:{port}" in message, f"the address is not in: {message}")
    require(SECRET not in message, "the password is in the message")


def xadd(url: str, *words: str) -> None:
    """Add an entry, by hand."""
    parts = urlsplit(url)
    commands = [("XADD", *words)]
    if parts.password:
        commands.insert(0, ("AUTH", parts.username or "default", parts.password))
    wire = "".join(
        f"*{len(command)}\r\n" + "".join(f"${len(w.encode())}\r\n{w}\r\n" for w in command)
        for command in commands
    )
    address = (parts.hostname or "127.0.0.1", parts.port or 6379)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(wire.encode())
        answer = connection.makefile("rb")
        for _ in commands:
            line = answer.readline()
            require(not line.startswith(b"-"), f"the server said {line!r}")
            if line.startswith(b"$"):
                answer.readline()


def check_round_trip(url: str) -> None:
    """What was added is what is read."""
    stream = f"smoke:{uuid.uuid4().hex}"
    xadd(url, stream, "1704067200000-0", "user", "zoë", "value", "1.5", "count", "-3")
    xadd(url, stream, "1704067200000-1", "user", "a longer name than fits inline", "value", "2")
    schema = {"user": pl.String, "value": pl.Float64, "count": pl.Int64}
    frame = redis.read_stream(url, stream, schema=schema)
    expected = pl.DataFrame(
        {
            "_id": ["1704067200000-0", "1704067200000-1"],
            "_ts": [1704067200000, 1704067200000],
            "user": ["zoë", "a longer name than fits inline"],
            "value": [1.5, 2.0],
            "count": [-3, None],
        },
        schema={"_id": pl.String, "_ts": pl.Int64, **schema},
    )
    require(frame.equals(expected), f"read {frame}")
    require(frame.schema == expected.schema, f"read {frame.schema}")
    total = frame.lazy().filter(pl.col("value") > 1).select(pl.col("value").sum()).collect().item()
    require(total == 3.5, "Polars computes on the frame")


def check_types(url: str) -> None:
    """Dtypes that Polars takes over as they are, and those that it casts."""
    stream = f"smoke:{uuid.uuid4().hex}"
    texts = {
        "at": "2024-01-01T12:00:00+02:00",
        "cost": "1.50",
        "kind": "b",
        "deep": '[{"kind": "a", "took": "PT1S"}, null]',
        "pair": "[1, null]",
    }
    xadd(url, stream, "1-0", *(word for pair in texts.items() for word in pair))
    kinds = pl.Enum(["a", "b"])
    schema = {
        "at": pl.Datetime("us", "UTC"),
        "cost": pl.Decimal(10, 2),
        "kind": kinds,
        "deep": pl.List(pl.Struct({"kind": kinds, "took": pl.Duration("ms")})),
        "pair": pl.Array(pl.Int64, 2),
    }
    frame = redis.read_stream(url, stream, schema, include_id=False, include_timestamp=False)
    require(dict(frame.schema) == schema, f"read {frame.schema}")
    noon, cost, kind, deep, pair = frame.row(0)
    require(noon.hour == 10 and str(cost) == "1.50" and kind == "b", f"read {frame}")
    require(deep[0]["took"].seconds == 1 and deep[1] is None and pair == [1, None], f"read {frame}")
    guess = redis.infer_stream_schema(url, stream)
    require(guess["pair"] == pl.List(pl.Int64), f"guessed {guess}")


def check_iterators(url: str) -> None:
    """What was added comes in batches, to the thread and to asyncio."""
    stream = f"smoke:{uuid.uuid4().hex}"
    for n in range(5):
        xadd(url, stream, f"1-{n}", "n", str(n))
    with redis.iter_stream(
        url, stream, {"n": pl.Int64}, 2, None, group="g", consumer="c"
    ) as batches:
        taken = [(df["n"].to_list(), batches.ack()) for df in batches]
    require(taken == [([0, 1], 2), ([2, 3], 2), ([4], 1)], f"took {taken}")

    async def read() -> list[int]:
        async with redis.iter_stream_async(url, stream, {"n": pl.Int64}, block_ms=None) as batches:
            return [n async for df in batches for n in df["n"]]

    read_by_asyncio = asyncio.run(read())
    require(read_by_asyncio == [0, 1, 2, 3, 4], f"asyncio read {read_by_asyncio}")


@contextlib.contextmanager
def some_server(url: str | None) -> Iterator[str | None]:
    """The URL that was given, or of a server started here, or None."""
    if url is not None:
        yield url
        return
    try:
        from embedded_redis import EmbeddedRedis, find_binaries
    except ImportError:
        yield None
        return
    if not find_binaries():
        yield None
        return
    with EmbeddedRedis() as server:
        yield server.url


def main() -> None:
    """Check all that can be checked."""
    parser = argparse.ArgumentParser(description="try an installed polars_redis")
    parser.add_argument("--url", help="a Redis to write a small stream to")
    wanted = parser.parse_args()
    check_package()
    check_no_server()
    with some_server(wanted.url) as url:
        if url is not None:
            check_round_trip(url)
            check_types(url)
            check_iterators(url)
    done = "round trip" if url is not None else "no server, so no round trip"
    where = Path(redis.__file__).parent
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"ok: Python {version}, Polars {pl.__version__}, {done}, {where}")


if __name__ == "__main__":
    main()
