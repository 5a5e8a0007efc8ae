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
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from engine.base.engine_folder import live_engines
from engine.base.workspace import PACKAGE_ROOT, Workspace
from engine.daemon import daemon_client, server_state
from tests.engine.serve.conftest import ROWS, Answer, Server, as_jsonl, end_server, start_server

JOBS, REQUESTS, ASKING = 50, 1000, 4


def finetop(workspace: Workspace, *words: str) -> None:
    command = [sys.executable, "-m", "tui", "--workspace", str(workspace.root), *words]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)})


class Killer(threading.Thread):
    """Ends one of them now and then, without a word: mostly when all has come back, and sometimes before."""

    def __init__(self, workspace: Workspace, answered: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self.workspace, self.answered = workspace, answered
        self.over, self.killed = threading.Event(), {"server": 0, "engine": 0, "daemon": 0}

    def run(self) -> None:
        rng = random.Random(5)
        due = 10
        while not self.over.wait(rng.uniform(0.5, 3.0)):
            if self.answered() < due and rng.random() < 0.95:
                continue
            due = self.answered() + rng.randrange(10, 50)
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


class Asker(threading.Thread):
    """Asks until it has its answers, every fourth as a stream, as a program does that goes on after an error."""

    def __init__(self, client: openai.OpenAI, numbers: range) -> None:
        super().__init__(daemon=True)
        self.client, self.numbers = client, numbers
        self.answered = self.refused = self.broken = self.longest = 0
        self.problem = ""

    def run(self) -> None:
        try:
            for number in self.numbers:
                began = time.monotonic()
                patiently(lambda number=number: self.ask(number), self.missed)
                self.longest = max(self.longest, time.monotonic() - began)
                self.answered += 1
        except BaseException as error:
            self.problem = repr(error)

    def missed(self, error: openai.APIError) -> None:
        if getattr(error, "status_code", None) == 503:
            assert error.response.headers["retry-after"]
            self.refused += 1
        else:
            self.broken += 1

    def ask(self, number: int) -> None:
        asked = {"model": "starter", "messages": [{"role": "user", "content": f"say {number}"}], "max_tokens": 8}
        if number % 4:
            assert self.client.chat.completions.create(**asked).choices[0].finish_reason
            return
        chunks = [*self.client.chat.completions.create(**asked, stream=True)]
        if chunks[-1].choices[0].finish_reason is None:  # whoever reads to the end is told
            raise openai.APIConnectionError(request=None)


def patiently(act: Callable[[], Any], missed: Callable[[openai.APIError], None] = lambda error: None) -> Any:
    """Until it has its answer."""
    deadline = time.monotonic() + 240
    while True:
        try:
            return act()
        except (openai.APIError, httpx2.HTTPError) as error:
            status = getattr(error, "status_code", 503)
            assert status is None or status >= 500 or status == 409, error
            assert time.monotonic() < deadline, error
            missed(error)
            time.sleep(0.3)


def test_an_engine_outlives_daemon_and_server(tmp_path, monkeypatch):
    monkeypatch.delenv("FINETOP_NO_DAEMON", raising=False)
    server = start_server(tmp_path)
    endless = {
        "model": "starter",
        "max_tokens": 1500,
        "logit_bias": {"6143": -100, "6141": -100},
        "messages": ROWS[0]["messages"][:1],
    }

    def answer_of(server: Server) -> int:
        """The pid of the engine that has answered."""
        client = server.client()
        ask = {"model": "starter", "messages": ROWS[0]["messages"][:1], "max_tokens": 2}
        assert patiently(lambda: client.chat.completions.create(**ask)).choices[0].finish_reason
        (engine,) = live_engines(server.workspace)
        return engine.use.pid

    first = answer_of(server)
    os.kill(daemon_client.status(server.workspace).pid, signal.SIGKILL)
    assert answer_of(server) == first
    stream = server.client().chat.completions.create(**endless, stream=True)
    next(iter(stream))
    server.process.kill()
    server.process.wait()
    with pytest.raises((openai.APIError, httpx2.HTTPError)):
        for _ in stream:
            pass
    again = start_server(tmp_path)
    try:
        assert answer_of(again) == first
    finally:
        end_server(again)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_jobs_and_requests_outlive_kills(tmp_path, monkeypatch):
    monkeypatch.delenv("FINETOP_NO_DAEMON", raising=False)
    workspace = Workspace(tmp_path)
    finetop(workspace, "serve", "--detach", "--port", "0")
    first = server_state.status(workspace)
    assert first is not None
    # The same port again for whoever comes back.
    server_state.keep(workspace, ["--host", "127.0.0.1", "--port", str(first.port)])
    client = openai.OpenAI(base_url=first.url, api_key=server_state.owner_key(workspace), max_retries=0, timeout=60)
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS[:8])), purpose="fine-tune")
    askers = [Asker(client, range(i, REQUESTS, ASKING)) for i in range(ASKING)]
    killer = Killer(workspace, lambda: sum(asker.answered for asker in askers))
    began = time.monotonic()
    for thread in (killer, *askers):
        thread.start()
    made = []
    try:
        for number in range(JOBS):
            job = patiently(
                lambda number=number: client.fine_tuning.jobs.create(
                    model="starter",
                    training_file=file.id,
                    suffix=f"n{number}",
                    hyperparameters={"n_epochs": 1},
                    extra_headers={"Idempotency-Key": f"job-{number}"},
                )
            )
            made.append(job.id)
        for asker in askers:
            asker.join(600)
        deadline = time.monotonic() + 600
        while True:
            jobs = patiently(lambda: [*client.fine_tuning.jobs.list(limit=100)])
            if all(job.status == "succeeded" for job in jobs):
                break
            assert time.monotonic() < deadline, [(job.id, job.status, job.error) for job in jobs]
            time.sleep(0.5)
        killer.over.set()
        killer.join()
        assert sorted(job.user_provided_suffix for job in jobs) == sorted(f"n{number}" for number in range(JOBS))
        assert len(workspace.run_ids()) == JOBS == len(set(made)), json.dumps([job.id for job in jobs])
        assert [asker.problem for asker in askers] == [""] * ASKING
        assert sum(asker.answered for asker in askers) == REQUESTS
        assert min(killer.killed.values()) > 0, killer.killed
        print(
            f"{time.monotonic() - began:.0f} s, killed {killer.killed}, longest {max(a.longest for a in askers):.1f} s"
        )
        print(f"503: {sum(a.refused for a in askers)}, broken off: {sum(a.broken for a in askers)}")
    finally:
        killer.over.set()
        finetop(workspace, "serve", "stop")
        daemon_client.stop(workspace, 20)
