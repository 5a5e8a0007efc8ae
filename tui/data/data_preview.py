"""A first look at the data of a run that is being planned: rows, bad rows, what the columns mean.

Reading may take minutes, so it is done by a process of its own (`python -m tui.data.data_preview`, the question as
JSON on its
stdin): it takes no time from the screen's threads, and ends when another question is asked.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.errors import DataError, EngineError
from engine.base.messages import msg
from engine.settings.schema import RunConfig
from tui.data.helper_process import HelperProcess

_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class DataPreview:
    """What reading the data files of a form showed."""

    rows: int = 0
    bad_rows: int = 0
    files: tuple[tuple[str, str, int], ...] = ()
    """Path, format, rows."""
    problems: tuple[str, ...] = ()
    """What is not used of the data, then the first bad rows, by file and line."""
    error: str = ""
    train_examples: int | None = None
    """Examples that are left for training; None where only their tokens say how many (plain text)."""


def question_of(config: RunConfig) -> str:
    """All that a preview depends on, as JSON."""
    question = {
        "files": config.data.files,
        "val_files": config.data.val_files,
        "mapping": config.data.map,
        "format": config.data.format,
        "system": config.data.system or None,
        "objective": config.method.objective,
        "split": [config.data.val_fraction, config.data.seed],
    }
    return json.dumps(question)


def preview(config: RunConfig, child: HelperProcess) -> DataPreview | None:
    """Read the data as the run would; None if another question came in between."""
    done = child.run([sys.executable, "-m", "tui.data.data_preview"], question_of(config))
    if done is None:
        return None
    try:
        answer = json.loads(done[1])
    except ValueError:
        return DataPreview(error=(done[2].strip().splitlines() or ["the data could not be read"])[-1])
    answer["files"] = tuple(map(tuple, answer.get("files", ())))
    answer["problems"] = tuple(answer.get("problems", ()))
    return DataPreview(**answer)


def token_report(config_path: str, child: HelperProcess) -> dict[str, Any] | str | None:
    """What `finetop plan` finds out with the model's own tokenizer, or why it could not; None as above."""
    done = child.run([sys.executable, "-m", "tui", "plan", "--config", config_path, "--json"])
    if done is None:
        return None
    code, output, errors = done
    try:
        report = json.loads(output)
        return report if code == 0 and isinstance(report, dict) else errors.strip() or "the plan could not be made"
    except ValueError:
        return errors.strip() or msg("the plan could not be made (exit code {code})", code=code)


def main() -> int:
    """The helper process: a question as JSON on standard input, the answer as JSON on standard output."""
    from engine.formats import files_told, read_data

    question = json.load(sys.stdin)
    files, val_files, split = question.pop("files"), question.pop("val_files"), question.pop("split")
    uses = [(files, "training-only" if val_files else "training"), (val_files, "validation")]
    reports, error = [], ""
    for source, use in uses:
        try:
            if source:
                reports.append(read_data(source, use=use, max_problems=_PROBLEMS, **question))
        except EngineError as failed:
            error = error or failed.message
            report = getattr(failed, "report", None)
            if isinstance(failed, DataError) and report is not None:
                reports.append(report)
    answer: dict[str, Any] = {"error": error}
    if reports:
        notes = files_told(
            {
                "files": [dataclasses.asdict(file) for report in reports for file in report.files],
                "left_out": [line for report in reports for line in report.left_out],
            }
        )
        answer |= {
            "rows": sum(report.rows for report in reports),
            "bad_rows": sum(report.bad_rows for report in reports),
            "files": [(file.path, file.format, file.rows) for report in reports for file in report.files],
            "train_examples": None
            if error or question["objective"] == "pretrain"
            else _train_examples(reports, *split),
            "problems": [*notes, *(str(problem) for report in reports for problem in report.problems)],
        }
    json.dump(answer, sys.stdout)
    return 0


def _train_examples(reports: Sequence[Any], val_fraction: float, seed: int) -> int:
    """As the run splits them, before those that are too long are skipped."""
    from engine.formats.train_val_split import split_examples

    held_out = len(reports) > 1 or reports[0].validation
    return len(split_examples(reports[0].examples, 0.0 if held_out else val_fraction, seed)[0])


if __name__ == "__main__":
    sys.exit(main())
