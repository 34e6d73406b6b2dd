"""The page of the analytics example: sums of sensors as charts, in one HTML file.

The file needs nothing from elsewhere: its style is in it, the charts are SVG, and it follows the
reader's choice of light or dark. A sensor has a chart of its own, all on the same scales, so that
they can be compared; the numbers are also there as a table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

WIDTH, HEIGHT = 320, 150
#: What is left of a chart for its scales.
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 8, 20
#: About how many lines of a scale there are.
STEPS = 4

STYLE = """
:root { color-scheme: light dark; --page: #f9f9f7; --card: #fcfcfb; --ink: #0b0b0b; --quiet: #52514e;
  --line: #e1e0d9; --edge: rgba(11, 11, 11, 0.1); --series: #2a78d6; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d0d0d; --card: #1a1a19; --ink: #ffffff; --quiet: #c3c2b7;
    --line: #2c2c2a; --edge: rgba(255, 255, 255, 0.1); --series: #3987e5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px; background: var(--page); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; }
h2 { font-size: 15px; margin: 32px 0 2px; }
p { margin: 0 0 12px; color: var(--quiet); }
.grid { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.tiles { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); margin-top: 16px; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 12px; }
.tiles + p { margin-top: 8px; }
.card h3 { display: flex; justify-content: space-between; font-size: 13px; margin: 0 0 6px; }
.card h3 span, dt { color: var(--quiet); font-weight: normal; }
dl, dd { margin: 0; }
dd { font-size: 24px; font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--quiet); font-size: 10px; font-variant-numeric: tabular-nums; }
.rule { stroke: var(--line); }
.band { fill: var(--series); opacity: 0.18; }
.mean { fill: none; stroke: var(--series); stroke-width: 2; stroke-linejoin: round; }
.spot { fill: transparent; }
.spot:hover { fill: var(--ink); opacity: 0.12; }
.bar { display: grid; grid-template-columns: 90px 1fr 90px; gap: 8px; align-items: center; }
.bar i { display: block; height: 14px; border-radius: 0 4px 4px 0; background: var(--series); }
.bar b { font-weight: normal; font-variant-numeric: tabular-nums; }
details { margin-top: 32px; }
summary { cursor: pointer; color: var(--quiet); }
table { border-collapse: collapse; margin-top: 8px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: normal; }
th:first-child, td:first-child { text-align: left; }
"""


def page(
    sums: pl.DataFrame, window_ms: int, entries: Mapping[str, int], delays_ms: Sequence[int]
) -> str:
    """The page, whole.

    Parameters
    ----------
    sums
        For each window and sensor the count, the total, the lowest and the highest value.
    window_ms
        How long a window is.
    entries
        How many entries each worker took.
    delays_ms
        How old the oldest entry of each batch was when its sums were written.
    """
    rows = sums.with_columns(mean=pl.col("total") / pl.col("count"))
    scales = Scales.of(rows, window_ms)
    # By their length first, so that sensor-2 is before sensor-10.
    sensors = sorted(rows["sensor_id"].unique(), key=lambda name: (len(name), name))
    panels = (panel(name, rows.filter(sensor_id=name), scales) for name in sensors)
    bars = (bar(name, count, max(entries.values(), default=0)) for name, count in entries.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sensors</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Sensors</h1>
<p>Added up from a Redis stream as it was written, by {len(entries)} workers of a group.</p>
<dl class="grid tiles">{"".join(tiles(rows, scales, delays_ms))}</dl>
<p>The delay of a batch is the age of its oldest entry when its sums were written.</p>
<h2>What was measured</h2>
<p>The mean of each {window_ms} ms, and from the lowest to the highest; all on the same scales.</p>
<div class="grid">{"".join(panels)}</div>
<h2>Who added it up</h2>
<p>Entries that each worker took.</p>
<div class="card">{"".join(bars)}</div>
<details><summary>The numbers of each sensor</summary>{table(rows, sensors)}</details>
</body>
</html>
"""


@dataclass(frozen=True)
class Scales:
    """From windows and values to places in a chart, the same in all of them."""

    first: int
    last: int
    window_ms: int
    low: float
    high: float
    step: float

    @staticmethod
    def of(rows: pl.DataFrame, window_ms: int) -> Scales:
        """Make them so that all fits."""
        if rows.is_empty():
            return Scales(0, 0, window_ms, 0.0, 1.0, 1.0)
        first, last, low, high = rows.select(
            pl.col("window").min(),
            pl.col("window").max().alias("last"),
            pl.col("low").min(),
            pl.col("high").max(),
        ).row(0)
        step = round_step((high - low) / STEPS)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        return Scales(first, last, window_ms, low, high, step)

    @property
    def seconds(self) -> float:
        """How long all windows are together."""
        return (self.last - self.first + self.window_ms) / 1000

    def x(self, window: int) -> float:
        """Where a window begins."""
        share = (window - self.first) / (self.seconds * 1000)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def middle(self, window: int) -> float:
        """Where the middle of a window is."""
        return round((self.x(window) + self.x(window + self.window_ms)) / 2, 1)

    def y(self, value: float) -> float:
        """Where a value is."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def values(self) -> list[float]:
        """The values that have a line."""
        return [
            self.low + n * self.step for n in range(round((self.high - self.low) / self.step) + 1)
        ]


def round_step(about: float) -> float:
    """A step near the one wanted that people count in."""
    power = 10.0 ** math.floor(math.log10(about or 1.0))
    return power * next(digit for digit in (1, 2, 5, 10) if digit * power >= about)


def tiles(rows: pl.DataFrame, scales: Scales, delays_ms: Sequence[int]) -> Iterator[str]:
    """What there is to say in a number."""
    count = int(rows["count"].sum())
    facts = {
        "measurements": f"{count:,}",
        "a second": f"{count / scales.seconds:,.0f}",
        "batches": f"{len(delays_ms):,}",
        "median delay": f"{median(delays_ms or [0]):.0f} ms",
        "longest delay": f"{max(delays_ms, default=0)} ms",
    }
    for name, fact in facts.items():
        yield f'<div class="card"><dt>{name}</dt><dd>{fact}</dd></div>'


def panel(sensor: str, rows: pl.DataFrame, scales: Scales) -> str:
    """The chart of one sensor."""
    mean = path((scales.middle(row["window"]), scales.y(row["mean"])) for row in dicts(rows))
    above = [(scales.middle(row["window"]), scales.y(row["high"])) for row in dicts(rows)]
    below = [(scales.middle(row["window"]), scales.y(row["low"])) for row in dicts(rows)]
    last = rows["mean"][-1]
    return f"""
<div class="card"><h3>{escape(sensor)} <span>{last:.1f} in the end</span></h3>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(sensor)} over time">
{"".join(axes(scales))}
<path class="band" d="{path([*above, *reversed(below)])}Z"/>
<path class="mean" d="{mean}"/>
{"".join(spots(rows, scales))}
</svg></div>"""


def dicts(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows by the names of their columns."""
    return rows.iter_rows(named=True)


def path(points: Iterable[tuple[float, float]]) -> str:
    """A line through points."""
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def axes(scales: Scales) -> Iterator[str]:
    """The lines of the values, and how long it took."""
    for value in scales.values():
        y = scales.y(value)
        yield f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    bottom = HEIGHT - 5
    yield f'<text x="{LEFT}" y="{bottom}">0 s</text>'
    end = f"{scales.seconds:.1f} s"
    yield f'<text x="{WIDTH - RIGHT}" y="{bottom}" text-anchor="end">{end}</text>'


def spots(rows: pl.DataFrame, scales: Scales) -> Iterator[str]:
    """What is told of a window where the pointer is."""
    for row in dicts(rows):
        begin, end = scales.x(row["window"]), scales.x(row["window"] + scales.window_ms)
        told = (
            f"{(row['window'] - scales.first) / 1000:.2f} s: mean {row['mean']:.2f}, "
            f"{row['low']:.2f} to {row['high']:.2f}, {row['count']} measurements"
        )
        yield (
            f'<rect class="spot" x="{begin}" y="{TOP}" width="{end - begin:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>{told}</title></rect>'
        )


def bar(name: str, count: int, longest: int) -> str:
    """One bar, with its name and its number."""
    width = 100 * count / (longest or 1)
    return (
        f'<div class="bar"><span>{escape(name)}</span>'
        f'<i style="width: {width:.1f}%"></i><b>{count:,}</b></div>'
    )


def table(rows: pl.DataFrame, sensors: Sequence[str]) -> str:
    """The numbers themselves."""
    of_all = rows.group_by("sensor_id").agg(
        pl.col("count", "total").sum(), pl.col("low").min(), pl.col("high").max()
    )
    lines = ["<tr><th>sensor</th><th>count</th><th>mean</th><th>lowest</th><th>highest</th></tr>"]
    for sensor in sensors:
        _, count, total, low, high = of_all.row(by_predicate=pl.col("sensor_id") == sensor)
        cells = (escape(sensor), f"{count:,}", *(f"{n:.2f}" for n in (total / count, low, high)))
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"
