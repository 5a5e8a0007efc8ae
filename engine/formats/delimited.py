"""CSV and TSV -> (line, row), with the delimiter found by trying, and quotes that are never closed found and located.

The standard library parses, in strict mode. When a record does not parse, its first line is reported and reading
starts again on the line after it, so one lost quote costs one row and not the rest of the file.
"""

import csv
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from engine.base.messages import msg, msg_n
from engine.formats.json_lines import Item, Lines
from engine.formats.row_errors import RowError, excerpt

_LONGEST_RECORD_LINES = 50_000
"""A quoted field with more line breaks than this is taken for a quote that was never closed."""
_LONGEST_RECORD_CHARS = 64_000_000
_SAMPLE_LINES = 400
_ANNOUNCED = re.compile(r"\ufeff?sep=(.)\s*$", re.IGNORECASE)
_QUOTED_TSV_CELL = re.compile(r'(?:^|\t)"[^"\t]*"(?=[\t\r\n]|$)')
_LONGEST_NAME = 100
"""Characters in a column name; a longer one is a sentence, and the file is no table."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How this table is written."""

    delimiter: str
    space_after: bool = False
    """A space follows each delimiter."""
    backslash: bool = False
    """A quote inside a field is written \\" and not doubled."""
    quoted: bool = True
    """Quotes mean something; in many TSV files they are just characters."""
    announced: bool = False
    """The first line says the delimiter and nothing else: 'sep=;', as Excel wants it."""

    def reader(self, lines: Iterable[str]):
        # The limit is global to the csv module; the default of 131,072 characters refuses long documents.
        csv.field_size_limit(sys.maxsize)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            skipinitialspace=self.space_after,
            doublequote=not self.backslash,
            escapechar="\\" if self.backslash else None,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            strict=True,
        )


def find_dialect(lines: Sequence[str], delimiters: str = ",\t;|") -> tuple[Dialect, list[str], float] | None:
    """The dialect in which the most records have as many cells as the header, its column names, and that share."""
    sample = [(number, line, None) for number, line in enumerate(islice(lines, _SAMPLE_LINES), 1)]
    announced = _ANNOUNCED.match(lines[0]) if lines else None
    if announced:
        below = find_dialect(lines[1:], announced[1])
        if below:
            return replace(below[0], announced=True), *below[1:]
        header = read_header(((1, line, None) for line in lines[1:]), Dialect(announced[1]))
        return (Dialect(announced[1], announced=True), header, 1.0) if header else None
    best: tuple[tuple, Dialect, list[str], float] | None = None
    for order, delimiter in enumerate(delimiters):
        if not any(delimiter in line for _, line, _ in sample[:20]):
            continue
        # Other ways of quoting are tried only where the text shows them: they would read doubled quotes wrongly.
        variants = [Dialect(delimiter)]
        if any(f'{delimiter} "' in line for _, line, _ in sample):
            # First, because without it the cells come out in the right number, with the quotes in them.
            variants.insert(0, Dialect(delimiter, space_after=True))
        if any('\\"' in line for _, line, _ in sample):
            variants.append(Dialect(delimiter, backslash=True))
        if delimiter == "\t" and not any(_QUOTED_TSV_CELL.search(line) for _, line, _ in sample):
            variants.append(Dialect(delimiter, quoted=False))
        for variant_order, dialect in enumerate(variants):
            header = read_header(sample, dialect)
            if not header or len(header) < 2 or not _are_names(header):
                continue
            items = list(read_table(sample, dialect))
            good = sum(not isinstance(item, RowError) for item in items)
            share = good / len(items) if items else 0.0
            score = (share, len(header), -order, -variant_order)
            if best is None or score > best[0]:
                best = (score, dialect, header, share)
            if items and share == 1:
                break
    return best[1:] if best else None


def _are_names(header: list[str]) -> bool:
    filled = [name for name in header if name.strip()]
    return len(filled) * 2 > len(header) and all(len(name) <= _LONGEST_NAME for name in header)


def read_header(lines: Lines, dialect: Dialect) -> list[str] | None:
    """The cells of the first record that is not blank; None when it does not parse."""
    reader = dialect.reader(text.lstrip("\ufeff") for _, text, _ in lines)
    try:
        return next((cells for cells in reader if any(cell.strip() for cell in cells)), None)
    except csv.Error:
        return None


def column_names(header: list[str]) -> list[str]:
    """The header's names, trimmed; empty and repeated ones are distinguished by their position."""
    names: dict[str, None] = {}  # in order, and quickly searched: a table may have 100,000 columns
    for position, cell in enumerate(header, 1):
        name = cell.strip() or f"column {position}"
        while name in names:
            name += f" ({position})"
        names[name] = None
    return list(names)


_REPEATED = re.compile(r" \(\d+\)$")


def plain_name(column: str) -> str:
    """The name as it stands in the header: without the position that `column_names` gave a repeated one."""
    return _REPEATED.sub("", column)


class _Feed:
    """Lines for the parser, remembering those of the current record so that they can be read again."""

    def __init__(self, lines: Lines) -> None:
        self._source = iter(lines)
        self._again: deque = deque()
        self._chars = 0
        self.record: list = []

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        item = self._again.popleft() if self._again else next(self._source)
        self.record.append(item)
        self._chars += len(item[1])
        if len(self.record) > _LONGEST_RECORD_LINES or self._chars > _LONGEST_RECORD_CHARS:
            raise csv.Error("unexpected end of data")
        return item[1]

    def start_record(self) -> None:
        self.record = []
        self._chars = 0

    def go_back(self) -> None:
        """Hand out all lines of this record again but the first."""
        self._again.extendleft(reversed(self.record[1:]))


def read_table(lines: Lines, dialect: Dialect) -> Iterator[Item]:
    """Rows as dicts by column name, each with the line it starts on."""
    feed = _Feed(islice(lines, 1, None) if dialect.announced else lines)
    reader = dialect.reader(feed)
    names: list[str] | None = None
    while True:
        feed.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not feed.record:
                return
            yield _fault(str(error), feed.record)
            feed.go_back()
            reader = dialect.reader(feed)
            continue
        line, first_text, _ = feed.record[0]
        if (len(cells) <= 1 or names is None) and not any(cell.strip() for cell in cells):
            continue
        broken = next((item for item in feed.record if item[2]), None)
        if broken:
            number, text, (code, message) = broken
            at = max(text.find("\ufffd"), text.find("\0"), 0)
            yield RowError(number, code, message, excerpt(text, at))
            names = names or column_names(cells)
        elif names is None:
            cells[0] = cells[0].lstrip("\ufeff")
            names = column_names(cells)
        elif len(cells) == len(names) or (len(cells) > len(names) and not any(cells[len(names) :])):
            if "\r" in first_text or len(feed.record) > 1:
                cells = [cell.replace("\r\n", "\n") for cell in cells]
            yield line, dict(zip(names, cells, strict=False))
        else:
            yield RowError(line, "wrong-columns", _count_message(cells, names, dialect), excerpt(first_text))


def _count_message(cells: list[str], names: list[str], dialect: Dialect) -> str:
    named = {"\t": "tab", ",": "comma", ";": "semicolon"}.get(dialect.delimiter, f"'{dialect.delimiter}'")
    why = msg(" (a {named} in a cell that is not quoted?)", named=named) if len(cells) > len(names) else ""
    return msg_n(
        "{n:,} column where the header has {header:,}{why}",
        "{n:,} columns where the header has {header:,}{why}",
        len(cells),
        header=len(names),
        why=why,
    )


def _fault(error: str, record: list) -> RowError:
    line, text, _ = record[0]
    at = max(text.find('"'), 0)
    if "new-line character" in error:
        return RowError(line, "bad-csv", "a carriage return in the middle of the line", excerpt(text, text.find("\r")))
    if len(record) > 1 or "unexpected end" in error:
        return RowError(line, "open-quote", "a quote opened on this line is not closed", excerpt(text, at))
    if "expected after" in error:
        message = 'a quote inside a quoted cell is not doubled (write "" for it), or text follows the closing quote'
        return RowError(line, "bad-csv", message, excerpt(text, at))
    return RowError(line, "bad-csv", msg("this line does not parse: {error}", error=error), excerpt(text))
