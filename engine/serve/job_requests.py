"""The request for a job: its fields, the settings that they become, and the run that is made of them, once however
often the request is sent.

The run is held while its files are read (`job_checks`). What the API knows of a job beyond its run is its record, in
the run's config.json and looked up in the server's store.
"""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request

from engine.base.errors import EngineError
from engine.serve.api_errors import ApiError, invalid, unsupported
from engine.serve.context import Context, context_of, in_thread
from engine.serve.fields import Fields, parse_object, read_body
from engine.serve.job_checks import start_check
from engine.serve.keys import caller_of
from engine.serve.models import HOSTED, default_base, find_model, slug
from engine.settings.auto_values import auto_values
from engine.settings.presets import find_preset
from engine.settings.resolve import Layer, Resolved, resolve
from engine.store.serve_store import JOB, StoredJob

_SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".ndjson"})
_NO_METHOD = "Of the methods of fine-tuning 'supervised' is the one this server has."


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
        record |= {"request": digest, "key": caller_of(request).name}
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
            base = default_base(context, conn)
        return base, "", f"'{requested_model[:100]}' is not known here: {slug(base)} is trained in its place."
    if ref.step is not None:
        return ref.config.model.name, str(ref.checkpoint), f"Training starts from run {ref.run}, step {ref.step}."
    if HOSTED.match(requested_model) or remark:
        return ref.base, "", f"'{requested_model[:100]}' stands for {slug(ref.base)}, which is trained."
    return ref.base, "", ""
