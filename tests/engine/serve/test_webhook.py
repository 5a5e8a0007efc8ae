"""A job that ends is told to the webhook, in a form that OpenAI's client takes."""

import time
from pathlib import Path

import pytest
from openai import OpenAI

from engine.cli.main import main
from tests.engine.notify.receivers import webhook_receiver
from tests.engine.serve.conftest import ROWS, as_jsonl, end_server, start_server, until_ended


def test_jobs_of_the_api_are_told_with_the_printed_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with webhook_receiver() as receiver:
        settings = f'[webhook]\nurl = "http://localhost:{receiver.port}/"\nallow_hosts = ["localhost"]\n'
        (tmp_path / "notify.toml").write_text(settings)
        server = start_server(tmp_path)
        try:
            client = server.client()
            bad = client.files.create(file=("bad.jsonl", b'{"messages": 5}\n'), purpose="fine-tune")
            good = client.files.create(file=("yes.jsonl", as_jsonl(ROWS)), purpose="fine-tune")
            failed = client.fine_tuning.jobs.create(model="starter", training_file=bad.id)
            assert until_ended(client, failed.id).status == "failed"  # a daemon may not even have begun
            expected = {("fine_tuning.job.failed", failed.id)}
            cancelled = client.fine_tuning.jobs.create(model="starter", training_file=good.id)
            client.fine_tuning.jobs.cancel(cancelled.id)
            expected.add(("fine_tuning.job.cancelled", cancelled.id))
            assert main(["serve", "env", "--workspace", str(tmp_path)]) == 0
            (line,) = [line for line in capsys.readouterr().out.splitlines() if "OPENAI_WEBHOOK_SECRET" in line]
            receiving = OpenAI(api_key="x", webhook_secret=line.partition("=")[2].strip("'"))
            deadline = time.monotonic() + 60
            told: set[tuple[str, str]] = set()
            while not expected <= told:
                assert time.monotonic() < deadline, (expected, told)
                time.sleep(0.2)
                events = [receiving.webhooks.unwrap(body, headers) for headers, body in list(receiver.received)]
                told = {(event.type, event.data.id) for event in events}
        finally:
            end_server(server)
