"""serve: does the server answer on this card, beside a run that trains on it?

Proves: `finetop serve` starts an engine on the card at the first request, and its answers are those of `finetop sample`
on the same checkpoint; the engine's memory is promised, so that a run trains beside it and a run that needs the whole
card says that it waits for it; an engine that is killed comes back.
ok: all of it. Fell short: any part. Figures: first token of the first request and of a warm one, tokens per second of
one stream and of sixteen at once.
"""

import concurrent.futures
import json
import os
import signal
import statistics
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from gpu.findings import Findings, Measurement
from gpu.kit import Kit
from gpu.runs import Session, session, settings, until

STREAMS, TOKENS = 16, 64


def measurements() -> list[Measurement]:
    return [Measurement("0.5b", 120, answered)]


def answered(kit: Kit) -> Findings:
    findings = Findings()
    fixture = kit.fixture("0.5b")
    with session(kit, "serve") as one:
        run_id = one.add(settings(fixture, {"train.max_steps": 4, "optim.learning_rate": 1e-3}))
        one.until_ended(run_id)
        one.finetop("serve", "--detach", "--port", 0)
        try:
            api = api_of(one)
            ask_it(kit, findings, one, api, run_id)
            train_beside(findings, one, api, run_id, settings(fixture, {"train.max_steps": 60}))
            kill_engine(findings, one, api, run_id)
        finally:
            one.finetop("serve", "stop", must=False)
    return findings


@dataclass(frozen=True)
class Api:
    """The server as a program asks it."""

    url: str
    key: str

    def open(self, body: dict[str, Any]) -> Any:
        """The answer to a chat completion, to be read and closed; urllib's HTTPError where it is refused."""
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        url = f"{self.url}/chat/completions"
        return urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=120)

    def status(self, body: dict[str, Any]) -> int:
        try:
            with self.open(body) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


def api_of(one: Session) -> Api:
    lines = one.finetop("serve", "env").stdout.splitlines()
    said = dict(line.removeprefix("export ").split("=", 1) for line in lines if "=" in line)
    return Api(*(said[name].strip("'\"") for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY")))


def request(model: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """Greedy, and as long as it may be: random models do not stop by themselves."""
    messages = [{"role": "user", "content": "ba"}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, **fields}


def ask_it(kit: Kit, findings: Findings, one: Session, api: Api, run_id: int) -> None:
    model = f"{run_id}@latest"
    first = stream(api, model)[0]
    with api.open(request(model, TOKENS)) as answered_once:
        answer = json.load(answered_once)["choices"][0]["message"]["content"].strip()
    words = ("sample", model, "--prompt", "ba", "--max-new-tokens", TOKENS, "--temperature", 0, "--json")
    sampled = json.loads(one.finetop(*words).stdout)["samples"][0]["answers"][model].strip()
    findings.check("it answers what `finetop sample` does", answer == sampled != "", f"{answer!r} for {sampled!r}")
    alone = [stream(api, model) for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        began = time.monotonic()
        together = list(pool.map(lambda _: stream(api, model), range(STREAMS)))
        took = time.monotonic() - began
    findings.figure("first token, nothing loaded", first, "s")
    findings.figure("first token, warm", statistics.median(one[0] for one in alone), "s")
    findings.figure("one stream", round(statistics.median(one[1] / one[2] for one in alone)), "tokens/s")
    findings.figure(f"{STREAMS} at once", round(sum(one[1] for one in together) / took), "tokens/s")
    engines = json.loads(one.finetop("serve", "status", "--json").stdout)["engines"]
    findings.check("there is one engine", len(engines) == 1, engines)
    if kit.cuda:
        findings.check("it is on the card", "cpu" not in json.dumps(engines[0]).lower(), engines)


def stream(api: Api, model: str) -> tuple[float, int, float]:
    """Seconds to the first text, tokens, and seconds for all of it."""
    began, first, tokens = time.monotonic(), 0.0, 0
    fields = request(model, TOKENS, stream=True, stream_options={"include_usage": True})
    with api.open(fields) as lines:
        for line in lines:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                first = time.monotonic() - began
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    return first, tokens, time.monotonic() - began


def train_beside(findings: Findings, one: Session, api: Api, run_id: int, values: dict[str, Any]) -> None:
    beside = one.add(values | {"run.name": "beside"})
    one.until_step(beside, 2)
    statuses = set()
    while not one.run(beside).ended:
        statuses.add(api.status(request(f"{run_id}@latest", 8)))
    findings.check("it answers while a run trains", statuses == {200}, statuses)
    findings.check("the run beside it ends as done", one.run(beside).state == "done", one.run(beside).reason)


def kill_engine(findings: Findings, one: Session, api: Api, run_id: int) -> None:
    (engine,) = json.loads(one.finetop("serve", "status", "--json").stdout)["engines"]
    os.kill(engine["pid"], signal.SIGKILL)

    def back() -> bool:
        return api.status(request(f"{run_id}@latest", 8)) == 200

    began = time.monotonic()
    findings.check("an engine that is killed comes back", until(back, "an answer", 60, pause=0.2))
    findings.figure("back after", time.monotonic() - began, "s")
