"""Streams for tests: filled quickly, and read by plain Python to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis


def add(client: redis.Redis, stream: str, entries: Iterable[tuple[str, Any]]) -> list[str]:
    """Add entries with their IDs; fields as a mapping, or a flat list that may repeat names."""
    ids = []
    pipeline = client.pipeline(transaction=False)
    for entry_id, fields in entries:
        flat = [x for pair in fields.items() for x in pair] if isinstance(fields, dict) else fields
        pipeline.execute_command("XADD", stream, entry_id, *flat)  # type: ignore[no-untyped-call]
        ids.append(entry_id)
        if len(ids) % 10_000 == 0:
            pipeline.execute()
    pipeline.execute()
    return ids


def add_numbered(client: redis.Redis, stream: str, ids: Iterable[str]) -> list[str]:
    """Add entries whose one field `n` counts them."""
    return add(client, stream, ((entry_id, {"n": n}) for n, entry_id in enumerate(ids)))


def id_key(entry_id: str) -> tuple[int, int]:
    """What orders entry IDs."""
    ms, seq = entry_id.split("-")
    return int(ms), int(seq)


def assert_numbered(df: pl.DataFrame, ids: list[str]) -> None:
    """Check that a frame holds just the entries that `add_numbered` added, in order."""
    assert df["_id"].to_list() == ids
    assert df["n"].to_list() == list(range(len(ids)))
