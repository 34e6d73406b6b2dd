"""Pub/Sub: messages of channels as frames, on the servers that are there."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import polars_redis
from polars_redis.exceptions import (
    AuthenticationError,
    MessageDecodeError,
    RedisConnectionError,
    RedisTimeoutError,
    ResponseError,
)
from support.iterators import (
    KINDS,
    PATIENCE,
    connections_of,
    iterating,
    meanwhile,
    named,
    wait_until,
)
from support.proxy import Fault
from support.publishing import listen_until, publish, repeating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from support.proxy import Proxy
    from support.servers import RemoteServer, Server
    from support.topologies import Sentinels

SCHEMA = {"n": pl.Int64, "what": pl.String}
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")


@pytest.fixture
def channel(stream: str) -> str:
    """The name of a channel that nobody has used."""
    return stream.replace("stream", "channel")


@pytest.fixture(params=KINDS)
def iter_pubsub(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Both kinds of iterator, driven alike."""
    with iterating(request.param, "iter_pubsub") as make:
        yield make


def subscribers(client: redis.Redis, channel: str) -> int:
    told: Any = client.pubsub_numsub(channel)
    return int(told[0][1])


def once_subscribed(client: redis.Redis, channel: str, messages: list[Any]) -> Any:
    """Publish in another thread as soon as somebody listens."""

    def wait_and_publish() -> None:
        wait_until(lambda: subscribers(client, channel))
        publish(client, channel, messages)

    return meanwhile(wait_and_publish)


def counted(df: pl.DataFrame) -> list[int]:
    return df["message"].cast(pl.Int64).to_list()


# -- collecting --------------------------------------------------------------


def test_messages_are_collected(any_server: Server, any_client: redis.Redis, channel: str) -> None:
    with once_subscribed(any_client, channel, ["one", "", "zwölf 🦀", "x" * 300_000]):
        df = polars_redis.collect_pubsub(any_server.url, channel, count=4)
    assert df.schema == {"message": pl.String}
    assert df["message"].to_list() == ["one", "", "zwölf 🦀", "x" * 300_000]


def test_the_channel_and_the_time_are_given(
    any_server: Server, any_client: redis.Redis, channel: str
) -> None:
    before = datetime.now(timezone.utc)
    with once_subscribed(any_client, channel, [b"\xff\x00", b"{}"]):
        df = polars_redis.collect_pubsub(
            any_server.url,
            [channel, "another"],
            pl.Binary,
            count=2,
            include_channel=True,
            include_timestamp=True,
            message_column="raw",
            channel_column="from",
            timestamp_column="at",
        )
    after = datetime.now(timezone.utc)
    assert df.schema == {"from": pl.String, "at": pl.Datetime("us", "UTC"), "raw": pl.Binary}
    assert df["from"].to_list() == [channel, channel]
    assert df["raw"].to_list() == [b"\xff\x00", b"{}"]
    assert all(before <= at <= after for at in df["at"])


def test_patterns_match(any_server: Server, any_client: redis.Redis, channel: str) -> None:
    def wait_and_publish() -> None:
        wait_until(lambda: any_client.pubsub_numpat())
        for name in (f"{channel}:a", "elsewhere", f"{channel}:b"):
            any_client.publish(name, name)

    with meanwhile(wait_and_publish):
        df = polars_redis.collect_pubsub(
            any_server.url, f"{channel}:*", pattern=True, count=2, include_channel=True
        )
    assert df.columns == ["_channel", "message"]
    assert df["_channel"].to_list() == df["message"].to_list() == [f"{channel}:a", f"{channel}:b"]


def test_sharded_channels(client: redis.Redis, redis_url: str, channel: str) -> None:
    if int(client.info("server")["redis_version"].split(".")[0]) < 7:
        pytest.skip("since 7.0")

    def wait_and_publish() -> None:
        wait_until(lambda: client.pubsub_shardnumsub(channel)[0][1])  # type: ignore[no-untyped-call]
        client.spublish(channel, "hello")  # type: ignore[no-untyped-call]

    with meanwhile(wait_and_publish):
        df = polars_redis.collect_pubsub(redis_url, channel, sharded=True, count=1)
    assert df["message"].to_list() == ["hello"]


def test_collecting_ends_in_time(redis_url: str, client: redis.Redis, channel: str) -> None:
    with once_subscribed(client, channel, ["1", "2"]):
        df = polars_redis.collect_pubsub(redis_url, channel, pl.UInt8, timeout_ms=3000, count=3)
    assert df["message"].to_list() == [1, 2]
    empty = polars_redis.collect_pubsub(redis_url, channel, SCHEMA, timeout_ms=0)
    assert (empty.height, empty.schema) == (0, SCHEMA)
    nothing = polars_redis.collect_pubsub(redis_url, channel, count=0)
    assert nothing.schema == {"message": pl.String}


def test_a_list_of_python_is_a_dtype(redis_url: str, client: redis.Redis, channel: str) -> None:
    with once_subscribed(client, channel, ["[1, 2]", "[]"]):
        df = polars_redis.collect_pubsub(redis_url, channel, list[int], count=2)
    assert df.schema == {"message": pl.List(pl.Int64)}
    assert df["message"].to_list() == [[1, 2], []]


def test_nothing_is_left_subscribed(redis_url: str, client: redis.Redis, channel: str) -> None:
    name = "collects"
    polars_redis.collect_pubsub(named(redis_url, name), channel, timeout_ms=1)
    wait_until(lambda: not connections_of(client, name))


# -- what messages say -------------------------------------------------------

OBJECTS = [
    '{"n": 1, "what": "a"}',
    '{"what": "b", "ignored": [{}]}',
    ' {"n": null, "what": "\\u00e9"} ',
    '{"n": 3, "n": 4}',
    "{}",
]


def test_objects_become_columns(redis_url: str, client: redis.Redis, channel: str) -> None:
    with once_subscribed(client, channel, OBJECTS):
        df = polars_redis.collect_pubsub(redis_url, channel, SCHEMA, count=len(OBJECTS))
    expected = {"n": [1, None, None, 4, None], "what": ["a", "b", "é", None, None]}
    assert_frame_equal(df, pl.DataFrame(expected, schema=SCHEMA))


def test_every_kind_of_member(redis_url: str, client: redis.Redis, channel: str) -> None:
    schema = {
        "at": pl.Datetime("us", "UTC"),
        "kind": pl.Enum(["x", "y"]),
        "tags": pl.List(pl.Categorical()),
        "point": pl.Struct({"x": pl.Float64}),
        "flag": bool,
    }
    message = {
        "at": "2024-01-01T00:00:00Z",
        "kind": "y",
        "tags": ["a", None],
        "point": {"x": 1.5},
        "flag": True,
    }
    with once_subscribed(client, channel, [json.dumps(message)]):
        df = polars_redis.collect_pubsub(redis_url, channel, schema, count=1)
    assert df.schema["kind"] == schema["kind"]
    expected = {**message, "at": datetime(2024, 1, 1, tzinfo=timezone.utc)}
    assert df.row(0, named=True) == expected


@pytest.mark.parametrize(
    ("message", "field", "told"),
    [
        ('{"n": "x"}', "n", "expected Int64, got"),
        ('{"n": 1.5, "what": "a"}', "n", 'expected Int64, got "1.5" in the message'),
        ('{"n": 1, "what": 2}', "what", "expected String"),
        ("[1]", None, "expected a JSON object"),
        ("no JSON", None, 'expected a JSON object, got "no JSON"'),
        ("null", None, "expected a JSON object"),
        ("", None, "expected a JSON object"),
        (b'{"what": "\xff"}', None, "expected a JSON object"),
        ('{"n": 1, "what": "' + "y" * 5000, None, "(5018 bytes)"),
    ],
)
def test_what_does_not_fit(
    redis_url: str, client: redis.Redis, channel: str, message: Any, field: str | None, told: str
) -> None:
    messages = ['{"n": 1, "what": "a"}', message, '{"n": 2, "what": "b"}']
    with (
        once_subscribed(client, channel, messages),
        pytest.raises(MessageDecodeError) as raised,
    ):
        polars_redis.collect_pubsub(redis_url, channel, SCHEMA, count=3)
    assert (raised.value.channel, raised.value.field) == (channel, field)
    assert told in str(raised.value)
    assert channel in str(raised.value)
    assert len(str(raised.value)) < 400
    with once_subscribed(client, channel, messages):
        df = polars_redis.collect_pubsub(redis_url, channel, SCHEMA, count=3, strict=False)
    assert df.schema == SCHEMA
    assert df["n"].to_list()[::2] == [1, 2]
    if field is None:
        assert df.row(1) == (None, None)
    else:
        # What is beside it stays.
        assert df[field].to_list()[1] is None
        other = "what" if field == "n" else "n"
        assert df[other].to_list()[1] == json.loads(message).get(other)


def test_a_text_that_is_none(redis_url: str, client: redis.Redis, channel: str) -> None:
    with (
        once_subscribed(client, channel, [b"\xff"]),
        pytest.raises(MessageDecodeError, match='field "message": expected String') as raised,
    ):
        polars_redis.collect_pubsub(redis_url, channel, count=1)
    assert raised.value.field == "message"
    with once_subscribed(client, channel, [b"\xff", "x"]):
        df = polars_redis.collect_pubsub(redis_url, channel, count=2, strict=False)
    assert df["message"].to_list() == [None, "x"]


def test_an_iterator_goes_on_after_what_does_not_fit(
    iter_pubsub: Callable[..., Any], redis_url: str, client: redis.Redis, channel: str
) -> None:
    with iter_pubsub(redis_url, channel, pl.Int64, batch_timeout_ms=60_000, count=4) as messages:
        publish(client, channel, ["1", "2", "three", "four", "5", "6"])
        assert next(messages)["message"].to_list() == [1, 2]
        with pytest.raises(MessageDecodeError, match="three"):
            next(messages)
        with pytest.raises(MessageDecodeError, match="four"):
            next(messages)
        assert next(messages)["message"].to_list() == [5, 6]
        with pytest.raises(StopIteration):
            next(messages)


# -- arguments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({}, ValueError, "count or timeout_ms"),
        ({"count": -1}, ValueError, "count: expected at least 0"),
        ({"count": 1.5}, TypeError, "count: expected int"),
        ({"timeout_ms": "1"}, TypeError, "timeout_ms: expected int"),
        ({"count": 1, "channels": []}, ValueError, "channels: expected at least one"),
        ({"count": 1, "channels": b"x"}, TypeError, "channels: expected str"),
        ({"count": 1, "channels": [b"x"]}, TypeError, "channels: expected str, got bytes"),
        ({"count": 1, "channels": 3}, TypeError, "channels: expected str"),
        ({"count": 1, "pattern": 1}, TypeError, "pattern: expected bool"),
        ({"count": 1, "pattern": True, "sharded": True}, ValueError, "sharded"),
        ({"count": 1, "strict": None}, TypeError, "strict: expected bool"),
        ({"count": 1, "schema": {}}, ValueError, "schema: names no field"),
        ({"count": 1, "schema": {"a": pl.Object}}, ValueError, "cannot make a column of Object"),
        ({"count": 1, "schema": "a"}, TypeError, "schema"),
        ({"count": 1, "message_column": None}, TypeError, "message_column: expected str"),
        ({"count": 1, "include_channel": 1}, TypeError, "include_channel: expected bool"),
        (
            {"count": 1, "include_channel": True, "channel_column": "message"},
            ValueError,
            'two columns are named "message"',
        ),
        (
            {"count": 1, "schema": [("a", int), ("a", str)]},
            ValueError,
            'two columns are named "a"',
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], told: str) -> None:
    options = {"channels": "c", **options}
    with pytest.raises(error, match=told):
        polars_redis.collect_pubsub("redis://localhost:1", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_timeout_ms": -1},
        {"buffer_size": 0},
        {"reconnect_timeout_ms": -1},
        {"channels": ()},
    ],
)
def test_wrong_arguments_of_iterators(
    iter_pubsub: Callable[..., Any], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected at least"):
        iter_pubsub("redis://localhost:1", **{"channels": "c", **options})


def test_no_password_is_shown(iter_pubsub: Callable[..., Any]) -> None:
    iterator = iter_pubsub("redis://user:hunter2@localhost:1", ["a", "b"])
    assert "hunter2" not in repr(iterator)
    assert "'a', 'b'" in repr(iterator)
    with pytest.raises(RedisConnectionError) as raised:
        next(iterator)
    assert "hunter2" not in str(raised.value)


# -- iterating ---------------------------------------------------------------


def test_batches_are_full_and_in_order(
    iter_pubsub: Callable[..., Any],
    any_server: Server,
    any_client: redis.Redis,
    channel: str,
) -> None:
    with iter_pubsub(any_server.url, channel, count=1005, batch_timeout_ms=60_000) as messages:
        publish(any_client, channel, range(1010))
        batches = list(messages)
    assert [df.height for df in batches] == [100] * 10 + [5]
    assert counted(pl.concat(batches)) == list(range(1005))
    stats = messages.stats
    assert (stats.batches, stats.messages, stats.gaps, stats.reconnects) == (11, 1005, 0, 0)
    assert stats["bytes"] > 1005 * len(channel)
    assert dict(stats)["messages"] == 1005


def test_a_batch_is_given_in_time(
    iter_pubsub: Callable[..., Any], redis_url: str, client: redis.Redis, channel: str
) -> None:
    with iter_pubsub(redis_url, channel, batch_timeout_ms=200) as messages:
        for _ in range(3):
            publish(client, channel, [1, 2, 3])
            begun = time.monotonic()
            df = next(messages)
            assert counted(df) == [1, 2, 3]
            assert 0.15 < time.monotonic() - begun < PATIENCE
    with iter_pubsub(redis_url, channel, batch_timeout_ms=0) as messages:
        publish(client, channel, [1])
        assert counted(next(messages)) == [1]


def test_it_ends_in_silence(
    iter_pubsub: Callable[..., Any], redis_url: str, client: redis.Redis, channel: str
) -> None:
    with iter_pubsub(redis_url, channel, timeout_ms=300, batch_timeout_ms=60_000) as messages:
        publish(client, channel, [1, 2])
        assert [counted(df) for df in messages] == [[1, 2]]
        # For good.
        publish(client, channel, [3])
        assert list(messages) == []


def test_entering_subscribes(
    iter_pubsub: Callable[..., Any], redis_url: str, client: redis.Redis, channel: str
) -> None:
    channels = [f"{channel}:{n}" for n in range(1000)]
    messages = iter_pubsub(redis_url, [*channels, channels[0]], count=1000, batch_size=1000)
    assert subscribers(client, channels[0]) == 0
    with messages:
        assert {subscribers(client, name) for name in channels} == {1}
        for name in channels:
            client.publish(name, name)
        assert next(messages)["message"].to_list() == channels
    wait_until(lambda: subscribers(client, channels[0]) == 0)
    assert list(messages) == []
    with pytest.raises(ValueError, match=r"^the iterator is closed$"), messages:
        pass


def test_more_than_the_buffer_holds(
    iter_pubsub: Callable[..., Any], redis_url: str, client: redis.Redis, channel: str
) -> None:
    with iter_pubsub(redis_url, channel, batch_size=3, buffer_size=7, count=5000) as messages:
        publish(client, channel, range(5000))
        frames = list(messages)
    assert counted(pl.concat(frames)) == list(range(5000))
    assert max(df.height for df in frames) == 3


def test_a_frame_holds_more_than_the_buffer(
    iter_pubsub: Callable[..., Any], redis_url: str, client: redis.Redis, channel: str
) -> None:
    with iter_pubsub(
        redis_url, channel, batch_size=20, batch_timeout_ms=60_000, buffer_size=3, count=60
    ) as messages:
        publish(client, channel, range(60))
        assert [df.height for df in messages] == [20, 20, 20]


def test_a_hundred_thousand_in_order(
    iter_pubsub: Callable[..., Any], make_server: Callable[..., Server], channel: str
) -> None:
    server = make_server(client_output_buffer_limit="pubsub 0 0 0")
    client, total = server.client(), 100_000
    with iter_pubsub(server.url, channel, SCHEMA, batch_size=997, count=total) as messages:

        def publish_all() -> None:
            for begin in range(0, total, 10_000):
                texts = (f'{{"n": {n}, "what": "{n % 7}"}}' for n in range(begin, begin + 10_000))
                publish(client, channel, texts)

        with meanwhile(publish_all):
            df = pl.concat(list(messages))
    assert df["n"].to_list() == list(range(total))
    assert df["what"].to_list() == [str(n % 7) for n in range(total)]
    assert messages.stats.gaps == 0


# -- closing -----------------------------------------------------------------


def test_another_thread_closes_it(redis_url: str, client: redis.Redis, channel: str) -> None:
    name = "is-closed"
    messages = polars_redis.iter_pubsub(named(redis_url, name), channel)
    closed_at = []

    def wait_and_close() -> None:
        wait_until(lambda: subscribers(client, channel))
        messages.close()
        closed_at.append(time.monotonic())

    with meanwhile(wait_and_close):
        assert list(messages) == []
        ended = time.monotonic()
    assert ended - closed_at[0] < 0.2 + PATIENCE / 10
    assert list(messages) == []
    wait_until(lambda: not connections_of(client, name))


def test_another_task_closes_it(redis_url: str, client: redis.Redis, channel: str) -> None:
    async def run() -> None:
        messages = polars_redis.iter_pubsub_async(redis_url, channel)
        waiting = asyncio.ensure_future(anext_or_none(messages))
        while not await asyncio.to_thread(subscribers, client, channel):
            await asyncio.sleep(0.002)
        await messages.aclose()
        assert await asyncio.wait_for(waiting, PATIENCE) is None

    asyncio.run(run())


async def anext_or_none(iterator: Any) -> Any:
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        return None


@posix
def test_ctrl_c_ends_a_wait_and_loses_nothing(
    redis_url: str, client: redis.Redis, channel: str
) -> None:
    with polars_redis.iter_pubsub(redis_url, channel, batch_timeout_ms=0) as messages:

        def interrupt() -> None:
            wait_until(lambda: subscribers(client, channel))
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt), meanwhile(interrupt):
            next(messages)
        publish(client, channel, [1])
        assert counted(next(messages)) == [1]


def test_cancelling_loses_nothing(redis_url: str, client: redis.Redis, channel: str) -> None:
    total = 3000

    async def run() -> list[int]:
        seen: list[int] = []
        url = f"{redis_url}{'&' if '?' in redis_url else '?'}socket_timeout=2"
        async with polars_redis.iter_pubsub_async(
            url, channel, batch_size=7, batch_timeout_ms=3
        ) as messages:
            publisher = asyncio.create_task(asyncio.to_thread(publish_slowly))
            patience = 0.0001
            while len(seen) < total:
                try:
                    seen += counted(await asyncio.wait_for(anext(messages), patience))
                except asyncio.TimeoutError:
                    patience = patience * 2 if patience < 0.05 else 0.0001
            await publisher
            assert messages.stats.gaps == 0
        return seen

    def publish_slowly() -> None:
        for begin in range(0, total, 10):
            publish(client, channel, range(begin, begin + 10))

    assert asyncio.run(run()) == list(range(total))


@posix
def test_a_fork_subscribes_for_itself(redis_url: str, client: redis.Redis, channel: str) -> None:
    with polars_redis.iter_pubsub(redis_url, channel, batch_timeout_ms=0) as messages:
        publish(client, channel, [1])
        assert counted(next(messages)) == [1]
        child = os.fork()
        if child == 0:
            try:
                seen = counted(next(messages))
                os._exit(0 if seen == [2] and messages.stats.gaps == 0 else 1)
            finally:
                os._exit(2)
        wait_until(lambda: subscribers(client, channel) == 2)
        publish(client, channel, [2])
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert counted(next(messages)) == [2]


# -- what breaks -------------------------------------------------------------


def test_a_slow_reader_is_cut_and_told(
    iter_pubsub: Callable[..., Any],
    make_server: Callable[..., Server],
    channel: str,
    told: Callable[[], list[str]],
) -> None:
    server = make_server(client_output_buffer_limit="pubsub 1mb 0 0")
    client = server.client()
    with iter_pubsub(server.url, channel, batch_size=10, batch_timeout_ms=0) as messages:
        # As many as the sockets hold, and then as the server does.
        numbers = itertools.count()
        wait_until(lambda: client.publish(channel, f"{next(numbers)}{'x' * 100_000}") == 0)
        with repeating(client, channel, "again"):
            seen = listen_until(messages, "again")
        assert (messages.stats.gaps, messages.stats.reconnects) == (1, 1)
    # What was on the line when it was cut is not lost, but what the server held is.
    assert [int(text.rstrip("x")) for text in seen] == list(range(len(seen)))
    assert 0 < len(seen) < next(numbers) - 10
    assert "messages that were published meanwhile were missed" in told()[-1]


def test_a_server_that_was_killed_is_subscribed_again(
    iter_pubsub: Callable[..., Any],
    make_server: Callable[..., Server],
    channel: str,
    told: Callable[[], list[str]],
) -> None:
    server = make_server()
    with iter_pubsub(server.url, [channel, "b"], batch_timeout_ms=0) as messages:
        publish(server.client(), channel, ["before"])
        assert next(messages)["message"].to_list() == ["before"]
        server.kill()
        server.start()
        with repeating(server.client(), channel, "after"):
            assert listen_until(messages, "after") == []
        assert (messages.stats.gaps, messages.stats.reconnects) == (1, 1)
    assert "messages that were published meanwhile were missed" in told()[-1]


def test_what_came_before_an_error_is_given_first(
    iter_pubsub: Callable[..., Any], make_server: Callable[..., Server], channel: str
) -> None:
    server = make_server()
    with iter_pubsub(
        server.url, channel, batch_size=2, batch_timeout_ms=60_000, reconnect_timeout_ms=0
    ) as messages:
        publish(server.client(), channel, ["1", "2", "3"])
        assert counted(next(messages)) == [1, 2]
        server.kill()
        # A batch that is not full does not wait for an error that is there.
        assert counted(next(messages)) == [3]
        with pytest.raises(RedisConnectionError):
            next(messages)
        server.start()
        with repeating(server.client(), channel, "4"):
            assert counted(next(messages)) == [4, 4]
        assert messages.stats.gaps == 1


def test_a_silent_server_is_noticed(
    iter_pubsub: Callable[..., Any],
    make_server: Callable[..., Server],
    channel: str,
    told: Callable[[], list[str]],
) -> None:
    server = make_server()
    url = f"{server.url}?socket_timeout=1"
    with iter_pubsub(url, channel, reconnect_timeout_ms=0, timeout_ms=60_000) as messages:
        server.pause()
        try:
            begun = time.monotonic()
            with pytest.raises(RedisTimeoutError, match="silent"):
                next(messages)
            assert time.monotonic() - begun >= 0.9
        finally:
            server.resume()


def test_a_server_with_nothing_to_say_is_left_alone(
    iter_pubsub: Callable[..., Any], make_server: Callable[..., Server], channel: str
) -> None:
    server = make_server()
    client = server.client()
    url = f"{server.url}?socket_timeout=1"
    with iter_pubsub(url, channel, timeout_ms=3000) as messages:
        assert list(messages) == []
        assert (messages.stats.gaps, messages.stats.reconnects) == (0, 0)
    assert client.info("commandstats")["cmdstat_ping"]["calls"] > 2


def introduction_of(proxy: Proxy, url: str, channel: str) -> int:
    """Bytes that come before the first message; the first connection to a URL has more."""
    told: list[int] = []
    # The proxy counts what it has passed on a moment later.
    while len(told) < 2 or told[-1] != told[-2]:
        before = proxy.bytes_down
        with polars_redis.iter_pubsub(url, channel):
            pass
        told.append(proxy.bytes_down - before)
    return told[-1]


@pytest.mark.parametrize("fault", [Fault(cut="rst"), Fault(cut="fin"), Fault(chunk=1)], ids=str)
def test_a_line_that_is_cut_anywhere(
    make_proxy: Callable[..., Proxy],
    redis_url: str,
    server: RemoteServer | Server,
    client: redis.Redis,
    channel: str,
    fault: Fault,
) -> None:
    proxy = make_proxy(server)
    url = proxy.rewrite(redis_url)
    introduction = introduction_of(proxy, url, channel)
    message = len(f"*3\r\n$7\r\nmessage\r\n${len(channel)}\r\n{channel}\r\n$2\r\n10\r\n")
    # One that is cut before the first byte may be made again before anything is published.
    for at in range(1, 2 * message):
        ill = replace(fault, cut_after=introduction + at)
        proxy.set_fault(ill, connection=proxy.connections + 1)
        with polars_redis.iter_pubsub(url, channel, batch_timeout_ms=0) as messages:
            publish(client, channel, ["10", "11"])
            with repeating(client, channel, "12"):
                seen = listen_until(messages, "12")
            assert messages.stats.gaps == 1
        # A message comes whole or not at all, and those before it do.
        whole = ["10", "11"][: at // message]
        assert seen in ([whole] if fault.cut == "fin" else [["10", "11"][:n] for n in range(3)])


def test_refused_channels_are_named(
    iter_pubsub: Callable[..., Any], make_server: Callable[..., Server]
) -> None:
    server = make_server(acl=["few on >hunter2 resetchannels &mine &yours -@all +subscribe"])
    url = server.url.replace("//", "//few:hunter2@") + "?socket_timeout=1"
    iterator = iter_pubsub(url, ["mine", "theirs", "yours"])
    for _ in range(2):
        with pytest.raises(ResponseError, match='channel "theirs": NOPERM') as raised:
            next(iterator)
        assert "hunter2" not in str(raised.value)
    # Who may not ask whether anybody is there listens all the same.
    with iter_pubsub(url, ["mine", "yours"], timeout_ms=2000) as messages:
        assert list(messages) == []
        assert messages.stats.reconnects == 0
    with pytest.raises(AuthenticationError):
        next(iter_pubsub(url.replace("hunter2", "wrong"), "mine"))


def test_the_first_connection_fails_at_once(
    iter_pubsub: Callable[..., Any], make_server: Callable[..., Server]
) -> None:
    server = make_server()
    server.kill()
    with pytest.raises(RedisConnectionError):
        next(iter_pubsub(server.url, "c"))
    with pytest.raises(RedisConnectionError):
        polars_redis.collect_pubsub(server.url, "c", count=1)


# -- deployments -------------------------------------------------------------


def test_a_failover_is_followed(
    iter_pubsub: Callable[..., Any], make_sentinels: Callable[..., Sentinels], channel: str
) -> None:
    deployment = make_sentinels()
    with iter_pubsub(deployment.url(), channel, batch_timeout_ms=0) as messages:
        with repeating(deployment.master().client(), channel, "before"):
            assert next(messages)["message"][0] == "before"
        deployment.wait_for_new_master(deployment.kill_master())
        with repeating(deployment.master().client(), channel, "after"):
            listen_until(messages, "after")
        assert messages.stats.gaps == 1


def test_a_subscription_that_stays_lost_is_told(
    make_server: Callable[..., Server], channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()
    with polars_redis.iter_pubsub(server.url, channel, timeout_ms=500) as messages:
        server.kill()
        assert list(messages) == []
        assert messages.stats.gaps == 1
    assert "messages that were published meanwhile were missed" in caplog.text
