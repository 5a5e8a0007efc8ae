"""Data source in, DataReport out: every good row as an Example, every bad one counted and the first ones told."""

from collections.abc import Callable, Iterator

from engine.base.errors import DataError, InputError
from engine.base.messages import msg
from engine.formats.columns import FORMATS, ROLES
from engine.formats.examples import DataFile, DataReport, Example
from engine.formats.read_report import data_error
from engine.formats.row_errors import Remark
from engine.formats.row_stream import Opened, Reading, Row
from engine.formats.schema_detection import nearest
from engine.formats.sources import find_sources
from engine.formats.split_names import VALIDATION

__all__ = ["Opened", "Row", "read_data", "stream_data"]


def read_data(
    source: str | list[str],
    *,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    system: str | None = None,
    objective: str = "sft",
    use: str = "training",
    max_problems: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Read files, folders and hub datasets into examples, with every row that is none counted in the report.

    `mapping` says which column serves as what ({'prompt': 'ask', 'completion': 'answer'}), `system` is put before
    conversations that have no system message, `progress` is called with (bytes read, bytes in all). Of data in splits
    those are read that serve the `use` (parts.USES): for 'training' the training split, with the validation split in
    `report.validation`; for 'validation' and 'evaluation' the one that serves best. Raises DataError when a source
    cannot be read at all, its columns mean nothing, or not one row is usable; the error then carries the report as
    `error.report`.
    """
    mapping = mapping or {}
    reading = Reading(mapping, format, system, objective, use, max_problems)
    files: list[DataFile] = []
    examples: list[Example] = []
    validation: list[Example] = []
    left_out: list[str] = []
    for item in _stream(source, reading, progress):
        if isinstance(item, DataFile):
            files.append(item)
        elif isinstance(item, Remark):
            left_out.append(item.message)
        elif isinstance(item, Row) and item.example is not None:
            (validation if item.part == VALIDATION else examples).append(item.example)
    report = DataReport(
        tuple(files), tuple(examples), reading.problems(), dict(reading.counts), tuple(validation), tuple(left_out)
    )
    if not report.examples:
        raise data_error(report, "no usable row")
    return report


def stream_data(
    source: str | list[str],
    *,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    system: str | None = None,
    objective: str = "sft",
    use: str = "training",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Opened | Row | DataFile | Remark]:
    """The same reading a row at a time, for files larger than the memory: of each file Opened, its rows, its DataFile.

    Before them a Remark for all that a folder holds and that is not read. Every row that is used comes, bad ones with
    their problem; with `use='all'` those of every split, each with its part. Raises DataError when a source cannot be
    read at all or its columns mean nothing.
    """
    return _stream(source, Reading(mapping or {}, format, system, objective, use, None), progress)


def _stream(
    source: str | list[str], reading: Reading, progress: Callable[[int, int], None] | None
) -> Iterator[Opened | Row | DataFile | Remark]:
    _check_arguments(reading.mapping, reading.format, reading.objective)
    plain_text = reading.objective == "pretrain" or reading.format == "text"
    sources = find_sources(source, plain_text=plain_text, use=reading.use)
    yield from map(Remark, sources.left_out)
    total_bytes = sum(origin.size_bytes for origin in sources.origins)
    done_bytes = 0
    for origin in sources.origins:

        def advance(bytes_in_file: int, start_bytes: int = done_bytes) -> None:
            if progress:
                progress(min(start_bytes + bytes_in_file, total_bytes), total_bytes)

        yield from reading.read(origin, advance)
        done_bytes += origin.size_bytes
    if progress:
        progress(total_bytes, total_bytes)
    if reading.splits and not reading.trains and reading.use != "all":
        splits = ", ".join(f"'{part}'" for part in sorted(reading.splits))
        name = sources.origins[0].name
        raise DataError(
            msg("{name} holds no training split, only {splits}", name=name, splits=splits),
            msg("To train on a split all the same, name it: {name}:{splits}.", name=name, splits=min(reading.splits)),
        )


def _check_arguments(mapping: dict[str, str], format: str, objective: str) -> None:
    if format not in ("auto", *FORMATS):
        raise InputError(
            msg("'{format}' is no data format", format=format),
            msg("Formats: auto, {formats}.", formats=", ".join(FORMATS)),
        )
    if objective not in ("sft", "pretrain"):
        raise InputError(msg("'{objective}' is no objective", objective=objective), "Objectives: sft, pretrain.")
    for role in mapping:
        if role not in ROLES:
            raise InputError(
                msg("a column cannot be mapped to '{role}'{nearest}", role=role, nearest=nearest(role, ROLES)),
                msg("Use {roles}.", roles=", ".join(ROLES)),
            )
