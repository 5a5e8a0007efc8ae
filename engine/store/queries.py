"""What may be asked of the store, apart from charts. Takes any connection; returns frozen records."""

import itertools
import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from engine.base.messages import restored
from engine.metrics.best_evaluation import Best, Criterion
from engine.runs.journal import SampledAnswer, sampled_answer
from engine.store import filters
from engine.store.rows import RUN_COLUMNS, mapping, run_of, strings
from engine.store.run_records import ACTIVE, Checkpoint, Evaluation, Event, Run, RunState, Series, SettingValue
from engine.store.series import SERIES, TIME_KEY, best_of_series

_ACTIVE = ", ".join(f"'{state}'" for state in sorted(ACTIVE))
_SCORES = (
    "coalesce((SELECT e.scores FROM evaluations e WHERE e.run_id = checkpoints.run_id AND e.step = checkpoints.step"
    " ORDER BY e.id DESC LIMIT 1), eval)"
)
_ALIKE = (
    # The files' names first, which stand in the row itself: what is left to look up is little.
    "data = :data AND best_eval IS NOT NULL AND trashed IS NULL AND best_by = :by"
    + "".join(
        f" AND (SELECT value FROM settings WHERE run_id = runs.id AND key = '{key}')"
        f" IS (SELECT value FROM settings WHERE run_id = :id AND key = '{key}')"
        for key in ("data.files", "data.val_files", "method.objective")
    )
)
_CHECKPOINT = (
    f"run_id, step, epoch, path, bytes, kept, {_SCORES}, parent_run, parent_step, time, pinned, removed, detail"
)


def list_runs(
    conn: sqlite3.Connection,
    matching: str = "",
    sort: str | None = None,
    descending: bool = False,
    trashed: bool = False,
    limit: int | None = None,
) -> tuple[Run, ...]:
    """Runs that match a filter (see `filters`), in order; reads one table, and points of none but those
    whose loss is NaN."""
    condition, values = filters.where(matching)
    rows = conn.execute(
        f"SELECT {RUN_COLUMNS} FROM runs WHERE trashed IS {'NOT ' if trashed else ''}NULL AND {condition}"
        f" ORDER BY {filters.order(sort, descending)} LIMIT ?",
        (*values, -1 if limit is None else limit),
    )
    return tuple(map(run_of, rows))


def run(conn: sqlite3.Connection, run_id: int) -> Run | None:
    row = conn.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE id = ?", (run_id,)).fetchone()
    return run_of(row) if row else None


def error(conn: sqlite3.Connection, run_id: int) -> str:
    """Why a run ended in full: traceback, last lines. Not part of Run, since it may be long."""
    row = conn.execute("SELECT error FROM runs WHERE id = ?", (run_id,)).fetchone()
    return (row[0] if row else None) or ""


def queue(conn: sqlite3.Connection) -> tuple[Run, ...]:
    """The waiting runs, held ones too, in the order in which they will start."""
    rows = conn.execute(
        f"SELECT {RUN_COLUMNS} FROM runs WHERE state = 'queued' AND trashed IS NULL"
        " ORDER BY priority DESC, position, id"
    )
    return tuple(map(run_of, rows))


def active(conn: sqlite3.Connection) -> tuple[Run, ...]:
    """Runs that have a worker, or are being given one; `wanted` says what was requested of them."""
    return tuple(
        map(run_of, conn.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE state IN ({_ACTIVE}) ORDER BY started, id"))
    )


def unsettled(conn: sqlite3.Connection) -> tuple[Run, ...]:
    """Runs whose journal says that they have ended, and whose process has not been dealt with since."""
    rows = conn.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE state NOT IN ({_ACTIVE}, 'queued') AND pid IS NOT NULL")
    return tuple(map(run_of, rows))


def base_models(conn: sqlite3.Connection) -> list[str]:
    """What runs were made of, that of the newest run first, the trash left out."""
    rows = conn.execute("SELECT model FROM runs WHERE trashed IS NULL GROUP BY model ORDER BY max(id) DESC")
    return [row[0] for row in rows]


def settled_since(conn: sqlite3.Connection, since: float) -> list[tuple[int, int, str]]:
    """Id, attempts and state of runs that have ended since then, whose process was dealt with and that are not to be
    started again."""
    return conn.execute(
        f"SELECT id, attempts, state FROM runs WHERE state NOT IN ({_ACTIVE}, 'queued') AND pid IS NULL"
        " AND finished >= ? AND trashed IS NULL ORDER BY finished",
        (since,),
    ).fetchall()


def counts(conn: sqlite3.Connection) -> dict[RunState, int]:
    """How many runs are in each state, the trash left out."""
    by_state = dict(conn.execute("SELECT state, count(*) FROM runs WHERE trashed IS NULL GROUP BY state"))
    return {state: by_state.get(state.value, 0) for state in RunState}


def failed_since(conn: sqlite3.Connection, since: float) -> int:
    """How many runs have failed since then, the trash left out."""
    return conn.execute(
        "SELECT count(*) FROM runs WHERE state = 'failed' AND finished >= ? AND trashed IS NULL", (since,)
    ).fetchone()[0]


def standing(conn: sqlite3.Connection, run: Run) -> tuple[int, int]:
    """Where a run's best evaluation stands among all runs on the same data that are judged by the same metric: its
    place, from 1, and of how many. What they were before their first step does not count.

    (0, n) for a run without an evaluation.
    """
    better, scored = conn.execute(
        f"SELECT count(*) FILTER (WHERE {filters.BADNESS} < :badness), count(*) FROM runs WHERE {_ALIKE}",
        {"badness": run.best.badness, "data": run.data, "id": run.id, "by": run.best_by},
    ).fetchone()
    return (0 if run.best_eval is None else better + 1), scored


def rival(conn: sqlite3.Connection, run: Run) -> Run | None:
    """The best other run that learned from the same files with the same objective and is judged by the same metric;
    None where there is none.

    Losses on other data, or of another objective, say nothing about each other.
    """
    row = conn.execute(
        f"SELECT {RUN_COLUMNS} FROM runs WHERE id <> :id AND {_ALIKE} ORDER BY {filters.BADNESS}, id LIMIT 1",
        {"data": run.data, "id": run.id, "by": run.best_by},
    ).fetchone()
    return run_of(row) if row else None


def groups(conn: sqlite3.Connection) -> set[str]:
    """The names of all groups that runs were queued in."""
    return {row[0] for row in conn.execute("SELECT DISTINCT sweep FROM runs WHERE sweep <> ''")}


def dependencies(conn: sqlite3.Connection) -> dict[int, tuple[tuple[int, RunState | None], ...]]:
    """For each waiting run, the runs it waits for and their states; None for one that was deleted."""
    waits_for: dict[int, list[tuple[int, RunState | None]]] = {}
    for run_id, other_id, state, trashed in conn.execute(
        "SELECT d.run_id, d.after_id, a.state, a.trashed FROM dependencies d JOIN runs r ON r.id = d.run_id"
        " LEFT JOIN runs a ON a.id = d.after_id WHERE r.state = 'queued' ORDER BY d.run_id, d.after_id"
    ):
        gone = state is None or (trashed is not None and state != RunState.DONE)
        waits_for.setdefault(run_id, []).append((other_id, None if gone else RunState(state)))
    return {run_id: tuple(others) for run_id, others in waits_for.items()}


def settings(conn: sqlite3.Connection, run_id: int) -> tuple[SettingValue, ...]:
    rows = conn.execute("SELECT key, value, origin FROM settings WHERE run_id = ? ORDER BY key", (run_id,))
    return tuple(SettingValue(key, json.loads(value), origin or "") for key, value, origin in rows)


def events(
    conn: sqlite3.Connection, run_id: int | None = None, after_id: int = 0, limit: int = 1000
) -> tuple[Event, ...]:
    """The last events of a run, or of all; `after_id` asks only for what came since."""
    rows = conn.execute(
        "SELECT id, run_id, time, kind, step, message, detail, templates FROM events"
        " WHERE (? IS NULL OR run_id = ?) AND id > ? ORDER BY id DESC LIMIT ?",
        (run_id, run_id, after_id, limit),
    ).fetchall()
    return tuple(map(_event, reversed(rows)))


def lacks_room(conn: sqlite3.Connection, active_run: Run) -> bool:
    """Whether the worker of a run has paused since its disk is full, and has not gone on yet."""
    row = conn.execute(
        "SELECT kind FROM events WHERE run_id = ? AND kind IN ('disk-full', 'disk-free') AND time >= ?"
        " ORDER BY id DESC LIMIT 1",
        (active_run.id, active_run.started or 0.0),
    ).fetchone()
    return bool(row) and row[0] == "disk-full"


def checkpoints(conn: sqlite3.Connection, run_id: int | None = None, removed: bool = False) -> tuple[Checkpoint, ...]:
    """Checkpoints of a run, or of all, newest step first."""
    rows = conn.execute(
        f"SELECT {_CHECKPOINT} FROM checkpoints WHERE (? IS NULL OR run_id = ?) AND (? OR removed IS NULL)"
        " ORDER BY run_id DESC, step DESC",
        (run_id, run_id, removed),
    )
    return tuple(map(_checkpoint, rows))


def evaluations(conn: sqlite3.Connection, run_id: int) -> tuple[Evaluation, ...]:
    rows = conn.execute(
        "SELECT run_id, step, time, scores, detail FROM evaluations WHERE run_id = ? ORDER BY step, id", (run_id,)
    )
    return tuple(
        Evaluation(at_run, step, time, mapping(scores), mapping(detail)) for at_run, step, time, scores, detail in rows
    )


def samples(conn: sqlite3.Connection, run_id: int, step: int | None = None) -> tuple[SampledAnswer, ...]:
    """What a run's model wrote at its evaluations, to `eval.prompts` and to validation examples, in their order."""
    rows = conn.execute(
        "SELECT kind, step, detail FROM samples WHERE run_id = ? AND (? IS NULL OR step = ?) ORDER BY step, id",
        (run_id, step, step),
    )
    answers = (sampled_answer({**mapping(detail), "kind": kind, "step": at}) for kind, at, detail in rows)
    return tuple(answer for answer in answers if answer)


def series(conn: sqlite3.Connection, run_id: int) -> dict[str, Series]:
    """The summary of each metric a run has logged."""
    rows = conn.execute(
        f"SELECT {SERIES} WHERE s.run_id = ? AND s.count > 0 AND k.key <> ? ORDER BY k.key", (run_id, TIME_KEY)
    )
    return {row[1]: Series(*row) for row in rows}


def series_of_many(conn: sqlite3.Connection, run_ids: Iterable[int], key: str) -> dict[int, Series]:
    """One metric's summary in many runs: a column of a comparison."""
    summaries = {}
    for run_id in run_ids:
        row = conn.execute(
            f"SELECT {SERIES} WHERE s.run_id = ? AND k.key = ? AND s.count > 0", (run_id, key)
        ).fetchone()
        if row:
            summaries[run_id] = Series(*row)
    return summaries


def best_scores(conn: sqlite3.Connection, run_ids: Iterable[int], keys: Iterable[str]) -> dict[int, dict[str, Best]]:
    """How each of these metrics, all of them better when higher, stands in each of these runs. Of the summaries alone,
    but for runs that were never better than at their start."""
    standings: dict[int, dict[str, Best]] = {}
    rows = conn.execute(
        f"SELECT {SERIES} WHERE s.high IS NOT NULL AND s.run_id IN (SELECT value FROM json_each(?))"
        " AND k.key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(run_ids)), json.dumps(list(keys))),
    ).fetchall()
    for summary in itertools.starmap(Series, rows):
        standings.setdefault(summary.run_id, {})[summary.key] = best_of_series(
            conn, summary, Criterion(summary.key, False)
        )
    return standings


def get_meta(conn: sqlite3.Connection, name: str) -> str | None:
    """The value kept by `queue.set_meta`; None where there is none."""
    row = conn.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _event(row: tuple[Any, ...]) -> Event:
    event_id, run_id, time, kind, step, text, detail, record_texts = row
    message, fields, templates = text or "", mapping(detail), mapping(record_texts)
    for name, record in templates.items():
        if name == "message":
            message = restored(message, record)
        elif isinstance(fields.get(name), str):
            fields[name] = restored(fields[name], record)
    return Event(event_id, run_id, time, kind, step, message, fields)


def _checkpoint(row: tuple[Any, ...]) -> Checkpoint:
    run_id, step, epoch, path, size, kept, scores, parent_run, parent_step, time, pinned, removed, detail = row
    return Checkpoint(
        run_id=run_id,
        step=step,
        epoch=epoch,
        path=path or "",
        bytes=size,
        kept=strings(kept),
        eval=mapping(scores),
        parent_run=parent_run,
        parent_step=parent_step,
        time=time,
        pinned=bool(pinned),
        removed=removed,
        detail=mapping(detail),
    )
