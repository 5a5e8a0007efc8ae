"""One JSON object that is a whole table -> its rows: a list for each column, or the rows as the object's values.

These are what `DataFrame.to_json` writes (orient columns, index, split), `Dataset.to_dict`, and many scripts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from engine.base.messages import msg
from engine.formats.columns import CONVERSATIONS, MESSAGES, normalise
from engine.formats.json_lines import Item
from engine.formats.list_values import holds_text
from engine.formats.row_errors import Remark, RowError, Section, excerpt
from engine.formats.split_names import part_of_name

IsRow = Callable[[Iterable[str]], bool]
_SCALARS = (str, int, float, bool, type(None))


class NumberedRow(dict):
    """A row of a table that is written by columns, where a line says nothing: known by its number, from 1."""

    number = 0


def is_table(row: dict[str, Any], is_row: IsRow) -> bool:
    return spread(1, row, {}, is_row) is not None


def spread(line: int, row: dict[str, Any], starts: dict[str, int], is_row: IsRow) -> Iterator[Item] | None:
    """The rows of the table that this object is; None when it is a row itself. `starts`: the line of each key."""
    values = list(row.values())
    if values and all(isinstance(value, dict) for value in values):
        if all(part_of_name(key) for key in row):
            return _parts(line, row, starts, is_row)
        rows = sum(is_row(value) for value in values)
        if rows * 2 > len(values):
            return ((starts.get(key, line), value) for key, value in row.items())
        if is_row(row) and len({tuple(value) for value in values}) == 1 and values[0]:
            # pandas: {"prompt": {"0": …, "1": …}, …}
            return _by_column(line, {column: list(value.values()) for column, value in row.items()})
        return None
    if isinstance(row.get("columns"), list) and isinstance(row.get("data"), list) and row.keys() <= _SPLIT_KEYS:
        return _split_table(line, row["columns"], row["data"])
    return _columns(line, row, is_row)


_SPLIT_KEYS = {"columns", "index", "data"}


def _parts(line: int, row: dict[str, Any], starts: dict[str, int], is_row: IsRow) -> Iterator[Item]:
    for key, value in row.items():
        yield Section(key)
        start = starts.get(key, line)
        yield from spread(start, value, {}, is_row) or [(start, value)]


def _split_table(line: int, columns: list, data: list) -> Iterator[Item] | None:
    if not all(isinstance(column, str) for column in columns) or not all(isinstance(row, list) for row in data):
        return None
    from engine.formats.delimited import column_names  # and csv, which other JSON does without

    return _numbered(line, data, column_names(columns))


def _columns(line: int, row: dict[str, Any], is_row: IsRow) -> Iterator[Item] | None:
    lists = {column: value for column, value in row.items() if isinstance(value, list)}
    beside = {column: value for column, value in row.items() if column not in lists}
    if len(lists) < 2 and not (len(lists) == 1 and is_row(lists)):
        return None
    if any(isinstance(value, dict) for value in beside.values()):
        return None
    has_known_names = is_row(lists)
    for column, values in lists.items():
        if normalise(column) in (*MESSAGES, *CONVERSATIONS):
            # A list of messages or of texts by turns is one conversation; a list of these is a column.
            if not values or not all(isinstance(value, list) for value in values):
                return None
        elif (not all(isinstance(value, _SCALARS) for value in values) and not has_known_names) or any(
            isinstance(value, dict) for value in values
        ):
            return None
    sizes = {column: len(values) for column, values in lists.items()}
    if max(sizes.values()) < 2:
        return None
    if len(set(sizes.values())) > 1:
        if not has_known_names:
            return None
        lengths = ", ".join(f"'{excerpt(column)}' has {size:,}" for column, size in sizes.items())
        message = msg("columns of different lengths: {lengths}", lengths=lengths)
        return iter([RowError(line, "wrong-columns", message, excerpt(row), rows=max(sizes.values()))])
    return _by_column(line, lists, [column for column, value in beside.items() if holds_text(value)])


def _by_column(line: int, columns: dict[str, list], beside: Iterable[str] = ()) -> Iterator[Item]:
    names = ", ".join(f"'{excerpt(name)}'" for name in beside)
    if names:
        yield Remark(msg("beside its columns the file holds {names}, from which nothing is learnt", names=names))
    yield from _numbered(line, zip(*columns.values(), strict=True), list(columns))


def _numbered(line: int, rows: Iterable[Sequence], columns: list[str]) -> Iterator[Item]:
    for number, cells in enumerate(rows, 1):
        if len(cells) != len(columns):
            message = msg(
                "row {number:,}: {cells:,} cells, {columns:,} columns",
                number=number,
                cells=len(cells),
                columns=len(columns),
            )
            yield RowError(line, "wrong-columns", message, excerpt(cells))
            continue
        row = NumberedRow(zip(columns, cells, strict=True))
        row.number = number
        yield line, row
