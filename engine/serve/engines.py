"""Asking the processes that hold models, one for each base.

The daemon starts them (`engine.daemon.engine_watch`): an engine that is needed and not there is asked for, and whoever
asked the server waits for it, or is told what it waits for and when to come again. When an engine dies, what it was
answering ends with an error; what it had not begun is asked of the next one.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import anyio.to_thread

from engine.base.engine_folder import EngineFolder, EngineWish
from engine.base.workspace import Workspace
from engine.daemon import daemon_client
from engine.plan.engine_memory import answering_bytes
from engine.plan.hardware import queue_device, queue_inputs
from engine.runs.model_refs import ModelRef
from engine.serve.api_errors import ApiError
from engine.settings.presets import STARTER_MODEL

RETRY_SECONDS = 2
_START_SECONDS = 60.0
"""For a daemon that is started, and a first engine that imports torch, on a busy machine."""
_ASK_AGAIN_SECONDS = 1.0
"""A wish is repeated: the daemon that has taken it may be gone."""
_LONGEST_LINE = 64 * 2**20


class Engines:
    """Of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._asked_at: dict[str, float] = {}
        """By the engine's name: when the daemon was last asked for it, by `monotonic()`."""

    async def ask(self, ref: ModelRef, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The engine's lines on this request, without `done`. Raises ApiError for `error`, where there is no
        room for an engine, and where it dies. Closing the generator cancels the request."""
        if ref.base == "starter":  # by whatever name: one engine
            ref = replace(ref, base=str(STARTER_MODEL))
        question = json.dumps({"model": ref.to_json(), **request}).encode() + b"\n"
        folder = self._folder(ref)
        for is_last in (False, True):
            is_begun = False
            reader, writer = await self._connect(folder, ref)
            try:
                writer.write(question)
                while line := await reader.readline():
                    is_begun = True
                    event = json.loads(line)
                    if event["kind"] == "done":
                        return
                    if event["kind"] == "error":
                        raise _refusal(event)
                    yield event
            except (ConnectionError, asyncio.IncompleteReadError, ValueError):
                pass
            finally:
                writer.close()
            if is_begun or is_last:
                raise _unavailable(
                    f"The model's process has died, and is started again at the next request. Log: {folder.log}"
                )

    def _folder(self, ref: ModelRef) -> EngineFolder:
        config = ref.config
        same = (ref.base, config.model.revision, config.method.kind == "qlora", config.model.dtype)
        slug = re.sub(r"[^a-z0-9.]+", "-", ref.base.rstrip("/").rpartition("/")[2].lower()).strip("-.")[:24]
        name = f"{slug or 'model'}-{hashlib.sha256(repr(same).encode()).hexdigest()[:8]}"
        return EngineFolder(self._workspace.private / "engines" / name)

    async def _connect(self, folder: EngineFolder, ref: ModelRef) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises ApiError where there is no engine to be had now."""
        began, seen_stamp, is_asked = time.monotonic(), _stamp(folder), False
        while True:
            try:
                with folder.address() as address:
                    return await asyncio.open_unix_connection(address, limit=_LONGEST_LINE)
            except OSError:
                pass
            now = time.monotonic()
            if is_asked and _stamp(folder) != seen_stamp and (state := folder.state()) and state.state == "waits":
                raise _unavailable(f"The model cannot be loaded now: {state.reason}", state.retry_seconds)
            if now - began > _START_SECONDS:
                raise _unavailable("The daemon has not started the model's process. Its log: .finetop/daemon.log")
            if now - self._asked_at.get(folder.name, 0.0) > _ASK_AGAIN_SECONDS:
                self._asked_at[folder.name] = now
                await anyio.to_thread.run_sync(self._ask_daemon, folder, ref)
            is_asked = True
            await asyncio.sleep(0.02 if now - began < 2.0 else 0.1)

    def _ask_daemon(self, folder: EngineFolder, ref: ModelRef) -> None:
        config = ref.config
        if ref.base != config.model.name:
            config = config.replace({"model.name": ref.base, "model.revision": ""})
        parts = answering_bytes(config, queue_inputs(queue_device(self._workspace), config.method.kind, ()))
        name = ref.base.rstrip("/").rpartition("/")[2]
        folder.want(EngineWish(name, sum(parts.values()), parts["cache"]) if parts else EngineWish(name))
        daemon_client.ensure(self._workspace)


def _stamp(folder: EngineFolder) -> int:
    try:
        return folder.state_file.stat().st_mtime_ns
    except OSError:
        return 0


def _refusal(event: dict[str, Any]) -> ApiError:
    if event["status"] == 503:
        return _unavailable(event["message"], code=event["code"])
    return ApiError(event["status"], event["message"], code=event["code"], param=event["param"])


def _unavailable(message: str, retry_seconds: float = RETRY_SECONDS, code: str | None = None) -> ApiError:
    headers = {"retry-after": f"{max(1, round(retry_seconds))}"}
    return ApiError(503, message, code=code or "engine_unavailable", headers=headers)
