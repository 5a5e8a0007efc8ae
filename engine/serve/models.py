"""The names of models: what a program may ask for, and which weights that is.

    ft:starter:work:support:41                   run 41's newest checkpoint, while it trains, too
    ft:starter:work:support:41:ckpt-step-1200    that checkpoint
    41@best  41@1200  41@base                    the same, as commands name them
    starter, Qwen/Qwen2.5-7B-Instruct            the bases of the workspace's runs, and the default
    an alias of serve.toml

Nothing in a request is a path or a name to download: what is not one of these is not found.
"""

import re
import time
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.base.errors import EngineError
from engine.base.workspace import parse_checkpoint_name
from engine.runs.model_refs import ModelRef, find_model_refs
from engine.serve.api_errors import ApiError, not_found
from engine.serve.context import Context, context_of, in_thread
from engine.settings.presets import STARTER_MODEL
from engine.store import queries
from engine.store.connect import Connection
from engine.store.run_records import Run, RunState

OWNER = "finetop"
HOSTED = re.compile(r"(gpt-|o[1-9](-|$)|chatgpt-|text-|davinci|babbage|curie|ada$)")
"""Names of models that OpenAI hosts: they mean the default."""
_FINE_TUNED = re.compile(
    r"ft:(?P<base>.*):(?P<workspace>[^:]*):(?P<suffix>[^:]*):(?P<run>[1-9]\d{0,17})(:ckpt-step-(?P<step>\d{1,18}))?"
)
_RUN = re.compile(r"[1-9]\d{0,17}(@[a-z0-9-]+)?")


def slug(name: str) -> str:
    """A base's name in a model id: its last part, in small letters."""
    return re.sub(r"[^a-z0-9._-]+", "-", Path(name).name.lower()).strip("-") or "model"


def model_id(context: Context, run: Run, step: int | None = None, suffix: str | None = None) -> str:
    """The name of what a run makes, or of one of its checkpoints."""
    if suffix is None:
        job = context.store.job(run.id)
        suffix = job.record.get("suffix") or "" if job else slug(run.name)
    name = f"ft:{slug(run.model)}:{slug(context.workspace.root.name)}:{suffix}:{run.id}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def default_base(context: Context, conn: Connection) -> str:
    """What a name that is not known means where a model is trained."""
    return context.config.default or next(iter(queries.base_models(conn)), str(STARTER_MODEL))


def find_model(context: Context, name: str) -> tuple[ModelRef, str]:
    """The model, and a remark on it: not empty where a name stands for another. Raises ApiError."""
    remark = ""
    target = context.config.aliases.get(name)
    if target is not None:
        remark = f"{name} is an alias of {target}"
        name = target
    try:
        with context.reading() as conn:
            reference = _reference(context, conn, name)
            base = default_base(context, conn) if reference is None else ""
        if reference is not None:
            return find_model_refs(context.workspace, [reference])[0], remark
        if HOSTED.match(name):
            return find_model_refs(context.workspace, [base])[0], f"{name} is answered by {slug(base)}"
        raise ApiError(
            404,
            f"The model '{name[:200]}' does not exist here; GET /v1/models lists those that do, and [aliases] in "
            "serve.toml gives them other names.",
            code="model_not_found",
            param="model",
        )
    except EngineError as error:
        raise ApiError(404, str(error), code="model_not_found", param="model") from None


def _trained(context: Context, conn: Connection, name: str) -> tuple[Run, int | None] | None:
    """The run, and the step where it names one, of a fine-tuned model's name."""
    match = _FINE_TUNED.fullmatch(name)
    run = queries.run(conn, int(match["run"])) if match else None
    if match is None or run is None or run.trashed is not None:
        return None
    if model_id(context, run) != name.partition(":ckpt-step-")[0]:
        return None
    return run, int(match["step"]) if match["step"] else None


def _reference(context: Context, conn: Connection, name: str) -> str | None:
    """As `find_model_refs` takes it; None: no name of a model here."""
    if trained := _trained(context, conn, name):
        run, step = trained
        return f"{run.id}@{step or 'latest'}"
    if _RUN.fullmatch(name):
        named_run = queries.run(conn, int(name.partition("@")[0]))
        if named_run is None or named_run.trashed is not None:
            return None
        if not name.endswith("@base"):
            parse_checkpoint_name(name)
        return name
    bases = {default_base(context, conn), *queries.base_models(conn)}
    bases |= {target for target in context.config.aliases.values() if not target.startswith("ft:")}
    return next((base for base in sorted(bases) if name == base or name == slug(base)), None)


def _listed(context: Context) -> list[dict[str, Any]]:
    """All models, bases first, then runs, the newest first, each with its checkpoints."""
    with context.reading() as conn:
        runs = queries.list_runs(conn)
        checkpoints: dict[int, list[tuple[int, float]]] = {}
        for checkpoint in queries.checkpoints(conn):
            checkpoints.setdefault(checkpoint.run_id, []).append((checkpoint.step, checkpoint.time))
        bases = dict.fromkeys([default_base(context, conn), *queries.base_models(conn)])
    jobs = {job.run_id: job.record.get("suffix") or "" for job in context.store.jobs()}
    entries = [_model(slug(base), time.time()) for base in bases]
    entries += [_model(alias, time.time()) for alias in context.config.aliases]
    for run in sorted(runs, key=lambda run: -run.id):
        saved = checkpoints.get(run.id)
        if not saved:
            continue
        suffix = jobs.get(run.id, slug(run.name))
        name = model_id(context, run, suffix=suffix)
        entries.append(_model(name, max(when for _, when in saved)))
        entries += [_model(f"{name}:ckpt-step-{step}", when) for step, when in saved]
    return list({entry["id"]: entry for entry in entries}.values())


def _model(name: str, created: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created), "owned_by": OWNER}


async def list_models(request: Request) -> Response:
    """GET /v1/models: not paged."""
    return JSONResponse({"object": "list", "data": await in_thread(_listed, context_of(request))})


async def retrieve_model(request: Request) -> Response:
    """GET /v1/models/{model}, whose name may hold slashes."""
    context, name = context_of(request), request.path_params["model"]
    entry = next((entry for entry in await in_thread(_listed, context) if entry["id"] == name), None)
    if entry is None:
        await in_thread(find_model, context, name)  # raises where there is no such model
        entry = _model(name, time.time())
    return JSONResponse(entry)


async def delete_model(request: Request) -> Response:
    """DELETE /v1/models/{model}: the run goes to the trash, a checkpoint likewise. Nothing is lost for good."""
    context, name = context_of(request), request.path_params["model"]
    with context.reading() as conn:
        trained = _trained(context, conn, name)
    if trained is None:
        if name in {entry["id"] for entry in await in_thread(_listed, context)}:
            raise ApiError(
                403, "Only models that were trained here can be deleted.", code="not_deletable", param="model"
            )
        raise not_found("model", name, "model")
    if used := [alias for alias, target in context.config.aliases.items() if target == name]:
        raise ApiError(409, f"'{used[0]}' in serve.toml is an alias of it.", code="model_in_use", param="model")
    run, step = trained
    if step is not None:
        outcome = await context.change(lambda control: control.delete_checkpoint(run.id, step, force=True))
    elif run.state in (RunState.STARTING, RunState.RUNNING):
        raise ApiError(
            409, f"Run {run.id} is still training; cancel its job first.", code="model_in_use", param="model"
        )
    else:
        outcome = await context.change(lambda control: control.trash(run.id))
    if not outcome:
        raise ApiError(409, outcome.why, code="model_in_use", param="model")
    return JSONResponse({"id": name, "object": "model", "deleted": True})
