"""What a server did meanwhile: its own counters, and the commands that it was given."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import polars as pl

from polars_redis._source import Source
from support.iterators import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Server

#: Bytes that are sent beside entries: an introduction, a stream's extent, these counters.
LITTLE = 20_000


class Counted:
    """What a server did in a block, without what asking for its counters costs."""

    calls: dict[str, int]
    sent: int


@contextmanager
def sources_let_go() -> Iterator[None]:
    """Wait, in the end, until no source is read any more: engines that stop let go of it later."""
    being_read: set[object] = set()
    read = Source.__call__

    def watched(source: Source, *wishes: Any) -> Iterator[pl.DataFrame]:
        this = object()
        being_read.add(this)
        try:
            yield from read(source, *wishes)
        finally:
            being_read.remove(this)

    with mock.patch.object(Source, "__call__", watched):
        yield

        def are_let_go() -> bool:
            # What its threads are done with, Polars drops when it is called next.
            pl.Series()
            return not being_read

        wait_until(are_let_go, what="the end of what was begun to be read")


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
        with sources_let_go():
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
