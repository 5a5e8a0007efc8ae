"""`/v1/fine-tunes` of the client and command line of openai 0.28: the same jobs, in the older form."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.serve import jobs
from engine.serve.answers import DONE, event_stream, sse
from engine.serve.api_errors import not_found
from engine.serve.context import Context, context_of, in_thread
from engine.serve.fields import Fields
from engine.serve.files import file_object
from engine.serve.job_object import event_objects
from engine.serve.job_requests import make_job
from engine.store import queries
from engine.store.serve_store import StoredFile

_STATUS = {"validating_files": "pending", "queued": "pending"}
_CHANGES_NOTHING = (
    "prompt_loss_weight", "compute_classification_metrics", "classification_n_classes",
    "classification_positive_class", "classification_betas",
)  # fmt: skip
_FOLLOW_SECONDS = 0.5


def _renamed(fields: Fields) -> Fields:
    """The body of a job as `/v1/fine_tuning/jobs` takes it."""
    body: dict[str, Any] = dict(fields.items())
    parameters = {
        name: body.pop(name) for name in ("n_epochs", "batch_size", "learning_rate_multiplier") if name in body
    }
    parameters = {name: number for name, number in parameters.items() if number is not None}
    body.setdefault("model", "curie")
    ignored = [name for name in _CHANGES_NOTHING if body.pop(name, None) is not None]
    renamed = Fields(body | ({"hyperparameters": parameters} if parameters else {}))
    renamed.ignored += ignored
    return renamed


async def create(request: Request) -> Response:
    """POST /v1/fine-tunes."""
    run_id, headers = await make_job(request, _renamed)
    return JSONResponse(await in_thread(_shown, context_of(request), run_id), headers=headers)


async def list_all(request: Request) -> Response:
    """GET /v1/fine-tunes: not paged."""
    context = context_of(request)

    def listed() -> list[dict[str, Any]]:
        return [_shown(context, job.run_id, with_events=False) for job in reversed(context.store.jobs())]

    return JSONResponse({"object": "list", "data": await in_thread(listed)})


async def retrieve(request: Request) -> Response:
    """GET /v1/fine-tunes/{job}."""
    return JSONResponse(await in_thread(_shown, context_of(request), _run_id(request)))


async def cancel(request: Request) -> Response:
    """POST /v1/fine-tunes/{job}/cancel."""
    request.path_params["job"] = f"ftjob-{_run_id(request)}"
    await jobs.cancel_job(request)
    return JSONResponse(await in_thread(_shown, context_of(request), _run_id(request)))


async def events(request: Request) -> Response:
    """GET /v1/fine-tunes/{job}/events; with `stream=true` as they come, until the job has ended."""
    context, run_id = context_of(request), _run_id(request)
    if request.query_params.get("stream") == "true":
        return event_stream(_follow(context, run_id), {})
    return JSONResponse({"object": "list", "data": await in_thread(_events, context, run_id)})


def _run_id(request: Request) -> int:
    name: str = request.path_params["job"]
    number = name.removeprefix("ft-").removeprefix("ftjob-")
    job = context_of(request).store.job(int(number)) if number.isdecimal() and len(number) < 19 else None
    if job is None:
        raise not_found("fine-tune", name, "fine_tune_id")
    return job.run_id


def _events(context: Context, run_id: int) -> list[dict[str, Any]]:
    """The oldest first."""
    job = context.store.job(run_id)
    assert job is not None
    with context.reading() as conn:
        run = queries.run(conn, run_id)
    return [
        {"object": "fine-tune-event", **{name: event[name] for name in ("created_at", "level", "message")}}
        for event in reversed(event_objects(context, job, run))
    ]


async def _follow(context: Context, run_id: int) -> AsyncIterator[bytes]:
    sent = 0
    while True:
        job = await in_thread(jobs.job_now, context, run_id)
        listed = await in_thread(_events, context, run_id)
        for event in listed[sent:]:
            yield sse(event)
        sent = len(listed)
        if job["status"] in ("succeeded", "failed", "cancelled"):
            yield DONE
            return
        await asyncio.sleep(_FOLLOW_SECONDS)


def _shown(context: Context, run_id: int, with_events: bool = True) -> dict[str, Any]:
    job = jobs.job_now(context, run_id)

    def file(file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        stored = context.store.file(file_id) or StoredFile(file_id, job["created_at"], 0, "deleted", "fine-tune", "")
        return [file_object(stored)]

    status = job["status"]
    shown = {
        "id": f"ft-{run_id}",
        "object": "fine-tune",
        "model": job["model"],
        "created_at": job["created_at"],
        "updated_at": job["finished_at"] or job["created_at"],
        "fine_tuned_model": job["fine_tuned_model"],
        "hyperparams": job["hyperparameters"],
        "organization_id": job["organization_id"],
        "result_files": [entry for name in job["result_files"] for entry in file(name)],
        "status": _STATUS.get(status, status),
        "training_files": file(job["training_file"]),
        "validation_files": file(job["validation_file"]),
    }
    return shown | ({"events": _events(context, run_id)} if with_events else {})
