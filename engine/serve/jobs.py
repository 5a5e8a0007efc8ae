"""`/v1/fine_tuning/jobs`: a job is a run of the workspace, in its queue, on its screen, with its checkpoints.

A job is made as a run that is held while its files are read in another process; then it takes its turn, or ends as
failed with the line that is wrong. What the API knows of a job beyond its run is its record, in the run's config.json
and looked up in the server's store.
"""

import asyncio
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.base.errors import EngineError
from engine.base.worker_process import worker_command, worker_environment
from engine.control import Control
from engine.runs.run_folder import read_meta
from engine.serve.api_errors import ApiError, invalid, not_found, unsupported
from engine.serve.context import Context, context_of, in_thread
from engine.serve.fields import Fields, parse_object, read_body
from engine.serve.job_object import JOB, checkpoint_objects, event_objects, job_id, job_object, status_of
from engine.serve.models import HOSTED, default_base, find_model, slug
from engine.serve.pages import cut, page
from engine.settings.auto_values import auto_values
from engine.settings.presets import find_preset
from engine.settings.resolve import Layer, Resolved, read_run, resolve
from engine.store import queries
from engine.store.run_records import ACTIVE, Outcome, Run, RunState
from engine.store.serve_store import StoredJob

_SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".ndjson"})
_NO_METHOD = "Of the methods of fine-tuning 'supervised' is the one this server has."


async def create_job(request: Request) -> Response:
    """POST /v1/fine_tuning/jobs."""
    run_id, headers = await make_job(request)
    return JSONResponse(await in_thread(job_now, context_of(request), run_id), headers=headers)


async def make_job(
    request: Request, renamed: Callable[[Fields], Fields] = lambda fields: fields
) -> tuple[int, dict[str, str]]:
    """The run that a request becomes, or became before, and headers for the answer. `renamed` makes the fields those of
    `/v1/fine_tuning/jobs`. Raises ApiError."""
    context = context_of(request)
    raw = await read_body(request)
    fields = renamed(Fields(parse_object(raw)))
    digest = _digest(request, raw)
    is_new = await in_thread(context.store.begin_request, digest)
    if not is_new and _is_repeated(request):
        return await _made_before(context, digest), {}
    run_id = None
    try:
        record, resolved = await in_thread(_requested, context, fields)
        record["request"] = digest
        run_id = (await context.change(lambda control: control.add_all([resolved], held=True, meta={JOB: record})))[0]
        job = StoredJob(run_id, record["created"], "validating", record)
        await in_thread(context.store.add_job, job)
    except EngineError as error:
        raise ApiError(400, str(error), code="invalid_value") from None
    finally:
        await in_thread(context.store.finish_request, digest, run_id)
    start_check(context, job)
    return run_id, fields.headers


def _digest(request: Request, raw: bytes) -> str:
    """By which a request that is sent again is known: the client's own name for it, else its content."""
    idempotency_key = request.headers.get("idempotency-key")
    return hashlib.sha256(
        f"{request.url.path}\0{idempotency_key or ''}\0".encode() + (b"" if idempotency_key else raw)
    ).hexdigest()


def _is_repeated(request: Request) -> bool:
    """The official clients send a POST again that had no answer or a 5xx, and number the tries."""
    return request.headers.get("x-stainless-retry-count", "0") not in ("", "0") or "idempotency-key" in request.headers


async def _made_before(context: Context, digest: str) -> int:
    for _ in range(600):  # the first may still be at work
        run_id = await in_thread(context.store.request, digest)
        if run_id is not None:
            return run_id
        if await in_thread(context.store.begin_request, digest):  # the first was refused
            await in_thread(context.store.finish_request, digest, None)
            break
        await asyncio.sleep(0.05)
    raise ApiError(409, "The first such request has not ended; ask again.", headers={"retry-after": "1"})


def _requested(context: Context, fields: Fields) -> tuple[dict[str, Any], Resolved]:
    """The job's record and its run's settings. Raises ApiError and EngineError."""
    requested_model = fields.required_text("model", 256)
    training = _file(context, fields, "training_file")
    if training is None:
        raise ApiError(400, "'training_file' is missing.", code="missing_required_parameter", param="training_file")
    validation = _file(context, fields, "validation_file")
    suffix = fields.text("suffix", shortest=1, longest=64)
    seed = fields.integer("seed", 0, 2**31 - 1)
    metadata = fields.metadata()
    if fields.listed("integrations", 10):
        raise unsupported("integrations", "Integrations are not supported; finetop keeps all metrics in runs.db.")
    parameters = _hyperparameters(fields)
    settings = _own_settings(fields)
    fields.finish()
    base, checkpoint, remark = _base(context, requested_model)
    values: dict[str, Any] = {"model.name": base, "data.files": [training[1]]}
    if checkpoint:
        values["model.checkpoint"] = checkpoint
    if validation:
        values["data.val_files"] = [validation[1]]
    if seed is not None:
        values["train.seed"] = seed
    for name, path in (("n_epochs", "train.epochs"), ("batch_size", "train.batch_size")):
        if parameters.get(name, "auto") != "auto":
            values[path] = parameters[name]
    name = "-".join(filter(None, [slug(base), _clean(suffix or Path(training[2]).stem)]))
    layers = [Layer("API", values | {"run.name": name})]
    if preset := settings.pop("preset", None):
        layers.insert(0, Layer(f"preset {preset}", find_preset(str(preset)).settings()))
    layers.append(Layer("finetop", settings))
    resolved = resolve(layers)
    rows = _rows(training[1])
    multiplier = parameters.get("learning_rate_multiplier", "auto")
    if multiplier != "auto":
        chosen = auto_values(resolved.config, rows).get("optim.learning_rate", resolved.config.optim.learning_rate)
        resolved = resolve([*layers, Layer("API", {"optim.learning_rate": chosen * multiplier})])
    record = {
        "created": int(time.time()),
        "asked": requested_model,
        "training_file": training[0],
        "validation_file": validation[0] if validation else None,
        "suffix": suffix or "",
        "seed": seed if seed is not None else resolved.config.train.seed,
        "metadata": metadata,
        "hyperparameters": parameters,
        "rows": rows,
        "remark": remark,
    }
    return record, resolved


def _clean(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-")[:64]


def _file(context: Context, fields: Fields, param: str) -> tuple[str, str, str] | None:
    """(id, path of its bytes, the name it came with). The path is a name of its own, so that a file may be deleted
    while a job trains on it."""
    file_id = fields.text(param, shortest=1, longest=100)
    if file_id is None:
        return None
    stored = context.store.file(file_id)
    path = context.file_path(file_id)
    if stored is None or not path.exists():
        raise ApiError(400, f"There is no file {file_id}.", code="file_not_found", param=param)
    suffix = os.path.splitext(stored.filename)[1].lower()
    held = context.files / "trained" / f"{stored.sha256[:24]}{suffix if suffix in _SUFFIXES else '.jsonl'}"
    held.parent.mkdir(mode=0o700, exist_ok=True)
    if not held.exists():
        os.link(path, held)
    return file_id, str(held), stored.filename


def _rows(path: str) -> int:
    with open(path, "rb") as file:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    return max(1, lines)


def _hyperparameters(fields: Fields) -> dict[str, Any]:
    """`hyperparameters`, or those of `method`; each a number or 'auto'."""
    old, method = fields.object("hyperparameters"), fields.object("method")
    chosen = old
    if method is not None:
        kind = method.text("type") or "supervised"
        if kind != "supervised" or method.has("dpo") or method.has("reinforcement"):
            raise unsupported("method.type", f"Unsupported method '{kind[:40]}'. {_NO_METHOD}")
        supervised = method.object("supervised")
        method.finish()
        chosen = supervised.object("hyperparameters") if supervised is not None else None
        if supervised is not None:
            supervised.finish()
        if chosen is not None and old is not None:
            raise invalid("hyperparameters", "Give the hyperparameters in 'method' or beside it, not both.")
    if chosen is None:
        return {}
    chosen_values: dict[str, Any] = {}
    for name, read in (
        ("n_epochs", lambda key: chosen.integer(key, 1, 50)),
        ("batch_size", lambda key: chosen.integer(key, 1, 256)),
        ("learning_rate_multiplier", lambda key: chosen.number(key, 1e-6, 1e4)),
    ):
        if chosen.any(name) == "auto":
            chosen_values[name] = "auto"
        elif (value := read(name)) is not None:
            chosen_values[name] = value
    chosen.finish()
    return chosen_values


def _own_settings(fields: Fields) -> dict[str, Any]:
    """`extra_body={"finetop": {"lora.r": 32}}`: every setting by its path, but for those that name files and code."""
    finetop_fields = fields.object("finetop")
    settings = dict(finetop_fields.items()) if finetop_fields is not None else {}
    for path in settings:
        if path in _NOT_FROM_REQUESTS or (path.startswith("data.") and path not in _DATA_FROM_REQUESTS):
            raise unsupported(f"finetop.{path}", f"'{path[:80]}' cannot be set by a request.")
    return settings


_NOT_FROM_REQUESTS = frozenset(
    {
        "model.name",
        "model.revision",
        "model.checkpoint",
        "model.trust_remote_code",
        "eval.command",
        "eval.schema",
        "run.gpus",
    }
)
_DATA_FROM_REQUESTS = frozenset(
    {
        "data.max_length",
        "data.overlong",
        "data.train_on",
        "data.thinking",
        "data.val_fraction",
        "data.seed",
        "data.system",
    }
)


def _base(context: Context, requested_model: str) -> tuple[str, str, str]:
    """(base model, checkpoint to start from, what to say of it) for the model that a request names."""
    try:
        ref, remark = find_model(context, requested_model)
    except ApiError as error:
        if error.status != 404:
            raise
        with context.reading() as conn:
            base = default_base(context, queries.list_runs(conn))
        return base, "", f"'{requested_model[:100]}' is not known here: {slug(base)} is trained in its place."
    if ref.step is not None:
        return ref.config.model.name, str(ref.checkpoint), f"Training starts from run {ref.run}, step {ref.step}."
    if HOSTED.match(requested_model) or remark:
        return ref.base, "", f"'{requested_model[:100]}' stands for {slug(ref.base)}, which is trained."
    return ref.base, "", ""


# what is being done with them


def start_check(context: Context, job: StoredJob) -> None:
    """Read the job's files beside everything else, then let it take its turn."""
    task = asyncio.get_running_loop().create_task(_check(context, job))
    context.tasks.add(task)
    task.add_done_callback(context.tasks.discard)


async def _check(context: Context, job: StoredJob) -> None:
    store, run_id = context.store, job.run_id
    folder = context.workspace.runs / str(run_id)
    if job.record.get("remark"):
        store.note(run_id, job.record["remark"], "warn")
    store.note(run_id, f"Validating training file: {job.record['training_file']}")
    config = read_run(folder).config
    files = [*config.data.files[:1], *config.data.val_files[:1]]
    process = await asyncio.create_subprocess_exec(
        *worker_command(*files, module="engine.serve.check_files"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=worker_environment(),
    )
    out, _ = await process.communicate()
    for path in files:  # where it lies is nobody's business
        out = out.replace(json.dumps(path)[1:-1].encode(), b"file")
    checked = [json.loads(line) for line in out.splitlines()]
    names = [("training_file", job.record["training_file"]), ("validation_file", job.record["validation_file"])]
    for (param, file_id), report in zip(names, checked, strict=False):
        if report["error"]:
            message = "\n".join([report["error"].partition("\n")[0], *report["problems"]])
            error = {"code": f"invalid_{param}", "param": param, "message": f"{file_id}: {message}"}
            store.set_status(run_id, "failed", error=error)
            store.note(run_id, f"{file_id} cannot be used: {message}", "error")
            await context.change(partial(_refuse, run_id, error["message"]))
            return
        if report["bad_rows"]:
            first = report["problems"][0] if report["problems"] else ""
            store.note(run_id, f"{file_id}: {report['bad_rows']} rows are left out, the first is {first}", "warn")
    if len(checked) < len(files):
        store.note(run_id, "The files could not be read beforehand; the run will tell.", "warn")
    now = store.job(run_id)
    if now is not None and now.status == "validating":
        store.set_status(run_id, "")
        store.note(run_id, "Files validated, moving job to queued state")
        await context.change(lambda control: control.release(run_id))


def _refuse(run_id: int, why: str, control: Control) -> Outcome:
    return control.refuse(run_id, why)


def adopt(context: Context) -> list[StoredJob]:
    """After the server was killed: jobs whose run was made and not written down are written down; those whose files
    have not been read are returned."""
    with context.reading() as conn:
        runs = queries.list_runs(conn)
    written_down = {job.run_id for job in context.store.jobs()}
    for run in runs:
        record = read_meta(context.workspace.runs / str(run.id)).get(JOB) if run.id not in written_down else None
        if isinstance(record, dict):
            is_waiting = run.state is RunState.QUEUED and run.held
            context.store.add_job(StoredJob(run.id, record["created"], "validating" if is_waiting else "", record))
            context.store.finish_request(record.get("request", ""), run.id)
    context.store.forget_unfinished()
    held = {run.id for run in runs if run.state is RunState.QUEUED}
    return [job for job in context.store.jobs() if job.status == "validating" and job.run_id in held]


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
    shown, has_more = cut(request, [{"id": job_id(job), "run": job.run_id} for job in jobs], default=20, most=100)
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
