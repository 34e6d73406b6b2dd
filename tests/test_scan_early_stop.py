"""The streaming engine stops asking when it has enough: far from the end of a lot of entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import polars_redis as redis
from support.counting import Counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Server

STREAMS = 50
EACH = 10_000
SCHEMA = {"n": pl.Int64}

FILL = """
for n = 1, ARGV[1] do
    redis.call("XADD", KEYS[1], n .. "-0", "n", n)
end
"""


class Lots(Counting):
    """As many entries in one stream as in many others, beside the few batches that engines run ahead.

    Each batch is larger than the one before, up to 65,536 rows.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        fill = self.client.register_script(FILL)
        fill(keys=["long"], args=[STREAMS * EACH])
        for n in range(STREAMS):
            fill(keys=[f"s:{n:02}"], args=[EACH])

    def scan_stream(self) -> pl.LazyFrame:
        return redis.scan_stream(self.url, "long", SCHEMA)

    def scan_streams(self) -> pl.LazyFrame:
        return redis.scan_streams(self.url, "s:*", SCHEMA)


@pytest.fixture(scope="module")
def lots(request: pytest.FixtureRequest) -> Iterator[Lots]:
    request.getfixturevalue("own_servers")
    from support.servers import Server

    with Server() as server:
        yield Lots(server)


@pytest.mark.parametrize("scan", [Lots.scan_stream, Lots.scan_streams])
@pytest.mark.parametrize("before", ["filter", "slice"])
def test_the_streaming_engine_stops_early(
    lots: Lots, scan: Callable[[Lots], pl.LazyFrame], before: str
) -> None:
    def collected(lf: pl.LazyFrame) -> Any:
        with lots.counted() as counted:
            df = lf.collect(engine="streaming")
        return df, counted.sent

    lf = scan(lots)
    count, whole = collected(lf.select(pl.col("n").count()))
    assert count.item() == STREAMS * EACH
    few = lf.filter(pl.col("n") % 2 == 0).head(10) if before == "filter" else lf.slice(5, 10)
    df, sent = collected(few)
    assert df.height == 10
    assert sent < 0.5 * whole
