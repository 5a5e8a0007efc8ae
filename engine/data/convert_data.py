"""From any format that is read to OpenAI chats, ShareGPT, Alpaca or plain documents, without losing anything.

A conversation that a format has no place for is refused by its line. The result is read again before it counts, and
must give the very examples that went in; `text` alone goes one way, and is compared with the documents meant.
"""

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import DataError, InputError
from engine.base.messages import msg, msg_n
from engine.data.check_data import objective_for
from engine.data.check_report import Progress
from engine.data.row_writer import Outputs, RowFile, Seal, proven
from engine.formats import Row, files_told, stream_data
from engine.formats.encoding import suffix
from engine.formats.examples import DataFile, Example
from engine.formats.row_errors import Remark
from engine.formats.sources import find_origins

_SHOWN = 5
_CONTAINERS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv"}
_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_TEXT_TURN = "\n\n"


class NotRepresentable(ValueError):
    """The format has no place for something in this example; the message says for what."""


@dataclass(frozen=True, slots=True)
class Converted:
    out: Path
    rows: int
    written: int
    skipped: tuple[str, ...]
    """What was left out, with file and line; only where the caller asked for that."""
    notes: tuple[str, ...] = ()
    """What of the source is not in the result: columns, splits, files of a folder."""


def convert(
    source: str,
    out: str | Path,
    to: str,
    *,
    sample: int = 0,
    seed: int = 0,
    system: str | None = None,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    skip_bad: bool = False,
    force: bool = False,
    progress: Progress = lambda doing, done, total: None,
) -> Converted:
    """Write every example (or `sample` of them, chosen by `seed`, in their order) to `out` in the format `to`.

    Of data in splits the training split; PATH:PART chooses another. Raises DataError with the lines of rows that cannot
    be read or that the format cannot hold, unless `skip_bad`.
    """
    if to not in TARGETS:
        raise InputError(
            msg("'{to}' is no format to convert to", to=to), msg("Formats: {formats}.", formats=", ".join(TARGETS))
        )
    out = Path(out).expanduser()
    container = _CONTAINERS.get(suffix(str(out)))
    if container is None or (container == "csv" and to in ("openai", "sharegpt")):
        endings = ".jsonl or .json" if to in ("openai", "sharegpt") else ".jsonl, .json or .csv"
        raise InputError(
            msg("{out}: a result in the format {to} ends in {endings}", out=out, to=to, endings=endings),
            "Give such a name.",
        )
    faults: list[str] = []
    files: list[dict[str, Any]] = []
    left_out: list[str] = []
    rows = 0

    def rows_read() -> Iterator[tuple[Example, dict]]:
        nonlocal rows
        items = stream_data(
            source,
            mapping=mapping,
            format=format,
            system=system,
            objective=objective_for(source),
            use="training-only",
            progress=lambda done, total: progress("reading", done, total),
        )
        for item in items:
            if isinstance(item, DataFile):
                files.append(dataclasses.asdict(item))
            elif isinstance(item, Remark):
                left_out.append(item.message)
            if not isinstance(item, Row):
                continue
            rows += 1
            fault = item.problem.message if item.problem else ""
            if item.example is not None and not fault:
                try:
                    yield item.example, TARGETS[to](item.example)
                    continue
                except NotRepresentable as error:
                    fault = msg("{to} has no place for {error}", to=to, error=error)
            faults.append(f"{item.file}:{item.line}: {fault}")
            if not skip_bad and len(faults) > 10_000:
                break  # enough to say so

    sources = [origin.name for origin in find_origins(source, plain_text=True) if not origin.on_hub]
    columns = _COLUMNS.get(to, ())
    with Outputs({"out": out}, sources, force) as outputs:
        seal = Seal()
        with RowFile(outputs.temporary["out"], container, columns) as file:
            for example, row in _sampled(rows_read(), sample, seed):
                try:
                    file.write(_for_table(row, columns) if container == "csv" else row)
                except ValueError as error:
                    faults.append(f"{example.file}:{example.line}: {error}")
                    continue
                seal.add(Example(text=row["text"]) if to == "text" else example)
        if faults and not skip_bad:
            raise _refusal(faults, to)
        if not seal.count:
            raise DataError(
                msg("{source}: there is nothing to convert\n{faults}", source=source, faults="\n".join(faults[:_SHOWN]))
            )
        progress("reading the result", 0, 1)
        proven(outputs.temporary["out"], seal, out, format=to)
    notes = files_told({"files": files, "left_out": left_out})
    return Converted(out, rows, seal.count, tuple(faults), tuple(notes))


def _refusal(faults: list[str], to: str) -> DataError:
    more = msg("\n  … and {hidden:,} more", hidden=len(faults) - _SHOWN) if len(faults) > _SHOWN else ""
    lines = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
    return DataError(
        msg_n(
            "{n} row cannot be converted to {to}:\n{lines}{more}",
            "{n:,} rows cannot be converted to {to}:\n{lines}{more}",
            len(faults),
            to=to,
            lines=lines,
            more=more,
        ),
        "Mend them (finetop data check, finetop data clean), or leave them out with --skip-bad.",
    )


def _sampled(rows: Iterator[tuple[Example, dict]], count: int, seed: int) -> Iterator[tuple[Example, dict]]:
    """`count` of the rows in their order, each as likely as the others (Vitter's algorithm R); all of them for 0."""
    if not count:
        yield from rows
        return
    chance = random.Random(seed)
    kept: list[tuple[int, tuple[Example, dict]]] = []
    for number, row in enumerate(rows):
        if number < count:
            kept.append((number, row))
        elif (slot := chance.randrange(number + 1)) < count:
            kept[slot] = (number, row)
    for _, row in sorted(kept, key=lambda numbered: numbered[0]):
        yield row


def _openai(example: Example) -> dict:
    """{"messages": [...], "tools": [...]}; arguments of calls as JSON text, as OpenAI has them."""
    _need_chat(example)
    row: dict[str, Any] = {"messages": [_with_written_calls(message) for message in example.messages]}
    if example.tools:
        row["tools"] = list(example.tools)
    return row


def _sharegpt(example: Example) -> dict:
    """{"conversations": [{"from", "value"}]}; a turn that only calls is a `function_call`, a tool's result an
    `observation`. What ShareGPT knows no name for (weight, reasoning, ids of calls) stands beside, under OpenAI's."""
    _need_chat(example)
    turns = []
    for message in example.messages:
        calls = message.get("tool_calls")
        if calls and message["content"] is None and set(message) == {"role", "content", "tool_calls"}:
            plain_calls = [{**_without(call, "type", "function"), **call["function"]} for call in calls]
            simple = all("id" not in call for call in calls)
            value = plain_calls[0] if simple and len(calls) == 1 else (plain_calls if simple else calls)
            turns.append({"from": "function_call", "value": json.dumps(value, ensure_ascii=False)})
            continue
        message = _with_written_calls(message)
        turn = {"from": _SHAREGPT_ROLES[message["role"]], "value": message["content"]}
        turns.append(turn | _without(message, "role", "content"))
    row: dict[str, Any] = {"conversations": turns}
    if example.tools:
        row["tools"] = json.dumps(list(example.tools), ensure_ascii=False)
    return row


def _alpaca(example: Example) -> dict:
    """{"instruction", "input": "", "output", "system", "history": [[question, answer]]}."""
    _need_chat(example)
    if example.tools:
        raise NotRepresentable("tools")
    messages = list(example.messages)
    row: dict[str, Any] = {"instruction": "", "input": "", "output": ""}
    if messages[0]["role"] == "system":
        row["system"] = messages.pop(0)["content"]
        if not row["system"].strip():
            raise NotRepresentable("an empty system message")
    if [message["role"] for message in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise NotRepresentable("turns that are not question and answer by turns")
    for message in messages:
        extra = sorted(_without(message, "role", "content"))
        if extra:
            raise NotRepresentable(msg("'{extra}' of a message", extra=extra[0]))
    turns = [message["content"] for message in messages]
    row["instruction"], row["output"] = turns[-2:]
    if len(turns) > 2:
        row["history"] = [turns[at : at + 2] for at in range(0, len(turns) - 2, 2)]
    return row


def _text(example: Example) -> dict:
    """{"text": ...}: a document as it is; of a conversation its messages with blank lines between them."""
    if example.text is not None:
        return {"text": example.text}
    if example.tools or any(message.get("tool_calls") for message in example.messages):
        raise NotRepresentable("tools and calls")
    return {"text": _TEXT_TURN.join(message["content"] for message in example.messages if message["content"])}


TARGETS: dict[str, Callable[[Example], dict]] = {
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "text": _text,
}
_COLUMNS = {"alpaca": ("instruction", "input", "output", "system", "history"), "text": ("text",)}


def _for_table(row: dict, columns: tuple[str, ...]) -> dict:
    """Cells of a CSV; a list as JSON text, nothing for what the row has not. ValueError for what a cell would lose."""
    cells = {}
    for column in columns:
        value = row.get(column, "")
        cells[column] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if "\r" in cells[column] or cells[column].startswith("\ufeff"):
            raise ValueError("CSV keeps no carriage return and no leading byte-order mark; use a name in .jsonl")
    return cells


def _need_chat(example: Example) -> None:
    if example.text is not None:
        raise NotRepresentable("a document without questions and answers")


def _with_written_calls(message: dict) -> dict:
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        written = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": written}})
    return {**message, "tool_calls": calls}


def _without(values: dict, *names: str) -> dict:
    return {name: value for name, value in values.items() if name not in names}
