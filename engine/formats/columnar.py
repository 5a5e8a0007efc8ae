"""Rows from Parquet files and from the hub, where a row has a number and not a line."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.base.errors import DataError, first_line
from engine.base.messages import msg
from engine.formats.delimited import column_names
from engine.formats.json_lines import Item
from engine.formats.row_errors import RowError

_BATCH_ROWS = 1000


def read_parquet(path: str, size_bytes: int, advance: Callable[[int], None] | None = None) -> Iterator[Item]:
    """Rows of a Parquet file, a batch in memory at a time; class numbers are replaced by the names stored with them."""
    # 0.1 s and 60 MB, wanted for Parquet only.
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = _stored_class_names(file.schema_arrow.metadata or {})
        total = file.metadata.num_rows
        number = 0
        columns = column_names(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            if len(set(file.schema_arrow.names)) < len(columns):
                batch = pyarrow.RecordBatch.from_arrays(batch.columns, columns)
            for row in _python_rows(batch):
                number += 1
                if isinstance(row, UnicodeDecodeError):
                    yield RowError(number, "bad-encoding", msg("a text that is not UTF-8: {reason}", reason=row.reason))
                else:
                    yield number, with_class_names(row, names)
            if advance:
                advance(size_bytes * number // max(total, 1))
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise DataError(
            msg("{path} is a Parquet file that cannot be read: {error}", path=path, error=first_line(error)[:200]),
            "It may be cut off; write or download it again.",
        ) from None


def _python_rows(batch) -> Iterator[dict | UnicodeDecodeError]:
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for index in range(batch.num_rows):
        try:
            yield batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield error


def _stored_class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> class names, which `datasets` writes into the file beside the numbers."""
    import json

    names: dict[str, list[str]] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        for column, feature in json.loads(metadata[b"huggingface"])["info"]["features"].items():
            if feature.get("_type") == "ClassLabel" and all(isinstance(name, str) for name in feature["names"]):
                names[column] = feature["names"]
    return names


def with_class_names(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """The row with class numbers replaced by names; -1, which `datasets` uses for 'no label', becomes None."""
    for column, of_class in names.items():
        value = row.get(column)
        if isinstance(value, int) and value < len(of_class):
            row[column] = of_class[value] if value >= 0 else None
    return row


def load_hub(name: str) -> Iterable[dict[str, Any]]:
    """Rows of a hub dataset written ORG/NAME, ORG/NAME:SPLIT or ORG/NAME:CONFIG:SPLIT."""
    repository, *qualifiers = name.split(":")
    config = qualifiers[0] if len(qualifiers) == 2 else None
    split = qualifiers[-1] if qualifiers else "train"
    try:
        # 1 to 2 s, wanted for hub names only.
        import datasets

        datasets.disable_progress_bars()
        table = datasets.load_dataset(repository, config, split=split)
    except Exception as error:  # whatever the network, the hub or a loader throws: it is one answer to the user
        reason = (str(error).strip().splitlines() or [""])[0]
        raise DataError(
            msg(
                "the dataset {name} could not be loaded from the hub: {error_name}: {reason}",
                name=name,
                error_name=type(error).__name__,
                reason=reason[:300],
            ),
            "Write ORG/NAME:SPLIT or ORG/NAME:CONFIG:SPLIT; for a file on this machine, check the path.",
        ) from None
    names = {column: feature.names for column, feature in table.features.items() if hasattr(feature, "names")}
    return (with_class_names(dict(row), names) for row in table)
