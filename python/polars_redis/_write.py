"""What the functions that write frames have in common: taking the frame, and its rows in turn."""

from __future__ import annotations

import asyncio
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import polars as pl

from polars_redis._progress import Bar, check
from polars_redis.exceptions import PolarsRedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from polars_redis import _core

Frame: TypeAlias = "pl.DataFrame | pl.LazyFrame"
"""What is written: a frame, or the query for one, which is written as the engine gives it."""

Nulls: TypeAlias = Literal["skip", "empty", "raise"]
"""What becomes of a null."""


_MOST_ROWS = 2**32
"""Rows of a batch at the most: more than are ever at hand."""


class Rows:
    """The rows of a frame, a few at a time, in dtypes that the core takes.

    Parameters
    ----------
    frame
        The frame, or the query for one.
    batch_size
        How many rows are handed to the core at a time.
    progress
        Whether a bar shows how many were handed over.
    """

    def __init__(self, frame: Frame, batch_size: int, *, progress: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool):
            msg = f"batch_size: expected int, got {type(batch_size).__name__}"
            raise TypeError(msg)
        if batch_size < 1:
            msg = f"batch_size: expected at least 1, got {batch_size}"
            raise ValueError(msg)
        self._frame = frame
        check(progress)
        self._batch_size = min(batch_size, _MOST_ROWS)
        self._progress = progress
        self._without_nulls: list[str] = []
        schema = frame.collect_schema()
        self.names = schema.names()
        plain = {name: _plain(name, dtype) for name, dtype in schema.items()}
        self._casts = {name: to for name, to in plain.items() if to != schema[name]}

    def refuse_nulls(self, columns: list[str]) -> None:
        """Have a null in one of these columns be an error."""
        self._without_nulls = columns

    def check(self, writer: _core.RowWriter) -> None:
        """Look at all rows of a frame that is there, before any is sent.

        The frames of a query are looked at one after another, before their rows are.
        """
        if not isinstance(self._frame, pl.DataFrame):
            return
        _refuse_nulls(self._frame.select(self._without_nulls), 0)
        if writer.expect(self._frame.height):
            for first, batch in self._batches():
                writer.check(self._prepared(batch), first)

    def batches(self) -> Generator[tuple[int, pl.DataFrame], None, None]:
        """Give some rows after the other, with the number of the first of them."""
        with self._shown() as show:
            for first, batch in self._batches():
                _refuse_nulls(batch.select(self._without_nulls), first)
                yield first, self._prepared(batch)
                show(first + batch.height)

    @contextmanager
    def _shown(self) -> Iterator[Callable[[int], object]]:
        """Give what shows how many rows are done with, if that is wanted."""
        if not self._progress:
            yield lambda rows: None
            return
        expected = self._frame.height if isinstance(self._frame, pl.DataFrame) else None
        bar = Bar("writing", "rows")
        try:
            yield lambda rows: bar.show(rows, expected)
        finally:
            bar.close()

    async def next_of(
        self, batches: Iterator[tuple[int, pl.DataFrame]]
    ) -> tuple[int, pl.DataFrame] | None:
        """Give the next of the batches; None after the last."""
        if isinstance(self._frame, pl.DataFrame):
            return next(batches, None)
        # The engine takes its time.
        return await asyncio.to_thread(next, batches, None)

    def _batches(self) -> Iterator[tuple[int, pl.DataFrame]]:
        first = 0
        for frame in _frames(self._frame, self._batch_size):
            for batch in frame.iter_slices(self._batch_size):
                yield first, batch
                first += batch.height

    def _prepared(self, batch: pl.DataFrame) -> pl.DataFrame:
        if self._casts:
            batch = batch.with_columns(pl.col(name).cast(to) for name, to in self._casts.items())
        else:
            batch = batch.clone()
        # Not every name passes through C.
        batch.columns = [str(at) for at in range(batch.width)]
        return batch


def _frames(frame: Frame, batch_size: int) -> Iterator[pl.DataFrame]:
    if isinstance(frame, pl.DataFrame):
        yield frame
    elif hasattr(frame, "collect_batches"):
        yield from frame.collect_batches(
            chunk_size=batch_size, maintain_order=True, engine="streaming"
        )
    else:
        # Older versions of Polars give all of it at once.
        yield frame.collect(engine="streaming")


def _plain(name: str, dtype: Any) -> Any:
    """Give the dtype that holds the same texts and passes through C."""
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return pl.String()
    if isinstance(dtype, pl.Array) and dtype.size > 0:
        return pl.Array(_plain(name, dtype.inner), dtype.size)
    if isinstance(dtype, (pl.List, pl.Array)):
        # Of arrays of no values C is not told how many they are.
        return pl.List(_plain(name, dtype.inner))
    if isinstance(dtype, pl.Struct):
        if any("\0" in field.name for field in dtype.fields):
            msg = f"column {name!r}: a field of a struct whose name has a zero byte is not written"
            raise ValueError(msg)
        return pl.Struct({field.name: _plain(name, field.dtype) for field in dtype.fields})
    if str(dtype) == "Float16":
        return pl.Float32()
    if isinstance(dtype, (pl.Object, pl.Unknown)):
        msg = f"column {name!r}: {dtype} has no text to write"
        raise ValueError(msg)
    return dtype


def _refuse_nulls(frame: pl.DataFrame, first_row: int) -> None:
    counts = frame.null_count()
    found = [name for name in frame.columns if counts[name][0]]
    if not found:
        return
    rows = [(frame[name].is_null().arg_max() or 0, name) for name in found]
    row, name = min(rows, key=lambda at: at[0])
    msg = f"df: the column {name!r} is null in row {first_row + row}"
    raise ValueError(msg)


def in_order(url: str | Frame, df: Frame | str) -> tuple[str, Frame]:
    """Tell the URL from the frame: either may come first."""
    if isinstance(url, (pl.DataFrame, pl.LazyFrame)):
        url, df = df, url
    if not isinstance(url, str):
        msg = f"url: expected str, got {type(url).__name__}"
        raise TypeError(msg)
    if not isinstance(df, (pl.DataFrame, pl.LazyFrame)):
        msg = f"df: expected a DataFrame or a LazyFrame, got {type(df).__name__}"
        raise TypeError(msg)
    return url, df


def write(rows: Rows, writer: _core.RowWriter) -> None:
    """Write all rows."""
    rows.check(writer)
    with _reporting(writer), closing(rows.batches()) as batches:
        try:
            for first, batch in batches:
                with _of_the_line():
                    writer.write(batch, first)
        except _LineError as error:
            raise error.cause from None
        except Exception:
            # The line is well: what was sent is waited for, as far as it comes.
            with suppress(PolarsRedisError):
                writer.finish()
            raise
        writer.finish()


async def write_async(rows: Rows, writer: _core.RowWriter) -> None:
    """Write all rows, while others run."""
    rows.check(writer)
    with _reporting(writer):
        batches = rows.batches()
        try:
            while (batch := await rows.next_of(batches)) is not None:
                with _of_the_line():
                    await writer.write_async(batch[1], batch[0])
        except _LineError as error:
            raise error.cause from None
        except Exception:
            # As above. Whoever cancels does not want to wait.
            with suppress(PolarsRedisError):
                await writer.finish_async()
            raise
        await writer.finish_async()


class _LineError(Exception):
    """An error of the servers or of the way to them, not of what is to be written."""

    def __init__(self, cause: PolarsRedisError) -> None:
        super().__init__(cause)
        self.cause = cause


@contextmanager
def _of_the_line() -> Iterator[None]:
    try:
        yield
    except PolarsRedisError as error:
        raise _LineError(error) from None


@contextmanager
def _reporting(writer: _core.RowWriter) -> Iterator[None]:
    """Have whatever is raised tell what became of the rows."""
    try:
        yield
    except BaseException as error:
        summary = writer.report(error)
        if summary not in str(error) and hasattr(error, "add_note"):
            error.add_note(summary)
        raise
