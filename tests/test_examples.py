"""The example programs do what they say, in quick form, as processes of their own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import redis

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DEADLINE = 100


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # Unbuffered, so that what it prints can be waited for.
        [sys.executable, "-u", EXAMPLES / name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """What a program printed that is to end well by itself."""
    try:
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        # Where it did end, this does nothing; its server and its workers end with it.
        process.kill()
    assert process.returncode == 0, f"{out}\n{err}"
    assert "Traceback" not in err
    return out


def number_after(word: str, out: str) -> int:
    found = re.search(rf"^{word}:?\s+([\d,]+)", out, re.MULTILINE)
    assert found is not None, out
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("name", ["worker_pool.py", "async_service.py", "analytics.py"])
def test_help_says_what_an_example_is_and_takes(name: str) -> None:
    out = ended(start(name, "--help"))
    assert "usage:" in out
    assert "default" in out


@pytest.mark.usefixtures("own_servers")
def test_a_pool_whose_workers_are_killed_loses_nothing() -> None:
    out = ended(start("worker_pool.py", "--entries", "10000", "--workers", "2", "--kills", "3"))
    assert number_after("processed", out) == 10_000
    times = [number_after(word, out) for word in ("once", "twice", "more often")]
    assert sum(times) == 10_000
    assert number_after("lost", out) == 0
    assert number_after("pending", out) == 0
    assert out.count("killed worker-") > 0


def assert_nothing_left_over(out: str) -> None:
    stopped = re.search(r"^stopped: ([\d,]+) measurements in .* of ([\d,]+) that", out, re.M)
    assert stopped is not None, out
    assert stopped[1] == stopped[2] != "0"
    assert number_after("pending", out) == 0


@pytest.mark.usefixtures("own_servers")
def test_a_service_stops_with_nothing_left_over() -> None:
    out = ended(start("async_service.py", "--producers", "3", "--seconds", "0.5"))
    assert_nothing_left_over(out)


@pytest.mark.usefixtures("own_servers")
@pytest.mark.skipif(sys.platform == "win32", reason="asyncio takes no signals there")
def test_a_service_that_is_interrupted_stops_with_nothing_left_over() -> None:
    process = start("async_service.py", "--seconds", "1000")
    assert process.stdout is not None
    while "measurements in" not in (line := process.stdout.readline()):
        assert line, "it ended too early"
    process.send_signal(signal.SIGINT)
    assert_nothing_left_over(ended(process))


@pytest.mark.usefixtures("own_servers")
def test_analytics_add_up_all_and_draw_it_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "analytics.html"
    options = ("--producers", "2", "--workers", "3", "--seconds", "1", "--out", str(path))
    out = ended(start("analytics.py", *options))
    written = number_after("written", out)
    assert written > 0
    assert number_after("added up", out) == written
    assert number_after("pending", out) == 0
    page = path.read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "prefers-color-scheme: dark" in page
    # Nothing is fetched from anywhere.
    assert re.search(r"https?:|//|src=|href=|url\(|@import", page) is None
    counts = re.findall(r"<tr><td>sensor-\d+</td><td>([\d,]+)</td>", page)
    assert len(counts) == 4
    assert sum(int(count.replace(",", "")) for count in counts) == written
    of_workers = re.findall(r"worker-\d</span>.*?<b>([\d,]+)</b>", page)
    assert sum(int(count.replace(",", "")) for count in of_workers) == written
    assert "NaN" not in page


def test_analytics_leave_nothing_on_a_server_that_is_given(
    client: redis.Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    path = tmp_path / "analytics.html"
    out = ended(start("analytics.py", "--seconds", "0.2", "--out", str(path)))
    assert number_after("added up", out) == number_after("written", out)
    assert path.exists()
    assert client.keys() == []
