"""Several ranks train a run as one process does, and nothing of them is left behind however it ends."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from engine.base.errors import NotFinite, OutOfMemory, RankLost
from engine.base.messages import records
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import DONE, STOPPED, spawn_worker
from engine.plan.forecast import memory
from engine.plan.gpu_fit import GpuSpec
from engine.plan.hardware import Hardware
from engine.present.memory_view import memory_lines, memory_view
from engine.runs import journal
from engine.runs.failure_reasons import SINGLE_EXAMPLE_TOO_LARGE
from engine.settings.schema import RunConfig
from engine.worker.model.loss import PackedLoss
from engine.worker.runtime import checkpoint
from engine.worker.runtime.heartbeat import failure
from engine.worker.train import data_parallel
from engine.worker.train.data_parallel import Ranks
from engine.worker.train.loop import train
from engine.worker.train.rank_count import RANKS, choose_rank_count
from tests.engine.tiny_runs import NeverStop, StopAfter, evals, events_of, last_state, make_run, series, weights_hash

T = TypeVar("T")
CASES = {
    "lora": {"method__kind": "lora", "lora__dropout": 0.0},
    "full": {"method__kind": "full", "optim__learning_rate": 1e-3},
}


@pytest.fixture(autouse=True)
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANKS, "2")


@pytest.fixture
def left_behind() -> Callable[[], set[psutil.Process]]:
    """Processes of the test's own that are alive; those of other tests, such as a fork server's, are not."""
    before = children()
    return lambda: children() - before


@pytest.fixture
def followers_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the followers execute some lines before they begin."""

    def do(script: str) -> None:
        begin = f"{script}\nfrom engine.worker.train.follower import main\nmain()"
        monkeypatch.setattr(data_parallel, "FOLLOWER", ("-P", "-c", begin))

    return do


@pytest.fixture(scope="module")
def both(tiny_model: Path, chats: Path, tmp_path_factory: pytest.TempPathFactory):
    """Each case by one rank and by two, in small buckets, so that some gradients travel alone and some together."""
    done: dict[str, tuple[Path, Path]] = {}

    def get(case: str) -> tuple[Path, Path]:
        if case not in done:
            folders = []
            for ranks in ("1", "2"):
                root = tmp_path_factory.mktemp(f"{case}-{ranks}")
                folders.append(make_run(root, tiny_model, chats, **CASES[case]))
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv(RANKS, ranks)
                    patch.setattr(data_parallel, "_BUCKET_BYTES", 8192)
                    small = (
                        "from engine.worker.train import data_parallel, follower\n"
                        "data_parallel._BUCKET_BYTES = 8192\nfollower.main()"
                    )
                    patch.setattr(data_parallel, "FOLLOWER", ("-P", "-c", small))
                    assert train(folders[-1], stop=NeverStop()) == DONE
            done[case] = folders[0], folders[1]
        return done[case]

    return get


@pytest.mark.usefixtures("fork_server")
@pytest.mark.parametrize("case", ["lora", pytest.param("full", marks=pytest.mark.long)])
def test_two_ranks_train_as_one(case, both):
    one, two = both(case)
    assert events_of(two, "model")[0]["ranks"] == 2
    assert len(numbers(one)) == 16
    np.testing.assert_allclose(numbers(two), numbers(one), rtol=2e-5)
    start, a, b = weights(one, 0), weights(one, 16), weights(two, 16)
    moved = torch.cat([(a[name] - start[name]).flatten() for name in a])
    apart = torch.cat([(a[name] - b[name]).flatten() for name in a])
    assert apart.norm() < 1e-2 * moved.norm()


@pytest.mark.long
def test_a_stopped_run_resumes_to_the_same_bits(tiny_model, chats, tmp_path):
    straight = make_run(tmp_path / "straight", tiny_model, chats, lora__dropout=0.1)
    assert train(straight, stop=NeverStop()) == DONE
    folder = make_run(tmp_path / "stopped", tiny_model, chats, lora__dropout=0.1)
    assert train(folder, stop=StopAfter(5)) == STOPPED
    assert checkpoint.steps(folder / "checkpoints")[-1] == 5
    assert train(folder, stop=NeverStop()) == DONE
    assert series(folder) == series(straight)
    assert evals(folder) == evals(straight)
    assert weights_hash(folder) == weights_hash(straight)
    assert not [event for event in events_of(folder, "event") if event["event"] == "ranks-changed"]


@pytest.mark.usefixtures("fork_server")
def test_another_number_of_ranks_goes_on_and_says_so(both, tmp_path, monkeypatch):
    one, two = both("lora")
    folder = tmp_path / "1"
    shutil.copytree(two, folder, symlinks=True)
    monkeypatch.setenv(RANKS, "1")
    assert train(folder, resume_from="6", stop=NeverStop()) == DONE
    (said,) = (event["message"] for event in events_of(folder, "event") if event["event"] == "ranks-changed")
    assert "made by 2 ranks, 1 goes on" in said
    np.testing.assert_allclose(numbers(folder), numbers(one), rtol=2e-5)


@pytest.mark.usefixtures("fork_server")
@pytest.mark.parametrize("who", [pytest.param("rank 0", marks=pytest.mark.long), "rank 1"])
def test_out_of_memory_on_one_rank_repeats_the_step_on_all(
    who, both, tiny_model, chats, tmp_path, followers_first, monkeypatch
):
    folder = make_run(tmp_path, tiny_model, chats, **CASES["lora"])
    if who == "rank 0":
        monkeypatch.setattr(PackedLoss, "backward", PackedLoss.backward)  # put back at the end
        exec(_RAISE_ONCE, {})
    else:
        followers_first(_RAISE_ONCE)
    assert train(folder, stop=NeverStop()) == DONE
    (event,) = (event for event in events_of(folder, "event") if event["event"] == "oom")
    assert event["micro_tokens"] == 32
    np.testing.assert_allclose(numbers(folder), numbers(both("lora")[0]), rtol=2e-5)


@pytest.mark.usefixtures("fork_server")
def test_what_is_no_number_ends_the_run(tiny_model, chats, tmp_path, left_behind):
    folder = make_run(tmp_path, tiny_model, chats, method__kind="full", optim__learning_rate=1e18, optim__warmup=0)
    with pytest.raises(NotFinite):
        train(folder, stop=NeverStop())
    assert not left_behind()


@pytest.mark.long
def test_a_killed_rank_fails_the_run_and_a_killed_leader_takes_all_along(tiny_model, chats, tmp_path):
    folder = make_run(tmp_path, tiny_model, chats, train__epochs=10_000)
    with worker(folder) as process:
        (follower,) = wait_for(lambda: training(folder, process.pid))
        follower.kill()
        assert process.wait(30) == 1
        wait_for(lambda: not session(process.pid))
    state = last_state(folder)
    assert (state["state"], state["cause"]) == ("failed", "failed")
    assert state["reason"] == f"rank 1 (pid {follower.pid}) was killed by signal 9 (SIGKILL)"

    with worker(folder) as process:
        wait_for(lambda: training(folder, process.pid))
        process.kill()
        wait_for(lambda: not session(process.pid))


@pytest.mark.long
def test_a_leader_that_is_stuck_when_a_rank_dies_is_ended(tiny_model, chats, tmp_path):
    folder = make_run(tmp_path, tiny_model, chats, train__epochs=10_000)
    with worker(folder, [sys.executable, "-P", "-c", _STUCK_LEADER]) as process:
        (follower,) = wait_for(lambda: training(folder, process.pid))
        follower.kill()
        assert process.wait(30) == 1
        wait_for(lambda: not session(process.pid))
    assert "rank 1" in last_state(folder)["reason"]


@pytest.mark.usefixtures("fork_server")
def test_a_rank_that_fails_says_why(tiny_model, chats, tmp_path, followers_first, left_behind):
    followers_first(
        "from engine.worker.train import gradients\ndef no(*_): raise ValueError('no')\ngradients.forward_backward = no"
    )
    with pytest.raises(RankLost, match=r"rank 1 \(pid \d+\) failed: ValueError: no"):
        train(make_run(tmp_path, tiny_model, chats), stop=NeverStop())
    assert not left_behind()


def test_what_a_rank_says_is_known_again_by_its_template():
    said = failure(OutOfMemory(SINGLE_EXAMPLE_TOO_LARGE(step=3, tokens=900, failure="CUDA"), "Shorter examples."))
    sent = json.dumps({**said, "messages": records(said)}).encode()  # as the follower does
    follower = data_parallel._Follower(1, SimpleNamespace(pid=7), None, None)
    reason = data_parallel._exit_reason(follower, sent, 1, OomWatch())
    assert reason["cause"] == "out-of-memory" and reason["reason"].startswith("rank 1 (pid 7) failed: out of memory")
    assert SINGLE_EXAMPLE_TOO_LARGE.values_in(reason["reason"])["tokens"] == 900


def test_a_step_is_shared_out_whole_and_evenly():
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    indices = np.random.default_rng(1).permutation(1000)[:64]
    shares = [Ranks(rank, 3).shard(indices, lengths) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == sorted(indices)
    tokens = [lengths[share].sum() for share in shares]
    assert max(tokens) - min(tokens) <= lengths[indices].min()
    assert [len(Ranks(rank, 3).shard(indices[:2], lengths)) for rank in range(3)] == [1, 1, 0]


def test_gpus_asked_for_and_gpus_there(monkeypatch):
    monkeypatch.delenv(RANKS)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")

    def ranks(device: torch.device, **settings: object) -> int:
        return choose_rank_count(RunConfig().replace({f"run.{key}": value for key, value in settings.items()}), device)[
            0
        ]

    assert ranks(gpu) == 1
    assert ranks(gpu, gpu_count=3) == 3
    assert ranks(gpu, gpus=["0", "2"]) == 2
    assert ranks(gpu, gpu_count=8) == 4
    assert ranks(cpu, gpu_count=8) == 1
    assert "asks for 8 GPUs; 4 can be seen" in choose_rank_count(RunConfig().replace({"run.gpu_count": 8}), gpu)[1]


def numbers(folder: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step."""
    return [tuple(map(float.fromhex, values)) for _, *values in series(folder, "train/loss", "train/grad_norm")]


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    (path,) = (folder / "checkpoints" / f"step-{step:08d}").glob("*.safetensors")
    return load_file(path)


@contextlib.contextmanager
def worker(folder: Path, command: list[str] | None = None) -> Iterator[subprocess.Popen]:
    """A real one, in a session of its own; whatever is left of it at the end is killed."""
    process = spawn_worker(folder, command=command)
    try:
        yield process
    finally:
        for left in session(process.pid):
            left.kill()
        process.wait()


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def session(leader: int) -> list[psutil.Process]:
    """The processes of a worker's session that are not zombies."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def training(folder: Path, pid: int) -> list[psutil.Process]:
    """The followers of a worker that has made some steps in this life."""
    kinds = [event["kind"] for event in journal.read(folder)[0]]
    steps = kinds[::-1].index("resume") if "resume" in kinds else 0
    return psutil.Process(pid).children() if kinds[len(kinds) - steps :].count("metric") >= 2 else []


def wait_for(condition: Callable[[], T], seconds: float = 120) -> T:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


def test_a_plan_counts_the_gpus_that_train_together():
    config = RunConfig().replace({"run.gpu_count": 2})
    machine = Hardware((GpuSpec("NVIDIA A100", 80 * 2**30),) * 4, "", None, None, 400.0, True)
    facts = {"longest": 500, "step_tokens": 3000, "supervised": 0.5}
    one, two = (memory(settings, machine, [], facts) for settings in (RunConfig(), config))
    assert (one.estimate.micro_tokens, two.estimate.micro_tokens) == (3000, 1500)
    assert one.estimate.parts["weights"] == two.estimate.parts["weights"]
    line = "\n".join(memory_lines(memory_view(machine, two), 100))
    assert "on each of 2 × NVIDIA A100, where all weights are held" in line


# Rank 0 of a real worker, deaf to what becomes of the others.
_STUCK_LEADER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from engine.worker.train import data_parallel as parallel
from engine.worker.runtime.heartbeat import report_failure as reported
from engine.worker.train.loop import train
parallel._GRACE_SECONDS = 0.5
tell, told = parallel.Ranks.begin_step, 0
def begin_step(self, step):
    tell(self, step)
    if step.number > 3:
        time.sleep(600)
parallel.Ranks.begin_step = begin_step
with reported(Path(sys.argv[1])):
    sys.exit(train(Path(sys.argv[1])))
"""

_RAISE_ONCE = """
import torch
from engine.worker.model.loss import PackedLoss
backward, calls = PackedLoss.backward, 0
def scarce(self, pack, divisor):
    global calls
    calls += 1
    if calls == 3:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return backward(self, pack, divisor)
PackedLoss.backward = scarce
"""
