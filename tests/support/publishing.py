"""Who publishes while a test listens, and what was heard."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from support.iterators import PATIENCE, meanwhile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis


def publish(
    client: redis.Redis, channel: str, messages: Any, command: str = "PUBLISH"
) -> list[Any]:
    """Publish messages, and give how many have heard each."""
    pipeline = client.pipeline(transaction=False)
    for message in messages:
        pipeline.execute_command(command, channel, message)  # type: ignore[no-untyped-call]
    return pipeline.execute()


@contextmanager
def repeating(
    client: redis.Redis, channel: str, message: str, command: str = "PUBLISH"
) -> Iterator[None]:
    """Publish a message over and over again: one of them will be heard."""
    is_heard = threading.Event()

    def run() -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_heard.wait(0.002):
            assert time.monotonic() < deadline, "nobody heard it"
            client.execute_command(command, channel, message)  # type: ignore[no-untyped-call]

    with meanwhile(run):
        try:
            yield
        finally:
            is_heard.set()


def listen_until(messages: Any, last: str) -> list[str]:
    """Read until this message comes."""
    seen: list[str] = []
    while last not in seen:
        seen += next(messages)["message"].to_list()
    return seen[: seen.index(last)]
