"""Server, engines and daemon are killed while jobs are made and questions asked: none is lost, none doubled."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import openai
import pytest

from engine.base.engine_folder import live_engines
from engine.base.workspace import PACKAGE_ROOT, Workspace
from engine.daemon import daemon_client, server_state
from tests.engine.serve.conftest import ROWS, Answer, Server, as_jsonl, end_server, start_server

JOBS, REQUESTS, KILLS = 8, 60, 10


def finetop(workspace: Workspace, *words: str) -> None:
    command = [sys.executable, "-m", "tui", "--workspace", str(workspace.root), *words]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)})


class Killer(threading.Thread):
    """Ends one of them now and then, without a word."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(daemon=True)
        self.workspace, self.over, self.killed = workspace, threading.Event(), {"server": 0, "engine": 0, "daemon": 0}

    def run(self) -> None:
        rng = random.Random(5)
        while not self.over.wait(rng.uniform(4.0, 9.0)):
            kind = rng.choice(["server", "engine", "daemon"])
            for pid in self.pids(kind):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.killed[kind] += 1

    def pids(self, kind: str) -> list[int]:
        server, daemon = server_state.status(self.workspace), daemon_client.status(self.workspace)
        if kind != "engine" and not (server and daemon.pid):
            return []  # each starts the other again; nothing starts both
        if kind == "server":
            return [server.pid] if server else []
        if kind == "daemon":
            return [daemon.pid] if daemon.pid else []
        return [engine.use.pid for engine in live_engines(self.workspace)]


def test_a_server_that_begins_finds_the_job_of_a_request_that_a_killed_one_had_begun(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    server = start_server(tmp_path)
    file = server.client().files.create(file=("yes.jsonl", as_jsonl(ROWS[:8])), purpose="fine-tune")
    body = json.dumps({"model": "starter", "training_file": file.id}).encode()

    def post(server: Server, key: str) -> Answer:
        return server.ask("POST", "/v1/fine_tuning/jobs", body, idempotency_key=key)

    made = post(server, "first").json["id"]
    server.process.kill()
    server.process.wait()
    # As if it had been killed a moment before: the run is made, and neither job nor request know of it.
    with contextlib.closing(sqlite3.connect(tmp_path / ".finetop" / "serve.db")) as conn:
        conn.execute("DELETE FROM jobs")
        conn.execute("UPDATE requests SET run_id = NULL")
        conn.execute("INSERT INTO requests VALUES('of one that became nothing', ?, NULL)", (time.time(),))
        conn.commit()
    again = start_server(tmp_path)
    try:
        assert post(again, "first").json["id"] == made
        assert post(again, "second").json["id"] != made
        with contextlib.closing(sqlite3.connect(tmp_path / ".finetop" / "serve.db")) as conn:
            assert conn.execute("SELECT count(*) FROM requests WHERE run_id IS NULL").fetchone() == (0,)
    finally:
        end_server(again)


@pytest.mark.long
def test_jobs_and_requests_outlive_kills(tmp_path, monkeypatch):
    monkeypatch.delenv("FINETOP_NO_DAEMON", raising=False)
    workspace = Workspace(tmp_path)
    finetop(workspace, "serve", "--detach", "--port", "0")
    first = server_state.status(workspace)
    assert first is not None
    # The same port again for whoever comes back.
    server_state.keep(workspace, ["--host", "127.0.0.1", "--port", str(first.port)])
    key = server_state.owner_key(workspace)
    client = openai.OpenAI(base_url=first.url, api_key=key, max_retries=0, timeout=20)
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS[:8])), purpose="fine-tune")
    killer = Killer(workspace)
    killer.start()
    made: list[str] = []

    def patiently(act):
        """As a program does that goes on until it has its answer, and names its request."""
        deadline = time.monotonic() + 120
        while True:
            try:
                return act()
            except (openai.APIConnectionError, openai.InternalServerError, openai.APIError) as error:
                status = getattr(error, "status_code", 503)
                assert status >= 500 or status == 409, error
                assert time.monotonic() < deadline, error
                time.sleep(0.3)

    number = 0
    while number < max(JOBS, REQUESTS) or sum(killer.killed.values()) < KILLS:
        if number < JOBS:
            headers = {"Idempotency-Key": f"job-{number}"}
            job = patiently(
                lambda number=number, headers=headers: client.fine_tuning.jobs.create(
                    model="starter",
                    training_file=file.id,
                    suffix=f"n{number}",
                    hyperparameters={"n_epochs": 1},
                    extra_headers=headers,
                )
            )
            made.append(job.id)
        ask = [{"role": "user", "content": f"say {number}"}]
        patiently(lambda ask=ask: client.chat.completions.create(model="starter", messages=ask, max_tokens=4))
        number += 1
    killer.over.set()
    killer.join()
    try:
        assert len(set(made)) == JOBS and min(killer.killed.values()) > 0, killer.killed
        deadline = time.monotonic() + 240
        while True:
            jobs = patiently(lambda: [*client.fine_tuning.jobs.list(limit=100)])
            if all(job.status == "succeeded" for job in jobs):
                break
            assert time.monotonic() < deadline, [(job.id, job.status, job.error) for job in jobs]
            time.sleep(0.5)
        assert sorted(job.user_provided_suffix for job in jobs) == sorted(f"n{number}" for number in range(JOBS))
        assert len(workspace.run_ids()) == JOBS, json.dumps([job.id for job in jobs])
    finally:
        finetop(workspace, "serve", "stop")
        daemon_client.stop(workspace, 20)
