"""Many streams: ``read_streams`` beside the bare socket and redis-py, and the shards of a cluster.

Prints a Markdown table a section: what was measured, the goal, and whether it was met. Only the
ratios mean something from one machine to the next. ``--quick`` shows that it runs.
"""

from __future__ import annotations

from functools import partial

from common import arguments, binaries, compared, fill, interleave, measure, middle, table
from embedded_redis import Binary, EmbeddedRedis
from streamers import EACH, cluster_keys, keys
from support.topologies import Cluster

SCRIPT = "streamers.py"
PREFIX = "many"


def section_small(binary: Binary, entries: int, rounds: int) -> None:
    """Streams of a hundred entries each."""
    with EmbeddedRedis(binary) as server:
        for key in keys(PREFIX, entries):
            fill(server, EACH, key)
        once = partial(measure, server, amount=entries, script=SCRIPT, stream=PREFIX)
        results = interleave(["bare", "ours", "by hand"], rounds, once)
    ours = "read_streams / bare socket, the same requests"
    rows = [
        compared(results, "ours", "bare", ours, 1.3, most=True),
        compared(results, "by hand", "ours", "redis-py / read_streams", 10, most=False),
    ]
    peak = middle(results["ours"], "peak")
    frame = middle(results["ours"], "frame")
    title = f"{entries // EACH:,} streams of {EACH} entries; peak {peak:.0f} MiB, frame {frame:.0f}"
    table(title, rows)


def section_cluster(binary: Binary, entries: int, rounds: int) -> None:
    """A few long streams on three servers."""
    streams = cluster_keys(PREFIX)
    each = entries // len(streams)
    with Cluster(binary) as cluster:
        for key in streams:
            fill(cluster.node_of(key), each, key)
        amount = each * len(streams)
        node = cluster.nodes[0]
        once = partial(measure, node, amount=amount, script=SCRIPT, stream=PREFIX)
        results = interleave(["at once", "one by one"], rounds, once)
    what = "one shard after another / all at once"
    row = compared(results, "one by one", "at once", what, 1.5, most=False)
    table(f"{len(streams)} streams of {each:,} entries, cluster of 3", [row])


def main() -> None:
    """Run the sections asked for."""
    sections = {"small": section_small, "cluster": section_cluster}
    wanted = arguments(__doc__, tuple(sections))
    for binary in binaries(wanted.servers):
        for name, section in sections.items():
            if name in wanted.only:
                section(binary, wanted.entries, wanted.rounds)


if __name__ == "__main__":
    main()
