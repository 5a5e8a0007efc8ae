"""Daemons and workers in a real control group whose memory runs out: what the run is called, and what comes after."""

import os
import signal

import pytest

from engine.settings.resolve import read_run
from engine.store.run_records import RunState
from tests.engine.daemon.daemonkit import Bench
from tests.engine.groups import real_memory_group

MIB = 1 << 20


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "workspace")
    yield made
    made.close()


@pytest.fixture
def group():
    with real_memory_group(300 * MIB, "inner") as folder:
        yield folder


def start_in(group, bench: Bench) -> None:
    daemon = bench.start()
    (group / "cgroup.procs").write_text(str(daemon.pid))  # long before it starts a worker, which begins there


def test_runs_that_the_oom_killer_takes_say_so_each_time(bench, group):
    runs = [bench.add(steps=6, at=3, end="eat", settings={"run.on_oom": "fail"}) for _ in range(8)]
    start_in(group, bench)
    reasons = [(run.state, run.reason) for run in bench.until_ended(*runs)]
    limit = f"limit 300.0 MiB of control group /{group.parent.name}"
    assert reasons == [
        (RunState.FAILED, f"out of memory ({limit}) at step 3: the kernel's OOM killer ended it"),
    ] * len(runs)
    (ended,) = bench.events(runs[0], "ended")
    assert ended.message.startswith("oom-killer: out of memory") and ended.detail["cause"] == "oom-killer"


def test_it_goes_on_in_smaller_passes_and_is_done(bench, group):
    run_id = bench.add(steps=6, at=3, end="eat", once=True, save=2, settings={"train.micro_tokens": 64})
    start_in(group, bench)
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (RunState.DONE, 2)
    (restart,) = bench.events(run_id, "memory-restart")
    assert "with 32 tokens a pass instead of 64" in restart.message
    assert read_run(bench.workspace.runs / str(run_id)).config.train.micro_tokens == 32


def test_a_sigkill_by_hand_in_the_same_group_is_none_of_it(bench, group):
    eaten, killed = bench.add(steps=6, end="eat", settings={"run.on_oom": "fail"}), bench.add(steps=1000, pause=0.01)
    start_in(group, bench)
    bench.until_ended(eaten)
    os.kill(bench.until_step(killed, 2).pid, signal.SIGKILL)
    (run,) = bench.until_ended(killed)
    assert "killed by signal 9" in run.reason


def test_the_next_daemon_knows_what_was_counted_when_the_one_before_started_the_run(bench, group):
    """As where the limit takes all processes of a container at once (`memory.oom.group`, Kubernetes)."""
    run_id = bench.add(steps=1000, pause=0.01, at=100, end="eat", settings={"run.on_oom": "fail"})
    start_in(group, bench)
    pid = bench.until_step(run_id, 2).pid
    bench.kill_daemon()
    bench.until(lambda: not os.path.exists(f"/proc/{pid}"), "the worker to be killed")
    start_in(group, bench)
    (run,) = bench.until_ended(run_id)
    assert run.reason.startswith("out of memory (limit 300.0 MiB")
