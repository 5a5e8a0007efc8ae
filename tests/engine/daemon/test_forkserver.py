"""Runs forked from the warm process: real training, and what becomes of it when the warm process dies."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from engine.daemon.forkserver_client import NO_THREADS
from engine.store import queue
from engine.store.run_records import RunState
from tests.engine.daemon.daemonkit import Bench, status
from tests.engine.tiny_runs import SMALL, weights_hash


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Bench(tmp_path / "workspace", scripted=False)
    yield made
    made.close()


def add(bench, model, data, **changes):
    return bench.add(SMALL | {"model.name": str(model), "data.files": [str(data)]} | changes)


def warm_pid(bench) -> int:
    """The warm process is the daemon's child that serves."""
    children = psutil.Process(bench.daemons[-1].pid).children()
    (found,) = [child.pid for child in children if "engine.worker.forkserver" in child.cmdline()]
    return found


def how(bench, run_id) -> str:
    return bench.events(run_id, "start")[-1].message


def test_a_forked_run_ends_on_the_same_bits_as_a_spawned_one_and_survives_the_warm_process(bench, tiny_model, chats):
    forked = add(bench, tiny_model, chats)
    bench.start()
    (run,) = bench.until_ended(forked)
    assert (run.state, run.exit_code) == (RunState.DONE, 0), bench.error(forked)
    assert how(bench, forked).startswith("Started, forked")

    orphan = add(bench, tiny_model, chats, **{"train.epochs": 100, "save.every": 0, "eval.every": 10_000})
    bench.until_step(orphan, 3)
    os.kill(warm_pid(bench), signal.SIGKILL)
    bench.until_step(orphan, bench.run(orphan).step + 20)
    with bench.writing() as conn:
        assert queue.request(conn, orphan, "stop")
    (run,) = bench.until_ended(orphan)
    assert (run.state, run.exit_code, run.attempts) == (RunState.STOPPED, 3, 1)

    bench.kill_daemon()
    spawned = add(bench, tiny_model, chats)
    bench.start(warm=False)
    (run,) = bench.until_ended(spawned)
    assert run.state is RunState.DONE
    assert how(bench, spawned).startswith("Started, spawned")
    assert status(bench)["warm"] == "off: switched off"
    folder = bench.workspace.runs
    assert weights_hash(folder / str(forked)) == weights_hash(folder / str(spawned))
    assert bench.series(forked) == bench.series(spawned)


def test_libraries_that_ask_for_gpus_when_they_are_imported_are_answered_without_cuda(tmp_path, monkeypatch):
    import torch

    from engine.worker import forkserver

    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    assert forkserver.visible_cards({}, tmp_path) == 2
    assert forkserver.visible_cards({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path) == 2
    assert forkserver.visible_cards({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == 0
    assert forkserver.visible_cards({}, tmp_path / "none") == 0

    def initialises_cuda(*_):
        raise AssertionError("CUDA was touched")

    questions = [
        (module, name) for module in (torch.cuda, torch.accelerator) for name in ("is_available", "device_count")
    ]
    questions += [(torch.cuda, "get_device_capability"), (torch.accelerator, "current_accelerator")]
    for module, name in questions:
        monkeypatch.setattr(module, name, initialises_cuda)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(forkserver, "visible_cards", lambda environment: 2)
    with forkserver._cuda_untouched():
        assert torch.cuda.is_available() and torch.accelerator.is_available()
        assert torch.cuda.device_count() == torch.accelerator.device_count() == 2
        assert torch.cuda.get_device_capability(0) >= (8, 0)
        assert torch.accelerator.current_accelerator().type == "cuda"
    assert all(getattr(module, name) is initialises_cuda for module, name in questions)


def test_where_a_fork_is_not_safe_runs_are_spawned_and_the_daemon_says_why(
    bench, tiny_model, chats, tmp_path, monkeypatch
):
    """A library that starts a thread when it is loaded would leave forks without it."""
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "peft.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setattr("tests.engine.daemon.daemonkit.REPOSITORY", f"{tmp_path / 'shim'}{os.pathsep}{bench_root()}")
    run_id = add(bench, tiny_model, chats)
    bench.start()
    bench.until(lambda: (status(bench)["warm"] or "").startswith("off: "))
    bench.until(lambda: bench.events(run_id, "start"))
    assert how(bench, run_id).startswith("Started, spawned")
    assert "runs are spawned, not forked" in bench.log()


def test_what_transformers_may_import_starts_no_thread_in_the_warm_process():
    """Where scikit-learn is installed transformers 5.17 imports it, and it pandas, and that pyarrow."""
    code = "import os, numpy, pandas, pyarrow; print(len(os.listdir('/proc/self/task')))"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment | NO_THREADS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def bench_root() -> str:
    from tests.engine.daemon import daemonkit

    return str(daemonkit.REPOSITORY)
