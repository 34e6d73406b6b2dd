"""One contender of ``write.py``: a way to write a frame, measured in a process of its own.

Run as ``python writers.py NAME HOST PORT KEY ROWS``, in the manner of ``contenders.py``. The
frame, and the commands of the bare socket, are made before the clock runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

import polars_redis
from contenders import Contenders, Read, command, drain, main

ACTIONS = ("click", "view", "purchase", "search", "login", "logout")
#: Resets what Linux tells of the most memory that was used.
CLEAR_REFS = Path("/proc/self/clear_refs")
#: Rows of one pipeline of redis-py.
PIPELINE = 10_000

Commands = Callable[[str, dict[str, Any]], bytes]


def frame(rows: int) -> pl.DataFrame:
    """The rows that are written."""
    n = pl.int_range(rows, eager=True).alias("n")
    return pl.DataFrame(n).select(
        user_id=pl.format("user_{}", pl.col("n") * 7919 % 100_000),
        action=pl.Series(ACTIONS).gather(n % 6),
        quantity=pl.col("n") * 31 % 1000,
        value=(pl.col("n") * 17 % 500) + (pl.col("n") % 100) / 100,
        _key=pl.format("k:{}", "n"),
    )


def fields(row: dict[str, Any]) -> list[object]:
    """The words that a row's fields are."""
    return [word for name, value in row.items() if name != "_key" for word in (name, value)]


def xadd(key: str, row: dict[str, Any]) -> bytes:
    """A row as an entry."""
    return command("XADD", key, "*", *fields(row))


def hset(key: str, row: dict[str, Any]) -> bytes:
    """A row as a hash, or as more of one."""
    return command("HSET", row["_key"], *fields(row))


def replaced(key: str, row: dict[str, Any]) -> bytes:
    """A row as a hash, in the place of what was there."""
    gone = command("DEL", row["_key"])
    return command("MULTI") + gone + hset(key, row) + command("EXEC")


def bare(commands: Commands, host: str, port: int, key: str, rows: int) -> tuple[Read, Read]:
    """A socket that sends what was prepared, and takes the replies."""
    batches = frame(rows).iter_slices(100_000)
    prepared = b"".join(
        b"".join(commands(key, row) for row in batch.iter_rows(named=True)) for batch in batches
    )
    done = command("ECHO", "done")
    everything = prepared + done
    return lambda: drain(host, port, done), lambda: drain(host, port, everything)


def warmed_up(write: Callable[[], object]) -> Read:
    """Write a little, and forget how far the memory rose while the rows were made."""

    def warm_up() -> None:
        write()
        if CLEAR_REFS.exists():
            CLEAR_REFS.write_text("5")

    return warm_up


def entries(host: str, port: int, key: str, rows: int) -> tuple[Read, Read]:
    """``write_stream``."""
    df = frame(rows).drop("_key")
    url = f"redis://{host}:{port}"

    def write() -> dict[str, Any]:
        ids = polars_redis.write_stream(url, df, key)
        return {"rows": ids.len(), "frame": ids.estimated_size("mb")}

    few = partial(polars_redis.write_stream, url, df.head(1), f"{key}:warm")
    return warmed_up(few), write


def hashes(if_exists: Any, host: str, port: int, key: str, rows: int) -> tuple[Read, Read]:
    """``write_hashes``."""
    df = frame(rows)
    write = partial(polars_redis.write_hashes, f"redis://{host}:{port}", if_exists=if_exists)
    return warmed_up(partial(write, df.head(1))), lambda: {"rows": write(df)}


def pipelines(
    add: Callable[[Any, str, dict[str, Any]], object], host: str, port: int, key: str, rows: int
) -> tuple[Read, Read]:
    """redis-py with hiredis: pipelines of ten thousand rows."""
    import redis

    df = frame(rows)
    client = redis.Redis(host, port)

    def write() -> dict[str, Any]:
        replies = 0
        for batch in df.iter_slices(PIPELINE):
            pipeline = client.pipeline(transaction=False)
            for row in batch.iter_rows(named=True):
                add(pipeline, key, row)
            replies += len(pipeline.execute())
        return {"rows": rows if replies >= rows else replies}

    return client.ping, write


def _add_entry(pipeline: Any, key: str, row: dict[str, Any]) -> None:
    del row["_key"]
    pipeline.xadd(key, row)


def _add_hash(pipeline: Any, key: str, row: dict[str, Any]) -> None:
    pipeline.hset(row.pop("_key"), mapping=row)


def _replace_hash(pipeline: Any, key: str, row: dict[str, Any]) -> None:
    pipeline.execute_command("MULTI")
    pipeline.delete(row["_key"])
    _add_hash(pipeline, key, row)
    pipeline.execute_command("EXEC")


CONTENDERS: Contenders = {
    "entries": entries,
    "entries, bare": partial(bare, xadd),
    "entries, redis-py": partial(pipelines, _add_entry),
    "append": partial(hashes, "append"),
    "append, bare": partial(bare, hset),
    "append, redis-py": partial(pipelines, _add_hash),
    "replace": partial(hashes, "replace"),
    "replace, bare": partial(bare, replaced),
    "replace, redis-py": partial(pipelines, _replace_hash),
}


if __name__ == "__main__":
    main(CONTENDERS)
