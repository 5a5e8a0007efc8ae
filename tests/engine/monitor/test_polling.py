"""A driver that hangs delays nobody: other cards, host and reader go on, and the old figure says its age."""

from tests.engine.fake_nvml.library import card, machine, uuid

pytest_plugins = ["tests.engine.fake_nvml.fixtures"]

BEGIN = """
import time
from pathlib import Path
from tests.engine.fake_nvml.library import card, machine, write
from engine.monitor import polling as rounds
from engine.monitor.monitor import Monitor

state = Path(sys.argv[1])
monitor = Monitor(".", period=0.1)
monitor._gpu_rounds._patience = 0.3

def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        snapshot = monitor.latest()
        if condition(snapshot):
            return snapshot
        time.sleep(0.02)
    raise SystemExit(f"never came true: {monitor.latest()}")

def fresh(gpu):
    return gpu.age_seconds is not None and gpu.age_seconds < 1.0
"""


def test_one_hung_card_leaves_the_others_fresh_and_comes_back_when_it_answers(nvml):
    nvml.set(machine(card(0), card(1), card(2)))
    hung, back = nvml.python(
        BEGIN
        + """
monitor.start()
until(lambda s: len(s.gpus) == 3 and all(map(fresh, s.gpus)))
write(state, machine(card(0), card(1, power="~60"), card(2, power=111000)))
hung = until(lambda s: s.gpus[1].stale and fresh(s.gpus[0]) and s.gpus[2].power_watts == 111.0)
write(state, machine(card(0), card(1, power=222000), card(2)))
emit([hung, until(lambda s: all(map(fresh, s.gpus)) and s.gpus[1].power_watts == 222.0)])
""",
        nvml.state,
    )
    old = hung["gpus"][1]
    assert old["power_watts"] == 402.5 and old["age_seconds"] > 3.0
    assert "has not answered for" in old["problem"]
    assert hung["gpus"][0]["problem"] is None
    assert hung["host"]["age_seconds"] < 1.0
    assert [gpu["problem"] for gpu in back["gpus"]] == [None, None, None]


def test_asking_for_the_latest_never_waits_for_the_driver(nvml):
    nvml.set(machine(card(0), card(1)))
    slowest = nvml.python(
        BEGIN
        + """
monitor.start()
until(lambda s: len(s.gpus) == 2 and all(map(fresh, s.gpus)))
write(state, machine(card(0, all="~60"), card(1, all="~60")))
slowest, end = 0.0, time.monotonic() + 2.0
while time.monotonic() < end:
    began = time.monotonic()
    monitor.latest()
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.01)
emit(slowest)
""",
        nvml.state,
    )
    assert slowest < 0.25, "a hung call would show as seconds; the rest is a busy machine"


def test_a_driver_that_hangs_at_the_start_shows_the_host_and_says_who_is_silent(nvml):
    nvml.set(machine(card(0), init="~60"))
    snapshot = nvml.python(
        BEGIN
        + """
monitor.start()
emit(until(lambda s: s.gpu_problem and s.host and s.host.cpu_percent is not None))
""",
        nvml.state,
    )
    assert snapshot["gpus"] == []
    assert "has not answered for" in snapshot["gpu_problem"]
    assert snapshot["host"]["memory_total_bytes"] > 0


def test_a_card_that_hangs_during_the_search_for_cards_leaves_the_others_fresh(nvml):
    nvml.set(machine(card(0), card(1)))
    snapshot = nvml.python(
        BEGIN
        + """
from engine.monitor import nvml
nvml.RESCAN_SECONDS = 0.0
monitor.start()
until(lambda s: len(s.gpus) == 2 and all(map(fresh, s.gpus)))
write(state, machine(card(0, power=111000), card(1, all="~60")))
emit(until(lambda s: s.gpus[1].stale and s.gpus[0].power_watts == 111.0 and fresh(s.gpus[0])))
""",
        nvml.state,
    )
    assert snapshot["gpus"][1]["power_watts"] == 402.5 and "has not answered" in snapshot["gpus"][1]["problem"]
    assert "has not answered" in snapshot["gpu_problem"]


def test_a_process_with_a_hung_driver_can_still_exit(nvml):
    nvml.set(machine(card(0, all="~600")))
    assert nvml.python(BEGIN + "monitor.start()\ntime.sleep(0.2)\nemit('out')", nvml.state, timeout=30) == "out"


def test_threads_do_not_pile_up_when_every_card_hangs(nvml):
    cards = [card(n) for n in range(4)]
    nvml.set(machine(*cards))
    threads, stuck = nvml.python(
        BEGIN
        + """
import threading
monitor.start()
until(lambda s: len(s.gpus) == 4 and all(map(fresh, s.gpus)))
write(state, machine(*[card(n, power="~60") for n in range(4)]))
until(lambda s: all(gpu.problem for gpu in s.gpus))
time.sleep(1.0)
monitor.latest()
emit([sum(t.name == "monitor-nvml" for t in threading.enumerate()), sorted(monitor._gpu_rounds.stuck)])
""",
        nvml.state,
    )
    assert stuck == [uuid(n) for n in range(4)]
    assert threads == 5, "one left behind for each card, one that goes on"
