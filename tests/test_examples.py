"""The example programs do what they say, in quick form, as processes of their own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["worker_pool.py", "async_service.py"])
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
