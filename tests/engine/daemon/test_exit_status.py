"""How a worker ended, what comes after, and where runs are placed: pure functions."""

import signal

import pytest

from engine.base.log_tail import last_lines
from engine.base.units import GIB
from engine.daemon import placement
from engine.daemon.exit_status import ExitCause, ExitEvidence, classify_exit
from engine.daemon.limits import Limits
from engine.daemon.retry_policy import GpuMemory, Restart, decide
from engine.monitor.samples import GpuProcess, GpuSample, Snapshot
from engine.store.run_records import Event, Run, RunState

LIMIT = "limit 3.0 GiB of this container"
KILLED, SEGFAULT, TERMINATED = signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("evidence", "end", "state"),
    [
        (ExitEvidence(exited(0), {"state": "done"}), ExitCause.DONE, RunState.DONE),
        (ExitEvidence(exited(3), {"state": "stopped"}, requested="stop"), ExitCause.STOPPED, RunState.STOPPED),
        (ExitEvidence(exited(3), {"state": "stopped"}, ours=False), ExitCause.STOPPED, RunState.STOPPED),
        (ExitEvidence(KILLED, requested="kill"), ExitCause.KILLED, RunState.STOPPED),
        (ExitEvidence(None, requested="kill"), ExitCause.KILLED, RunState.STOPPED),
        (ExitEvidence(TERMINATED, requested="stop"), ExitCause.STOPPED, RunState.STOPPED),
        (ExitEvidence(KILLED, requested="stop"), ExitCause.SIGNAL, RunState.FAILED),
        (ExitEvidence(KILLED), ExitCause.SIGNAL, RunState.FAILED),
        (ExitEvidence(KILLED, out_of_memory=LIMIT), ExitCause.HOST_MEMORY, RunState.FAILED),
        (ExitEvidence(None, out_of_memory=LIMIT), ExitCause.HOST_MEMORY, RunState.FAILED),
        (ExitEvidence(SEGFAULT, out_of_memory=LIMIT), ExitCause.SIGNAL, RunState.FAILED),
        (ExitEvidence(KILLED, hung_seconds=900.0), ExitCause.HUNG, RunState.FAILED),
        (ExitEvidence(exited(1), {"state": "failed", "cause": "not-finite"}), ExitCause.NOT_FINITE, RunState.FAILED),
        (ExitEvidence(exited(1), {"state": "failed", "cause": "out-of-memory"}), ExitCause.GPU_MEMORY, RunState.FAILED),
        (ExitEvidence(exited(2), {"state": "failed", "cause": "disk-full"}), ExitCause.DISK_FULL, RunState.FAILED),
        (ExitEvidence(exited(1), {"state": "failed", "cause": "exception"}), ExitCause.EXCEPTION, RunState.FAILED),
        (ExitEvidence(exited(2), {"state": "failed"}), ExitCause.INPUT, RunState.FAILED),
        (ExitEvidence(exited(2)), ExitCause.INPUT, RunState.FAILED),
        (ExitEvidence(exited(1)), ExitCause.EXIT, RunState.FAILED),
        (ExitEvidence(exited(0)), ExitCause.EXIT, RunState.FAILED),
        (ExitEvidence(None), ExitCause.VANISHED, RunState.INTERRUPTED),
        (ExitEvidence(None, rebooted=True), ExitCause.REBOOT, RunState.INTERRUPTED),
        (ExitEvidence(None, {"state": "done"}, rebooted=True), ExitCause.DONE, RunState.DONE),
        (ExitEvidence(exited(1), {"state": "done", "refused": "", "cause": "failed"}), ExitCause.INPUT, RunState.DONE),
        (
            ExitEvidence(exited(2), {"state": "stopped", "refused": "", "cause": "input"}),
            ExitCause.INPUT,
            RunState.STOPPED,
        ),
        (
            ExitEvidence(exited(1), {"state": "done", "refused": "", "cause": "out-of-memory"}),
            ExitCause.GPU_MEMORY,
            RunState.DONE,
        ),
    ],
)
def test_every_death_has_its_own_name(evidence, end, state):
    ending = classify_exit(evidence)
    assert (ending.cause, ending.state) == (end, state)
    assert (ending.reason is None) == (evidence.last_state is not None)


def test_a_run_that_something_else_asked_to_leave_is_interrupted():
    """As when the machine shuts down: everybody gets SIGTERM, and `resume --interrupted` is to find the run."""
    ending = classify_exit(ExitEvidence(exited(3), {"state": "stopped"}, step=12))
    assert (ending.cause, ending.state) == (ExitCause.ASKED, RunState.INTERRUPTED)
    assert ending.reason == "asked to leave by something other than finetop; saved at step 12"


def test_the_reason_says_what_happened_and_where():
    assert classify_exit(ExitEvidence(KILLED, out_of_memory=LIMIT, step=40)).reason == (
        "out of memory (limit 3.0 GiB of this container) at step 40: the kernel's OOM killer ended it"
    )
    assert classify_exit(ExitEvidence(SEGFAULT, step=7)).reason == (
        "killed by signal 11 (SIGSEGV) at step 7, which finetop did not send"
    )
    assert classify_exit(ExitEvidence(KILLED)).exit_code == 137


def test_the_last_lines_show_the_end_of_a_progress_bar(tmp_path):
    (tmp_path / "log").write_bytes(b"first\nloading 1%\rloading 99%\rloaded\nlast\n")
    assert last_lines(tmp_path / "log") == "first\nloaded\nlast"
    assert last_lines(tmp_path / "log", count=2) == "loaded\nlast"
    assert last_lines(tmp_path / "none") == ""


def run(**changes) -> Run:
    empty = dict.fromkeys(Run._fields)
    return Run(**(empty | {"id": 1, "retries": 0, "step": 10, "gpus": (), "share": False} | changes))


def event(kind: str, step: int | None = None, **detail) -> Event:
    return Event(1, 1, 0.0, kind, step, "", detail)


MEMORY = classify_exit(ExitEvidence(exited(1), {"state": "failed", "cause": "out-of-memory"}))
CRASH = classify_exit(ExitEvidence(KILLED))
OOM_KILLED = classify_exit(ExitEvidence(KILLED, out_of_memory=LIMIT))


def test_retries_come_after_growing_pauses_and_end():
    pauses = []
    events: tuple[Event, ...] = ()
    while again := decide(run(retries=4), CRASH, events, {}, GpuMemory(), Limits()):
        pauses.append(again.pause_seconds)
        events += (event("retry"),)
    assert pauses == [30.0, 120.0, 480.0, 1920.0]


def test_memory_halves_what_the_worker_last_used_and_gives_up_after_a_while():
    events = (event("resume", micro_tokens=4096), event("oom", micro_tokens=1024))
    settings = {"train.micro_tokens": "auto", "run.on_oom": "shrink"}
    again = decide(run(), MEMORY, events, settings, GpuMemory(), Limits())
    assert (again.event, again.micro_tokens) == ("memory-restart", 512)
    tried = events + tuple(event("memory-restart", step) for step in (1, 2, 3, 4))
    assert decide(run(), MEMORY, tried, settings, GpuMemory(), Limits()) is None
    assert decide(run(), MEMORY, events, {**settings, "run.on_oom": "fail"}, GpuMemory(), Limits()) is None


def test_a_run_on_the_cpu_that_the_oom_killer_took_goes_on_in_smaller_passes_even_from_the_same_step():
    """Within the step nothing could be tried: the kill leaves no time."""
    events = (event("resume", micro_tokens=4096), event("memory-restart", 10), event("resume", micro_tokens=2048))
    again = decide(run(), OOM_KILLED, events, {}, GpuMemory(), Limits())
    assert again and (again.event, again.micro_tokens) == ("memory-restart", 1024)
    assert again.message.startswith("Out of memory: goes on from its last checkpoint with 1,024 tokens a pass")
    assert decide(run(), OOM_KILLED, events, {"run.on_oom": "fail"}, GpuMemory(), Limits()) is None
    assert decide(run(), OOM_KILLED, (), {}, GpuMemory(), Limits()) is None, "it died before its first pass"


def test_a_run_on_a_gpu_that_the_oom_killer_took_is_only_retried_since_its_passes_lie_elsewhere():
    events = (event("resume", micro_tokens=4096),)
    assert decide(run(gpus=("0",)), OOM_KILLED, events, {}, GpuMemory(), Limits()) is None
    again = decide(run(gpus=("0",), retries=1), OOM_KILLED, events, {}, GpuMemory(), Limits())
    assert again and (again.event, again.micro_tokens) == ("retry", None)


def test_memory_that_others_hold_is_waited_for_even_before_the_first_step():
    others = GpuMemory(80 * GIB, others_bytes=40 * GIB, peak_bytes=30 * GIB)
    again = decide(run(), MEMORY, (), {"train.micro_tokens": "auto"}, others, Limits())
    assert isinstance(again, Restart)
    assert again.micro_tokens is None
    assert "once others leave it enough memory" in again.message
    assert decide(run(), MEMORY, (), {"train.micro_tokens": "auto"}, GpuMemory(80 * GIB), Limits()) is None


def gpu(index: int, used: int = 0, processes: tuple[GpuProcess, ...] = (), **changes) -> GpuSample:
    facts = {"memory_used_bytes": used * GIB, "memory_total_bytes": 80 * GIB, "age_seconds": 0.1}
    return GpuSample(index, f"GPU-{index}", processes=processes, **(facts | changes))


def process(memory: int, run: int | None = None) -> GpuProcess:
    return GpuProcess("GPU-0", 2217, "compute", memory * GIB, user="kim", run=run)


def test_gpus_are_offered_with_what_is_free_and_whose_processes_are_on_them(tmp_path):
    snapshot = Snapshot(0.0, (gpu(0, 50, (process(40), process(10, run=7))), gpu(1)))
    found = placement.machine(snapshot, {}, tmp_path / "none")
    assert [(one.id, one.other_names, one.free_bytes // GIB) for one in found.gpus] == [
        ("0", ("GPU-0",), 30),
        ("1", ("GPU-1",), 80),
    ]
    assert [(foreign.pid, foreign.user, foreign.memory_bytes // GIB) for foreign in found.gpus[0].foreign] == [
        (2217, "kim", 40)
    ]
    assert [one.id for one in placement.machine(snapshot, {"CUDA_VISIBLE_DEVICES": "1"}, tmp_path).gpus] == ["1"]


def test_cards_that_do_not_answer_get_no_runs_and_a_silent_driver_is_no_cpu_machine(tmp_path):
    mute = gpu(0, age_seconds=60.0, problem="has not answered for 1m")
    assert [one.id for one in placement.machine(Snapshot(0.0, (mute, gpu(1))), {}, tmp_path).gpus] == ["1"]
    assert "has not answered" in placement.machine(Snapshot(0.0, (mute,)), {}, tmp_path).trouble
    silent = Snapshot(0.0, (), gpu_problem="Driver/library version mismatch")
    assert "mismatch" in placement.machine(silent, {}, tmp_path).trouble  # tmp_path is there: a driver is loaded
    assert placement.machine(silent, {}, tmp_path / "none").trouble == ""


def test_what_a_run_has_not_allocated_yet_stays_promised_to_it():
    samples = {"0": gpu(0, 10, (process(10, run=7),))}
    assert placement.active_run(run(id=7, gpus=("0",), estimate_bytes=30 * GIB), samples).promised_bytes == 20 * GIB
    unknown = {"0": gpu(0, 10, (GpuProcess("GPU-0", 1, "compute", None, run=7),))}
    assert placement.active_run(run(id=7, gpus=("0",), estimate_bytes=30, step=0), unknown).promised_bytes == 30
    assert placement.active_run(run(id=7, gpus=("0",), estimate_bytes=30, step=5), unknown).promised_bytes == 0


def test_a_worker_sees_its_gpus_by_uuid_or_its_share_of_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(placement, "cores", lambda: 16)
    given = placement.run_environment([gpu(1), gpu(3)], 2, True, 1)
    assert (given["CUDA_VISIBLE_DEVICES"], given["CUDA_DEVICE_ORDER"]) == ("GPU-1,GPU-3", "PCI_BUS_ID")
    assert placement.run_environment([], 0, True, 1)["CUDA_VISIBLE_DEVICES"] == ""
    assert "OMP_NUM_THREADS" not in placement.run_environment([], 1, False, 1)
    assert placement.run_environment([], 1, False, 4)["OMP_NUM_THREADS"] == "4"
