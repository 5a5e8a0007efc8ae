"""A first look at the data of a run that is being planned: rows, bad rows, what the columns mean.

Reading may take minutes, so it is done by a process of its own (`python -m tui.data_look`, the question as JSON on its
stdin): it takes no time from the screen's threads, and ends when another question is asked.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

from engine.config import RunConfig
from engine.errors import DataError, EngineError
from tui.child import Child

_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class DataLook:
    rows: int = 0
    bad_rows: int = 0
    files: tuple[tuple[str, str, int], ...] = ()
    """Path, format, rows."""
    problems: tuple[str, ...] = ()
    """The first bad rows, by file and line."""
    error: str = ""


def look(config: RunConfig, child: Child) -> DataLook | None:
    """Read the data as the run would; None if another question came in between."""
    question = {
        "source": [*config.data.files, *config.data.val_files],
        "mapping": config.data.map,
        "format": config.data.format,
        "system": config.data.system or None,
        "objective": config.method.objective,
    }
    done = child.run([sys.executable, "-m", "tui.data_look"], json.dumps(question))
    if done is None:
        return None
    try:
        answer = json.loads(done[1])
    except ValueError:
        return DataLook(error=(done[2].strip().splitlines() or ["the data could not be read"])[-1])
    answer["files"] = tuple(map(tuple, answer.get("files", ())))
    answer["problems"] = tuple(answer.get("problems", ()))
    return DataLook(**answer)


def token_report(config_path: str, child: Child) -> dict[str, Any] | str | None:
    """What `finetop plan` finds out with the model's own tokenizer, or why it could not; None as above."""
    done = child.run([sys.executable, "-m", "tui", "plan", "--config", config_path, "--json"])
    if done is None:
        return None
    code, said, complained = done
    try:
        report = json.loads(said)
        return report if code == 0 and isinstance(report, dict) else complained.strip() or "the plan could not be made"
    except ValueError:
        return complained.strip() or f"the plan could not be made (exit code {code})"


def main() -> int:
    from engine.formats import read_data

    question = json.load(sys.stdin)
    try:
        report, error = read_data(question.pop("source"), max_problems=_PROBLEMS, **question), ""
    except EngineError as failed:
        report, error = getattr(failed, "report", None) if isinstance(failed, DataError) else None, failed.message
    answer: dict[str, Any] = {"error": error}
    if report is not None:
        answer |= {
            "rows": report.rows,
            "bad_rows": report.bad_rows,
            "files": [(file.path, file.format, file.rows) for file in report.files],
            "problems": [str(problem) for problem in report.problems],
        }
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
