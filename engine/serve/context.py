"""What the routes of one server share."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from starlette.requests import Request

from engine.base.engine_folder import ask_to_leave
from engine.base.workspace import Workspace
from engine.control import Control
from engine.plan.cost import read_prices
from engine.serve.engines import Engines
from engine.serve.kept_responses import KeptResponses
from engine.serve.key_usage import Usage
from engine.serve.serve_config import ServeConfig
from engine.store.connect import Connection, reader, writer
from engine.store.serve_database import database_file
from engine.store.serve_keys import UsageStore
from engine.store.serve_store import ServeStore
from engine.store.stored_completions import StoredCompletions

Result = TypeVar("Result")


class Context:
    """The workspace, and whoever changes it. Changes are made one after the other, by one thread."""

    def __init__(self, workspace: Workspace, config: ServeConfig) -> None:
        self.workspace, self.config = workspace, config
        self.store = ServeStore(database_file(workspace))
        self.completions = StoredCompletions(database_file(workspace))
        self.usage = Usage(UsageStore(database_file(workspace)), self.store, read_prices())
        self.files = workspace.private / "files"
        self.files.mkdir(mode=0o700, exist_ok=True)
        self.engines = Engines(workspace)
        self.responses = KeptResponses()
        self._changes = ThreadPoolExecutor(1, "changes")
        self._control: Control | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        """What goes on beside requests."""
        writer(workspace.database).close()  # makes it, or brings an older version's up to date

    async def change(self, act: Callable[[Control], Result]) -> Result:
        """What `act` does with runs and queue, on the thread that changes them."""
        return await asyncio.wrap_future(self._changes.submit(lambda: act(self._own_control())))

    def _own_control(self) -> Control:
        if self._control is None:
            self._control = Control(self.workspace)
        return self._control

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """The runs as they are now."""
        with contextlib.closing(reader(self.workspace.database)) as conn:
            yield conn

    def close(self) -> None:
        """Lets the engines leave."""
        ask_to_leave(self.workspace)
        self._changes.submit(self._close_control)
        self._changes.shutdown()
        self.usage.write()
        for opened in (self.usage, self.completions, self.store):
            opened.close()

    def file_path(self, file_id: str) -> Path:
        """Where an uploaded file lies, by its id, never by the name it came with."""
        return self.files / file_id


def context_of(request: Request) -> Context:
    return request.app.state.context


async def in_thread(act: Callable[..., Result], *values: Any) -> Result:
    """What reads disk or database, beside the event loop."""
    return await anyio.to_thread.run_sync(act, *values)
