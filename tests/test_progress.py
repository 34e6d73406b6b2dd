"""The bar of a read: what it shows, where, and that it costs nothing where nobody wants it."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import tqdm.auto
import tqdm.std

import polars_redis as redis
from polars_redis.exceptions import DecodeError, RedisConnectionError
from support.streams import add_numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from support.proxy import Proxy
    from support.servers import RemoteServer, Server

ENTRIES = 5000
#: Each way: a reply takes longer than the bar stands still.
SLOW = 120


class Bar(tqdm.std.tqdm):  # type: ignore[misc]
    """A bar that remembers what it showed."""

    made: list[Bar]
    #: What to do when it is shown for the n-th time.
    at: dict[int, Callable[[], object]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.shown: list[tuple[int, int | None]] = []
        self.is_closed = False
        type(self).made.append(self)
        super().__init__(*args, file=io.StringIO(), **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        self.shown.append((self.n, self.total))
        self.at.get(len(self.shown), lambda: None)()
        return super().refresh(*args, **kwargs)

    def close(self) -> None:
        self.is_closed = True
        super().close()


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars that are made."""
    Bar.made, Bar.at = [], {}
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return Bar.made


@pytest.fixture
def slow_url(
    server: RemoteServer | Server, make_proxy: Callable[..., Proxy], client: redis_py.Redis
) -> str:
    """The URL of a server at the end of a long line, with a stream of numbers."""
    add_numbered(client, "events", [f"{n}-0" for n in range(1, ENTRIES + 1)])
    return make_proxy(server, delay_ms=SLOW).rewrite(server.url)


def test_it_shows_how_many_of_how_many(slow_url: str, bars: list[Bar]) -> None:
    df = redis.read_stream(slow_url, "events", progress=True)
    assert df.equals(redis.read_stream(slow_url, "events"))
    (bar,) = bars
    assert bar.desc == "events"
    assert bar.is_closed
    counts = [n for n, _ in bar.shown]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert bar.shown[-1] == (ENTRIES, ENTRIES)
    # It was known how many there are before they were here.
    assert any(n < ENTRIES and total == ENTRIES for n, total in bar.shown)
    assert any(0 < n < ENTRIES for n in counts)
    # It has counted since the call began, not since it appeared.
    assert bar.format_dict["elapsed"] >= 2 * SLOW / 1000


@pytest.mark.parametrize(
    ("arguments", "height"),
    [
        ({"start_id": "1001", "end_id": "4000"}, 3000),
        ({"count": 2000}, 2000),
        ({"count": 1}, 1),
        ({"count": 2 * ENTRIES}, ENTRIES),
        ({"start_id": "4001", "end_id": "9000"}, 1000),
    ],
)
def test_a_part_is_estimated_and_ends_at_what_it_was(
    slow_url: str, bars: list[Bar], arguments: dict[str, Any], height: int
) -> None:
    df = redis.read_stream(slow_url, "events", progress=True, **arguments)
    assert df.height == height
    (bar,) = bars
    assert bar.shown[-1] == (height, height)
    assert any(total is not None and abs(total - height) <= 1 for _, total in bar.shown[:-1])


def test_more_than_was_thought_has_no_total_meanwhile(
    slow_url: str, client: redis_py.Redis, bars: list[Bar]
) -> None:
    # All but two within a second of a day: few are thought to be in that.
    second = [f"{n}-0" for n in range(40_000_000, 40_001_000)]
    add_numbered(client, "dense", ["1-0", *second, "86400000-0"])
    arguments = {"start_id": second[0], "end_id": second[-1]}
    df = redis.read_stream(slow_url, "dense", progress=True, **arguments)
    assert df.height == len(second)
    (bar,) = bars
    assert bar.shown[-1] == (len(second), len(second))
    assert any(0 < n < len(second) and total is None for n, total in bar.shown)


def test_fewer_than_were_wanted(slow_url: str, bars: list[Bar]) -> None:
    last = f"({ENTRIES - 1}"
    assert redis.read_stream(slow_url, "events", start_id=last, count=5, progress=True).height == 1
    assert redis.read_stream(slow_url, "missing", count=5, progress=True).is_empty()
    assert [bar.shown[-1] for bar in bars] == [(1, 1), (0, 0)]


def test_a_missing_stream_has_nothing_to_show_but_that(slow_url: str, bars: list[Bar]) -> None:
    assert redis.read_stream(slow_url, "missing", progress=True).is_empty()
    assert bars[0].shown[-1] == (0, 0)


def test_a_read_that_waits_or_has_a_group_tells_no_total(slow_url: str, bars: list[Bar]) -> None:
    df = redis.read_stream(slow_url, "events", group="g", consumer="c", progress=True)
    assert df.height == ENTRIES
    df = redis.read_stream(slow_url, "events", start_id="$", block_ms=1, progress=True)
    assert df.is_empty()
    of_group, of_wait = bars
    assert of_group.shown[-1] == (ENTRIES, None)
    assert any(0 < n < ENTRIES for n, _ in of_group.shown)
    assert of_wait.shown[-1] == (0, None)
    assert {total for bar in bars for _, total in bar.shown} == {None}
    assert all(bar.is_closed for bar in bars)


def test_many_streams_are_estimated_by_those_that_were_read(
    slow_url: str, client: redis_py.Redis, bars: list[Bar]
) -> None:
    for n in range(2000):
        client.xadd(f"small:{n:04}", {"n": n})
        client.xadd(f"small:{n:04}", {"n": n})
    df = redis.read_streams(slow_url, "small:*", progress=True)
    assert df.height == 4000
    (bar,) = bars
    assert bar.desc == "small:*"
    assert bar.is_closed
    assert bar.shown[-1] == (4000, 4000)
    assert any(0 < n < 4000 and total == 4000 for n, total in bar.shown)


def test_a_long_stream_among_many_counts_for_what_it_is(
    slow_url: str, client: redis_py.Redis, bars: list[Bar]
) -> None:
    client.xadd("eve", {"n": 0})
    df = redis.read_streams(slow_url, "eve*", progress=True)
    assert df.height == ENTRIES + 1
    (bar,) = bars
    assert bar.shown[-1] == (ENTRIES + 1, ENTRIES + 1)
    assert any(n <= ENTRIES and total == ENTRIES + 1 for n, total in bar.shown)


def test_a_quick_read_shows_that_it_is_done(
    redis_url: str, client: redis_py.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    add_numbered(client, "events", ["1-0", "2-0"])
    assert redis.read_stream(redis_url, "events", progress=True).height == 2
    told = capsys.readouterr()
    assert told.out == ""
    last = told.err.split("\r")[-1]
    assert "events: 100%" in last
    assert "2.00/2.00" in last
    assert last.endswith("\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"schema": {"n": int}, "strict": True}, DecodeError), ({}, RedisConnectionError)],
)
def test_it_is_closed_where_the_read_fails(
    server: RemoteServer | Server,
    make_proxy: Callable[..., Proxy],
    client: redis_py.Redis,
    bars: list[Bar],
    arguments: dict[str, Any],
    error: type[Exception],
) -> None:
    add_numbered(client, "events", ["1-0"])
    client.xadd("events", {"n": "many"}, "2-0")
    proxy = make_proxy(server, delay_ms=SLOW)
    url = proxy.rewrite(server.url)
    if error is RedisConnectionError:
        url = url.replace(f":{proxy.port}", ":1")
    with pytest.raises(error):
        redis.read_stream(url, "events", progress=True, **arguments)
    assert all(bar.is_closed for bar in bars)
    # Where nobody listens that may be known before there is anything to show.
    assert bars or error is RedisConnectionError


def raise_signal() -> None:
    signal.raise_signal(signal.SIGINT)


def fail() -> None:
    msg = "no more paper"
    raise OSError(msg)


@pytest.mark.parametrize(("deed", "error"), [(raise_signal, KeyboardInterrupt), (fail, OSError)])
def test_what_is_raised_meanwhile_ends_the_read_and_the_bar(
    slow_url: str, bars: list[Bar], deed: Callable[[], None], error: type[BaseException]
) -> None:
    Bar.at = {2: deed}
    with pytest.raises(error):
        redis.read_stream(slow_url, "events", progress=True)
    (bar,) = bars
    assert bar.is_closed
    assert len(bar.shown) == 2
    # The next one is none the worse.
    Bar.at = {}
    assert redis.read_stream(slow_url, "events", progress=True).height == ENTRIES


def test_a_wrong_argument_has_no_bar(slow_url: str, bars: list[Bar]) -> None:
    with pytest.raises(TypeError, match="progress: expected bool, got int"):
        redis.read_stream(slow_url, "events", progress=1)  # type: ignore[arg-type]
    with contextlib.suppress(TypeError):
        redis.read_stream(slow_url, "events", count="1", progress=True)  # type: ignore[arg-type]
    assert bars == []


def test_it_is_imported_by_those_who_want_it_only(redis_url: str, client: redis_py.Redis) -> None:
    add_numbered(client, "events", ["1-0"])
    program = (
        "import sys, polars_redis\n"
        "for progress in (False, True):\n"
        "    polars_redis.read_stream(sys.argv[1], 'events', progress=progress)\n"
        "    print('tqdm' in sys.modules)\n"
    )
    words = [sys.executable, "-c", program, redis_url]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["False", "True"]


def test_a_label_is_one_short_line(client: Any, redis_url: str, bars: list[Bar]) -> None:
    for key in ("a\r\n\x1b[2Jb", "k" * 300):
        client.xadd(key, {"n": 1})
        redis.read_stream(redis_url, key, progress=True)
        assert bars[-1].desc.removesuffix(": ").isprintable()
        assert len(bars[-1].desc) < 50


def test_where_there_is_no_terminal_at_all_it_is_read_all_the_same(
    client: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.xadd("s", {"n": 1})
    monkeypatch.setattr(sys, "stderr", None)
    assert redis.read_stream(redis_url, "s", progress=True).height == 1
