"""What the monitor saw, in the store: points of runs, totals, GPU history."""

import contextlib
import json
import time
from dataclasses import replace

import pytest

from engine.base.units import GIB
from engine.base.workspace import Workspace
from engine.daemon.daemon_files import bound_file
from engine.daemon.limits import Limits
from engine.daemon.telemetry import Telemetry, usage_key
from engine.monitor.samples import GpuProcess, GpuSample, HostSample, RunSample, Snapshot
from engine.store import gpu_samples, queries, queue, run_lifecycle
from engine.store.connect import writer
from engine.store.run_records import GpuReading, NewRun


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(writer(tmp_path / "runs.db")) as conn:
        yield conn


def snapshot(second: float, run: int, used: int = 10, util: float = 50.0) -> Snapshot:
    process = GpuProcess("GPU-a", 1, "compute", used * GIB, run=run)
    gpu = GpuSample(
        0,
        "GPU-a",
        taken_at=second,
        age_seconds=0.1,
        utilisation=util,
        memory_used_bytes=used * GIB,
        memory_total_bytes=80 * GIB,
        power_watts=300.0,
        processes=(process,),
    )
    load = RunSample(run, second, 1, cpu_percent=80.0, rss_bytes=GIB)
    return Snapshot(second, (gpu,), host=HostSample(second, 0.1), runs={run: load})


@pytest.fixture
def running(store):
    queue.add(store, NewRun())
    run_lifecycle.claim(store, 1, ["0"])
    return queries.run(store, 1)


def points(store, key: str) -> list[tuple[int, float]]:
    return store.execute("SELECT step, value FROM metrics WHERE run = 1 AND key = ? ORDER BY step", (key,)).fetchall()


def test_a_run_gets_means_and_peaks_at_the_step_it_has_reached(store, running, tmp_path):
    (tmp_path / ".finetop").mkdir()
    readings = Telemetry(store, Workspace(tmp_path), Limits())
    for second, (step, used, util) in enumerate([(0, 10, 40.0), (0, 30, 60.0), (4, 20, 80.0), (4, 25, 90.0)]):
        seen = snapshot(float(second), 1, used, util)
        readings.observe(seen, [running._replace(step=step)], {"0": seen.gpus[0]})
    assert points(store, "gpu/util") == [(4, 60.0)]
    assert points(store, "gpu/memory") == [(4, 30.0 * GIB)]
    assert points(store, "gpu/power") == [(4, 300.0)]
    assert points(store, "host/cpu") == [(4, 80.0)]
    assert points(store, "host/rss") == [(4, float(GIB))]
    written = json.loads((tmp_path / ".finetop" / "machine.json").read_text())
    assert written["gpus"][0]["processes"][0]["owner"] == "run"
    assert written["t"] > 0


def test_totals_go_on_from_one_attempt_and_daemon_to_the_next(store, running, tmp_path):
    for start in (0.0, 100.0):
        readings = Telemetry(store, Workspace(tmp_path), Limits())
        for second in range(5):
            seen = snapshot(start + second, 1)
            readings.observe(seen, [running], {"0": seen.gpus[0]})
        readings.close()
    totals = json.loads(queries.get_meta(store, usage_key(1)))
    assert totals["gpu_seconds"] == 8.0
    assert totals["energy_joules"] == 8 * 300.0
    assert totals["peak_memory_bytes"] == 10 * GIB


def test_the_first_and_the_last_second_of_a_run_count(store, running, tmp_path):
    """What lies between a run's start and the first figures, and between the last ones and its end."""
    readings = Telemetry(store, Workspace(tmp_path), Limits())
    begun = time.time() + 1
    for second in (-0.4, 0.6, 1.6, 2.6):  # the first figures are from before it
        seen = snapshot(begun + second, 1)
        seen = replace(seen, gpus=(replace(seen.gpus[0], energy_joules=5000 + 300.0 * second),))
        readings.observe(seen, [running._replace(started=begun, step=int(second > 0))], {"0": seen.gpus[0]})
    store.execute("UPDATE runs SET state = 'done', step = 3, finished = ? WHERE id = 1", (begun + 3.5,))
    readings.watch({})
    totals = json.loads(queries.get_meta(store, usage_key(1)))
    assert totals["gpu_seconds"] == pytest.approx(3.5, abs=1e-6)
    assert totals["energy_joules"] == pytest.approx(3.5 * 300, abs=0.01) and totals["energy_from"] == "counter"
    assert [step for step, _ in points(store, "gpu/util")] == [1, 3]
    # Nobody knows what a run did that was at work before this daemon was.
    late = Telemetry(store, Workspace(tmp_path), Limits())
    for second in (4.0, 5.0):
        seen = snapshot(begun + second, 1)
        late.observe(seen, [running._replace(started=begun - 2)], {"0": seen.gpus[0]})
    late.close()
    assert json.loads(queries.get_meta(store, usage_key(1)))["gpu_seconds"] == pytest.approx(4.5, abs=1e-6)


def test_a_card_knows_what_others_hold_and_what_the_run_held_at_most(store, running, tmp_path):
    readings = Telemetry(store, Workspace(tmp_path), Limits())
    seen = snapshot(0.0, 1)
    foreign = GpuProcess("GPU-a", 2, "compute", 5 * GIB)
    gpu = replace(seen.gpus[0], processes=(*seen.gpus[0].processes, foreign))
    readings.observe(seen, [running], {"0": gpu})
    card = readings.gpu_memory(1)
    assert (card.total_bytes, card.others_bytes, card.peak_bytes) == (80 * GIB, 5 * GIB, 10 * GIB)


def test_old_readings_become_fewer_and_thinning_again_changes_nothing(store):
    now = 1_000_000.0
    rows = [GpuReading("a", float(t), 1, 50.0, 10, 100.0, 40.0) for t in range(int(now) - 2000, int(now))]
    gpu_samples.add_gpu_readings(store, rows)
    for _ in range(2):
        gpu_samples.thin_gpu_readings(store, now - 3000, now - 900, now)
        kept = gpu_samples.gpu_readings(store)
        assert [reading.time % 10 for reading in kept if reading.time < now - 900] == [0.0] * 110
        assert len([reading for reading in kept if reading.time >= now - 900]) == 900
        assert {reading.run_id for reading in kept} == {1}


def test_points_of_a_run_are_written_once_for_a_step(store, running):
    assert gpu_samples.add_run_readings(store, 1, 5, {"gpu/util": 10.0}) == 1
    assert gpu_samples.add_run_readings(store, 1, 5, {"gpu/util": 20.0}) == 0
    assert points(store, "gpu/util") == [(5, 10.0)]


def test_a_settled_run_is_not_found_again(store, running):
    run_lifecycle.started(store, 1, 77, 1.0)
    store.execute("UPDATE runs SET state = 'failed' WHERE id = 1")  # as its journal says
    assert [run.id for run in queries.unsettled(store)] == [1]
    run_lifecycle.explain(store, 1, error="last lines", exit_code=1)
    assert queries.unsettled(store) == ()


def test_the_log_keeps_its_last_quarter(tmp_path):
    path = tmp_path / "daemon.log"
    path.write_text("".join(f"line {number}\n" for number in range(10_000)))
    bound_file(path, 1000)
    kept = path.read_text().splitlines()
    assert kept[-1] == "line 9999"
    assert 15 < len(kept) < 30
    assert kept[0].startswith("line ")
