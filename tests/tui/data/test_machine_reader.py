"""Without a daemon the screen reads the machine itself, and leaves that to one that comes."""

import contextlib
import json
import time

import psutil
import pytest

from engine.base.workspace import Workspace
from engine.monitor.samples import GpuSample, HostSample, Snapshot
from tests.engine.fake_nvml.library import GIB, card, machine
from tests.tui.data.test_feed import Watched
from tui.data import feed as feed_module
from tui.data.machine_reader import MachineReader, lasting
from tui.widgets.gpus_pane import gpu_lines

pytest_plugins = ["tests.engine.fake_nvml.fixtures"]


def helpers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end just now
            if "tui.data.machine_reader" in process.cmdline():
                found.append(process)
    return found


def gone(limit: float = 10.0) -> bool:
    deadline = time.monotonic() + limit
    while helpers() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not helpers()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(feed_module, "OWN_READING_SECONDS", 0.0)


def test_gpus_are_seen_before_the_first_run(tmp_path, driver):
    driver.set(machine(card(0), card(1)))
    with Watched(tmp_path) as watched:
        seen = watched.until(lambda: watched.last.machine)
        assert [gpu.index for gpu in seen.gpus] == [0, 1]
        assert not watched.last.daemon.running
        text = "\n".join("".join(piece for piece, _ in line) for line in gpu_lines(seen, 80))
        assert "GPUs …" not in text and len(text.splitlines()) >= 3
        driver.set(machine(card(0, power=222_000), card(1)))
        watched.until(lambda: watched.last.machine.gpus[0].power_watts == 222)
    assert gone(), "the helper ends with the screen"


def test_where_there_are_no_gpus_it_is_read_once(tmp_path, no_driver, monkeypatch):
    for name, value in no_driver.environ().items():
        monkeypatch.setenv(name, value)
    with Watched(tmp_path) as watched:
        seen = watched.until(lambda: watched.last.machine)
        assert not seen.gpus and seen.gpu_problem and seen.host.cpu_count and seen.host.memory_total_bytes
        assert gone(), "nothing goes on measuring"
        first = gpu_lines(seen, 80)
        time.sleep(2 * feed_module.IDLE_SECONDS)
        assert gpu_lines(watched.last.machine, 80) == first, "nothing to paint"


def test_a_daemon_that_measures_takes_over(tmp_path, driver):
    driver.set(machine(card(0)))
    with Watched(tmp_path) as watched:
        watched.until(lambda: watched.last.machine)
        path = Workspace(tmp_path).machine_state
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"t": time.time(), "taken_at": time.time(), "gpus": [], "driver": "daemon's"}))
        watched.until(lambda: watched.last.machine.driver == "daemon's")
        assert gone()
        path.unlink()
        watched.until(lambda: watched.last.machine is not None and watched.last.machine.gpus)


def test_a_reader_that_was_stopped_shows_no_old_figures(tmp_path, driver):
    driver.set(machine(card(0)))
    reader = MachineReader(Workspace(tmp_path))
    deadline = time.monotonic() + 10
    while reader.latest(time.time()) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert reader.latest(time.time()) is not None
    reader.stop()
    assert reader.latest(time.time()) is None
    reader.stop()


def test_what_moves_is_not_kept_where_nobody_goes_on_measuring():
    host = HostSample(
        1.0, 0.1, 35.0, 8, 2.5, 3 * GIB, 16 * GIB, 8 * GIB, memory_limit_owner="this container", memory_free_bytes=GIB
    )
    still = lasting(Snapshot(1.0, gpus=(), gpu_problem="No driver.", host=host))
    text = "\n".join("".join(piece for piece, _ in line) for line in gpu_lines(still, 80))
    assert "8 cores" in text and "of 8.0G" in text and "the daemon measures" in text
    assert "35" not in text and "3.0G" not in text and "2.5" not in text
    assert still.host is not None and still.host.memory_limit_owner == "this container"
    assert GpuSample(0, "GPU-0").stale and still.host.stale
