"""The exceptions: what they are, and that they survive copying and pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

from polars_redis import exceptions
from polars_redis.exceptions import (
    AuthenticationError,
    DecodeError,
    MessageDecodeError,
    PolarsRedisError,
    ProtocolError,
    RedisConnectionError,
    RedisTimeoutError,
    ResponseError,
)


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (RedisConnectionError, ConnectionError),
        (RedisTimeoutError, TimeoutError),
        (AuthenticationError, Exception),
        (ResponseError, Exception),
        (ProtocolError, Exception),
        (DecodeError, ValueError),
        (MessageDecodeError, ValueError),
    ],
)
def test_each_is_ours_and_the_built_in_one(kind: type[Exception], also: type[Exception]) -> None:
    assert issubclass(kind, PolarsRedisError)
    assert issubclass(kind, also)


def test_all_are_listed() -> None:
    defined = {name for name, value in vars(exceptions).items() if isinstance(value, type)}
    assert set(exceptions.__all__) == {name for name in defined if name.endswith("Error")}


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_decode_error_survives(again: object) -> None:
    error = DecodeError("told", "s", "1-0", "f")
    other = again(error)  # type: ignore[operator]
    assert (str(other), other.stream, other.entry_id, other.field) == ("told", "s", "1-0", "f")


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_message_decode_error_survives(again: object) -> None:
    error = MessageDecodeError("told", "c", None)
    other = again(error)  # type: ignore[operator]
    assert (str(other), other.channel, other.field) == ("told", "c", None)
