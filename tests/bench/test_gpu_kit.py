"""The GPU kit, as far as a machine without a GPU can tell: it stops in time, goes on, and every check can fail."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu_kit
import psutil
import pytest
from gpu import STAGES, docstring, measurements, schedule
from gpu.findings import ABSENT, FAILED, OK, REHEARSED, SHORT, Findings, Measurement
from gpu.kit import MARK, Kit
from gpu.records import RESULTS, Book, read, source_hash, table
from gpu.stages import energy, estimate, monitor, speed, train, warm
from gpu.stages import eval as evaluation

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = {"device": "cuda", "size": "full", "card": "Some card", "driver": "1", "cuda": "13.0", "python": "3.12",
            "torch": "2.11.0", "transformers": "5.17.0", "source": "abc"}  # fmt: skip
ALL = [(stage, one) for stage in STAGES for one in measurements(stage)]


@pytest.fixture
def kit(tmp_path) -> Kit:
    made = Kit("cpu", "tiny", tmp_path / "out", tmp_path / "scratch")
    made.out.mkdir()
    made.scratch.mkdir()
    return made


@pytest.fixture
def clock(monkeypatch):
    """`schedule` sees the seconds that a test lets pass."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(schedule, "time", made)
    return made


def result(verdict: str = OK, **more) -> dict:
    return {"verdict": verdict, "checks": [], "figures": [], "notes": [], "seconds": 1.0, "began": 0.0} | more


def words(kit: Kit, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "bench" / "gpu_kit.py"), *kit.words(), *more]


# -- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_proves_and_when_it_falls_short(stage):
    text = docstring(stage)
    assert text.startswith(f"{stage}: ") and all(word in text for word in ("Proves:", "\nok:", "Fell short:"))
    keys = [one.key for one in measurements(stage)]
    assert keys and len(set(keys)) == len(keys)
    assert f"| {stage} |" in (ROOT / "docs" / "gpu.md").read_text("utf-8")


def test_listing_the_stages_loads_no_torch(kit):
    code = "import gpu_kit, sys; gpu_kit.main(['--stages']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=kit.environment() | {"PYTHONPATH": f"{ROOT}/bench:{ROOT}"})
    assert done.returncode == 0


def test_all_stages_take_five_commands_of_eight_minutes(clock, tmp_path):
    """By what each is expected to take; nothing is begun that would not end in time."""
    book = Book(tmp_path, IDENTITY)
    for _ in range(5):
        ends = clock.now + 8 * 60

        def take(stage, one, limit, ends=ends):
            clock.now += one.seconds
            assert clock.now <= ends and limit <= ends + schedule.GRACE_SECONDS - (clock.now - one.seconds)
            return result()

        clock.now += 5  # its start
        schedule.take_all(book, ALL, ends, take)
    assert len(book.latest()) == len(ALL)
    assert schedule.exit_code(book, ALL) == schedule.ALL_DONE


# -- going on --------------------------------------------------------------------------------------------------------


def test_a_command_goes_on_where_the_one_before_was_killed(clock, tmp_path):
    taken = []

    def take(stage, one, limit):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append((stage, one.key))
        return result()

    with pytest.raises(KeyboardInterrupt):
        schedule.take_all(Book(tmp_path, IDENTITY), ALL, clock.now + 1e6, take)
    with open(tmp_path / RESULTS, "a") as file:
        file.write('{"stage": "smoke", "key": "half of a li')
    again = []
    book = Book(tmp_path, IDENTITY)
    schedule.take_all(book, ALL, clock.now + 1e6, lambda stage, one, limit: again.append((stage, one.key)) or result())
    assert taken + again == [(stage, one.key) for stage, one in ALL]
    assert len(read(tmp_path / RESULTS)) == len(ALL), "the half line has spoilt no other"


def test_results_of_another_card_version_or_source_do_not_count(clock, tmp_path):
    Book(tmp_path, IDENTITY).add("smoke", "run", result())
    assert Book(tmp_path, IDENTITY).done("smoke", "run")
    for key in ("card", "torch", "source", "size"):
        assert not Book(tmp_path, IDENTITY | {key: "other"}).done("smoke", "run")


def test_the_source_is_known_by_its_content_not_by_git(tmp_path, monkeypatch):
    for name in ("engine", "bench"):
        (tmp_path / name).mkdir()
    (tmp_path / "engine" / "a.py").write_text("1")
    monkeypatch.setattr("gpu.records.ROOT", tmp_path)
    before = source_hash()
    assert source_hash() == before
    (tmp_path / "engine" / "a.py").write_text("2")
    assert source_hash() != before


def test_what_failed_is_tried_once_more_and_last(clock, tmp_path):
    some = ALL[:3]
    book = Book(tmp_path, IDENTITY)
    schedule.take_all(
        book, some, clock.now + 1e6, lambda stage, one, limit: result(FAILED if one is some[0][1] else OK)
    )
    assert schedule.exit_code(book, some) == schedule.WRONG
    order = []
    schedule.take_all(book, ALL[:4], clock.now + 1e6, lambda stage, one, limit: order.append(one) or result(FAILED))
    assert order == [ALL[3][1], ALL[0][1]]
    assert book.done(some[0][0], some[0][1].key), "twice is enough"


def test_a_killed_kit_leaves_nothing_behind_and_the_next_says_what_is_left(kit):
    started = subprocess.Popen(words(kit, "oom"), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: "=== oom halved" in (kit.out / "log.txt").read_text() and marked(kit))
    finally:
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
    done = subprocess.run(words(kit, "oom", "--minutes", "0"), capture_output=True, text=True)
    assert done.returncode == schedule.LEFT, done.stderr
    assert "Left for the next command, which goes on from here: oom halved, oom fitted" in done.stdout
    wait_for(lambda: not marked(kit))


def test_a_measurement_that_hangs_is_ended_with_its_kin(kit, tmp_path, monkeypatch):
    script = tmp_path / "hangs.py"
    script.write_text(
        "import subprocess, sys, time, os\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], start_new_session=True)\n"
        "time.sleep(99)\n"
    )
    monkeypatch.setattr(schedule, "SCRIPT", script)
    (kit.passing / "checkpoints of one that was killed").mkdir(parents=True)
    taken = schedule.take(kit, "oom", Measurement("halved", 1, lambda kit: Findings()), 1.5)
    assert not list(kit.passing.iterdir())
    assert taken["verdict"] == FAILED and "no result after" in taken["error"]
    assert not marked(kit)


def marked(kit: Kit) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == kit.mark and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_has_no_meaning_without_a_card_is_never_ok(kit, monkeypatch):
    """And passes through the whole program: a process of its own, a line, a table."""
    monkeypatch.setenv("FINETOP_BENCH_CACHE", str(kit.scratch))  # which the program sets
    context = [one for one in measurements("estimate") if one.key == "context"]
    monkeypatch.setattr(schedule, "measurements", lambda stage: context if stage == "estimate" else [])
    identity = IDENTITY | {"device": "cpu"}
    plan = schedule.plan(["estimate/context"])
    assert [(stage, one.key) for stage, one in plan] == [("estimate", "context")]
    assert schedule.run(kit, identity, plan, 1, time.monotonic()) == schedule.ALL_DONE
    (line,) = read(kit.out / RESULTS)
    assert (line["key"], line["verdict"]) == ("context", ABSENT) and "not on a CPU" in line["error"]
    assert "| estimate | context | not here |" in (kit.out / "table.md").read_text()
    assert "A rehearsal on a CPU" in (kit.out / "table.md").read_text()
    assert gpu_kit.main(["--docs", *kit.words()]) == 2, "and never comes into the docs"


def test_an_error_becomes_one_short_line(kit, monkeypatch):
    def breaks(kit: Kit) -> Findings:
        raise RuntimeError("first line\nsecond line\n" + "x" * 5000)

    monkeypatch.setattr(schedule, "measurements", lambda stage: [Measurement("a", 1, breaks)])
    taken = schedule.one(kit, "smoke", "a")
    assert taken["verdict"] == FAILED and taken["error"] == "RuntimeError: first line"


# -- verdicts --------------------------------------------------------------------------------------------------------


def test_a_verdict_follows_from_the_checks_alone():
    findings = Findings()
    assert findings.verdict("cuda") == SHORT, "nothing checked is nothing proved"
    findings.close("a figure", 1.0, 1.001, 0.01)
    assert (findings.verdict("cuda"), findings.verdict("cpu")) == (OK, REHEARSED)
    for wrong in (math.nan, None, 1.2):
        worse = Findings()
        worse.close("a figure", wrong, 1.0, 0.1)
        assert worse.verdict("cuda") == SHORT
    assert not Findings().at_least("x", math.nan, 0) and not Findings().at_most("x", math.nan, 0)


def test_the_table_shows_what_fell_short(tmp_path):
    findings = Findings()
    findings.check("as | many", False, "3\nfor 4")
    findings.figure("speed", 51234.5, "tokens/s")
    findings.figure("share", 0.41, "%")
    line = result(findings.verdict("cuda"), **vars(findings))
    text = table(IDENTITY, {("speed", "7b"): line, ("eval", "a"): result(FAILED, error="it broke")}, ["oom halved"])
    assert "| speed | 7b | fell short | speed 51,234 tokens/s; share 41.0% | not as \\| many: 3 for 4 |" in text
    assert "| eval | a | failed |  | it broke |" in text and "Not measured yet: oom halved" in text
    assert "Some card" in text and "driver 1, CUDA 13.0" in text and "torch 2.11.0" in text


def test_the_table_of_a_card_is_written_into_the_docs_and_again(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_BENCH_CACHE", str(kit.scratch))
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(gpu_kit, "DOCS", page)
    for seconds in ("12", "13"):
        findings = Findings()
        findings.check("all is well", True)
        findings.figure("took", seconds)
        Book(kit.out, IDENTITY).add("smoke", "run", result(findings.verdict("cuda"), **vars(findings)))
        assert gpu_kit.main(["--docs", *kit.words()]) == 0
    text = page.read_text("utf-8")
    assert "| smoke | run | ok | took 13 |" in text and "took 12" not in text and "Some card" in text
    assert text.endswith((ROOT / "docs" / "gpu.md").read_text("utf-8").partition(gpu_kit.END)[2])


def verdict_of(judge, *values) -> str:
    findings = Findings()
    judge(findings, *values)
    return findings.verdict("cuda")


ROW = {"measured": 100.0, "trace": 102.0, "arithmetic": 110.0}
USAGE = {"energy_joules": 1000.0, "energy_from": "counter"}
SPANS = [("sm90_xmma_gemm_bf16", 0, 60), ("pytorch_flash::flash_fwd_kernel<cutlass>", 60, 80), ("Memcpy HtoD", 80, 90)]
LOSSES = [3.0, 2.9, 2.7]
SPEEDS = {"ours": 2.0, "trl": 1.0, "trl-packing": 1.9}


@pytest.mark.parametrize(
    ("judge", "right", "wrong"),
    [
        (train.same_losses, (LOSSES, LOSSES, 1e-3, 1e-2), ([3.0, 2.9, 2.6], LOSSES, 1e-3, 1e-2)),
        (train.same_losses, (LOSSES, LOSSES, 1e-3, 1e-2), ([3.1, 2.9, 2.7], LOSSES, 1e-3, 5e-2)),
        (train.same_losses, (LOSSES, LOSSES, 1e-3, 1e-2), (LOSSES[:2], LOSSES, 1e-3, 1e-2)),
        (train.same_losses, (LOSSES, LOSSES, 1e-3, 1e-2), ([3.0, math.nan, 2.7], LOSSES, 1e-3, 1e-2)),
        (train.same_losses, (LOSSES, LOSSES, 1e-3, 1e-2), ([3.0, 3.0, 3.001], [3.0, 3.0, 3.0], 1e-3, 1e-2)),
        (estimate.judge, (ROW,), (ROW | {"trace": 115.0},)),
        (estimate.judge, (ROW,), (ROW | {"arithmetic": 75.0},)),
        (energy.judge, (USAGE, 1010.0, 20.0, 2.5), (USAGE, 1400.0, 20.0, 2.5)),
        (energy.judge, (USAGE, 1010.0, 20.0, 2.5), (USAGE | {"energy_from": "power"}, 1010.0, 20.0, 2.5)),
        (energy.judge, (USAGE, 1010.0, 20.0, 2.5), ({}, 1010.0, 20.0, 2.5)),
        (warm.judge, ([5.0], [1.0], ["spawned", "Started, forked"]), ([1.0], [5.0], ["x", "Started, forked"])),
        (warm.judge, ([5.0], [1.0], ["spawned", "Started, forked"]), ([5.0], [1.0], ["x", "Started, spawned"])),
        (speed.judge, (SPEEDS,), (SPEEDS | {"trl-packing": 2.1},)),
        (speed.judge_share, ("7b", 0.41), ("7b", 0.39)),
        (speed.judge_profile, (SPANS, 100), ([*SPANS, ("mystery", 90, 99)], 100)),
        (speed.judge_profile, (SPANS, 100), (SPANS, 70)),
        (speed.judge_profile, (SPANS, 100), ([], 100)),
        (evaluation.judge, ("a", {"finetop": [2.0], "generate": [1.0]}), ("a", {"finetop": [1], "generate": [2]})),
        (evaluation.judge_answers, ([[1], [2]], [[1], [2]]), ([[1], [3]], [[1], [2]])),
        (evaluation.judge_answers, ([[1], [2]], [[1], [2]]), ([[1], [1]], [[1], [1]])),
    ],
)  # fmt: skip
def test_every_judgement_can_fall_short(judge, right, wrong):
    findings = Findings()
    judge(findings, *right)
    if judge is speed.judge:
        assert {figure["name"]: figure["value"] for figure in findings.figures}["finetop is"] == pytest.approx(2 / 1.9)
    assert findings.verdict("cuda") == OK, findings.checks
    assert verdict_of(judge, *wrong) == SHORT


def test_an_engine_that_did_other_work_is_no_rival_and_ours_must_have_done_its_own():
    class Run:
        reasons, tokens_per_second, peak_bytes = ["2 labels differ"], 100.0, 1

    findings = Findings()
    assert (
        not speed.take_row(findings, "trl", "TRL", Run)
        and not findings.checks
        and "2 labels differ" in findings.notes[0]
    )
    assert not speed.take_row(findings, "ours", "finetop", Run) and findings.verdict("cuda") == SHORT


def test_a_profile_is_cut_into_parts_of_the_whole():
    findings = Findings()
    speed.judge_profile(findings, [*SPANS, ("multi_tensor_apply_kernel", 50, 70)], 100)
    shares = {figure["name"]: figure["value"] for figure in findings.figures}
    assert shares == pytest.approx({
        "matrix products": 0.6, "optimizer and clipping": 0.1, "attention": 0.1, "copies and casts": 0.1,
        "gaps, waiting for the host": 0.1,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float>", "matrix products"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, cutlass::bfloat16_t>>", "attention"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer and clipping"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "copies and casts"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>", "copies and casts"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>", "elementwise and norms"),
        ("void at::native::reduce_kernel<512, 1, at::native::MeanOps>", "elementwise and norms"),
        ("void (anonymous namespace)::softmax_warp_forward<float>", "loss"),
        ("Memset (Device)", "copies and casts"),
    ],
)  # fmt: skip
def test_kernels_are_told_by_their_names(kernel, kind):
    assert speed.kind_of(kernel) == kind


TOP = {
    "driver": "570.1",
    "gpus": [{
        "uuid": "GPU-0", "name": "A card", "memory_total_bytes": 80 << 30, "memory_used_bytes": 10 << 30,
        "temperature_c": 50, "power_watts": 300.0, "sm_clock_mhz": 1900, "utilisation": 97.0, "problem": None,
        "stale": False, "processes": [{"pid": 7, "run": 1, "memory_bytes": 9 << 30}],
    }],
}  # fmt: skip
SMI = {"uuid": "GPU-0", "name": "A card", "driver_version": "570.1", "memory.total": "81920", "memory.used": "10240",
       "utilization.gpu": "95", "temperature.gpu": "51", "power.draw": "310.2", "clocks.sm": "1905"}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"uuid": "GPU-1"}, {"name": "Another"}, {"driver_version": "2"}, {"memory.total": "40960"},
     {"memory.used": "9000"}, {"utilization.gpu": "20"}, {"temperature.gpu": "70"}, {"power.draw": "100"},
     {"clocks.sm": "400"}, {"power.draw": "[N/A]"}],
)  # fmt: skip
def test_a_reading_that_is_not_nvidia_smis_falls_short(wrong):
    findings = Findings()
    monitor.compare(findings, TOP, SMI, SMI)
    assert findings.verdict("cuda") == OK, findings.checks
    findings = Findings()
    monitor.compare(findings, TOP, SMI | wrong, SMI | wrong)
    assert findings.verdict("cuda") == SHORT


def test_the_memory_of_a_run_is_told_by_its_process():
    class Run:
        pid = 7

    class Session:
        def run(self, run_id):
            return Run()

    class Cpu:
        cuda = False

    def verdict(top, by_pid):
        return verdict_of(lambda findings: monitor.whose(Cpu(), findings, Session(), 1, top, [by_pid]))

    assert verdict(TOP, {7: 9216}) == OK
    assert verdict(TOP, {7: 4000}) == SHORT and verdict(TOP, {}) == SHORT
    strange = [TOP["gpus"][0] | {"processes": [{"pid": 7, "run": None, "memory_bytes": 9 << 30}]}]
    assert verdict(TOP | {"gpus": strange}, {7: 9216}) == SHORT


def test_figures_pass_through_the_stand_in_driver_and_the_monitor(kit):
    """The rehearsal of `monitor` without a run: finetop's own command on the stand-in, and a reading that moves."""
    from gpu.fake_card import FakeCard
    from gpu.findings import NotHere
    from gpu.runs import Session

    try:
        fake = FakeCard(kit.scratch)
    except NotHere as reason:
        pytest.skip(str(reason))
    (kit.scratch / "workspace").mkdir()
    top = json.loads(Session(kit, kit.scratch / "workspace", **fake.environment).finetop("top", "--json").stdout)
    reading = monitor.smi(kit, fake)
    findings = Findings()
    monitor.compare(findings, top, reading, reading)
    assert findings.verdict("cpu") == REHEARSED, findings.checks
    fake.hold(os.getpid(), 20 << 30)
    later = monitor.smi(kit, fake)
    assert verdict_of(lambda findings: monitor.compare(findings, top, later, later)) == SHORT


# -- every stage, for real -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory) -> Kit:
    """One OUT and one scratch folder for all stages, so that the model and the chats are made once."""
    root = tmp_path_factory.mktemp("gpu-kit")
    return Kit("cpu", "tiny", root / "out", root / "scratch")


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_rehearses_on_a_cpu(stage, rehearsed):
    done = subprocess.run(words(rehearsed, stage, "--minutes", "20"), capture_output=True, text=True)
    lines = {line["key"]: line for line in read(rehearsed.out / RESULTS) if line["stage"] == stage}
    assert lines.keys() == {one.key for one in measurements(stage)}, done.stderr
    told = {key: (line.get("error"), [c for c in line["checks"] if not c["ok"]]) for key, line in lines.items()}
    assert {line["verdict"] for line in lines.values()} <= {REHEARSED, ABSENT}, told
    assert done.returncode == schedule.ALL_DONE
    assert len(list(rehearsed.out.rglob("*"))) <= 8
    again = subprocess.run(words(rehearsed, stage), capture_output=True, text=True)
    assert again.returncode == schedule.ALL_DONE and " ... " not in again.stdout, "nothing is taken twice"
