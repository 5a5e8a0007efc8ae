"""The feed: one thread that reads the store and the daemon's files, and posts a picture of them.

It builds a frozen `Snapshot` when something was committed (asked every quarter of a second, 6 µs each) and once a
second for what changes by itself, and posts it as `Updated`. Besides, anyone may `query` the store, with a
function of a read-only connection, or `read` files, with a function that gets none and so works while the database
does not. Both run on this thread, and what they return comes back as `Answer`. The event loop never waits for a
database, a disk or the daemon.

A list of 5,000 runs takes 4-40 ms to read, and while runs log, twice a second would be a waste: only the active and
waiting rows are read again then, and the whole list when runs came, went or ended, or every few seconds.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from textual.message import Message

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.daemon import daemon_client
from engine.monitor import samples as monitor
from engine.store import connect, queries, store_errors, transactions, trash
from engine.store.run_records import ACTIVE, Checkpoint, Run, RunState
from tui.data.current_user import current_user
from tui.data.machine_reader import MachineReader
from tui.data.snapshot import Daemon, Detail, News, Snapshot, Store, View, machine_of

POLL_SECONDS = 0.25
"""How often to ask whether anything was committed."""
LEAST_SECONDS = 0.5
"""Least time between two pictures of what runs log; with the daemon's import a value is on the screen within 1 s."""
IDLE_SECONDS = 1.0
"""How often the daemon's files are read, which changes nothing in the store."""
REST_SECONDS = 8.0
"""How often the machine's figures change on the screen while no run is at work."""
WHOLE_SECONDS = 5.0
"""How often the whole list is read while commits come in."""
MACHINE_STALE_SECONDS = 10.0
"""Without a daemon, machine.json older than this says nothing about now."""
OWN_READING_SECONDS = 2.0
"""How long after the first picture, which must not wait, the screen begins to measure where no daemon does."""
PRUNED_SECONDS = 10.0
"""A worker deletes a checkpoint's files and then says so: until the store can know, they do not count as missing."""
_NEWS_KINDS = (
    "state",
    "oom",
    "early-stop",
    "thinks-less",
    "command-failed",
    "disk-full",
    "retry",
    "kill",
    "checkpoint-damaged",
    "recovered",
    "trash-emptied",
)
"""Kinds of events that are shown above the footer."""
_KEPT_NEWS = 300


class Updated(Message):
    """A new snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Updated)


class Answer(Message):
    """What a question returned, `value`, or why it could not be answered, `error` in the user's words."""

    def __init__(self, key: str, value: Any = None, error: str = "") -> None:
        self.key = key
        self.value = value
        self.error = error
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Answer) and message.key == self.key


class Feed(threading.Thread):
    """`post` must be safe to call from this thread (Textual's `post_message` is)."""

    def __init__(self, workspace: Workspace, post: Callable[[Message], Any], view: View | None = None) -> None:
        super().__init__(name="feed", daemon=True)
        self._workspace = workspace
        self._post = post
        self._wake = threading.Condition()
        self._view = view or View()
        self._questions: dict[str, Callable[[], Any]] = {}
        self._stopping = False
        self._paused = False
        self._refresh_now = True
        self._slow = False
        self._conn: Any = None
        self._changes: connect.Changes | None = None
        self._last = Snapshot(0.0)
        self._began = time.time()
        self._began_at = time.monotonic()
        self._own_reading = MachineReader(workspace)
        self._whole_at = 0.0
        self._machine_at = 0.0
        self._lost: dict[int, dict[int, float]] = {}
        """Of the run in focus: the steps whose files are missing, and since when."""
        self._trouble_since: float | None = None
        self._file: tuple[int, int] | None = None
        """Which file runs.db is."""

    # from the event loop: none of these waits

    def set_view(self, view: View) -> None:
        """Show other runs, another order or another run's detail, at once."""
        with self._wake:
            self._view = view
            self._refresh_now = True
            self._wake.notify()

    def query(self, key: str, question: Callable[[Any], Any]) -> None:
        """Call `question(connection)` on the feed's thread; what it returns comes as `Answer(key, value)`.

        The newest question under a key replaces one that still waits, so asking often costs nothing.
        """
        self.read(key, lambda: self._ask_store(question))

    def read(self, key: str, function: Callable[[], Any]) -> None:
        """Call `function()` on the feed's thread, without the store; otherwise as `query`."""
        with self._wake:
            self._questions[key] = function
            self._wake.notify()

    def refresh(self) -> None:
        """Read everything at once: something was just changed here."""
        with self._wake:
            self._refresh_now = True
            self._whole_at = 0.0
            self._wake.notify()

    def pause(self, paused: bool) -> None:
        """Stop posting pictures; questions are still answered."""
        with self._wake:
            self._paused = paused
            self._refresh_now = True
            self._wake.notify()

    def slow(self, slow: bool) -> None:
        """A picture every four seconds: nobody looks, or the link is slow."""
        with self._wake:
            self._slow = slow
            self._wake.notify()

    def stop(self) -> None:
        """End the thread after what it is reading."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    # the thread

    def run(self) -> None:
        """Post pictures and answers until `stop`."""
        posted_at = 0.0
        pending = False
        while True:
            with self._wake:
                if not (self._stopping or self._refresh_now or self._questions):
                    self._wake.wait(POLL_SECONDS)
                if self._stopping:
                    break
                refresh_now, self._refresh_now = self._refresh_now, False
                questions, self._questions = self._questions, {}
                view, paused, slow = self._view, self._paused, self._slow
            now = time.monotonic()
            if not paused:
                pending = self._committed() or pending
                scale = 4.0 if slow else 1.0
                due = (pending and now - posted_at >= LEAST_SECONDS * scale) or now - posted_at >= IDLE_SECONDS * scale
                if refresh_now or due:
                    self._last = self._build(view, pending or refresh_now)
                    self._post(Updated(self._last))
                    posted_at, pending = now, False
            for key, function in questions.items():
                self._post(self._answer(key, function))
        self._own_reading.stop()
        if self._conn is not None:
            self._conn.close()

    def _notice_other_file(self) -> None:
        """Let go of a runs.db that was deleted or put aside: an open file lives on, and would be read on and on."""
        try:
            status = os.stat(self._workspace.database)
            file = (status.st_dev, status.st_ino)
        except OSError:
            file = None
        if self._conn is not None and file != self._file:
            self._close()
        self._file = file

    def _open(self) -> Any:
        if self._conn is None:
            self._conn = connect.reader(self._workspace.database, busy_seconds=0.2)
            self._changes = connect.Changes(self._conn)
        return self._conn

    def _close(self) -> None:
        conn, self._conn, self._changes = self._conn, None, None
        if conn is not None:
            conn.close()

    def _committed(self) -> bool:
        """Whether the store may hold something new."""
        try:
            self._open()
            return self._changes is not None and self._changes.changed()
        except Exception:  # the next snapshot will meet it too, and report it
            return True

    def _ask_store(self, question: Callable[[Any], Any]) -> Any:
        conn = self._open()
        with connect.snapshot(conn):
            return question(conn)

    def _answer(self, key: str, function: Callable[[], Any]) -> Answer:
        try:
            return Answer(key, function())
        except EngineError as error:
            return Answer(key, error=error.message)
        except Exception as error:  # a question's fault must not end the feed
            return Answer(key, error=f"{type(error).__name__}: {error}")

    def _build(self, view: View, reread: bool) -> Snapshot:
        now = time.time()
        last = self._last
        daemon = self._daemon()
        machine = last.machine
        rests = machine is not None and not machine.runs and not any(last.counts.get(state) for state in ACTIVE)
        if not rests or time.monotonic() - self._machine_at >= REST_SECONDS:
            machine, self._machine_at = self._machine(now, daemon.running), time.monotonic()
        changes: dict[str, Any] = {}
        store = Store()
        try:
            self._notice_other_file()
            conn = self._open()
            store = Store(journal_mode=transactions.journal_mode(conn))
            if reread or last.store.problem or last.view != view:
                with connect.snapshot(conn):
                    changes = self._read(conn, view, now)
            self._trouble_since = None
        except store_errors.StoreMissing as error:
            if last.runs:  # it was deleted, or its drive has gone: the last picture stays
                self._trouble_since = self._trouble_since or now
                gone = msg("{database} is gone", database=self._workspace.database)
                store = Store(gone, "`finetop rebuild` makes it again from the run folders.", since=self._trouble_since)
            else:
                store = Store(missing=True, hint=error.hint)
            changes = {} if last.runs else {"runs": (), "counts": {}, "detail": None, "news": (), "trash": ()}
        except Exception as error:
            self._close()
            fault = self._fault(error)
            self._trouble_since = self._trouble_since or now
            store = Store(fault.message, fault.hint, since=self._trouble_since)
        values = {
            name: getattr(last, name) for name in ("runs", "counts", "failed_today", "detail", "news", "trash", "seen")
        }
        shown = view if changes or store.missing else last.view
        return Snapshot(now, shown, **(values | changes), daemon=daemon, machine=machine, store=store)

    def _fault(self, error: Exception) -> EngineError:
        if isinstance(error, EngineError):
            return error
        if isinstance(error, connect.DatabaseError):
            return store_errors.from_sqlite(error, self._workspace.database)
        return EngineError(f"{self._workspace.database}: {error}", hint="`finetop doctor` looks at the file system.")

    def _read(self, conn: Any, view: View, now: float) -> dict[str, Any]:
        runs = self._runs(conn, view)
        focus = view.focus
        if focus is None and runs:
            focus = runs[0].id
        changes: dict[str, Any] = {"runs": runs, "counts": queries.counts(conn)}
        changes["detail"] = self._detail(conn, focus) if focus is not None else None
        midnight = time.mktime((*time.localtime(now)[:3], 0, 0, 0, 0, 0, -1))
        changes["failed_today"] = queries.failed_since(conn, midnight)
        if self._last.seen is None:
            seen = queries.get_meta(conn, f"seen:{current_user()}")
            changes["seen"] = float(seen) if seen else None
        changes["news"] = self._news(conn, changes.get("seen"))
        changes["trash"] = trash.contents(conn, self._workspace)
        return changes

    def _runs(self, conn: Any, view: View) -> tuple[Run, ...]:
        """The list: only its living rows again, as long as nothing came, went or ended."""
        last = self._last
        same = (view.matching, view.sort, view.descending) == (last.view.matching, last.view.sort, last.view.descending)
        now = time.monotonic()
        if same and last.runs and now - self._whole_at < WHOLE_SECONDS and view.sort is None:
            living = {run.id: run for run in (*queries.active(conn), *queries.queue(conn))}
            run_ids = [run.id for run in last.runs if not run.ended]
            if view.matching:
                living = {run_id: run for run_id, run in living.items() if run_id in set(run_ids)}
            if run_ids == list(living):
                return tuple(living.get(run.id, run) for run in last.runs)
        self._whole_at = now
        return queries.list_runs(conn, view.matching, view.sort, view.descending)

    def _detail(self, conn: Any, run_id: int) -> Detail:
        last = self._last.detail
        run = queries.run(conn, run_id)
        if run is None:
            return Detail(run_id)
        settings = last.settings if last is not None and last.run_id == run_id else ()
        points = queries.checkpoints(conn, run_id)
        folder = self._workspace.runs / str(run_id)
        return Detail(
            run_id,
            points,
            # A queued run may be edited; once started its settings stand.
            settings if settings and run.state != "queued" else queries.settings(conn, run_id),
            queries.events(conn, run_id, limit=500),
            queries.series(conn, run_id),
            queries.error(conn, run_id) if run.ended else "",
            self._present(run, folder, points),
            queries.rival(conn, run),
        )

    def _present(self, run: Run, folder: Path, points: Sequence[Checkpoint]) -> frozenset[int]:
        """The steps whose files are there."""
        lost = {point.step for point in points if not point.path or not (folder / point.path).is_dir()}
        now = time.monotonic()
        lost_since = self._lost.get(run.id, {}) if run.active else {}
        self._lost = {run.id: {step: lost_since.get(step, now) for step in lost}}
        pruned = {step for step, since in self._lost[run.id].items() if run.active and now - since < PRUNED_SECONDS}
        return frozenset(point.step for point in points if point.step not in lost or point.step in pruned)

    def _news(self, conn: Any, seen: float | None) -> tuple[News, ...]:
        """What there was, and what came since; of what had come before the screen was opened only what the user has not
        `seen`, and the last."""
        earlier = self._last.news
        last_id = earlier[-1].event.id if earlier else 0
        events = [event for event in queries.events(conn, after_id=last_id, limit=1000) if event.kind in _NEWS_KINDS]
        if not earlier:
            since = self._began if seen is None else seen
            warnings = [event for event in events[:-1] if event.time > since and event.kind != "state"]
            events = warnings + events[-1:]  # how runs ended is told of each: `notifications.since_last_time`
        if not events:
            return earlier
        events = events[-_KEPT_NEWS:]
        runs = {
            run_id: queries.run(conn, run_id) for run_id in {event.run_id for event in events} if run_id is not None
        }
        came = []
        for event in events:
            run = runs.get(event.run_id)
            is_end = run is not None and event.message == RunState.DONE
            came.append(News(event, run, *(queries.standing(conn, run) if run is not None and is_end else ())))
        return (*earlier, *came)[-_KEPT_NEWS:]

    def _daemon(self) -> Daemon:
        try:
            status = daemon_client.status(self._workspace)
        except (OSError, ValueError):
            return Daemon()
        return Daemon(status.running, status.pid, status.started, status.beat)

    def _machine(self, now: float, has_daemon: bool) -> monitor.Snapshot | None:
        """What the daemon last measured, with its age if it should go on measuring; without one, what is measured
        here. None: nothing yet."""
        try:
            content = json.loads(self._workspace.machine_state.read_bytes())
            if has_daemon or now - float(content["t"]) <= MACHINE_STALE_SECONDS:
                self._own_reading.stop()
                return machine_of(content, now)
        except (OSError, ValueError, TypeError, KeyError):
            pass
        if has_daemon or time.monotonic() - self._began_at < OWN_READING_SECONDS:
            return None
        return self._own_reading.latest(now)
