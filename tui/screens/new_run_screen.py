"""A new run from a preset, a copy of any run, or a checkpoint: settings as rows, what is wrong beside them, and on the
right what it would take: data, memory, and how many runs it makes.

Everything that reads files runs on worker threads; an answer to an older form is thrown away.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region
from textual.message import Message

from engine.base.errors import EngineError
from engine.base.messages import msg, msg_n
from engine.present.text import cells, cut, fit, one_line
from engine.settings.presets import all_presets, find_preset
from engine.settings.resolve import Resolved, read_run
from engine.settings.schema import SETTINGS, RunConfig
from tui.data.data_preview import DataPreview, preview, token_report
from tui.data.helper_process import HelperProcess
from tui.render.line import Line
from tui.screens import new_run_form
from tui.screens.dialogs import Choose
from tui.screens.key_screen import KeyScreen, place
from tui.screens.new_run_fields import SOURCE, EditLabel, FieldLine, Fields, Head, Info
from tui.screens.new_run_form import Checked, Form, FormChecks, Source
from tui.widgets.bars import Footer, StatusLine

_WIDE = 100
_OFFERED_RUNS = 60


class NewRunScreen(KeyScreen):
    """`source` is a run's id, a preset's name, or None for the defaults; `changes` are values typed in beforehand.

    With `parent`, a run's id and a checkpoint of it (`best`, a step), the run starts from its weights.
    """

    own_places = ("form", "any")

    class Loaded(Message):
        """The settings to start from."""

        def __init__(self, source: Source | None, error: str = "") -> None:
            self.source, self.error = source, error
            super().__init__()

    class Learned(Message):
        """Something about the form of that number: `what` is 'checks', 'data' or 'tokens'."""

        def __init__(self, number: int, what: str, value: Any) -> None:
            self.number, self.what, self.value = number, what, value
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
    ) -> None:
        super().__init__()
        self.parent_checkpoint = parent
        self._source = source if source is not None else parent[0] if parent else None
        self._changes = {
            path: value if isinstance(value, str) else new_run_form.text_of(value)
            for path, value in (changes or {}).items()
        }
        self.form = Form()
        self.checked = Checked()
        self.form_checks = FormChecks({})
        self.data: DataPreview | None = None
        self.tokens: Mapping[str, Any] | str | None = None
        self.reading = ""
        self.all_settings = False
        self.names: tuple[str, ...] = ()
        self._number = 0
        self._data_settings = ""
        self._loaded = False
        self._queued = False
        self._previewer, self._reporter = HelperProcess(), HelperProcess()

    def compose(self) -> ComposeResult:
        self.head = Head(self)
        self.fields = Fields(self)
        self.info = Info(self)
        self.label_line = EditLabel(self)
        self.status_line = StatusLine(id="news")
        self.status_line.labels = False
        self.footer = Footer(id="footer")
        yield from (self.head, self.fields, self.info, self.label_line, self.status_line, self.footer)

    def on_mount(self) -> None:
        self.fields.focus()
        self.start_from(self._source)

    def on_unmount(self) -> None:
        """End the helper processes."""
        self._previewer.close()
        self._reporter.close()

    def on_rows_moved(self) -> None:
        """What is told is about the setting under the cursor."""
        self.info.action_list_top()
        self.info.repaint()

    # where it starts from

    def start_from(self, source: int | str | None) -> None:
        """Load the settings of a preset or a run; what was typed stays typed."""
        self._loaded = False
        runs = self.host.workspace.runs

        def work() -> None:
            try:
                self.post_message(self.Loaded(load(source, runs)))
            except EngineError as error:
                self.post_message(self.Loaded(None, error.message))

        self.run_worker(work, thread=True, exclusive=True, group="load", exit_on_error=False)

    @property
    def ready(self) -> bool:
        """Once the settings are there; once queued, no more."""
        return self._loaded and not self._queued  # once queued, it closes

    def on_new_run_screen_loaded(self, message: Loaded) -> None:
        """Take the settings of the source; keys that waited for them are dispatched."""
        self._take_source(message)
        self._loaded = True
        self.host.call_later(self.host.dispatch_keys)

    def _take_source(self, message: Loaded) -> None:
        if message.source is None:
            self.host.say(message.error, "failed")
            self.changed(self.form)
            return
        typed = {**self.form.typed, **self._changes}
        self._changes = {}
        form = Form(message.source)
        for path, text in typed.items():
            if path in SETTINGS:
                form = form.set(path, text)
        fresh = self.form == Form()
        self.changed(form)
        if fresh and not form.text("data.files"):
            self.fields.move_to("data.files")

    # what is typed, and what comes of it

    def changed(self, form: Form) -> None:
        """Check another form, and read what its files hold."""
        self.form = form
        self.checked = new_run_form.check(form)
        self._number += 1
        if self.checked.runs:
            self._learn()
        self.show_all()

    def problem(self, path: str) -> str:
        """What is wrong with a setting, whoever found out."""
        return self.checked.problems.get(path) or self.form_checks.files.get(path, "")

    def problems(self) -> dict[str, str]:
        """All that is wrong, by setting."""
        return {**self.form_checks.files, **self.checked.problems}

    def _learn(self) -> None:
        number, runs, machine = self._number, self.checked.runs, self.host.snapshot.machine
        report = self.tokens if isinstance(self.tokens, Mapping) else {}
        workspace = self.host.workspace

        def work() -> None:
            files = new_run_form.check_files(runs)
            memory: Sequence[Line] = ()
            if "model.name" not in files:
                memory = new_run_form.memory_needs(runs[0].config, workspace, machine, report)
            findings = new_run_form.findings(runs[0])
            warnings = tuple(finding.message for finding in findings if not finding.refused)
            self.post_message(self.Learned(number, "checks", FormChecks(files, tuple(memory), warnings)))

        self.run_worker(work, thread=True, exclusive=True, group="learn", exit_on_error=False)
        config = runs[0].config
        data_settings = json.dumps(
            [
                config.data.files,
                config.data.val_files,
                config.data.map,
                config.data.format,
                config.data.system,
                config.method.objective,
            ]
        )
        if data_settings == self._data_settings:
            return
        self._data_settings, self.data, self.tokens = data_settings, None, None
        if config.data.files:
            self.reading = "reading the data …"
            self.run_worker(lambda: self._preview(config), thread=True, group="data", exit_on_error=False)

    def _preview(self, config: RunConfig) -> None:
        try:
            new_run_form.check_data(config)
            data = preview(config, self._previewer)
        except (EngineError, OSError):
            data = DataPreview(error="")  # its field says why
        if data is not None:
            self.post_message(self.Learned(self._number, "data", data))

    def on_new_run_screen_learned(self, message: Learned) -> None:
        """Show what was read, unless it is about an older form."""
        if message.what == "checks":
            if message.number != self._number:
                return
            self.form_checks = message.value
        elif message.what == "data":
            self.data, self.reading = message.value, ""
        else:
            self.tokens, self.reading = message.value, ""
            if self.checked.runs:
                self._learn()  # the memory, now that the lengths are known
        self.show_all()

    def show_all(self) -> None:
        """Draw all parts again."""
        self.fields.rebuild()
        for part in (self.head, self.info, self.label_line, self.footer):
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
        """Open a line for a text; with `path` that of a setting, which `tab` completes."""
        line = FieldLine(label, text, done, lambda _: self.info.repaint())
        line.path = path
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
        offered = self.offered(path)

        def work() -> None:
            self.post_message(self.Completed(text, *new_run_form.complete(path, text, offered)))

        self.run_worker(work, thread=True, exclusive=True, group="complete", exit_on_error=False)

    def offered(self, path: str) -> list[str]:
        """Names for a setting that are no files: what other runs used."""
        if path != "model.name":
            return []
        return sorted({"starter", *(run.model for run in self.host.snapshot.runs if run.model)})

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
        self.info.repaint()

    # what the keys do

    def action_any_back(self) -> None:
        if not self.give_up():
            super().action_any_back()

    def action_form_edit(self) -> None:
        """Edit the setting under the cursor, or choose where the form starts from."""
        key = self.fields.key
        if key == SOURCE:
            self.choose_source()
        elif isinstance(key, str) and key in SETTINGS:
            path = key
            self.edit(path, self.form.text(path), lambda text: self.changed(self.form.set(path, text)), path)

    def choose_source(self) -> None:
        """Choose among defaults, presets and runs."""
        choices: list[tuple[Any, Line]] = [(None, [("the defaults", "text")])]
        for preset in all_presets():
            choices.append(
                (preset.name, [(fit(f"preset {preset.name}", 26), "title"), (cut(one_line(preset.summary), 60), "dim")])
            )
        for run in self.host.snapshot.runs[:_OFFERED_RUNS]:
            choices.append((run.id, [(fit(f"run {run.id}", 26), "title"), (cut(one_line(run.name), 60), "dim")]))
        self.app.push_screen(Choose("Start from", choices, self.start_from))

    def action_form_cycle(self) -> None:
        """The next value of a setting that has few."""
        path = self.fields.key
        if path not in SETTINGS:
            self.action_form_edit()
            return
        following = new_run_form.next_choice(path, self.form.text(path))
        if following is None:
            self.host.say(msg("{path} may be anything: enter edits it", path=path))
        else:
            self.changed(self.form.set(path, following))

    def action_form_reset(self) -> None:
        """The value it had at first."""
        if self.fields.key in SETTINGS:
            self.changed(self.form.reset(self.fields.key))

    def action_form_all(self) -> None:
        """All settings, or the usual ones."""
        self.all_settings = not self.all_settings
        self.show_all()

    def action_form_find(self) -> None:
        """Ask for a part of a name, and go to the first setting that has it."""

        def go(text: str) -> None:
            path = next((path for path in SETTINGS if text.strip().lower() in path), None)
            if path is None or not text.strip():
                self.host.say(msg("no setting's name holds '{text}'", text=text), "warning")
                return
            self.go_to(path)

        self.edit("find", "", go)

    def go_to(self, path: str) -> None:
        """Put the cursor on a setting, even if it was hidden."""
        if not self.fields.move_to(path):
            self.all_settings = True
            self.show_all()
            self.fields.move_to(path)

    def action_form_problem(self) -> None:
        """Go to the next setting that is wrong."""
        wrong = [path for path in SETTINGS if self.problem(path)]
        if not wrong:
            self.host.say("nothing is wrong")
            return
        order = list(SETTINGS)
        at = order.index(self.fields.key) if self.fields.key in SETTINGS else -1
        self.go_to(next((path for path in wrong if order.index(path) > at), wrong[0]))

    def action_form_pane(self) -> None:
        """Between settings and what they take."""
        (self.fields if self.focused is self.info else self.info).focus()

    def action_form_report(self) -> None:
        """Read the data as the run would, with the model's tokenizer."""
        if not self.checked.runs or self.form_checks.files:
            self.host.say("token report: first correct what is wrong (e goes there)", "warning")
            return
        self.reading = "reading the data with the model's tokenizer …"
        text, number = self.checked.runs[0].config.to_json(), self._number

        def work() -> None:
            with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="finetop-plan-", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                report = token_report(file.name, self._reporter)
            if report is not None:
                self.post_message(self.Learned(number, "tokens", report))

        self.run_worker(work, thread=True, group="tokens", exit_on_error=False)
        self.info.repaint()

    def action_form_queue(self) -> None:
        """Queue the run, or all runs of the sweep."""
        self.queue(held=False)

    def action_form_hold(self) -> None:
        """Queue it, held until it is released."""
        self.queue(held=True)

    def queue(self, held: bool) -> None:
        """Queue all runs of the form, or go to the first thing that is wrong."""
        if self._queued:
            return  # the key was pressed twice
        problems = self.problems()
        if problems:
            self.host.say(
                msg_n(
                    "not queued: {n:,} setting wrong, e goes to the first",
                    "not queued: {n:,} settings wrong, e goes to the first",
                    len(problems),
                ),
                "failed",
            )
            self.action_form_problem()
            return
        runs, parent, typed = list(self.checked.runs), self.parent_checkpoint, self.form.typed
        if not runs:
            self.host.say("not queued: the settings are not there yet", "warning")
            return
        if parent is not None:
            run_id, point = parent

            def fork(run: Resolved, control: Any) -> int:
                return control.fork(run_id, str(point), _changes(run.config, typed), _name(run.config, typed))

            calls: list[Callable[[Any], Any]] = [partial(fork, run) for run in runs]
        elif len(runs) > 1:
            group = new_run_form.group_name(self.form)
            calls = [lambda control: control.add_all(runs, held=held, sweep=group)]
        else:
            calls = [lambda control: control.add(runs[0], held=held)]
        self._queued = True

        def attempt(control: Any) -> list[int]:
            try:
                made: list[int] = []
                for call in calls:
                    run_ids = call(control)
                    made += run_ids if isinstance(run_ids, list) else [run_ids]
                return made
            except BaseException:
                self._queued = False  # may be tried again
                raise

        self.host.commands.do("queue", attempt, then=lambda outcomes: self.on_queued(outcomes[0]))

    def on_queued(self, made: Sequence[int]) -> None:
        """Say which runs were made, and close."""
        ids = (
            f"run {made[0]}"
            if len(made) == 1
            else msg("{num_runs} runs, {first} to {last}", num_runs=len(made), first=made[0], last=made[-1])
        )
        self.host.say(msg("queued {ids}", ids=ids), "done")
        self.host.go_to_run(made[0])
        if self.app.screen is self:
            self.app.pop_screen()


def _changes(config: RunConfig, typed: Mapping[str, str]) -> dict[str, Any]:
    """The values of what was typed; the name is given apart."""
    flat = config.flat()
    return {path: flat[path] for path in typed if path != "run.name"}


def _name(config: RunConfig, typed: Mapping[str, str]) -> str:
    return config.run.name if "run.name" in typed else ""


def load(source: int | str | None, runs: Path) -> Source:
    """Settings to start from. Raises EngineError where there is no such run or preset."""
    if source is None:
        return Source()
    if isinstance(source, str):
        return Source(f"preset {source}", find_preset(source).settings())
    folder = runs / str(source)
    if not folder.is_dir():
        raise EngineError(msg("the folder of run {source} is gone: {folder}", source=source, folder=folder))
    resolved = read_run(folder)
    values = resolved.config.flat() | {"run.name": "", "model.checkpoint": resolved.config.model.checkpoint}
    return Source(f"run {source}", values, resolved.origin)


def layout(width: int, height: int) -> dict[str, Region]:
    """Settings on the left and what comes of them on the right, or below each other."""
    regions = {
        "head": Region(0, 0, width, 1),
        "label": Region(0, height - 3, width, 1),
        "news": Region(0, height - 2, width, 1),
        "footer": Region(0, height - 1, width, 1),
    }
    body = Region(0, 1, width, max(height - 4, 1))
    if width >= _WIDE:
        left = width * 11 // 20
        return regions | {
            "fields": Region(0, 1, left, body.height),
            "info": Region(left, 1, width - left, body.height),
        }
    below = min(9, body.height // 2) if body.height >= 12 else 0
    regions["fields"] = Region(0, 1, width, body.height - below)
    if below:
        regions["info"] = Region(0, 1 + body.height - below, width, below)
    return regions
