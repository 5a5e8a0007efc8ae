"""Writing data files: in the container the rows came from, whole or not at all, and read again before it counts."""

import contextlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from engine.base.atomic_files import sync_folder
from engine.base.errors import DataError, EngineError, InputError
from engine.base.messages import msg
from engine.base.worker_process import started_at
from engine.formats import Opened, Row, stream_data
from engine.formats.examples import Example
from engine.formats.sources import split_name
from engine.formats.split_names import part_of_value

_PARQUET_ROWS = 5000


class RowFile:
    """Rows to one file; the container is 'jsonl', 'json', 'csv', 'tsv' or 'parquet'. Always UTF-8, no mark."""

    def __init__(self, path: Path, container: str, columns: Sequence[str], delimiter: str = ",", quoted: bool = True):
        self._path = path
        self._container = container
        self._columns = list(columns)
        self._delimiter = delimiter
        self._quoted = quoted
        self._file: BinaryIO = open(path, "xb")  # noqa: SIM115 - closed at the end of the block
        self._parquet: Any = None
        self._waiting: list[dict] = []
        self.rows = 0
        if container in ("csv", "tsv"):
            self._line(self._columns)

    def write(self, row: dict) -> None:
        """Raises ValueError for what the container cannot hold; DataError for rows that fit no one Parquet table."""
        if self._container == "parquet":
            self._waiting.append(row)
            if len(self._waiting) >= _PARQUET_ROWS:
                self._write_batch()
        elif self._container in ("csv", "tsv"):
            self._line([row[column] for column in self._columns])
        else:
            try:
                data = json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:  # half of a surrogate pair, in a column that is not used
                data = json.dumps(row).encode()
            if self._container == "json":
                data = (b",\n" if self.rows else b"[\n") + data
            else:
                data += b"\n"
            self._file.write(data)
        self.rows += 1

    def write_again(self, row: Row) -> None:
        """A row as it was read. Raises DataError, with its line, for what the container cannot hold."""
        try:
            self.write(row.values)
        except ValueError as error:
            raise DataError(f"{row.file}:{row.line}: {error}", "Convert the file first.") from None

    def _line(self, cells: Sequence[str]) -> None:
        self._file.write((self._delimiter.join(map(self._cell, cells)) + "\n").encode())

    def _cell(self, cell: Any) -> str:
        text = "" if cell is None else str(cell)
        special = self._delimiter in text or "\n" in text or "\r" in text
        if not self._quoted:
            if special:
                raise ValueError("a delimiter or a line break in a table without quotes")
            return text
        # A cell with space around it is quoted for readers that strip what is not.
        if special or '"' in text or text != text.strip() or (not text and len(self._columns) == 1):
            return '"' + text.replace('"', '""') + '"'
        return text

    def _write_batch(self) -> None:
        import pyarrow  # 0.1 s, wanted for Parquet only
        import pyarrow.parquet

        if self._waiting:
            schema = self._parquet.schema if self._parquet else None
            try:
                table = pyarrow.Table.from_pylist(self._waiting, schema=schema)
            except pyarrow.ArrowException as error:
                hint = msg(
                    "a later row does not fit the columns as the first {parquet_rows:,} rows have them: {error}",
                    parquet_rows=_PARQUET_ROWS,
                    error=error,
                )
                raise DataError(hint, "Convert the file first.") from None
            self._parquet = self._parquet or pyarrow.parquet.ParquetWriter(self._file, table.schema)
            self._parquet.write_table(table)
        self._waiting = []

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """At the end of the block everything is on disk, unless something was raised."""
        try:
            if kind is None:
                self._finish()
        finally:
            with contextlib.suppress(Exception):  # else it would try again, and complain, when it is collected
                if self._parquet:
                    self._parquet.close()
            with contextlib.suppress(OSError):
                self._file.close()

    def _finish(self) -> None:
        if self._container == "json":
            self._file.write(b"\n]\n" if self.rows else b"[]\n")
        if self._container == "parquet":
            self._write_batch()
            if self._parquet:
                self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())


def _unfinished(path: Path) -> Path:
    """Where a file is written before it gets its name. Its own names its process, so that what is left of one that was
    killed can be removed; its ending is the same, by which some files are recognised; hidden, so that no folder of data
    takes it in.
    """
    return path.with_name(f".{os.getpid()}@{socket.gethostname()}.{uuid.uuid4().hex[:8]}.partial.{path.name}")


def remove_abandoned(path: Path) -> None:
    """Delete what commands that were killed on this machine have left of the file `path`."""
    host, name = re.escape(socket.gethostname()), re.escape(path.name)
    unfinished = re.compile(rf"\.(\d{{1,9}})@{host}\.[0-9a-f]{{8}}\.partial\.{name}")
    for entry in os.listdir(path.parent):
        if (match := unfinished.fullmatch(entry)) and started_at(int(match[1])) is None:
            path.with_name(entry).unlink(missing_ok=True)


class Outputs:
    """Files that appear together under their names, or not at all.

    with Outputs({"train": path}, sources, force) as outputs: each is written to `outputs.temporary["train"]`, beside
    its place, and renamed at the end of the block when nothing was raised.
    """

    def __init__(self, paths: dict[str, Path], sources: Sequence[str], force: bool) -> None:
        for path in paths.values():
            if not path.parent.is_dir():
                raise InputError(msg("the folder {parent} does not exist", parent=path.parent), "Make it first.")
            if any(Path(source).exists() and path.exists() and path.samefile(source) for source in sources):
                raise InputError(
                    msg("{path} is the input itself, which is never changed", path=path),
                    "Give the result another name.",
                )
            if path.is_dir():
                raise InputError(msg("{path} is a folder", path=path), "Give the name of a file.")
            if path.exists() and not force:
                raise InputError(
                    msg("{path} exists already", path=path), "Give another name, or --force to replace it."
                )
        if len({path.absolute() for path in paths.values()}) < len(paths):
            raise InputError("two of the results would have the same name", "Give them different names.")
        self._paths = paths
        self.temporary = {name: _unfinished(path) for name, path in paths.items()}
        for path in paths.values():
            remove_abandoned(path)

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        if isinstance(error, OSError) and not error.filename:  # a write names no file
            error.filename = str(next(iter(self._paths.values())))
        elif isinstance(error, OSError):
            finals = {str(temporary): str(self._paths[name]) for name, temporary in self.temporary.items()}
            error.filename = finals.get(str(error.filename), error.filename)
        try:
            if kind is None:
                for name, path in self._paths.items():
                    if self.temporary[name].exists():
                        os.replace(self.temporary[name], path)
                    elif path.exists():
                        path.unlink()  # left by an earlier run, and empty this time
                for folder in {path.parent for path in self._paths.values()}:
                    sync_folder(folder)
        finally:
            for path in self.temporary.values():
                with contextlib.suppress(OSError):  # the error that ended the block is the one to tell
                    path.unlink(missing_ok=True)


class Seal:
    """A running hash of examples, to prove that what was written reads as what was meant."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self.count = 0

    def add(self, example: Example) -> None:
        content = [example.messages, example.tools, example.text]
        self._hash.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass"))
        self.count += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seal) and (self.count, self.digest) == (other.count, other.digest)

    @property
    def digest(self) -> bytes:
        return self._hash.digest()


def proven(path: Path, seal: Seal, name: Path, **reading: Any) -> None:
    """Raise EngineError unless the file reads as exactly the examples of the seal."""
    again = Seal()
    if seal.count:
        for item in stream_data(str(path), objective="pretrain", use="all", **reading):
            if isinstance(item, Row) and item.example is not None:
                again.add(item.example)
    if again != seal:
        raise EngineError(
            msg(
                "{name} would not read as what was written to it ({count:,} of {seal_count:,} examples came back); "
                "it was not kept",
                name=name,
                count=again.count,
                seal_count=seal.count,
            ),
            "Convert to JSON lines instead, and please report this file's format.",
        )


def one_file(source: str) -> Path:
    """The source as a single file; InputError for folders and their parts."""
    path = Path(source).expanduser()
    if path.is_dir() or (not path.exists() and Path(split_name(str(path))[0]).is_dir()):
        raise InputError(msg("{source} is a folder", source=source), "Give one file at a time.")
    return path


def opened_like(opened: Opened, path: Path) -> RowFile:
    """A new file of the same container, columns and delimiter."""
    name = opened.container.name
    if name in ("txt", "hub"):
        raise InputError(
            msg("{path} has no rows to choose from", path=opened.path), "Convert it first: finetop data convert."
        )
    dialect = opened.container.dialect
    delimiter = dialect.delimiter if dialect else ","
    return RowFile(path, name, opened.columns, delimiter, dialect.quoted if dialect else True)


def rows_of(source: str, **reading: Any) -> Iterator[Opened | Row]:
    """The file and its rows, of every split. InputError where the splits are lists of their own, and would be mixed."""
    container = ""
    for item in stream_data(source, objective="pretrain", use="all", **reading):
        if isinstance(item, Opened):
            container = item.container.name
        if isinstance(item, Row) and item.part and container == "json" and not _says_its_part(item):
            raise InputError(
                msg("{source} holds several splits in one object, here '{part}'", source=source, part=item.part),
                msg(
                    "Take one out first: finetop data convert {source}:{part} {part}.jsonl --to openai",
                    source=source,
                    part=item.part,
                ),
            )
        if isinstance(item, (Opened, Row)):
            yield item


def _says_its_part(row: Row) -> bool:
    return isinstance(row.values, dict) and any(part_of_value(value) for value in row.values.values())
