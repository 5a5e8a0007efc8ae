"""Three ways to log training steps, behind the same two verbs; run by log_cost.py in each one's own environment.

    loggers.py cost    NAME FOLDER STEPS PAUSE   log so many steps, then print each call's nanoseconds as JSON
    loggers.py endless NAME FOLDER FD            log until killed, writing each step's number to FD once it is logged
    loggers.py recover NAME FOLDER               print the steps that can be read back as JSON

Each logs ten numbers per step through the call its documentation shows, with its default settings, on this machine
only (wandb: mode offline; trackio: no space).
"""

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

NAMES = ("finetop", "wandb", "trackio")
PACE_SECONDS = 0.001
"""Between the steps of `endless`: a training loop on a small model, not a flood."""


def values_of(step: int) -> dict[str, float]:
    return {
        "train/loss": 10.5 / (1 + step / 1000),
        "train/lr": 1e-4 * (1 - step / 1e6),
        "train/grad_norm": 1.2345678901 + step % 7,
        "train/tokens": 1931.0 * step,
        "train/tokens_per_s": 3456.7 + step % 11,
        "train/step_s": 0.5612,
        "train/epoch": step / 400,
        "gpu/memory": 23456789012.0,
        "gpu/util": 97.5,
        "host/rss": 1500000000.0 + step,
    }


def start(name: str, folder: Path) -> Callable[[int, dict[str, float]], object]:
    """A function that logs one step."""
    if name == "finetop":
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from engine.runs.journal import Journal

        return Journal(folder).metric
    if name == "wandb":
        import wandb

        # A row is complete when the next step begins, or at once when no step is named, as here; it counts from 0.
        run = wandb.init(mode="offline", dir=folder, project="bench")
        return lambda step, values: run.log(values)
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="bench", name="run")
    return lambda step, values: trackio.log(values, step=step)


def recover(name: str, folder: Path) -> list[int]:
    """The steps that are there, asked of each logger's own reader where it has one."""
    if name == "finetop":
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from engine.runs import journal

        return [event["step"] for event in journal.read(folder)[0] if event["kind"] == "metric"]
    if name == "wandb":
        from wandb.proto.wandb_internal_pb2 import Record

        steps = []
        for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
            for data in _leveldb_records(file.read_bytes()):
                record = Record.FromString(data)
                if record.HasField("history"):
                    items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                    steps.append(int(items["_step"]))
        return steps
    os.environ["TRACKIO_DIR"] = str(folder)
    from trackio.sqlite_storage import SQLiteStorage

    return [row["step"] for row in SQLiteStorage.get_logs("bench", "run")]


def _leveldb_records(data: bytes) -> list[bytes]:
    """The whole records of a .wandb file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    records, parts, position = [], b"", 7
    while position + 7 <= len(data):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        end = position + 7 + length
        if kind not in (1, 2, 3, 4) or end > len(data):
            break
        piece = data[position + 7 : end]
        parts = piece if kind in (1, 2) else parts + piece  # 1 whole, 2 first, 3 middle, 4 last
        if kind in (1, 4):
            records.append(parts)
        position = end
    return records


def cost(name: str, folder: Path, steps: int, pause: float) -> None:
    log = start(name, folder)
    nanoseconds = []
    for step in range(steps):
        values = values_of(step)
        began = time.perf_counter_ns()
        log(step, values)
        nanoseconds.append(time.perf_counter_ns() - began)
        if pause:
            time.sleep(pause)
    (folder / "cost.json").write_text(json.dumps(nanoseconds))
    os._exit(0)  # finishing is not measured


def endless(name: str, folder: Path, acknowledge: int) -> None:
    log = start(name, folder)
    step = 0
    while True:
        log(step, values_of(step))
        os.write(acknowledge, struct.pack("<I", step))
        step += 1
        time.sleep(PACE_SECONDS)


if __name__ == "__main__":
    verb, logger, at = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if verb == "cost":
        cost(logger, at, int(sys.argv[4]), float(sys.argv[5]))
    elif verb == "endless":
        endless(logger, at, int(sys.argv[4]))
    else:
        found = recover(logger, at)
        print("\n" + json.dumps(found))
