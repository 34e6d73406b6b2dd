"""Every Python example of the documentation runs as it is printed."""

from __future__ import annotations

import doctest
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

import polars_redis
from support.streams import add
from support.tls import Files, tls_binary
from support.topologies import Cluster, Replicated, Sentinels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from support.servers import Server

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: An example that needs a server of some kind says so before it.
OF_A_KIND = re.compile(r"^<!-- server: (\w+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
URL_OF_A_KIND = re.compile(r'"((?:redis|rediss|redis-sentinel|unix)://[^"]*)"')
PRINTED_URL = "redis://localhost"
FIRST_MS = 1_704_067_200_000
ACTIONS = ("click", "view", "purchase")
#: Public names that no reader calls.
WITHOUT_EXAMPLES = {"PubSubStats", "StreamStats", "exceptions"}


@pytest.fixture
def events(client: redis.Redis) -> None:
    """The streams that the pages' examples read."""
    fill(client, 200)
    for region, first in {"eu": 0, "us": 3}.items():
        orders = ({"customer": f"customer_{n % 7}", "amount": 9.5 + n} for n in range(20))
        entries = ((f"{FIRST_MS + first + n}-0", order) for n, order in enumerate(orders))
        add(client, f"orders:{region}", entries)


@pytest.fixture
def ten_events(client: redis.Redis) -> None:
    """The stream that the docstrings' examples read: what they print has to fit in there."""
    fill(client, 10)


def fill(client: redis.Redis, entries: int) -> None:
    """One entry a millisecond."""
    fields = (
        {"user_id": f"user_{n + 1}", "action": ACTIONS[n % 3], "value": 10 * (n + 1)}
        for n in range(entries)
    )
    add(client, "events", ((f"{FIRST_MS + n}-0", entry) for n, entry in enumerate(fields)))


def blocks(page: Path) -> Iterator[tuple[str, int]]:
    """Each example of a page, with the number of lines that come before it."""
    text = page.read_text(encoding="utf-8")
    of_a_kind = {found.start(2) for found in OF_A_KIND.finditer(text)}
    for found in BLOCK.finditer(text):
        if found.start(1) not in of_a_kind:
            yield found[1], text.count("\n", 0, found.start(1))


def at(url: str, source: str) -> str:
    """The example, on the server of the tests."""
    more = "&" if "?" in url else "?"
    return source.replace(f"{PRINTED_URL}?", url + more).replace(PRINTED_URL, url)


def run(page: Path, url: str) -> None:
    """Run a page's examples in their order, as a reader who types them one after another."""
    names: dict[str, Any] = {"__name__": page.stem}
    for source, before in blocks(page):
        # Empty lines in front, so that a traceback names the line of the page.
        code = compile("\n" * before + at(url, source), str(page), "exec")
        exec(code, names)


@pytest.mark.parametrize("page", [p for p in PAGES if any(blocks(p))], ids=lambda page: page.name)
@pytest.mark.usefixtures("events")
def test_examples_of_a_page_run(
    page: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some write files.
    monkeypatch.chdir(tmp_path)
    run(page, redis_url)


def test_there_are_examples_and_none_is_missed() -> None:
    counts = {page.name: len(list(blocks(page))) for page in PAGES}
    assert counts["README.md"] > 0
    named = (
        "reading.md",
        "types.md",
        "lazy.md",
        "many-streams.md",
        "iterating.md",
        "groups.md",
        "delivery.md",
        "watching.md",
        "pubsub.md",
        "writing.md",
        "analytics.md",
        "coming-from-redis-py.md",
    )
    for name in named:
        assert counts[name] > 0, name
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        # An indented fence, or another spelling of the language, would not be run.
        fences = re.findall(r"^\s*(?:```|~~~)\s*(?:py|python|pycon)\b", text, re.I | re.M)
        of_a_kind = len(OF_A_KIND.findall(text))
        assert len(fences) == counts[page.name] + of_a_kind, page.name
        # Others would be run by nobody.
        assert of_a_kind == 0 or page == CONNECTING, page.name


CONNECTING = ROOT / "docs" / "pages" / "connecting.md"
PASSWORD = "secret-of-the-docs"


class Kinds:
    """Makes a deployment of a kind; gives a client that writes to it, and its URL."""

    def __init__(self, stack: ExitStack, files: Files) -> None:
        self.stack = stack
        self.files = files

    def unix(self, make_server: Callable[..., Server]) -> tuple[redis.Redis, str]:
        server = make_server(unixsocket=True)
        return server.client(), f"{server.unix_url}?db=0"

    def tls(self, make_server: Callable[..., Server]) -> tuple[redis.Redis, str]:
        binary = tls_binary()
        if binary is None:
            pytest.skip("no redis-server here speaks TLS")
        deployment = Replicated(binary, replicas=0, password=PASSWORD, files=self.files)
        self.stack.enter_context(deployment)
        return deployment.master().client(), deployment.url()

    def sentinel(self, make_server: Callable[..., Server]) -> tuple[redis.Redis, str]:
        deployment = Sentinels(password=PASSWORD, sentinel_password=PASSWORD)
        self.stack.enter_context(deployment)
        return deployment.master().client(), deployment.url()

    def cluster(self, make_server: Callable[..., Server]) -> tuple[redis.Redis, str]:
        deployment = self.stack.enter_context(Cluster())
        client: Any = deployment.client()
        return client, deployment.url

    def replica(self, make_server: Callable[..., Server]) -> tuple[redis.Redis, str]:
        deployment = self.stack.enter_context(Replicated())
        return deployment.master().client(), deployment.url().partition("/0")[0]


@pytest.mark.skipif(sys.platform == "win32", reason="no redis-server for Windows")
@pytest.mark.parametrize("kind", [k for k, _ in OF_A_KIND.findall(CONNECTING.read_text("utf-8"))])
def test_examples_of_each_kind_of_server_run(
    kind: str, tmp_path: Path, make_server: Callable[..., Server]
) -> None:
    examples = dict(OF_A_KIND.findall(CONNECTING.read_text("utf-8")))
    with ExitStack() as stack:
        client, url = getattr(Kinds(stack, Files(tmp_path)), kind)(make_server)
        fill(client, 200)
        (printed,) = URL_OF_A_KIND.findall(examples[kind])
        # What is printed differs from what is run only in where it is and who we are there.
        assert shape_of(printed) == shape_of(url)
        names: dict[str, Any] = {}
        exec(examples[kind].replace(printed, url), names)
        assert names["df"].height == 100


def shape_of(url: str) -> tuple[str, bool, set[str]]:
    """The scheme of a URL, whether it has a password, and the names of its parameters."""
    parts = urlsplit(url)
    return parts.scheme, "@" in parts.netloc, set(parse_qs(parts.query))


@pytest.mark.parametrize("name", [name for name in polars_redis.__all__ if name != "__version__"])
@pytest.mark.usefixtures("ten_events")
def test_examples_of_a_docstring_print_what_they_say(name: str, redis_url: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    examples = 0
    # Those of a class's methods come one after another, on the stream that its own leave.
    for test in doctest.DocTestFinder().find(getattr(polars_redis, name), name):
        for example in test.examples:
            example.source = at(redis_url, example.source)
        assert runner.run(test, clear_globs=True).failed == 0
        examples += len(test.examples)
    assert examples or name in WITHOUT_EXAMPLES
