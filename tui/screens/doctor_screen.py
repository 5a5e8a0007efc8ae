"""What `finetop doctor` found, as a sheet over the screen."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from textual.message import Message

from engine.base.messages import msg
from engine.present.text import one_line, wrap
from tui.data.helper_process import HelperProcess
from tui.render.line import Line
from tui.screens.dialogs import Dialog
from tui.widgets.scroll import ScrollPane

_SECONDS = 60.0
"""It asks a driver, a disk and a login manager, each with a limit of its own."""
_SIGNS = {"ok": (" ", "text"), "note": ("!", "warning"), "bad": ("✖", "failed")}


class Examined(Message):
    """`finetop doctor` has ended."""

    def __init__(self, findings: Sequence[dict[str, Any]], error: str = "") -> None:
        self.findings, self.error = findings, error
        super().__init__()


class _Report(ScrollPane):
    scope = "list"

    def __init__(self) -> None:
        super().__init__(id="dialog")
        self.findings: Sequence[dict[str, Any]] | None = None
        self.error = ""

    def title(self) -> str:
        return "Doctor"

    def hint(self) -> str:
        return "j k move · esc back" if self.below or self._top else "esc back"

    def content(self, width: int) -> list[Line]:
        if self.error:
            return [[], *([("  " + text, "warning")] for text in wrap(one_line(self.error), width - 4))]
        if self.findings is None:
            return [[], [("  looking: versions, GPUs, disk, database, daemon, terminal …", "dim")]]
        lines: list[Line] = []
        area = ""
        for finding in self.findings:
            if finding["area"] != area:
                area = finding["area"]
                lines += [[], [("  " + one_line(area), "title")]]
            sign, role = _SIGNS.get(finding["verdict"], _SIGNS["note"])
            for index, text in enumerate(wrap(one_line(finding["what"]), max(20, width - 8))):
                lines.append([(f"  {sign if not index else ' '} ", role), (text, role)])
            for text in wrap(one_line(finding["hint"]), max(20, width - 10)) if finding["hint"] else ():
                lines.append([("      " + text, "dim")])
        return lines


class Doctor(Dialog[_Report]):
    """Runs the command in a process of its own: it asks the driver, which may hang."""

    own_places = ("list", "any")

    def __init__(self) -> None:
        super().__init__()
        self._child = HelperProcess()

    def box(self) -> _Report:
        return _Report()

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width, 110), height - 2

    def on_mount(self) -> None:
        """Start the command."""
        # No worker of Textual's: leaving waits for those, and a process that asks a hung driver may outlive a kill.
        threading.Thread(target=self._examine, name="doctor", daemon=True).start()

    def _examine(self) -> None:
        words = [sys.executable, "-m", "tui", "doctor", "--json", "--workspace", str(self.host.workspace.root)]
        try:
            # The command writes to a pipe, and is to tell the size of this terminal.
            width, height = self.app.size
            size = {"COLUMNS": str(width), "LINES": str(height)}
            done = self._child.run(words, seconds=_SECONDS, environ=size)
        except OSError as error:
            self.post_message(
                Examined((), msg("finetop doctor cannot be started: {strerror}", strerror=error.strerror))
            )
            return
        except subprocess.TimeoutExpired:
            self.post_message(
                Examined((), msg("finetop doctor has not come back for {seconds:.0f} seconds", seconds=_SECONDS))
            )
            return
        if done is None:
            return  # the dialog was closed meanwhile
        code, output, errors = done
        try:
            self.post_message(Examined(json.loads(output)))
        except ValueError:
            last = errors.strip().splitlines()[-1:] or [msg("exit code {code}", code=code)]
            self.post_message(Examined((), msg("finetop doctor failed: {reason}", reason=last[0])))

    def on_examined(self, message: Examined) -> None:
        """Show the findings."""
        self.pane.findings, self.pane.error = message.findings, message.error
        self.pane.repaint()

    def on_unmount(self) -> None:
        """End the command, if it still runs."""
        self._child.close()
