"""Bad rows put into words, and the refusal to go on with too many of them."""

from engine.errors import DataError
from engine.formats.faults import NOTE_CODES
from engine.records import DataReport

_SHOWN = 5


def check_bad_share(report: DataReport, max_bad_share: float) -> None:
    """Raise DataError when more than this share of the rows is bad (0 allows none), or none is usable."""
    if not report.examples:
        raise complaint(report, "no usable row")
    share = report.bad_rows / (report.rows - report.set_aside)
    if share > max_bad_share:
        raise complaint(
            report, f"{_percent(share)} of the rows are bad, more than the {_percent(max_bad_share)} allowed"
        )


def complaint(report: DataReport, what: str) -> DataError:
    """The error for a report: where the first problems are, how many of each kind, and what to do."""
    names = ", ".join(file.path for file in report.files[:3]) + (" …" if len(report.files) > 3 else "")
    counts = sorted(report.problem_counts.items(), key=lambda counted: -counted[1])
    lines = [f"{names}: {what} ({report.bad_rows:,} of {report.rows:,} rows are bad)"]
    shown = [problem for problem in report.problems if problem.code not in NOTE_CODES][:_SHOWN]
    lines += [f"  {str(problem).replace(chr(10), chr(10) + '  ')}" for problem in shown]
    if counts:
        lines.append("  in all: " + ", ".join(f"{count:,} {code}" for code, count in counts))
    hint = "Mend or remove these rows, or allow more with --set data.max_bad_share=SHARE (0.05 is 5 %)."
    if not report.examples:
        hint = "Mend the file; if its columns mean something else, say so with --map prompt=COLUMN,completion=COLUMN."
    most = counts[0][0] if counts else ""
    completion = next((file.columns["completion"] for file in report.files if "completion" in file.columns), "")
    if most == "empty-prompt" and completion:
        hint = f"To learn from the answers as plain text: --objective pretrain --map text={completion}."
    elif most == "preference":
        hint = "There is no training by preference: keep the rows with good answers only."
    error = DataError("\n".join(lines), hint)
    error.report = report
    return error


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
