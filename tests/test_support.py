"""The servers, the deployments and the proxy that other tests rely on do what they say."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

import embedded_redis
from support import servers
from support.proxy import Fault, Proxy
from support.servers import RemoteServer, Server, ServerError, find_binaries
from support.tls import tls_binary
from support.topologies import Sentinels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.tls import Files
    from support.topologies import Cluster, Replicated

HERE = Path(__file__).parent
DEADLINE = 10.0
MIB = 1 << 20
WORD = b"?"


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead, even where nobody has asked for its exit status yet.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


# -- servers --------------------------------------------------------------------


def test_default_server_answers(client: redis.Redis, stream: str) -> None:
    assert client.ping()
    assert client.dbsize() == 0
    client.xadd(stream, {"a": 1})
    assert client.xlen(stream) == 1


def test_any_server_is_the_version_it_says(any_server: Server, any_client: redis.Redis) -> None:
    told = any_client.info("server")["redis_version"]
    assert tuple(map(int, told.split("."))) == any_server.binary.version


class FakeContainer:
    """Stands for testcontainers' class, with a server of our own inside."""

    fails: Exception | None = None

    def __init__(self, image: str) -> None:
        assert image.startswith("redis:")
        self.server = Server()

    def start(self) -> None:
        if self.fails is not None:
            raise self.fails
        self.server.start()

    def stop(self) -> None:
        self.server.close()

    def get_container_host_ip(self) -> str:
        return self.server.host

    def get_exposed_port(self, port: int) -> int:
        assert port == 6379
        return self.server.port


@pytest.fixture
def fake_engine(own_servers: None, monkeypatch: pytest.MonkeyPatch) -> type[FakeContainer]:
    """A Docker engine that seems to answer."""
    container = type("FakeContainer", (FakeContainer,), {})
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setattr(servers, "_docker", lambda: importlib.import_module("docker"))
    monkeypatch.setattr(servers, "_container_class", lambda: container)
    return container


def test_default_is_redis_url_first(
    fake_engine: type[FakeContainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://example.org:1234/5")
    with servers.default_server() as found:
        assert (found.url, found.host, found.port) == (
            "redis://example.org:1234/5",
            "example.org",
            1234,
        )


def test_default_is_a_container_where_an_engine_answers(fake_engine: type[FakeContainer]) -> None:
    with servers.default_server() as found:
        assert isinstance(found, RemoteServer)
        assert found.client().ping()
        port = found.port
    assert drain(port) == (b"", "refused")


def test_default_is_a_program_where_the_container_does_not_start(
    fake_engine: type[FakeContainer],
) -> None:
    fake_engine.fails = OSError("no such image")
    with servers.default_server() as found:
        assert isinstance(found, Server)
        assert found.binary == find_binaries()[0]
        assert found.client().ping()


@pytest.mark.skipif(sys.platform == "win32", reason="Docker has no unix socket on Windows")
def test_no_engine_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    began = time.monotonic()
    assert servers._docker() is None
    assert time.monotonic() - began < 5


def test_testcontainers_has_the_class_we_look_for() -> None:
    assert servers._container_class().__name__ == "RedisContainer"


def test_each_version_is_listed_once() -> None:
    names = [str(binary) for binary in find_binaries()]
    assert len(names) == len(set(names))


def test_servers_do_not_share_a_port(make_server: Callable[..., Server]) -> None:
    first, second = make_server(), make_server()
    assert first.port != second.port
    first.client().set("k", "first")
    assert second.client().get("k") is None


def test_a_port_that_was_taken_meanwhile_is_given_up(
    make_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = make_server().port
    free = embedded_redis.free_port()
    offers = iter([taken, taken, free])
    monkeypatch.setattr(embedded_redis, "free_port", lambda: next(offers))
    assert make_server().port == free


def test_a_port_that_is_insisted_on_is_not_exchanged(make_server: Callable[..., Server]) -> None:
    with pytest.raises(ServerError, match="is taken"):
        make_server(port=make_server().port)


@pytest.mark.usefixtures("own_servers")
def test_a_wrong_option_is_told_in_the_servers_words() -> None:
    server = Server(no_such_option="1")
    directory = server.directory
    with pytest.raises(ServerError, match="no-such-option"), server:
        pass
    assert not directory.exists()


def test_options_passwords_and_users(make_server: Callable[..., Server]) -> None:
    server = make_server(
        requirepass="secret word",
        acl=["reader on >pw ~events +xrange +ping"],
        maxmemory="64mb",
    )
    assert server.client().config_get("maxmemory") == {"maxmemory": str(64 * MIB)}
    reader = redis.Redis.from_url(server.url_for("reader", "pw"))
    with reader, pytest.raises(redis.exceptions.NoPermissionError):
        reader.get("events")
    stranger = redis.Redis.from_url(server.url_for())
    with stranger, pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()


def test_unix_socket(make_server: Callable[..., Server]) -> None:
    server = make_server(unixsocket=True)
    with redis.Redis.from_url(server.unix_url) as client:
        assert client.ping()


def test_kill_loses_memory_and_restart_keeps_the_port(make_server: Callable[..., Server]) -> None:
    server = make_server()
    port, pid = server.port, server.pid
    server.client().set("k", "v")
    server.kill()
    assert not alive(pid)
    with pytest.raises(redis.exceptions.ConnectionError):
        server.client(socket_timeout=1).ping()
    server.start()
    assert server.port == port
    assert server.client().get("k") is None


def test_restart_keeps_what_was_written(make_server: Callable[..., Server]) -> None:
    server = make_server(appendonly=True)
    server.client().set("k", "v")
    server.restart()
    assert server.client().get("k") == b"v"


def test_a_paused_server_is_silent_and_then_goes_on(make_server: Callable[..., Server]) -> None:
    server = make_server()
    client = server.client(socket_timeout=0.2, retry=None)
    client.ping()
    server.pause()
    with pytest.raises(redis.exceptions.TimeoutError):
        client.ping()
    server.resume()
    assert server.client().ping()


def test_a_paused_server_can_be_stopped(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.pause()
    server.stop()
    assert not server.running


@pytest.mark.usefixtures("own_servers")
def test_closing_leaves_nothing() -> None:
    with Server() as server:
        pid, directory = server.pid, server.directory
        assert alive(pid)
        assert directory.exists()
    assert not alive(pid)
    assert not directory.exists()


@pytest.mark.usefixtures("own_servers")
def test_nothing_is_left_by_a_process_that_was_killed() -> None:
    script = textwrap.dedent("""
        import sys
        from embedded_redis import EmbeddedRedis
        server = EmbeddedRedis().start()
        print(server.pid, server.directory, flush=True)
        sys.stdin.read()
    """)
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(embedded_redis.__file__).parent)},
    )
    with owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        assert alive(int(pid))
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(int(pid)), "the server ends")
    wait_until(lambda: not Path(directory).exists(), "its directory goes")


# -- deployments ----------------------------------------------------------------


def test_replicas_have_what_their_master_has(make_replicated: Callable[..., Replicated]) -> None:
    deployment = make_replicated(replicas=2, password="secret word")
    deployment.master().client().xadd("events", {"n": 1})
    deployment.wait_caught_up()
    assert [replica.client().xlen("events") for replica in deployment.replicas] == [1, 1]
    with redis.Redis.from_url(deployment.url()) as client:
        assert client.xlen("events") == 1


def test_sentinels_put_a_replica_in_the_place_of_a_master(
    make_sentinels: Callable[..., Sentinels],
) -> None:
    deployment = make_sentinels(
        password="secret", sentinel_username="watcher", sentinel_password="s"
    )
    deployment.sentinels[0].kill()
    old = deployment.kill_master()
    new = deployment.wait_for_new_master(old)
    assert new is not old
    assert new.client().xadd("events", {"n": 1})


def test_sentinels_hand_over_when_told(make_sentinels: Callable[..., Sentinels]) -> None:
    deployment = make_sentinels(sentinel_password="secret")
    old = deployment.failover()
    new = deployment.wait_for_new_master(old)
    deployment.wait_until_replica(old)
    assert new.client().xadd("events", {"n": 1})


def test_sentinels_by_tls(make_sentinels: Callable[..., Sentinels], files: Files) -> None:
    if tls_binary() is None:
        pytest.skip("no redis-server here speaks TLS")
    deployment = make_sentinels(tls_binary(), files=files)
    told = deployment.ask(deployment.sentinels[0], "GET-MASTER-ADDR-BY-NAME", "mymaster")
    with redis.Redis(port=int(told[1]), ssl=True, ssl_ca_certs=files.ca) as client:
        assert client.ping()


def test_each_key_is_on_the_node_that_is_told(cluster: Cluster) -> None:
    keys = [cluster.key_of(node, "told") for node in cluster.masters]
    for key in keys:
        node = cluster.node_of(key)
        node.client().set(key, "v")
        (replica,) = cluster.replicas_of(node)
        wait_until(lambda r=replica, k=key: r.client().dbsize(), "the replica has it")  # type: ignore[misc]
    assert len({cluster.node_of(key) for key in keys}) == 3
    client = cluster.client()
    assert [client.delete(key) for key in keys] == [1, 1, 1]


def test_a_slot_moves_a_step_at_a_time(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(password="secret")
    source, target, _ = cluster.masters
    key = cluster.key_of(source)
    client = cluster.client()
    client.set(key, "v")
    migration = cluster.migrate(key, target).begin()
    assert client.get(key) == b"v"
    migration.move_keys()
    with pytest.raises(redis.exceptions.AskError):
        source.client().get(key)
    assert client.get(key) == b"v"
    migration.finish()
    assert cluster.node_of(key) is target
    assert client.get(key) == b"v"


def test_a_clusters_replica_takes_its_masters_place(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(replicas=1)
    node = cluster.masters[0]
    key = cluster.key_of(node)
    (replica,) = cluster.replicas_of(node)
    cluster.wait_until_failed_over(node, cluster.kill(node))
    assert cluster.node_of(key) is replica
    assert cluster.client().set(key, "v")


@pytest.mark.usefixtures("own_servers")
def test_a_deployment_that_does_not_come_up_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment = Sentinels()
    monkeypatch.setattr(deployment, "_sentinel", lambda: Server(no_such_option="1"))
    with pytest.raises(ServerError, match="no-such-option"), deployment:
        pass
    assert len(deployment.servers) == 3
    assert not any(server.running for server in deployment.servers)


# -- proxy ----------------------------------------------------------------------


class Source:
    """A server that sends `size` bytes to whoever says a word, then waits for the end."""

    def __init__(self, size: int) -> None:
        self.host = "127.0.0.1"
        self.data = bytes(i % 251 for i in range(min(size, MIB))) * -(-size // MIB)
        self.data = self.data[:size]
        self.listener = socket.create_server((self.host, 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                end, _ = self.listener.accept()
            except OSError:
                return
            with end:
                try:
                    if not end.recv(len(WORD)):
                        continue
                    end.sendall(self.data)
                    end.shutdown(socket.SHUT_WR)
                    while end.recv(65536):
                        pass
                except OSError:
                    continue

    def close(self) -> None:
        # Wakes the accept on every platform.
        socket.create_connection((self.host, self.port)).close()
        self.listener.close()


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source(100_000)
    yield source
    source.close()


def drain(port: int, timeout: float = DEADLINE) -> tuple[bytes, str]:
    """What comes from a port, and how it ended."""
    received = bytearray()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as end:
            # As with Redis the client speaks first, so that it is connected when it is cut off.
            end.sendall(WORD)
            while data := end.recv(65536):
                received += data
    except (ConnectionResetError, BrokenPipeError):
        return bytes(received), "rst"
    except TimeoutError:
        return bytes(received), "stall"
    except ConnectionRefusedError:
        return b"", "refused"
    return bytes(received), "fin"


def test_proxy_says_it_in_other_words(
    client: redis.Redis, server: RemoteServer | Server, make_proxy: Callable[..., Proxy]
) -> None:
    client.set("key", "some words")
    proxy = make_proxy(server)
    proxy.set_fault(Fault(words=(b"some words", b"none")), connection=1)
    with redis.Redis.from_url(proxy.rewrite(server.url)) as through:
        through.set("other", "some words")
        with pytest.raises(redis.RedisError):
            # It is as long as the server said.
            through.get("key")
    assert client.get("other") == b"some words"


def test_proxy_passes_everything_on_and_counts(
    client: redis.Redis,
    server: RemoteServer | Server,
    stream: str,
    make_proxy: Callable[..., Proxy],
) -> None:
    proxy = make_proxy(server)
    value = os.urandom(3 * MIB)
    with redis.Redis.from_url(proxy.rewrite(server.url)) as through:
        through.xadd(stream, {"value": value})
        ((_, fields),) = through.xrange(stream)
    assert fields == {b"value": value}
    assert proxy.connections == 1
    assert 3 * MIB < proxy.bytes_up < 3 * MIB + 1000
    assert 3 * MIB < proxy.bytes_down < 3 * MIB + 3000
    wait_until(lambda: proxy.live == 0, "the connection is seen to end")


def test_rewrite_keeps_all_but_the_address(source: Source) -> None:
    with Proxy(source.host, source.port) as proxy:
        url = proxy.rewrite("redis://user:p%40ss@example.org:1234/3?client_name=x")
        assert url == f"redis://user:p%40ss@127.0.0.1:{proxy.port}/3?client_name=x"


@pytest.mark.parametrize("cut", ["rst", "fin"])
@pytest.mark.parametrize("size", [0, 1, 2, 1000, 65_536, 99_999])
def test_cut_after_exactly_so_many_bytes(source: Source, cut: str, size: int) -> None:
    with Proxy(source.host, source.port) as proxy:
        proxy.set_fault(Fault(cut_after=size, cut=cut))  # type: ignore[arg-type]
        data, how = drain(proxy.port)
        assert how == cut
        assert proxy.bytes_down == size
        if sys.platform == "win32" and cut == "rst":
            # There a reset also takes from the reader what it had not read yet.
            assert data == source.data[: len(data)]
        else:
            assert data == source.data[:size]


def test_cut_of_many_bytes_loses_none_before() -> None:
    big = Source(20 * MIB)
    with Proxy(big.host, big.port) as proxy:
        proxy.set_fault(Fault(cut_after=15 * MIB + 7))
        data, how = drain(proxy.port)
    big.close()
    assert how == "rst"
    # A reset overtakes what the reader's own buffer had no room for, nothing else.
    assert data == big.data[: len(data)]
    assert len(data) <= 15 * MIB + 7


def test_fault_of_one_connection_only(source: Source) -> None:
    with Proxy(source.host, source.port) as proxy:
        proxy.set_fault(Fault(cut_after=10), connection=2)
        ends = [drain(proxy.port) for _ in range(3)]
    assert [len(data) for data, _ in ends] == [100_000, 10, 100_000]
    assert [how for _, how in ends] == ["fin", "rst", "fin"]


def test_stall_and_heal(source: Source) -> None:
    with Proxy(source.host, source.port) as proxy:
        proxy.set_fault(Fault(stall_after=1234))
        assert drain(proxy.port, timeout=0.2) == (source.data[:1234], "stall")
        with socket.create_connection((proxy.host, proxy.port), timeout=DEADLINE) as end:
            end.sendall(WORD)
            wait_until(lambda: proxy.bytes_down == 2 * 1234, "the second stall")
            proxy.heal()
            received = b"".join(iter(lambda: end.recv(65536), b""))
        assert received == source.data


def test_trickle(source: Source) -> None:
    with Proxy(source.host, source.port) as proxy:
        proxy.set_fault(Fault(chunk=1, cut_after=3000, cut="fin"))
        pieces = []
        with socket.create_connection((proxy.host, proxy.port), timeout=DEADLINE) as end:
            end.sendall(WORD)
            while data := end.recv(65536):
                pieces.append(data)
        assert b"".join(pieces) == source.data[:3000]
        # The reader may fall behind the sender now and then; by and large it gets single bytes.
        assert len(pieces) > 300


def test_trickle_carries_a_real_protocol(
    client: redis.Redis,
    server: RemoteServer | Server,
    stream: str,
    make_proxy: Callable[..., Proxy],
) -> None:
    client.xadd(stream, {"value": "x" * 500})
    proxy = make_proxy(server)
    proxy.set_fault(Fault(chunk=1))
    with redis.Redis.from_url(proxy.rewrite(server.url)) as through:
        assert through.xrange(stream) == client.xrange(stream)


def test_refuse_and_accept_on_the_same_port(source: Source) -> None:
    with Proxy(source.host, source.port) as proxy:
        port = proxy.port
        proxy.refuse()
        assert drain(port) == (b"", "refused")
        proxy.accept()
        assert proxy.port == port
        assert drain(port) == (source.data, "fin")


@pytest.mark.parametrize("cut", ["rst", "fin"])
def test_cut_all_that_are_open(
    server: RemoteServer | Server, make_proxy: Callable[..., Proxy], cut: str
) -> None:
    proxy = make_proxy(server)
    with socket.create_connection((proxy.host, proxy.port), timeout=DEADLINE) as end:
        end.sendall(b"PING\r\n")
        assert end.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        proxy.cut_all(cut)  # type: ignore[arg-type]
        if cut == "rst":
            with pytest.raises(ConnectionResetError):
                end.recv(100)
        else:
            assert end.recv(100) == b""


def test_a_server_that_is_gone_resets_the_client(source: Source) -> None:
    with Proxy(source.host, embedded_redis.free_port()) as proxy:
        assert drain(proxy.port) == (b"", "rst")
        assert proxy.connections == 1


def test_a_killed_server_ends_the_connection(
    make_server: Callable[..., Server], make_proxy: Callable[..., Proxy]
) -> None:
    server = make_server()
    proxy = make_proxy(server)
    with redis.Redis(port=proxy.port) as client:
        assert client.ping()
        server.kill()
        with pytest.raises(redis.exceptions.ConnectionError):
            client.ping()
    server.start()
    with redis.Redis(port=proxy.port) as client:
        assert client.ping()


def test_delay_is_a_latency(
    server: RemoteServer | Server, client: redis.Redis, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(server, delay_ms=20)
    with redis.Redis.from_url(proxy.rewrite(server.url)) as through:
        through.ping()
        began = time.monotonic()
        through.ping()
        assert 0.04 <= time.monotonic() - began < 1.0


def test_delay_can_differ_by_direction(
    server: RemoteServer | Server, client: redis.Redis, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(server, delay_ms=(50, 0))
    with redis.Redis.from_url(proxy.rewrite(server.url)) as through:
        through.ping()
        began = time.monotonic()
        through.ping()
        assert 0.05 <= time.monotonic() - began < 1.0


def test_delay_leaves_the_throughput() -> None:
    # A line that carries one chunk at a time would take 64 MiB / 256 KiB * 50 ms = 13 s.
    source = Source(64 * MIB)
    with Proxy(source.host, source.port, delay_ms=50) as proxy:
        began = time.monotonic()
        data, how = drain(proxy.port)
        took = time.monotonic() - began
    source.close()
    assert (data == source.data, how) == (True, "fin")
    assert 0.05 <= took < 5.0


def test_proxy_as_a_script(source: Source) -> None:
    script = HERE / "support" / "proxy.py"
    with subprocess.Popen(
        [sys.executable, script, source.host, str(source.port), "--delay-ms", "5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert drain(int(process.stdout.readline())) == (source.data, "fin")
        process.communicate()
    assert process.returncode == 0
