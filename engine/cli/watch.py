"""Watching a run from the terminal: one live line where there is a terminal, plain lines elsewhere."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine import journal
from engine.cli.text import bytes_text, duration
from engine.home import LOG

_POLL_SECONDS = 0.1
_PLAIN_LINE_SECONDS = 10.0
_EXIT_OF_STOPPED = 3


class Watcher:
    """Follows one run's journal and prints what a person wants to know of it."""

    def __init__(self, run_id: int, folder: Path, quiet: bool = False) -> None:
        self.run_id = run_id
        self.folder = folder
        self.quiet = quiet
        self.events: list[dict[str, Any]] = []
        """Everything the journal has said since the watch began."""
        self._offset = self._size()
        self._live = sys.stderr.isatty() and not quiet
        self._plan: dict[str, Any] = {}
        self._line = ""
        self._last_plain = 0.0
        self._recent: list[tuple[float, int]] = []

    def follow(self, worker: subprocess.Popen) -> int:
        """Until the worker is gone; the first Ctrl-C or SIGTERM asks it to save and stop, a second kills it."""
        asked = 0

        def on_signal(number: int, frame: object) -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                worker.send_signal(signal.SIGTERM)
                self._say("Finishing the step and saving. Once more leaves at once.")
            else:
                worker.kill()

        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while worker.poll() is None:
                self._read()
                time.sleep(_POLL_SECONDS)
            self._read()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._clear()
        return self._conclude(worker.returncode)

    def _size(self) -> int:
        try:
            return os.path.getsize(self.folder / journal.NAME)
        except OSError:
            return 0

    def _read(self) -> None:
        events, self._offset = journal.read(self.folder, self._offset)
        self.events += events
        metric = None
        for event in events:
            if event["kind"] == "metric":
                metric = event
                self._recent.append((event["t"], event["step"]))
            else:
                self._tell(event)
        self._recent = self._recent[-200:]
        if metric:
            self._progress(metric)

    def _tell(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "data":
                train, val = event["train"], event["val"]
                self._say(
                    f"data: {train['examples']:,} examples, {train['tokens']:,} tokens ({train['supervised']:,} trained on)"
                    + (f"; {val['examples']:,} held out" if val["examples"] else "")
                )
                for line in data_warnings(event):
                    self._say(line)
            case "plan":
                self._plan = event
                settings = event["settings"]
                self._say(
                    f"plan: {event['total_steps']:,} steps, {event['epochs']} epochs of {event['steps_per_epoch']:,}, "
                    f"batch {event['batch_size']}, rate {settings['optim.learning_rate']:g}"
                )
            case "model":
                share = event["trainable"] / event["parameters"]
                self._say(
                    f"model: {event['class']}, {event['parameters'] / 1e6:,.1f}M parameters, "
                    f"{event['trainable'] / 1e6:,.2f}M trained ({share:.1%}), on {event['device']}"
                )
            case "resume" if event["from_step"] >= 0:
                self._say(f"going on after step {event['from_step']:,}")
            case "eval":
                shown = "  ".join(f"{key.removeprefix('eval/')} {value:.4g}" for key, value in event["values"].items())
                self._say(f"step {event['step']:,}  validation: {shown}")
            case "checkpoint" if event["step"]:
                self._say(f"step {event['step']:,}  saved {event['path']} ({bytes_text(event['bytes'])})")
            case "event":
                self._say(event["message"])

    def _progress(self, metric: dict[str, Any]) -> None:
        values, step = metric["values"], metric["step"]
        total = self._plan.get("total_steps", step)
        left = ""
        if len(self._recent) > 1:
            (first_time, first_step), (last_time, last_step) = self._recent[0], self._recent[-1]
            if last_step > first_step:
                left = f"  {duration((total - step) * (last_time - first_time) / (last_step - first_step))} left"
        loss = values.get("train/loss")
        text = (
            f"step {step:,} of {total:,}  epoch {values.get('train/epoch', 0):.2f}  "
            f"loss {'nan' if loss is None else format(loss, '.4f')}  "
            f"{values.get('train/tokens_per_s', 0):,.0f} tokens/s{left}"
        )
        if self._live:
            self._draw(text)
        elif not self.quiet and (time.monotonic() - self._last_plain >= _PLAIN_LINE_SECONDS or step == total):
            self._last_plain = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        width = shutil.get_terminal_size().columns
        share = len(self._recent) and min(1.0, self._recent[-1][1] / max(1, self._plan.get("total_steps", 1)))
        cells = 20
        bar = "█" * round(share * cells) + "·" * (cells - round(share * cells))
        self._line = f"{bar} {text}"[: width - 1]
        sys.stderr.write(f"\r\x1b[K{self._line}")
        sys.stderr.flush()

    def _say(self, text: str) -> None:
        if self.quiet:
            return
        self._clear()
        print(text, file=sys.stderr, flush=True)
        if self._line:
            sys.stderr.write(self._line)
            sys.stderr.flush()

    def _clear(self) -> None:
        if self._live and self._line:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _conclude(self, code: int) -> int:
        """The last words, and the exit code of the command."""
        self._line = ""
        last = next((event for event in reversed(self.events) if event["kind"] == "state"), {})
        state = last.get("state")
        if code == 0 and state == "done":
            self._say(f"run {self.run_id} is done: {self.folder}")
            return 0
        if code == _EXIT_OF_STOPPED:
            self._say(
                f"run {self.run_id} stopped at step {last.get('step', 0):,}, saved. "
                f"Go on with: finetop train --resume {self.run_id}"
            )
            return 0
        self.quiet = False
        if state == "failed":
            self._say(f"run {self.run_id} failed: {last['reason']}\n{last.get('hint', '')}".rstrip())
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with code {code}"
            self._say(f"run {self.run_id}: the worker {how}.\n{log_tail(self.folder)}".rstrip())
        self._say(f"log: {self.folder / LOG}")
        if any(event["kind"] == "checkpoint" for event in self.events):
            self._say(f"Go on from the last checkpoint with: finetop train --resume {self.run_id}")
        return 2 if code == 2 else 1


def log_tail(folder: Path, lines: int = 5) -> str:
    try:
        text = (folder / LOG).read_text("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def data_warnings(report: dict[str, Any]) -> list[str]:
    """What the user should know of rows that are not used as they stand."""
    lines = []
    bad = sum(report["problem_counts"].values())
    if bad:
        kinds = ", ".join(f"{count} {code}" for code, count in sorted(report["problem_counts"].items()))
        lines.append(f"{bad} rows are left out: {kinds}")
        for problem in report["problems"][:5]:
            lines.append(f"  {problem['file']}:{problem['line']}: {problem['message']}")
        if bad > 5:
            lines.append("  `finetop plan` with the same flags shows more of them")
    for name in ("train", "val"):
        counts = report[name]
        if counts["cut_tokens"]:
            lines.append(
                f"{name}: {counts['overlong']:,} examples are longer than data.max_length: {counts['cut_tokens']:,} "
                f"tokens cut, {counts['cut_supervised']:,} of them answers"
            )
    return lines
