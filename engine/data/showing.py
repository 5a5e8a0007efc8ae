"""Rows of a data source as they are trained: read here, rendered and tokenized by a worker process."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from engine.data.tokens import example_line, worker_error
from engine.errors import InputError
from engine.formats import Row, stream_data
from engine.process import worker_command, worker_environment


def show(
    source: str | list[str],
    *,
    model: str,
    template: str = "auto",
    rows: int = 3,
    line: int = 0,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    system: str | None = None,
    objective: str = "sft",
) -> list[dict[str, Any]]:
    """The first `rows` rows, or the one that starts on `line`.

    Each has `file`, `line`, `problem` (why it is no example, or what was left out of it; else empty), `ignored`
    (columns and keys with text that nothing is learnt from), and, where it is an example, what
    `engine.worker.turns.describe` says of it. Raises InputError when there is no such row, DataError when the source
    cannot be read, EngineError when the tokenizer or template cannot.
    """
    reading = stream_data(source, mapping=mapping, format=format, system=system, objective=objective)
    chosen = list(_chosen((item for item in reading if isinstance(item, Row)), rows, line))
    if not chosen:
        raise InputError(f"no row starts on line {line}", "Line numbers are those that `finetop data check` tells.")
    described = iter(_described([row for row in chosen if row.example is not None], model, template))
    return [
        {
            "file": row.file,
            "line": row.line,
            "problem": row.problem.message if row.problem else "",
            "ignored": list(row.ignored),
        }
        | (next(described) if row.example is not None else {})
        for row in chosen
    ]


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


def _described(rows: list[Row], model: str, template: str) -> list[dict[str, Any]]:
    if not rows:
        return []
    done = subprocess.run(
        worker_command(model, "--template", template, module="engine.worker.turns"),
        input=b"".join(example_line(row.example) for row in rows),
        capture_output=True,
        env=worker_environment(),
        check=False,
    )
    if done.returncode:
        raise worker_error(done.returncode, done.stderr)
    return [json.loads(each) for each in done.stdout.splitlines()]
