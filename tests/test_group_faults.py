"""Group reads over bad lines, by workers that die, from servers that go away: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pytest
import redis as redis_py

import polars_redis as redis
from support.iterators import KINDS, iterating, meanwhile, named, once_blocked, wait_until
from support.proxy import Fault, Proxy
from support.streams import add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.servers import Server

SCHEMA = {"n": pl.Int64}
GROUP = {"group": "g", "consumer": "a"}
STALE = 600_000
#: Short keys, as every reply repeats them and is cut at every byte; one for each thread.
KEYS = ["s0", "s1", "s2", "s3"]


def pending(client: redis_py.Redis, stream: str) -> dict[str, str]:
    """Which consumer has which entries."""
    rows = client.xpending_range(stream, "g", "-", "+", 100_000)
    return {row["message_id"].decode(): row["consumer"].decode() for row in rows}


def prepare(client: redis_py.Redis, key: str = KEYS[0]) -> list[str]:
    """Make a stream with one stale entry of another consumer, one own pending, and three new."""
    client.delete(key, f"{key}:dead")
    ids = add_numbered(client, key, (f"{n}-0" for n in range(1, 6)))
    client.xgroup_create(key, "g", "0")
    client.xreadgroup("g", "b", {key: ">"}, count=1)
    client.xclaim(key, "g", "b", 0, ["1-0"], idle=STALE, justid=True)
    client.xreadgroup("g", "a", {key: ">"}, count=1)
    # It has had that one for a while, so that nobody takes it for one just delivered.
    client.xclaim(key, "g", "a", 0, ["2-0"], idle=STALE // 4, justid=True)
    return ids


def cut_at_every_byte(
    server: Server, converse: Callable[[str, str], None], cut: Literal["rst", "fin"] = "rst"
) -> None:
    """Have the same conversation again and again, its first connection cut at each of its bytes.

    Most of the time goes by in pauses before connecting again, so several go on at once.
    """
    with Proxy(server.host, server.port) as proxy:
        converse(proxy.rewrite(server.url), KEYS[0])
        length = proxy.bytes_down
    assert 100 < length < 1000
    keys: SimpleQueue[str] = SimpleQueue()
    for key in KEYS:
        keys.put(key)

    def check(at: int) -> None:
        key = keys.get()
        try:
            with Proxy(server.host, server.port) as proxy:
                proxy.set_fault(Fault(cut_after=at, cut=cut), connection=1)
                converse(proxy.rewrite(server.url), key)
                assert proxy.connections == 2
        except AssertionError as error:
            msg = f"cut after {at} of {length} bytes: {error}"
            raise AssertionError(msg) from error
        finally:
            keys.put(key)

    with ThreadPoolExecutor(len(KEYS)) as pool:
        for checked in [pool.submit(check, at) for at in range(length)]:
            checked.result()


def ids_of(batches: Iterable[pl.DataFrame]) -> list[str]:
    return [entry_id for df in batches for entry_id in df["_id"]]


# -- lines that are cut -------------------------------------------------------


@pytest.mark.parametrize(("kind", "counted"), [("sync", True), ("async", False)])
def test_a_conversation_cut_at_every_byte(
    client: redis_py.Redis, server: Server, kind: str, counted: bool
) -> None:
    options = {"batch_size": 2, "block_ms": None, "include_delivery_count": counted, **GROUP}

    def converse(url: str, key: str) -> None:
        ids = prepare(client, key)
        found: list[str] = []
        with iterating(kind) as iterate:
            for df in iterate(url, key, SCHEMA, **options):
                found.extend(df["_id"])
                assert set(found) <= pending(client, key).keys()
                assert not counted or df["_deliveries"].min() >= 1
        # Each comes, and none twice, as it is the same iterator all the time.
        assert found == ["2-0", "1-0", "3-0", "4-0", "5-0"]
        assert pending(client, key) == dict.fromkeys(ids, "a")
        assert redis.ack_entries(server.url, key, "g", found) == 5

    cut_at_every_byte(server, converse)


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_with_auto_ack_cut_at_every_byte(
    client: redis_py.Redis, server: Server, kind: str
) -> None:
    options = {"batch_size": 2, "block_ms": None, "auto_ack": True, **GROUP}

    def converse(url: str, key: str) -> None:
        ids = prepare(client, key)
        found: list[str] = []
        with iterating(kind) as iterate:
            for df in iterate(url, key, SCHEMA, **options):
                found.extend(df["_id"])
                last = client.xinfo_groups(key)[0]["last-delivered-id"].decode()
                # What the server gave away so far was handed over, or is pending.
                assert set(ids[: ids.index(last) + 1]) == {*found, *pending(client, key)}
        assert found == ["2-0", "1-0", "3-0", "4-0", "5-0"]
        assert pending(client, key) == {}

    cut_at_every_byte(server, converse)


@pytest.mark.parametrize(("auto_ack", "count"), [(False, None), (True, 3)])
def test_a_read_cut_at_every_byte(
    client: redis_py.Redis, server: Server, auto_ack: bool, count: int | None
) -> None:
    expected = ["1-0", "3-0", "4-0", "5-0"][:count]

    def converse(url: str, key: str) -> None:
        prepare(client, key)
        df = redis.read_stream(url, key, SCHEMA, count=count, auto_ack=auto_ack, **GROUP)
        assert df["_id"].to_list() == expected
        kept = {"2-0"} if auto_ack else {"2-0", *expected}
        assert pending(client, key) == dict.fromkeys(kept, "a")

    cut_at_every_byte(server, converse, "fin")


def test_auto_ack_up_to_a_count_cut_at_every_byte(client: redis_py.Redis, server: Server) -> None:
    options = {"batch_size": 2, "count": 4, "auto_ack": True, **GROUP}

    def converse(url: str, key: str) -> None:
        prepare(client, key)
        with redis.iter_stream(url, key, SCHEMA, **options) as batches:
            assert ids_of(batches) == ["2-0", "1-0", "3-0", "4-0"]
        assert pending(client, key) == {}

    cut_at_every_byte(server, converse)


def test_a_user_who_may_do_little_cut_at_every_byte(make_server: Callable[..., Server]) -> None:
    server = make_server(acl=["worker on >secret ~* +xreadgroup +xack +xgroup"])
    client = server.client()

    def converse(url: str, key: str) -> None:
        prepare(client, key)
        url = url.replace("redis://", "redis://worker:secret@")
        df = redis.read_stream(url, key, SCHEMA, **GROUP)
        # Without XPENDING nobody can tell what it was just given from what it has had for long.
        assert df["_id"].to_list() in (["3-0", "4-0", "5-0"], ["2-0", "3-0", "4-0", "5-0"])
        assert pending(client, key) == {"1-0": "b", **dict.fromkeys(["2-0", *df["_id"]], "a")}

    cut_at_every_byte(server, converse)


def test_dead_letters_cut_at_every_byte(client: redis_py.Redis, server: Server) -> None:
    options = {"max_deliveries": 1, "block_ms": None, "auto_ack": True, **GROUP}

    def converse(url: str, key: str) -> None:
        prepare(client, key)
        with redis.iter_stream(url, key, SCHEMA, dead_letter=f"{key}:dead", **options) as batches:
            found = ids_of(batches)
        letters = [fields[b"_id"].decode() for _, fields in client.xrange(f"{key}:dead")]
        # In one transaction: nothing is moved twice, nothing is lost.
        assert Counter([*letters, *found]) == Counter(f"{n}-0" for n in range(1, 6))
        assert {"1-0", "2-0"} <= set(letters)
        assert pending(client, key) == {}

    cut_at_every_byte(server, converse)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_long_drain_cut_again_and_again(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    kind: str,
    auto_ack: bool,
) -> None:
    ids = add_numbered(client, stream, (f"{n // 3 + 1}-{n % 3}" for n in range(6_000)))
    proxy = make_proxy(server)
    for connection in range(1, 15):
        proxy.set_fault(Fault(cut_after=3_000 + 1_357 * connection), connection=connection)
    options = {"batch_size": 70, "block_ms": None, "auto_ack": auto_ack, **GROUP}
    found: list[str] = []
    with iterating(kind) as iterate:
        batches = iterate(proxy.rewrite(server.url), stream, SCHEMA, **options)
        for df in batches:
            assert 1 <= df.height <= 70
            found.extend(df["_id"])
        assert batches.stats.reconnects >= 14
    assert found == ids
    assert list(pending(client, stream)) == ([] if auto_ack else ids)


@pytest.mark.parametrize("state", ["own", "stale", "new"])
def test_entries_being_processed_do_not_come_again_after_a_cut(
    client: redis_py.Redis,
    server: Server,
    make_proxy: Callable[..., Proxy],
    stream: str,
    state: str,
) -> None:
    ids = add_numbered(client, stream, ["1-0", "2-0"])
    client.xgroup_create(stream, "g", "0")
    if state != "new":
        consumer = "a" if state == "own" else "b"
        client.xreadgroup("g", consumer, {stream: ">"})
        client.xclaim(stream, "g", consumer, 0, ids, idle=STALE, justid=True)
    proxy = make_proxy(server)
    url = named(proxy.rewrite(server.url), stream)

    def cut_and_add() -> None:
        proxy.cut_all()
        client.xadd(stream, {"n": 3}, "3-0")

    with redis.iter_stream(url, stream, SCHEMA, block_ms=30_000, **GROUP) as batches:
        assert next(batches)["_id"].to_list() == ids
        with once_blocked(client, stream, cut_and_add):
            assert next(batches)["_id"].to_list() == ["3-0"]
        assert batches.stats.reconnects == 1
        assert batches.stats.entries == 3


def test_a_silent_line_is_given_up_for_another(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(1_000)))
    proxy = make_proxy(server)
    proxy.set_fault(Fault(stall_after=20_000), connection=1)
    url = f"{proxy.rewrite(server.url)}?socket_timeout=0.5"
    with redis.iter_stream(url, stream, SCHEMA, 100, None, auto_ack=True, **GROUP) as batches:
        found = ids_of(batches)
        assert batches.stats.reconnects >= 1
    assert found == ids
    assert pending(client, stream) == {}


def test_a_trickle(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy]
) -> None:
    prepare(client)
    proxy = make_proxy(server)
    proxy.set_fault(Fault(chunk=1))
    url = proxy.rewrite(server.url)
    with redis.iter_stream(url, KEYS[0], SCHEMA, 2, None, auto_ack=True, **GROUP) as batches:
        found = ids_of(batches)
    assert found == ["2-0", "1-0", "3-0", "4-0", "5-0"]


# -- with auto_ack, an entry is handed over or pending ------------------------


def test_with_auto_ack_an_entry_is_handed_over_or_pending(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(300)))
    proxy = make_proxy(server)
    chance = random.Random(4)
    for connection in range(1, 200):
        fault = Fault(cut_after=chance.randrange(10, 900), cut=chance.choice(["rst", "fin"]))
        proxy.set_fault(fault, connection=connection)
    options = {"batch_size": 3, "block_ms": None, "auto_ack": True, **GROUP}
    found: list[str] = []
    with redis.iter_stream(proxy.rewrite(server.url), stream, SCHEMA, **options) as batches:
        for df in batches:
            found.extend(df["_id"])
            kept = pending(client, stream).keys()
            last = client.xinfo_groups(stream)[0]["last-delivered-id"].decode()
            assert set(ids[: ids.index(last) + 1]) == {*found, *kept}
        assert batches.stats.reconnects > 5
    assert found == ids
    assert pending(client, stream) == {}


def test_what_is_decoded_is_not_handed_over_before_it_is_acknowledged(
    client: redis_py.Redis, server: Server, make_proxy: Callable[..., Proxy], stream: str
) -> None:
    ids = add_numbered(client, stream, ["1-0", "2-0"])
    client.xgroup_create(stream, "g", "0")
    options = {"claim_idle_ms": None, "block_ms": None, "auto_ack": True, **GROUP}
    with Proxy(server.host, server.port) as proxy:
        url = proxy.rewrite(server.url)
        redis.read_stream(url, stream, SCHEMA, **options)
        length = proxy.bytes_down
    client.xgroup_setid(stream, "g", "0")
    proxy = make_proxy(server)
    # All but the last byte of the reply to XACK.
    proxy.set_fault(Fault(stall_after=length - 1))
    found: list[pl.DataFrame] = []
    url = proxy.rewrite(server.url)
    with meanwhile(lambda: found.append(redis.read_stream(url, stream, SCHEMA, **options))):
        wait_until(lambda: proxy.bytes_down >= length - 1)
        assert found == []
        assert pending(client, stream) == {}
        proxy.heal()
    assert found[0]["_id"].to_list() == ids


# -- servers that go away -----------------------------------------------------


class Producer(threading.Thread):
    """Adds numbered entries until told to stop, over all faults, and knows which are there."""

    def __init__(self, server: Server, stream: str, pause: float = 0.0005) -> None:
        super().__init__()
        self.server = server
        self.stream = stream
        self.pause = pause
        self.added: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        client = self.server.client()
        n = 0
        while not self.done.wait(self.pause):
            n += 1
            while not self._add(client, n):
                if self.done.wait(0.01):
                    return

    def _add(self, client: redis_py.Redis, n: int) -> bool:
        try:
            client.xadd(self.stream, {"n": n}, f"{n}-0")
        except redis_py.exceptions.ResponseError as error:
            # It had come through though the answer had not.
            if "equal or smaller" not in str(error):
                return False
        except (redis_py.exceptions.RedisError, OSError):
            return False
        self.added.append(f"{n}-0")
        return True

    def __enter__(self) -> Producer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.join()


class Worker(threading.Thread):
    """Reads and acknowledges until told to stop; whatever it raises is raised by `finish`."""

    def __init__(self, kind: str, url: str, stream: str, **options: Any) -> None:
        super().__init__()
        self.kind, self.url, self.stream, self.options = kind, url, stream, options
        self.found: list[str] = []
        self.reconnects = 0
        self.done = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            if self.kind == "sync":
                self._work()
            else:
                asyncio.run(self._work_async())
        except BaseException as failure:  # noqa: BLE001
            self.failure = failure

    def _work(self) -> None:
        with redis.iter_stream(self.url, self.stream, SCHEMA, **self.options) as batches:
            for df in batches:
                self.found.extend(df["_id"])
                batches.ack()
                if self.done.is_set():
                    break
            self.reconnects = batches.stats.reconnects

    async def _work_async(self) -> None:
        async with redis.iter_stream_async(
            self.url, self.stream, SCHEMA, **self.options
        ) as batches:
            async for df in batches:
                self.found.extend(df["_id"])
                await batches.ack()
                if self.done.is_set():
                    break
            self.reconnects = batches.stats.reconnects

    def finish(self, client: redis_py.Redis) -> None:
        """End it; it may need one more entry to notice."""
        self.done.set()
        while self.is_alive():
            client.xadd(self.stream, {"n": -1})
            self.join(0.1)
        if self.failure is not None:
            raise self.failure


def rest(url: str, stream: str) -> list[str]:
    """Take all that is left, whoever had it."""
    options = {"group": "g", "consumer": "last", "claim_idle_ms": 0, "auto_ack": True}
    with redis.iter_stream(url, stream, block_ms=None, **options) as batches:
        return ids_of(batches)


def test_a_server_killed_and_restarted_under_load(make_server: Callable[..., Server]) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    client = server.client()
    client.xgroup_create("s", "g", "0", mkstream=True)
    options = {"group": "g", "batch_size": 20, "block_ms": 200, "claim_idle_ms": 500}
    workers = [
        Worker(kind, server.url, "s", consumer=f"{kind}-worker", **options) for kind in KINDS
    ]
    with Producer(server, "s") as producer:
        for worker in workers:
            worker.start()
        for _ in range(4):
            before = len(producer.added)
            seen = [len(worker.found) for worker in workers]
            wait_until(lambda before=before: len(producer.added) > before + 50)
            wait_until(
                lambda seen=seen: all(
                    len(worker.found) > size or worker.failure
                    for worker, size in zip(workers, seen, strict=True)
                )
            )
            server.kill()
            server.restart()
    for worker in workers:
        worker.finish(client)
        assert worker.reconnects >= 1
    found = [entry_id for worker in workers for entry_id in worker.found]
    found += rest(server.url, "s")
    assert set(producer.added) <= set(found)
    assert pending(client, "s") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_an_ack_outlasts_a_restart(make_server: Callable[..., Server], kind: str) -> None:
    server = make_server(appendonly=True, appendfsync="always")
    add_numbered(server.client(), "s", ["1-0", "2-0"])
    acknowledged: list[int] = []

    async def work_async() -> None:
        async with redis.iter_stream_async(server.url, "s", SCHEMA, **GROUP) as batches:
            await batches.__anext__()
            server.kill()
            with meanwhile(server.restart):
                acknowledged.append(await batches.ack())

    if kind == "async":
        asyncio.run(work_async())
    else:
        with redis.iter_stream(server.url, "s", SCHEMA, **GROUP) as batches:
            next(batches)
            server.kill()
            with meanwhile(server.restart):
                acknowledged.append(batches.ack())
    assert acknowledged == [2]
    assert pending(server.client(), "s") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_connections_that_the_server_kills(make_server: Callable[..., Server], kind: str) -> None:
    server = make_server()
    client = server.client()
    client.xgroup_create("s", "g", "0", mkstream=True)
    worker = Worker(kind, server.url, "s", batch_size=10, claim_idle_ms=None, **GROUP)
    with Producer(server, "s") as producer:
        worker.start()
        for _ in range(25):
            size = len(worker.found)
            wait_until(lambda size=size: len(worker.found) > size or worker.failure)
            client.client_kill_filter(_type="normal", skipme=True)
    worker.finish(client)
    found = worker.found + rest(server.url, "s")
    assert worker.reconnects >= 5
    assert set(producer.added) <= set(found)
    # It acknowledged every batch before it took the next.
    assert all(count == 1 for count in Counter(found).values())
    assert pending(client, "s") == {}


def test_a_server_without_persistence_that_is_restarted(
    make_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()
    client = server.client()
    add_numbered(client, "s", ["1-0", "2-0"])
    options = {"batch_size": 1, "block_ms": 200, "claim_idle_ms": None, **GROUP}
    with redis.iter_stream(server.url, "s", SCHEMA, **options) as batches:
        assert next(batches)["_id"].to_list() == ["1-0"]
        server.kill()
        server.restart()
        add_numbered(client, "s", ["7-0"])
        assert next(batches)["_id"].to_list() == ["7-0"]
        assert batches.ack() == 1
    assert [text for text in caplog.messages if "vanished" in text]
    assert pending(client, "s") == {}


# -- cancellation -------------------------------------------------------------


@pytest.mark.parametrize("auto_ack", [False, True])
def test_awaits_cancelled_at_random_moments(
    make_server: Callable[..., Server], auto_ack: bool
) -> None:
    server = make_server()
    client = server.client()
    client.xgroup_create("s", "g", "0", mkstream=True)
    chance = random.Random(7)
    found: list[str] = []
    cancelled = 0
    options = {"batch_size": 3, "block_ms": 1000, "auto_ack": auto_ack, "claim_idle_ms": 1}

    async def work(producer: Producer) -> None:
        nonlocal cancelled
        async with redis.iter_stream_async(server.url, "s", SCHEMA, **options, **GROUP) as batches:
            while cancelled < 400:
                try:
                    patience = chance.choice([0, 0.0001, 0.0005, 0.002])
                    df = await asyncio.wait_for(batches.__anext__(), patience)
                except asyncio.TimeoutError:
                    cancelled += 1
                    continue
                found.extend(df["_id"])
            producer.done.set()
            producer.join()
            while len(set(found)) < len(producer.added):
                found.extend((await batches.__anext__())["_id"])

    with Producer(server, "s", pause=0.0003) as producer:
        asyncio.run(work(producer))
    # While it was the only one nothing came twice, and nothing is lost.
    assert found == producer.added
    assert list(pending(client, "s")) == ([] if auto_ack else found)


def test_cancellation_while_entries_are_claimed_and_moved_aside(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    client = server.client()
    chance = random.Random(9)
    options = {"max_deliveries": 1, "dead_letter": "dead", "batch_size": 2, "block_ms": None}

    async def work() -> list[str]:
        found: list[str] = []
        async with redis.iter_stream_async(server.url, "s", SCHEMA, **options, **GROUP) as batches:
            while True:
                try:
                    patience = chance.choice([0, 0.0002, 0.0005, 0.001])
                    df = await asyncio.wait_for(batches.__anext__(), patience)
                except asyncio.TimeoutError:
                    continue
                except StopAsyncIteration:
                    return found
                found.extend(df["_id"])

    for _ in range(20):
        client.flushall()
        ids = add_numbered(client, "s", (f"{n + 1}-0" for n in range(12)))
        client.xgroup_create("s", "g", "0")
        client.xreadgroup("g", "a", {"s": ">"}, count=4)
        client.xreadgroup("g", "b", {"s": ">"}, count=4)
        client.xclaim("s", "g", "b", 0, ids[4:8], idle=STALE, justid=True)
        found = asyncio.run(work())
        letters = [fields[b"_id"].decode() for _, fields in client.xrange("dead")]
        assert set(ids[:8]) <= set(letters)
        assert Counter([*letters, *found]) == Counter(ids)
        assert sorted(pending(client, "s")) == sorted(found)


# -- workers that die ---------------------------------------------------------

WORKER = """
import sys
import redis as redis_py
import polars_redis as redis

url, consumer = sys.argv[1:]
client = redis_py.Redis.from_url(url)
print("ready", flush=True)
sys.stdin.readline()
with redis.iter_stream(
    url, "s", {"n": int}, 7, 200, group="g", consumer=consumer, claim_idle_ms=200
) as batches:
    for df in batches:
        # Half of it is processed, then the rest: it may be killed in between.
        ids = df["_id"].to_list()
        client.sadd("processed", *ids[: len(ids) // 2 + 1])
        client.sadd("processed", *ids)
        client.incrby("batches", 1)
        batches.ack()
"""


@pytest.fixture
def start_worker() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts workers in processes of their own; none of them outlives the test."""
    with contextlib.ExitStack() as started:

        def start(url: str, consumer: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, url, consumer],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

            def end() -> None:
                process.kill()
                process.communicate()

            started.callback(end)
            return process

        yield start


def test_workers_killed_in_the_middle_of_a_batch(
    make_server: Callable[..., Server],
    start_worker: Callable[..., subprocess.Popen[str]],
) -> None:
    server = make_server()
    client = server.client()
    client.xgroup_create("s", "g", "0", mkstream=True)
    workers = [start_worker(server.url, f"worker-{n}") for n in range(5)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    working, spare = workers[:2], workers[2:]

    def begin(worker: subprocess.Popen[str]) -> None:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()

    for worker in working:
        begin(worker)
    with Producer(server, "s") as producer:
        for successor in spare:
            before = int(client.get("batches") or 0)
            wait_until(lambda before=before: int(client.get("batches") or 0) > before + 30)
            victim = working.pop(0)
            victim.kill()
            victim.wait()
            begin(successor)
            working.append(successor)
    # Those that live claim what the dead ones had, and leave nothing pending.
    wait_until(lambda: client.scard("processed") >= len(producer.added))
    wait_until(lambda: pending(client, "s") == {})
    processed = {entry_id.decode() for entry_id in client.smembers("processed")}
    assert set(producer.added) <= processed


@pytest.mark.parametrize("options", [{}, GROUP | {"create_group": False}], ids=["tail", "group"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_master_that_becomes_a_replica_for_a_while(
    make_server: Callable[..., Server], kind: str, options: dict[str, Any]
) -> None:
    master, other = make_server(), make_server()
    client = master.client()
    add_numbered(client, "s", ["1-0"])
    client.xgroup_create("s", "g", "0")
    # The other one has the same data, as it has been the replica so far.
    other.client().replicaof(master.host, str(master.port))
    wait_until(lambda: other.client().info("replication")["master_link_status"] == "up")
    other.client().replicaof("NO", "ONE")
    with iterating(kind) as iterate:
        batches = iterate(named(master.url, "reader"), "s", SCHEMA, block_ms=10_000, **options)
        assert next(batches)["_id"].to_list() == ["1-0"]

        def fail_over() -> None:
            client.replicaof(other.host, str(other.port))
            wait_until(lambda: client.info("replication")["role"] == "slave")
            client.replicaof("NO", "ONE")
            client.xadd("s", {"n": 2}, "2-0")

        with once_blocked(client, "reader", fail_over):
            assert next(batches)["_id"].to_list() == ["2-0"]
