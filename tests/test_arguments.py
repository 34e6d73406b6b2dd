"""Arguments of the wrong kind, whichever function and parameter it is: a TypeError that names it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import polars as pl
import pytest

import polars_redis as redis

NOBODY = "redis://127.0.0.1:1"
ROWS = pl.DataFrame({"_key": ["k"], "n": [1]})
ONE_STREAM = {"url": NOBODY, "stream": "s", "schema": {"n": int}}
MANY_STREAMS = {"url": NOBODY, "schema": {"n": int}}
ENTRIES = {"url": NOBODY, "stream": "s", "group": "g", "entry_ids": ["1-1"]}
CHANNELS = {"url": NOBODY, "channels": "c"}

CALLS: dict[str, dict[str, Any]] = {
    "read_stream": ONE_STREAM,
    "iter_stream": ONE_STREAM,
    "iter_stream_async": ONE_STREAM,
    "scan_stream": ONE_STREAM,
    "split_stream": {**ONE_STREAM, "splits": 2},
    "read_streams": MANY_STREAMS,
    "scan_streams": MANY_STREAMS,
    "infer_stream_schema": {"url": NOBODY, "stream": "s"},
    "stream_info": {"url": NOBODY, "stream": "s"},
    "ack_entries": ENTRIES,
    "ack_entries_async": ENTRIES,
    "collect_pubsub": {**CHANNELS, "count": 1},
    "iter_pubsub": CHANNELS,
    "iter_pubsub_async": CHANNELS,
    "write_stream": {"url": NOBODY, "df": ROWS.drop("_key"), "stream": "s"},
    "write_stream_async": {"url": NOBODY, "df": ROWS.drop("_key"), "stream": "s"},
    "write_hashes": {"url": NOBODY, "df": ROWS},
    "write_hashes_async": {"url": NOBODY, "df": ROWS},
    "publish": {"url": NOBODY, "df": ROWS, "channel": "c"},
    "publish_async": {"url": NOBODY, "df": ROWS, "channel": "c"},
}
"""What would do, had the server been there."""

NEVER_NONE = {"bool", "int", "str", "ReadFrom", "Nulls", "IfExists"}
"""Parameters said to be one of these, and no more, are never None."""


def wrong_kinds() -> list[Any]:
    cases = []
    for function in CALLS:
        for parameter in inspect.signature(getattr(redis, function)).parameters.values():
            kind = str(parameter.annotation)
            kinds = {part.strip() for part in kind.split("|")}
            wrong: list[Any] = [object()]
            if "bool" in kinds:
                wrong += [1, 0, "true"]
            elif "int" in kinds:
                wrong += [True, 1.5]
            elif "float" in kinds:
                wrong += [True]
            if kinds <= NEVER_NONE:
                wrong += [None]
            cases += [
                pytest.param(
                    function, parameter.name, value, id=f"{function}-{parameter.name}-{at}"
                )
                for at, value in enumerate(wrong)
            ]
    return cases


@pytest.mark.parametrize(("function", "parameter", "value"), wrong_kinds())
def test_a_value_of_the_wrong_kind(function: str, parameter: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{parameter}: "):
        call(function, {**CALLS[function], parameter: value})


@pytest.mark.parametrize("function", CALLS)
def test_those_of_the_right_kind(function: str) -> None:
    """What the test above changes is well."""
    try:
        call(function, CALLS[function])
    except redis.exceptions.RedisConnectionError as error:
        assert "127.0.0.1:1" in str(error)  # noqa: PT017  most connect only later


def call(function: str, arguments: dict[str, Any]) -> None:
    async def awaited() -> None:
        given = getattr(redis, function)(**arguments)
        if inspect.isawaitable(given):
            await given

    asyncio.run(awaited())
