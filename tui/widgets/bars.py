"""The three single lines: the state of the machine, the last event, and the footer with the keys."""

from textual import events
from textual.widgets import Input

from engine.base.messages import msg, msg_n
from engine.present import numbers
from engine.present.text import cells, cut, without_folders
from engine.store.run_records import RunState
from tui.data.snapshot import Snapshot
from tui.keymap import BY_ID, Action, written
from tui.render.line import Line, fit_line, line_cells
from tui.widgets.pane import Lines

_LITTLE_DISK = 5_000_000_000
"""A checkpoint or two of a small model; below its own reserve the daemon starts nothing."""
_SLOW_SECONDS = 1.0
"""A change takes some milliseconds; from here on people wonder."""


class Header(Lines):
    """The state of the machine: daemon, queue, GPUs, disk, and what is wrong."""

    def lines(self, width: int, height: int) -> list[Line]:
        host = self.host
        return [header(host.snapshot, width, host.host_name, host.readonly, host.paused, host.commands.running())]


def header(snapshot: Snapshot, width: int, host: str, readonly: bool, paused: bool, command: tuple[str, float]) -> Line:
    """One line; what does not fit is left out from the right, warnings never. `command`: what is being done, and
    for how many seconds."""
    wide = width >= 120
    gap = "   " if wide else "  "
    line: Line = [(" finetop", "title"), (f"{gap[1:]}{cut(host, 20)}", "text")]
    for text, role in [*_warnings(snapshot, readonly, paused), *_slow(*command)]:
        line += [(gap, "text"), (text, role)]
    parts = [_daemon(snapshot, wide), _runs(snapshot, wide), _machine(snapshot, wide)]
    if snapshot.machine and snapshot.machine.disk and snapshot.machine.disk.free_bytes is not None:
        amount = snapshot.machine.disk.free_bytes
        free = numbers.size(amount)
        parts.append(
            [(msg("disk {free} free", free=free) if wide else free, "text" if amount >= _LITTLE_DISK else "warning")]
        )
    for part in parts:
        if part and line_cells(line) + len(gap) + line_cells(part) <= width:
            line += [(gap, "text"), *part]
    return line


def _warnings(snapshot: Snapshot, readonly: bool, paused: bool) -> Line:
    warnings: Line = []
    if paused:
        warnings.append(("PAUSED p goes on", "mark"))
    if readonly:
        warnings.append(("read-only", "warning"))
    store = snapshot.store
    if store.problem and store.since is not None:
        busy = next((word for sign, word in (("locked", "busy"), ("is gone", "gone")) if sign in store.problem), "")
        busy = busy or "not readable"
        warnings.append((f"runs.db {busy} {numbers.short_duration(snapshot.taken - store.since)}", "warning"))
    elif store.journal_mode not in ("wal", "") and not store.missing:
        warnings.append(("runs.db without WAL", "warning"))
    return warnings


def _slow(what: str, seconds: float) -> Line:
    """A change that takes long: nearly always another process holds the database's lock."""
    if seconds < _SLOW_SECONDS:
        return []
    lasted = numbers.short_duration(seconds)
    if what in ("delete", "undo", "start daemon"):  # moves files, or starts a process
        return [(f"{what} takes {lasted}", "warning")]
    return [(f"runs.db busy {lasted}" + (f": {what} waits" if what else ""), "warning")]


def _daemon(snapshot: Snapshot, wide: bool) -> Line:
    daemon, waiting = snapshot.daemon, snapshot.counts.get(RunState.QUEUED, 0)
    if not daemon.running:
        waits = msg_n(" · {n:,} run waits", " · {n:,} runs wait", waiting) if waiting else ""
        return [
            ("daemon ○ ", "text"),
            ("not running" + waits + (" · D starts it" if waiting else ""), "warning" if waiting else "dim"),
        ]
    if silent := daemon.silent_seconds(snapshot.taken):
        return [("daemon ● ", "text"), (f"stale {numbers.short_duration(silent)}", "warning")]
    up = f" up {numbers.age(snapshot.taken - daemon.started)}" if wide and daemon.started else ""
    return [("daemon ", "text"), ("●", "running"), (up, "text")]


def _runs(snapshot: Snapshot, wide: bool) -> Line:
    counts = snapshot.counts
    running = sum(counts.get(state, 0) for state in (RunState.RUNNING, RunState.STARTING))
    queued, failed = counts.get(RunState.QUEUED, 0), snapshot.failed_today
    line: Line = [
        (
            msg("running {running}   queue {queued}", running=running, queued=queued)
            if wide
            else msg("run {running}  queue {queued}", running=running, queued=queued),
            "text",
        )
    ]
    if failed:
        line.append((msg("   failed {failed} today", failed=failed) if wide else f"  fail {failed}", "failed"))
    return line


def _machine(snapshot: Snapshot, wide: bool) -> Line:
    machine = snapshot.machine
    if machine is None:
        return []
    cards = [gpu for gpu in machine.gpus if not gpu.parent]
    if cards and wide:
        busy = sum((gpu.utilisation or 0) >= 5 or bool(gpu.processes) for gpu in cards)
        return [(msg("GPUs {busy} busy of {num_cards}", busy=busy, num_cards=len(cards)), "text")]
    if cards:
        shown = " ".join(numbers.percent(gpu.utilisation) for gpu in cards[:4])
        return [(f"GPU {shown}{'…' if len(cards) > 4 else ''}", "text")]
    cpu_percent = machine.host.cpu_percent if machine.host else None
    return [] if cpu_percent is None else [(f"CPU {numbers.percent(cpu_percent)}", "text")]


class StatusLine(Lines):
    """The last event, or what came of the last key; kept until somebody has seen it: a toast is gone before anyone
    looks. Where it has no room, it names the key that shows it whole.

    While a text is asked for, what for, unless a line of its own says so (`labels`).
    """

    labels = True

    def lines(self, width: int, height: int) -> list[Line]:
        if self.labels and (label := self.key_screen.prompt_label):
            return [[(f" {label}: ", "key")]]
        status = self.host.status_text
        old = 0.0 if status.at is None else self.host.snapshot.taken - status.at
        age = f" · {numbers.age(old)} ago" if old >= 60 else ""
        if cells(status.text) + cells(age) + 1 > width and (keys := self.host.keymap.keys("any.messages")):
            age = f" · {written(keys[0])} whole"
        room = max(1, width - 1 - cells(age))
        text = cut(without_folders(status.text, room), room)
        return [[(" ", "text"), (text, status.role), (age, "dim")]]


class Footer(Lines):
    """The keys of the place one is in; those that cannot be used now are grey. Under a dialog, the dialog's keys."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._named: list[tuple[int, Action]] = []
        """What is shown, and the column where each ends."""

    def on_click(self, event: events.Click) -> None:
        """A click on a key is that key."""
        event.stop()
        if action := next((action for end, action in self._named if event.x < end), None):
            self.key_screen.perform(action)

    def lines(self, width: int, height: int) -> list[Line]:
        self._named = []
        screen, in_front = self.key_screen, self.app.screen
        if in_front is not self.screen and (keys := getattr(in_front, "footer_words", "")):
            return [[(f" {keys}", "text")]]
        if isinstance(self.screen.focused, Input):
            completes = "tab completes  " if "line" in self.key_screen.places() else ""
            return [[(msg(" enter takes it  {completes}esc leaves it as it was", completes=completes), "text")]]
        keymap = self.host.keymap
        # The last two, help and leaving, are always shown.
        zoomed = bool(getattr(self.screen, "zoomed", ""))
        actions = [action for action in keymap.footer(screen.places()) if not (action.writes and self.host.readonly)]
        if zoomed:  # the pane is open already
            actions = [BY_ID["any.back"], *(action for action in actions if action.id != "main.open")]
        named = [(action, keymap.keys(action.id)[0]) for action in actions]
        sizes = [cells(f"{written(key)} {action.label}") + 2 for action, key in named]
        tail = [index for index, (action, _) in enumerate(named) if action.footer > 10]
        room = width - 1 - sum(sizes[index] for index in tail)
        line: Line = [(" ", "text")]
        for index, (action, key) in enumerate(named):
            if index not in tail:
                if sizes[index] > room:
                    continue
                room -= sizes[index]
            able = not screen.disabled_reason(action)
            self._named.append((line_cells(line) + sizes[index], action))
            line += [(written(key), "key" if able else "dim"), (f" {action.label}  ", "text" if able else "dim")]
        return [fit_line(line, width)]
