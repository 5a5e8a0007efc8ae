"""Who is told of a run's end, how often, and what a receiver can check of it."""

import json
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from openai import OpenAI

from engine.base.errors import InputError
from engine.base.workspace import META_KEY, Workspace
from engine.cli import workspace_checks
from engine.notify import webhook
from engine.notify.notifier import GIVE_UP_SECONDS, PAUSES, Notifier
from engine.notify.notify_config import WebhookConfig, read_notify_config, webhook_secret
from engine.notify.webhook import DeliveryFailed, deliver, signature
from engine.store import serve_store
from engine.store.connect import writer
from engine.store.outbox import Outbox
from engine.store.serve_database import database_file
from engine.store.serve_store import ServeStore, StoredJob
from tests.engine.notify.receivers import mail_receiver, webhook_receiver

JOB = {"created": 1, "asked": "gpt-4o-mini"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.private.mkdir()
    writer(workspace.database).close()
    return workspace


def configure(workspace: Workspace, *, http: int = 0, smtp: int = 0, allow: str = '["127.0.0.1"]') -> None:
    lines = [f'[webhook]\nurl = "http://127.0.0.1:{http}/hook?a=b"\nallow_hosts = {allow}'] if http else []
    lines += [
        f'[mail]\nhost = "127.0.0.1:{smtp}"\nfrom = "a@example.com"\nto = ["b@example.com", "c@example.com"]'
    ] * bool(smtp)
    (workspace.root / "notify.toml").write_text("\n".join(lines))


def ended(workspace: Workspace, run: int, state: str, *, status: str | None = "", pid: int | None = None) -> None:
    """A run that has; `status`: its job's, None: it is no job."""
    with closing(sqlite3.connect(workspace.database)) as conn, conn:
        conn.execute(
            "INSERT INTO runs(id, name, model, data, state, created, started, finished, attempts, position, step, pid)"
            " VALUES(?, ?, 'starter', 'rows.jsonl', ?, 1, ?, ?, 1, ?, 12, ?)",
            (run, f"name\n{run} 中", state, time.time() - 60, time.time(), run, pid),
        )
    folder = workspace.runs / str(run)
    folder.mkdir(parents=True)
    if status is not None:
        (folder / "config.json").write_text(json.dumps({META_KEY: {serve_store.JOB: JOB}}))
        with closing(ServeStore(database_file(workspace))) as store:
            store.add_job(StoredJob(run, 1, status, JOB))


def rows(workspace: Workspace) -> list[tuple]:
    with closing(sqlite3.connect(database_file(workspace))) as conn:
        return conn.execute("SELECT channel, tries, state, error FROM deliveries ORDER BY created, id").fetchall()


def test_openais_client_accepts_what_is_sent_and_refuses_what_was_changed(workspace: Workspace):
    with webhook_receiver() as receiver:
        configure(workspace, http=receiver.port)
        telling = Notifier(workspace)
        telling.look(time.time())
        ended(workspace, 1, "done")
        ended(workspace, 2, "failed")
        ended(workspace, 3, "stopped", status="cancelled")
        ended(workspace, 4, "stopped", status="paused")
        ended(workspace, 5, "done", status=None)  # not made through the API
        ended(workspace, 6, "failed", pid=5)  # may be started again yet
        telling.look(time.time())
        telling.look(time.time())
        Notifier(workspace).look(time.time())  # the next daemon's
        client = OpenAI(api_key="x", webhook_secret=webhook_secret(workspace))
        events = [client.webhooks.unwrap(body, headers) for headers, body in receiver.received]
        assert [(event.type, event.data.id) for event in events] == [
            ("fine_tuning.job.succeeded", "ftjob-1"),
            ("fine_tuning.job.failed", "ftjob-2"),
            ("fine_tuning.job.cancelled", "ftjob-3"),
        ]
        headers, body = receiver.received[0]
        assert headers["webhook-id"] == events[0].id and headers["content-type"] == "application/json"
        with pytest.raises(Exception, match="signature"):
            client.webhooks.unwrap(body + b" ", headers)
        with closing(ServeStore(database_file(workspace))) as store:
            store.set_status(4, "cancelled")
        telling.look(time.time())
        assert json.loads(receiver.received[-1][1])["data"] == {"id": "ftjob-4"}
        assert (workspace.private / "webhook.secret").stat().st_mode & 0o777 == 0o600


def test_the_signature_is_that_of_standard_webhooks():
    """The published example of its specification."""
    key, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_hour_of_silence_then_one_delivery(workspace: Workspace):
    with webhook_receiver() as receiver:
        port = receiver.port
    configure(workspace, http=port)
    Notifier(workspace).look(time.time())
    ended(workspace, 1, "done")
    now, waited = time.time(), []
    for pause in (0.0, *PAUSES[:5]):
        now += pause
        Notifier(workspace).look(now - 1)  # not due yet, or found
        Notifier(workspace).look(now + 1)  # by a daemon that was started again
        waited.append(rows(workspace)[0][1])
        assert rows(workspace)[0][2] == "waiting" and "refused" in rows(workspace)[0][3]
    assert waited == [1, 2, 3, 4, 5, 6]
    with webhook_receiver(port) as receiver:
        telling = Notifier(workspace)
        telling.look(now + 1)
        assert not receiver.received and telling.waiting == 1
        telling.look(now + PAUSES[5] + 2)
        telling.look(now + 2 * PAUSES[5])
        assert len(receiver.received) == 1 and telling.waiting == 0


def test_redirects_are_failures_and_gone_is_final(workspace: Workspace):
    with webhook_receiver() as receiver:
        configure(workspace, http=receiver.port)
        telling = Notifier(workspace)
        telling.look(time.time())
        receiver.answers = [(302, {"location": f"http://127.0.0.1:{receiver.port}/other"}), (500, {}), (410, {})]
        ended(workspace, 1, "done")
        for later in (0, 10, 60, 1000):
            telling.look(time.time() + later)
        assert len(receiver.received) == 3 and telling.waiting == 0
        assert rows(workspace)[0][2:] == ("dropped", "127.0.0.1 answered 410")


def test_what_fails_for_three_days_is_given_up(workspace: Workspace):
    with webhook_receiver() as receiver:
        port = receiver.port
    configure(workspace, http=port)
    telling = Notifier(workspace)
    telling.look(time.time())
    ended(workspace, 1, "done")
    began = time.time()
    for hour in range(100):
        telling.look(began + hour * 3600)
    assert rows(workspace)[0][2] == "dropped" and 10 < rows(workspace)[0][1] < 40 and GIVE_UP_SECONDS == 72 * 3600


def test_private_addresses_are_refused_unless_named():
    with webhook_receiver() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        with pytest.raises(DeliveryFailed, match="private address"):
            deliver(WebhookConfig(url), "whsec_AAAA", "evt_1", b"{}")
        assert not receiver.received
        deliver(WebhookConfig(url, frozenset({"127.0.0.1"})), "whsec_AAAA", "evt_1", b"{}")
        assert len(receiver.received) == 1


def test_a_receiver_that_trickles_does_not_hold_the_daemon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webhook, "_ALL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            connected, _ = listening.accept()
            with connected:
                for _ in range(200):
                    try:
                        connected.send(b"H")
                    except OSError:
                        return
                    time.sleep(0.05)

        threading.Thread(target=trickle, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(DeliveryFailed):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            deliver(WebhookConfig(url, frozenset({"127.0.0.1"})), "whsec_AAAA", "evt_1", b"{}")
        assert time.monotonic() - began < 3


def test_mail_is_sent_for_every_run_and_tried_again(workspace: Workspace):
    with mail_receiver() as receiver:
        ended(workspace, 1, "done", status=None)  # before anybody was to be told
        time.sleep(0.01)
        configure(workspace, smtp=receiver.port)
        telling = Notifier(workspace)
        telling.look(time.time())
        receiver.refusing = True
        ended(workspace, 2, "failed", status=None)
        telling.look(time.time())
        assert not receiver.mails and rows(workspace)[0][2] == "waiting"
        (told, undelivered) = workspace_checks.notify(workspace)
        assert "mail" in told[0] and undelivered[0].startswith("1 by mail not delivered: 127.0.0.1")
        receiver.refusing = False
        Notifier(workspace).look(time.time() + 10)
        Notifier(workspace).look(time.time() + 100)
        assert len(receiver.mails) == 1
        to, mail = receiver.mails[0]
        assert len(list(workspace_checks.notify(workspace))) == 1
        assert to == ["b@example.com", "c@example.com"] and mail["From"] == "a@example.com"
        assert mail["Subject"] == "finetop: run 2 (name 2 中) failed" and mail["Message-ID"].endswith("@example.com>")
        assert "finetop show 2" in mail.get_content() and "Steps: 12 of 12" in mail.get_content()


def test_what_waits_keeps_the_outbox_and_old_ends_are_not_told(workspace: Workspace):
    with webhook_receiver() as receiver:
        configure(workspace, http=receiver.port)
        Notifier(workspace).look(time.time())
        (workspace.root / "notify.toml").unlink()
        off = Notifier(workspace)
        ended(workspace, 1, "done")
        off.look(time.time())
        assert off.waiting == 0
        telling = Notifier(workspace)
        telling._outbox, telling._jobs = Outbox(database_file(workspace)), ServeStore(database_file(workspace))
        telling.look(time.time())  # switched off in the meantime
        time.sleep(0.01)
        configure(workspace, http=receiver.port)
        telling.look(time.time())
        assert not receiver.received


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[webhook]\nurl = 5", "https"),
        ('[webhook]\nurl = "http://example.com"', "https"),
        ('[webhook]\nurl = "https://me:pw@example.com"', "https"),
        ('[webhook]\nurl = "https://x:y/"', "https"),
        ('[webhook]\nurl = "file:///etc/passwd"\nallow_hosts = [""]', "https"),
        ('[webhook]\nurl = "https://example.com"\nsecret = "x"', "webhook.secret"),
        ('[mail]\nhost = "h:0"\nfrom = "a@b"\nto = "c@d"', "mail.host"),
        ('[mail]\nhost = "h"\nfrom = "a@b"', "to must"),
        ('[mail]\nhost = "h"\nfrom = "a@b\\nBcc: e@f"\nto = "c@d"', "addresses"),
        ("mail = 1", "mail must"),
        ("[sms]", "sms"),
    ],
)
def test_what_notify_toml_may_not_hold_is_named(tmp_path: Path, content: str, named: str):
    (tmp_path / "notify.toml").write_text(content)
    with pytest.raises(InputError, match=named):
        read_notify_config(Workspace(tmp_path))
    ((why, verdict, *_),) = workspace_checks.notify(Workspace(tmp_path))
    assert verdict == "bad" and named in why
