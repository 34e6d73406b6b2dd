"""Fixtures: the Redis server to test on, deployments, what a test has of its own, fresh streams."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from support.proxy import Proxy
from support.servers import Binary, RemoteServer, Server, default_server, find_binaries
from support.tls import Files
from support.topologies import Cluster, Replicated, Sentinels

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
def make_replicated(own_servers: None) -> Iterator[Callable[..., Replicated]]:
    """Makes masters with replicas: ``make_replicated(replicas=2, password="secret")``."""
    with ExitStack() as deployments:
        yield lambda *args, **options: deployments.enter_context(Replicated(*args, **options))


@pytest.fixture
def make_sentinels(own_servers: None) -> Iterator[Callable[..., Sentinels]]:
    """Makes masters with replicas and sentinels: ``make_sentinels(sentinel_password="secret")``."""
    with ExitStack() as deployments:
        yield lambda *args, **options: deployments.enter_context(Sentinels(*args, **options))


@pytest.fixture
def make_cluster(own_servers: None) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters of the test's own: ``make_cluster(replicas=1)``."""
    with ExitStack() as deployments:
        yield lambda *args, **options: deployments.enter_context(Cluster(*args, **options))


@pytest.fixture(scope="session")
def replicated(own_servers: None) -> Iterator[Replicated]:
    """A master and two replicas (shared: leave them as they are)."""
    with Replicated(replicas=2) as found:
        yield found


@pytest.fixture(scope="session")
def sentinels(own_servers: None) -> Iterator[Sentinels]:
    """A master with replicas that sentinels watch (shared: leave them as they are)."""
    # Nobody fails here, however slow the machine is.
    with Sentinels(down_after_ms=60_000) as found:
        yield found


@pytest.fixture(scope="session")
def cluster(own_servers: None) -> Iterator[Cluster]:
    """A cluster of three masters with a replica each (shared: leave it as it is)."""
    with Cluster(replicas=1, node_timeout_ms=60_000) as found:
        yield found


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An authority, and files of the certificates that it gives out."""
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    caplog.set_level(logging.INFO, logger="polars_redis")

    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    return warnings


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    """Makes fault proxies before a server: ``make_proxy(server, delay_ms=20)``."""
    with ExitStack() as proxies:

        def make(server: RemoteServer | Server, **options: Any) -> Proxy:
            return proxies.enter_context(Proxy(server.host, server.port, **options))

        yield make
