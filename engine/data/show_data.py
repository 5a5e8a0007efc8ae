"""Rows of a data source as they are trained: read here, rendered and tokenized by a worker process."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import worker_command, worker_environment
from engine.data.token_counter import example_line, worker_error
from engine.formats import Row, stream_data
from engine.settings.schema import RunConfig


def show(config: RunConfig, *, rows: int = 3, line: int = 0) -> list[dict[str, Any]]:
    """What a run with these settings trains of its first `rows` rows, or of the one that starts on `line`.

    Each item has `file`, `line`, `problem` (why the row is no example, or what was left out of it; else empty),
    `ignored` (columns and keys with text that nothing is learnt from), and, of a row that is an example, what
    `engine.worker.show_turns.describe` says of it: where it becomes several examples there are several items. Raises
    InputError when there is no such row, DataError when the source cannot be read, EngineError when the tokenizer or
    template cannot.
    """
    data = config.data
    reading = stream_data(
        data.files,
        mapping=data.map or None,
        format=data.format,
        system=data.system or None,
        objective=config.method.objective,
        use="training-only" if data.val_files else "training",
    )
    chosen = list(_chosen((item for item in reading if isinstance(item, Row)), rows, line))
    if not chosen:
        raise InputError(
            msg("no row starts on line {line}", line=line), "Line numbers are those that `finetop data check` tells."
        )
    described = iter(_described([row for row in chosen if row.example is not None], config))
    lines = []
    for row in chosen:
        row_fields = {
            "file": row.file,
            "line": row.line,
            "problem": row.problem.message if row.problem else "",
            "ignored": list(row.ignored),
        }
        lines += [row_fields | shown for shown in (next(described) if row.example is not None else [{}])]
    return lines


def _chosen(read: Iterator[Row], rows: int, line: int) -> Iterator[Row]:
    """No more is read than is wanted: the file may be larger than the memory."""
    taken = 0
    for row in read:
        if row.is_line_note or (line and row.line != line):
            continue
        yield row
        taken += 1
        if line or taken == rows:
            return


def _described(rows: list[Row], config: RunConfig) -> list[list[dict[str, Any]]]:
    if not rows:
        return []
    settings, oom = json.dumps(config.flat()).encode(), OomWatch()
    done = subprocess.run(
        worker_command(module="engine.worker.show_turns"),
        input=b"".join([settings, b"\n", *(example_line(row.example) for row in rows if row.example)]),
        capture_output=True,
        env=worker_environment(),
        check=False,
    )
    if done.returncode:
        raise worker_error(done.returncode, done.stderr, oom)
    return [json.loads(line) for line in done.stdout.splitlines()]
