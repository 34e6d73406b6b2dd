"""Real Redis servers for the tests: where they come from, and how they are made to fail.

The default server is the first of these that is there: ``REDIS_URL`` as it stands; a container,
where a Docker engine answers; ``redis-server`` on PATH; the one that a Python package brings.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import redis

from embedded_redis import Binary, EmbeddedRedis, ServerError, default_binary, find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

__all__ = [
    "Binary",
    "RemoteServer",
    "Server",
    "ServerError",
    "ServerLike",
    "default_binary",
    "default_server",
    "find_binaries",
]

CONTAINER_IMAGE = "redis:7"
#: A Docker engine that is there answers a ping at once.
ENGINE_TIMEOUT = 2
#: A server that is silent for so long does not answer any more.
KEPT_TIMEOUT = 30

log = logging.getLogger(__name__)


class ServerLike(Protocol):
    """A server that can be read and written, wherever it runs."""

    @property
    def url(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    def client(self, **kwargs: Any) -> redis.Redis: ...


class _Clients:
    """Makes redis-py clients, and closes them all at the end."""

    def __init__(self) -> None:
        self._clients: list[redis.Redis] = []
        self._kept: redis.Redis | None = None

    def client(self, **kwargs: Any) -> redis.Redis:
        """A redis-py client of it, closed when it is done with."""
        raise NotImplementedError

    def kept_client(self) -> redis.Redis:
        """The same client each time: for what is asked again and again."""
        if self._kept is None:
            self._kept = self.client(socket_timeout=KEPT_TIMEOUT)
        return self._kept

    def client_of(self, url: str, **kwargs: Any) -> redis.Redis:
        client = redis.Redis.from_url(url, **kwargs)
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._kept = None


class RemoteServer(_Clients):
    """A server that others started: it can be used, not stopped."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        parsed = urlsplit(url)
        self.host = parsed.hostname or "localhost"
        self.port = parsed.port or 6379

    def client(self, **kwargs: Any) -> redis.Redis:
        """A redis-py client of it."""
        return self.client_of(self.url, **kwargs)


class Server(_Clients, EmbeddedRedis):
    """A server of our own, to be killed, paused and started again as a test likes.

    Takes what `EmbeddedRedis` takes: ``Server(binary, port=..., acl=[...], appendonly="yes")``.
    """

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        port: int | None = None,
        acl: tuple[str, ...] | list[str] = (),
        **options: str | int | bool | list[str],
    ) -> None:
        _Clients.__init__(self)
        EmbeddedRedis.__init__(self, binary, port=port, acl=acl, **options)

    @property
    def unix_url(self) -> str:
        """The URL of its unix socket (made with ``unixsocket=True``)."""
        return f"unix://{self.socket_path}"

    def client(self, **kwargs: Any) -> redis.Redis:
        """A redis-py client of it, closed when the server is."""
        return self.client_of(self.url, **kwargs)

    def kill(self) -> None:
        """End it at once (SIGKILL), with what it had not written lost."""
        self._running().kill()
        self._reap()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it in an orderly way, paused or not; its files stay until `close`."""
        if self.running:
            self.resume()
        super().stop()

    def restart(self) -> None:
        """Stop it (unless it is down already) and start it on the same port, with its files."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it, close its clients, and remove its files."""
        self.close_clients()
        super().close()


def _may_listen(engine: str) -> bool:
    """Tell by a plain connect that no engine is there, as docker's client leaks its failed one."""
    scheme, _, path = engine.partition("://")
    if not scheme.endswith("unix"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ENGINE_TIMEOUT)
        return probe.connect_ex(path) == 0


def _docker() -> ModuleType | None:
    """Give the docker module where an engine answers; most often none does."""
    try:
        docker = importlib.import_module("docker")
    except ImportError:
        return None
    if not _may_listen(docker.utils.parse_host(os.environ.get("DOCKER_HOST"))):
        return None
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT)
        try:
            client.ping()
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return None
    return docker


def _container_class() -> Any:
    """Find testcontainers' Redis, under its new name or its old one."""
    for module in ("testcontainers.community.redis", "testcontainers.redis"):
        try:
            return importlib.import_module(module).RedisContainer
        except ImportError:
            continue
    return None


@contextmanager
def _container() -> Iterator[RemoteServer | None]:
    """A server in a container; None where there is no engine, or no image to be had."""
    docker = _docker()
    container_class = _container_class() if docker is not None else None
    if docker is None or container_class is None:
        yield None
        return
    container = container_class(CONTAINER_IMAGE)
    try:
        container.start()
    except (docker.errors.DockerException, OSError) as error:
        log.warning("the Docker engine answers but %s does not start: %s", CONTAINER_IMAGE, error)
        yield None
        return
    try:
        host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
        yield RemoteServer(f"redis://{host}:{port}")
    finally:
        container.stop()


@contextmanager
def _found_server() -> Iterator[RemoteServer | Server]:
    url = os.environ.get("REDIS_URL")
    if url:
        yield RemoteServer(url)
        return
    with _container() as container:
        if container is not None:
            yield container
            return
        with Server() as server:
            yield server


@contextmanager
def default_server() -> Iterator[RemoteServer | Server]:
    """The server that tests use unless they ask for a particular one."""
    with _found_server() as server:
        try:
            yield server
        finally:
            server.close_clients()
