"""What became of the rows put into words, and the refusal to go on with too many bad ones."""

import os.path
from typing import Any

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.formats.examples import DataReport
from engine.formats.row_errors import NOTE_CODES, excerpt

_SHOWN = 5
_NAMES_SHOWN = 10


def check_bad_share(report: DataReport, max_bad_share: float) -> None:
    """Raise DataError when more than this share of the rows is bad (0 allows none), or none is usable."""
    if not report.examples:
        raise data_error(report, "no usable row")
    share = report.bad_rows / (report.rows - report.set_aside)
    if share > max_bad_share:
        raise data_error(
            report,
            msg(
                "{share} of the rows are bad, more than the {max_bad_share} allowed",
                share=_percent(share),
                max_bad_share=_percent(max_bad_share),
            ),
        )


class UnusableData(DataError):
    """Data of which no row, or too few, can be used; `report` says what is wrong with which."""

    def __init__(self, message: str, hint: str, report: DataReport) -> None:
        super().__init__(message, hint)
        self.report = report


def data_error(report: DataReport, what: str) -> UnusableData:
    """The error for a report: where the first problems are, how many of each kind, and what to do."""
    names = ", ".join(file.path for file in report.files[:3]) + (" …" if len(report.files) > 3 else "")
    counts = sorted(report.problem_counts.items(), key=lambda counted: -counted[1])
    lines = [
        msg(
            "{names}: {what} ({bad_rows:,} of {rows:,} rows are bad)",
            names=names,
            what=what,
            bad_rows=report.bad_rows,
            rows=report.rows,
        )
    ]
    shown = [problem for problem in report.problems if problem.code not in NOTE_CODES][:_SHOWN]
    lines += [f"  {str(problem).replace(chr(10), chr(10) + '  ')}" for problem in shown]
    if counts:
        lines.append("  in all: " + ", ".join(f"{count:,} {code}" for code, count in counts))
    hint = "Mend or remove these rows, or allow more with --set data.max_bad_share=SHARE (0.05 is 5%)."
    if not report.examples:
        hint = "Mend the file; if its columns mean something else, say so with --map prompt=COLUMN,completion=COLUMN."
    most = counts[0][0] if counts else ""
    completion = next((file.columns["completion"] for file in report.files if "completion" in file.columns), "")
    if most == "empty-prompt" and completion:
        hint = msg(
            "To learn from the answers as plain text: --objective pretrain --map text={completion}.",
            completion=completion,
        )
    elif most == "preference":
        hint = "There is no training by preference: keep the rows with good answers only."
    return UnusableData("\n".join(lines), hint, report)


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def files_told(report: dict[str, Any]) -> list[str]:
    """What of the data is not used, and what else there is to say of a file as a whole.

    `report` is a DataReport or the journal's event `data`, as a dict.
    """
    lines = list(report.get("left_out", ()))
    several = len(report["files"]) > 1
    for file in report["files"]:
        where = f"{os.path.basename(file['path'])}: " if several else ""
        lines += [where + note for note in file.get("notes", ())]
        if file.get("ignored"):
            lines.append(
                msg("{where}nothing is learnt from {ignored}", where=where, ignored=ignored_words(file["ignored"]))
            )
    return lines


def ignored_words(ignored: dict[str, int]) -> str:
    """Columns and keys that hold text, with the rows that have some."""
    shown = [f"{excerpt(name)} ({_count(count)})" for name, count in list(ignored.items())[:_NAMES_SHOWN]]
    return ", ".join(shown) + (
        msg(" and {more} more", more=len(ignored) - _NAMES_SHOWN) if len(ignored) > _NAMES_SHOWN else ""
    )


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"
