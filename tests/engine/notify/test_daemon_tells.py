"""The daemon tells of a run's end, however often it is killed meanwhile."""

from contextlib import closing
from pathlib import Path

from engine.store.outbox import Outbox
from engine.store.serve_database import database_file
from tests.engine.daemon.daemonkit import Bench
from tests.engine.notify.receivers import mail_receiver


def test_a_mail_comes_once_although_the_daemon_was_killed(tmp_path: Path):
    bench = Bench(tmp_path / "work")
    with mail_receiver() as receiver:
        settings = f'[mail]\nhost = "127.0.0.1:{receiver.port}"\nfrom = "a@b.example"\nto = "c@d.example"\n'
        (bench.workspace.root / "notify.toml").write_text(settings)
        receiver.refusing = True
        try:
            bench.start()
            bench.until(lambda: database_file(bench.workspace).exists(), "the outbox")
            run_id = bench.add(steps=3)
            bench.until_ended(run_id)
            with closing(Outbox(database_file(bench.workspace))) as outbox:
                bench.until(lambda: outbox.waiting() == 1, "the delivery in the outbox")
                bench.kill_daemon()
                receiver.refusing = False
                bench.start()
                bench.until(lambda: receiver.mails, "the mail")
                bench.until(lambda: outbox.waiting() == 0, "the end of it")
            assert [mail["Subject"] for _, mail in receiver.mails] == [f"finetop: run {run_id} (scripted) is done"]
        finally:
            bench.close()
