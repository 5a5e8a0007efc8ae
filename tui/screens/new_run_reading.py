"""What is found out about a form while it is filled in: its files, its data, what `auto` becomes, the token report.

All of it is read on worker threads or by helper processes and comes back as `Learned`; what is about an older form is
thrown away.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.message import Message
from textual.screen import Screen

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.units import short_duration
from engine.base.workspace import Workspace
from engine.models.local_models import LocalModel
from engine.monitor.samples import Snapshot
from engine.runs.run_folder import check_data
from engine.settings.auto_values import auto_values
from engine.settings.resolve import Resolved
from engine.settings.schema import RunConfig
from tui.data.data_preview import DataPreview, preview, question_of, token_report
from tui.data.helper_process import HelperProcess
from tui.screens.new_run_checks import FormChecks, examine, models_here

DATA, REPORT = "reading the data", "counting tokens with the model's tokenizer"
"""What may take long, in words."""


class Learned(Message):
    """Something was found out: `take` puts it where it belongs."""

    def __init__(self, take: Callable[[], None]) -> None:
        self.take = take
        super().__init__()


@dataclass(frozen=True, slots=True)
class TokenReport:
    """What `finetop plan` finds out with the model's own tokenizer."""

    config: RunConfig
    """The settings it was made of."""
    content: Mapping[str, Any]
    """Empty where it could not be made."""
    error: str = ""


class Reading:
    """What is known of the form of a screen, and what is being found out."""

    def __init__(self, screen: Screen, workspace: Workspace, changed: Callable[[], None]) -> None:
        """`changed` is called on the event loop when something else is known."""
        self._screen, self._workspace, self._changed = screen, workspace, changed
        self.checks = FormChecks()
        self.data: DataPreview | None = None
        self.models: Sequence[LocalModel] = ()
        self.busy: dict[str, str] = {}
        """What is being read just now, in words, with for how long."""
        self._since: dict[str, float] = {}
        self._report: TokenReport | None = None
        self._runs: Sequence[Resolved] = ()
        self._machine: Snapshot | None = None
        self._number = 0
        self._question = ""
        self._previewer, self._reporter = HelperProcess(), HelperProcess()

    def close(self) -> None:
        """End the helper processes."""
        self._previewer.close()
        self._reporter.close()

    # what is known

    @property
    def config(self) -> RunConfig | None:
        """The settings of the first run; None while something is wrong with them."""
        return self._runs[0].config if self._runs else None

    @property
    def auto(self) -> Mapping[str, Any]:
        """What settings that are `auto` become, as far as it is known: as the report counted the rows, else by the rows
        of the data files."""
        config = self.config
        if config is None:
            return {}
        if (report := self.report) is not None and "auto" in report.content:
            return report.content["auto"]
        rows = self.data.train_examples if self.data is not None else None
        return auto_values(config, rows) if rows else {}

    @property
    def report(self) -> TokenReport | None:
        """The token report of the form as it is; None where there is none."""
        report, config = self._report, self.config
        same = report is not None and config is not None and _essential(report.config) == _essential(config)
        return report if same else None

    @property
    def report_is_old(self) -> bool:
        """Whether the form was changed after its token report."""
        return self._report is not None and self.report is None

    # finding out

    def learn(self, runs: Sequence[Resolved]) -> None:
        """Find out about the runs of another form."""
        self._runs = runs
        self._number += 1
        if (config := self.config) is None:
            return
        self._check()
        question = question_of(config)
        if question == self._question:
            return
        self._question, self.data = question, None
        if not config.data.files:
            self._end(DATA)
            return
        self._begin(DATA)
        work = partial(self._preview, config, question)
        self._screen.run_worker(work, thread=True, group="data", exit_on_error=False)

    def learn_machine(self, machine: Snapshot | None) -> None:
        """Find out again what fits, once the machine's GPUs have been read."""
        is_news = self._machine is None and machine is not None
        self._machine = machine
        if is_news:
            self._check_again()

    def _check(self) -> None:
        number, runs, machine, auto = self._number, self._runs, self._machine, dict(self.auto)
        report = self._report
        is_counted = report is not None and _lengths(report.config) == _lengths(runs[0].config)
        counted = report.content if report is not None and is_counted else {}

        def work() -> None:
            checks = examine(runs, self._workspace, machine, counted, auto)
            self._post(lambda: self._take_checks(number, checks))

        self._screen.run_worker(work, thread=True, exclusive=True, group="learn", exit_on_error=False)

    def _take_checks(self, number: int, checks: FormChecks) -> None:
        if number == self._number:
            self.checks = checks

    def _preview(self, config: RunConfig, question: str) -> None:
        try:
            check_data(config)
            data = preview(config, self._previewer)
        except (EngineError, OSError):
            data = DataPreview()  # its field says why
        if data is not None:
            self._post(lambda: self._take_data(question, data))

    def _take_data(self, question: str, data: DataPreview) -> None:
        if question == self._question:
            self.data = data
            self._end(DATA)
            self._check_again()

    def _check_again(self) -> None:
        """More is known about the same form."""
        if self._runs:
            self._number += 1
            self._check()

    def count_tokens(self) -> None:
        """Read the data as the run would, with the model's tokenizer."""
        if (config := self.config) is None:
            return
        self._begin(REPORT)

        def work() -> None:
            with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="finetop-plan-", encoding="utf-8") as file:
                file.write(config.to_json())
                file.flush()
                answer = token_report(file.name, self._reporter)
            if answer is not None:
                self._post(lambda: self._take_report(config, answer))

        self._screen.run_worker(work, thread=True, group="tokens", exit_on_error=False)

    def _take_report(self, config: RunConfig, answer: Mapping[str, Any] | str) -> None:
        self._end(REPORT)
        report = TokenReport(config, {}, answer) if isinstance(answer, str) else TokenReport(config, answer)
        self._report = report
        self._check_again()  # the memory, now that the lengths are known

    def look_for_models(self, used: Sequence[str]) -> None:
        """Find the models of this machine."""

        def work() -> None:
            models = models_here(self._workspace, used)
            self._post(lambda: setattr(self, "models", models))

        self._screen.run_worker(work, thread=True, exclusive=True, group="models", exit_on_error=False)

    # what takes long

    def tick(self) -> bool:
        """A second has gone by; whether anything is being read."""
        now = time.monotonic()
        for what, since in self._since.items():
            gone = msg(" {seconds}", seconds=short_duration(now - since)) if now - since >= 1 else ""
            self.busy[what] = f"{what} …{gone}"
        return bool(self._since)

    def _begin(self, what: str) -> None:
        self._since[what] = time.monotonic()
        self.busy[what] = f"{what} …"

    def _end(self, what: str) -> None:
        self._since.pop(what, None)
        self.busy.pop(what, None)

    def _post(self, take: Callable[[], None]) -> None:
        def take_and_show() -> None:
            take()
            self._changed()

        self._screen.post_message(Learned(take_and_show))


def _lengths(config: RunConfig) -> tuple[Any, ...]:
    """All that the tokens of examples and steps depend on."""
    return config.data, config.model, config.method.objective, config.train.batch_size


def _essential(config: RunConfig) -> dict[str, Any]:
    """All that a plan depends on."""
    return {path: value for path, value in config.flat().items() if path not in ("run.name", "run.tags", "run.note")}
