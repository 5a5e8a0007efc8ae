"""A random walk over the screen, against a simple model of what may be true.

    python -m tests.tui.random_walk --steps 100000 --seed 7      walk; on a fault print the shortest steps to it found
    python -m tests.tui.random_walk --replay steps.json          the same steps again

A step is bytes as a terminal sends them (keys, held keys, pastes, clicks), another size, or another time. After each:

* the screen stands, and one widget in sight of it has the focus, with the only heavy frame;
* nothing was destroyed but by a `y` that was typed while its question was on the screen;
* nothing that was pasted was done as a key;
* no step took more than `MOST_SECONDS` of the event loop's CPU time;

and now and then, the picture that the terminal was sent piece by piece is that which is drawn afresh, and `q`, with
`esc` before it where text is asked for, leaves.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyte
from textual import events
from textual.drivers.headless_driver import HeadlessDriver
from textual.geometry import Size
from textual.widgets import Input

from engine.base.workspace import Workspace
from engine.store.run_records import Outcome, RunState
from tests.tui.fill import fill
from tui import app as app_module
from tui.app import PATIENCE_SECONDS, FinetopApp
from tui.data.feed import Feed
from tui.data.helper_process import HelperProcess
from tui.keymap import ACTIONS
from tui.render.line import Line, fit_line
from tui.screens import main_screen
from tui.screens.dialogs import Confirm
from tui.screens.key_screen import KeyScreen
from tui.screens.main_screen import MainScreen
from tui.settings import Memory, Settings
from tui.terminal.input_reader import InputReader
from tui.terminal.screen_diff import ScreenDiff
from tui.widgets.pane import Lines, Pane

SIZES = ((120, 36), (80, 24), (60, 16), (61, 17), (200, 60))
MOST_SECONDS = 1.0
"""Ten times what a key may take on a quiet machine."""
FROZEN_SECONDS = 30.0
PICTURE_EVERY, LEAVE_EVERY = 20, 150
START = 1_790_000_000.0
Step = tuple[str, Any]
"""`keys`, `paste`: text; `size`: width and height; `later`: seconds; `click`: x, y, how often; `wheel`: x, y, up."""

_CODES = {
    "up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D", "home": "\x1b[H", "end": "\x1b[F",
    "pageup": "\x1b[5~", "pagedown": "\x1b[6~", "enter": "\r", "escape": "\x1b", "tab": "\t", "shift+tab": "\x1b[Z",
    "space": " ", "backspace": "\x7f", "delete": "\x1b[3~", "f1": "\x1bOP",
}  # fmt: skip
_KEYS = sorted({key for action in ACTIONS for key in action.keys})
KEYS = [*(_CODES.get(key) or (chr(ord(key[-1]) & 31) if key.startswith("ctrl+") else key) for key in _KEYS)]
USUAL = [
    "j",
    "j",
    "k",
    "G",
    "\r",
    "\x1b",
    "\x1b",
    "d",
    "d",
    "X",
    "y",
    "y",
    "1",
    "2",
    "3",
    "4",
    "\t",
    "]",
    "n",
    "?",
    "/",
    " ",
    "c",
    "q",
]
PIECES = [
    "dd",
    "y",
    "q",
    "X",
    "\r",
    "\x1b[31m",
    "\x1b[0m",
    "\x1b]0;t\x07",
    "\x1b[A",
    "中文",
    "é",
    "👩\u200d🚀",
    "1e-4 ",
    "\n",
]


class Fault(AssertionError):
    """Something that may not be was so after a step."""

    index = -1
    """Which step."""


class Changes:
    """Stands in for `engine.control.Control`: everything succeeds, and is taken down."""

    warning = ""
    destroying = ("trash", "kill", "delete_checkpoint", "purge", "purge_checkpoint")

    def __init__(self) -> None:
        self.destroyed: list[tuple[str, Any]] = []
        self.waiting: frozenset[int] = frozenset()
        """Runs that a kill only takes off the queue."""

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **named: Any) -> Any:
            if name in self.destroying and not (name == "kill" and values[0] in self.waiting):
                self.destroyed.append((name, values))
            if name in ("run_bytes", "add"):
                return 12
            if name == "choose_best":
                return "Best goes by accuracy."
            return Outcome(True, values[0] if values else 0, RunState.DONE) if name != "start_daemon" else True

        return call


class WalkedFeed(Feed):
    """Says whether it has been asked for what it has not posted yet: a walk then depends little on how threads run."""

    _at_work = False

    def asked(self) -> bool:
        return self.is_alive() and bool((self._refresh_now and not self._paused) or self._questions or self._at_work)

    def _build(self, *values: Any) -> Any:
        self._at_work = True
        try:
            return super()._build(*values)
        finally:
            self._at_work = False

    def _answer(self, *values: Any) -> Any:
        self._at_work = True
        try:
            return super()._answer(*values)
        finally:
            self._at_work = False


class Forgetful(Memory):
    """Remembers nothing: every walk begins alike."""

    def __init__(self) -> None:
        self.values = {}

    def save(self) -> None:
        """Nothing is kept."""


class WalkedApp(FinetopApp):
    """Paints into a terminal of pyte, and does not leave."""

    def __init__(self, root: Path, changes: Changes) -> None:
        super().__init__(Workspace(root), Settings(theme="dark", mouse=True), control=lambda: changes)
        self.feed = WalkedFeed(self.workspace, self.post_message, self.view)
        self.left = 0
        self.performed = 0
        self.terminal = Picture(1, 1)

    def leave(self) -> None:
        self.left += 1
        self._typed_ahead.clear()

    def paint(self, screen: Any, update: Any) -> bool:
        self.terminal.take(update, *self.size)
        return super().paint(screen, update)


class Picture:
    """A terminal that is sent what differs."""

    def __init__(self, width: int, height: int) -> None:
        self.screen = pyte.Screen(width, height)
        self._stream, self._diff = pyte.Stream(self.screen), ScreenDiff(None)

    def take(self, update: Any, width: int, height: int) -> None:
        if (self.screen.columns, self.screen.lines) != (width, height):
            self.__init__(width, height)  # type: ignore[misc]
        self._stream.feed(self._diff.changes(update, width, height))

    def lines(self) -> list[str]:
        return list(self.screen.display)


class Walk:
    """One walk over one app."""

    def __init__(self, app: WalkedApp, changes: Changes, clock: "Clock") -> None:
        self.app, self.changes, self.clock = app, changes, clock
        self.reader = InputReader(time.monotonic())

    async def settle(self) -> None:
        """Until nothing is to be done any more, on the thread of the changes either, then paint."""
        commands, deadline = self.app.commands, time.monotonic() + 2 * PATIENCE_SECONDS
        for _ in range(2):
            while commands.is_alive() and (not commands._requests.empty() or commands.running()[0]):
                await asyncio.sleep(0.001)
            while self.app.feed.asked():
                await asyncio.sleep(0.001)
            while self.app._typed_ahead and time.monotonic() < deadline:  # what they are meant for is being read
                await asyncio.sleep(0.001)
            while self.app._resize_timer is not None:  # Textual waits for more sizes to come
                await asyncio.sleep(0.001)
            quiet = 0
            for _ in range(400):
                await asyncio.sleep(0)
                nodes = [
                    self.app,
                    *self.app.screen_stack,
                    *(n for s in self.app.screen_stack for n in s.walk_children()),
                ]
                idle = all(node._message_queue.empty() for node in nodes)
                quiet = quiet + 1 if idle else 0
                if quiet > 3:
                    break
            self.app.screen._on_timer_update()

    def send(self, text: str) -> None:
        now, parser = time.monotonic(), self.reader._parser
        read = list(self.reader.feed(text, now))
        if parser._timeout_time is not None:
            parser._timeout_time = now  # nobody types as fast as this walks: what is half a sequence was a key
        for message in [*read, *self.reader.tick(now + 1.0)]:
            message.time = now
            self.app.post_message(message)

    async def take(self, step: Step) -> float:
        """Do a step and look at what may be true after it; the CPU seconds it took. Raises Fault."""
        app, (kind, value) = self.app, step
        screen = app.screen
        seen = isinstance(screen, Confirm) and screen.drawn_at is not None
        confirmed = kind == "keys" and "y" in value and seen
        destroyed, performed = len(self.changes.destroyed), app.performed
        self.changes.waiting = frozenset(run.id for run in app.snapshot.runs if run.state is RunState.QUEUED)
        began = time.thread_time()
        if kind == "keys":
            self.send(value)
        elif kind == "paste":
            self.send(f"\x1b[200~{value}\x1b[201~")
        elif kind == "size":
            self.resize(*value)
        elif kind == "later":
            self.clock.now += value
            app.feed.refresh()
        elif kind == "click":
            x, y, often = value
            self.send(f"\x1b[<0;{x % app.size.width + 1};{y % app.size.height + 1}M"
                      f"\x1b[<0;{x % app.size.width + 1};{y % app.size.height + 1}m" * often)  # fmt: skip
        elif kind == "wheel":
            x, y, up = value
            self.send(f"\x1b[<{64 if up else 65};{x % app.size.width + 1};{y % app.size.height + 1}M")
        await self.settle()
        took = time.thread_time() - began
        if took > MOST_SECONDS:
            raise Fault(f"it took {took:.1f} s of CPU time")
        if len(self.changes.destroyed) > destroyed and not confirmed:
            raise Fault(f"not confirmed: {self.changes.destroyed[destroyed:]}")
        if kind == "paste" and app.performed > performed:
            raise Fault("pasted text was played as keys")
        self.check_focus()
        return took

    def resize(self, width: int, height: int) -> None:
        size = Size(width, height)
        assert isinstance(self.app._driver, HeadlessDriver)
        self.app._driver._size = size
        self.app.post_message(events.Resize(size, size))

    def check_focus(self) -> None:
        """One widget of the screen in front has the focus, and it is in sight; only its frame is heavy."""
        screen = self.app.screen
        if not self.app.is_running or not isinstance(screen, KeyScreen):
            raise Fault(f"the screen is gone: {screen}")
        small = isinstance(screen, MainScreen) and not screen.layout_now.panes
        focused = screen.focused
        if small and screen.prompt is None:
            return
        if focused is None or not focused.display or not focused.is_attached:
            raise Fault(f"nothing in sight has the focus on {screen} at {self.app.size}: {focused}")
        if screen.prompt is not None and focused is not screen.prompt:
            raise Fault(f"a text is asked for, and {focused} has the focus")
        panes = [pane for pane in screen.query(Pane) if pane.display and min(pane.outer_size) > 2]
        heavy = [pane for pane in panes if "┏" in "".join(pane.shown_text()[:1])]
        if heavy != ([] if isinstance(focused, Input) else [focused]) and min(focused.outer_size) > 2:
            raise Fault(f"{focused} has the focus and these look like it: {heavy}")

    async def check_picture(self) -> None:
        """What the terminal was sent is what is drawn afresh, and what panes show is what they would say now.

        An answer may just be on its way from another thread: what differs has half a second.
        """
        for wait in (0.0, 0.1, 0.4):
            await asyncio.sleep(wait)
            await self.settle()
            if not (differs := self.differs()):
                return
        raise Fault(differs)

    def differs(self) -> str:
        """No message is handled meanwhile."""
        app, screen = self.app, self.app.screen
        for one in app.screen_stack:
            for lines in one.query(Lines):
                width, height = lines.outer_size
                if lines.display and width and height:
                    wanted = [text_of(fit_line(line, width)) for line in lines.lines(width, height)[:height]]
                    for was, line in zip(lines.shown_text(), wanted, strict=False):
                        if was != line:
                            return f"{lines} shows\n{was}\nand would say\n{line}"
        fresh = Picture(*app.size)
        fresh.take(screen._compositor.render_update(full=True, screen_stack=app._background_screens), *app.size)
        for y, (was, line) in enumerate(zip(app.terminal.lines(), fresh.lines(), strict=True)):
            if was != line:
                return f"line {y} of the picture is\n{was}\nand should be\n{line}"
        return ""

    async def check_leaving(self) -> None:
        """`q` leaves, with `esc` where it would be text."""
        left = self.app.left
        for _ in range(12):
            screen = self.app.screen
            self.send("\x1b" if isinstance(screen, KeyScreen) and screen.takes_text else "q")
            await self.settle()
            if self.app.left > left:
                return
        raise Fault(f"q does not leave {self.app.screen}")


def text_of(line: Line) -> str:
    """Without its roles."""
    return "".join(text for text, _ in line)


class Clock:
    """The time of day, which a walk moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def steps(seed: int, count: int) -> list[Step]:
    """Random steps."""
    rng = random.Random(seed)
    made: list[Step] = []
    for _ in range(count):
        draw = rng.random()
        if draw < 0.70:
            made.append(("keys", rng.choice(USUAL if rng.random() < 0.6 else KEYS)))
        elif draw < 0.76:
            made.append(("keys", rng.choice(USUAL if rng.random() < 0.5 else KEYS) * rng.randint(2, 8)))
        elif draw < 0.80:
            made.append(("keys", "".join(rng.choice(KEYS) for _ in range(rng.randint(2, 5)))))
        elif draw < 0.84:
            made.append(
                ("paste", "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12))) * rng.choice((1, 1, 9)))
            )
        elif draw < 0.88:
            made.append(("size", rng.choice(SIZES)))
        elif draw < 0.91:
            made.append(("size", (rng.randint(20, 220), rng.randint(5, 60))))
        elif draw < 0.93:
            made.append(("later", rng.choice((1, 60, 3600, 86_400, -3600))))
        elif draw < 0.94:
            made.append(("keys", rng.choice(("\x1b[O", "\x1b[I"))))
        elif draw < 0.98:
            made.append(("click", (rng.randrange(200), rng.randrange(60), rng.choice((1, 1, 2)))))
        else:
            made.append(("wheel", (rng.randrange(200), rng.randrange(60), rng.random() < 0.5)))
    return made


def _frozen(*_: Any) -> None:
    raise Fault(f"frozen: the step has not ended after {FROZEN_SECONDS} s")


@contextlib.contextmanager
def _walkable(clock: Clock) -> Iterator[None]:
    """No helper processes, panes that follow a cursor at once, a clock that is ours, an alarm that no endless loop
    keeps from ringing, and a garbage collector that does not go through what other tests of this process left: that
    alone took a step a second of CPU time."""
    perform = KeyScreen.perform

    def noted(screen: KeyScreen, action: Any) -> None:
        screen.app.performed += 1
        perform(screen, action)

    before = signal.signal(signal.SIGALRM, _frozen)
    gc.freeze()
    try:
        with (
            mock.patch.object(time, "time", clock),
            mock.patch.object(app_module, "Memory", Forgetful),
            mock.patch.object(main_screen, "FOLLOW_SECONDS", 0.001),
            mock.patch.object(HelperProcess, "run", lambda *_, **__: None),
            mock.patch.object(HelperProcess, "lines", lambda *_, **__: iter(())),
            mock.patch.object(KeyScreen, "perform", noted),
        ):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.unfreeze()


async def walk(root: Path, path: Sequence[Step], size: tuple[int, int] = SIZES[0]) -> float:
    """Take the steps; the CPU seconds of the slowest. Raises Fault, with `index`, the step that it came after."""
    clock, changes, slowest, index = Clock(), Changes(), 0.0, -1
    try:
        with _walkable(clock):
            signal.setitimer(signal.ITIMER_REAL, FROZEN_SECONDS, FROZEN_SECONDS)
            app = WalkedApp(root, changes)
            async with app.run_test(size=size) as pilot:
                walking = Walk(app, changes, clock)
                while not (isinstance(app.screen, MainScreen) and app.snapshot.taken):
                    await pilot.pause(0.02)
                for index, step in enumerate(path):
                    signal.setitimer(signal.ITIMER_REAL, FROZEN_SECONDS, FROZEN_SECONDS)
                    slowest = max(slowest, await walking.take(step))
                    if index % PICTURE_EVERY == 0:
                        await walking.check_picture()
                    if index % LEAVE_EVERY == LEAVE_EVERY - 1:
                        await walking.check_leaving()
                await walking.check_picture()
                await walking.check_leaving()
    except Exception as error:  # of the screen, or a fault
        fault = error if isinstance(error, Fault) else Fault(repr(error))
        if fault is not error:
            fault.add_note("".join(traceback.format_exception(error, limit=-12)))
        fault.index = index
        fault.add_note(f"after step {index} of {len(path)} at {size}: {path[index] if path else None}")
        raise fault from error
    return slowest


def fault_of(root: Path, path: Sequence[Step], size: tuple[int, int]) -> Fault | None:
    """The fault that a walk ends in."""
    try:
        asyncio.run(walk(root, path, size))
    except Fault as fault:
        return fault
    return None


def shortest(root: Path, path: Sequence[Step], size: tuple[int, int], kind: str, tries: int = 60) -> list[Step]:
    """Fewer steps to such a fault, whose text begins with `kind`: halves, quarters, … are left out as long as one comes
    (delta debugging)."""
    left = list(path)
    pieces = 2
    while tries and len(left) > 1:
        length = max(1, len(left) // pieces)
        for start in range(0, len(left), length):
            tried = left[:start] + left[start + length :]
            tries -= 1
            fault = fault_of(root, tried, size)
            if fault is not None and str(fault).startswith(kind):
                left, pieces = tried[: fault.index + 1], max(2, pieces - 1)
                break
            if not tries:
                break
        else:
            if length == 1:
                break
            pieces *= 2
    return left


def main() -> int:
    """Walk from the command line, all sizes even after a fault: 0, or 1 if there was one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--replay", metavar="FILE", help="steps that were printed, as JSON")
    parser.add_argument("--whole", action="store_true", help="do not look for fewer steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            os.environ[name] = f"{folder}/home"
        root = Path(folder) / "workspace"
        root.mkdir()
        fill(root, START).close()
        if options.replay:
            size, path = json.loads(Path(options.replay).read_text("utf-8"))
            walks = [(tuple(size), [(kind, value) for kind, value in path])]
        else:
            each = options.steps // len(SIZES)
            walks = [(size, steps(options.seed * 10 + number, each)) for number, size in enumerate(SIZES)]
        faults = 0
        for size, path in walks:
            fault = fault_of(root, path, size)
            if fault is None:
                print(f"{len(path)} steps from {size}: no fault", flush=True)
                continue
            faults += 1
            print(fault, *fault.__notes__, sep="\n", flush=True)
            taken = path[: fault.index + 1]
            left = taken if options.whole else shortest(root, taken, size, str(fault)[:20])
            print(json.dumps([size, left]), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
