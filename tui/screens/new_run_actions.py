"""What the keys of the new-run screen do to its form."""

from functools import partial
from typing import Any

from engine.base.messages import msg
from engine.present.text import cut, fit, one_line
from engine.settings.aliases import settings_called
from engine.settings.presets import all_presets
from engine.settings.schema import SETTINGS
from tui.render.line import Line
from tui.screens import new_run_form
from tui.screens.choice import Choose
from tui.screens.new_run_fields import SOURCE
from tui.screens.new_run_parts import NewRun

_OFFERED_RUNS = 60


class FormActions:
    """Owned by the screen of the form."""

    def __init__(self, screen: NewRun) -> None:
        self._screen = screen
        self._host = screen.host

    def action_form_edit(self) -> None:
        """Edit the setting under the cursor, or choose where the form starts from."""
        key = self._screen.fields.key
        if key == SOURCE:
            self.choose_source()
        elif isinstance(key, str) and key in SETTINGS:
            self._screen.edit(key, self._screen.form.text(key), partial(self._set, key), key)

    def _set(self, path: str, text: str) -> None:
        self._screen.changed(self._screen.form.set(path, text))

    def choose_source(self) -> None:
        """Choose among defaults, presets and runs."""
        choices: list[tuple[Any, Line]] = [(None, [("the defaults", "text")])]
        for preset in all_presets():
            choices.append((preset.name, _choice(f"preset {preset.name}", preset.summary)))
        for run in self._host.snapshot.runs[:_OFFERED_RUNS]:
            choices.append((run.id, _choice(f"run {run.id}", run.name)))
        start = partial(self._screen.load, typed=self._screen.form.typed)  # what was typed stays typed
        self._host.push_screen(Choose("Start from", choices, start))

    def choose_model(self) -> None:
        """Choose among the models of this machine."""
        models = self._screen.reading.models
        choices = [(model.name, _choice(model.source, model.name)) for model in models]
        self._host.push_screen(Choose("Model", choices, partial(self._set, "model.name")))

    def action_form_cycle(self) -> None:
        """The next value of a setting that has few; of one that may be much, what enter does."""
        path = self._screen.fields.key
        if path == "model.name" and self._screen.reading.models:
            self.choose_model()
        elif isinstance(path, str) and (following := self._following(path)) is not None:
            self._set(path, following)
        else:
            self.action_form_edit()

    def _following(self, path: str) -> str | None:
        return new_run_form.next_choice(path, self._screen.form.text(path)) if path in SETTINGS else None

    def action_form_reset(self) -> None:
        """The value it had at first."""
        if self._screen.fields.key in SETTINGS:
            self._screen.changed(self._screen.form.reset(self._screen.fields.key))

    def action_form_anew(self) -> None:
        """Begin anew: as the form was when nothing was typed."""
        if self._screen.pristine:
            self._host.say("nothing was typed yet")
            return
        self._screen.load(self._screen.first_source, {}, "begun anew; u brings back what was typed")

    def action_form_undo(self) -> None:
        """The form as it was before the last change."""
        if not self._screen.earlier:
            self._host.say("nothing was changed yet")
            return
        self._screen.changed(self._screen.earlier.pop())
        self._screen.earlier.pop()  # what it was taken back from

    def action_form_all(self) -> None:
        """All settings, or the usual ones."""
        self._screen.all_settings = not self._screen.all_settings
        self._screen.show_all()

    def action_form_find(self) -> None:
        """Ask for a part of a name, and go to the first setting that has it, or is called so by other trainers."""

        def go(text: str) -> None:
            paths = settings_called(text)
            if not paths:
                self._host.say(msg("no setting's name or help holds '{text}'", text=text), "warning")
                return
            self.go_to(paths[0])

        self._screen.edit("find", "", go)

    def go_to(self, path: str) -> None:
        """Put the cursor on a setting, even if it was hidden."""
        if not self._screen.fields.move_to(path):
            self._screen.all_settings = True
            self._screen.show_all()
            self._screen.fields.move_to(path)

    def action_form_problem(self) -> None:
        """Go to the next setting that is wrong."""
        wrong = [path for path in SETTINGS if self._screen.problem(path)]
        if not wrong:
            self._host.say("nothing is wrong")
            return
        order = list(SETTINGS)
        at = order.index(self._screen.fields.key) if self._screen.fields.key in SETTINGS else -1
        self.go_to(next((path for path in wrong if order.index(path) > at), wrong[0]))

    def action_form_pane(self) -> None:
        """Between settings and what they take."""
        (self._screen.fields if self._screen.focused is self._screen.info else self._screen.info).focus()

    def action_form_report(self) -> None:
        """Read the data as the run would, with the model's tokenizer."""
        if self._screen.problems() or not self._screen.checked.runs:
            self._screen.refuse("token report: first correct what is wrong (e goes there)")
            return
        self._screen.reading.count_tokens()
        self._screen.info.repaint()

    def action_form_queue(self) -> None:
        """Queue the run, or all runs of the sweep."""
        self._screen.queue(held=False)

    def action_form_hold(self) -> None:
        """Queue it, held until it is released."""
        self._screen.queue(held=True)


def _choice(what: str, name: str) -> Line:
    return [(fit(one_line(what), 26), "title"), (cut(one_line(name), 60), "dim")]
