"""The columns of a chart that hold a number: what lines are drawn through and curves are judged by."""

from collections.abc import Iterable
from typing import NamedTuple

from engine.store.run_records import Column


class FiniteColumn(NamedTuple):
    """A column with at least one finite value; see `Column`."""

    x: float
    first_step: int
    last_step: int
    low: float
    high: float
    mean: float


def finite_column(column: Column) -> FiniteColumn | None:
    """None for a column of nothing but NaN."""
    if column.mean is None or column.low is None or column.high is None:
        return None
    return FiniteColumn(column.x, column.first_step, column.last_step, column.low, column.high, column.mean)


def finite_columns(columns: Iterable[Column]) -> list[FiniteColumn]:
    """Those that hold a number, in their order."""
    return [finite for column in columns if (finite := finite_column(column)) is not None]
