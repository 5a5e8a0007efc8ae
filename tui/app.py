"""The screen's application: owns the feed, the command thread and the palette, and hands news to the screens.

State flows down as one frozen `Snapshot`; changes are asked for through the `CommandThread`. Nothing on the event loop
waits for the store, the daemon, a disk or the terminal.
"""

import contextlib
import dataclasses
import platform
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from textual import events
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input

from engine.base.errors import EngineError
from engine.base.messages import msg, msg_n
from engine.base.workspace import Workspace, config_folder
from engine.present.text import cells, one_line
from engine.store.filters import SORTS
from engine.store.run_records import RunState
from tui.data.command_thread import CommandDone, CommandThread
from tui.data.current_user import current_user
from tui.data.feed import Answer, Feed, Updated
from tui.data.message_log import MessageLog, StatusText
from tui.data.snapshot import Snapshot, View
from tui.host import Undo
from tui.keymap import Keymap
from tui.render.notifications import event_words
from tui.render.theme import Palette, choose, lacks_glyphs, speaks_utf8
from tui.screens.key_screen import KeyScreen
from tui.settings import Memory, Settings
from tui.terminal.driver import Driver
from tui.terminal.input_reader import Typed
from tui.terminal.screen_diff import ScreenDiff
from tui.terminal.terminal_background import BackgroundReport
from tui.terminal.textual_private import MODIFIERS, PrivateApp, Update, color_system, mounted
from tui.widgets.pane import Lines

KEEP_UP_SECONDS = 2.0
"""How often to import runs that the store does not know yet; without a daemon their values come so often, too."""
KEEP_UP_BUSY_SECONDS = 0.2
"""For how long that waits for a database which another process writes to; it is done again anyway."""
KEPT_SORTS = 50
"""Of how many workspaces the order of the list is remembered."""
VISIT_SECONDS = 2.0
"""A visit that ends sooner does not count."""
LEAVE_SECONDS = 1.0
"""For how long leaving waits until it is in the store when that was."""
PATIENCE_SECONDS = 2.0
"""How long keys that were typed ahead wait for what they are meant for: the first picture, the settings of a form."""


class Drained(Message):
    """The terminal has taken all it was sent, after it could not keep up."""


class FinetopApp(PrivateApp, inherit_bindings=False):
    """The application: it is the `Host` of its screens."""

    TITLE = "finetop"
    BINDINGS = []
    ENABLE_COMMAND_PALETTE = False
    NOTIFICATION_TIMEOUT = 3
    CSS = "Screen { background: $background; color: $foreground; layers: base over; }"

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings | None = None,
        readonly: bool = False,
        control: Callable[[], Any] | None = None,
        welcome: bool = False,
    ) -> None:
        """`control` makes what carries changes out, in tests a stand-in; `welcome` shows the first keys."""
        super().__init__(driver_class=Driver)
        self.animation_level = "none"
        self.workspace = workspace
        self.settings = settings or Settings()
        self.readonly = readonly
        self._welcome = welcome
        self.keymap = Keymap(self.settings.keys)
        self.ascii_only = self.settings.ascii or lacks_glyphs()
        self.palette = Palette(choose(self.settings.theme, self.console.color_system), self.ascii_only, speaks_utf8())
        self.asks_background = self.settings.theme == "auto" and self.palette.name in ("dark", "light")
        """Whether the terminal's background decides between two palettes."""
        self.register_theme(self.palette.textual())
        self.theme = "finetop"
        self.screen_diff = ScreenDiff(color_system(self.console))
        self.snapshot = Snapshot(0.0)
        self.messages = MessageLog()
        self.memory = Memory()
        self.view = _remembered(self.memory.values, workspace)
        self.feed = Feed(workspace, self.post_message, self.view)
        self.host_name = one_line(platform.node().partition(".")[0] or "localhost")
        self.paused = False
        self.undoes: list[Undo] = []
        """What can be undone of what was done from here, the last one last."""
        self._last_event = 0
        self._opened_at = 0.0
        """When the first picture came; 0 until then."""
        self.failed_with = ""
        self.commands = CommandThread(workspace, self.post_message, control, readonly)
        self._keep_up_commands = CommandThread(workspace, self.post_message, control, busy_seconds=KEEP_UP_BUSY_SECONDS)
        """A thread of its own: what the user asked for must not wait behind what the screen does by itself."""
        self.question_pending = False
        """Whether what a question says is being found out: the next key is its answer."""
        self._typed_ahead: deque[events.Key | events.Paste] = deque()
        """What has not had its turn yet."""
        self._waited_for: KeyScreen | None = None
        self._not_waited_for: KeyScreen | None = None
        self._picture_owed = False

    def on_mount(self) -> None:
        """Start the feed and show the main screen."""
        from tui.screens.main_screen import MainScreen

        problems = [*self.settings.problems, *(f"settings.toml, keys: {problem}" for problem in self.keymap.problems)]
        if problems:
            more = msg("(and {more} more) ", more=len(problems) - 1) if len(problems) > 1 else ""
            self.messages.show(one_line(more + problems[0]), "warning", whole="\n".join(problems))
        self.feed.start()
        self.push_screen(MainScreen())
        if self._welcome:
            from tui.screens.welcome import Welcome

            self.push_screen(Welcome())

        if not self.workspace.database.exists() and self.workspace.run_ids():
            self._keep_up()  # without it there is nothing to show
        else:
            self.set_timer(KEEP_UP_SECONDS, self._keep_up)  # after the first picture: see `record_visit`

    def _keep_up(self) -> None:
        """Take in runs that lie in the workspace, as any command does. What goes wrong the feed meets, too."""

        def call(control: Any) -> None:
            with contextlib.suppress(EngineError):
                control.keep_up()

        def then(outcomes: list[Any]) -> None:
            self.set_timer(KEEP_UP_SECONDS, self._keep_up)

        if not self.readonly:
            self._keep_up_commands.do("", call, then=then)

    def on_unmount(self) -> None:
        """End the threads, and remember sort and sizes."""
        self.memory.save()
        self._record_visit()
        self.feed.stop()
        self.commands.stop()
        self._keep_up_commands.stop()

    def remember_sort(self, sort: str | None, descending: bool) -> None:
        """The order of the list, for the next visit to this workspace."""
        sorts, root = self.memory.values.get("sorts"), str(self.workspace.root)
        earlier = {path: entry for path, entry in sorts.items() if path != root} if isinstance(sorts, dict) else {}
        self.memory.values["sorts"] = dict([*earlier.items(), (root, [sort, descending])][-KEPT_SORTS:])

    def go_to_run(self, run_id: int) -> None:
        """Put the cursor of the list on a run, as soon as it is there."""
        for screen in self.screen_stack:
            if isinstance(screen, KeyScreen):
                screen.go_to_run(run_id)

    def leave(self) -> None:
        """End the screen; runs and daemon go on. What was typed behind it is not for runs."""
        self._typed_ahead.clear()
        active = sum(run.active for run in self.snapshot.runs)
        waiting = self.snapshot.counts.get(RunState.QUEUED, 0)
        parts = [
            msg_n("{n:,} run goes on", "{n:,} runs go on", active) if active else "",
            msg_n("{n:,} run waits", "{n:,} runs wait", waiting) if waiting else "",
        ]
        self.exit(message=None, result=" · ".join(filter(None, parts)))

    def pause(self, paused: bool) -> None:
        """Stop the picture, or let it go on; runs are not touched."""
        self.paused = paused
        self.feed.pause(paused)
        self.say("the picture is paused, runs go on; p goes on" if paused else "the picture goes on")

    def _record_visit(self) -> None:
        """Remember when this user left the screen, for the next visit. A locked database does not hold up leaving."""
        if self.readonly or not self._opened_at or time.monotonic() - self._opened_at < VISIT_SECONDS:
            return
        user, now, done = current_user(), time.time(), threading.Event()

        def call(control: Any) -> None:
            try:
                control.seen(user, now)
            finally:
                done.set()

        self._keep_up_commands.do("", call)
        done.wait(LEAVE_SECONDS)

    def show_events(self, snapshot: Snapshot) -> None:
        """Log what has happened and put the last of it above the footer; what happened before the screen opened only
        while that line is empty."""
        first, went_on = not self._last_event, False
        for news in snapshot.news:
            if news.event.id <= self._last_event:
                continue
            self._last_event = news.event.id
            if (words := event_words(news)) is None:
                went_on = self.messages.run_went_on(news.event.run_id) or went_on
                continue
            text, role, is_state = one_line(words[0]), words[1], news.event.kind == "state"
            if news is snapshot.news[-1] and not (first and self.messages.status.text):
                self.messages.show(text, role, news.event.time, run_id=news.event.run_id if is_state else None)
                self._status_changed()
            else:
                self.messages.add(text, role, news.event.time)
        # Another screen, or a command, may have queued it again or thrown it away.
        if (run_id := self.messages.status.run_id) is not None:
            run = snapshot.run(run_id)
            is_queued = run is not None and run.state is RunState.QUEUED
            if is_queued or any(trashed.run_id == run_id and trashed.step is None for trashed in snapshot.trash):
                went_on |= self.messages.run_went_on(run_id)
        if self.messages.grown_old() or went_on:
            self._status_changed()

    def on_background_report(self, message: BackgroundReport) -> None:
        """Take the palette that suits the background; until it is reported, $COLORFGBG, or a guess, had to do."""
        name = "light" if message.light else "dark"
        if not self.asks_background or name == self.palette.name:
            return
        self.palette = Palette(name, self.ascii_only, speaks_utf8())
        theme = dataclasses.replace(self.palette.textual(), name=f"finetop-{name}")
        self.register_theme(theme)
        self.theme = theme.name
        for screen in self.screen_stack:
            for lines in screen.query(Lines):
                lines.palette_changed()

    # keys in

    async def on_event(self, event: events.Event) -> None:
        """Keys and pasted text do not go Textual's way, from queue to queue: there a key overtakes the one before it,
        and what is typed ahead goes to whatever has the focus when it comes in, not when it is its turn."""
        if isinstance(event, (events.Key, events.Paste)) and not event.is_forwarded:
            await self.on_typed(Typed([event]))
        else:
            await super().on_event(event)

    async def on_typed(self, message: Typed) -> None:
        """What was read from the terminal at once."""
        self._typed_ahead.extend(message.keys)
        await self.dispatch_keys()

    async def dispatch_keys(self) -> None:
        """Do what was typed, one key after the other, each to its end: the next may be meant for what this one opens.

        Where the screen in front is not ready, they wait, but not long: leaving must always work.
        """
        while self._typed_ahead:
            screen = self.screen
            await mounted(screen).wait()
            if not isinstance(screen, KeyScreen):
                self._typed_ahead.clear()
            elif screen.ready or screen is self._not_waited_for:
                key = getattr(self._typed_ahead[0], "key", "")
                # Painting again what is there is to show the same.
                if key not in self.keymap.keys("any.redraw") and self.messages.key_pressed():
                    self._status_changed()
                await self._dispatch(screen)
            else:
                if screen is not self._waited_for:
                    self._waited_for = screen
                    self.set_timer(PATIENCE_SECONDS, partial(self._wait_no_longer, screen))
                return

    async def _dispatch(self, screen: KeyScreen) -> None:
        """Do the first that was typed, or take all text that comes first where a text is asked for."""
        screen.settle_focus()
        if isinstance(screen.focused, Input):
            await mounted(screen.focused).wait()
        text = ""
        while screen.takes_text and self._typed_ahead and (more := _typed_text(self._typed_ahead[0])):
            text += more
            self._typed_ahead.popleft()
        if text:
            screen.put_text(text)
            return
        event = self._typed_ahead.popleft()
        if isinstance(event, events.Paste):
            self.say("what is pasted is taken as text, where a text is asked for, and never as keys", "warning")
        # What a line to type in does with arrows, backspace, enter.
        elif not screen.key(event) and not await self.press_in_line(event.key) and event.key not in MODIFIERS:
            screen.key_unknown(event)

    async def _wait_no_longer(self, screen: KeyScreen) -> None:
        self._waited_for = None
        if self._typed_ahead and screen is self.screen:
            self._not_waited_for = screen
            await self.dispatch_keys()

    # news in

    async def on_updated(self, message: Updated) -> None:
        """Hand a new snapshot to all screens; keys that waited for the first one are dispatched."""
        self.snapshot = message.snapshot
        self._opened_at = self._opened_at or time.monotonic()
        for screen in self.screen_stack:
            if isinstance(screen, KeyScreen):
                screen.take(message.snapshot)
                screen.status_changed()  # its age: written when the minute turns
        await self.dispatch_keys()
        store = message.snapshot.store
        if store.journal_mode not in ("wal", "") and not store.missing and not store.problem:
            self._warn_without_wal()

    def _warn_without_wal(self) -> None:
        """Once for each workspace: what a drive without shared memory means for the queue."""
        path = str(self.workspace.database)
        remembered = self.memory.values.get("told_without_wal")
        paths = remembered if isinstance(remembered, list) else []
        if path in paths:
            return
        self.memory.values["told_without_wal"] = [*paths, path][-20:]
        why = (
            "It cannot use SQLite's write-ahead log (WAL) there: that needs memory shared by all who open the file,"
            " which network drives do not have between machines."
        )
        means = "Readers and writers wait for each other, and only one machine may work on it. Runs go on all the same."
        words = [path, "", why, "", means, "", "! shows what the doctor finds."]
        self.notice("runs.db without WAL", words)

    def on_answer(self, message: Answer) -> None:
        """Hand the answer to a question to all screens: each knows its own."""
        for screen in self.screen_stack:
            if isinstance(screen, KeyScreen):
                screen.answered(message)

    async def on_command_done(self, message: CommandDone) -> None:
        """Say what came of a command, with the words of whoever gave it."""
        if not message.verb:  # the screen asked by itself
            if message.then is not None and not message.error:
                message.then(message.outcomes)
            return
        self.feed.refresh()
        self.question_pending = False
        if message.error:
            self.say_whole(message.verb, message.error, "failed")
        elif message.then is not None:
            message.then(message.outcomes)
        if message.warning:
            words = [*message.warning.split("\n"), "", "D tries again, ! shows what the doctor finds."]
            self.notice("Queued, but nothing starts it", words)
        await self.dispatch_keys()

    def say(self, text: str, role: str = "text", whole: str = "") -> None:
        """Put a line above the footer until a later key, and into the log: `whole` there, where the line is short for
        it."""
        self.messages.show(one_line(text.replace("\n", " · ")), role, whole=whole or text)
        self._status_changed()

    def withdraw(self, line: str = "") -> None:
        """Take the last answer to a key off, on every screen, if it is this line: it is no longer so."""
        if self.messages.withdraw(line):
            self._status_changed()

    def _status_changed(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, KeyScreen):
                screen.status_changed()

    def say_whole(self, heading: str, text: str, role: str = "text") -> None:
        """`heading: text` above the footer; what that line has no room for is shown whole, too, until the next key."""
        self.say(f"{heading}: {text}", role)
        if cells(self.messages.status.text) + 2 > self.size.width:
            from tui.screens.dialogs import Notice

            self.push_screen(Notice(heading, text.split("\n")))

    def notice(self, heading: str, words: Sequence[str]) -> None:
        """Show something worth knowing until the next key, and keep it in the log."""
        from tui.screens.dialogs import Notice

        self.messages.add("\n".join([heading, *filter(None, words)]), "warning")
        self.push_screen(Notice(heading, words))

    @property
    def status_text(self) -> StatusText:
        """The line above the footer."""
        return self.messages.status

    def copy_to_clipboard(self, text: str) -> None:
        """Through the terminal (OSC 52), which works over SSH. A path may hold bytes that are no text."""
        super().copy_to_clipboard(text.encode("utf-8", "replace").decode())

    # painting: see `screen_diff` and `driver`

    def paint(self, screen: Screen, update: Update) -> bool:
        """Send what differs from the cells that the terminal shows; where it is behind, its newest picture later."""
        driver = self.driver
        if self.is_headless or not isinstance(driver, Driver) or driver.writer is None:
            self._drawn(screen)
            return False
        if not self.can_paint():
            return True
        driver.writer.drained = self._drained
        if driver.writer.busy():
            self._picture_owed = True  # the newest picture is sent when the terminal has taken this one
            return True
        width, height = self.size
        if data := self.screen_diff.changes(update, width, height):
            driver.write(self._with_cursor(data))
        if isinstance(screen, KeyScreen) and screen.drawn_at is None:
            driver.writer.when_written(partial(self._drawn, screen))
        return True

    @staticmethod
    def _drawn(screen: Screen) -> None:
        """The terminal shows a screen; called from its writer's thread."""
        if isinstance(screen, KeyScreen) and screen.drawn_at is None and screen.complete:
            screen.drawn_at = time.monotonic()

    def _with_cursor(self, data: str) -> str:
        if self.cursor_position != (0, 0):
            data += f"\x1b[{self.cursor_position.y + 1};{self.cursor_position.x + 1}H"
        if self.shows_at_once() and len(data) > 400:
            data = f"\x1b[?2026h{data}\x1b[?2026l"
        return data

    def _drained(self) -> None:
        self.post_message(Drained())

    def on_drained(self) -> None:
        """Paint what was left out while the terminal was behind."""
        if self._picture_owed:
            self._picture_owed = False
            self.screen.refresh()

    def on_app_focus(self) -> None:
        self.feed.slow(False)

    def on_app_blur(self, event: events.AppBlur) -> None:
        """Nobody looks: a picture every four seconds will do. Textual would take the focus from the pane as well."""
        event.prevent_default()
        self.feed.slow(True)

    # what every screen's keys may do

    def action_any_interrupt(self) -> None:
        """Say how the screen is left."""
        self.say("ctrl+c does nothing here; q leaves, and runs go on", "warning")

    def action_any_help(self) -> None:
        """Show what the keys do here."""
        from tui.screens.help_screen import Help

        screen = self.screen
        if isinstance(screen, KeyScreen):
            self.push_screen(Help(screen.places()))

    def action_any_palette(self) -> None:
        """Show all actions by name."""
        from tui.screens.command_palette import CommandPalette

        screen = self.screen
        if isinstance(screen, KeyScreen):
            self.push_screen(CommandPalette(screen))

    def action_any_messages(self) -> None:
        """Show all that was said."""
        from tui.screens.message_screen import MessageScreen

        self.push_screen(MessageScreen())

    def action_any_doctor(self) -> None:
        """Show what `finetop doctor` finds, once."""
        from tui.screens.doctor_screen import Doctor

        if not isinstance(self.screen, Doctor):
            self.push_screen(Doctor())

    def failed(self) -> None:
        """Leave after an exception nobody expected: the traceback goes to a file, one line of it to the user."""
        error = sys.exception()
        self.failed_with = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            path = config_folder() / "screen-error.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(traceback.format_exception(error)), "utf-8")
            self.failed_with += msg("\nThe traceback is in {path}.", path=path)

    def action_any_redraw(self) -> None:
        """Send the whole picture again: another program has written to the terminal."""
        self.screen_diff.forget()
        self.screen.refresh()


def _typed_text(event: events.Key | events.Paste) -> str:
    """What goes into a line: a character, or what was pasted with its lines in a row."""
    if isinstance(event, events.Paste):
        return " ".join(event.text.strip("\n").splitlines()).expandtabs(1)
    return (event.character or "") if event.is_printable else ""


def _remembered(values: dict[str, Any], workspace: Workspace) -> View:
    """The order of the last visit to this workspace; its filter is not: runs that are not seen look like runs that are
    gone."""
    sorts = values.get("sorts")
    entry = sorts.get(str(workspace.root)) if isinstance(sorts, dict) else None
    sort, descending = entry if isinstance(entry, list) and len(entry) == 2 else (None, False)
    return View(sort=sort if sort in SORTS else None, descending=descending is True)
