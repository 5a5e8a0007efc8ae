"""The application: which path is answered by what."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from engine.control import Control
from engine.daemon import daemon_client, server_state
from engine.serve import (
    chat,
    completions,
    files,
    input_items,
    job_checks,
    jobs,
    legacy_jobs,
    models,
    responses,
    stored_chat,
)
from engine.serve.access import Access
from engine.serve.context import Context, in_thread
from engine.serve.key_usage import WRITE_SECONDS
from engine.serve.keys import ADMIN, INFER, TRAIN, Keys, ScopedRoute
from engine.store import queries

DAEMON_SECONDS = 1.0
KEPT_SECONDS = 600.0
"""Between two looks for what has been kept long enough."""
_JOB = "/v1/fine_tuning/jobs/{job}"
_CHAT = "/v1/chat/completions/{completion}"
ROUTES = (  # which keys may, is the last of each: one of these scopes
    ScopedRoute("POST", "/v1/files", files.create_file, TRAIN),
    ScopedRoute("GET", "/v1/files", files.list_files, TRAIN),
    ScopedRoute("GET", "/v1/files/{file}", files.retrieve_file, TRAIN),
    ScopedRoute("DELETE", "/v1/files/{file}", files.delete_file, TRAIN),
    ScopedRoute("GET", "/v1/files/{file}/content", files.file_content, TRAIN),
    ScopedRoute("POST", "/v1/fine_tuning/jobs", jobs.create_job, TRAIN),
    ScopedRoute("GET", "/v1/fine_tuning/jobs", jobs.list_jobs, TRAIN),
    ScopedRoute("GET", _JOB, jobs.retrieve_job, TRAIN),
    ScopedRoute("GET", f"{_JOB}/events", jobs.list_events, TRAIN),
    ScopedRoute("GET", f"{_JOB}/checkpoints", jobs.list_checkpoints, TRAIN),
    ScopedRoute("POST", f"{_JOB}/cancel", jobs.cancel_job, TRAIN),
    ScopedRoute("POST", f"{_JOB}/pause", jobs.pause_job, TRAIN),
    ScopedRoute("POST", f"{_JOB}/resume", jobs.resume_job, TRAIN),
    ScopedRoute("GET", "/v1/models", models.list_models, INFER, TRAIN, ADMIN),
    ScopedRoute("GET", "/v1/models/{model:path}", models.retrieve_model, INFER, TRAIN, ADMIN),
    ScopedRoute("DELETE", "/v1/models/{model:path}", models.delete_model, ADMIN),
    ScopedRoute("POST", "/v1/chat/completions", chat.create_chat_completion, INFER),
    ScopedRoute("GET", "/v1/chat/completions", stored_chat.list_completions, INFER),
    ScopedRoute("GET", _CHAT, stored_chat.retrieve_completion, INFER),
    ScopedRoute("POST", _CHAT, stored_chat.update_completion, INFER),
    ScopedRoute("DELETE", _CHAT, stored_chat.delete_completion, INFER),
    ScopedRoute("GET", f"{_CHAT}/messages", stored_chat.list_messages, INFER),
    ScopedRoute("POST", "/v1/responses", responses.create_response, INFER),
    ScopedRoute("GET", "/v1/responses/{response}", responses.retrieve_response, INFER),
    ScopedRoute("DELETE", "/v1/responses/{response}", responses.delete_response, INFER),
    ScopedRoute("POST", "/v1/responses/{response}/cancel", responses.cancel_response, INFER),
    ScopedRoute("GET", "/v1/responses/{response}/input_items", input_items.list_input_items, INFER),
    ScopedRoute("POST", "/v1/fine-tunes", legacy_jobs.create, TRAIN),
    ScopedRoute("GET", "/v1/fine-tunes", legacy_jobs.list_all, TRAIN),
    ScopedRoute("GET", "/v1/fine-tunes/{job}", legacy_jobs.retrieve, TRAIN),
    ScopedRoute("POST", "/v1/fine-tunes/{job}/cancel", legacy_jobs.cancel, TRAIN),
    ScopedRoute("GET", "/v1/fine-tunes/{job}/events", legacy_jobs.events, TRAIN),
    ScopedRoute("POST", "/v1/completions", completions.create_completion, INFER),
)


async def health(request: Request) -> Response:
    """GET /health: that somebody is there, without a key."""
    return JSONResponse({"status": "ok"})


async def _look_after_daemon(context: Context) -> None:
    """Whoever waits for a job waits for a daemon, and a server that is to go on is looked after by one: where it was
    killed another is started."""
    while True:
        await asyncio.sleep(DAEMON_SECONDS)
        try:
            if await in_thread(_needs_daemon, context):
                await context.change(Control.start_daemon)
        except Exception:
            logging.getLogger("finetop.serve").exception("the daemon cannot be looked after")


async def _write_usage(context: Context) -> None:
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        try:
            await in_thread(context.usage.write)
        except Exception:
            logging.getLogger("finetop.serve").exception("what the keys used cannot be written down")


async def _delete_old(context: Context) -> None:
    while days := context.config.keep_days:
        try:
            await in_thread(context.completions.remove_older, days * 86400)
        except Exception:
            logging.getLogger("finetop.serve").exception("stored completions cannot be deleted")
        await asyncio.sleep(KEPT_SECONDS)


def _needs_daemon(context: Context) -> bool:
    if daemon_client.status(context.workspace).running:
        return False
    if server_state.kept(context.workspace) is not None:
        return True
    with context.reading() as conn:
        return bool(queries.queue(conn) or queries.active(conn))


def make_app(context: Context, keys: Keys, hosts: Collection[str], origins: Collection[str] = ()) -> ASGIApp:
    """`hosts`: what requests may call this server, with its port."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        for job in job_checks.adopt(context):
            job_checks.start_check(context, job)
        loop = asyncio.get_running_loop()
        upkeep = [loop.create_task(care(context)) for care in (_look_after_daemon, _write_usage, _delete_old)]
        yield
        for task in upkeep:
            task.cancel()
        context.close()

    app = Starlette(routes=[Route("/health", health, methods=["GET"]), *ROUTES], lifespan=lifespan)
    app.state.context = context
    app.router.redirect_slashes = False
    return Access(_without_handlers(app), keys, hosts, origins)


def _without_handlers(app: Starlette) -> ASGIApp:
    """Its routes alone: starlette's own layers answer errors in other forms than ours."""

    async def routed(scope, receive, send):  # type: ignore[no-untyped-def]
        scope["app"] = app
        await app.router(scope, receive, send)

    return routed
