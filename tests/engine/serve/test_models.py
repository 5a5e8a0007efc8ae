"""The list of models, where there are many."""

import contextlib
import sqlite3
import time
from pathlib import Path

from engine.base.workspace import Workspace
from engine.store.connect import writer
from tests.engine.serve.conftest import end_server, start_server


def test_a_thousand_checkpoints_are_listed_within_50_ms(tmp_path: Path):
    workspace = Workspace(tmp_path)
    workspace.private.mkdir()
    writer(workspace.database).close()
    with contextlib.closing(sqlite3.connect(workspace.database)) as conn, conn:
        for run in range(1, 101):
            conn.execute(
                "INSERT INTO runs(id, name, model, state, created, position) VALUES(?, ?, 'starter', 'done', 1, ?)",
                (run, f"run {run}", run),
            )
            steps = [(run, step, 5.0 + step) for step in range(10, 110, 10)]
            conn.executemany("INSERT INTO checkpoints(run_id, step, time, kept) VALUES(?, ?, ?, '[]')", steps)
    server = start_server(tmp_path)
    try:
        seconds = []
        for _ in range(20):
            began = time.perf_counter()
            listed = server.ask("GET", "/v1/models").json["data"]
            seconds.append(time.perf_counter() - began)
        names = [model["id"] for model in listed]
        assert len(names) == len(set(names)) == 1101 and names[1].endswith(":run-100:100")
        assert names[2] == f"{names[1]}:ckpt-step-100" and listed[2]["created"] == 105
        assert min(seconds) < 0.05, seconds  # the others hold what else the machine does
    finally:
        end_server(server)


def test_a_server_brings_the_database_up_to_date(tmp_path: Path):
    (tmp_path / "runs.db").touch()
    server = start_server(tmp_path)
    try:
        assert [model["id"] for model in server.ask("GET", "/v1/models").json["data"]] == ["starter"]
    finally:
        end_server(server)
