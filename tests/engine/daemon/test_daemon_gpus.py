"""Runs on GPUs, from the driver's answers to the worker's environment; the driver is the monitor's stand-in."""

import json

import pytest

from engine.store import gpu_samples
from engine.store.run_records import RunState
from tests.engine.daemon.daemonkit import Bench
from tests.engine.fake_nvml.library import GIB, card, machine, uuid

pytest_plugins = ["tests.engine.fake_nvml.fixtures"]


@pytest.fixture
def bench(tmp_path, driver):
    made = Bench(tmp_path / "workspace")
    yield made
    made.close()


def environment(bench, run_id: int) -> dict[str, str]:
    return json.loads((bench.workspace.runs / str(run_id) / "environment.json").read_text())


def test_a_run_gets_the_card_that_has_room_and_the_next_says_what_it_waits_for(bench, nvml):
    used = card(0, memory=f"{80 * GIB},0,{70 * GIB}", compute=f"4000001:{70 * GIB}")
    free = card(1, memory=f"{80 * GIB},0,{GIB}", compute="")
    nvml.set(machine(used, free))
    wanted = {"estimate_bytes": 30 * GIB}
    first, second = bench.add(new=wanted, steps=200, pause=0.02), bench.add(new=wanted, steps=3)
    huge = bench.add(new={"estimate_bytes": 100 * GIB})
    bench.start()
    run = bench.until_step(first, 1)
    assert run.gpus == ("1",)
    assert environment(bench, first)["CUDA_VISIBLE_DEVICES"] == uuid(1)
    assert environment(bench, first)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    bench.until(lambda: bench.run(huge).wait_reason)
    assert "needs ~30.0 GiB, GPU 0 has 10.0 free: used by pid 4000001" in bench.run(second).wait_reason
    assert bench.run(huge).wait_reason == "needs ~100.0 GiB, more than the 80.0 of the largest GPU"
    ended = bench.until_ended(first, second)
    assert [run.state for run in ended] == [RunState.DONE] * 2
    assert ended[1].gpus == ("1",)
    assert bench.series(first, "gpu/util")
    assert next(value for _, value in bench.series(first, "gpu/power")) == 402.5
    bench.until(lambda: _readings(bench, uuid(1)), "readings of the card")


def _readings(bench, gpu: str):
    with bench.reading() as conn:
        return gpu_samples.gpu_readings(conn, gpu=gpu)


def test_memory_that_others_hold_is_waited_for_after_an_out_of_memory(bench, nvml):
    nvml.set(machine(card(0, memory=f"{80 * GIB},0,{60 * GIB}", compute=f"4000001:{60 * GIB}")))
    run_id = bench.add({"train.micro_tokens": 512}, {"estimate_bytes": 10 * GIB}, end="memory", once=True, pause=0.2)
    bench.start()
    bench.until(lambda: bench.run(run_id).attempts == 1 and bench.run(run_id).state is RunState.QUEUED)
    (event,) = bench.events(run_id, "memory-restart")
    assert "256 tokens a pass instead of 512 once others leave it enough memory" in event.message
    bench.until(lambda: bench.run(run_id).wait_kind == "memory")
    assert bench.run(run_id).wait_reason == "needs ~50.0 GiB, GPU 0 has 20.0 free: used by pid 4000001"
    nvml.set(machine(card(0, memory=f"{80 * GIB},0,{GIB}", compute="")))
    assert bench.until_ended(run_id)[0].state is RunState.DONE
