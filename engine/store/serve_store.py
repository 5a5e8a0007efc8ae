"""Uploaded files, and which run a job's request became.

The content of files lies in `.finetop/files`, a job's own record in its run's config.json: this is where they are
looked up.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.store.run_records import ACTIVE, Run, RunState
from engine.store.serve_database import ServeDatabase

JOB = "job"
"""The record's key in what config.json says beside the settings."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file."""

    id: str
    created: int
    bytes: int
    filename: str
    purpose: str
    sha256: str
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class StoredJob:
    """What was requested of a run by way of the API."""

    run_id: int
    created: int
    status: str
    """What the run's own state does not say: 'validating', 'failed' (its data are wrong), 'cancelled', 'paused', ''."""
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Of the server; what a run reports is in its journal."""

    id: int
    created: int
    level: str
    message: str


class ServeStore(ServeDatabase):
    """Of the server."""

    # files

    def add_file(self, file: StoredFile) -> None:
        self._do("INSERT INTO files VALUES(?, ?, ?, ?, ?, ?, ?)", tuple(asdict(file).values()))

    def file(self, file_id: str) -> StoredFile | None:
        rows = self._all(
            "SELECT * FROM files WHERE id = ? AND (expires IS NULL OR expires > ?)", (file_id, time.time())
        )
        return StoredFile(*rows[0]) if rows else None

    def files(self) -> list[StoredFile]:
        """The newest first."""
        sql = "SELECT * FROM files WHERE expires IS NULL OR expires > ? ORDER BY created DESC, rowid DESC"
        return [StoredFile(*row) for row in self._all(sql, (time.time(),))]

    def expired_files(self) -> list[str]:
        return [row[0] for row in self._all("SELECT id FROM files WHERE expires <= ?", (time.time(),))]

    def remove_file(self, file_id: str) -> bool:
        return self._do("DELETE FROM files WHERE id = ?", (file_id,)) > 0

    # jobs

    def add_job(self, job: StoredJob) -> None:
        self._do(
            "INSERT OR IGNORE INTO jobs VALUES(?, ?, ?, ?)",
            (job.run_id, job.created, job.status, json.dumps(job.record)),
        )

    def job(self, run_id: int) -> StoredJob | None:
        rows = self._all("SELECT * FROM jobs WHERE run_id = ?", (run_id,))
        return _job(rows[0]) if rows else None

    def jobs(self) -> list[StoredJob]:
        """The newest first."""
        return [_job(row) for row in self._all("SELECT * FROM jobs ORDER BY run_id DESC")]

    def set_status(self, run_id: int, status: str, **record: Any) -> None:
        """`record`: fields that it gets as well."""
        job = self.job(run_id)
        if job is not None:
            merged = json.dumps(job.record | record)
            self._do("UPDATE jobs SET status = ?, record = ? WHERE run_id = ?", (status, merged, run_id))

    def note(self, run_id: int, message: str, level: str = "info") -> None:
        self._do(
            "INSERT INTO job_events(run_id, created, level, message) VALUES(?, ?, ?, ?)",
            (run_id, int(time.time()), level, message),
        )

    def events(self, run_id: int) -> list[JobEvent]:
        sql = "SELECT id, created, level, message FROM job_events WHERE run_id = ? ORDER BY id"
        return [JobEvent(*row) for row in self._all(sql, (run_id,))]

    # requests that a client may send again

    def begin_request(self, digest: str) -> bool:
        """False where there has been such a one in the last while."""
        self._do("DELETE FROM requests WHERE created < ?", (time.time() - REPEAT_SECONDS,))
        return self._do("INSERT OR IGNORE INTO requests VALUES(?, ?, NULL)", (digest, time.time())) > 0

    def finish_request(self, digest: str, run_id: int | None) -> None:
        """It became this run, or nothing."""
        if run_id is None:
            self._do("DELETE FROM requests WHERE digest = ?", (digest,))
        else:
            self._do("UPDATE requests SET run_id = ? WHERE digest = ?", (run_id, digest))

    def forget_unfinished(self) -> None:
        """Those that became nothing: for a server that begins, since nobody is at work on them any more."""
        self._do("DELETE FROM requests WHERE run_id IS NULL")

    def request(self, digest: str) -> int | None:
        """The run that such a request became."""
        rows = self._all("SELECT run_id FROM requests WHERE digest = ?", (digest,))
        return rows[0][0] if rows else None


REPEAT_SECONDS = 600.0
"""A client sends a request again that it had no answer to."""


def _job(row: tuple[Any, ...]) -> StoredJob:
    return StoredJob(row[0], row[1], row[2], json.loads(row[3]))


def job_id(run_id: int) -> str:
    return f"ftjob-{run_id}"


def status_of(job: StoredJob, run: Run | None) -> str:
    """validating_files, queued, running, succeeded, failed or cancelled: the API has no others."""
    if job.status in ("failed", "cancelled"):
        return job.status
    if run is None or run.trashed is not None:
        return "cancelled"
    if run.state is RunState.QUEUED:
        return "validating_files" if job.status == "validating" else "queued"
    if run.state in ACTIVE:
        return "queued" if job.status == "paused" else "running"
    if run.state is RunState.DONE:
        return "succeeded"
    if run.state is RunState.STOPPED:
        return "queued" if job.status == "paused" else "cancelled"
    return "failed"
