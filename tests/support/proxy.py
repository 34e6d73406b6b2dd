"""A TCP proxy on loopback that breaks the line between a client and a server, on purpose.

One thread carries every connection. What it does to them is said by a `Fault`, for all
connections or for the n-th one (the first is 1)::

    with Proxy(server.host, server.port) as proxy:
        proxy.set_fault(Fault(cut_after=1000, cut="rst"), connection=1)
        polars_redis.read_stream(proxy.rewrite(server.url), "events")
        assert proxy.connections == 2

Run as a script it is a line with a delay: ``python proxy.py HOST PORT --delay-ms 20`` prints the
port it listens on, and carries until its standard input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

HOST = "127.0.0.1"
CHUNK = 1 << 18
#: How much one direction holds before it stops reading: little when it only passes on, a long
#: line's worth when it delays.
HOLD = 1 << 20
HOLD_DELAYED = 1 << 27
CLOSE_DEADLINE = 10.0
#: Linux' count of bytes in a socket's buffer that were not sent yet.
SIOCOUTQNSD = 0x894B


@dataclass(frozen=True)
class Fault:
    """What happens to a connection. Counts are of bytes to the client, but for one.

    Attributes
    ----------
    cut_after
        Close it as soon as exactly so many bytes were passed on (0: at once).
    cut_up_after
        Close it as soon as exactly so many bytes were passed on to the server.
    cut
        How: ``"rst"`` resets it, ``"fin"`` ends it in an orderly way.
    stall_after
        Pass on no more than so many bytes, and keep it open.
    chunk
        Send at most so many bytes at a time to the client (1: a trickle).
    words
        Pass on the second in the place of the first, as a server of another make would say it.
    """

    cut_after: int | None = None
    cut_up_after: int | None = None
    cut: Literal["rst", "fin"] = "rst"
    stall_after: int | None = None
    chunk: int | None = None
    words: tuple[bytes, bytes] | None = None

    @property
    def limit(self) -> float:
        """The number of bytes that get through."""
        limits = [n for n in (self.cut_after, self.stall_after) if n is not None]
        return min(limits, default=math.inf)


NO_FAULT = Fault()


class _Line:
    """One direction of a connection: what was read and is not sent yet, and when it is due."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        self.source = source
        self.sink = sink
        self.delay = delay
        self.hold = HOLD_DELAYED if delay else HOLD
        self.pending: deque[tuple[float, memoryview]] = deque()
        self.held = 0
        self.passed = 0
        self.ended_at: float | None = None
        self.finished = False

    @property
    def wants_to_read(self) -> bool:
        return self.ended_at is None and self.held < self.hold

    def read(self, words: tuple[bytes, bytes] | None = None) -> None:
        try:
            data = self.source.recv(CHUNK)
        except BlockingIOError:
            return
        if words is not None:
            data = data.replace(*words)
        due = time.monotonic() + self.delay
        if data:
            self.pending.append((due, memoryview(data)))
            self.held += len(data)
        else:
            self.ended_at = due

    def due(self, allowed: float) -> float | None:
        """When it next has something to do; None while it waits for others."""
        if self.pending:
            return self.pending[0][0] if allowed > 0 else None
        return None if self.finished else self.ended_at

    def write(self, allowed: float, chunk: int | None) -> bool:
        """Send what is due, at most `allowed` bytes; True where the sink takes no more now."""
        now = time.monotonic()
        while self.pending and self.pending[0][0] <= now and allowed > 0:
            due, data = self.pending[0]
            size = int(min(len(data), allowed, chunk or CHUNK))
            try:
                sent = self.sink.send(data[:size])
            except BlockingIOError:
                return True
            self.passed += sent
            self.held -= sent
            allowed -= sent
            if sent == len(data):
                self.pending.popleft()
            else:
                self.pending[0] = (due, data[sent:])
            if chunk is not None:
                # One piece a turn, so that it also arrives as one.
                return False
        if not self.pending and self.ended_at is not None and self.ended_at <= now:
            self._finish()
        return False

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


@dataclass
class _Connection:
    number: int
    client: socket.socket
    server: socket.socket
    fault: Fault
    up: _Line = field(init=False)
    down: _Line = field(init=False)
    blocked: set[socket.socket] = field(default_factory=set)
    cut: bool = False

    def lines(self) -> tuple[_Line, _Line]:
        return self.up, self.down

    def allowed(self, line: _Line) -> float:
        if line is self.down:
            return self.fault.limit - line.passed
        after = self.fault.cut_up_after
        return math.inf if after is None else after - line.passed

    def is_due_to_be_cut(self) -> bool:
        limits = ((self.down, self.fault.cut_after), (self.up, self.fault.cut_up_after))
        return any(after is not None and line.passed >= after for line, after in limits)


class Proxy:
    """Listens on a loopback port and carries bytes to and from `host`:`port`.

    Parameters
    ----------
    host, port
        The server behind it.
    delay_ms
        How long a byte is under way, each direction: a number, or ``(up, down)``. It is the
        latency of the line and leaves its throughput alone.

    Attributes
    ----------
    connections
        How many connections there have been.
    """

    def __init__(
        self, host: str, port: int, *, delay_ms: float | tuple[float, float] = 0.0
    ) -> None:
        self.target = (host, port)
        up, down = delay_ms if isinstance(delay_ms, tuple) else (delay_ms, delay_ms)
        self._delays = (up / 1000, down / 1000)
        self._faults: dict[int | None, Fault] = {}
        self._live: dict[int, _Connection] = {}
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakee = socket.socketpair()
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self.port = 0
        self.connections = 0
        self._bytes_up = 0
        self._bytes_down = 0

    # -- what it says ----------------------------------------------------------

    @property
    def host(self) -> str:
        """The address it listens on."""
        return HOST

    @property
    def live(self) -> int:
        """How many connections are open now."""
        return len(self._live)

    @property
    def bytes_up(self) -> int:
        """How many bytes were passed from clients to the server."""
        self._settle()
        return self._bytes_up

    @property
    def bytes_down(self) -> int:
        """How many bytes were passed from the server to clients."""
        self._settle()
        return self._bytes_down

    def rewrite(self, url: str) -> str:
        """Give the URL that leads through this proxy and is `url` in all else."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}{HOST}:{self.port}"))

    # -- what it is told -------------------------------------------------------

    def set_fault(self, fault: Fault, *, connection: int | None = None) -> None:
        """Have a fault for one connection, by its number from 1, or for all (also open ones)."""
        self._order(lambda: self._set_fault(fault, connection))

    def heal(self) -> None:
        """Forget all faults; connections that were stalled go on."""
        self._order(self._heal)

    def cut_all(self, cut: Literal["rst", "fin"] = "rst") -> None:
        """Cut every connection that is open now."""
        self._order(lambda: self._cut_all(cut))

    def refuse(self) -> None:
        """Refuse new connections, as if nobody listened; open ones stay."""
        self._order(self._unlisten)

    def accept(self) -> None:
        """Take new connections again, on the same port."""
        self._order(self._listen)

    # -- its life --------------------------------------------------------------

    def start(self) -> Self:
        """Listen, and carry in a thread of its own."""
        self._wakee.setblocking(False)
        self._selector.register(self._wakee, selectors.EVENT_READ, self._wakee)
        self._listen()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Close every connection and stop."""
        if self._thread is None:
            return
        self._stopping = True
        self._waker.send(b"x")
        self._thread.join(CLOSE_DEADLINE)
        self._thread = None
        self._unlisten()
        for connection in list(self._live.values()):
            self._drop(connection)
        self._selector.close()
        self._waker.close()
        self._wakee.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _settle(self) -> None:
        """Wait until all that a peer has seen of it is counted: it counts after it has sent."""
        if self._thread is not None:
            self._order(lambda: None)

    # -- in the thread ---------------------------------------------------------

    def _order(self, order: Callable[[], None]) -> None:
        """Have something done by the carrying thread, and wait until it is."""
        done = threading.Event()
        self._orders.append((order, done))
        self._waker.send(b"x")
        if not done.wait(CLOSE_DEADLINE):
            msg = "the proxy's thread does not answer"
            raise RuntimeError(msg)

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(self._patience()):
                self._ready(key.data)
            for connection in list(self._live.values()):
                self._turn(connection)

    def _patience(self) -> float | None:
        """How long nothing has to be done unless a socket says so."""
        times = [
            due
            for connection in self._live.values()
            for line in connection.lines()
            if line.sink not in connection.blocked
            and (due := line.due(connection.allowed(line))) is not None
        ]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _ready(self, what: object) -> None:
        if what is self._wakee:
            self._obey()
        elif what is self._listener:
            self._take()
        elif isinstance(what, tuple):
            connection, line_in, line_out = what
            connection.blocked.discard(line_out.sink)
            # It may have gone since the selector saw it.
            there = connection.number in self._live and not connection.cut
            if there and line_in.wants_to_read:
                words = connection.fault.words if line_in is connection.down else None
                self._guarded(connection, lambda: line_in.read(words))

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakee.recv(4096)
        while self._orders:
            order, done = self._orders.popleft()
            order()
            done.set()

    def _take(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        self.connections += 1
        try:
            server = socket.create_connection(self.target, timeout=CLOSE_DEADLINE)
        except OSError:
            _reset(client)
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fault = self._faults.get(self.connections, self._faults.get(None, NO_FAULT))
        connection = _Connection(self.connections, client, server, fault)
        connection.up = _Line(client, server, self._delays[0])
        connection.down = _Line(server, client, self._delays[1])
        self._live[connection.number] = connection

    def _turn(self, connection: _Connection) -> None:
        """Send what is due on a connection, apply its fault, and say what to wait for."""
        if connection.cut:
            self._discard(connection)
            return
        self._guarded(connection, lambda: self._send(connection))
        if connection.number not in self._live:
            return
        if connection.is_due_to_be_cut():
            self._cut(connection, connection.fault.cut)
        elif connection.up.finished and connection.down.finished:
            self._drop(connection)
        else:
            self._watch(connection)

    def _send(self, connection: _Connection) -> None:
        for line in connection.lines():
            if line.sink in connection.blocked:
                continue
            chunk = connection.fault.chunk if line is connection.down else None
            before = line.passed
            if line.write(connection.allowed(line), chunk):
                connection.blocked.add(line.sink)
            if line is connection.down:
                self._bytes_down += line.passed - before
            else:
                self._bytes_up += line.passed - before

    def _guarded(self, connection: _Connection, act: Callable[[], None]) -> None:
        """Do something on its sockets; one end that resets it resets the other."""
        try:
            act()
        except ConnectionError:
            self._drop(connection, reset=True)

    def _watch(self, connection: _Connection) -> None:
        for line_in, line_out in (
            (connection.up, connection.down),
            (connection.down, connection.up),
        ):
            end = line_in.source
            events = selectors.EVENT_READ if line_in.wants_to_read else 0
            events |= selectors.EVENT_WRITE if end in connection.blocked else 0
            self._register(end, events, (connection, line_in, line_out))

    def _register(self, end: socket.socket, events: int, data: object) -> None:
        known = self._selector.get_map().get(end)
        if not events:
            if known is not None:
                self._selector.unregister(end)
        elif known is None:
            self._selector.register(end, events, data)
        elif known.events != events:
            self._selector.modify(end, events, data)

    def _cut(self, connection: _Connection, how: Literal["rst", "fin"]) -> None:
        if how == "rst":
            _wait_sent(connection.client)
            self._drop(connection, reset=True)
            return
        # Bytes that were not read yet would turn the close into a reset: read on, for nothing.
        connection.cut = True
        self._register(connection.server, 0, None)
        connection.server.close()
        with contextlib.suppress(OSError):
            connection.client.shutdown(socket.SHUT_WR)
        self._register(
            connection.client,
            selectors.EVENT_READ,
            (connection, connection.up, connection.down),
        )

    def _discard(self, connection: _Connection) -> None:
        try:
            while connection.client.recv(CHUNK):
                pass
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self._drop(connection)

    def _drop(self, connection: _Connection, *, reset: bool = False) -> None:
        for end in (connection.client, connection.server):
            if end.fileno() < 0:
                continue
            self._register(end, 0, None)
            if reset:
                _reset(end)
            else:
                end.close()
        self._live.pop(connection.number, None)

    def _set_fault(self, fault: Fault, number: int | None) -> None:
        self._faults[number] = fault
        for connection in self._live.values():
            if number in (None, connection.number):
                connection.fault = fault

    def _cut_all(self, how: Literal["rst", "fin"]) -> None:
        for connection in list(self._live.values()):
            if not connection.cut:
                self._cut(connection, how)

    def _heal(self) -> None:
        self._faults.clear()
        for connection in self._live.values():
            connection.fault = NO_FAULT

    def _listen(self) -> None:
        if self._listener is None:
            listener = socket.socket()
            # On Windows this would let two listeners share the port.
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, self.port))
            listener.listen()
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self._listener = listener
            self._selector.register(listener, selectors.EVENT_READ, listener)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None


def _reset(end: socket.socket) -> None:
    linger = "hh" if sys.platform == "win32" else "ii"
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(linger, 1, 0))
    end.close()


def _wait_sent(end: socket.socket) -> None:
    """Let what was written leave the socket's buffer, as a reset throws the rest of it away."""
    if sys.platform != "linux":
        return
    import fcntl

    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        (unsent,) = struct.unpack("i", fcntl.ioctl(end, SIOCOUTQNSD, b"\0" * 4))
        if unsent == 0:
            return
        time.sleep(0.0005)


def main() -> None:
    """Carry, with a delay, until standard input ends."""
    parser = argparse.ArgumentParser(description="a TCP line with a delay")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="each way")
    wanted = parser.parse_args()
    with Proxy(wanted.host, wanted.port, delay_ms=wanted.delay_ms) as proxy:
        print(proxy.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
