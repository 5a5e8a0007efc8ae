"""The result file of a job: its losses by step as CSV, made of the run's metrics when it is read."""

import csv
import io
import re
from typing import Any

from engine.serve.context import Context
from engine.store import progress_queries, queries
from engine.store.run_records import Run, RunState

RESULTS = re.compile(r"file-results-(?P<run>[1-9]\d{0,17})")
_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def result_rows(context: Context, run_id: int) -> bytes:
    """The file. What finetop does not measure is empty."""
    rows: dict[int, dict[str, float]] = {}
    with context.reading() as conn:
        for step, _, key, value in progress_queries.logged(conn, run_id, ("train/loss", "eval/loss")):
            if value is not None and step > 0:
                rows.setdefault(step, {})["train_loss" if key == "train/loss" else "valid_loss"] = value
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **values} for step, values in sorted(rows.items()))
    return out.getvalue().encode()


def finished_run(context: Context, run_id: int) -> Run | None:
    """The run of a job that has succeeded; None for others."""
    if context.store.job(run_id) is None:
        return None
    with context.reading() as conn:
        run = queries.run(conn, run_id)
    return run if run is not None and run.state is RunState.DONE else None


def result_file(context: Context, run: Run) -> dict[str, Any]:
    """The file object."""
    return {
        "id": f"file-results-{run.id}",
        "object": "file",
        "bytes": len(result_rows(context, run.id)),
        "created_at": int(run.finished or run.created),
        "filename": "step_metrics.csv",
        "purpose": "fine-tune-results",
        "status": "processed",
        "status_details": None,
    }
