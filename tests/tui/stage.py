"""The app with one screen on it, for Pilot tests: real feed, real store, no terminal."""

import asyncio
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual import events
from textual.screen import Screen

from engine.base.workspace import Workspace
from tui.app import FinetopApp
from tui.settings import Settings


class FakeControl:
    """Takes down what it is asked; the surface of `engine.control.Control`."""

    warning = ""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple, dict[str, Any]]] = []
        self.refuse: Exception | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            if self.refuse is not None and name != "close":
                raise self.refuse
            if name != "keep_up":  # nobody asks for it by a key
                self.calls.append((name, values, named))
            if name == "add_all":
                return list(range(101, 101 + len(values[0])))
            return 101

        return call


class Stage(FinetopApp):
    def __init__(self, root: Path, screen: Callable[[], Screen], ascii_only: bool = False, **more: Any) -> None:
        self.fake = FakeControl()
        super().__init__(Workspace(root), Settings(theme="dark", ascii=ascii_only), control=lambda: self.fake, **more)
        self._make_screen = screen

    def on_mount(self, event: events.Mount) -> None:
        event.prevent_default()  # not the main screen
        self.feed.start()
        self.push_screen(self._make_screen())


def played(test: Callable[..., Any]) -> Callable[..., None]:
    """A test that is a coroutine, run on an event loop of its own."""

    @functools.wraps(test)
    def run(*values: Any, **named: Any) -> None:
        asyncio.run(test(*values, **named))

    return run


async def until(condition: Callable[[], Any], limit: float = 10.0) -> Any:
    """Wait for a condition, which may be a coroutine function's pause in between."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)
    return found


async def press(pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
    await pilot.pause()


async def give(pilot, screen, path, text):
    """Edit a field of the form of a new run as a user does."""
    screen.actions.go_to(path)
    await press(pilot, "enter")
    await until(lambda: screen.editing is not None and screen.editing.has_focus)
    screen.editing.value = text
    await press(pilot, "enter")
    await until(lambda: screen.editing is None and not screen.query("FieldLine"))
    await pilot.pause()
    assert screen.fields.has_focus
