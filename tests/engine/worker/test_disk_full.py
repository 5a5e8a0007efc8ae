"""A disk that is really full, a small tmpfs, pauses a run and spoils nothing."""

import errno
import subprocess
from pathlib import Path

import pytest

from engine.base.errors import ModelError
from engine.base.worker_process import worker_command, worker_environment
from engine.runs.journal import Journal
from engine.worker.runtime import checkpoint, disk_space
from engine.worker.runtime.heartbeat import failure
from tests.engine.mounts import small_disk
from tests.engine.store.storekit import until
from tests.engine.tiny_runs import events_of, last_state, make_run, series, weights_hash


@pytest.fixture
def disk_of_24_mb(tmp_path: Path):
    with small_disk(tmp_path / "small", "24m") as folder:
        yield folder


def test_a_full_disk_pauses_the_run_until_there_is_room(disk_of_24_mb, tiny_model, chats, tmp_path, fork_server):
    plain = make_run(tmp_path, tiny_model, chats)
    subprocess.run(worker_command(str(plain)), env=worker_environment(), check=True, capture_output=True)
    filler = disk_of_24_mb / "filler"
    filler.write_bytes(bytes(20_000_000))
    folder = make_run(disk_of_24_mb, tiny_model, chats)
    worker = subprocess.Popen(worker_command(str(folder)), env=worker_environment(), stderr=subprocess.PIPE)
    try:
        until(lambda: any(event["event"] == "disk-full" for event in events_of(folder, "event")), 60)
        assert worker.poll() is None and checkpoint.steps(folder / "checkpoints") == []
        filler.unlink()
        assert worker.wait(90) == 0, worker.stderr.read().decode()
    finally:
        worker.kill()
    assert last_state(folder)["state"] == "done"
    assert series(folder) == series(plain)
    assert weights_hash(folder) == weights_hash(plain)


def test_whatever_is_written_waits_for_room_and_says_so_once(tmp_path, monkeypatch):
    """An evaluation, the names of a checkpoint: the disk is full three times, then is not; other faults go through."""
    monkeypatch.setattr(disk_space, "_WAIT_SECONDS", 0.01)
    folder = tmp_path / "run"
    folder.mkdir()
    attempts, beats = [], []

    def write() -> str:
        attempts.append(1)
        if len(attempts) <= 3:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return "written"

    journal = Journal(folder)
    assert (
        disk_space.retry_while_disk_full(journal, lambda: beats.append(1), folder, "an evaluation", write) == "written"
    )
    assert len(beats) == 3
    assert [event["event"] for event in events_of(folder, "event")] == ["disk-full", "disk-free"]
    with pytest.raises(NotADirectoryError):
        disk_space.retry_while_disk_full(
            journal, lambda: None, folder, "an evaluation", (folder / "journal.jsonl" / "x").mkdir
        )


def test_a_failure_for_want_of_room_says_so_in_one_word_whoever_met_it():
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    wrapped = ModelError("the model cannot be loaded", "Give a folder.")
    wrapped.__cause__ = full
    assert [failure(error)["cause"] for error in (full, OSError(errno.EDQUOT, "quota"), wrapped)] == ["disk-full"] * 3
    assert failure(OSError(errno.EACCES, "Permission denied", "/data/x"))["cause"] == "exception"
    assert failure(ModelError("the model cannot be loaded"))["cause"] == "input"
