"""Who is answered, and how everybody else is refused: on every route that there is."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from engine.serve.access import Access
from engine.serve.asgi_app import ROUTES
from tests.engine.serve.conftest import Server, keys_of

PATHS = [
    (method, route.path.replace("{model:path}", "starter").replace("{", "").replace("}", ""))
    for route in ROUTES
    for method in sorted((route.methods or set()) - {"HEAD"})
]
FOUR = {"message", "type", "param", "code"}


def refused(answer, status: int) -> None:
    assert answer.status == status, answer.body
    error = answer.json["error"]
    assert set(answer.json) == {"error"} and set(error) == FOUR and error["message"], error
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_route_refuses_strangers(server: Server, method: str, path: str):
    body = b"{}" if method == "POST" else None
    refused(server.ask(method, path, body, authorization=""), 401)
    refused(server.ask(method, path, body, authorization="Bearer sk-finetop-wrong"), 401)
    refused(server.ask(method, path, body, authorization=f"Basic {server.key}"), 401)
    refused(server.ask(method, path, body, host="evil.example"), 403)
    refused(server.ask(method, path, body, host="127.0.0.1"), 403)  # another port's
    refused(server.ask(method, path, body, origin="http://evil.example"), 403)
    refused(server.ask(method, path, body, origin="null"), 403)
    if method == "POST":
        refused(server.ask(method, path, body, content_type="text/plain"), 415)


def test_whatever_is_wrong_is_told_in_the_one_form(server: Server):
    refused(server.ask("GET", "/v1/nothing"), 404)
    refused(server.ask("GET", "/"), 404)
    refused(server.ask("PUT", "/v1/models"), 405)
    for body in (
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"model": NaN}',
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 90 + b"1" + b"}" * 90,
    ):
        refused(server.ask("POST", "/v1/chat/completions", body), 400)
    refused(server.ask("POST", "/v1/files", b"x", content_type="multipart/form-data"), 400)
    refused(server.ask("POST", "/v1/files", b"x", content_type="multipart/form-data; boundary=b"), 400)
    refused(server.ask("POST", "/v1/chat/completions", b" " * (33 * 2**20)), 413)
    assert server.ask("GET", "/health", authorization="").json == {"status": "ok"}


def test_answers_carry_an_id_and_no_traces_of_the_server(server: Server):
    answer = server.ask("GET", "/v1/models")
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["x-request-id"].startswith("req_") and "server" not in headers


def test_what_changes_nothing_is_named_and_what_is_not_known_refused(server: Server):
    body = {"model": "starter", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    answer = server.ask("POST", "/v1/chat/completions", json.dumps(body | {"user": "me", "verbosity": "low"}).encode())
    assert (
        answer.status == 200
        and {k.lower(): v for k, v in answer.headers.items()}["x-finetop-ignored"] == "user, verbosity"
    )
    answer = server.ask("POST", "/v1/chat/completions", json.dumps(body | {"chat_template": "{{ 1 }}"}).encode())
    refused(answer, 400)
    assert answer.json["error"]["param"] == "chat_template"
    for setting in ("model.trust_remote_code", "eval.command", "data.template", "data.files"):
        file = {"model": "starter", "training_file": "file-x", "finetop": {setting: "x"}}
        refused(server.ask("POST", "/v1/fine_tuning/jobs", json.dumps(file).encode()), 400)


def test_schemas_have_limits(server: Server):
    deep: dict = {}
    for _ in range(40):
        deep = {"properties": deep}
    for schema in (deep, {"description": "x" * 70_000}):
        chat = CHAT | {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
        response = RESPONSE | {"tools": [{"type": "function", "name": "f", "parameters": schema}]}
        for path, body in (("/v1/chat/completions", chat), ("/v1/responses", response)):
            answer = server.ask("POST", path, json.dumps(body).encode())
            refused(answer, 400)
            assert answer.json["error"]["code"] == "schema_too_large"


def test_a_client_that_sends_nothing_more_is_cut_off(tmp_path: Path):
    sent: list[dict] = []

    async def reads(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    async def receive():
        if not sent and not began:
            began.append(1)
            return {"type": "http.request", "body": b"{", "more_body": True}
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    began: list[int] = []
    headers = [(b"host", b"h:1"), (b"authorization", b"Bearer " + b"k" * 32), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/responses", "headers": headers}
    asyncio.run(Access(reads, keys_of(tmp_path, "k" * 32), ["h:1"], body_seconds=0.05)(scope, receive, send))
    assert sent[0]["status"] == 408 and set(json.loads(sent[1]["body"])["error"]) == FOUR


# -- bodies of every kind ----------------------------------------------------------------------------------------------

CHAT = {
    "model": "starter",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    "max_tokens": 1,
    "n": 1,
    "stop": ["x"],
    "seed": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "tool_choice": "auto",
    "metadata": {"a": "b"},
    "response_format": {"type": "text"},
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
}
TEXT = {"model": "starter", "prompt": "hi", "max_tokens": 1, "echo": True, "logprobs": 1, "n": 1, "stop": "x"}
RESPONSE = {
    "model": "starter",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    "max_output_tokens": 1,
    "instructions": "x",
    "tools": [{"type": "function", "name": "f", "parameters": {}}],
    "text": {"format": {"type": "text"}},
}
JOB = {
    "model": "starter",
    "training_file": "file-x",
    "suffix": "s",
    "seed": 1,
    "metadata": {"a": "b"},
    "integrations": [],
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    "finetop": {"lora.r": 4},
}
BODIES = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", TEXT),
    ("/v1/responses", RESPONSE),
    ("/v1/fine_tuning/jobs", JOB),
    ("/v1/fine-tunes", {"training_file": "file-x", "model": "ada", "n_epochs": 1, "batch_size": 2}),
]
_CUT_CALL = {"function": {"name": "f", "arguments": "{"}}
ODD = [
    *(None, True, 0, -1, 1.5, 1e308, 10**40, "", "x", "\ud800", "\x00", "中文👩\u200d🚀", "auto", "9" * 5000),
    *([], [[]], [None], [1, "x"], {}, {"type": "x"}, {"": None}, {"a": {"b": {"c": []}}}, {"type": "image_url"}),
    *("../../etc/passwd", [{"role": "user"}], [{"role": "tool", "content": None}]),
    [{"role": "assistant", "content": "", "tool_calls": [_CUT_CALL]}],
]


def changed(rng: random.Random, value):
    """The body with something in it exchanged, taken away, doubled or added, anywhere."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return rng.choice(ODD)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return rng.choice([value[:at], value + value, [*value[:at], changed(rng, value[at]), *value[at + 1 :]]])
    key = rng.choice(list(value))
    draw = rng.random()
    if draw < 0.1:
        return {name: child for name, child in value.items() if name != key}
    if draw < 0.2:
        return value | {rng.choice(["extra", "stream", "n", "name", "content", "type"]): rng.choice(ODD)}
    return value | {key: changed(rng, value[key])}


def fuzz(server: Server, seed: int, count: int) -> dict[int, int]:
    """How often each status was answered."""
    rng = random.Random(seed)
    statuses: dict[int, int] = {}
    for number in range(count):
        path, body = BODIES[number % len(BODIES)]
        for _ in range(rng.randint(1, 3)):
            body = changed(rng, body) if isinstance(body, dict) else body
        sent = json.dumps(body).encode()
        answer = server.ask("POST", path, sent)
        assert answer.status in (200, 400, 404, 413), (path, sent[:2000], answer.status, answer.body[:500])
        if answer.status != 200:
            refused(answer, answer.status)
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    assert "Traceback" not in server.log()
    return statuses


def test_no_body_makes_the_server_fail(server: Server):
    statuses = fuzz(server, 1, 400)
    assert statuses[200] > 5 and statuses[400] > 200


@pytest.mark.long
def test_ten_thousand_bodies_do_not_either(server: Server):
    fuzz(server, 2, 10_000)
