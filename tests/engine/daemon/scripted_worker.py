"""Stands in for a training worker: a real process with a real journal that does what `script.json` in its folder says.

steps, pause: so many steps, so long each. save: a checkpoint (a number in a file) every so many steps.
end: what happens at step `at`, or at the last one: done, raise, nan, memory, input, eat, kill, segfault, exit, silence.
promise: after each step, when the next sign of life comes.
child: start a helper in its session that would outlive it. once: misbehave only the first time.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine.runs import journal as journals
from engine.runs.journal import Journal

journals._DISK_FULL_RETRY_SECONDS = 0.1


def main() -> int:
    folder = Path(sys.argv[1])
    script = {"steps": 10, "pause": 0.01, "save": 5, "end": "done"} | json.loads((folder / "script.json").read_text())
    asked = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    journal = Journal(folder)
    journal.write("beat", next=60, doing="loading", pid=os.getpid())
    journal.write("state", state="starting", pid=os.getpid(), versions={})
    for line in (folder / "starts").read_text().splitlines() if (folder / "starts").exists() else []:
        if os.path.exists(f"/proc/{line.split()[0]}") and os.getpgid(int(line.split()[0])) == int(line.split()[0]):
            (folder / "twice").touch()
    with open(folder / "starts", "a") as file:
        file.write(f"{os.getpid()} {sys.argv[3]}\n")
    (folder / "environment.json").write_text(json.dumps(dict(os.environ)))
    if script.get("child"):
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / "helper").write_text(str(helper.pid))
    print("loading 100%\rready", flush=True)
    checkpoint = folder / "checkpoint"
    step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    tokens = json.loads((folder / "config.json").read_text())["train"]["micro_tokens"]
    journal.write("resume", from_step=step if checkpoint.exists() else -1, micro_tokens=tokens)
    journal.write("state", state="running", step=step)
    misbehaved = folder / "misbehaved"
    good = script.get("once") and misbehaved.exists()
    while step < script["steps"]:
        if asked:
            checkpoint.write_text(str(step))
            journal.write("checkpoint", step=step, path="checkpoint", bytes=1, kept=["latest"])
            journal.write("state", state="stopped", step=step, reason="asked to stop")
            return 3
        if step == script.get("at", script["steps"] - 1) and script["end"] != "done" and not good:
            misbehaved.touch()
            return misbehave(script["end"], journal, step)
        time.sleep(script["pause"])
        step += 1
        journal.metric(step, {"train/loss": 1 / step, "train/tokens": 10 * step})
        if "promise" in script:
            journal.write("beat", next=script["promise"], doing="training")
        if step % script["save"] == 0:
            new = folder / "checkpoint.new"
            new.write_text(str(step))
            new.rename(checkpoint)
            journal.write("checkpoint", step=step, path="checkpoint", bytes=1, kept=["latest"])
    journal.write("state", state="done", step=step)
    return 0


def misbehave(how: str, journal: Journal, step: int) -> int:
    print(f"about to end by {how}", file=sys.stderr, flush=True)

    def failed(reason: str, cause: str) -> None:
        journal.write("state", state="failed", reason=reason, cause=cause)

    if how == "raise":
        failed("ValueError: shapes do not fit", "exception")
        print("ValueError: shapes do not fit", file=sys.stderr)
        return 1
    if how == "nan":
        failed(f"the loss became NaN at step {step + 1}", "not-finite")
        return 1
    if how == "memory":
        failed("out of memory: tried to allocate 2 GiB", "out-of-memory")
        return 1
    if how == "input":
        failed("there is no such column", "input")
        return 2
    if how == "eat":
        held = []
        while True:
            held.append(b"x" * 10_000_000)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        with contextlib.suppress(OSError):
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "silence":
        journal.write("beat", next=0.2, doing="training")
        time.sleep(600)
    return 7  # exit: without a word


if __name__ == "__main__":
    sys.exit(main())
