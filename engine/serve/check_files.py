"""`python -m engine.serve.check_files TRAINING [VALIDATION]`: read a job's files, in a process of its own.

Prints one JSON object a file: `rows`, `bad_rows`, the first `problems`; `error` where nothing of it can be used.
"""

import json
import sys
from typing import Any

from engine.base.errors import DataError
from engine.formats import read_data


def check(path: str, use: str) -> dict[str, Any]:
    """What reading this file comes to."""
    try:
        report = read_data(path, use=use, max_problems=5)
    except DataError as error:
        partial_report = getattr(error, "report", None)
        problems = (
            [f"line {problem.line}: {problem.message}" for problem in partial_report.problems[:5]]
            if partial_report
            else []
        )
        return {"rows": 0, "bad_rows": 0, "problems": problems, "error": str(error)}
    problems = [f"line {problem.line}: {problem.message}" for problem in report.problems[:5]]
    return {"rows": len(report.examples), "bad_rows": report.bad_rows, "problems": problems, "error": ""}


def main() -> None:
    """Both, in their order."""
    for path, use in zip(sys.argv[1:], ("training", "validation"), strict=False):
        print(json.dumps(check(path, use)), flush=True)


if __name__ == "__main__":
    main()
