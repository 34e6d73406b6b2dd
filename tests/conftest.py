"""Fixtures: the Redis server to test on, servers and proxies of a test's own, fresh streams."""

from __future__ import annotations

import os
import sys
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from support.proxy import Proxy
from support.servers import Binary, RemoteServer, Server, default_server, find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

#: Where no redis-server exists for the platform, what needs one is skipped, not failed.
NO_SERVER = (
    "there is no redis-server for Windows: set REDIS_URL to test on one elsewhere"
    if sys.platform == "win32"
    else None
)


@pytest.fixture(scope="session")
def own_servers() -> None:
    """Skips where no redis-server can be started; for tests that start one by themselves."""
    if NO_SERVER is not None:
        pytest.skip(NO_SERVER)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[RemoteServer | Server]:
    """The server that tests use unless they say otherwise (shared: leave it as it is)."""
    if not os.environ.get("REDIS_URL"):
        request.getfixturevalue("own_servers")
    with default_server() as found:
        yield found


@pytest.fixture(scope="session", params=find_binaries() or [None], ids=str)
def any_server(request: pytest.FixtureRequest, own_servers: None) -> Iterator[Server]:
    """One server of each version on this machine, one after another (shared)."""
    with Server(request.param) as found:
        yield found


@pytest.fixture
def redis_url(server: RemoteServer | Server) -> str:
    """The URL of the default server."""
    return server.url


@pytest.fixture
def client(server: RemoteServer | Server) -> redis.Redis:
    """A redis-py client of the default server, whose database was emptied."""
    return _emptied(server)


@pytest.fixture
def any_client(any_server: Server) -> redis.Redis:
    """A redis-py client of `any_server`, whose database was emptied."""
    return _emptied(any_server)


def _emptied(server: RemoteServer | Server) -> redis.Redis:
    client = server.client()
    client.flushdb()
    return client


@pytest.fixture
def stream() -> str:
    """The name of a stream that nobody has used."""
    return f"stream:{uuid.uuid4().hex}"


@pytest.fixture
def make_server(own_servers: None) -> Iterator[Callable[..., Server]]:
    """Makes servers of the test's own: ``make_server(binary, acl=[...], appendonly=True)``."""
    with ExitStack() as servers:

        def make(binary: Binary | None = None, **options: Any) -> Server:
            return servers.enter_context(Server(binary, **options))

        yield make


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    """Makes fault proxies before a server: ``make_proxy(server, delay_ms=20)``."""
    with ExitStack() as proxies:

        def make(server: RemoteServer | Server, **options: Any) -> Proxy:
            return proxies.enter_context(Proxy(server.host, server.port, **options))

        yield make
