"""Disks that are really full, small tmpfs, pause a run and spoil nothing; so do quotas, and inodes that are used up."""

import contextlib
import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from engine.base.disk_room import lack_of_room, refusal
from engine.base.errors import FileTooLarge, ModelError
from engine.base.system_errors import refused_write
from engine.base.worker_process import DONE, worker_command, worker_environment
from engine.runs.journal import Journal
from engine.worker.runtime import checkpoint, disk_space
from engine.worker.runtime.heartbeat import failure, report_failure
from engine.worker.train.loop import train
from tests.engine.mounts import fill_up, fill_with_files, small_disk
from tests.engine.store.storekit import until
from tests.engine.tiny_runs import NeverStop, events_of, last_state, make_run, series, weights_hash

MIB = 1 << 20


@pytest.fixture
def disk_of_24_mb(tmp_path: Path):
    with small_disk(tmp_path / "small", "24m") as folder:
        yield folder


@pytest.fixture(scope="module")
def undisturbed(tiny_model, chats, tmp_path_factory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("undisturbed"), tiny_model, chats)
    assert train(folder, stop=NeverStop()) == DONE
    return folder


@contextlib.contextmanager
def worker_of(folder: Path):
    worker = subprocess.Popen(worker_command(str(folder)), env=worker_environment(), stderr=subprocess.PIPE)
    try:
        yield worker
    finally:
        worker.kill()


def told(folder: Path) -> list[str]:
    return [event["event"] for event in events_of(folder, "event")]


def test_a_full_disk_pauses_the_run_until_there_is_room(disk_of_24_mb, tiny_model, chats, undisturbed, fork_server):
    filler = disk_of_24_mb / "filler"
    filler.write_bytes(bytes(24_500_000))
    folder = make_run(disk_of_24_mb, tiny_model, chats)
    with worker_of(folder) as worker:
        until(lambda: "disk-full" in told(folder), 60)
        assert worker.poll() is None and checkpoint.steps(folder / "checkpoints") == []
        filler.unlink()
        assert worker.wait(90) == 0, worker.stderr.read().decode()
    assert last_state(folder)["state"] == "done"
    assert series(folder) == series(undisturbed)
    assert weights_hash(folder) == weights_hash(undisturbed)


def test_a_disk_without_inodes_pauses_the_run_until_some_are_free(
    tmp_path, tiny_model, chats, undisturbed, fork_server
):
    with small_disk(tmp_path / "small", "400m", files=220) as disk:
        folder = make_run(disk, tiny_model, chats)
        for name in ("journal.jsonl", "log.txt"):
            (folder / name).touch()
        fill_with_files(disk / "filler")
        with worker_of(folder) as worker:
            until(lambda: "disk-full" in told(folder), 60)
            (paused,) = [event for event in events_of(folder, "event") if event["event"] == "disk-full"]
            assert paused["message"].startswith(f"Paused: no inode left in {folder}/") and "df -i" in paused["message"]
            assert worker.poll() is None and os.statvfs(disk).f_bavail * 4096 > 300 * MIB
            for file in (disk / "filler").iterdir():
                file.unlink()
            assert worker.wait(90) == 0, worker.stderr.read().decode()
        assert (series(folder), weights_hash(folder)) == (series(undisturbed), weights_hash(undisturbed))


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC])
def test_a_refused_checkpoint_is_tried_again_less_and_less_often_and_never_asks_for_more(
    code, monkeypatch, tiny_model, chats, tmp_path, undisturbed
):
    """A quota, or a disk with more free than it gives. What is lacking is said once, and no part of a checkpoint stays
    where it would take that room."""
    folder = make_run(tmp_path, tiny_model, chats)
    whole, tries, needs, slept = checkpoint.save, [], [], []

    def save(path, *rest, **options):
        tries.append(sum(slept))
        assert not list(path.glob(".tmp-*"))
        if len(tries) <= 9:
            (path / ".tmp-part").mkdir(parents=True)
            raise OSError(code, os.strerror(code))
        return whole(path, *rest, **options)

    def lack(path, size=0, files=1, what=""):
        needs.append(size)
        return lack_of_room(path, size, files, what)

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(disk_space, "lack_of_room", lack)
    monkeypatch.setattr(disk_space.time, "sleep", slept.append)
    assert train(folder, stop=NeverStop()) == DONE
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries[:10])]
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    messages = [event["message"] for event in events_of(folder, "event") if event["event"] == "disk-full"]
    assert told(folder) == ["disk-full", "disk-free"]
    assert ("quota is used up" in messages[0] and "quota -s" in messages[0]) == (code == errno.EDQUOT)
    saved = [event["bytes"] for event in events_of(folder, "checkpoint")]
    assert saved[-1] < max(needs) < saved[-1] + 2_000_000
    assert weights_hash(folder) == weights_hash(undisturbed)


@pytest.fixture
def quota(tmp_path, monkeypatch) -> Path:
    """While this file is there, processes started from now on have no quota left for checkpoints."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and Linux")
    library, switch = tmp_path / "quota.so", tmp_path / "quota"
    source = str(Path(__file__).parents[2] / "faults" / "quota.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKE_QUOTA", str(switch))
    switch.touch()
    return switch


@pytest.mark.long
def test_a_used_up_quota_pauses_a_real_worker_until_there_is_some(quota, tiny_model, chats, tmp_path, undisturbed):
    folder = make_run(tmp_path, tiny_model, chats)
    with worker_of(folder) as worker:
        until(lambda: "disk-full" in told(folder), 60)
        (paused,) = [event for event in events_of(folder, "event") if event["event"] == "disk-full"]
        assert paused["message"].startswith(f"Paused: the quota is used up in {folder}/checkpoints")
        assert worker.poll() is None and not list((folder / "checkpoints").glob("*"))
        quota.unlink()
        assert worker.wait(90) == 0, worker.stderr.read().decode()
    assert told(folder)[-1] == "disk-free"
    assert (series(folder), weights_hash(folder)) == (series(undisturbed), weights_hash(undisturbed))


def test_whatever_is_written_waits_for_room_and_says_so_once(tmp_path, monkeypatch):
    """An evaluation, the names of a checkpoint: the disk is full three times, then is not; other faults go through."""
    monkeypatch.setattr(disk_space, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(disk_space, "_MOST_SECONDS", 0.02)
    folder = tmp_path / "run"
    folder.mkdir()
    attempts, beats = [], []

    def write() -> str:
        attempts.append(1)
        if len(attempts) <= 3:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return "written"

    journal = Journal(folder)
    assert disk_space.write_with_room(journal, lambda: beats.append(1), folder, "an evaluation", write) == "written"
    assert len(beats) == 5
    assert told(folder) == ["disk-full", "disk-free"]
    with pytest.raises(NotADirectoryError):
        disk_space.write_with_room(
            journal, lambda: None, folder, "an evaluation", (folder / "journal.jsonl" / "x").mkdir
        )


def test_a_failure_for_want_of_room_says_so_in_one_word_whoever_met_it():
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    wrapped = ModelError("the model cannot be loaded", "Give a folder.")
    wrapped.__cause__ = full
    assert [failure(error)["cause"] for error in (full, OSError(errno.EDQUOT, "quota"), wrapped)] == ["disk-full"] * 3
    assert failure(OSError(errno.EACCES, "Permission denied", "/data/x"))["cause"] == "exception"
    assert failure(ModelError("the model cannot be loaded"))["cause"] == "input"


def by_torch(path: Path) -> None:
    with open(path, "wb") as file:
        torch.save({"a": torch.zeros(MIB)}, file)


def by_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(MIB)}, path)


def by_tokenizers(path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({f"word {number}": number for number in range(200_000)})).save(str(path))


WRITERS = [by_torch, by_safetensors, by_tokenizers, lambda path: path.write_bytes(bytes(4 * MIB))]


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_known_by_every_librarys_error(tmp_path, write):
    with small_disk(tmp_path / "small", "2m") as disk, pytest.raises(Exception) as refused:
        write(disk / "file")
    assert refusal(refused.value) == errno.ENOSPC


@contextlib.contextmanager
def files_of_at_most(size: int):
    """As `ulimit -f` does it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_may_not_be_so_large_is_known_by_every_librarys_error(tmp_path, write):
    with files_of_at_most(MIB), pytest.raises(Exception) as refused:
        write(tmp_path / "file")
    assert refusal(refused.value) == errno.EFBIG


def test_other_errors_are_no_refusal():
    assert refusal(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")) is None
    assert refusal(OSError(errno.EACCES, "Permission denied")) is None
    assert refusal(ValueError("No space left for a joke")) is None


def test_a_run_whose_files_may_not_be_so_large_fails_with_the_limit_and_goes_on_without_it(
    tiny_model, chats, tmp_path, undisturbed
):
    """Before its first step, though the optimizer's state is written after it only; waiting would not help."""
    folder = make_run(tmp_path, tiny_model, chats)
    with files_of_at_most(40_000), pytest.raises(FileTooLarge), report_failure(folder):
        train(folder, stop=NeverStop())
    failed = last_state(folder)
    assert (failed["state"], failed["cause"]) == ("failed", "file-too-large")
    assert "files may have 39.1 KiB here (ulimit -f)" in failed["reason"] and "ulimit -f unlimited" in failed["hint"]
    assert not events_of(folder, "metric") and "disk-full" not in told(folder)
    assert train(folder, stop=NeverStop()) == DONE
    assert weights_hash(folder) == weights_hash(undisturbed)


def test_a_limit_that_is_reached_in_the_middle_leaves_the_last_checkpoint_to_go_on_from(
    monkeypatch, tiny_model, chats, tmp_path, undisturbed
):
    """As by the file system's own, which nobody knows before: FAT holds no file of 4 GiB."""
    folder = make_run(tmp_path, tiny_model, chats)
    whole = checkpoint.save

    def save(path, step, *rest, **options):
        with files_of_at_most(2000) if step else contextlib.nullcontext():
            return whole(path, step, *rest, **options)

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(FileTooLarge, match="holds no file as large as a checkpoint needs"), report_failure(folder):
        train(folder, stop=NeverStop())
    monkeypatch.setattr(checkpoint, "save", whole)
    assert checkpoint.steps(folder / "checkpoints") == [0]
    assert not list((folder / "checkpoints").glob(".tmp-*"))
    assert train(folder, stop=NeverStop()) == DONE
    assert weights_hash(folder) == weights_hash(undisturbed)


_BETWEEN = 80 * 1024
"""Larger than the tensors of the optimizer's state, smaller than the file they are in."""


def ended_by_the_limit(folder: Path) -> bool:
    failed = last_state(folder)
    return failed["cause"] == "file-too-large" and "(ulimit -f)" in failed["reason"] and failed["state"] == "failed"


def test_a_spawned_worker_is_not_ended_by_the_signal_that_comes_with_a_file_too_large(tiny_model, chats, tmp_path):
    """SIGXFSZ would end it without a word."""
    folder = make_run(tmp_path, tiny_model, chats)
    shell = ["sh", "-c", f'ulimit -f {_BETWEEN // 512}; exec "$@"', "sh", *worker_command(str(folder))]
    done = subprocess.run(shell, env=worker_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert ended_by_the_limit(folder) and checkpoint.steps(folder / "checkpoints") == [0]


def test_nor_is_a_forked_one(tiny_model, chats, tmp_path, fork_server):
    (server,) = (
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(fork_server.stub.with_name("fork")) in (process.info["cmdline"] or ())
    )
    folder = make_run(tmp_path, tiny_model, chats)
    soft, hard = resource.prlimit(server, resource.RLIMIT_FSIZE, (_BETWEEN, resource.RLIM_INFINITY))
    try:
        with worker_of(folder) as worker:
            assert worker.wait(60) == 1
    finally:
        resource.prlimit(server, resource.RLIMIT_FSIZE, (soft, hard))
    assert ended_by_the_limit(folder) and checkpoint.steps(folder / "checkpoints") == [0]


def test_a_journal_that_may_not_grow_ends_the_run_with_a_word_in_its_log(tmp_path, capsys):
    journal = Journal(tmp_path)
    with files_of_at_most(1000), pytest.raises(OSError) as refused:
        for step in range(100):
            journal.metric(step, {"train/loss": 1.0})
    assert refused.value.filename == str(tmp_path / "journal.jsonl")
    told = refused_write(refused.value)
    assert told.message == f"{tmp_path}/journal.jsonl would be larger than a file may be here"
    assert "ulimit -f" in told.hint


def test_no_room_is_told_by_what_is_lacking(tmp_path):
    assert lack_of_room(tmp_path) is None
    assert lack_of_room(tmp_path, 1 << 60, what="a checkpoint").words.startswith("a checkpoint needs 1048576.0 TiB, ")
    with small_disk(tmp_path / "small", "1m", files=10) as disk:
        assert lack_of_room(disk, files=20).is_inodes and not lack_of_room(disk, size=2 * MIB).is_inodes
        fill_up(disk / "filler")
        assert lack_of_room(disk) is None, "a file without content"
        assert lack_of_room(disk, 1).code == errno.ENOSPC
