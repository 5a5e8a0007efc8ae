"""Whoever `notify.toml` names is told that a run has ended.

A thread of the daemon looks for ends and delivers, so that neither a slow receiver nor a full disk holds up a run. What
is to be told is first put into the outbox, under an id made of the run and its attempt: it is told once, however often
the daemon is killed, but for a delivery that was under way at that moment, which the receiver knows again by its id.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
import time

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.units import duration
from engine.base.workspace import Workspace
from engine.notify.mail import send_mail
from engine.notify.notify_config import NAME, NotifyConfig, read_notify_config, smtp_password, webhook_secret
from engine.notify.webhook import DeliveryFailed, deliver
from engine.runs.run_folder import read_meta
from engine.store import queries
from engine.store.connect import reader, snapshot
from engine.store.outbox import Delivery, Outbox
from engine.store.run_records import Run, RunState
from engine.store.serve_database import database_file
from engine.store.serve_store import JOB, ServeStore, StoredJob, job_id, status_of

PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0, 10800.0, 21600.0)
"""Seconds before the second try, the third, ...; the last again and again."""
GIVE_UP_SECONDS = 72 * 3600.0
_LOOK_SECONDS = 1.0
_REMEMBERED_SECONDS = 30 * 86400.0
"""An older end is not told any more, and what was told of it is forgotten."""
WEBHOOK, MAIL = "webhook", "mail"
_OVER = ("succeeded", "failed", "cancelled")
_WORDS = {RunState.DONE: "is done", RunState.STOPPED: "was stopped", RunState.FAILED: "failed"}
log = logging.getLogger("daemon")


class Notifier:
    """Of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._outbox: Outbox | None = None
        self._jobs: ServeStore | None = None
        self._told: set[tuple[int, int, str]] = set()
        """Run, attempt and state of ends that are in the outbox."""
        self._trouble = ""
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self.waiting = 0
        """Deliveries that have not succeeded yet."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """What is under way then is tried again by the next daemon."""
        self._leaving.set()

    def _run(self) -> None:
        while not self._leaving.wait(_LOOK_SECONDS):
            try:
                self.look(time.time())
                self._trouble = ""
            except Exception as error:  # a wrong notify.toml, a locked database: said once, and tried again
                if str(error) != self._trouble:
                    log.warning("nobody can be told of runs: %s", error)
                self._trouble = str(error)

    def look(self, now: float) -> None:
        """Put into the outbox what has ended, and deliver what is due."""
        config = read_notify_config(self._workspace)
        if self._outbox is None or self._jobs is None:
            if config == NotifyConfig():
                return
            file = database_file(self._workspace)
            self._outbox, self._jobs = Outbox(file), ServeStore(file)
        channels = {WEBHOOK: config.webhook is not None, MAIL: config.mail is not None}
        configured = os.stat(self._workspace.root / NAME).st_mtime if any(channels.values()) else None
        since = {
            channel: self._outbox.since(channel, configured if is_on else None) for channel, is_on in channels.items()
        }
        self._collect(
            self._outbox, self._jobs, {channel: max(at, now - _REMEMBERED_SECONDS) for channel, at in since.items()}
        )
        for delivery in self._outbox.due(now):
            if channels[delivery.channel] and not self._leaving.is_set():
                self._try(self._outbox, config, delivery, now)
        self._outbox.forget(now - 2 * _REMEMBERED_SECONDS)
        self.waiting = self._outbox.waiting() if any(channels.values()) else 0

    def _collect(self, outbox: Outbox, jobs: ServeStore, since: dict[str, float]) -> None:
        with contextlib.closing(reader(self._workspace.database)) as conn, snapshot(conn):
            ends = [end for end in queries.settled_since(conn, min(since.values())) if end not in self._told]
            runs = [run for run_id, _, _ in ends if (run := queries.run(conn, run_id))]
        for run in runs:
            job = self._job(jobs, run)
            status = status_of(job, run) if job else None
            if status is not None and status not in _OVER:
                continue  # paused: it goes on, or is cancelled
            ended = run.finished or 0.0
            deliveries = []
            if status is not None and ended >= since[WEBHOOK]:
                deliveries.append(self._webhook_delivery(run, status))
            if ended >= since[MAIL]:
                deliveries.append(self._mail_delivery(run))
            outbox.add(deliveries)
            self._told.add((run.id, run.attempts, run.state.value))

    def _job(self, jobs: ServeStore, run: Run) -> StoredJob | None:
        """That of a run that was made through the API."""
        record = read_meta(self._workspace.runs / str(run.id)).get(JOB)
        if not isinstance(record, dict):
            return None
        return jobs.job(run.id) or StoredJob(run.id, int(run.created), "", record)

    def _id(self, run: Run) -> str:
        end = f"{self._workspace.root}\0{run.id}\0{run.created}\0{run.attempts}"
        return f"evt_{hashlib.sha256(end.encode()).hexdigest()[:32]}"

    def _webhook_delivery(self, run: Run, status: str) -> Delivery:
        event_id, kind = self._id(run), f"fine_tuning.job.{status}"
        event = {
            "id": event_id,
            "object": "event",
            "created_at": int(run.finished or 0),
            "type": kind,
            "data": {"id": job_id(run.id)},
        }
        return Delivery(event_id, WEBHOOK, time.time(), kind, json.dumps(event))

    def _mail_delivery(self, run: Run) -> Delivery:
        words = _WORDS.get(run.state, "was interrupted")
        name = " ".join(run.name.split())
        subject = msg("finetop: run {id} ({name}) {words}", id=run.id, name=name, words=words)
        seconds = run.busy_seconds + max(0.0, (run.finished or 0.0) - (run.started or run.finished or 0.0))
        lines = [
            msg(
                "Run {id} ({name}) {words} after {duration}.",
                id=run.id,
                name=name,
                words=words,
                duration=duration(seconds),
            ),
            run.reason or "",
            msg("Model: {model}", model=run.model),
            msg("Data: {files}", files=run.data),
            msg("Steps: {step} of {of}", step=run.step, of=run.total_steps or run.step),
            f"Training loss: {run.train_loss:.4g}" if run.train_loss is not None else "",
            f"Validation loss: {run.eval_loss:.4g}" if run.eval_loss is not None else "",
            msg("Workspace: {root}", root=self._workspace.root),
            msg("`finetop show {id}` tells more.", id=run.id),
        ]
        return Delivery(self._id(run), MAIL, time.time(), subject, "\n".join(filter(None, lines)) + "\n")

    def _try(self, outbox: Outbox, config: NotifyConfig, delivery: Delivery, now: float) -> None:
        try:
            self._deliver(config, delivery)
        except (DeliveryFailed, EngineError, OSError) as error:
            pause = PAUSES[min(delivery.tries, len(PAUSES) - 1)]
            is_final = isinstance(error, DeliveryFailed) and error.is_final
            if is_final or now + pause > delivery.created + GIVE_UP_SECONDS:
                log.warning("%s by %s is given up: %s", delivery.subject, delivery.channel, error)
                outbox.settle(delivery, "dropped", str(error))
            else:
                log.warning("%s by %s failed: %s", delivery.subject, delivery.channel, error)
                outbox.put_off(delivery, now + pause, str(error))
        else:
            outbox.settle(delivery, "sent")

    def _deliver(self, config: NotifyConfig, delivery: Delivery) -> None:
        if config.webhook is not None and delivery.channel == WEBHOOK:
            deliver(config.webhook, webhook_secret(self._workspace), delivery.id, delivery.body.encode())
        elif config.mail is not None and delivery.channel == MAIL:
            password = smtp_password(self._workspace) if config.mail.user else ""
            send_mail(config.mail, password, delivery.id, delivery.subject, delivery.body)
