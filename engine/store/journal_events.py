"""The events of a journal as rows of their run: a method for each kind of line.

`resume` takes back points, evaluations, samples, checkpoints and events beyond its step; what happened to the run
(its states) stays on record.
"""

import json
import math
import sqlite3
import time
from typing import Any

from engine.base.messages import msg
from engine.metrics.best_evaluation import parse_criterion
from engine.runs.journal import sampled_answer
from engine.store import series
from engine.store.queries import get_meta
from engine.store.queue import set_meta
from engine.store.run_changes import ACTIVE_STATES
from engine.store.run_records import ACTIVE, ENDED, Series

CLOCK_SECONDS = 300.0
"""A worker that took longer to start or to be taken note of than this is rarer than a clock that was set."""
CLOCK_SET_SECONDS = 2.0
"""Slewing keeps clock and uptime together; a difference that moves by so much between two steps was set."""
_STATES = {state.value for state in ACTIVE | ENDED}
_ENDED = {state.value for state in ENDED}
_COMMON = {"t", "kind", "step"}
_NOT_STORED = ""
_PHASE_LENGTH = 40


def _clock_of(conn: sqlite3.Connection, run_id: int) -> tuple[float | None, int]:
    """By how much the clock of the run's worker differed from its uptime (None: not known), and the step beyond which
    the steps are this worker's."""
    clock = get_meta(conn, f"clock:{run_id}")
    if clock is None:
        return None, -1
    offset, went_on = clock.split()
    return float(offset), int(went_on)


class JournalImport:
    """One chunk of a journal on its way into the rows of one run, inside one transaction."""

    def __init__(self, conn: sqlite3.Connection, run_id: int, whole_history: bool) -> None:
        self._conn = conn
        self._run_id = run_id
        self._whole_history = whole_history
        self._series_by_key = series.summaries(conn, run_id)
        self._points: dict[str, list[tuple[int, float | None]]] = {}
        self._clock = self._clock_step()
        self._offset, self._went_on = _clock_of(conn, run_id)
        self._run: dict[str, Any] = {}
        self._written = 0
        self._phase: str | None = _NOT_STORED
        """What it does instead of steps."""
        self.unusable = 0
        """Events whose fields were of types that make no sense."""

    def take(self, events: list[dict[str, Any]]) -> int:
        """Write all of it; the number of points."""
        handlers = {
            "metric": self._metric,
            "eval": self._eval,
            "checkpoint": self._checkpoint,
            "checkpoint-removed": self._checkpoint_removed,
            "sample": self._sample,
            "answer": self._sample,
            "event": self._event,
            "best": self._best,
            "beat": self._beat,
            "plan": self._plan,
            "state": self._state,
            "resume": self._resume,
        }
        for event in events:
            timestamp = _number(event.get("t"))
            self._run["beat"] = timestamp if timestamp is not None else time.time()
            if "step" in event and not _is_step(event["step"]):
                del event["step"]
            try:
                handlers.get(event["kind"], self._other)(event, self._run["beat"])
            except (TypeError, ValueError, OverflowError, sqlite3.InterfaceError, sqlite3.ProgrammingError):
                self.unusable += 1  # one line of nonsense must not stop the import of all that follow
                continue
            if "step" in event and event["kind"] in ("metric", "eval", "checkpoint"):
                self._run["step"] = event["step"]
        self._flush()
        self._headline()
        return self._written

    # one method for each kind of line

    def _metric(self, event: dict[str, Any], timestamp: float) -> None:
        self._phase = None
        step, values = event.get("step"), event.get("values")
        if step is None or not isinstance(values, dict):
            raise ValueError("a metric without step or values")
        nonfinite = event.get("nonfinite")
        for key, value in values.items():
            if key == series.TIME_KEY:
                continue  # the name is taken
            if value is None and isinstance(nonfinite, dict):
                value = _nonfinite(nonfinite.get(key))
            elif value is not None and not isinstance(value, (int, float)):
                continue
            self._points.setdefault(key, []).append((step, None if value is None else float(value)))
        if step > self._clock:
            self._follow_clock(event, timestamp)
            self._points.setdefault(series.TIME_KEY, []).append((step, timestamp))
            self._clock = step

    def _eval(self, event: dict[str, Any], timestamp: float) -> None:
        self._metric(event, timestamp)
        self._conn.execute(
            "INSERT INTO evaluations(run_id, step, time, scores, detail) VALUES (?, ?, ?, ?, ?)",
            (self._run_id, event.get("step"), timestamp, _json(event.get("values") or {}), _rest(event, {"values"})),
        )

    def _checkpoint(self, event: dict[str, Any], timestamp: float) -> None:
        self._phase = None
        step, kept = event.get("step"), event.get("kept") or []
        if step is None:
            raise ValueError("a checkpoint without a step")
        parent_run, parent_step = self._parent(event.get("parent"), step)
        self._take_labels({label for label in kept if label in ("best", "latest")}, step)
        self._conn.execute(
            "INSERT INTO checkpoints"
            "(run_id, step, epoch, path, bytes, kept, eval, parent_run, parent_step, time, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET epoch = excluded.epoch,"
            " path = excluded.path, bytes = excluded.bytes, kept = excluded.kept, eval = excluded.eval,"
            " parent_run = excluded.parent_run, parent_step = excluded.parent_step, time = excluded.time,"
            " detail = excluded.detail, removed = NULL",
            (
                self._run_id,
                step,
                _number(event.get("epoch")),
                event.get("path"),
                event.get("bytes"),
                _json(kept),
                _json(event.get("eval") or {}),
                parent_run,
                parent_step,
                timestamp,
                _rest(event, {"epoch", "path", "bytes", "kept", "eval", "parent"}),
            ),
        )
        if (epoch := _number(event.get("epoch"))) is not None:
            self._run["epoch"] = epoch

    def _take_labels(self, labels: set[str], except_step: int | None) -> None:
        """Names that only one checkpoint has, from all others of the run."""
        for row_step, row_kept in self._conn.execute(
            "SELECT step, kept FROM checkpoints WHERE run_id = ? AND step IS NOT ?", (self._run_id, except_step)
        ).fetchall():
            labels_before = json.loads(row_kept or "[]")
            if labels.intersection(labels_before):
                remaining = _json([label for label in labels_before if label not in labels])
                self._conn.execute(
                    "UPDATE checkpoints SET kept = ? WHERE run_id = ? AND step = ?", (remaining, self._run_id, row_step)
                )

    def _best(self, event: dict[str, Any], timestamp: float) -> None:
        """Best was chosen again, by another metric: its values where they were worked out afterwards, and the name."""
        by, step, scores = event.get("by"), event.get("checkpoint"), event.get("scores") or {}
        if not isinstance(by, str) or not (step is None or _is_step(step)) or not isinstance(scores, dict):
            raise ValueError("a choice without its metric")
        self._run["best_by"] = parse_criterion(by).text
        for key, points in scores.items():
            points = [(at, value) for at, value in points if _is_step(at) and _number(value) is not None]
            self._points.setdefault(key, []).extend((at, float(value)) for at, value in points)
        self._take_labels({"best"}, None)
        row = self._conn.execute(
            "SELECT kept FROM checkpoints WHERE run_id = ? AND step = ?", (self._run_id, step)
        ).fetchone()
        if row:
            kept = _json([*json.loads(row[0] or "[]"), "best"])
            self._conn.execute(
                "UPDATE checkpoints SET kept = ? WHERE run_id = ? AND step = ?", (kept, self._run_id, step)
            )
        self._log("best", event, timestamp, str(event.get("message") or ""), {"by", "checkpoint", "scores"})

    def _checkpoint_removed(self, event: dict[str, Any], timestamp: float) -> None:
        self._conn.execute(
            "UPDATE checkpoints SET removed = ?, kept = '[]' WHERE run_id = ? AND step = ?",
            (timestamp, self._run_id, event.get("step")),
        )

    def _sample(self, event: dict[str, Any], timestamp: float) -> None:
        answer = sampled_answer(event)
        kind = "answer" if answer and answer.to_example else "sample"
        self._conn.execute(
            "INSERT INTO samples(run_id, step, time, kind, detail) VALUES (?, ?, ?, ?, ?)",
            (self._run_id, event.get("step"), timestamp, kind, _rest(event, set())),
        )

    def _event(self, event: dict[str, Any], timestamp: float) -> None:
        self._log(str(event.get("event") or "event"), event, timestamp, str(event.get("message") or ""), {"event"})

    def _other(self, event: dict[str, Any], timestamp: float) -> None:
        self._log(event["kind"], event, timestamp, str(event.get("message") or ""), set())

    def _beat(self, event: dict[str, Any], timestamp: float) -> None:
        self._run["beat_due"] = timestamp + (_number(event.get("next")) or 0.0)
        doing = event.get("doing")
        self._phase = doing[:_PHASE_LENGTH] if isinstance(doing, str) and doing != "training" else None

    def _plan(self, event: dict[str, Any], timestamp: float) -> None:
        if _is_step(event.get("total_steps")):
            self._run["total_steps"] = event["total_steps"]
        settings = event.get("settings")
        if isinstance(settings, dict):
            self._run["best_by"] = parse_criterion(settings.get("eval.best")).text
        self._other(event, timestamp)

    def _state(self, event: dict[str, Any], timestamp: float) -> None:
        state = event.get("state")
        self._phase = "loading" if state == "starting" else None
        self._log("state", event, timestamp, str(state), {"state"})
        if state not in _STATES:
            return
        changes = {key: event[key] for key in ("reason", "error", "exit_code") if event.get(key) is not None}
        changes["state"] = state
        if "reason" in changes:
            changes["reason_template"] = self._template(event, "reason")
        total = event.get("total_steps", event.get("steps"))
        if isinstance(total, int):
            changes["total_steps"] = total
        if state in _ENDED:
            changes |= {"finished": timestamp, "wanted": None, "beat_due": None, "phase": None}
        elif self._whole_history and state == "starting":
            changes |= {"started": timestamp, "finished": None, "reason": None, "error": None, "exit_code": None}
        # What the journal still held of a run that has ended, or waits for its next attempt, changes it no more.
        guard = "" if self._whole_history else f" AND state IN ({ACTIVE_STATES})"
        assignments = ", ".join(f"{name} = ?" for name in changes)
        values = [_json(value) if isinstance(value, (dict, list)) else value for value in changes.values()]
        if state in _ENDED and (seconds := _number(event.get("seconds"))) is not None:
            # Where the two disagree by more than starting and leaving take, the clock was set meanwhile.
            assignments += ", started = CASE WHEN abs(? - started - ?) > ? THEN ? - ? ELSE started END"
            values += [timestamp, seconds, CLOCK_SECONDS, timestamp, seconds]
        self._conn.execute(f"UPDATE runs SET {assignments} WHERE id = ?{guard}", (*values, self._run_id))
        if "step" in event:
            self._run["step"] = event["step"]

    def _resume(self, event: dict[str, Any], timestamp: float) -> None:
        step = event.get("from_step")
        if step is None or (step != -1 and not _is_step(step)):  # -1: from the beginning
            raise ValueError("a resume without its step")
        self._flush()
        series.drop_beyond(self._conn, self._run_id, step, self._series_by_key)
        for table in ("evaluations", "samples", "checkpoints"):
            self._conn.execute(f"DELETE FROM {table} WHERE run_id = ? AND step > ?", (self._run_id, step))
        self._conn.execute(
            "DELETE FROM events WHERE run_id = ? AND step > ? AND source = 'journal' AND kind <> 'state'",
            (self._run_id, step),
        )
        self._clock = self._clock_step()
        self._offset, self._went_on = None, step
        self._follow_clock(event, timestamp)
        self._run["step"] = max(step, 0)
        where = msg("goes on from step {step}", step=step) if step >= 0 else "starts from the beginning"
        self._log("resume", event, timestamp, where, {"from_step"}, max(step, 0))

    # what they share

    def _flush(self) -> None:
        self._written += series.add_points(self._conn, self._run_id, self._points, self._series_by_key)
        self._points = {}

    def _follow_clock(self, event: dict[str, Any], timestamp: float) -> None:
        """Where the clock was set since this worker's last step, the times of its steps are moved along."""
        up = _number(event.get("up"))
        if up is None:
            return
        previous, offset = self._offset, timestamp - up
        if previous is not None and abs(offset - previous) < CLOCK_SET_SECONDS:
            return
        if previous is not None:
            self._flush()
            series.move_clock(self._conn, self._went_on, offset - previous, self._series_by_key)
        self._offset = offset
        set_meta(self._conn, f"clock:{self._run_id}", f"{offset!r} {self._went_on}")

    def _template(self, event: dict[str, Any], field: str) -> str | None:
        """Of a message in the journal, as the store keeps it beside the text."""
        templates = event.get("messages")
        return _json(templates[field]) if isinstance(templates, dict) and field in templates else None

    def _clock_step(self) -> int:
        clock = self._series_by_key.get(series.TIME_KEY)
        return clock.last_step if clock else -1

    def _headline(self) -> None:
        """Copy into the run's row what lists show, so that a list reads one table."""
        nothing = Series(self._run_id, "")
        train, evaluation = (
            self._series_by_key.get("train/loss", nothing),
            self._series_by_key.get("eval/loss", nothing),
        )
        best_by = (
            self._run.get("best_by")
            or self._conn.execute("SELECT best_by FROM runs WHERE id = ?", (self._run_id,)).fetchone()[0]
        )
        criterion = parse_criterion(best_by)
        best = series.best_of_series(self._conn, self._series_by_key.get(criterion.key, nothing), criterion)
        self._run |= {
            "train_loss": train.last,
            "eval_loss": evaluation.last,
            "best_eval": best.value,
            "best_eval_step": best.step,
            "start_eval": best.start,
            "step_seconds": series.pace(self._conn, self._series_by_key.get("train/step_s", nothing)),
            "tokens_per_second": self._series_by_key.get("train/tokens_per_s", nothing).last,
        }
        columns = ", ".join(f"{name} = ?" for name in self._run)
        self._conn.execute(f"UPDATE runs SET {columns} WHERE id = ?", (*self._run.values(), self._run_id))
        if self._phase != _NOT_STORED:
            self._conn.execute(
                f"UPDATE runs SET phase = :phase WHERE id = :id AND state IN ({ACTIVE_STATES}) AND phase IS NOT :phase",
                {"phase": self._phase, "id": self._run_id},
            )

    def _log(
        self,
        kind: str,
        event: dict[str, Any],
        timestamp: float,
        message: str,
        columns: set[str],
        step: int | None = None,
    ) -> None:
        self._conn.execute(
            "INSERT INTO events(run_id, time, source, kind, step, message, templates, detail)"
            " VALUES (?, ?, 'journal', ?, ?, ?, ?, ?)",
            (
                self._run_id,
                timestamp,
                kind,
                event.get("step", step),
                message,
                _json(event["messages"]) if isinstance(event.get("messages"), dict) else None,
                _rest(event, columns | {"message", "messages"}),
            ),
        )

    def _parent(self, parent: Any, step: int) -> tuple[int | None, int | None]:
        """Where the training up to this checkpoint began: as the event has it, else the previous checkpoint, else
        the run's parent."""
        if isinstance(parent, dict):
            return parent.get("run", self._run_id), parent.get("step")
        if isinstance(parent, int):
            return self._run_id, parent
        row = self._conn.execute(
            "SELECT run_id, step FROM checkpoints WHERE run_id = ? AND step < ? ORDER BY step DESC LIMIT 1",
            (self._run_id, step),
        ).fetchone()
        if row is None:
            row = self._conn.execute(
                "SELECT parent_run, parent_step FROM runs WHERE id = ?", (self._run_id,)
            ).fetchone()
        return row


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
    except OverflowError:
        return None


def _nonfinite(word: Any) -> float | None:
    """'inf' and '-inf' as themselves; NaN is None, as SQLite has it."""
    return {"inf": math.inf, "infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}.get(str(word).lower())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _rest(event: dict[str, Any], columns: set[str]) -> str:
    """The fields that have no column of their own."""
    return _json({key: value for key, value in event.items() if key not in _COMMON and key not in columns})
