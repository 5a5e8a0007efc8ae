"""`/v1/fine_tuning/jobs`: a job is a run of the workspace, in its queue, on its screen, with its checkpoints."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.serve.api_errors import ApiError, not_found
from engine.serve.context import Context, context_of, in_thread
from engine.serve.fields import Fields, parse_object, read_body
from engine.serve.job_object import checkpoint_objects, event_objects, job_object
from engine.serve.job_requests import make_job
from engine.serve.pages import cut, page
from engine.store import queries
from engine.store.run_records import ACTIVE, Run, RunState
from engine.store.serve_store import StoredJob, job_id, status_of


async def create_job(request: Request) -> Response:
    """POST /v1/fine_tuning/jobs."""
    run_id, headers = await make_job(request)
    return JSONResponse(await in_thread(job_now, context_of(request), run_id), headers=headers)


# looking


def _find(context: Context, job_id: str) -> tuple[StoredJob, Run | None]:
    match = re.fullmatch(r"ftjob-([1-9]\d{0,17})", job_id)
    job = context.store.job(int(match[1])) if match else None
    if job is None:
        raise not_found("fine-tuning job", job_id, "fine_tuning_job_id")
    with context.reading() as conn:
        return job, queries.run(conn, job.run_id)


def job_now(context: Context, run_id: int) -> dict[str, Any]:
    """The job of a run that is known to have one."""
    job = context.store.job(run_id)
    assert job is not None
    with context.reading() as conn:
        return job_object(context, conn, job, queries.run(conn, run_id))


async def list_jobs(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs, filtered by `metadata[key]=value` or `metadata=null`."""
    context = context_of(request)
    jobs = await in_thread(context.store.jobs)
    for name, value in request.query_params.multi_items():
        if match := re.fullmatch(r"metadata\[(.+)\]", name):
            jobs = [job for job in jobs if (job.record.get("metadata") or {}).get(match[1]) == value]
        elif name == "metadata" and value == "null":
            jobs = [job for job in jobs if not job.record.get("metadata")]
    shown, has_more = cut(
        request, [{"id": job_id(job.run_id), "run": job.run_id} for job in jobs], default=20, most=100
    )
    objects = [await in_thread(job_now, context, entry["run"]) for entry in shown]  # a config is read for each
    return JSONResponse({"object": "list", "data": objects, "has_more": has_more})


async def retrieve_job(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{job}."""
    context = context_of(request)
    job, _ = await in_thread(_find, context, request.path_params["job"])
    return JSONResponse(await in_thread(job_now, context, job.run_id))


async def list_events(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{job}/events."""
    context = context_of(request)
    job, run = await in_thread(_find, context, request.path_params["job"])
    return page(request, await in_thread(event_objects, context, job, run), default=20, most=1000)


async def list_checkpoints(request: Request) -> Response:
    """GET /v1/fine_tuning/jobs/{job}/checkpoints."""
    context = context_of(request)
    job, run = await in_thread(_find, context, request.path_params["job"])
    return page(request, await in_thread(checkpoint_objects, context, job, run), default=10, most=100, ends=True)


# acting


async def cancel_job(request: Request) -> Response:
    """POST …/cancel: the run saves and stops, or leaves the queue."""
    context, job, run = await _acting(request)
    status = status_of(job, run)
    if status in ("succeeded", "failed", "cancelled"):
        raise ApiError(400, f"Job {request.path_params['job']} has already {_ENDED[status]}.", code="invalid_state")
    await in_thread(context.store.set_status, job.run_id, "cancelled")
    await in_thread(context.store.note, job.run_id, "The job was cancelled")
    await context.change(lambda control: control.stop(job.run_id))
    return JSONResponse(await in_thread(job_now, context, job.run_id))


_ENDED = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled"}


async def pause_job(request: Request) -> Response:
    """POST …/pause: a waiting run is held, one at work saves, stops and is kept."""
    context, job, run = await _acting(request)
    if run is None or job.status == "paused" or status_of(job, run) not in ("queued", "running", "validating_files"):
        raise ApiError(400, f"Job {request.path_params['job']} is not at work or waiting.", code="invalid_state")
    await in_thread(context.store.set_status, job.run_id, "paused")
    await in_thread(context.store.note, job.run_id, "The job is paused")
    act = (
        (lambda control: control.stop(job.run_id))
        if run.state in ACTIVE
        else (lambda control: control.hold(job.run_id))
    )
    await context.change(act)
    return JSONResponse(await in_thread(job_now, context, job.run_id))


async def resume_job(request: Request) -> Response:
    """POST …/resume: a paused job waits for its turn again and goes on where it was."""
    context, job, run = await _acting(request)
    if run is None or job.status != "paused":
        raise ApiError(400, f"Job {request.path_params['job']} is not paused.", code="invalid_state")
    if run.state in ACTIVE:
        raise ApiError(409, "The job is still saving; ask again.", code="invalid_state", headers={"retry-after": "1"})
    if run.state is RunState.QUEUED:
        outcome = await context.change(lambda control: control.release(job.run_id))
    else:
        outcome = await context.change(lambda control: control.resume(job.run_id))
    if not outcome:
        raise ApiError(409, outcome.why, code="invalid_state")
    await in_thread(context.store.set_status, job.run_id, "")
    await in_thread(context.store.note, job.run_id, "The job is resumed")
    return JSONResponse(await in_thread(job_now, context, job.run_id))


async def _acting(request: Request) -> tuple[Context, StoredJob, Run | None]:
    """The job that a request without fields acts on."""
    fields = Fields(parse_object(raw)) if (raw := await read_body(request)).strip() else Fields({})
    fields.finish()
    context = context_of(request)
    return context, *await in_thread(_find, context, request.path_params["job"])
