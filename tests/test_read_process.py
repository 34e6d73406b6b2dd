"""A read among other things of its process: threads, signals, forks, kept connections."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import polars_redis as redis
from support.streams import add_numbered, assert_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_py

    from support.servers import Server

SCHEMA = {"n": int}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


INTERRUPTED = """
import os, signal, sys, threading, time
import polars_redis as redis

times = []
def interrupt():
    sys.stdin.readline()
    times.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    print("reading", flush=True)
    {read}
except KeyboardInterrupt:
    print(time.monotonic() - times[0], flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to oneself")
@pytest.mark.parametrize(
    "read",
    [
        'redis.read_stream(sys.argv[1], "s")',
        "redis.read_streams(sys.argv[1])",
    ],
)
def test_ctrl_c_ends_a_read_that_waits(silent_port: int, read: str) -> None:
    code = INTERRUPTED.replace("{read}", read)
    process = subprocess.Popen(
        [sys.executable, "-c", code, f"redis://127.0.0.1:{silent_port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    told, _ = process.communicate("now\n", timeout=60)
    # Promised are 0.2 s; the rest is for a machine that is busy with other things.
    assert float(told) < 1.0


def test_other_threads_run_while_a_read_waits(silent_port: int) -> None:
    counted = 0
    with ThreadPoolExecutor() as pool:
        url = f"redis://127.0.0.1:{silent_port}?socket_connect_timeout=0.2&password=x"
        waiting = pool.submit(redis.read_stream, url, "s")
        while not waiting.done():
            counted += 1
    assert counted > 1000
    with pytest.raises(redis.exceptions.RedisTimeoutError):
        waiting.result()


def test_many_threads_read_at_once(client: redis_py.Redis, redis_url: str, stream: str) -> None:
    ids = add_numbered(client, stream, (f"{n + 1}-0" for n in range(20_000)))
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(redis.read_stream, redis_url, stream, SCHEMA) for _ in range(24)]
    for read in reads:
        assert_numbered(read.result(), ids)


def test_connections_are_kept(make_server: Callable[..., Server]) -> None:
    server = make_server()
    client = server.client()
    ids = add_numbered(client, "s", (f"{n + 1}-0" for n in range(5_000)))
    redis.read_stream(server.url, "s", SCHEMA)
    before = client.info("stats")["total_connections_received"]
    for _ in range(50):
        assert_numbered(redis.read_stream(server.url, "s", SCHEMA, count=10), ids[:10])
        assert_numbered(redis.read_stream(server.url, "s", SCHEMA), ids)
    assert client.info("stats")["total_connections_received"] == before


def test_a_connection_that_the_server_closed_is_not_used(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    client = server.client()
    ids = add_numbered(client, "s", ["1-0"])
    for _ in range(3):
        assert_numbered(redis.read_stream(server.url, "s", SCHEMA, count=10), ids)
        client.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_parent_and_children_read_on_their_own_connections(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    ids = add_numbered(server.client(), "s", (f"{n + 1}-0" for n in range(20_000)))
    assert_numbered(redis.read_stream(server.url, "s", SCHEMA), ids)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            # Whatever happens, the child must not go on as a second pytest.
            try:
                for _ in range(5):
                    assert_numbered(redis.read_stream(server.url, "s", SCHEMA), ids)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    for _ in range(10):
        assert_numbered(redis.read_stream(server.url, "s", SCHEMA), ids)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert_numbered(redis.read_stream(server.url, "s", SCHEMA), ids)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
def test_a_signal_handler_may_read_too(
    client: redis_py.Redis, redis_url: str, stream: str, silent_port: int
) -> None:
    ids = add_numbered(client, stream, ["1-0", "2-0"])
    read = []

    def handle(*_: object) -> None:
        read.append(redis.read_stream(redis_url, stream, SCHEMA))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        url = f"redis://127.0.0.1:{silent_port}?socket_connect_timeout=1&password=x"
        with pytest.raises(redis.exceptions.RedisTimeoutError):
            redis.read_stream(url, "s")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert_numbered(read[0], ids)


def test_no_descriptor_and_no_thread_is_left(redis_url: str, stream: str) -> None:
    def read() -> None:
        redis.read_stream(redis_url, stream)

    threads = [threading.Thread(target=read) for _ in range(3)]
    redis.read_stream(redis_url, stream)
    open_before = _descriptors()
    for _ in range(30):
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    deadline = time.monotonic() + 30
    # Up to four connections are kept for the next ones.
    while _descriptors() > open_before + 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _descriptors() -> int:
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        pytest.skip("the system does not list a process's descriptors")
    return sum(1 for _ in listing.iterdir())


FORKS = """
import os, sys
import polars_redis as redis

redis.read_stream(sys.argv[1], "s")
child = os.fork()
if child == 0:
    sys.exit(0)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_ends_though_its_parent_has_looked_up_a_name(redis_url: str) -> None:
    url = redis_url.replace("127.0.0.1", "localhost")
    done = subprocess.run(
        [sys.executable, "-c", FORKS, url], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"


def test_few_connections_are_kept_however_many_urls_there_are(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    for n in range(100):
        redis.read_stream(f"{server.url_for()}?client_name=n{n}", "s", count=1)
    assert server.client().info("clients")["connected_clients"] <= 40
