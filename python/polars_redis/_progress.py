"""A bar that shows how far a read or a write is, in a terminal or in a notebook."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

__all__ = ["Bar", "check", "watched"]

_LABEL = 40
"""Characters of a bar's label at the most."""


def watched(
    read: Callable[[Callable[[int, int | None], None] | None], pl.DataFrame],
    name: str,
    *,
    progress: bool,
) -> pl.DataFrame:
    """Read, and show how far that is if that is wanted.

    What reads calls what it is given from time to time, with the entries so far and
    about how many there will be.
    """
    check(progress)
    if not progress:
        return read(None)
    bar = Bar(name, "entries")
    try:
        df = read(bar.show)
        bar.end(df.height)
    finally:
        bar.close()
    return df


def check(progress: bool) -> None:
    """Raise where it is anything but true or false."""
    if not isinstance(progress, bool):
        msg = f"progress: expected bool, got {type(progress).__name__}"
        raise TypeError(msg)


def _label(name: str) -> str:
    """Give a key in one line, not too long, and without what a terminal would obey."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in name)
    return shown if len(shown) <= _LABEL else f"{shown[: _LABEL - 1]}…"


class Bar:
    """A bar that appears when there is something to show: a wrong argument has none.

    Parameters
    ----------
    name
        What stands in front of it.
    unit
        What it counts.
    """

    def __init__(self, name: str, unit: str) -> None:
        # Whoever wants no bar does not wait for it to be imported.
        from tqdm.auto import tqdm

        # Where there is nowhere to show it, what is read is not lost for that.
        self._make = partial(
            tqdm, desc=_label(name), unit=f" {unit}", unit_scale=True, disable=sys.stderr is None
        )
        self._begun = time.time()
        self._bar: Any = None
        self._expected: int | None = None

    def show(self, entries: int, expected: int | None) -> None:
        """Show so many entries of about as many as are expected."""
        self._expected = expected
        # Where there are more than was thought, nobody knows how many.
        total = expected if expected is None or entries <= expected else None
        if self._bar is None:
            self._bar = self._make(total=total)
        elif total is None:
            self._bar.total = None
        elif total != self._bar.total:
            # It begins anew, as a notebook's takes another total only then.
            self._bar.reset(total)
        self._bar.start_t = self._begun
        self._bar.n = entries
        self._bar.refresh()

    def end(self, entries: int) -> None:
        """Show that these are all."""
        self.show(entries, None if self._expected is None else entries)

    def close(self) -> None:
        """Leave it as it is."""
        if self._bar is not None:
            self._bar.close()
