"""A run that is killed and resumed ends exactly as one that never was."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.base.errors import CheckpointError
from engine.base.worker_process import DONE, STOPPED, worker_command, worker_environment
from engine.worker.runtime import checkpoint
from engine.worker.train.loop import train
from tests.engine.tiny_runs import NeverStop, StopAfter, evals, events_of, last_state, make_run, series, weights_hash

CASES = {
    "lora": {"method__kind": "lora"},
    "full": {"method__kind": "full", "optim__learning_rate": 1e-3},
    "qlora-8bit-adam": {"method__kind": "qlora", "optim__name": "adamw8bit"},
    "checkpointing": {"method__kind": "lora", "train__activation_checkpointing": True},
    "bfloat16": {"method__kind": "lora", "model__dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def straight(tiny_model: Path, chats: Path, tmp_path_factory: pytest.TempPathFactory):
    """The undisturbed run of each case, trained once."""
    done: dict[str, Path] = {}

    def get(case: str) -> Path:
        if case not in done:
            done[case] = make_run(tmp_path_factory.mktemp(case), tiny_model, chats, **CASES[case])
            assert train(done[case], stop=NeverStop()) == DONE
        return done[case]

    return get


QUICK = {("lora", 1), ("lora", 8), ("full", 5), ("qlora-8bit-adam", 8), ("checkpointing", 1), ("bfloat16", 5)}
"""The others of these are left to `make test-long`."""


@pytest.mark.parametrize(
    ("case", "stop_at"),
    [
        pytest.param(case, stop_at, marks=() if (case, stop_at) in QUICK else pytest.mark.long)
        for case in CASES
        for stop_at in (1, 5, 8)
    ],
)
def test_a_stopped_run_resumes_to_the_same_losses_and_weights(case, stop_at, straight, tiny_model, chats, tmp_path):
    folder = make_run(tmp_path, tiny_model, chats, **CASES[case])
    assert train(folder, stop=StopAfter(stop_at)) == STOPPED
    assert last_state(folder)["state"] == "stopped"
    assert train(folder, stop=NeverStop()) == DONE
    assert series(folder) == series(straight(case))
    assert evals(folder) == evals(straight(case))
    assert weights_hash(folder) == weights_hash(straight(case))


def test_every_checkpoint_resumes_to_the_same_end(straight, tmp_path):
    original = straight("lora")
    for step in checkpoint.steps(original / "checkpoints")[:-1]:
        folder = tmp_path / str(step)
        shutil.copytree(original, folder, symlinks=True)
        assert train(folder, resume_from=str(step), stop=NeverStop()) == DONE
        assert series(folder) == series(original)
        assert weights_hash(folder) == weights_hash(original)


def test_more_epochs_go_on_from_the_end(straight, tmp_path):
    from engine.runs.run_folder import change_run
    from engine.settings.resolve import Layer

    folder = tmp_path / "1"
    shutil.copytree(straight("lora"), folder, symlinks=True)
    before = series(folder)
    change_run(folder, [Layer("--epochs", {"train.epochs": 3})])
    assert train(folder, stop=NeverStop()) == DONE
    after = series(folder)
    assert after[: len(before)] == before
    assert len(after) == len(before) // 2 * 3


def test_sigkill_at_random_moments_changes_nothing(straight, tiny_model, chats, tmp_path, fork_server):
    """Really killed, again and again, in all phases: loading, training, evaluating, writing a checkpoint."""
    folder = make_run(tmp_path, tiny_model, chats, **CASES["lora"])
    dice = random.Random(7)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SLOW_WORKER, str(folder)],
            env=worker_environment() | {"PAUSE": "0.05"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if kills >= 6:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
            break
        # Wait for this life to have begun training, then strike within its next seconds.
        lives = len(events_of(folder, "resume"))
        deadline = time.monotonic() + 60
        while len(events_of(folder, "resume")) == lives and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 1.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:
            break
    assert kills >= 3
    assert last_state(folder)["state"] == "done"
    assert series(folder) == series(straight("lora"))
    assert evals(folder) == evals(straight("lora"))
    assert weights_hash(folder) == weights_hash(straight("lora"))


# The real worker, only slower in the places where a kill hurts most: between the files of a checkpoint and its rename,
# and between the rename and the journal.
_SLOW_WORKER = """
import os, sys, time
from pathlib import Path
from engine.worker.runtime import checkpoint
from engine.worker.runtime.stop_signal import StopRequest
from engine.worker.train.loop import train
pause = float(os.environ["PAUSE"])
whole, hashed = checkpoint.save, checkpoint._fsync_and_hash
def slow_save(*args, **kwargs):
    saved = whole(*args, before_rename=lambda: time.sleep(2 * pause), **kwargs)
    time.sleep(pause)
    return saved
def slow_hash(path):
    time.sleep(pause / 4)
    return hashed(path)
checkpoint.save, checkpoint._fsync_and_hash = slow_save, slow_hash
sys.exit(train(Path(sys.argv[1]), stop=StopRequest()))
"""


@pytest.mark.parametrize("damage", ["truncate", "zero", "remove", "flip"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_said(damage, straight, tmp_path):
    original = straight("lora")
    newest = checkpoint.steps(original / "checkpoints")[-1]
    for name in ("adapter_model.safetensors", "training_state.pt", "manifest.json", "tokenizer.json"):
        folder = tmp_path / damage / name
        shutil.copytree(original, folder, symlinks=True)
        file = folder / "checkpoints" / f"step-{newest:08d}" / name
        if damage == "remove":
            file.unlink()
        elif damage == "truncate":
            os.truncate(file, file.stat().st_size // 2)
        elif damage == "flip":
            content = bytearray(file.read_bytes())
            content[len(content) // 3] ^= 1  # in the manifest: a digit, a key or a quote
            file.write_bytes(content)
        else:
            file.write_bytes(bytes(file.stat().st_size))
        assert train(folder, stop=NeverStop()) == DONE
        (event,) = [e for e in events_of(folder, "event") if e["event"] == "checkpoint-damaged"]
        assert f"step-{newest:08d}" in event["message"] and name in event["message"]
        assert series(folder) == series(original)
        assert weights_hash(folder) == weights_hash(original)


def test_a_damaged_checkpoint_asked_for_by_name_is_refused(straight, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(straight("lora"), folder, symlinks=True)
    file = folder / "checkpoints" / "step-00000003" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is damaged"):
        train(folder, resume_from="3", stop=NeverStop())


def test_other_data_or_settings_are_refused_with_what_differs(straight, chats, tmp_path):
    from engine.runs.run_folder import change_run
    from engine.settings.resolve import Layer

    folder = tmp_path / "1"
    shutil.copytree(straight("lora"), folder, symlinks=True)
    change_run(folder, [Layer("--set", {"train.epochs": 3, "optim.learning_rate": 1e-5})])
    with pytest.raises(CheckpointError, match=r"optim\.learning_rate was 0\.003, would be 1e-05"):
        train(folder, stop=NeverStop())
    other = tmp_path / "other.jsonl"
    other.write_bytes(chats.read_bytes().replace(b"France", b"Spain!"))
    change_run(folder, [Layer("--set", {"optim.learning_rate": 3e-3, "data.files": [str(other)]})])
    with pytest.raises(CheckpointError, match=r"other\.jsonl"):
        train(folder, stop=NeverStop())


def test_going_back_sets_later_checkpoints_aside(straight, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(straight("lora"), folder, symlinks=True)
    later = [step for step in checkpoint.steps(folder / "checkpoints") if step > 3]
    assert train(folder, resume_from="3", stop=NeverStop()) == DONE
    assert checkpoint.steps(folder / "checkpoints" / "abandoned-1") == later


def test_sigterm_finishes_the_step_saves_and_leaves(tiny_model, chats, tmp_path, straight, fork_server):
    folder = make_run(tmp_path, tiny_model, chats, train__epochs=2000, save__every=0, eval__every=100000)
    process = subprocess.Popen(worker_command(str(folder)), env=worker_environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not events_of(folder, "metric") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == STOPPED
    state = last_state(folder)
    assert state["state"] == "stopped"
    assert checkpoint.steps(folder / "checkpoints")[-1] == state["step"] == events_of(folder, "metric")[-1]["step"]
