"""What a user should know of rows that are not used as they stand, as lines."""

from typing import Any

from engine.base.messages import msg
from engine.formats import NOTE_CODES, files_told
from engine.formats.turn_notes import CONTROL_TOKEN, differing_lines

PLAN_PROBLEMS = 20
"""How many problems the plan shows: all that the report holds."""


_WORKER_CODES = ("template", "nothing-trained")
"""Problems the worker finds after the files were read; each leaves a row out."""


_MORE = "`finetop plan` with the same flags"


def data_warnings(report: dict[str, Any], shown: int = 5, more: str = _MORE) -> list[str]:
    """What the user should know of rows that are not used as they stand, with the first `shown` of each kind; `more`
    shows others. `report`: the journal's event `data`, or what an evaluation says of its rows."""
    counts = report["problem_counts"]
    lines = files_told(report)
    left_out = sum(file["bad_rows"] for file in report["files"]) + sum(counts.get(code, 0) for code in _WORKER_CODES)
    notes = {code: count for code, count in counts.items() if code in NOTE_CODES and code != CONTROL_TOKEN}
    if left_out:
        bad = {code: count for code, count in counts.items() if code not in NOTE_CODES}
        lines += _problem_lines(report, shown, msg("{left_out} left out", left_out=_rows(left_out)), bad)
    if notes:
        what = msg("{values} used without the part that does not fit", values=_rows(sum(notes.values())))
        lines += _problem_lines(report, shown, what, notes)
    if control := counts.get(CONTROL_TOKEN):
        what = msg("{control} used though a text holds the model's own control tokens", control=_rows(control))
        lines += _problem_lines(report, shown, what, {CONTROL_TOKEN: control})
    if max(left_out, sum(notes.values()), control or 0) > shown and shown < PLAN_PROBLEMS:
        lines.append(msg("  {more} shows more of them", more=more))
    for name, part in _parts(report):
        lines += differing_lines(name, part)
        if part["overlong"]:
            many = (
                "1 example is" if part["overlong"] == 1 else msg("{overlong:,} examples are", overlong=part["overlong"])
            )
            how = ""
            if part["cut_tokens"]:
                how = msg(
                    ": {cut_tokens:,} tokens cut, {cut_supervised:,} of them answers",
                    cut_tokens=part["cut_tokens"],
                    cut_supervised=part["cut_supervised"],
                )
            elif part.get("overlong_skipped"):
                how = msg(
                    ": {overlong_skipped:,} left out (data.overlong=skip)", overlong_skipped=part["overlong_skipped"]
                )
            lines.append(msg("{name}: {many} longer than data.max_length{how}", name=name, many=many, how=how))
    return lines + _thought_lines(report)


def _parts(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What tokenizing did to each set of examples there is, by the set's name."""
    return [(name, report[name]) for name in ("train", "val", "eval") if name in report]


def _thought_lines(report: dict[str, Any]) -> list[str]:
    """How many answers come with thoughts, and what data.thinking makes of them."""
    lines = []
    if dropped := report.get("thoughts_dropped"):
        lines.append(msg("thoughts were taken out of {dropped:,} examples (data.thinking=drop)", dropped=dropped))
    for name, part in _parts(report):
        if thoughts := part.get("thoughts"):
            lines.append(
                msg(
                    "{name}: {thoughts:,} of {examples:,} examples have thoughts",
                    name=name,
                    thoughts=thoughts,
                    examples=part["examples"],
                )
            )
        if empty := part.get("empty_thoughts"):
            does = "not trained (data.thinking)"
            if part["empty_thoughts_trained"]:
                does = "trained; a model that reasons unlearns it by that, unless data.thinking=no_loss_on_empty"
            lines.append(
                msg(
                    "{name}: {empty:,} of {examples:,} examples have an empty thought: {does}",
                    name=name,
                    empty=empty,
                    examples=part["examples"],
                    does=does,
                )
            )
    return lines


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else msg("{count:,} rows are", count=count)


def _problem_lines(report: dict[str, Any], shown: int, what: str, kinds: dict[str, int]) -> list[str]:
    lines = [f"{what}: {', '.join(f'{count:,} {code}' for code, count in sorted(kinds.items()))}"]
    chosen = [problem for problem in report["problems"] if problem["code"] in kinds]
    for problem in chosen[:shown]:
        lines.append(f"  {problem['file']}:{problem['line']}: {problem['message']}")
        if problem["excerpt"]:
            lines.append(f"      {problem['excerpt']}")
    return lines
