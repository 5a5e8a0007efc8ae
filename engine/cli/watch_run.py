"""Watching a run from the terminal: one live line where there is a terminal, plain lines elsewhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from engine.base.log_tail import log_line, tail
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import STOPPED, how_it_left
from engine.base.workspace import LOG
from engine.cli.progress_line import LiveLine
from engine.metrics.best_evaluation import Best, best_of, parse_criterion
from engine.metrics.names import metric_name
from engine.present import event_text
from engine.present.data_warnings import data_warnings
from engine.present.numbers import bytes_text, duration, metric
from engine.present.text import blocks, visible
from engine.runs import journal

_POLL_SECONDS = 0.1
_BAR = 20
_LOG_LINES = 5
PLAIN_LINE_SECONDS = 10.0
"""How often a step is told where there is no terminal for a live line."""


class Watcher:
    """Follows one run's journal and prints what a person wants to know of it."""

    def __init__(self, run_id: int, folder: Path, *, earlier: int | None = None, out: TextIO | None = None) -> None:
        """`earlier`: how many lines of what the journal holds already are told first; None: what was is not told.

        `out`: where the lines go; None: stderr.
        """
        self.run_id = run_id
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        """Everything the journal has said since the watch began."""
        self.out_of_memory = ""
        """What had run out, in words, where the kernel's OOM killer took the worker."""
        self._line = LiveLine(out or sys.stderr)
        self._offset = self._size() if earlier is None else 0
        self._earlier = earlier
        self._plan: dict[str, Any] = {}
        self._last_plain = 0.0
        self._recent: list[tuple[float, int]] = []
        self._asked = 0
        self._told_to_stop = False

    @property
    def last_state(self) -> dict[str, Any]:
        """The last state the worker told of since the watch began; empty before the first."""
        return next((event for event in reversed(self.events) if event["kind"] == "state"), {})

    def follow(self, start: Callable[[], subprocess.Popen]) -> int:
        """Until the worker is gone; the first Ctrl-C or SIGTERM asks it to save and stop, a second kills it.

        The worker is started in here, so that no signal falls between its start and the watch over it.
        """
        worker: subprocess.Popen | None = None

        def on_signal(number: int, frame: object) -> None:
            self._asked += 1
            if worker:
                self._pass_on(worker)

        oom = OomWatch()
        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            worker = start()
            if self._asked:
                self._pass_on(worker)
            while worker.poll() is None:
                oom.still_alive()
                self.read()
                time.sleep(_POLL_SECONDS)
            self.read()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.clear()
        if worker.returncode == -signal.SIGKILL:
            self.out_of_memory = oom.verdict()
        return self._conclude(worker.returncode, oom.hint(worker.returncode))

    def _pass_on(self, worker: subprocess.Popen) -> None:
        if self._asked == 1:
            worker.send_signal(signal.SIGTERM)
            self._told_to_stop = True
        else:
            worker.kill()

    def _size(self) -> int:
        try:
            return os.path.getsize(self.folder / journal.NAME)
        except OSError:
            return 0

    def read(self) -> None:
        """Tell what the journal has said since the last time."""
        if self._told_to_stop:  # said here, not in the signal handler, which may interrupt a print
            self._told_to_stop = False
            self.say("Finishing the step and saving. Ctrl-C once more leaves at once.")
        events, self._offset = journal.read(self.folder, self._offset)
        self.events += events
        silent = 0
        if self._earlier is not None:
            told = [position for position, event in enumerate(events) if event["kind"] not in ("metric", "beat")]
            silent = told[-self._earlier] if 0 < self._earlier < len(told) else 0
            self._earlier = None
        metric = None
        for position, event in enumerate(events):
            if event["kind"] == "plan":
                self._plan = event
            elif event["kind"] == "resume":
                self._recent = []  # the pause before it is no part of the pace
            if event["kind"] == "metric":
                metric = event
                self._recent.append((event["t"], event["step"]))
            elif position >= silent:
                self._tell(event)
        self._recent = self._recent[-200:]
        if metric:
            self._progress(metric)

    def _tell(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "data" | "plan" | "model" as kind:
                self.say(f"{kind}: {event_text.describe_event(kind, '', event)}")
                for line in data_warnings(event) if kind == "data" else ():
                    self.say(line)
            case "resume" if event["from_step"] >= 0:
                self.say(msg("going on after step {from_step:,}", from_step=event["from_step"]))
            case "eval":
                shown = "  ".join(f"{metric_name(key)} {metric(value)}" for key, value in event["values"].items())
                self.say(msg("step {step:,}  {shown}", step=event["step"], shown=shown))
            case "checkpoint" if event["step"]:
                self.say(
                    msg(
                        "step {step:,}  saved {path} ({bytes})",
                        step=event["step"],
                        path=event["path"],
                        bytes=bytes_text(event["bytes"]),
                    )
                )
            case "event" | "best":
                self.say(event["message"])

    def _best(self) -> Best:
        """By the evaluations since the watch began."""
        criterion = parse_criterion((self._plan.get("settings") or {}).get("eval.best"))
        evaluations = [(event["step"], event["values"]) for event in self.events if event["kind"] == "eval"]
        known = [(step, values.get(criterion.key)) for step, values in evaluations]
        return best_of([(step, value) for step, value in known if value is not None], criterion)

    def _progress(self, metric: dict[str, Any]) -> None:
        values, step = metric["values"], metric["step"]
        total = self._plan.get("total_steps", step)
        left = ""
        if len(self._recent) > 1:
            (first_time, first_step), (last_time, last_step) = self._recent[0], self._recent[-1]
            if last_step > first_step and last_time > first_time:
                left = f"  {duration((total - step) * (last_time - first_time) / (last_step - first_step))} left"
        loss = values.get("train/loss")
        text = msg(
            "step {step:,} of {total:,}  epoch {epoch:.2f}  loss {loss}  {token_rate:,.0f} tokens/s{left}",
            step=step,
            total=total,
            epoch=values.get("train/epoch", 0),
            loss="nan" if loss is None else format(loss, ".4f"),
            token_rate=values.get("train/tokens_per_s", 0),
            left=left,
        )
        if self._line.on:
            self._line.draw(f"{blocks(min(1.0, step / max(1, total)), _BAR)} {text}")
        elif time.monotonic() - self._last_plain >= PLAIN_LINE_SECONDS or step == total:
            self._last_plain = time.monotonic()
            self.say(text)

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        self._line.say(visible(text))

    def clear(self) -> None:
        """Take the live line off the screen."""
        self._line.clear()

    def _conclude(self, code: int, hint: str = "") -> int:
        """The last words, and the exit code of the command. `hint`: why the worker may have been killed."""
        last, again = self.last_state, msg("finetop train --resume {run_id}", run_id=self.run_id)
        state = last.get("state")
        if "refused" in last:
            self.say(
                msg(
                    "run {run_id} cannot go on: {refused}\n{hint}",
                    run_id=self.run_id,
                    refused=last["refused"],
                    hint=last.get("hint", ""),
                ).rstrip()
            )
            self.say(msg("It is {state}, as it was before.", state=state))
            return 2 if code == 2 else 1
        if code == 0 and state == "done":
            self.say(msg("run {run_id} is done: {folder}", run_id=self.run_id, folder=self.folder))
            best = self._best()
            if best.improved is False:
                self.say(
                    msg("Training made it no better: {metric} {number}.", metric=best.metric, number=best.words(metric))
                )
            return 0
        if code == STOPPED:
            self.say(
                msg(
                    "run {run_id} stopped at step {step:,}, saved. Go on with: {again}",
                    run_id=self.run_id,
                    step=last.get("step", 0),
                    again=again,
                )
            )
            return 0
        if self._asked == 1 and code == -signal.SIGTERM:  # it had not yet begun to listen
            self.say(
                msg(
                    "run {run_id} stopped before its first step. Start it with: {again}",
                    run_id=self.run_id,
                    again=again,
                )
            )
            return 0
        if self._asked > 1:
            self.say(
                msg(
                    "run {run_id} was left at once, unsaved. Go on from its last checkpoint with: {again}",
                    run_id=self.run_id,
                    again=again,
                )
            )
            return 1
        if state == "failed":
            self.say(
                msg(
                    "run {run_id} failed: {reason}\n{hint}",
                    run_id=self.run_id,
                    reason=last.get("reason", ""),
                    hint=last.get("hint", ""),
                ).rstrip()
            )
        else:
            last_words = "\n".join(map(log_line, tail(self.folder / LOG, _LOG_LINES)))
            self.say(
                msg(
                    "run {run_id}: the worker {code}.\n{last_words}",
                    run_id=self.run_id,
                    code=how_it_left(code),
                    last_words=last_words,
                ).rstrip()
            )
            if hint:
                self.say(hint)
        self.say(msg("log: {path}", path=self.folder / LOG))
        if any(event["kind"] in ("checkpoint", "metric") for event in self.events):
            self.say(msg("Go on from the last checkpoint with: {again}", again=again))
        return 2 if code == 2 else 1
