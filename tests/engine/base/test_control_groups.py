"""Limits of memory and processors, and whose they are: on real control groups and on trees as containers see them."""

import os
import subprocess
import sys

import pytest

from engine.base.control_groups import cpu_quota, groups_of, memory_limit
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import cores
from tests.engine.groups import fake_groups, real_cpu_group, real_memory_group

__all__ = ["fake_groups"]
GIB, MIB = 1 << 30, 1 << 20
JOB = "/system.slice/slurmstepd.scope/job_7731/step_0/user/task_0"
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5.slice"


@pytest.mark.parametrize(
    ("path", "mount_root", "limited", "told"),
    [
        ("/user.slice/user-1000.slice/session-3.scope", "/", {}, None),
        ("/system.slice/train.service", "/", {"/system.slice/train.service": 3 * GIB}, "systemd unit train.service"),
        ("/user.slice/user-7.slice/a.scope", "/", {"/user.slice/user-7.slice": 3 * GIB}, "systemd unit user-7.slice"),
        (JOB, "/", {JOB.partition("/step")[0]: 3 * GIB, JOB: 5 * GIB}, "Slurm job 7731"),
        (f"{POD}/cri-containerd-ab.scope", "/", {POD: 3 * GIB, f"{POD}/cri-containerd-ab.scope": 4 * GIB}, "container"),
        ("/", "/", {"/": 3 * GIB}, "this container"),
        ("/docker/ab", "/docker/ab", {"/": 3 * GIB}, "this container"),
        ("/../other", "/", {"/": 3 * GIB}, "this container"),
        ("/as/the/host/names/it", "/", {"/": 3 * GIB}, "this container"),
        ("/a/b/c", "/", {"/a": 3 * GIB, "/a/b": 9 * GIB, "/a/b/c": "max"}, "control group /a"),
    ],
)
def test_the_least_limit_from_the_own_group_up_counts_and_is_called_by_who_set_it(
    fake_groups, path, mount_root, limited, told
):
    machine = fake_groups(path, mount_root)
    if told and "/" not in limited:
        (machine.top / path.lstrip("/")).mkdir(parents=True)
    for name, limit in limited.items():
        machine.group(name, limit)
    limit = memory_limit(groups_of("memory"))
    assert (limit is None) == (told is None)
    if limit and told:
        assert limit.limit_bytes == 3 * GIB and told in limit.owner
        assert str(limit) == f"limit 3.0 GiB of {limit.owner}"


def test_of_several_places_where_a_hierarchy_is_mounted_that_with_the_own_group_counts(fake_groups):
    machine = fake_groups("/pods/a b/app")
    machine.group("/pods/a b/app", 3 * GIB)
    other = "29 23 0:26 /pods/other /mnt/other\\040one ro - cgroup2 cgroup rw\n"
    (machine.root / "mnt/other one").mkdir(parents=True)
    mounts = (machine.root / "proc/self/mountinfo").read_text()
    machine.write("proc/self/mountinfo", f"{other}28 23 0:5 / /dev rw - devtmpfs udev rw\n{mounts}")
    assert [group.path for group in groups_of("memory")] == ["/pods/a b/app", "/pods/a b", "/pods", "/"]
    assert memory_limit(groups_of("memory")).limit_bytes == 3 * GIB


def test_an_old_kernel_that_counts_no_victims_is_not_believed_to_have_had_none(fake_groups):
    machine = fake_groups("/")
    machine.write("proc/vmstat", "nr_free_pages 1\n")
    assert "dmesg" in OomWatch().hint(-9)


def test_pages_of_files_are_not_in_use(fake_groups):
    fake_groups("/").group("/", 4 * GIB, used=3 * GIB, files=2 * GIB)
    assert memory_limit(groups_of("memory")).used_bytes == GIB


def test_a_machine_without_control_groups_has_no_limits(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.base.control_groups.ROOT", tmp_path)
    assert groups_of("memory") == () and cpu_quota(groups_of("cpu")) is None and cores() >= 1
    assert OomWatch().verdict() == "" and "dmesg" in OomWatch().hint(-9)


@pytest.mark.parametrize(("quota", "count"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)])
def test_processors_are_those_of_the_quota(fake_groups, monkeypatch, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    machine = fake_groups("/a/b")
    machine.group("/a", cpu=quota)
    machine.group("/a/b", cpu="max 100000")
    assert cores() == count


def in_group(folder, code: str) -> subprocess.CompletedProcess:
    """Python code in a process that has entered the group before it began."""
    program = ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(folder), sys.executable, "-c", code]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_a_real_group_sets_memory_and_processors():
    code = """
from engine.base.control_groups import groups_of, memory_limit
from engine.base.worker_process import cores
limit = memory_limit(groups_of("memory"))
print(limit.limit_bytes, 0 < limit.used_bytes < limit.limit_bytes, limit.owner, cores())
"""
    with real_memory_group(300 * MIB, "train.service", "inner") as memory, real_cpu_group(1.2) as cpu:
        enter = 'for d in "$0" "$1"; do echo $$ > "$d/cgroup.procs"; done; shift; exec "$@"'
        program = ["sh", "-c", enter, str(memory), str(cpu), sys.executable, "-c", code]
        inside = subprocess.run(program, capture_output=True, text=True, check=False)
        above = memory.parents[1].name
    assert inside.stdout == f"{300 * MIB} True control group /{above} 1\n", inside.stderr


@pytest.mark.parametrize("below", [(), ("inner", "task")])
def test_a_real_victim_of_the_oom_killer_is_told_with_the_limit_that_was_reached(below):
    with real_memory_group(64 * MIB, *below) as folder:
        program = ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; read go; exec "$@"', str(folder), sys.executable, "-c"]
        eater = subprocess.Popen([*program, "x = b'x' * 200_000_000"], stdin=subprocess.PIPE)
        try:
            while str(eater.pid) not in (folder / "cgroup.procs").read_text().split():
                pass
            oom = OomWatch(eater.pid)
            eater.communicate(b"go\n", timeout=60)
        finally:
            eater.kill()
        top = folder.parents[len(below) - 1] if below else folder
        assert eater.returncode == -9
        assert oom.verdict() == f"limit 64.0 MiB of control group /{top.name}"
        assert oom.hint(-9).startswith("Out of memory (limit 64.0 MiB") and oom.hint(1) == ""
        assert OomWatch(os.getpid()).verdict() == "", "nor was anyone else"


def test_a_real_sigkill_by_hand_is_not_taken_for_the_oom_killer():
    with real_memory_group(64 * MIB) as folder:
        assert in_group(folder, "import os; os.kill(os.getpid(), 9)").returncode == -9
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        oom = OomWatch(other.pid)
        assert in_group(folder, "x = b'x' * 200_000_000").returncode == -9, "another's kill, at the same time"
        other.kill()
        other.wait()
        assert oom.verdict() == "" and "Someone sent SIGKILL" in oom.hint(-9)


class TestVersion2:
    """What the kernel counts there, by its documentation."""

    CONTAINER = "/kubepods/pod1/app"

    @pytest.fixture
    def machine(self, fake_groups):
        made = fake_groups(self.CONTAINER)
        made.group("/kubepods/pod1", 3 * GIB)
        made.group(self.CONTAINER, 2 * GIB)
        return made

    def test_the_limit_of_the_own_group(self, machine):
        oom = OomWatch()
        machine.counted(self.CONTAINER, oom=1, kills=1)
        machine.counted("/kubepods/pod1", oom=1, kills=1, local=0)
        machine.machine_kills(1)
        assert oom.verdict() == "limit 2.0 GiB of this container"

    def test_the_limit_of_a_group_above(self, machine):
        oom = OomWatch()
        machine.counted(self.CONTAINER, kills=1)
        machine.counted("/kubepods/pod1", oom=1, kills=1)
        assert oom.verdict() == "limit 3.0 GiB of this container"

    def test_all_processes_of_a_group_are_killed_together(self, machine):
        oom = OomWatch()
        machine.counted(self.CONTAINER, oom=1, group_kills=1)
        assert oom.verdict() == "limit 2.0 GiB of this container"

    def test_the_machines_memory(self, machine):
        oom = OomWatch()
        machine.counted(self.CONTAINER, kills=1)
        machine.counted("/kubepods/pod1", kills=1)
        machine.machine_kills(1)
        assert oom.verdict() == "all 22.9 GiB of this machine"

    def test_another_groups_victim(self, machine):
        oom = OomWatch()
        machine.counted("/kubepods/pod1", oom=1, kills=1)
        machine.machine_kills(1)
        assert oom.verdict() == ""

    def test_a_process_of_no_group(self, fake_groups):
        machine = fake_groups("/")
        oom = OomWatch()
        machine.machine_kills(1)
        assert oom.verdict() == "all 22.9 GiB of this machine"

    def test_kills_of_an_earlier_time_are_others(self, machine, monkeypatch):
        clock = [100.0]
        monkeypatch.setattr("engine.base.oom_kills.time.monotonic", lambda: clock[-1])
        oom = OomWatch()
        machine.counted(self.CONTAINER, oom=1, kills=1)
        clock.append(120.0)
        oom.still_alive()
        assert oom.verdict(), "counted a while before the process is gone"
        for now in (140.0, 180.0, 220.0):
            clock.append(now)
            oom.still_alive()
        assert oom.verdict() == ""

    def test_what_was_counted_at_the_start_is_kept_for_the_next_daemon(self, machine):
        counts = OomWatch().counts
        machine.counted(self.CONTAINER, oom=1, kills=1)
        assert OomWatch(99_999_999).verdict() == ""
        assert OomWatch(99_999_999, counts).verdict() == "limit 2.0 GiB of this container"
