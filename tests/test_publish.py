"""Publishing frames: who listens gets each row, in order, as JSON that reads back."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import polars_redis as redis
from polars_redis.exceptions import RedisConnectionError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.servers import Server
    from support.topologies import Cluster

NOBODY = "redis://127.0.0.1:1"
DF = pl.DataFrame({"n": range(500)}).with_columns(
    half=pl.when(pl.col("n") % 2 == 0).then(pl.col("n") / 2),
    text=pl.format("é {}", "n"),
    near=pl.concat_list("n", "n"),
)


@pytest.fixture
def listener(client: redis_py.Redis, stream: str) -> Iterator[Any]:
    """Who listens on the channels that begin with the name."""
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.psubscribe(f"{stream}*")
    # Until the server has said so.
    listener.parse_response()
    yield listener
    listener.close()


def heard(listener: Any, messages: int) -> list[tuple[str, bytes]]:
    got = []
    while len(got) < messages:
        message = listener.get_message(timeout=30)
        assert message is not None
        got.append((message["channel"].decode(), message["data"]))
    return got


def publish(kind: str, *args: Any, **options: Any) -> int:
    if kind == "sync":
        return redis.publish(*args, **options)
    return asyncio.run(redis.publish_async(*args, **options))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("lazy", [False, True])
def test_each_row_is_a_message(
    redis_url: str, stream: str, listener: Any, kind: str, lazy: bool
) -> None:
    df: Any = DF.lazy() if lazy else DF
    assert publish(kind, redis_url, df, stream, batch_size=100) == 500
    messages = heard(listener, 500)
    assert {channel for channel, _ in messages} == {stream}
    rows = [json.loads(data) for _, data in messages]
    assert rows == DF.to_dicts()


def test_the_messages_read_back(redis_url: str, stream: str, listener: Any) -> None:
    redis.publish(redis_url, DF, stream)
    texts = pl.DataFrame({"row": [data for _, data in heard(listener, 500)]})
    redis.write_stream(redis_url, texts, stream)
    df = redis.read_stream(redis_url, stream, {"row": pl.Struct(DF.schema)})
    assert_frame_equal(df.select("row").unnest("row"), DF)


def test_channels_by_column(redis_url: str, stream: str, listener: Any) -> None:
    df = DF.select("n", to=pl.format(f"{stream}:{{}}", pl.col("n") % 3))
    assert redis.publish(df, redis_url, channel_column="to") == 500
    messages = heard(listener, 500)
    assert [(channel, json.loads(data)) for channel, data in messages] == [
        (row["to"], {"n": row["n"]}) for row in df.to_dicts()
    ]


def test_nobody_listens(redis_url: str, stream: str) -> None:
    assert redis.publish(redis_url, DF, stream) == 500


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "channel: name a channel"),
        ({"channel": "c", "channel_column": "n"}, ValueError, "channel_column: only where no"),
        ({"channel_column": "x"}, ValueError, 'channel_column: the frame has no column "x"'),
        ({"channel": 5}, TypeError, "channel: expected str"),
        ({"channel": "c", "sharded": 5}, TypeError, "sharded: expected bool"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        redis.publish(NOBODY, DF, **arguments)


def test_a_channel_that_is_null(redis_url: str) -> None:
    df = pl.DataFrame({"to": ["a", None], "n": [1, 2]})
    with pytest.raises(ValueError, match=r"channel_column: expected a channel in row 1, got null"):
        redis.publish(redis_url, df, channel_column="to")


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(RedisConnectionError) as raised:
        redis.publish(NOBODY, DF, "c")
    assert raised.value.failed.len() == 500  # type: ignore[attr-defined]


def test_rights_that_are_missing(make_server: Callable[..., Server]) -> None:
    users = ["default on nopass ~* &* +@all", "speaker on >pw resetchannels &a* -@all +publish"]
    server = make_server(acl=users)
    url = server.url_for("speaker", "pw")
    assert redis.publish(url, DF, "alerts") == 500
    with pytest.raises(ResponseError, match=r'channel "others": NOPERM'):
        redis.publish(url, DF, "others")


@pytest.mark.parametrize("by_column", [False, True])
def test_shards_of_a_cluster(cluster: Cluster, stream: str, by_column: bool) -> None:
    df = DF.select("n").with_columns(to=pl.format(f"{stream}:{{}}", pl.col("n") % 5))
    channels = [f"{stream}:{n}" for n in range(5)] if by_column else [stream]
    got: list[int] = []
    ready = threading.Barrier(len(channels) + 1)

    def listen(channel: str) -> None:
        with cluster.node_of(channel).client() as node:
            listener = node.pubsub()
            listener.ssubscribe(channel)
            listener.parse_response()
            ready.wait()
            for _ in range(500 // len(channels)):
                kind, _, data = listener.parse_response(timeout=30)
                assert kind == b"smessage"
                got.append(json.loads(data)["n"])
            listener.close()

    threads = [threading.Thread(target=listen, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    ready.wait()
    if by_column:
        told = redis.publish(cluster.url, df, channel_column="to", sharded=True)
    else:
        told = redis.publish(cluster.url, df, stream, sharded=True)
    for thread in threads:
        thread.join()
    assert told == 500
    assert sorted(got) == list(range(500))
