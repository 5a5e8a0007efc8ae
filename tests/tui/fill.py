"""A workspace filled by hand: runs in every state, curves, checkpoints, a log, what the daemon writes, Chinese names,
and text that would do harm if a terminal obeyed it."""

import json
import math
import time
from pathlib import Path
from typing import Any

from engine.base.workspace import Workspace
from engine.settings.schema import RunConfig
from engine.store import connect, journal_import, queue, run_lifecycle, transactions
from engine.store.run_records import NewRun, RunState

GIB = 1 << 30
HOSTILE = "evil \x1b[2J\x1b]0;owned\x07 [bold red]名字[/] \u202etxt"
LOG = [
    "loading Qwen/Qwen3-8B",
    "\x1b[31mred\x1b[0m and a bell \x07",
    "epoch 1/3 训练中 [bold]not markup[/]",
    "\tindented with a tab",
]


def settings(**changes: Any) -> tuple[dict[str, Any], dict[str, str]]:
    values = {
        "data.files": ["sql-v3.jsonl"],
        "lora.r": 64,
        "method.kind": "lora",
        "model.name": "Qwen/Qwen3-8B",
        "optim.learning_rate": 2e-4,
        "train.batch_size": 8,
        "train.epochs": 3,
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    origins = dict.fromkeys(values, "default")
    origins |= {"optim.learning_rate": "preset standard", "lora.r": "flag"}
    return values, origins


class Filler:
    """Fills a workspace; every time is `now` less something, so that pictures of it do not age."""

    def __init__(self, root: Path, now: float | None = None) -> None:
        self.workspace = Workspace(root)
        self.now = time.time() if now is None else now
        self.conn = connect.writer(self.workspace.database)

    def add(self, name: str, **fields: Any) -> int:
        values, origins = settings()
        defaults: dict[str, Any] = {
            "settings": values,
            "origins": origins,
            "model": "Qwen/Qwen3-8B",
            "data": "sql-v3.jsonl",
            "method": "lora",
            "total_steps": 2000,
            "estimate_bytes": int(21.4 * GIB),
            "created": self.now - 90_000,
        }
        run_id = queue.add(self.conn, NewRun(name=name, **(defaults | fields)))
        self.folder(run_id).mkdir(parents=True, exist_ok=True)
        config = RunConfig().replace(
            {**fields.get("settings", values), "run.name": name, "method.kind": fields.get("method", "lora")}
        )
        (self.folder(run_id) / "config.json").write_text(config.to_json({"origin": origins}), "utf-8")
        return run_id

    def folder(self, run_id: int) -> Path:
        return self.workspace.runs / str(run_id)

    def journal(self, run_id: int, *events: dict[str, Any]) -> None:
        with open(self.folder(run_id) / "journal.jsonl", "a", encoding="utf-8") as file:
            for event in events:
                file.write(json.dumps({"t": self.now, **event}, ensure_ascii=False) + "\n")
        journal_import.import_journal(self.conn, run_id, self.folder(run_id))

    def log(self, run_id: int, lines: list[str]) -> None:
        (self.folder(run_id) / "log.txt").write_text("\n".join(lines) + "\n", "utf-8")

    def train(self, run_id: int, steps: int, start: float = 2.6, end: float = 0.87, seconds: float = 3.1) -> None:
        """Start a run and let it log so many steps."""
        run_lifecycle.claim(self.conn, run_id, [f"GPU-{run_id % 2}"], "a100-lab")
        begun = self.now - steps * seconds
        events = [{"t": begun, "kind": "state", "state": "starting", "pid": 1000 + run_id, "total_steps": 2000}]
        events.append({"t": begun + 5, "kind": "state", "state": "running", "step": 0})
        for step in range(1, steps + 1):
            share = 1 - math.exp(-4 * step / 2000)
            value = start - (start - end) * share + 0.05 * math.sin(step * 1.7)
            values = {
                "train/loss": round(value, 4),
                "train/lr": 2e-4 * (1 - step / 2000),
                "train/grad_norm": 0.42,
                "train/tokens": step * 4000,
                "train/tokens_per_s": 11400.0,
                "train/step_s": seconds,
                "train/epoch": step / 700,
            }
            events.append({"t": begun + step * seconds, "kind": "metric", "step": step, "values": values})
            if step % 200 == 0:
                loss = value + 0.03
                events.append(
                    {"t": begun + step * seconds, "kind": "eval", "step": step, "values": {"eval/loss": loss}}
                )
                events.append(
                    {
                        "t": begun + step * seconds,
                        "kind": "checkpoint",
                        "step": step,
                        "epoch": step / 700,
                        "path": f"checkpoints/step-{step:08d}",
                        "bytes": 168_000_000,
                        "kept": ["latest", "best"],
                        "eval": {"eval/loss": loss},
                    }
                )
        events.append({"t": self.now - 1, "kind": "beat", "next": 600, "doing": "training"})
        self.journal(run_id, *events)
        for step in range(200, steps + 1, 200):
            (self.folder(run_id) / f"checkpoints/step-{step:08d}").mkdir(parents=True, exist_ok=True)

    def finish(
        self, run_id: int, state: RunState, reason: str | None = None, error: str | None = None, ago: float = 600
    ) -> None:
        run_lifecycle.finish(self.conn, run_id, state, reason, error)
        with transactions.write(self.conn):
            self.conn.execute(
                "UPDATE runs SET finished = ?, started = ? WHERE id = ?",
                (self.now - ago, self.now - ago - 3720, run_id),
            )
            self.conn.execute(
                "UPDATE events SET time = ? WHERE run_id = ? AND time > ?", (self.now - ago, run_id, self.now - ago)
            )

    def daemon(self, pid: int = 4242) -> None:
        """daemon.json as a daemon writes it; nobody holds the lock, so the screen says that none is running."""
        self.workspace.private.mkdir(mode=0o700, exist_ok=True)
        content = {
            "pid": pid,
            "started": self.now - 273_600,
            "t": self.now,
            "version": "0.1.0",
            "warm": "ready",
            "cpu_slots": 1,
        }
        self.workspace.daemon_state.write_text(json.dumps(content))

    def machine(self, gpus: int = 4, **changes: Any) -> None:
        self.workspace.private.mkdir(mode=0o700, exist_ok=True)
        self.workspace.machine_state.write_text(json.dumps(machine(self.now, gpus) | changes))

    def close(self) -> None:
        self.conn.close()


def machine(now: float, gpus: int = 4) -> dict[str, Any]:
    figures = [(98, 62.1, 71, 402, 1), (93, 36.9, 66, 377, 2), (0, 0.5, 34, 61, None), (4, 10.8, 41, 88, None)]
    cards = []
    for index in range(gpus):
        use, memory, heat, power, run = figures[index % 4]
        process = {
            "gpu": f"GPU-{index}", "pid": 2217 + index, "kind": "compute", "memory_bytes": int(memory * GIB * 0.96),
            "user": "kim" if run is None else "me", "command": "python train.py", "run": run, "identified": True,
        }  # fmt: skip
        cards.append(
            {
                "index": index, "uuid": f"GPU-{index}", "name": "NVIDIA A100-SXM4-80GB", "taken_at": now,
                "age_seconds": 0.2, "utilisation": use, "memory_used_bytes": int(memory * GIB),
                "memory_total_bytes": 80 * GIB, "temperature_c": heat, "power_watts": power,
                "power_limit_watts": 400, "processes": [process] if memory > 1 else [],
            }
        )  # fmt: skip
    return {
        "t": now,
        "taken_at": now,
        "gpus": cards,
        "gpu_problem": None if gpus else "No NVIDIA driver found (libnvidia-ml.so.1). CPU runs still work.",
        "driver": "570.86" if gpus else None,
        "cuda": "12.8" if gpus else None,
        "host": {
            "taken_at": now, "age_seconds": 0.1, "cpu_percent": 41.0, "cpu_count": 64, "load_1min": 12.1,
            "memory_used_bytes": 120 * GIB, "memory_total_bytes": 512 * GIB,
        },
        "disk": {
            "path": "/work", "taken_at": now, "age_seconds": 0.1, "free_bytes": 412 * 10**9, "total_bytes": 10**12,
        },
        "runs": {},
    }  # fmt: skip


def fill(root: Path, now: float | None = None) -> Filler:
    """The workspace most tests look at: 2 running, 4 waiting, 6 finished in every way."""
    filler = Filler(root, now)
    first = filler.add("qwen3-8b-sql-lora")
    second = filler.add("客服助手-llama-3b-qlora", data="客服对话.jsonl")
    done = filler.add("qwen3-8b-sql-r16", tags=("sql", "baseline"))
    failed = filler.add("llama-8b-full", method="full")
    stopped = filler.add("phi-4-notes-lora", note="stopped to look at the data")
    hostile = filler.add(HOSTILE)
    lost = filler.add("gemma-2b-dolly")
    filler.add("qwen3-8b-sql-r64")
    waiting = filler.add("gemma-9b-dolly-lora", estimate_bytes=38 * GIB, estimate_seconds=11_100)
    held = filler.add("mistral-7b-dpo", held=True, estimate_bytes=int(27.2 * GIB), estimate_seconds=8400)
    filler.add("翻译模型-qwen3-1.7b-continued-pretraining-全量微调", after=(first,))
    filler.train(done, 2000, end=0.9)
    filler.finish(done, RunState.DONE, ago=240)
    filler.train(failed, 3, start=3.1)
    filler.journal(failed, {"kind": "exit", "cause": "out-of-memory"})
    filler.finish(
        failed,
        RunState.FAILED,
        "out of memory at step 3",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.60 GiB. GPU 0 has a total capacity of"
        " 79.10 GiB",
        ago=4000,
    )
    filler.log(failed, [*LOG, "step 3", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.60 GiB."])
    filler.train(stopped, 1480, end=1.12)
    filler.finish(stopped, RunState.STOPPED, "stopped by you", ago=9000)
    filler.train(hostile, 40)
    filler.finish(hostile, RunState.DONE, ago=20_000)
    filler.log(hostile, LOG)
    filler.train(lost, 220)
    filler.finish(lost, RunState.INTERRUPTED, "the machine was restarted", ago=30_000)
    filler.train(first, 1240, end=0.85)
    filler.log(first, [*LOG, *(f"step {step} loss {3 / step:.3f}" for step in range(1, 400))])
    filler.train(second, 110, start=2.2)
    queue.set_waiting(filler.conn, {waiting: ("gpu", "1 GPU with 38G"), held: ("held", "held by you")})
    filler.machine()
    filler.daemon()
    return filler


def fill_many(root: Path, runs: int) -> None:
    """A store of so many finished runs, for looks at size."""
    conn = connect.writer(Workspace(root).database)
    now = time.time()
    with transactions.write(conn):
        for index in range(runs):
            run_id = queue.add(
                conn, NewRun(name=f"run-{index}-qwen3-sql", model="qwen", data="d.jsonl", total_steps=100)
            )
            conn.execute(
                "UPDATE runs SET state = 'done', started = ?, finished = ?, step = 100, train_loss = ?, best_eval = ?"
                " WHERE id = ?",
                (
                    now - 10_000 - index * 100,
                    now - 9_000 - index * 100,
                    1 + index % 7 / 10,
                    1.1 + index % 5 / 10,
                    run_id,
                ),
            )
    conn.close()


if __name__ == "__main__":
    import sys

    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:
        fill_many(target, int(sys.argv[2]))
    fill(target).close()
