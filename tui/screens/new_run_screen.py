"""A new run from a preset, a copy of any run, or a checkpoint: settings as rows, what is wrong beside them, and on the
right what it would take: data, memory, and how many runs it makes.

What was typed and not queued is kept as a draft. Everything that reads files runs on worker threads
(`new_run_reading`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region
from textual.message import Message
from textual.widgets.input import Selection

from engine.base.errors import EngineError
from engine.base.messages import msg, msg_n
from engine.base.units import short_duration
from engine.present.text import cells
from engine.settings.schema import SETTINGS
from tui.data.message_log import StatusText
from tui.data.snapshot import Snapshot
from tui.render.line import Line
from tui.screens import new_run_form
from tui.screens.key_screen import KeyScreen, place
from tui.screens.new_run_actions import FormActions
from tui.screens.new_run_completion import complete
from tui.screens.new_run_drafts import Draft, draft_of, keep_draft, subject
from tui.screens.new_run_fields import EditLabel, Fields, Head
from tui.screens.new_run_form import Checked, Form, Source, load
from tui.screens.new_run_info import Info
from tui.screens.new_run_layout import layout
from tui.screens.new_run_parts import FieldLine
from tui.screens.new_run_queue import queue_call, queued_words, queueing_words
from tui.screens.new_run_reading import Learned, Reading
from tui.widgets.bars import Footer, StatusLine

_TICK_SECONDS = 1.0


class FormStatus(StatusLine):
    """Only what concerns the form: not what was said before it was opened, and no event that is no longer new."""

    labels = False

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.before: StatusText | None = None

    def on_mount(self) -> None:
        self.before = self.host.status_text

    def lines(self, width: int, height: int) -> list[Line]:
        status = self.host.status_text
        old = status.at is not None and self.host.messages.is_seen(status)
        return [] if old or status is self.before else super().lines(width, height)


class NewRunScreen(KeyScreen):
    """`source` is a run's id, a preset's name, or None for the defaults; `changes` are values typed in beforehand.

    With `parent`, a run's id and a checkpoint of it (`best`, a step), the run starts from its weights. The cursor
    begins on the setting `at`.
    """

    own_places = ("form", "any")

    class Loaded(Message):
        """The settings to start from, what is to be typed over them, and what is said then."""

        def __init__(self, source: Source | None, typed: Mapping[str, str], words: str = "") -> None:
            self.source, self.typed, self.words = source, typed, words
            super().__init__()

    class Completed(Message):
        """How a text may go on."""

        def __init__(self, prefix: str, text: str, names: Sequence[str]) -> None:
            self.prefix, self.text, self.names = prefix, text, tuple(names)
            super().__init__()

    def __init__(
        self,
        source: int | str | None = None,
        changes: Mapping[str, Any] | None = None,
        parent: tuple[int, int | str] | None = None,
        at: str = "",
    ) -> None:
        super().__init__()
        self._at = at
        self.parent_checkpoint = parent
        self.first_source = source if source is not None else parent[0] if parent else None
        self._subject = subject(source, parent)
        self._changes = {
            path: value if isinstance(value, str) else new_run_form.text_of(value)
            for path, value in (changes or {}).items()
        }
        self.form = Form()
        self.checked = Checked()
        self.all_settings = False
        self.names: tuple[str, ...] = ()
        self.queueing = ""
        self._queueing_now = ""
        self.earlier: list[Form] = []
        """The form before each change."""
        self._refusal = ""
        self._loaded = False
        self._queued = False

    def compose(self) -> ComposeResult:
        self.reading = Reading(self, self.host.workspace, self.show_learned)
        self.head = Head(self)
        self.fields = Fields(self)
        self.info = Info(self)
        self.label_line = EditLabel(self)
        self.status_line = FormStatus(id="news")
        self.footer = Footer(id="footer")
        self.actions = FormActions(self)
        yield from (self.head, self.fields, self.info, self.label_line, self.status_line, self.footer)

    def on_mount(self) -> None:
        """Begin with the draft, where one was left."""
        self.fields.focus()
        self.reading.learn_machine(self.host.snapshot.machine)
        self.reading.look_for_models([run.model for run in self.host.snapshot.runs if run.model])
        self.set_interval(_TICK_SECONDS, self._tick)
        draft = draft_of(self.host.memory.values, self.host.workspace.root, self._subject)
        if draft is None:
            self.load(self.first_source, self._changes)
            return
        words = msg_n(
            "{n:,} setting of your draft is back; n begins anew",
            "{n:,} settings of your draft are back; n begins anew",
            len(draft.typed),
        )
        self.load(draft.source, {**draft.typed, **self._changes}, words)

    def on_unmount(self) -> None:
        """End the helper processes."""
        self.reading.close()

    def on_rows_moved(self) -> None:
        """What is told is about the setting under the cursor."""
        self.info.action_list_top()
        self.info.repaint()

    # where it starts from

    def load(self, source: int | str | None, typed: Mapping[str, str], words: str = "") -> None:
        """Load the settings of a preset or a run, with others typed over them, and say so."""
        self._loaded = False
        workspace = self.host.workspace

        def work() -> None:
            try:
                self.post_message(self.Loaded(load(source, workspace), typed, words))
            except EngineError as error:
                self.post_message(self.Loaded(None, typed, error.message))

        self.run_worker(work, thread=True, exclusive=True, group="load", exit_on_error=False)

    @property
    def ready(self) -> bool:
        """Once the settings are there; once queued, no more."""
        return self._loaded and not self._queued  # once queued, it closes

    def on_new_run_screen_loaded(self, message: Loaded) -> None:
        """Take the settings of the source; keys that waited for them are dispatched."""
        first = not self.earlier and self.form == Form()
        form = Form(message.source or self.form.source)
        for path, text in message.typed.items():
            if path in SETTINGS:
                form = form.set(path, text)
        self.changed(form, keep=message.source is not None)
        if message.words:
            self.host.say(message.words, "key" if message.source else "failed")
        if first:
            self.earlier.clear()  # there is nothing to go back to
            if message.source and (at := self._at or ("" if self._copies else "data.files")):
                self.actions.go_to(at)
            origin = "" if self._copies or message.words else form.source.origins.get("data.files", "")
            if origin:
                self.host.say(msg("data.files as in {origin}; enter takes another", origin=origin), "dim")
        self._loaded = True
        self.host.call_later(self.host.dispatch_keys)

    # what is typed, and what comes of it

    def changed(self, form: Form, keep: bool = True) -> None:
        """Check another form, keep it as a draft, and read what its files hold."""
        if form != self.form:
            self.earlier.append(self.form)
        self.form = form
        self.checked = new_run_form.check(form)
        if keep:
            self._keep_draft()
        self.host.withdraw()  # it was about the form as it was
        self.reading.learn(self.checked.runs)
        self.show_all()

    @property
    def _copies(self) -> bool:
        """Whether it starts from the settings of a run: somebody chose all of them."""
        return isinstance(self.form.source.of, int)

    @property
    def pristine(self) -> bool:
        """Whether it is as it was when nothing was typed."""
        return not self.form.typed and self.form.source.of == self.first_source

    def _keep_draft(self) -> None:
        draft = None
        if not self.pristine and not self._queued:
            typed = {path: new_run_form.from_anywhere(path, text) for path, text in self.form.typed.items()}
            draft = Draft(self.form.source.of, typed)
        keep_draft(self.host.memory.values, self.host.workspace.root, self._subject, draft)
        # At once: a line that is cut ends the screen without a goodbye.
        self.run_worker(self.host.memory.save, thread=True, group="draft", exit_on_error=False)

    def problem(self, path: str) -> str:
        """What is wrong with a setting, whoever found out."""
        return self.checked.problems.get(path) or self.reading.checks.files.get(path, "")

    def problems(self) -> dict[str, str]:
        """All that is wrong, by setting."""
        return {**self.reading.checks.files, **self.checked.problems}

    def on_learned(self, message: Learned) -> None:
        """Something was found out about the form."""
        message.take()

    def show_learned(self) -> None:
        """Show what is known now; a refusal whose reason is gone goes."""
        if self._refusal and not self.problems():
            self.host.withdraw(self._refusal)
            self._refusal = ""
        self.show_all()

    def refuse(self, words: str) -> None:
        """Say what cannot be done while something is wrong; it goes when nothing is any more."""
        self._refusal = words
        self.host.say(words, "failed")

    def take(self, snapshot: Snapshot) -> None:
        """The machine may be known by now; the last event may be old by now."""
        self.reading.learn_machine(snapshot.machine)
        self.status_line.repaint()

    def _tick(self) -> None:
        """Show that what takes long goes on."""
        if self.reading.tick():
            self.info.repaint()
        if self._queueing_now:
            _, seconds = self.host.commands.running()
            self.queueing = f"{self._queueing_now} {short_duration(seconds)}" if seconds >= 1 else self._queueing_now
            self.head.repaint()

    def show_all(self) -> None:
        """Draw all parts again."""
        self.fields.rebuild()
        for part in (self.head, self.info, self.label_line, self.status_line, self.footer):
            part.repaint()
        self.fields.repaint()

    def status_changed(self) -> None:
        self.status_line.repaint()

    # where everything stands

    def on_resize(self, event: events.Resize) -> None:
        self.place_panes()

    def place_panes(self) -> None:
        """Place the parts for the size of the terminal."""
        width, height = self.app.size
        regions = layout(width, height)
        for widget in (self.head, self.fields, self.info, self.label_line, self.status_line, self.footer):
            place(widget, regions.get(widget.id or ""))
        self.settle_focus()
        self._lay_line()

    def _lay_line(self) -> None:
        if self.editing is not None:
            width, height = self.app.size
            lead = min(cells(self.editing.label) + 4, width // 2)
            place(self.editing, Region(lead, layout(width, height)["label"].y, max(width - lead - 1, 4), 1))

    # editing a line

    def places(self) -> tuple[str, ...]:
        """While a line is edited only its own keys and those of everywhere."""
        return ("line", "any") if self.editing is not None else super().places()

    @property
    def editing(self) -> FieldLine | None:
        """The line in which a setting is edited; None while none is."""
        return self.prompt if isinstance(self.prompt, FieldLine) else None

    def edit(self, label: str, text: str, done: Callable[[str], Any], path: str = "") -> None:
        """Open a line for a text; with `path` that of a setting, which `tab` completes. What is typed takes the place
        of a default, such as `auto`, or the data of the run before, and goes on behind what somebody wrote."""
        line = FieldLine(label, text, done, lambda _: self.info.repaint())
        line.path = path
        proposed = path in SETTINGS and path not in self.form.typed and not self._copies
        if proposed or (path in SETTINGS and text == new_run_form.text_of(SETTINGS[path].default)):
            line.selection = Selection(0, len(text))
        self.open_prompt(line)

    def show_prompt(self) -> None:
        self.names = ()
        self._lay_line()
        self.show_all()

    def action_line_complete(self) -> None:
        """Complete what is typed, from files or names."""
        if self.editing is None or not self.editing.path:
            return
        path, text = self.editing.path, self.editing.value
        offered = [model.name for model in self.reading.models] if path == "model.name" else []

        def work() -> None:
            self.post_message(self.Completed(text, *complete(path, text, offered)))

        self.run_worker(work, thread=True, exclusive=True, group="complete", exit_on_error=False)

    def on_new_run_screen_completed(self, message: Completed) -> None:
        """Put the completion into the line, unless it was typed on."""
        if self.editing is None or self.editing.value != message.prefix:
            return
        if message.text != message.prefix:
            self.editing.value = message.text
            self.editing.cursor_position = len(message.text)
        self.names = message.names if len(message.names) > 1 else ()
        if not message.names:
            self.host.say("nothing begins so", "warning")
        self.info.action_list_top()
        self.info.repaint()

    # what the keys do

    def listeners(self) -> Sequence[object]:
        """Also the object that holds the form's actions."""
        return [*super().listeners(), self.actions]

    def action_any_back(self) -> None:
        if not self.give_up():
            super().action_any_back()

    def queue(self, held: bool) -> None:
        """Queue all runs of the form, or go to the first thing that is wrong."""
        if self._queued:
            return  # the key was pressed twice
        if problems := self.problems():
            refusal = msg_n(
                "not queued: {n:,} setting wrong, e goes to the first",
                "not queued: {n:,} settings wrong, e goes to the first",
                len(problems),
            )
            self.refuse(refusal)
            self.actions.action_form_problem()
            return
        runs = self.checked.runs
        if not runs:
            self.refuse("not queued: the settings are not there yet")
            return
        call = queue_call(self.form, runs, self.parent_checkpoint, held)
        self._queued = True
        self.queueing = self._queueing_now = queueing_words(len(runs))
        self.head.repaint()

        def attempt(control: Any) -> list[int]:
            try:
                return call(control)
            except BaseException:
                self.post_message(Learned(self._on_refused))
                raise

        self.host.commands.do("queue", attempt, then=lambda outcomes: self._on_queued(outcomes[0], held))

    def _on_refused(self) -> None:
        """It may be tried again; why it was refused is said by whoever carried it out."""
        self._queued = False
        self.queueing = self._queueing_now = ""
        self.head.repaint()

    def _on_queued(self, run_ids: Sequence[int], held: bool) -> None:
        """Say which runs were made, and close."""
        self._keep_draft()  # there is none any more
        self.host.say(queued_words(run_ids, held), "done")
        self.host.go_to_run(run_ids[0])
        if self.app.screen is self:
            self.app.pop_screen()
