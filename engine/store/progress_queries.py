"""How far a run had come: at which step it had seen so many tokens, or worked for so long. No reading of all points."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.store import chart_queries, queue
from engine.store.connect import writer
from engine.store.journal_events import CLOCK_SECONDS
from engine.store.journal_import import import_journal
from engine.store.new_run import from_config
from engine.store.rows import mapping
from engine.store.run_records import ACTIVE, ENDED, Run
from engine.store.series import TIME_KEY


@dataclass(frozen=True, slots=True)
class Attempt:
    """A time during which a worker had the run."""

    began: float
    ended: float


def step_reaching(conn: sqlite3.Connection, run_id: int, key: str, value: float) -> int | None:
    """The last step at which a rising series was at most `value`; None if it never was. Some 20 lookups by key."""
    span = chart_queries.span(conn, run_id, key)
    if span is None:
        return None
    _, low, high = span
    reached = None
    while low <= high:
        middle = (low + high) // 2
        point = chart_queries.at_step(conn, run_id, key, middle)
        if point is None or point.value is None or point.value <= value:
            reached, low = (point.step if point else reached), middle + 1
        else:
            high = point.step - 1
    return reached


def attempts(conn: sqlite3.Connection, run: Run) -> tuple[Attempt, ...]:
    """When workers had the run, from the states in its journal.

    A worker that was killed wrote no end: its attempt ends with the last state or point known before the next began.
    """
    rows = conn.execute(
        "SELECT time, message, json_extract(detail, '$.seconds') FROM events"
        " WHERE run_id = ? AND kind = 'state' ORDER BY id",
        (run.id,),
    ).fetchall()
    active = {state.value for state in ACTIVE}
    ended = {state.value for state in ENDED}
    past: list[Attempt] = []
    began: float | None = None
    last = 0.0
    for time, state, seconds in rows:
        if state == "starting" or (began is None and state in active):
            if began is not None:
                past.append(Attempt(began, max(last, _last_point(conn, run.id, began, time))))
            began = time
        elif state in ended and began is not None:
            if seconds is not None and abs(time - began - seconds) > CLOCK_SECONDS:
                began = time - seconds  # the clock was set meanwhile
            past.append(Attempt(began, time))
            began = None
        last = time
    if began is not None:
        past.append(Attempt(began, max(last, run.beat or 0.0, _last_point(conn, run.id, began, float("inf")))))
    return tuple(past)


def worked(attempts: Iterable[Attempt], until: float = float("inf")) -> float:
    """Seconds of work before the moment `until`: pauses between attempts do not count."""
    return sum(max(0.0, min(attempt.ended, until) - attempt.began) for attempt in attempts)


def moment_of(attempts: Iterable[Attempt], seconds: float) -> float:
    """The moment at which so many seconds had been worked; the reverse of `worked`."""
    reached_at = float("-inf")
    for attempt in attempts:
        span = max(0.0, attempt.ended - attempt.began)
        if seconds <= span:
            return attempt.began + seconds
        seconds -= span
        reached_at = attempt.ended
    return reached_at


def step_at(conn: sqlite3.Connection, run_id: int, time: float) -> int | None:
    """The last step logged by that moment."""
    return step_reaching(conn, run_id, TIME_KEY, time)


def moment_at(conn: sqlite3.Connection, run_id: int, step: int) -> float | None:
    """When that step, or the last one before it, was logged."""
    point = chart_queries.at_step(conn, run_id, TIME_KEY, step)
    return point.value if point else None


def said(conn: sqlite3.Connection, run_id: int, kinds: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """What the worker last said of each kind, such as 'data', 'plan' and 'model' (docs/journal.md)."""
    details: dict[str, Mapping[str, Any]] = {}
    for kind in kinds:
        row = conn.execute(
            "SELECT detail FROM events WHERE run_id = ? AND kind = ? AND source = 'journal' ORDER BY id DESC LIMIT 1",
            (run_id, kind),
        ).fetchone()
        if row:
            details[kind] = mapping(row[0])
    return details


def sampled_step(conn: sqlite3.Connection, run_id: int, until: int) -> int | None:
    """The last step up to `until` at which answers were sampled."""
    return conn.execute("SELECT max(step) FROM samples WHERE run_id = ? AND step <= ?", (run_id, until)).fetchone()[0]


def imported_bytes(conn: sqlite3.Connection, run_id: int) -> int | None:
    """How much of the run's journal the store has taken in; None if it has no such run."""
    row = conn.execute("SELECT journal_offset FROM runs WHERE id = ?", (run_id,)).fetchone()
    return row[0] if row else None


def read_folder(run_id: int, folder: Path, config: Mapping[str, Any]) -> sqlite3.Connection:
    """One run's journal in a database in memory, for looking at a run that no store has, or not wholly."""
    conn = writer(Path(":memory:"))
    queue.add(conn, from_config(config), run_id)
    import_journal(conn, run_id, folder, whole_history=True)
    return conn


def _last_point(conn: sqlite3.Connection, run_id: int, began: float, limit: float) -> float:
    step = step_reaching(conn, run_id, TIME_KEY, limit)
    logged_at = moment_at(conn, run_id, step) if step is not None else None
    return logged_at if logged_at is not None and logged_at > began else began


def logged(conn: sqlite3.Connection, run_id: int, keys: Iterable[str]) -> list[tuple[int, float | None, str, float]]:
    """(step, when, key, value) of these metrics, as they were logged; NaN is left out."""
    names = list(keys)
    rows = conn.execute(
        "SELECT p.step, t.value, k.key, p.value FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id"
        " JOIN points p ON p.series = s.id"
        " LEFT JOIN metric_summary ts ON ts.run_id = s.run_id"
        " AND ts.key_id = (SELECT id FROM metric_keys WHERE key = 'time')"
        " LEFT JOIN points t ON t.series = ts.id AND t.step = p.step"
        f" WHERE s.run_id = ? AND k.key IN ({','.join('?' * len(names))}) AND p.value IS NOT NULL ORDER BY p.step",
        (run_id, *names),
    )
    return [(step, when, key, value) for step, when, key, value in rows]
