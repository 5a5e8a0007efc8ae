"""Which measurement comes next, and how long it may take. Each runs in a process of its own, which this one outlives.

So a crash, a hang or a card that is out of memory costs one measurement. This process never imports torch.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from gpu import STAGES, measurements
from gpu.findings import ABSENT, FAILED, SHORT, Measurement
from gpu.kit import MARK, Kit
from gpu.records import LOG, TABLE, Book, commit, table

SCRIPT = Path(__file__).resolve().parents[1] / "gpu_kit.py"
GRACE_SECONDS = 45.0
"""How far a measurement that was begun in time may run over the command's minutes before it is ended."""
_LEAST_LIMIT = 90.0
_PATIENCE = {"cuda": 3, "cpu": 12}
"""A measurement that takes so many times what it should is hung. A CPU is slower than what the seconds are for."""
_LOG_BYTES = 6_000_000
ALL_DONE, WRONG, LEFT = 0, 1, 3
"""Exit codes: everything asked for is measured and right; something fell short or failed; time ran out."""

Taken = tuple[str, Measurement]


def plan(names: list[str]) -> list[Taken]:
    """The measurements that are named, by stage, as STAGE/MEASUREMENT, or all; in the order of the stages."""
    every = [(stage, one) for stage in STAGES for one in measurements(stage)]
    return [(stage, one) for stage, one in every if {*names} & {"all", stage, f"{stage}/{one.key}"}]


def run(kit: Kit, identity: dict[str, Any], plan: list[Taken], minutes: float, began: float) -> int:
    """Take what is not there yet, within `minutes` from `began` (monotonic); the exit code."""
    book = Book(kit.out, identity)
    ends = began + 60 * minutes
    with _alone(kit.scratch):
        end_all(kit.mark)  # of a kit that was killed
        try:
            take_all(book, plan, ends, lambda stage, one, limit: take(kit, stage, one, limit))
        finally:
            end_all(kit.mark)
            text = write_table(book)
    left = [f"{stage} {one.key}" for stage, one in plan if not book.done(stage, one.key)]
    print(text)
    if left:
        print(f"Left for the next command, which goes on from here: {', '.join(left)}.")
    return exit_code(book, plan)


def exit_code(book: Book, plan: list[Taken]) -> int:
    latest = book.latest()
    verdicts = [latest[stage, one.key]["verdict"] for stage, one in plan if (stage, one.key) in latest]
    if any(verdict in (FAILED, SHORT) for verdict in verdicts):
        return WRONG
    return ALL_DONE if len(verdicts) == len(plan) else LEFT


def take_all(
    book: Book, plan: list[Taken], ends: float, take_one: Callable[[str, Measurement, float], dict[str, Any]]
) -> None:
    """In order, what failed before at the end; what no longer fits the time is skipped in favour of what does."""
    todo = [(stage, one) for stage, one in plan if not book.done(stage, one.key)]
    todo.sort(key=lambda taken: book.failures(taken[0], taken[1].key))  # stable
    first = True
    for stage, one in todo:
        left = ends - time.monotonic()
        if one.seconds > left and not (first and left > 0):
            continue
        first = False
        limit = min(max(_PATIENCE[book.identity["device"]] * one.seconds, _LEAST_LIMIT), left + GRACE_SECONDS)
        print(f"{stage} {one.key} ... ", end="", flush=True)
        result = take_one(stage, one, limit)
        book.add(stage, one.key, result)
        write_table(book)
        print(f"{result['verdict']} in {result['seconds']:.0f} s{_why(result)}", flush=True)


def _why(result: dict[str, Any]) -> str:
    why = result.get("error") or "; ".join(check["what"] for check in result["checks"] if not check["ok"])
    return f": {why}" if why else ""


def take(kit: Kit, stage: str, one: Measurement, limit: float) -> dict[str, Any]:
    """One measurement in a process of its own; ended with all its kin after `limit` seconds."""
    result = kit.scratch / "result.json"
    result.unlink(missing_ok=True)
    shutil.rmtree(kit.passing, ignore_errors=True)
    kit.passing.mkdir()
    began, clock = time.time(), time.monotonic()
    with open(kit.out / LOG, "ab") as log:
        log.write(f"\n=== {stage} {one.key}\n".encode())
        log.flush()
        words = [sys.executable, str(SCRIPT), *kit.words(), "--one", stage, one.key, "--result", str(result)]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=kit.environment(), start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)  # it writes into the log where it hangs
            time.sleep(0.5)
        finally:
            end_all(kit.mark)
            process.kill()
            process.wait()
    _keep_short(kit.out / LOG)
    seconds = round(time.monotonic() - clock, 1)
    facts = {"began": began, "seconds": seconds, "commit": commit()}
    try:
        return json.loads(result.read_text("utf-8")) | facts
    except (OSError, ValueError):
        ended = (
            f"no result after {seconds:.0f} s: ended" if seconds >= limit else f"left with code {process.returncode}"
        )
        return {"verdict": FAILED, "error": f"{ended}; see {LOG}", "checks": [], "figures": [], "notes": []} | facts


def write_table(book: Book) -> str:
    text = table(book.identity, in_order(book.latest()), [])
    (book.out / TABLE).write_text(text, "utf-8")
    return text


def in_order(latest: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """By stage and measurement, as `all` takes them."""
    places = {(stage, one.key): place for place, (stage, one) in enumerate(
        (stage, one) for stage in STAGES for one in measurements(stage))}  # fmt: skip
    return {taken: latest[taken] for taken in sorted(latest, key=lambda taken: places.get(taken, len(places)))}


def end_all(mark: str) -> None:
    """End every process that a measurement has left: daemons and workers have sessions of their own, but its mark."""
    for _ in range(3):  # a daemon may be starting something just now
        left = [process for process in psutil.process_iter() if process.pid != os.getpid() and _marked(process, mark)]
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=10)


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


@contextlib.contextmanager
def _alone(scratch: Path) -> Iterator[None]:
    with open(scratch / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"gpu_kit: another kit is at work in {scratch}; --scratch names another place") from None
        yield


def _keep_short(log: Path) -> None:
    if log.stat().st_size > _LOG_BYTES:
        log.write_bytes(b"(the beginning was cut off)\n" + log.read_bytes()[-_LOG_BYTES // 2 :])


def one(kit: Kit, stage: str, key: str) -> dict[str, Any]:
    """The measurement itself, in the process made for it: what goes into its line, without times."""
    import traceback

    from engine.base.errors import first_line
    from gpu.findings import Findings, NotHere

    findings = Findings()
    try:
        (chosen,) = [one for one in measurements(stage) if one.key == key]
        findings = chosen.take(kit)
        return {"verdict": findings.verdict(kit.device), **vars(findings)}
    except NotHere as reason:
        return {"verdict": ABSENT, "error": str(reason), **vars(findings)}
    except Exception as error:
        traceback.print_exc()
        return {"verdict": FAILED, "error": f"{type(error).__name__}: {first_line(error)}"[:300], **vars(findings)}
