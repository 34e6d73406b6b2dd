"""What a server did meanwhile: its own counters, and the commands that it was given."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Server

#: Bytes that are sent beside entries: an introduction, a stream's extent, these counters.
LITTLE = 20_000


class Counted:
    """What a server did in a block, without what asking for its counters costs."""

    calls: dict[str, int]
    sent: int


class Counting:
    """A server of its own, where nothing else counts."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.client = server.client()
        self._speaker = server.client()

    @contextmanager
    def counted(self) -> Iterator[Counted]:
        """Count what the server does in a block."""
        counted = Counted()
        calls, sent = self._calls(), self._settled()
        yield counted
        counted.sent = self._settled() - sent
        now = self._calls()
        counted.calls = {
            name: count - calls.get(name, 0)
            for name, count in now.items()
            if count > calls.get(name, 0) and name not in {"info", "client"}
        }

    def _settled(self) -> int:
        """What was sent, once nothing is on its way any more, as after a query that stopped."""
        before, now = -LITTLE, self._sent()
        while now - before > LITTLE:
            before, now = now, self._sent()
        return now

    def _sent(self) -> int:
        told: Any = self.client.info("stats")
        return int(told["total_net_output_bytes"])

    def _calls(self) -> dict[str, int]:
        stats: Any = self.client.info("commandstats")
        return {name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()}

    def heard(self, act: Callable[[], Any]) -> list[list[str]]:
        """Do something, and tell the commands that the server was given meanwhile."""
        end = "the end"
        self._speaker.ping()
        with self.client.monitor() as monitor:  # type: ignore[no-untyped-call]
            act()
            self._speaker.echo(end)
            heard: list[list[str]] = []
            for told in monitor.listen():
                words = told["command"].split(" ")
                if words[0].upper() == "ECHO":
                    return heard
                heard.append(words)
        raise AssertionError
