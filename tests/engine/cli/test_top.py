"""`finetop top` fits 80 columns, tells what is known, and is safe to look at."""

import contextlib
import json
import subprocess
import sys

import psutil

from engine.cli.commands.top import rate, table
from engine.monitor.samples import GpuProcess, GpuSample, HostSample, RunSample, Snapshot
from engine.present.text import cut, gauge
from engine.store import queue, run_lifecycle
from engine.store.connect import writer
from engine.store.run_records import NewRun
from tests.engine.fake_nvml.library import GIB, ROOT, card, machine

pytest_plugins = ["tests.engine.fake_nvml.fixtures"]


def top(fake, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", "top", *words],
        env=fake.environ(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def busy(index: int, **more) -> GpuSample:
    figures = dict(
        name="NVIDIA A100-SXM4-80GB",
        age_seconds=0.2,
        utilisation=98,
        memory_used_bytes=62 * GIB,
        memory_total_bytes=80 * GIB,
        temperature_c=71.0,
        power_watts=402.0,
        power_limit_watts=400.0,
        held_back=(),
        processes=(),
    )
    return GpuSample(index, f"GPU-{index}", **(figures | more))


def test_cards_processes_and_owners_are_on_the_table(nvml):
    nvml.set(machine(card(0, compute=f"1:{62 * GIB}"), card(1, utilisation="0,0", held_back=0)))
    out = top(nvml)
    first = next(line for line in out.splitlines() if line.startswith(" 0"))
    for word in ("A100-SXM4-80GB", "98%", "62.0G", "80G", "71°C", "402/400 W"):
        assert word in first
    assert "GPU 0 is held back: power cap" in out and "driver 570.86.15 · CUDA 12.8" in out
    assert "host  cpu" in out and "disk" in out


def test_without_a_gpu_one_line_says_why_and_the_host_is_shown(no_driver):
    out = top(no_driver)
    assert out.splitlines()[0] == "No NVIDIA driver found (libnvidia-ml.so.1). CPU runs still work."
    assert "host  cpu" in out and "memory" in out


def test_json_has_every_figure_and_null_for_what_is_not_told(nvml):
    nvml.set(machine(card(0, compute=f"4000001:{GIB}")))
    gpu = json.loads(top(nvml, "--json"))["gpus"][0]
    assert gpu["utilisation"] == 98 and gpu["fan_percent"] is None and gpu["stale"] is False
    assert gpu["processes"][0]["owner"] in ("not ours", "unknown")


def test_runs_at_work_are_told_with_what_they_take(no_driver, tmp_path):
    workspace = tmp_path / "ws"
    with contextlib.closing(writer(workspace / "runs.db")) as conn:
        run_id = queue.add(conn, NewRun(name="at work"))
        run_lifecycle.claim(conn, run_id)
        worker = psutil.Process()
        run_lifecycle.started(conn, run_id, worker.pid, worker.create_time())
    load = json.loads(top(no_driver, "--json", "--workspace", str(workspace)))["runs"][str(run_id)]
    assert load["processes"] >= 1 and load["rss_bytes"] > 0
    (workspace / "runs.db").write_bytes(b"scrambled" * 1000)
    assert "host  cpu" in top(no_driver, "--workspace", str(workspace)), "without a store the machine is still shown"


def test_a_hung_driver_does_not_hang_the_command(nvml):
    nvml.set(machine(card(0, all="~600"), card(1)))
    out = top(nvml)
    assert "host  cpu" in out


def test_nothing_is_wider_than_the_terminal_even_in_chinese():
    process = GpuProcess("GPU-0", 7, "compute", GIB, user="王小明同学你好世界", command="python 训练.py " + "数据" * 60)
    lines = table(Snapshot(0.0, gpus=(busy(0, processes=(process,)),)))
    widths = [sum(2 if ord(char) > 0x2E7F else 1 for char in line) for line in lines]
    assert max(widths) <= 80


def test_a_command_line_cannot_write_to_the_terminal():
    process = GpuProcess("GPU-0", 7, "compute", GIB, user="kim", command="python \x1b]0;owned\x07\x1b[2J\u202e\n x")
    text = "\n".join(table(Snapshot(0.0, gpus=(busy(0, processes=(process,)),))))
    assert not any(char in text for char in "\x1b\x07\u202e") and "owned" in text


def test_what_a_card_does_not_tell_is_shown_as_not_available_and_never_as_zero():
    bare = GpuSample(0, "GPU-0", name="Odd card", age_seconds=0.1)
    row = table(Snapshot(0.0, gpus=(bare,)))[1]
    assert row.count("n/a") == 5 and "0%" not in row and "0 W" not in row


def test_old_figures_say_how_old_they_are():
    text = "\n".join(table(Snapshot(0.0, gpus=(busy(0, age_seconds=12.4, problem="has not answered for 12s"),))))
    assert "has not answered for 12s" in text and "figures are 12s old" in text


def test_a_run_is_named_on_its_card_and_other_users_by_name():
    ours = GpuProcess("GPU-0", 7, "compute", GIB, user="me", run=41, command="python")
    other = GpuProcess("GPU-0", 8, "compute", GIB, user="kim", command="python")
    load = RunSample(41, 0.0, 3, cpu_percent=250.0, rss_bytes=3 * GIB)
    lines = table(Snapshot(0.0, gpus=(busy(0, processes=(ours, other)), busy(1)), runs={41: load}))
    assert lines[1].endswith("41 kim") and lines[2].endswith("—")
    assert any(line.split()[:5] == ["0", "8", "kim", "1.0G", "not"] for line in lines)
    assert any(line.split()[:4] == ["41", "3", "250%", "3.0G"] for line in lines)


def test_a_container_limit_is_shown_beside_the_machines_memory():
    host = HostSample(0.0, 0.1, 50.0, 8, 1.0, 2 * GIB, 64 * GIB, 16 * GIB, 0, 0, "this container", GIB)
    lines = table(Snapshot(0.0, host=host))
    assert any("memory 2.0G of 64.0G · " in line for line in lines)
    assert "limit memory 1.0G of the 16.0G of this container" in lines


def test_numbers_are_short_and_true():
    assert [rate(None), rate(0), rate(1500), rate(30 << 20), rate(3 << 30)] == [
        "n/a",
        "0B/s",
        "1K/s",
        "30M/s",
        "3.0G/s",
    ]
    assert [gauge(0, 3), gauge(0.5, 3), gauge(1, 3), gauge(None, 3)] == ["···", "█▌·", "███", "   "]
    assert cut("训练数据", 5) == "训练…"
