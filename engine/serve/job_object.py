"""What the API shows of a job: made of its record and of its run as that is now."""

from typing import Any

from engine.serve.context import Context
from engine.serve.models import model_id
from engine.settings.auto_values import auto_values
from engine.settings.resolve import read_run
from engine.store import progress_queries, queries
from engine.store.connect import Connection
from engine.store.run_records import Run, RunState
from engine.store.serve_store import StoredJob, job_id, status_of

_SETTINGS = {"n_epochs": "train.epochs", "batch_size": "train.batch_size"}
_WARNINGS = frozenset({"oom", "disk-full", "not-as-asked", "retry", "nonfinite", "schedule-changed"})


def job_object(context: Context, conn: Connection, job: StoredJob, run: Run | None) -> dict[str, Any]:
    """A FineTuningJob."""
    record, status = job.record, status_of(job, run)
    is_over = status in ("succeeded", "failed", "cancelled")
    error = record.get("error") if status == "failed" else None
    if status == "failed" and error is None:
        words = (queries.error(conn, job.run_id) or (run.reason if run else "")) or "The run failed."
        code = "interrupted" if run and run.state is RunState.INTERRUPTED else "training_failed"
        error = {"code": code, "message": words, "param": None}
    parameters = _hyperparameters(context, job)
    return {
        "id": job_id(job.run_id),
        "object": "fine_tuning.job",
        "created_at": job.created,
        "error": error,
        "estimated_finish": _finish(run),
        "fine_tuned_model": model_id(context, run, suffix=record["suffix"]) if run and status == "succeeded" else None,
        "finished_at": int((run and run.finished) or job.created) if is_over else None,
        "hyperparameters": parameters,
        "integrations": None,
        "metadata": record.get("metadata"),
        "method": {"type": "supervised", "supervised": {"hyperparameters": parameters}},
        "model": record["asked"],
        "organization_id": "org-finetop",
        "result_files": [f"file-results-{job.run_id}"] if status == "succeeded" else [],
        "seed": record["seed"],
        "status": status,
        "trained_tokens": _trained_tokens(conn, job.run_id) if status == "succeeded" else None,
        "training_file": record["training_file"],
        "user_provided_suffix": record["suffix"] or None,
        "validation_file": record["validation_file"],
    }


def _finish(run: Run | None) -> int | None:
    left = run.seconds_left if run else None
    return int((run.beat or 0) + left) if run and left is not None and run.beat else None


def _trained_tokens(conn: Connection, run_id: int) -> int | None:
    series = queries.series(conn, run_id).get("train/tokens")
    return int(series.last) if series and series.last is not None else None


def _hyperparameters(context: Context, job: StoredJob) -> dict[str, Any]:
    """As requested; what is 'auto' as the number it stands for with so many rows."""
    parameters: dict[str, Any] = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    parameters |= job.record["hyperparameters"]
    try:
        config = read_run(context.workspace.place(job.run_id, False)).config
    except Exception:  # its folder is gone: what was requested is what is known
        return parameters
    numbers = config.flat() | auto_values(config, job.record["rows"])
    for name, path in _SETTINGS.items():
        parameters[name] = numbers[path]
    if parameters["learning_rate_multiplier"] == "auto":
        parameters["learning_rate_multiplier"] = 1.0
    return parameters


def event_objects(context: Context, job: StoredJob, run: Run | None) -> list[dict[str, Any]]:
    """FineTuningJobEvents, the newest first: the server's, the run's own, and its metrics."""
    events: list[tuple[float, int, dict[str, Any]]] = []

    def add(key: str, when: float, level: str, message: str, kind: str = "message", data: Any = None) -> None:
        event = {
            "id": f"ftevent-{job.run_id}-{key}",
            "object": "fine_tuning.job.event",
            "created_at": int(when),
            "level": level,
            "message": message,
            "type": kind,
            "data": data or {},
        }
        events.append((when, len(events), event))

    add("made", job.created, "info", f"Created fine-tuning job: {job_id(job.run_id)}")
    for noted in context.store.events(job.run_id):
        add(f"s{noted.id}", noted.created, noted.level, noted.message)
    if run is not None:
        with context.reading() as conn:
            _add_progress(conn, run, add)
        if run.started is not None:
            add("started", run.started, "info", "Fine-tuning job started")
        if run.state is RunState.DONE and run.finished is not None:
            name = model_id(context, run, suffix=job.record["suffix"])
            add("model", run.finished, "info", f"New fine-tuned model created: {name}")
            add("done", run.finished, "info", "The job has successfully completed")
    events.sort(key=lambda entry: entry[:2], reverse=True)
    return [event for _, _, event in events]


def _add_progress(conn: Connection, run: Run, add: Any) -> None:
    for event in queries.events(conn, run.id):
        if event.message:
            add(f"e{event.id}", event.time, "warn" if event.kind in _WARNINGS else "info", event.message)
    metrics: dict[int, tuple[float, dict[str, float]]] = {}
    for step, when, key, value in progress_queries.logged(conn, run.id, ("train/loss", "eval/loss")):
        name = "train_loss" if key == "train/loss" else "full_valid_loss"
        at = metrics.setdefault(step, (when or run.started or run.created, {}))
        if value is not None:
            at[1][name] = value
    of = run.total_steps or run.step
    for step, (when, values) in metrics.items():
        words = [f"training loss={values['train_loss']:.2f}"] if "train_loss" in values else []
        words += [f"validation loss={values['full_valid_loss']:.2f}"] if "full_valid_loss" in values else []
        data = {"step": step, "total_steps": of, **values}
        add(f"m{step}", when, "info", f"Step {step}/{of}: {', '.join(words)}", "metrics", data)


def checkpoint_objects(context: Context, job: StoredJob, run: Run | None) -> list[dict[str, Any]]:
    """FineTuningJobCheckpoints, the newest first."""
    if run is None:
        return []
    with context.reading() as conn:
        checkpoints = queries.checkpoints(conn, run.id)
        losses: dict[int, dict[str, float]] = {}
        for step, _, key, value in progress_queries.logged(conn, run.id, ("train/loss", "eval/loss")):
            if value is not None:
                losses.setdefault(step, {})["train_loss" if key == "train/loss" else "full_valid_loss"] = value
    return [
        {
            "id": f"ftckpt_{run.id}_{checkpoint.step}",
            "object": "fine_tuning.job.checkpoint",
            "created_at": int(checkpoint.time),
            "fine_tuned_model_checkpoint": model_id(context, run, checkpoint.step, job.record["suffix"]),
            "fine_tuning_job_id": job_id(job.run_id),
            "step_number": checkpoint.step,
            "metrics": {"step": checkpoint.step, **losses.get(checkpoint.step, {})},
        }
        for checkpoint in checkpoints
        if checkpoint.step > 0
    ]
