"""Several keys: what each may, when it ends, what it has used."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from engine.base.errors import InputError
from engine.cli.main import main
from engine.plan.api_cost import answer_dollars, priced_as, training_dollars
from engine.plan.cost import read_prices
from engine.serve.asgi_app import ROUTES
from engine.serve.keys import ScopedRoute
from engine.store.serve_database import database_file
from engine.store.serve_keys import SCOPES, KeyStore
from tests.engine.serve.conftest import ROWS, Server, as_jsonl, end_server, start_server, until_ended


def finetop(server: Server, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `finetop serve …` prints for its workspace."""
    assert main(["serve", *words, "--workspace", str(server.workspace.root)]) == 0
    return capsys.readouterr().out


def path_of(route: ScopedRoute) -> str:
    return route.path.replace("{model:path}", "nothing").replace("{", "").replace("}", "")


@pytest.fixture(scope="module")
def keys(server: Server) -> Iterator[dict[str, str]]:
    store = KeyStore(database_file(server.workspace))
    yield {scope: store.add(f"only {scope}", [scope]) for scope in SCOPES}
    store.close()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods - {'HEAD'})} {route.path}")
def test_every_route_wants_a_scope_and_says_which(server: Server, keys: dict[str, str], route: ScopedRoute):
    method = min(route.methods - {"HEAD"})
    body = b"{}" if method == "POST" else None
    kind = "multipart/form-data" if route.path == "/v1/files" else "application/json"
    assert route.scopes
    for scope, key in keys.items():
        answer = server.ask(method, path_of(route), body, authorization=f"Bearer {key}", content_type=kind)
        if scope in route.scopes:
            assert answer.status != 403, answer.body
        else:
            error = answer.json["error"]
            assert answer.status == 403 and error["code"] == "insufficient_permissions"
            assert f"'{route.scopes[0]}'" in error["message"] and f"'only {scope}'" in error["message"]


def test_a_route_cannot_be_without_scope():
    for scopes in ((), ("all",)):
        with pytest.raises(ValueError, match="needs scopes"):
            ScopedRoute("GET", "/x", print, *scopes)


def test_keys_come_and_go_while_the_server_runs(server: Server, capsys: pytest.CaptureFixture[str]):
    key = finetop(server, capsys, "keys", "add", "ci", "--scope", "train").splitlines()[0]
    assert server.ask("GET", "/v1/files", authorization=f"Bearer {key}").status == 200
    held = b"".join(path.read_bytes() for path in server.workspace.private.glob("serve.db*"))
    assert key.encode() not in held and key not in finetop(server, capsys, "keys")
    with pytest.raises(InputError, match="already"):
        KeyStore(database_file(server.workspace)).add("ci", ["infer"])
    finetop(server, capsys, "keys", "revoke", "ci")
    assert server.ask("GET", "/v1/files", authorization=f"Bearer {key}").status == 401
    again = finetop(server, capsys, "keys", "add", "ci").splitlines()[0]
    assert again != key and server.ask("GET", "/v1/models", authorization=f"Bearer {again}").status == 200
    listed = json.loads(finetop(server, capsys, "keys", "--json"))
    assert [(k["name"], k["scopes"], bool(k["revoked"])) for k in listed if k["name"] in ("owner", "ci")] == [
        ("owner", list(SCOPES), False),
        ("ci", ["train"], True),
        ("ci", ["infer"], False),
    ]
    assert main(["serve", "keys", "revoke", "nobody", "--workspace", str(server.workspace.root)]) == 2
    for name in ("owner", "a b", "../x", ""):
        assert main(["serve", "keys", "add", name, "--workspace", str(server.workspace.root)]) == 2


def test_the_owners_key_is_exchanged_while_the_server_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    server = start_server(tmp_path)
    try:
        assert server.ask("GET", "/v1/models").status == 200
        finetop(server, capsys, "keys", "revoke", "owner")
        assert server.ask("GET", "/v1/models").status == 401
        line = next(line for line in finetop(server, capsys, "env").splitlines() if "OPENAI_API_KEY" in line)
        key = line.partition("=")[2]
        assert key != server.key and server.ask("GET", "/v1/models", authorization=f"Bearer {key}").status == 200
    finally:
        end_server(server)


def test_what_a_key_uses_is_added_up_and_survives_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    server = start_server(tmp_path)
    try:
        key = finetop(server, capsys, "keys", "add", "app", "--scope", "infer", "--scope", "train").splitlines()[0]
        client = openai.OpenAI(base_url=server.url, api_key=key, max_retries=0)
        file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS)), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model="gpt-4.1-2025-04-14", training_file=file.id, hyperparameters={"n_epochs": 1, "batch_size": 8}
        )
        job = until_ended(client, job.id)
        sums = {"prompt": 0, "completion": 0}
        for _ in range(3):
            usage = client.chat.completions.create(
                model=job.fine_tuned_model, messages=[{"role": "user", "content": "hi"}], max_tokens=4
            ).usage
            sums["prompt"] += usage.prompt_tokens
            sums["completion"] += usage.completion_tokens
        stream = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=3, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        streamed = next(chunk.usage for chunk in stream if chunk.usage)
        cut = client.chat.completions.create(
            model="starter", messages=[{"role": "user", "content": "hi"}], max_tokens=400, stream=True
        )
        next(iter(cut))
        cut.close()  # what was read and written counts although nobody waits for the rest
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with sqlite3.connect(database_file(server.workspace)) as conn:
                if conn.execute("SELECT sum(requests) FROM usage").fetchone()[0] == 5:
                    break
            time.sleep(0.1)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        told = json.loads(finetop(server, capsys, "usage", "--json"))
        assert [entry["key"] for entry in told["keys"]] == ["app"]
        used = told["keys"][0]
        assert used["requests"] == 5 and used["trained_tokens"] == job.trained_tokens > 0
        assert used["input_tokens"] == sums["prompt"] + 2 * streamed.prompt_tokens
        lost = used["output_tokens"] - sums["completion"] - streamed.completion_tokens
        assert 0 <= lost < 400
        expected = job.trained_tokens * 25 + sums["prompt"] * 3 + sums["completion"] * 12
        expected += streamed.prompt_tokens * (2.5 + 0.15) + streamed.completion_tokens * 10 + lost * 0.6
        assert used["saved_dollars"] == pytest.approx(expected / 1e6)
        assert "app" in finetop(server, capsys, "usage", "--since", time.strftime("%Y-%m-%d", time.gmtime()))
        assert "Nothing" in finetop(server, capsys, "usage", "--since", "2999-01-01")
    finally:
        end_server(server)


def test_prices_go_by_the_name_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "finetop").mkdir()
    (tmp_path / "finetop" / "prices.toml").write_text('[input_per_million_tokens]\n"gpt-4o" = 1\n"gpt-9" = 7\n')
    prices = read_prices()
    assert priced_as(prices, "gpt-4o-mini-2024-07-18") == "gpt-4o-mini"
    assert priced_as(prices, "ft:gpt-4o-2024-08-06:org::abc", is_tuned=True) == "ft:gpt-4o"
    assert priced_as(prices, "ft:starter:work::41", "gpt-4.1-nano-2025-04-14", True) == "ft:gpt-4.1-nano"
    assert priced_as(prices, "gpt-4or", "x") == "" and priced_as(prices, "41@best", is_tuned=True) == "ft:"
    assert answer_dollars(prices, "gpt-4o", 10**6, 10**6) == 1 + 10
    assert answer_dollars(prices, "gpt-9", 10**6, 0) == answer_dollars(prices, "", 10**6, 0) == 0.15
    assert answer_dollars(prices, "ft:", 0, 10**6) == 1.2
    assert training_dollars(prices, "gpt-4.1-mini", 10**6) == 5 and training_dollars(prices, "starter", 10**6) == 3
