"""A real server on the starter model, asked by the official client, which refuses every answer of a wrong type."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from engine.base.workspace import PACKAGE_ROOT, Workspace
from engine.daemon import daemon_client, server_state
from engine.serve.keys import Keys
from engine.store.serve_keys import KeyStore
from tests.engine.forkserver import ForkServer

ROWS = [
    {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": "yes sir"}]}
    for i in range(24)
]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """One that runs."""

    workspace: Workspace
    url: str
    key: str
    process: subprocess.Popen

    def client(self, **options: Any) -> OpenAI:
        options = {"max_retries": 0, "timeout": 60.0} | options
        return OpenAI(base_url=self.url, api_key=self.key, _strict_response_validation=True, **options)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """By hand; `headers` with None leave one out."""
        sent = {"authorization": f"Bearer {self.key}"}
        if body is not None:
            sent["content-type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.url.removesuffix("/v1") + path, body, {k: v for k, v in sent.items() if v}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def log(self) -> str:
        return (self.workspace.private / "serve.log").read_text("utf-8", "replace")


def start_server(root: Path, *options: str, python: str | Path = sys.executable) -> Server:
    workspace = Workspace(root)
    workspace.private.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)}
    with open(workspace.private / "serve.log", "ab") as log:
        process = subprocess.Popen(
            [python, "-P", "-m", "engine.serve", str(root), "--port", "0", *options],
            stdout=log,
            stderr=log,
            env=environment,
        )
    deadline = time.monotonic() + 60
    while (running := server_state.status(workspace)) is None:
        assert process.poll() is None and time.monotonic() < deadline, (workspace.private / "serve.log").read_text()
        time.sleep(0.02)
    return Server(workspace, running.url, server_state.owner_key(workspace), process)


def end_server(server: Server) -> None:
    server.process.terminate()
    server.process.wait(20)
    daemon_client.stop(server.workspace, 20)


def keys_of(folder: Path, owner: str) -> Keys:
    """With this key of the owner's."""
    (folder / "serve.key").write_text(owner)
    return Keys(folder / "serve.key", KeyStore(folder / "serve.db"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, _fork_server: ForkServer) -> Iterator[Server]:
    running = start_server(tmp_path_factory.mktemp("served") / "work space", python=_fork_server.stub)
    yield running
    end_server(running)


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client()


def until_ended(client: OpenAI, job_id: str, seconds: float = 90) -> Any:
    """The job, when it has."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.2)
    raise AssertionError(f"{job_id} has not ended: {job}")


@pytest.fixture(scope="module")
def trained(client: OpenAI) -> Any:
    """A job that has succeeded."""
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini-2024-07-18",
        training_file=file.id,
        suffix="polite",
        seed=7,
        metadata={"team": "support"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 10}},
        },
        extra_body={"finetop": {"eval.every": 10}},
    )
    assert job.status == "validating_files" and job.fine_tuned_model is None
    return until_ended(client, job.id)
