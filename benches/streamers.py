"""One contender of ``streams.py``: a way to read many streams, measured in a process of its own.

Run as ``python streamers.py NAME HOST PORT PREFIX ENTRIES``, in the manner of ``contenders.py``.
"""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING, Any

from contenders import Contenders, Read, command, drain_all_at_once, frame_of_texts, main, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Entries of each of many streams.
EACH = 100
#: Commands of one of redis-py's pipelines: fewer and more take longer.
PIPELINE = 500
#: Shards of the cluster, and how many streams they have together.
SHARDS = 3
CLUSTER_STREAMS = 30
SLOTS = 16384


def keys(prefix: str, entries: int) -> list[str]:
    """The keys of many short streams."""
    return [f"{prefix}:{n:06}" for n in range(entries // EACH)]


def tags() -> list[str]:
    """A hash tag for each shard of a cluster whose shards have equal parts of the slots."""
    from redis.crc import key_slot

    def of(shard: int) -> Iterator[str]:
        first, last = (SLOTS * n // SHARDS for n in (shard, shard + 1))
        return (tag for n in count() if first <= key_slot((tag := f"t{n}").encode()) < last)

    return [tag for shard in range(SHARDS) for tag in islice(of(shard), 1)]


def cluster_keys(prefix: str) -> list[str]:
    """The keys of a few long streams, as many for each shard of a cluster."""
    return [f"{prefix}:{{{tag}}}:{n}" for tag in tags() for n in range(CLUSTER_STREAMS // SHARDS)]


def bare(host: str, port: int, prefix: str, entries: int) -> tuple[Read, Read]:
    """The bare socket, all requests sent at once."""
    commands = [command("XRANGE", key, "-", "+", "COUNT", 1000) for key in keys(prefix, entries)]
    return lambda: drain_all_at_once(host, port, commands[:1]), lambda: drain_all_at_once(
        host, port, commands
    )


def ours(host: str, port: int, prefix: str, entries: int) -> tuple[Read, Read]:
    """``read_streams``."""
    import polars_redis

    url = f"redis://{host}:{port}"
    return lambda: polars_redis.read_streams(
        url, f"{prefix}:*", schema(), count_per_stream=0
    ), lambda: polars_redis.read_streams(url, f"{prefix}:*", schema())


def by_hand(host: str, port: int, prefix: str, entries: int) -> tuple[Read, Read]:
    """redis-py with hiredis, pipelines of many requests: a list a column, cast by Polars."""
    import polars as pl
    import redis

    client = redis.Redis(host, port, decode_responses=True)

    def read() -> Any:
        streams: list[str] = []
        ids: list[str] = []
        columns: dict[str, list[str]] = {name: [] for name in schema()}
        found = sorted(client.scan_iter(f"{prefix}:*", 1000, _type="stream"))
        for at in range(0, len(found), PIPELINE):
            some = found[at : at + PIPELINE]
            pipeline = client.pipeline(transaction=False)
            for key in some:
                pipeline.xrange(key, count=1000)
            for key, stream in zip(some, pipeline.execute(), strict=True):
                streams += [key] * len(stream)
                ids += [entry for entry, _ in stream]
                for name, values in columns.items():
                    values += [fields[name] for _, fields in stream]
        return frame_of_texts(ids, columns).with_columns(pl.Series("_key", streams))

    return client.ping, read


def at_once(host: str, port: int, prefix: str, entries: int) -> tuple[Read, Read]:
    """All shards of a cluster together."""
    return ours(host, port, prefix, entries)


def one_by_one(host: str, port: int, prefix: str, entries: int) -> tuple[Read, Read]:
    """One shard of a cluster after another."""
    import polars as pl

    import polars_redis

    url = f"redis://{host}:{port}"
    patterns = [f"{prefix}:{{{tag}}}:*" for tag in tags()]
    warm_up, _ = ours(host, port, prefix, entries)
    return warm_up, lambda: pl.concat(
        polars_redis.read_streams(url, pattern, schema()) for pattern in patterns
    )


CONTENDERS: Contenders = {
    "bare": bare,
    "ours": ours,
    "by hand": by_hand,
    "at once": at_once,
    "one by one": one_by_one,
}


if __name__ == "__main__":
    main(CONTENDERS)
