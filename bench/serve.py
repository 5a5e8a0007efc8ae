"""What `finetop serve` adds to an answer, beside LiteLLM's proxy, and how soon it is there.

    python bench/serve.py                    all of it: about five minutes
    python bench/serve.py --quick            shows that everything runs, and no more
    python bench/serve.py --no-litellm       ours alone

Both are asked by one client over 20 connections that stay open, for the same short chat completion. Neither computes
one: finetop's engines are replaced by one that answers at once, LiteLLM's provider by its own `network_mock`. Each is
one process with its defaults, logging nothing for a request, and they take turns.

added       Time of a request, each connection asking five times a second (100 requests/s together). All of it is added
            by HTTP, since the answer costs nothing. LiteLLM is a proxy before another server: its own share only.
most        Requests a second, each connection asking again as soon as it has its answer.
start       From `finetop serve` typed to the first whole answer of /v1/models; medians, the first start not counted.
models      /v1/models of a workspace with 1,000 checkpoints.
first token From a streamed request of a real engine on the starter model, already loaded, to its first piece of text;
            and the very first request, which starts the daemon and the engine.
others      Cores kept busy by everything else on the machine. Above 0.1 the figures are worth nothing.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from screen_beside import Load  # noqa: E402

CONNECTIONS = 20
PACE_SECONDS = 0.2
LITELLM_KEY = "sk-bench"
LITELLM_CONFIG = f"""
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_key: sk-none, api_base: "https://api.openai.com"}}
litellm_settings: {{network_mock: true, callbacks: [], num_retries: 0, request_timeout: 30}}
general_settings: {{master_key: {LITELLM_KEY}}}
"""
START_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """Something that answers chat completions."""

    port: int
    key: str

    def request(self, **fields: Any) -> bytes:
        """The bytes of a chat completion's request."""
        messages = [{"role": "user", "content": "Where is my order 1234?"}]
        body = json.dumps({"model": "gpt-4o-mini", "messages": messages, "max_tokens": 16} | fields).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--no-litellm", dest="litellm", action="store_false", help="ours alone")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--stub", type=Path, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.stub:
        return serve_stub(options.stub)
    rounds, seconds, starts = (1, 2.0, 1) if options.quick else (3, 10.0, 5)
    with tempfile.TemporaryDirectory(prefix="finetop-bench-serve-") as scratch:
        figures = http_cost(Path(scratch), rounds, seconds, options.litellm)
        figures += start_figures(Path(scratch), starts)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        for figure in figures:
            print("  ".join(f"{name} {value}" for name, value in figure.items()))
    return 0


# what HTTP costs


def http_cost(scratch: Path, rounds: int, seconds: float, with_litellm: bool) -> list[dict[str, Any]]:
    servers: dict[str, Callable[[], contextlib.AbstractContextManager[Server]]] = {
        "finetop": lambda: stub_server(scratch / "stub")
    }
    if with_litellm:
        servers["LiteLLM"] = lambda: litellm_server(scratch)
    times: dict[str, list[float]] = {name: [] for name in servers}
    rates: dict[str, list[float]] = {name: [] for name in servers}
    load = Load()
    for _ in range(rounds):
        for name, serving in servers.items():
            with serving() as server:
                asyncio.run(ask_for(server, 1.0, None))  # connections are made, code is warm
                times[name] += asyncio.run(ask_for(server, seconds, PACE_SECONDS))
                began = time.monotonic()
                answered = asyncio.run(ask_for(server, seconds, None))
                rates[name].append(len(answered) / (time.monotonic() - began))
    figures: list[dict[str, Any]] = []
    for name in servers:
        cuts = statistics.quantiles(times[name], n=100)
        added = {f"p{at}": f"{cuts[at - 1] * 1e3:.2f} ms" for at in (50, 95, 99)}
        figures.append({"added by": name, **added, "most": f"{statistics.median(rates[name]):,.0f} requests/s"})
    if with_litellm:
        ratio = statistics.median(rates["finetop"]) / statistics.median(rates["LiteLLM"])
        figures.append({"finetop answers": f"{ratio:.1f}x as many"})
    return [*figures, {"others": f"{load.others():.2f} cores"}]


async def ask_for(server: Server, seconds: float, pace: float | None) -> list[float]:
    """The seconds that each request took; with `pace` a connection asks so often, without at once again."""
    request, taken, end = server.request(), [], time.monotonic() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        due = time.monotonic() + (pace or 0.0) * number / CONNECTIONS
        while (now := time.monotonic()) < end:
            if pace is not None:
                await asyncio.sleep(max(0.0, due - now))
                due += pace
            began = time.perf_counter()
            writer.write(request)
            status, body = await answer_of(reader)
            taken.append(time.perf_counter() - began)
            if status != 200 or b'"content"' not in body:
                raise RuntimeError(f"{status}: {body[:300]!r}")
        writer.close()

    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    return taken


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one that has a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head[9:12]), await reader.readexactly(length)


@contextlib.contextmanager
def stub_server(workspace: Path) -> Iterator[Server]:
    """finetop's server, whose engines answer at once."""
    workspace.mkdir(exist_ok=True)
    command = [sys.executable, str(Path(__file__)), "--stub", str(workspace)]
    with process(command, workspace / "stub.log"):
        from engine.base.workspace import Workspace
        from engine.daemon import server_state

        until(lambda: server_state.status(Workspace(workspace)))
        running = server_state.status(Workspace(workspace))
        port = int(running.url.removesuffix("/v1").rpartition(":")[2]) if running else 0
        key = server_state.owner_key(Workspace(workspace))
        yield Server(port, key)


def serve_stub(workspace: Path) -> int:
    """This process as such a server."""
    from engine.serve import __main__ as server
    from engine.serve.engines import Engines

    async def ask(self: Engines, ref: Any, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        yield {"kind": "begun", "prompt_tokens": 12}
        yield {"kind": "text", "index": 0, "text": "It is on its way."}
        yield {"kind": "end", "index": 0, "finish_reason": "stop", "tokens": 6}

    Engines.ask = ask  # type: ignore[method-assign]
    os.environ["FINETOP_NO_DAEMON"] = "1"
    sys.argv = ["finetop serve", str(workspace), "--port", "0"]
    return server.main()


@contextlib.contextmanager
def litellm_server(scratch: Path) -> Iterator[Server]:
    import environments

    python, config, port = environments.python_of("litellm"), scratch / "litellm.yaml", free_port()
    config.write_text(LITELLM_CONFIG)
    command = [str(Path(python).with_name("litellm")), "--config", str(config), "--port", str(port)]
    with process(command, scratch / "litellm.log", LITELLM_LOCAL_MODEL_COST_MAP="True"):
        until(lambda: is_up(f"http://127.0.0.1:{port}/health/liveliness"))
        yield Server(port, LITELLM_KEY)


# how soon it is there


def start_figures(scratch: Path, starts: int) -> list[dict[str, Any]]:
    from engine.base.workspace import Workspace

    workspace = Workspace(scratch / "work")
    workspace.root.mkdir()
    fill(workspace, 1000)
    seconds, listed, first, warm = [], [], 0.0, []
    environment = os.environ | {"FINETOP_WORKSPACE": str(workspace.root), "PYTHONPATH": str(ROOT)}
    for turn in range(starts + 1):
        port = free_port()
        began = time.monotonic()
        command = [sys.executable, "-m", "tui", "serve", "--port", str(port)]
        with process(command, scratch / "serve.log", **environment):
            from engine.daemon.server_state import owner_key

            headers: dict[str, str] = {}

            def models(port: int = port, headers: dict[str, str] = headers) -> bool:
                with contextlib.suppress(OSError):
                    headers |= {"authorization": f"Bearer {owner_key(workspace)}"}
                return is_up(f"http://127.0.0.1:{port}/v1/models", headers)

            until(models, 0.002)
            seconds.append(time.monotonic() - began)
            for _ in range(10):
                began = time.perf_counter()
                assert models()
                listed.append(time.perf_counter() - began)
            if turn == starts:
                server = Server(port, headers["authorization"].split()[1])
                first = asyncio.run(first_text(server))
                warm = [asyncio.run(first_text(server)) for _ in range(3 * starts)]
    subprocess.run([sys.executable, "-m", "tui", "daemon", "stop"], env=environment, check=False, capture_output=True)
    return [
        {"start to /v1/models": f"{statistics.median(seconds[1:]):.2f} s"},
        {"/v1/models, 1,000 checkpoints": f"{statistics.median(listed) * 1e3:.0f} ms"},
        {"first token": f"{statistics.median(warm):.2f} s", "of the very first request": f"{first:.1f} s"},
    ]


def fill(workspace: Any, checkpoints: int) -> None:
    """Runs that are done, with ten checkpoints each."""
    from engine.settings.resolve import Layer, resolve
    from engine.store import queue
    from engine.store.connect import writer
    from engine.store.run_records import NewRun

    config = resolve([Layer("bench", {"model.name": "starter", "data.files": ["/data/chats.jsonl"]})]).config
    conn = writer(workspace.database)
    new = NewRun(name="support", settings=config.flat(), model="starter", total_steps=100)
    run_ids = queue.add_all(conn, [new] * (checkpoints // 10))
    rows = [(run_id, 10 * step, 1.7e9 + step) for run_id in run_ids for step in range(1, 11)]
    with conn:
        conn.execute("UPDATE runs SET state = 'done', finished = 1.7e9")
        conn.executemany("INSERT INTO checkpoints(run_id, step, time, kept) VALUES(?, ?, ?, '[]')", rows)
    conn.close()
    for run_id in run_ids:
        folder = workspace.runs / str(run_id)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.to_json(), "utf-8")


async def first_text(server: Server) -> float:
    """Seconds until the first piece of text of a streamed answer."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(server.request(stream=True))
    try:
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    return time.monotonic() - began
    finally:
        writer.close()
    raise RuntimeError("the answer has no text")


# processes


@contextlib.contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[None]:
    with open(log, "ab") as out:
        started = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | environment, cwd=ROOT, start_new_session=True
        )
    try:
        yield
    except TimeoutError:
        sys.stderr.write(log.read_text(errors="replace")[-2000:])
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        started.wait(30)


def is_up(url: str, headers: dict[str, str] | None = None) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=5) as answer:
            answer.read()
            return True
    except OSError:
        return False


def until(condition: Callable[[], Any], pause: float = 0.02) -> None:
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not there within {START_LIMIT_SECONDS:.0f} s")
        time.sleep(pause)


def free_port() -> int:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
