"""The daemon on scripted workers: real processes, a real database, real signals."""

import fcntl
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest

from engine.base.errors import EngineError
from engine.control import Control
from engine.daemon import daemon_client
from engine.store import queue, run_lifecycle
from engine.store.run_records import RunState
from tests.engine.daemon.daemonkit import REPOSITORY, WORKER, Bench, status
from tests.engine.store.storekit import until


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "workspace")
    yield made
    made.close()


def test_queued_runs_are_trained_one_after_the_other_and_their_numbers_are_in_the_store(bench):
    first, second = bench.add(steps=20), bench.add(steps=5)
    bench.start()
    for run, steps in zip(bench.until_ended(first, second), (20, 5), strict=True):
        assert (run.state, run.step, run.attempts, run.exit_code) == (RunState.DONE, steps, 1, 0)
        assert bench.series(run.id) == [(step, 1 / step) for step in range(1, steps + 1)]
    assert bench.run(first).finished <= bench.run(second).started


def test_a_run_that_is_queued_later_starts_without_anybody_telling_the_daemon(bench):
    bench.start()
    bench.until(lambda: status(bench)["beat"])
    assert bench.until_ended(bench.add(steps=3))[0].state is RunState.DONE


def test_two_daemons_cannot_run(bench):
    run_id = bench.add(steps=40, pause=0.02)
    first = bench.start()
    bench.until_step(run_id, 1)
    second = bench.start()
    assert second.wait(60) == 0
    assert first.poll() is None
    assert status(bench)["pid"] == first.pid
    assert daemon_client.ensure(bench.workspace) is False
    with pytest.raises(EngineError, match=f"is running .pid {first.pid}"), daemon_client.exclusive(bench.workspace):
        pass


def test_runs_go_on_when_the_daemon_is_killed_and_the_next_one_adopts_them(bench):
    run_id = bench.add(steps=300, pause=0.01)
    bench.start()
    before = bench.until_step(run_id, 5)
    bench.kill_daemon()
    assert psutil.Process(before.pid).is_running()
    bench.start()
    after = bench.until_step(run_id, bench.run(run_id).step + 20)
    assert (after.pid, after.attempts) == (before.pid, 1)
    (run,) = bench.until_ended(run_id)
    assert run.state is RunState.DONE
    assert [step for step, _ in bench.series(run_id)] == list(range(1, 301))
    assert len(bench.starts(run_id)) == 1


def test_an_end_that_nobody_saw_is_read_from_the_journal(bench):
    run_id = bench.add(steps=60, pause=0.01, end="raise")
    bench.start()
    pid = bench.until_step(run_id, 3).pid
    bench.kill_daemon()
    bench.until(lambda: not psutil.pid_exists(pid))
    bench.start()
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.reason) == (RunState.FAILED, "ValueError: shapes do not fit")
    assert "about to end by raise" in bench.error(run_id)


def test_a_claimed_run_whose_worker_never_came_up_is_started_once(bench):
    run_id = bench.add(steps=5)
    with bench.writing() as conn:
        assert run_lifecycle.claim(conn, run_id)
    bench.start()
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (RunState.DONE, 1)
    assert len(bench.starts(run_id)) == 1
    assert bench.events(run_id, "unclaimed")


def test_a_worker_whose_pid_was_never_recorded_is_found_by_its_lock(bench):
    """As when the daemon is killed between making the worker and writing down its pid."""
    found_again_although(bench, "pid = NULL, pid_started = NULL")


def test_a_clock_that_was_set_does_not_make_a_worker_a_stranger(bench):
    found_again_although(bench, "pid_started = pid_started - 86400")


def found_again_although(bench, changed: str) -> None:
    """A worker is followed to its end by the next daemon, although the store knows of it what `changed` says."""
    run_id = bench.add(steps=200, pause=0.01)
    bench.start()
    pid = bench.until_step(run_id, 3).pid
    bench.kill_daemon()
    with bench.writing() as conn:
        conn.execute(f"UPDATE runs SET {changed} WHERE id = ?", (run_id,))
    bench.start()
    assert bench.until_step(run_id, 40).pid == pid
    assert bench.until_ended(run_id)[0].state is RunState.DONE
    assert len(bench.starts(run_id)) == 1


def test_stop_saves_and_resume_goes_on_from_there(bench):
    run_id = bench.add(steps=400, pause=0.01, save=1000)
    bench.start()
    bench.until_step(run_id, 5)
    with bench.writing() as conn:
        assert queue.request(conn, run_id, "stop")
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.reason, run.exit_code, run.wanted) == (RunState.STOPPED, "asked to stop", 3, None)
    stopped_at = run.step
    assert stopped_at >= 5
    with bench.writing() as conn:
        assert queue.resume(conn, run_id)
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (RunState.DONE, 2)
    assert [step for step, _ in bench.series(run_id)] == list(range(1, 401))


def test_kill_ends_the_worker_with_all_its_processes(bench):
    run_id = bench.add(steps=1000, pause=0.01, child=True)
    bench.start()
    pid = bench.until_step(run_id, 2).pid
    helper = int((bench.workspace.runs / str(run_id) / "helper").read_text())
    with bench.writing() as conn:
        assert queue.request(conn, run_id, "kill")
    (run,) = bench.until_ended(run_id)
    assert run.state is RunState.STOPPED
    assert run.reason.startswith("killed by you at step")
    bench.until(lambda: not psutil.pid_exists(pid) and not _lives(helper))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("end", "state", "reason", "code"),
    [
        ("raise", RunState.FAILED, "ValueError: shapes do not fit", 1),
        ("nan", RunState.FAILED, "the loss became NaN at step 10", 1),
        ("input", RunState.FAILED, "there is no such column", 2),
        ("kill", RunState.FAILED, "killed by signal 9 (SIGKILL) at step 9, which finetop did not send", 137),
        ("segfault", RunState.FAILED, "killed by signal 11 (SIGSEGV) at step 9, which finetop did not send", 139),
        ("exit", RunState.FAILED, "its process ended with code 7 at step 9", 7),
    ],
)
def test_each_death_is_told_apart_with_the_last_lines_and_the_queue_goes_on(bench, end, state, reason, code):
    run_id, after = bench.add(end=end), bench.add(steps=2)
    bench.start()
    run, other = bench.until_ended(run_id, after)
    assert (run.state, run.reason, run.exit_code) == (state, reason, code)
    assert bench.error(run_id).splitlines()[:2] == ["ready", f"about to end by {end}"]
    assert other.state is RunState.DONE


def test_a_worker_that_breaks_its_promise_for_long_is_killed_and_said_to_hang(bench):
    run_id = bench.add(end="silence")
    bench.start(overdue_seconds=0.2, hung_seconds=1.0)
    (run,) = bench.until_ended(run_id)
    assert run.state is RunState.FAILED
    assert run.reason.startswith("hung: no sign of life")
    assert bench.events(run_id, "overdue")


def test_a_failed_run_is_tried_again_as_often_as_was_asked_with_growing_pauses(bench):
    run_id = bench.add(new={"retries": 2}, end="kill", steps=20, at=12)
    bench.start(retry_growth=3.0)
    bench.until(lambda: len(bench.starts(run_id)) == 3)
    bench.until(lambda: bench.run(run_id).state is RunState.FAILED and bench.run(run_id).attempts == 3)
    said = [event.message for event in bench.events(run_id, "retry")]
    assert said == ["Retry 1 of 2 in 0.1s.", "Retry 2 of 2 in 0.3s."]
    assert [step for step, _ in bench.series(run_id)] == list(range(1, 13))


@pytest.mark.parametrize("end", ["nan", "input"])
def test_what_would_fail_the_same_way_is_not_tried_again(bench, end):
    run_id = bench.add(new={"retries": 3}, end=end)
    bench.start()
    assert bench.until_ended(run_id)[0].attempts == 1


def test_out_of_memory_goes_on_from_the_checkpoint_with_half_the_tokens_a_pass(bench):
    run_id = bench.add({"train.micro_tokens": 2048}, end="memory", once=True, steps=20, at=12)
    bench.start()
    bench.until(lambda: bench.run(run_id).attempts == 2)
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.step) == (RunState.DONE, 20)
    (event,) = bench.events(run_id, "memory-restart")
    assert "1,024 tokens a pass instead of 2,048" in event.message
    resumed = [event.detail["micro_tokens"] for event in bench.events(run_id, "resume")]
    assert resumed == [2048, 1024]
    assert [step for step, _ in bench.series(run_id)] == list(range(1, 21))


def test_out_of_memory_at_the_same_step_again_is_no_reason_to_go_on_for_ever(bench):
    run_id = bench.add({"train.micro_tokens": 2048}, end="memory")
    bench.start()
    bench.until(lambda: bench.run(run_id).attempts == 2 and bench.run(run_id).state is RunState.FAILED)
    assert len(bench.events(run_id, "memory-restart")) == 1


def test_a_full_disk_pauses_the_queue_and_says_so(bench):
    run_id = bench.add(steps=2)
    bench.start(disk_reserve_bytes=1 << 60)
    bench.until(lambda: bench.run(run_id).wait_kind == "disk")
    assert "the disk is full" in bench.run(run_id).wait_reason
    bench.kill_daemon()
    bench.start()
    assert bench.until_ended(run_id)[0].state is RunState.DONE


def test_a_full_disk_empties_the_trash_the_oldest_first_and_says_so(bench):
    old, new, run_id = bench.add(steps=2), bench.add(steps=2), bench.add(steps=2)
    with Control(bench.workspace) as control:
        assert control.trash(old) and control.trash(new)
    bench.start(disk_reserve_bytes=1 << 60, trash_seconds=0.5)
    bench.until(lambda: len(bench.events(run_id, "trash-emptied")) == 2)
    first, second = (event.message for event in bench.events(run_id, "trash-emptied"))
    assert first.startswith(f"{old} (") and second.startswith(f"{new} (") and "the disk is full" in first
    assert os.listdir(bench.workspace.trash) == []
    assert bench.run(old) is None and bench.run(run_id).wait_kind == "disk"


def test_a_locked_database_delays_the_numbers_and_loses_none(bench):
    run_id = bench.add(steps=150, pause=0.01)
    bench.start(database_seconds=0.3)
    bench.until_step(run_id, 5)
    holder = sqlite3.connect(bench.workspace.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    time.sleep(2.0)  # what is under test: longer than the daemon waits for one write
    holder.execute("ROLLBACK")
    holder.close()
    (run,) = bench.until_ended(run_id)
    assert run.state is RunState.DONE
    assert [step for step, _ in bench.series(run_id)] == list(range(1, 151))


def test_a_torn_last_line_is_left_until_it_is_whole(bench):
    run_id = bench.add(steps=60, pause=0.01, end="kill", at=30, save=1000)
    bench.start()
    bench.until_ended(run_id)
    path = bench.workspace.runs / str(run_id) / "journal.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"t": 1, "kind": "metric", "step": 31, "val')
    (bench.workspace.runs / str(run_id) / "script.json").write_text('{"steps": 40}')
    with bench.writing() as conn:
        assert queue.resume(conn, run_id)
    bench.until(lambda: bench.run(run_id).attempts == 2)
    assert bench.until_ended(run_id)[0].state is RunState.DONE
    assert [step for step, _ in bench.series(run_id)] == list(range(1, 41))


def test_closing_the_terminal_stops_neither_daemon_nor_runs(bench):
    """The daemon is started from a session whose terminal then hangs up."""
    run_id = bench.add(steps=200, pause=0.01)
    code = (
        "import os, pty, signal, sys\n"
        "pid, terminal = pty.fork()\n"
        "if pid == 0:\n"
        "    from tests.engine.daemon.daemonkit import Bench\n"
        "    from pathlib import Path\n"
        "    signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # whoever runs the tests may ignore it
        "    bench = Bench(Path(sys.argv[1]))\n"
        "    print(bench.start().pid, flush=True)\n"
        "    sys.stdin.read()\n"  # ends with the terminal, whatever else happens
        "print(os.read(terminal, 100).decode().strip(), flush=True)\n"
        "sys.stdin.readline()\n"
        "os.close(terminal)\n"  # SIGHUP to the foreground of that session
        "os.waitpid(pid, 0)\n"
    )
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
    shell = subprocess.Popen(
        [sys.executable, "-c", code, str(bench.workspace.root)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = None
    try:
        pid = int(shell.stdout.readline())
        bench.until_step(run_id, 5)
        shell.communicate("\n", timeout=60)
        run = bench.until_step(run_id, bench.run(run_id).step + 10)
        assert run.attempts == 1
        assert status(bench)["pid"] == pid
        assert bench.until_ended(run_id)[0].state is RunState.DONE
        assert [step for step, _ in bench.series(run_id)] == list(range(1, 201))
    finally:
        shell.kill()
        shell.wait()
        if pid:
            os.kill(pid, signal.SIGKILL)


def test_a_daemon_leaves_when_idle_for_long_if_that_is_wished(bench):
    run_id = bench.add(steps=2)
    daemon = bench.start(idle_exit_seconds=1.0)
    bench.until_ended(run_id)
    assert daemon.wait(60) == 0
    assert not daemon_client.status(bench.workspace).running


def test_a_daemon_leaves_when_its_workspace_is_gone(bench, tmp_path):
    daemon = bench.start()
    bench.until(lambda: status(bench)["beat"])
    bench.workspace.root.rename(tmp_path / "elsewhere")
    (tmp_path / "workspace").mkdir()
    assert daemon.wait(60) == 0


def test_stop_ends_the_daemon_and_no_run(bench):
    run_id = bench.add(steps=200, pause=0.01)
    daemon = bench.start()
    pid = bench.until_step(run_id, 3).pid
    assert daemon_client.stop(bench.workspace, 30)
    assert daemon.wait(10) == 0
    assert _lives(pid)
    until(lambda: not _lives(pid), 60)


def test_cpu_slots_say_how_many_train_at_a_time(bench):
    runs = [bench.add(steps=100, pause=0.02) for _ in range(3)]
    with bench.writing() as conn:
        queue.set_meta(conn, "cpu_slots", "2")
    bench.start()
    bench.until(lambda: sum(bench.run(run).state is RunState.RUNNING for run in runs) == 2)
    assert "all 2 CPU slots" in bench.until(lambda: bench.run(runs[2]).wait_reason)
    assert all(run.state is RunState.DONE for run in bench.until_ended(*runs))


def test_a_reboot_leaves_runs_interrupted_and_not_started_again(bench):
    """A worker that was there before the machine started, and is not now."""
    run_id = bench.add(steps=5)
    with bench.writing() as conn:
        run_lifecycle.claim(conn, run_id)
        run_lifecycle.started(conn, run_id, 2**22 + 7, psutil.boot_time() - 3600)  # beyond the kernel's largest pid
    bench.start()
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.reason) == (RunState.INTERRUPTED, "the machine was restarted")
    assert bench.starts(run_id) == []


def test_a_stranger_with_the_workers_pid_is_left_alone(bench):
    """The worker is gone, and its number belongs to this test."""
    run_id = bench.add(steps=5)
    with bench.writing() as conn:
        run_lifecycle.claim(conn, run_id)
        run_lifecycle.started(conn, run_id, os.getpid(), time.time() - 86400 * 365)
        queue.request(conn, run_id, "kill")
    bench.start()
    bench.until(lambda: bench.run(run_id).ended)
    assert bench.starts(run_id) == []


def test_a_run_whose_folder_is_gone_fails_and_says_so(bench):
    run_id, after = bench.add(steps=2), bench.add(steps=2)
    (bench.workspace.runs / str(run_id)).rename(bench.workspace.root / "moved")
    bench.start()
    run, other = bench.until_ended(run_id, after)
    assert run.state is RunState.FAILED
    assert "its folder is gone" in run.reason
    assert other.state is RunState.DONE


def test_a_worker_started_by_hand_is_followed_and_never_doubled(bench):
    """As `finetop train` does it, on a run that is also in the queue's store."""
    run_id = bench.add(steps=200, pause=0.01, end="raise")
    folder = bench.workspace.runs / str(run_id)
    with open(folder / "log.txt", "ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        words = [sys.executable, str(WORKER), str(folder), "--from", "latest"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        worker = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
    with bench.writing() as conn:
        assert run_lifecycle.begin(conn, run_id, worker.pid, psutil.Process(worker.pid).create_time(), platform.node())
        queue.edit(conn, run_id, retries=3)
    bench.start()
    bench.until_step(run_id, 20)
    worker.wait(60)
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (RunState.FAILED, 1)
    assert len(bench.starts(run_id)) == 1
    assert not bench.events(run_id, "retry")


def test_a_worker_that_the_system_asks_to_leave_saves_and_is_interrupted(bench):
    run_id = bench.add(steps=1000, pause=0.01, save=10_000)
    bench.start()
    os.kill(bench.until_step(run_id, 5).pid, signal.SIGTERM)
    (run,) = bench.until_ended(run_id)
    assert run.state is RunState.INTERRUPTED
    assert run.reason.startswith("asked to leave by something other than finetop; saved at step")


def test_a_wish_that_the_daemon_before_had_passed_on_is_no_interruption(bench):
    run_id = bench.add(steps=1000, pause=0.01)
    bench.start()
    pid = bench.until_step(run_id, 5).pid
    with bench.writing() as conn:
        queue.request(conn, run_id, "stop")
    bench.until(lambda: bench.events(run_id, "stop"))
    bench.kill_daemon()
    bench.until(lambda: not _lives(pid))
    bench.start()
    assert bench.until_ended(run_id)[0].state is RunState.STOPPED


def test_a_wish_reaches_a_run_that_was_claimed_and_never_began(bench):
    run_id = bench.add(steps=5)
    with bench.writing() as conn:
        run_lifecycle.claim(conn, run_id)
        queue.request(conn, run_id, "stop")
    bench.start()
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.reason) == (RunState.STOPPED, "stopped before it began")
    assert bench.starts(run_id) == []


def test_a_claimed_run_whose_lock_is_given_up_without_a_word_is_started_after_all(bench):
    """As when the warm process is killed with the request, and the lock in it, unread."""
    run_id = bench.add(steps=5)
    with bench.writing() as conn:
        run_lifecycle.claim(conn, run_id)
    with open(bench.workspace.runs / str(run_id) / "log.txt", "ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        bench.start()
        bench.until(lambda: f"run {run_id} found, pid not yet known" in bench.log())
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (RunState.DONE, 1)
    assert len(bench.starts(run_id)) == 1


@pytest.mark.parametrize(
    ("end", "state"), [("done", RunState.DONE), ("raise", RunState.FAILED), ("kill", RunState.INTERRUPTED)]
)
def test_a_worker_that_came_and_went_while_nobody_knew_its_pid_is_not_started_again(bench, end, state):
    run_id = bench.add(steps=10, end=end)
    bench.start()
    bench.until_step(run_id, 1)
    bench.kill_daemon()
    pid = int(bench.starts(run_id)[0].split()[0])
    bench.until(lambda: not _lives(pid))
    with bench.writing() as conn:  # as the store is when the daemon is killed before it writes the pid down
        conn.execute("UPDATE runs SET state = 'starting', pid = NULL, pid_started = NULL, journal_offset = 0")
        conn.execute("DELETE FROM events")
        conn.execute("UPDATE runs SET journal_head = 0, exit_code = NULL, reason = NULL, error = NULL")
    bench.start()
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (state, 1)
    assert len(bench.starts(run_id)) == 1
