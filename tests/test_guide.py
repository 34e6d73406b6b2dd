"""The users' guide holds: each of its snippets runs as written, its tables say what is so.

Only the names that a snippet leaves to its reader are supplied, and its address is the test
server's. Loops that have no end of their own are left through these names, or as by Ctrl-C.
"""

from __future__ import annotations

import _thread
import ast
import inspect
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis
from support import guide
from support.iterators import meanwhile, named, once_blocked, wait_until
from support.streams import add

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

pytestmark = pytest.mark.skipif(
    not guide.PATH.is_file(),
    reason=f"the guide is not at {guide.PATH}; POLARS_REDIS_GUIDE says where it is",
)

#: The sections that have a snippet, each one; counted by hand.
WITH_SNIPPET = [
    "Reading Stream Entries",
    "Entry ID Parsing",
    "Reading with Count Limit",
    "Reading an ID Range",
    "Basic Consumer Group Usage",
    "Manual Acknowledgment",
    "Multiple Consumers",
    "Blocking Reads",
    "Synchronous Iterator",
    "With Consumer Group",
    "Async Iterator",
    "Lazy Scanning",
    "Real-Time Analytics Example",
]
#: The sections that have a table, with the number of its rows.
WITH_TABLE = {"read_stream()": 11, "iter_stream()": 2, "ack_entries()": 4}
#: What the guide leaves to its reader.
LEFT_OUT = {"log_error", "process", "process_async", "process_batch", "should_stop", "url"}
#: What the snippets import once, at the first.
IMPORTED = {"pl": pl, "redis": polars_redis}
PRINTED_URL = "redis://localhost"

FIRST_MS = 1_704_067_200_000
#: The entries up to the end of the guide's range; those after it share its millisecond.
IN_RANGE = 91
IDS = [
    *(f"{FIRST_MS + n}-0" for n in range(IN_RANGE - 1)),
    *(f"1704067300000-{n}" for n in range(10)),
]
LATER_ID = "1704067400000-0"
ACTIONS = ("click", "view")
#: What Polars shows in the head of a frame, and calls its dtypes elsewhere.
LONG_NAMES = {"str": "String", "i64": "Int64"}


class Stop(Exception):  # noqa: N818
    """Raised by what the guide leaves to its reader, to leave a loop that has no other end."""


def snippets() -> dict[str, guide.Snippet]:
    return {one.heading: one for section in guide.read() for one in section.snippets}


class Reader:
    """Somebody who types the guide's snippets, on the server of a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: What the last snippet has defined.
        self.names: dict[str, Any] = {}

    def run(self, heading: str, **left_out: Any) -> list[Any]:
        """Run the snippet of a section; what it assigned in its outermost block, in this order."""
        snippet = snippets()[heading]
        needed = snippet.left_out() - set(IMPORTED)
        supplied = {"url": self.url, **left_out} if "url" in needed else left_out
        assert needed == set(supplied)
        source = snippet.source.replace(PRINTED_URL, self.url)
        self.names = {"__name__": "guide", **IMPORTED, **supplied}
        assigned = []
        for statement in ast.parse(source).body:
            exec(compile(ast.Module([statement], []), heading, "exec"), self.names)
            if isinstance(statement, ast.Assign):
                assigned.append(self.names[ast.unparse(statement.targets[0])])
        return assigned


@pytest.fixture
def reader(client: redis.Redis, redis_url: str) -> Reader:
    """A reader of the guide, whose server has its stream of a hundred events."""
    entries = (
        (entry_id, {"user_id": f"user_{n + 1}", "action": ACTIONS[n % 2], "value": 10 * (n + 1)})
        for n, entry_id in enumerate(IDS)
    )
    add(client, "events", entries)
    return Reader(redis_url)


def add_later(client: redis.Redis) -> None:
    client.xadd("events", {"user_id": "user_101", "action": "purchase"}, id=LATER_ID)


def pending(client: redis.Redis, stream: str = "events", group: str = "analytics") -> int:
    found: Any = client.xpending(stream, group)
    return int(found["pending"])


def test_every_snippet_was_found() -> None:
    found = [one for section in guide.read() for one in section.snippets]
    assert [one.heading for one in found] == WITH_SNIPPET
    # The calls that somebody finds who does not look for snippets.
    calls = re.findall(r"\bredis\.[a-z_]+\(", guide.PATH.read_text(encoding="utf-8"))
    source = "\n".join(one.source for one in found)
    assert re.findall(r"\bredis\.[a-z_]+\(", source) == calls
    assert len(calls) == 17


def test_only_what_the_guide_leaves_out_is_supplied() -> None:
    left_out = {name for one in snippets().values() for name in one.left_out()}
    assert left_out - set(IMPORTED) == LEFT_OUT


# -- reading -----------------------------------------------------------------------


def table_in_comments(source: str) -> list[list[str]]:
    """The cells of the frame that a snippet shows below its code."""
    rows = re.findall(r"^# \| (.*) \|$", source, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def test_reading_all_entries_gives_what_is_printed(
    reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    (df,) = reader.run("Reading Stream Entries")
    assert dict(df.schema) == {
        "_id": pl.String,
        "_ts": pl.Int64,
        "user_id": pl.String,
        "action": pl.String,
        "value": pl.Int64,
    }
    assert df["_id"].to_list() == IDS
    source = snippets()["Reading Stream Entries"].source
    shape = f"shape: {df.shape}"
    assert shape in source
    assert capsys.readouterr().out.startswith(shape)
    names, _, dtypes, *rows = table_in_comments(source)
    assert df.columns == names
    assert [str(dtype) for dtype in df.dtypes] == [LONG_NAMES[dtype] for dtype in dtypes]
    assert len(rows) == 2
    for shown, row in zip(rows, df.rows(), strict=False):
        for cell, value in zip(shown, row, strict=True):
            beginning = cell.removesuffix("...")
            assert str(value).startswith(beginning)
            assert cell != beginning or str(value) == cell


def test_the_parts_of_an_entry_id(reader: Reader) -> None:
    (df,) = reader.run("Entry ID Parsing")
    assert df.columns == ["_id", "_ts", "_seq", "user_id", "action", "value"]
    assert df.dtypes == [pl.String, pl.Int64, pl.Int64, *[pl.String] * 3]
    assert df.select("_id", "_ts", "_seq").rows()[-1] == ("1704067300000-9", 1_704_067_300_000, 9)
    assert df["_id"].to_list() == IDS


def test_a_limit(reader: Reader, client: redis.Redis) -> None:
    add_later(client)
    (df,) = reader.run("Reading with Count Limit")
    assert df["_id"].to_list() == IDS
    assert df.columns == ["_id", "_ts", "user_id", "action", "value"]


def test_a_range_of_ids_with_both_its_ends_and_all(reader: Reader) -> None:
    ranged, everything = reader.run("Reading an ID Range")
    assert ranged["_id"].to_list() == IDS[:IN_RANGE]
    assert everything["_id"].to_list() == IDS
    assert everything.equals(polars_redis.read_stream(reader.url, stream="events"))


# -- consumer groups ---------------------------------------------------------------


def test_as_a_consumer_of_a_group(reader: Reader, client: redis.Redis) -> None:
    (df,) = reader.run("Basic Consumer Group Usage")
    assert df["_id"].to_list() == IDS
    assert pending(client) == 0
    add_later(client)
    (more,) = reader.run("Basic Consumer Group Usage")
    assert more["_id"].to_list() == [LATER_ID]


def test_acknowledging_by_hand(reader: Reader, client: redis.Redis) -> None:
    heading = "Manual Acknowledgment"
    waiting: list[int] = []

    def process(df: pl.DataFrame) -> None:
        waiting.append(pending(client))

    (df,) = reader.run(heading, process=process, log_error=pytest.fail)
    assert df["_id"].to_list() == IDS
    assert waiting == [len(IDS)]
    assert pending(client) == 0
    (nothing,) = reader.run(heading, process=process, log_error=pytest.fail)
    assert nothing.is_empty()


def test_what_failed_comes_again_to_another_consumer(reader: Reader, client: redis.Redis) -> None:
    errors: list[Exception] = []

    def process(df: pl.DataFrame) -> None:
        raise Stop

    reader.run("Manual Acknowledgment", process=process, log_error=errors.append)
    assert [type(error) for error in errors] == [Stop]
    assert pending(client) == len(IDS)
    # Not at once, as worker-1 might still be at work; five minutes later it has given up.
    _, of_worker_2 = reader.run("Multiple Consumers")
    assert of_worker_2.is_empty()
    client.xclaim("events", "analytics", "worker-1", 0, IDS, idle=300_000, justid=True)
    again = polars_redis.read_stream(reader.url, "events", group="analytics", consumer="worker-2")
    assert again["_id"].to_list() == IDS


def test_several_consumers_share_the_entries(reader: Reader, client: redis.Redis) -> None:
    more = [f"1704067300001-{n}" for n in range(50)]
    add(client, "events", ((entry_id, {"action": "click"}) for entry_id in more))
    df1, df2 = reader.run("Multiple Consumers")
    assert df1["_id"].to_list() == IDS
    assert df2["_id"].to_list() == more
    assert pending(client) == 0


# -- waiting for entries -----------------------------------------------------------


def test_a_read_that_waits_for_new_entries(reader: Reader, client: redis.Redis) -> None:
    reader.url = named(reader.url, "waiting")
    with once_blocked(client, "waiting", lambda: add_later(client)):
        (df,) = reader.run("Blocking Reads")
    assert df["_id"].to_list() == [LATER_ID]
    assert df["user_id"].to_list() == ["user_101"]


# -- iterators ---------------------------------------------------------------------


def test_an_iterator(
    reader: Reader, client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    counts: list[Any] = []

    def should_stop() -> bool:
        seen.extend(reader.names["batch_df"]["_id"])
        counts.append(reader.names["summary"].sort("action").rows())
        if len(seen) == len(IDS):
            add_later(client)
        return len(seen) > len(IDS)

    reader.run("Synchronous Iterator", should_stop=should_stop)
    assert seen == [*IDS, LATER_ID]
    assert counts == [[("click", 50), ("view", 50)], [("purchase", 1)]]
    assert capsys.readouterr().out == "Batch: 100 entries\nBatch: 1 entries\n"


def test_an_iterator_of_a_group(reader: Reader, client: redis.Redis) -> None:
    seen: list[str] = []
    waiting: list[int] = []

    def process_batch(batch_df: pl.DataFrame) -> None:
        seen.extend(batch_df["_id"])
        waiting.append(pending(client))
        if len(seen) > len(IDS):
            raise Stop
        add_later(client)

    with pytest.raises(Stop):
        reader.run("With Consumer Group", process_batch=process_batch)
    assert seen == [*IDS, LATER_ID]
    # Acknowledged before they are handed over.
    assert waiting == [0, 0]


def test_an_asynchronous_iterator(reader: Reader, client: redis.Redis) -> None:
    seen: list[str] = []

    async def process_async(batch_df: pl.DataFrame) -> None:
        seen.extend(batch_df["_id"])

    def should_stop() -> bool:
        if len(seen) == len(IDS):
            add_later(client)
        return len(seen) > len(IDS)

    reader.run("Async Iterator", process_async=process_async, should_stop=should_stop)
    assert seen == [*IDS, LATER_ID]


# -- scanning ----------------------------------------------------------------------


def test_a_lazy_scan(reader: Reader) -> None:
    lazy, result = reader.run("Lazy Scanning")
    assert isinstance(lazy, pl.LazyFrame)
    assert dict(lazy.collect_schema()) == {
        "_id": pl.String,
        "_ts": pl.Int64,
        "action": pl.String,
        "value": pl.Float64,
    }
    assert dict(result.schema) == {"action": pl.String, "value": pl.Float64}
    # Of the values 110 to 1000 every second one is a click's, and every other a view's.
    assert sorted(result.rows()) == [("click", 550.0), ("view", 560.0)]


def test_what_lazy_frames_do_not_do() -> None:
    assert {"group", "consumer", "block_ms"}.isdisjoint(parameters("scan_stream"))


# -- the example -------------------------------------------------------------------


@contextmanager
def interrupted_after(act: Callable[[], object]) -> Iterator[None]:
    """Interrupt this thread, as Ctrl-C would, when something was done in another one."""
    over = threading.Event()

    def act_and_interrupt() -> None:
        try:
            act()
        finally:
            if not over.is_set():
                _thread.interrupt_main()

    with meanwhile(act_and_interrupt):
        try:
            with pytest.raises(KeyboardInterrupt):
                yield
        finally:
            over.set()


def test_the_example_keeps_the_last_batch_of_each_sensor(
    reader: Reader, client: redis.Redis
) -> None:
    first: dict[str, Any] = {}

    def measure(ms: int, entries: int, sensors: int) -> None:
        # In one transaction, so that they are in one batch.
        with client.pipeline() as together:
            for n in range(entries):
                row = {"sensor_id": f"s{n % sensors}", "value": n / 2}
                together.xadd("metrics", row, id=f"{ms}-{n}")
            together.execute()

    def hashes() -> dict[str, Any]:
        return {key.decode(): client.hgetall(key) for key in client.keys("sensor:stats:*")}

    def count_of(sensor: str) -> bytes | None:
        return client.hget(f"sensor:stats:{sensor}", "count")

    def measure_more() -> None:
        wait_until(lambda: len(hashes()) == 10, what="the first batch")
        first.update(hashes())
        measure(FIRST_MS + 1, 4, 2)
        wait_until(lambda: count_of("s0") == count_of("s1") == b"2", what="the second batch")

    # As many as a batch holds.
    measure(FIRST_MS, 1000, 10)
    with interrupted_after(measure_more):
        reader.run("Real-Time Analytics Example")
    assert first["sensor:stats:s9"] == {b"avg": b"252.0", b"max": b"499.5", b"count": b"100"}
    assert hashes() == {
        **first,
        "sensor:stats:s0": {b"avg": b"0.5", b"max": b"1.0", b"count": b"2"},
        "sensor:stats:s1": {b"avg": b"1.0", b"max": b"1.5", b"count": b"2"},
    }
    assert pending(client, "metrics", "aggregator") == 0


# -- the reference -----------------------------------------------------------------


def parameters(function: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(polars_redis, function)).parameters)


def described(section: str) -> list[dict[str, str]]:
    (found,) = (one for one in guide.read() if one.heading == section)
    return found.table()


def test_every_table_was_found() -> None:
    rows = {section.heading: len(section.table()) for section in guide.read()}
    assert {heading: count for heading, count in rows.items() if count} == WITH_TABLE


@pytest.mark.parametrize("section", WITH_TABLE)
def test_parameters_are_those_of_the_table(section: str) -> None:
    there = parameters(section.removesuffix("()"))
    for row in described(section):
        parameter = there[row["Parameter"]]
        default = row.get("Default", "required")
        if default == "required":
            assert parameter.default is parameter.empty
        else:
            assert parameter.default == ast.literal_eval(default)
            assert type(parameter.default) is type(ast.literal_eval(default))


@pytest.mark.parametrize("section", ["read_stream()", "ack_entries()"])
def test_arguments_by_position_are_in_the_order_of_the_table(section: str) -> None:
    names = [row["Parameter"] for row in described(section)]
    positional = [
        name
        for name, parameter in parameters(section.removesuffix("()")).items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == names


def test_iterators_take_what_read_stream_takes() -> None:
    own = {row["Parameter"] for row in described("iter_stream()")}
    there = parameters("iter_stream")
    for row in described("read_stream()"):
        name = row["Parameter"]
        assert name in there
        assert name in own or there[name].default == parameters("read_stream")[name].default


def test_the_asynchronous_iterator_takes_the_same() -> None:
    there = parameters("iter_stream_async")
    del there["batch_timeout_ms"]
    assert there == parameters("iter_stream")


def test_every_function_that_the_guide_names_is_there() -> None:
    named: set[str] = set()
    for section in guide.read():
        # Where the text has lost the space between them, an "and" is stuck to a name.
        text = "\n".join([section.heading, *section.prose])
        named.update(re.findall(r"(?:\band)?([a-z]+_\w+)\(\)", text))
        for snippet in section.snippets:
            named.update(re.findall(r"\bredis\.(\w+)\(", snippet.source))
    assert named == {
        "ack_entries",
        "iter_stream",
        "iter_stream_async",
        "read_stream",
        "read_streams",
        "scan_stream",
        "scan_streams",
        "write_hashes",
    }
    assert named <= set(polars_redis.__all__)
