"""The host's figures, on any machine."""

import os
import time

from engine.monitor.host import DiskReader, HostReader
from engine.monitor.polling import Poller
from engine.monitor.samples import Snapshot
from engine.plan.hardware import hardware_of
from tests.engine.groups import fake_groups

__all__ = ["fake_groups"]
GIB = 1 << 30


def test_host_figures_are_plausible_and_shares_are_since_the_last_read():
    reader = HostReader()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    host = reader.read()
    assert 0 < host.cpu_percent <= 100
    assert 0 < host.memory_used_bytes < host.memory_total_bytes
    assert host.cpu_count >= 1 and host.load_1min >= 0


def test_disk_space_is_what_this_user_may_still_write(tmp_path):
    disk = DiskReader(tmp_path).read()
    free = os.statvfs(tmp_path)
    assert abs(disk.free_bytes - free.f_bavail * free.f_frsize) < 1 << 30
    assert disk.free_bytes < disk.total_bytes
    assert disk.write_bytes_per_s is None, "one reading has no rate"


def test_a_workspace_that_vanishes_is_a_failure_told_and_the_other_figures_go_on(tmp_path):
    host, disk = HostReader(), DiskReader(tmp_path / "gone")
    rounds = Poller(lambda: [("disk", disk.read), ("host", host.read)], period=0.01, name="test")
    rounds.start()
    end = time.monotonic() + 10
    while rounds.finished < 3 and time.monotonic() < end:
        time.sleep(0.01)
    rounds.stop()
    assert "disk" in rounds.failures and "host" in rounds.results


def test_a_limit_of_a_control_group_bounds_what_a_process_may_take(fake_groups):
    machine = fake_groups("/system.slice/train.service")
    machine.group("/system.slice", 4 * GIB, used=int(3.5 * GIB))
    machine.group("/system.slice/train.service", 2 * GIB, used=GIB, files=GIB // 2)
    host = HostReader().read()
    assert host.memory_bytes == host.memory_limit_bytes == 2 * GIB < host.memory_total_bytes
    assert host.memory_limit_owner == "systemd unit train.service" and host.memory_limit_used_bytes == GIB // 2
    assert host.memory_free_bytes == GIB // 2, "the group above has less left"
    planned = hardware_of(Snapshot(0.0, host=host))
    assert (planned.memory_bytes, planned.memory_free_bytes) == (2 * GIB, GIB // 2)
    assert planned.memory_owner == "systemd unit train.service"


def test_a_limit_above_the_machines_memory_is_none(fake_groups):
    fake_groups("/a").group("/a", 1 << 50)
    host = HostReader().read()
    assert host.memory_limit_bytes is None and host.memory_bytes == host.memory_total_bytes
    assert hardware_of(Snapshot(0.0, host=host)).memory_owner == ""
