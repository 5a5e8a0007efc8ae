"""Which chat completions are kept, how they are listed, and for how long."""

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from engine.base.errors import InputError
from engine.base.workspace import Workspace
from engine.serve.serve_config import read_serve_config
from engine.store.serve_database import database_file
from engine.store.stored_completions import StoredCompletions
from tests.engine.serve.conftest import end_server, start_server


@pytest.fixture
def stored(tmp_path: Path):
    with contextlib.closing(StoredCompletions(tmp_path / "serve.db")) as store:
        for number in range(300):
            metadata = {'k"[0]': str(number % 3), "n": str(number)}
            completion = {"id": f"c{number}", "created": number // 7, "model": f"m{number % 2}", "metadata": metadata}
            store.keep(completion, [{"role": "user", "content": "hi"}])
        yield store


def test_pages_follow_each_other_in_both_orders(stored: StoredCompletions):
    for newest_first in (False, True):
        ids: list[str] = []
        while page := stored.page(17, ids[-1] if ids else None, newest_first):
            ids += [completion["id"] for completion in page]
        expected = [f"c{number}" for number in range(300)]
        assert ids == (expected[::-1] if newest_first else expected)
    assert stored.page(5, "nothing") == [] and stored.page(0) == []


def test_filters_hold_across_pages_and_keys_are_no_paths(stored: StoredCompletions):
    wanted = {'k"[0]': "1"}
    first = stored.page(10, model="m0", metadata=wanted)
    rest = stored.page(1000, first[-1]["id"], model="m0", metadata=wanted)
    numbers = [int(completion["id"][1:]) for completion in first + rest]
    assert numbers == [number for number in range(300) if number % 3 == 1 and number % 2 == 0]
    stored.set_metadata("c4", {'k"[0]': "9"})
    assert "c4" not in {completion["id"] for completion in stored.page(1000, metadata=wanted)}


def test_always_keeps_all_but_what_says_no_and_old_ones_go(tmp_path: Path):
    workspace = Workspace(tmp_path)
    (tmp_path / "serve.toml").write_text('[serve]\nstore = "always"\nkeep_days = 2\n')
    workspace.private.mkdir()
    secret = "prompt that is to go"
    with contextlib.closing(StoredCompletions(database_file(workspace))) as store:
        for name, age in (("old", 2.1), ("young", 1.9)):
            completion = {"id": name, "created": int(time.time() - age * 86400), "model": "m", "metadata": {}}
            store.keep(completion, [{"role": "user", "content": secret if name == "old" else "x"}])
    server = start_server(tmp_path)
    try:
        client = server.client()
        for options in ({}, {"store": True}, {"store": False}):
            client.chat.completions.create(
                model="starter", messages=[{"role": "user", "content": str(options)}], max_tokens=1, **options
            )
        kept = [completion["id"] for completion in server.ask("GET", "/v1/chat/completions").json["data"]]
        assert len(kept) == 3 and kept[0] == "young"
        messages = [server.ask("GET", f"/v1/chat/completions/{name}/messages").json["data"] for name in kept[1:]]
        asked = [listed[0]["content"] for listed in messages]
        assert asked == ["{}", "{'store': True}"]
    finally:
        end_server(server)
    with contextlib.closing(sqlite3.connect(database_file(workspace))) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert not any(secret.encode() in path.read_bytes() for path in workspace.private.glob("serve.db*"))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('serve = "x"', "serve must"),
        ('[serve]\nstore = "never"', "serve.store"),
        ("[serve]\nkeep_days = -1", "serve.keep_days"),
        ("[serve]\nkeep_days = true", "serve.keep_days"),
        ("[serve]\nkeep = 1", "serve.keep"),
        ("[server]", "'server'"),
    ],
)
def test_what_serve_toml_may_not_hold_is_named(tmp_path: Path, content: str, named: str):
    (tmp_path / "serve.toml").write_text(content)
    with pytest.raises(InputError, match=named):
        read_serve_config(Workspace(tmp_path))
