"""Deployments of several servers on loopback: replicas, Sentinel, Cluster; and their failures.

Each is a context manager that returns from its start when everything in it knows everything else,
and that ends its processes however the block ends::

    with Sentinels() as deployment:
        polars_redis.read_stream(deployment.url(), "events")
        old = deployment.kill_master()
        deployment.wait_for_new_master(old)
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.retry import Retry

from embedded_redis import HOST, ServerError, free_port
from support.iterators import wait_until
from support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

    from embedded_redis import Binary
    from support.tls import Files

MASTER_NAME = "mymaster"
SLOTS = 16384
#: A cluster's nodes talk to each other on a port so far above the one for clients.
BUS_OFFSET = 10_000
#: Nodes talk the more often the less patient they are, so they get to know each other sooner.
MEETING_TIMEOUT_MS = 2000
#: How long a deployment may take to come up, or to get over a failure.
PATIENCE = 60.0
PAUSE = 0.02
#: A replica is to have its copy at once, not when more replicas may have asked for one; and is to
#: hear from its master soon, as a cluster does not tell of one that has heard nothing.
QUICK_REPLICAS: dict[str, Any] = {"repl_diskless_sync": False, "repl_ping_replica_period": 1}


class TlsServer(Server):
    """A server that listens with TLS on a second port, and replicates by it."""

    tls_port = 0

    def __init__(self, binary: Binary | None = None, *, files: Files, **options: Any) -> None:
        certificate, key = files.issue("server", "localhost", HOST)
        tls: dict[str, Any] = {
            "tls_cert_file": certificate,
            "tls_key_file": key,
            "tls_ca_cert_file": files.ca,
            "tls_auth_clients": "no",
            "tls_replication": True,
        }
        super().__init__(binary, **tls, **options)

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self.tls_port = free_port()
        self._options["tls_port"] = self.tls_port


class Sentinel(Server):
    """A sentinel; what it watches is said in ``sentinel`` lines."""

    _arguments = ("--sentinel",)
    _ready_words = "Sentinel ID is"


class TlsSentinel(TlsServer, Sentinel):
    """A sentinel that is asked by TLS, and asks others by it."""


class ClusterNode(Server):
    """A server of a cluster, which needs a second port for its fellows."""

    def _choose_ports(self) -> None:
        while True:
            self.port = free_port()
            # The others must be able to infer it, as servers before 7.0 take no other one.
            bus = self.port + BUS_OFFSET
            with socket.socket() as probe, suppress(OSError, OverflowError):
                probe.bind((HOST, bus))
                return


def _is_up(server: Server) -> bool:
    """Tell whether a replica has its copy, and hears of what is new."""
    told: Any = server.kept_client().info("replication")
    return bool(told["role"] == "slave" and told["master_link_status"] == "up")


def _is_master(server: Server) -> bool:
    return _role(server) == "master"


def _role(server: Server) -> str:
    told: Any = server.kept_client().execute_command("ROLE")  # type: ignore[no-untyped-call]
    return str(told[0].decode())


def _offset(server: Server) -> int:
    """How much of its master's writes a server has, and of its own ones if it is the master."""
    told: Any = server.kept_client().info("replication")
    return int(told.get("slave_repl_offset", told["master_repl_offset"]))


def _has(server: Server, due: int) -> bool:
    """Tell whether a replica has so much of its master's writes."""
    return _offset(server) >= due


def impatient(server: Server) -> redis.Redis:
    """A client that tries once, as whoever uses it knows better where to try again."""
    once = Retry(NoBackoff(), 0)
    return server.client(retry=once, socket_timeout=1, socket_connect_timeout=1)


class Deployment:
    """Servers that are started together, and ended together."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every server of it."""
        self._stack.close()

    def _start(self) -> None:
        raise NotImplementedError

    def _started(self, server: Server) -> Server:
        return self._stack.enter_context(server)

    def _wait(self, what: str, condition: Callable[..., object], *of: object) -> None:
        """Wait for what a server tells; one that does not answer yet has not told it."""

        def holds() -> object:
            try:
                return condition(*of)
            except (redis.RedisError, OSError):
                return False

        wait_until(holds, PATIENCE, what, PAUSE)


class Replicated(Deployment):
    """A master and its replicas.

    Parameters
    ----------
    binary
        The redis-server program of all of them.
    replicas
        How many.
    password
        What clients, and replicas, have to say.
    files
        Have all of them listen, and replicate, by TLS, with certificates of this authority.
    options
        More options, for all of them.
    """

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        replicas: int = 1,
        password: str | None = None,
        files: Files | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.password = password
        self.files = files
        self._binary = binary
        self._number = replicas
        login = {"requirepass": password, "masterauth": password} if password else {}
        self._options = {**QUICK_REPLICAS, **login, **options}
        #: All servers, the first master first.
        self.servers: list[Server] = []

    @property
    def replicas(self) -> list[Server]:
        """The servers that run and are replicas now."""
        return [server for server in self.servers if server.running and not _is_master(server)]

    def master(self) -> Server:
        """The server that began as the master."""
        return self.servers[0]

    def wait_caught_up(self) -> None:
        """Wait until every replica has what the master has now."""
        due = _offset(self.master())
        for replica in self.replicas:
            self._wait("a replica has caught up", _has, replica, due)

    def url(self, **parameters: str) -> str:
        """The URL of the master, by TLS if it speaks that."""
        return self.url_of(self.master(), **parameters)

    def url_of(self, server: Server, **parameters: str) -> str:
        """The URL of one of the servers."""
        if self.files is not None:
            parameters = {"ssl_ca_certs": self.files.ca, **parameters}
        scheme = "redis" if self.files is None else "rediss"
        login = f":{quote(self.password, '')}@" if self.password else ""
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"{scheme}://{login}{HOST}:{port_of(server)}/0{query}"

    def _start(self) -> None:
        self.servers.append(self._started(self._server()))
        address = f"{HOST} {port_of(self.servers[0])}"
        for _ in range(self._number):
            self.servers.append(self._started(self._server(replicaof=address)))
        for replica in self.servers[1:]:
            self._wait("a replica is up", _is_up, replica)

    def _server(self, **options: Any) -> Server:
        options = {**self._options, **options}
        if self.files is None:
            return Server(self._binary, **options)
        return TlsServer(self._binary, files=self.files, **options)


def port_of(server: Server) -> int:
    """The port that others of its deployment, and its clients, use."""
    return server.tls_port if isinstance(server, TlsServer) else server.port


class Sentinels(Replicated):
    """A master, its replicas, and sentinels that watch them.

    Parameters
    ----------
    binary, replicas, password, files, options
        As those of `Replicated`; sentinels have no ``options``.
    sentinels
        How many; all but a minority of them must agree.
    sentinel_username, sentinel_password
        What those who ask a sentinel have to say: a password, or a user and a password.
    down_after_ms
        How long a master that does not answer is waited for.
    """

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        down_after_ms: int = 1000,
        **options: Any,
    ) -> None:
        super().__init__(binary, replicas=replicas, **options)
        self.sentinel_username = sentinel_username
        self.sentinel_password = sentinel_password
        self._sentinels = sentinels
        self._down_after_ms = down_after_ms
        self.sentinels: list[Server] = []

    # -- what it says ----------------------------------------------------------

    def master(self) -> Server:
        """The server that is the master now, by what the first sentinel tells that answers."""
        for sentinel in self._alive():
            port = self._told_port(sentinel)
            if port is not None:
                return self._at(port)
        msg = "no sentinel tells the master"
        raise ServerError(msg)

    def url(self, **parameters: str) -> str:
        """The URL of the master, by all sentinels; ``login="user:pw"`` for the servers'."""
        login = parameters.pop("login", f":{quote(self.password, '')}" if self.password else "")
        path = parameters.pop("db", "0")
        given = {"sentinelMasterId": MASTER_NAME}
        if self.sentinel_username is not None:
            given["sentinel_username"] = self.sentinel_username
        if self.sentinel_password is not None:
            given["sentinel_password"] = self.sentinel_password
        if self.files is not None:
            given["ssl_ca_certs"] = self.files.ca
        scheme = "redis-sentinel" if self.files is None else "rediss-sentinel"
        hosts = ",".join(f"{HOST}:{port_of(sentinel)}" for sentinel in self.sentinels)
        query = urlencode({**given, **parameters})
        return f"{scheme}://{login}{'@' if login else ''}{hosts}/{path}?{query}"

    def ask(self, sentinel: Server, *words: object) -> Any:
        """Give a sentinel's answer to ``SENTINEL ...``."""
        user, password = self.sentinel_username, self.sentinel_password
        login: dict[str, Any] = {"username": user, "password": password}
        with closing(redis.Redis(HOST, sentinel.port, socket_timeout=PATIENCE, **login)) as client:
            return client.execute_command("SENTINEL", *words)  # type: ignore[no-untyped-call]

    def adds(self, stream: str) -> Callable[[int], object]:
        """What adds an entry to whoever the sentinels say is the master just then."""
        clients: dict[Server, redis.Redis] = {}

        def add(n: int) -> object:
            master = self.master()
            client = clients.get(master) or clients.setdefault(master, impatient(master))
            return client.xadd(stream, {"n": n})

        return add

    # -- what is done to it ----------------------------------------------------

    def kill_master(self) -> Server:
        """Kill the master, and give what was it."""
        master = self.master()
        master.kill()
        return master

    def failover(self) -> Server:
        """Have the sentinels put another server in the master's place, and give the old one."""
        master = self.master()
        self.ask(self._alive()[0], "FAILOVER", MASTER_NAME)
        return master

    def wait_for_new_master(self, old: Server) -> Server:
        """Wait until every sentinel names another master than `old`, and that is one."""
        gone = port_of(old)

        def is_there() -> bool:
            ports = {self._told_port(sentinel) for sentinel in self._alive()}
            if len(ports) != 1 or ports & {None, gone}:
                return False
            return _is_master(self.master())

        self._wait("a new master is agreed on", is_there)
        return self.master()

    def wait_until_replica(self, server: Server) -> None:
        """Wait until what was a master, and is back or never was gone, follows the new one.

        Sentinels take their time for that: ten seconds and more.
        """
        self._wait("a server is a replica", _is_up, server)

    def _alive(self) -> list[Server]:
        return [sentinel for sentinel in self.sentinels if sentinel.running]

    # -- how it comes up -------------------------------------------------------

    def _start(self) -> None:
        super()._start()
        for _ in range(self._sentinels):
            self.sentinels.append(self._started(self._sentinel()))
        for sentinel in self.sentinels:
            self._wait("a sentinel knows all others", self._knows_all, sentinel)

    def _sentinel(self) -> Server:
        name, quorum = MASTER_NAME, self._sentinels // 2 + 1
        lines = [
            f"monitor {name} {HOST} {port_of(self.servers[0])} {quorum}",
            f"down-after-milliseconds {name} {self._down_after_ms}",
            f"failover-timeout {name} 3000",
            f"parallel-syncs {name} {self._number}",
        ]
        if self.password is not None:
            lines.append(f"auth-pass {name} {self.password}")
        options: dict[str, Any] = {"sentinel": lines, **self._sentinel_login(lines)}
        if self.files is None:
            return Sentinel(self._binary, **options)
        return TlsSentinel(self._binary, files=self.files, **options)

    def _sentinel_login(self, lines: list[str]) -> dict[str, Any]:
        """What makes a sentinel ask for a login, and say it to its fellows."""
        if self.sentinel_password is None:
            return {}
        lines.append(f"sentinel-pass {self.sentinel_password}")
        if self.sentinel_username is None:
            return {"requirepass": self.sentinel_password}
        lines.append(f"sentinel-user {self.sentinel_username}")
        user = f"{self.sentinel_username} on >{self.sentinel_password} ~* &* +@all"
        return {"acl": [user, "default off"]}

    def _knows_all(self, sentinel: Server) -> bool:
        told = _pairs(self.ask(sentinel, "MASTER", MASTER_NAME))
        if told["flags"] != "master" or int(told["num-other-sentinels"]) < self._sentinels - 1:
            return False
        replicas = [_pairs(one) for one in self.ask(sentinel, "REPLICAS", MASTER_NAME)]
        # One whose INFO it has not seen yet would not be made a master.
        up = [one for one in replicas if one["master-link-status"] == "ok"]
        return len(up) == self._number

    def _told_port(self, sentinel: Server) -> int | None:
        try:
            told = self.ask(sentinel, "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        except (redis.RedisError, OSError):
            return None
        return int(told[1])

    def _at(self, port: int) -> Server:
        return next(server for server in self.servers if port_of(server) == port)


def _pairs(told: Any) -> dict[str, str]:
    """Make a mapping of a reply that is one, whatever the protocol's version writes it as."""
    flat = [x for pair in told.items() for x in pair] if isinstance(told, dict) else told
    words = [word.decode() for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


class Cluster(Deployment):
    """A cluster: masters that share the slots, and replicas of each.

    Parameters
    ----------
    binary
        The redis-server program of all of them.
    masters, replicas
        How many masters, and how many replicas each of them has.
    password
        What clients, and replicas, have to say.
    node_timeout_ms
        How long a node that does not answer is waited for.
    options
        More options, for all of them.
    """

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        masters: int = 3,
        replicas: int = 0,
        password: str | None = None,
        node_timeout_ms: int = 2000,
        **options: Any,
    ) -> None:
        super().__init__()
        self.password = password
        self._binary = binary
        self._masters = masters
        self._replicas = replicas
        self._node_timeout_ms = node_timeout_ms
        login = {"requirepass": password, "masterauth": password} if password else {}
        self._options = {
            **QUICK_REPLICAS,
            "cluster_enabled": True,
            "cluster_node_timeout": MEETING_TIMEOUT_MS,
            # However long it has not heard of its master, a replica is to take its place.
            "cluster_replica_validity_factor": 0,
            **login,
            **options,
        }
        #: All nodes, those that began as masters first.
        self.nodes: list[Server] = []

    # -- what it says ----------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL of one of its nodes, the first."""
        return self.nodes[0].url

    @property
    def masters(self) -> list[Server]:
        """The nodes that have slots now."""
        ports = {ports[0] for _, _, ports in self._shards(self._alive()[0])}
        return [node for node in self.nodes if node.port in ports]

    def replicas_of(self, master: Server) -> list[Server]:
        """The replicas of a master."""
        shards = self._shards(self._alive()[0])
        ports = {port for _, _, ports in shards if ports[0] == master.port for port in ports[1:]}
        return [node for node in self.nodes if node.port in ports]

    def node_of(self, key: str) -> Server:
        """The master that has a key, or would have it."""
        return self.owner(key_slot(key.encode()), self._alive()[0])

    def owner(self, slot: int, asked: Server) -> Server:
        """The master that a node says has a slot."""
        for first, last, ports in self._shards(asked):
            if first <= slot <= last:
                return self._at(ports[0])
        msg = f"nobody has slot {slot}"
        raise ServerError(msg)

    def is_ok(self, node: Server) -> bool:
        """Tell whether a node thinks that all slots are served."""
        return b"cluster_state:ok" in _raw(_cluster(node, "INFO"))

    def key_of(self, node: Server, name: str = "events") -> str:
        """A key that a master has or would have, by the tag in it."""
        return next(key for n in count() if self.node_of(key := f"{name}:{{{n}}}") is node)

    def adds(self, stream: str) -> Callable[[int], object]:
        """What adds an entry to whichever node has the stream just then."""
        clients: list[RedisCluster] = []

        def add(n: int) -> object:
            try:
                if not clients:
                    clients.append(self.client(socket_timeout=1, socket_connect_timeout=1))
                return clients[0].xadd(stream, {"n": n})
            except redis.RedisError:
                # It may have lost sight of a cluster that changes; a new one looks again.
                clients.clear()
                raise

        return add

    def client(self, **options: Any) -> RedisCluster:
        """A redis-py client of the whole cluster."""
        made = RedisCluster(
            host=HOST, port=self._alive()[0].port, password=self.password, **options
        )
        return self._stack.enter_context(closing(made))

    # -- what is done to it ----------------------------------------------------

    def migrate(self, key: str, to: Server) -> Migration:
        """Begin to move a key's slot to another master; nothing has been moved yet."""
        return Migration(self, key_slot(key.encode()), self.node_of(key), to)

    def kill(self, node: Server) -> list[int]:
        """Kill a node, and give the slots it had, one of each range."""
        slots = [first for first, _, ports in self._shards(node) if ports[0] == node.port]
        node.kill()
        return slots

    def wait_caught_up(self) -> None:
        """Wait until every replica has what its master has now."""
        for master in self.masters:
            due = _offset(master)
            for replica in self.replicas_of(master):
                self._wait("a replica has caught up", _has, replica, due)

    def wait_until_failed_over(self, node: Server, slots: Iterable[int]) -> None:
        """Wait until others have the slots that a node had, and every node knows that."""

        def is_over() -> bool:
            return all(
                self.owner(slot, other) is not node and self.is_ok(other)
                for other in self._alive()
                for slot in slots
            )

        self._wait("a replica takes its master's place", is_over)

    def wait_until_down(self) -> None:
        """Wait until every node knows that slots were lost, and serves nobody."""
        for node in self._alive():
            self._wait("a node knows what was lost", lambda n: not self.is_ok(n), node)

    # -- how it comes up -------------------------------------------------------

    def _start(self) -> None:
        number = self._masters * (1 + self._replicas)
        self.nodes = [
            self._started(ClusterNode(self._binary, **self._options)) for _ in range(number)
        ]
        masters, replicas = self.nodes[: self._masters], self.nodes[self._masters :]
        for epoch, master in enumerate(masters, 1):
            # Nodes of the same epoch would have to agree on others first.
            _cluster(master, "SET-CONFIG-EPOCH", epoch)
            first, last = (SLOTS * n // len(masters) for n in (epoch - 1, epoch))
            _cluster(master, "ADDSLOTS", *range(first, last))
        for node in self.nodes[1:]:
            _cluster(self.nodes[0], "MEET", HOST, node.port)
        for node in self.nodes:
            self._wait("a node knows all others", lambda n: len(_known(n)) == number, node)
        for index, replica in enumerate(replicas):
            master = masters[index % len(masters)]
            _cluster(replica, "REPLICATE", _node_id(master))
        for replica in replicas:
            self._wait("a replica is up", _is_up, replica)
        for node in self.nodes:
            self._wait("a node sees the cluster as it is to be", self._is_whole, node)
            node.kept_client().config_set("cluster-node-timeout", self._node_timeout_ms)

    def _is_whole(self, node: Server) -> bool:
        shards = self._shards(node)
        replicas = sum(len(ports) - 1 for _, _, ports in shards)
        whole = len(shards) == self._masters and replicas == self._masters * self._replicas
        return whole and self.is_ok(node)

    def _alive(self) -> list[Server]:
        return [node for node in self.nodes if node.running]

    def _shards(self, asked: Server) -> list[tuple[int, int, list[int]]]:
        """The ranges of slots as a node tells them, and the ports of who has them, master first."""
        told = sorted(_cluster(asked, "SLOTS"))
        return [(first, last, [node[1] for node in nodes]) for first, last, *nodes in told]

    def _at(self, port: int) -> Server:
        return next(node for node in self.nodes if node.port == port)


class Migration:
    """The way of a slot from one master to another, a step at a time.

    A test may stop between any two of them: `begin`, `move_keys`, `finish`; `run` makes all.
    """

    def __init__(self, cluster: Cluster, slot: int, source: Server, target: Server) -> None:
        self.cluster = cluster
        self.slot = slot
        self.source = source
        self.target = target

    def begin(self) -> Migration:
        """Have both masters know of it: keys that the old one lacks are asked of the new one."""
        _cluster(self.target, "SETSLOT", self.slot, "IMPORTING", _node_id(self.source))
        _cluster(self.source, "SETSLOT", self.slot, "MIGRATING", _node_id(self.target))
        return self

    def move_keys(self, *some: str) -> Migration:
        """Move every key of the slot, or only some; the slot is still the old master's."""
        while keys := some or _cluster(self.source, "GETKEYSINSLOT", self.slot, 100):
            self._move(keys)
            if some:
                break
        return self

    def _move(self, keys: Iterable[str | bytes]) -> None:
        login = ["AUTH", self.cluster.password] if self.cluster.password else []
        words = [HOST, self.target.port, "", 0, int(PATIENCE * 1000), *login, "KEYS", *keys]
        source = self.source.kept_client()
        source.execute_command("MIGRATE", *words)  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        """Give the slot to the new master, tell everybody, and wait until they know since when.

        A master that is given a slot before it has heard of the newest epoch claims it by an old
        one: the others go on to send everybody elsewhere, and its keys are deleted.
        """
        owner = _node_id(self.target)
        # The new owner first: the old one forgets of it as soon as it is told.
        nodes = dict.fromkeys([self.target, self.source, *self.cluster.masters])
        told = [node for node in nodes if node.running]
        for node in told:
            _cluster(node, "SETSLOT", self.slot, "NODE", owner)
        if self.target in told:
            wait_until(lambda: all(map(self._knows_all, told)), PATIENCE, "all know of the move", 0)

    def _knows_all(self, node: Server) -> bool:
        """Whether a node knows of the new owner what that knows of itself."""
        owner = _node_id(self.target)
        has_it = self.cluster.owner(self.slot, node) is self.target
        return has_it and _epoch(node, owner) == _epoch(self.target, owner)

    def run(self) -> None:
        """Make all the steps."""
        self.begin().move_keys().finish()


def _cluster(node: Server, *words: object) -> Any:
    return node.kept_client().execute_command("CLUSTER", *words)  # type: ignore[no-untyped-call]


def _raw(told: Any) -> bytes:
    return told if isinstance(told, bytes) else str(told).encode()


def _node_id(node: Server) -> str:
    return _raw(_cluster(node, "MYID")).decode()


def _epoch(asked: Server, node: str) -> int:
    """The epoch of another node, or of itself, that a node knows."""
    lines = _raw(_cluster(asked, "NODES")).decode().splitlines()
    words = next(line.split() for line in lines if line.startswith(node))
    return int(words[6])


def _known(node: Server) -> list[bytes]:
    """The nodes that a node has shaken hands with, a line each."""
    lines = _raw(_cluster(node, "NODES")).splitlines()
    return [line for line in lines if b"handshake" not in line]
