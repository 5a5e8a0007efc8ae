"""What is offered to a failed run, that the numbers mean the same everywhere, and what is queued."""

import contextlib
import json

import pytest

from engine.base.errors import InputError
from engine.base.messages import msg, records
from engine.base.workspace import Workspace
from engine.cli.main import main
from engine.control import Control
from engine.monitor.samples import GpuSample
from engine.plan.fixes import (
    Fix,
    chosen_fix,
    failure_cause,
    fixed,
    fixes_of,
    gpu_of,
    settings_like,
    together,
    wrong_setting,
)
from engine.plan.gpu_fit import GpuSpec
from engine.runs.failure_reasons import BROKEN_MODEL, SINGLE_EXAMPLE_TOO_LARGE
from engine.settings.resolve import Layer, read_run, resolve
from engine.store import queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.journal_import import import_journal
from engine.store.run_records import Event, Run, RunState
from tests.engine.store.storekit import line, write

GIB = 2**30


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    monkeypatch.setenv("FINETOP_WORKSPACE", str(tmp_path / "work"))
    (tmp_path / "rows.csv").write_text("text,label\nhello,greeting\nbye,leaving\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path / "work")


def fail(workspace: Workspace, settings: dict, *lines: bytes, reason: str = "it broke", **last: object) -> int:
    """A run that was queued with these settings and failed so."""
    layer = Layer("--set", {"data.files": [str(workspace.root.parent / "rows.csv")], **settings})
    with Control(workspace) as control:
        run_id = control.add(resolve([layer]))
    folder = workspace.runs / str(run_id)
    begin = [line("state", state="starting", pid=1), line("state", state="running", step=0)]
    write(folder, *begin, *lines, line("state", state="failed", step=3, reason=reason, **last))
    with contextlib.closing(writer(workspace.database)) as conn:
        run_lifecycle.claim(conn, run_id)
        import_journal(conn, run_id, folder)
    return run_id


def fixes(workspace: Workspace, run_id: int, gpu: GpuSpec | None = None) -> list[Fix]:
    with contextlib.closing(reader(workspace.database)) as conn:
        run = queries.run(conn, run_id)
        assert run is not None and run.state is RunState.FAILED
        return fixes_of(conn, run, workspace.runs / str(run_id), gpu)


def failed(**fields: object) -> Run:
    blank = Run._make([None] * len(Run._fields))
    return blank._replace(**{"id": 1, "state": RunState.FAILED, "gpus": (), **fields})


FULL = {"model.name": "Qwen/Qwen3-8B", "method.kind": "full", "optim.learning_rate": 1e-5}
OOM = {"reason": "out of memory at step 3", "cause": "out-of-memory"}


def test_out_of_memory_is_helped_cheapest_first_with_what_each_saves_and_whether_it_is_enough(workspace):
    run_id = fail(workspace, FULL, **OOM)
    offered = fixes(workspace, run_id, GpuSpec("a card", 80 * GIB))
    assert [next(iter(fix.settings)) for fix in offered] == ["optim.name", "method.kind", "method.kind"]
    lora = offered[1]
    assert lora.settings == {"method.kind": "lora", "optim.learning_rate": "auto"}, "not at the rate of all weights"
    assert [fix.fits for fix in offered] == [False, True, True]
    assert offered[0].saved_bytes > 40 * GIB and offered[0].effect.startswith("~−")
    assert "not enough alone" in offered[0].effect and "then it fits" in lora.effect
    assert [fix.settings for fix in fixes(workspace, run_id)] == [fix.settings for fix in offered], "on any machine"
    assert all(fix.fits is None for fix in fixes(workspace, run_id, GpuSpec("a larger one", 400 * GIB)))


def test_of_a_pass_that_was_the_smallest_already_no_smaller_one_is_offered(workspace):
    settings = {"model.name": "Qwen/Qwen3-8B", "data.max_length": 1024}
    data = line("data", train={"longest": 900})
    loose = fail(workspace, settings, data, line("resume", from_step=-1, micro_tokens=4096), **OOM)
    tight = fail(workspace, settings, data, reason="out of memory at step 3 with a single example of 900 tokens: x",
                 cause="out-of-memory")  # fmt: skip
    assert fixes(workspace, loose)[0].settings == {"train.micro_tokens": 2048}
    offered = [fix.settings for fix in fixes(workspace, tight)]
    assert {"data.max_length": 450} in offered and not any("train.micro_tokens" in settings for settings in offered)
    templates = SINGLE_EXAMPLE_TOO_LARGE(step=3, tokens=900, failure="x")
    of_a_rank = msg("{rank} failed: {reason}", rank="rank 1 (pid 7)", reason=templates)
    for reason in (templates, of_a_rank, str.__str__(of_a_rank)):
        run_id = fail(
            workspace, settings, data, reason=reason, messages=records({"reason": reason}), cause="out-of-memory"
        )
        assert [fix.settings for fix in fixes(workspace, run_id)] == offered, (
            "by its template; of old journals, by text"
        )
    elsewhere = msg("gave up: {error}", error="with a single example")
    run_id = fail(workspace, settings, data, line("resume", from_step=-1, micro_tokens=4096), reason=elsewhere,
                  messages=records({"reason": elsewhere}), cause="out-of-memory")  # fmt: skip
    assert fixes(workspace, run_id)[0].settings == {"train.micro_tokens": 2048}, "words alone decide nothing"


def test_a_loss_that_is_no_number_is_helped_unless_the_model_is_at_fault(workspace):
    broke = fail(workspace, {"optim.learning_rate": 3e-4}, reason="the loss became NaN at step 3", cause="not-finite")
    assert fixes(workspace, broke)[0].settings == {"optim.learning_rate": 1e-4}
    for method, lower in (("lora", 1e-3), ("full", 1e-4)):
        wild = fail(workspace, {"optim.learning_rate": 1e9, "method.kind": method}, reason="NaN", cause="not-finite")
        assert fixes(workspace, wild)[0].settings == {"optim.learning_rate": lower}, "a third of it would fail again"
    auto = fail(workspace, {}, line("plan", settings={"optim.learning_rate": 2e-4}), reason="NaN", cause="not-finite")
    assert fixes(workspace, auto)[0].settings == {"optim.learning_rate": 6.7e-5}
    reason = BROKEN_MODEL(number="NaN", model="m", reason="its weights are all numbers")
    model = fail(
        workspace, {}, reason=reason, messages=records({"reason": reason}), cause="not-finite",
        hint="Its numbers may be too large for 16 bits: try --set model.dtype=float32.",
    )  # fmt: skip
    assert [fix.settings for fix in fixes(workspace, model)] == [{"model.dtype": "float32"}]


def test_a_full_disk_bad_rows_and_a_models_own_code_have_fixes_of_their_own(workspace):
    disk = fail(workspace, FULL, reason="x cannot be written: No space left on device", cause="exception")
    assert fixes(workspace, disk)[0].settings == {"save.keep_last": 1, "save.keep_epochs": 1}, (
        "as earlier versions had it"
    )
    quota = fail(workspace, FULL, reason="no space left in /data", cause="disk-full")
    assert fixes(workspace, quota) == fixes(workspace, disk)
    hint = "Mend or remove these rows, or allow more with --set data.max_bad_share=SHARE (0.05 is 5%)."
    rows = fail(workspace, {"data.map": {"prompt": "ask"}}, reason="rows are bad", hint=hint, cause="input")
    assert [fix.settings for fix in fixes(workspace, rows)] == [{"data.max_bad_share": 1.0}, {"data.map": {}}]
    hint = "The model brings its own code. If you trust it: --set model.trust_remote_code=true"
    code = fail(workspace, {}, reason="it cannot be loaded", hint=hint, cause="input")
    assert [fix.settings for fix in fixes(workspace, code)] == [{"model.trust_remote_code": True}]
    assert fixes(workspace, fail(workspace, {}, reason="killed by signal 11", end="signal")) == []


def test_a_fix_is_queued_by_command_with_the_settings_that_the_screen_queues(workspace, capsys):
    run_id = fail(workspace, FULL, **OOM)
    folder = workspace.runs / str(run_id)
    by_screen = fixed(folder, fixes(workspace, run_id)[1])
    assert main(["add", "--like", str(run_id), "--fix", "2"]) == 0
    by_command = read_run(workspace.runs / capsys.readouterr().out.strip())
    assert by_command == by_screen
    assert by_command.config.run.name.endswith("-fixed") and by_command.origin["method.kind"] == "fix"
    assert by_command.origin["data.files"] == "--set", "what the fix leaves alone comes from where it came"
    assert main(["show", str(run_id)]) == 0
    out = capsys.readouterr().out
    assert "what usually helps, cheapest first" in out and "1  8-bit optimizer" in out and f"--like {run_id}" in out
    assert main(["show", str(run_id), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fixes"][1]["settings"]["method.kind"] == "lora"


def test_a_run_like_another_takes_its_settings_under_those_of_the_flags(workspace, capsys):
    run_id = fail(workspace, {"lora.r": 4, "train.epochs": 2})
    assert main(["add", "--like", str(run_id), "--epochs", "5", "--fix", "1"]) == 2
    assert "no change of settings is known to help" in capsys.readouterr().err
    assert main(["add", "--like", str(run_id), "--epochs", "5"]) == 0
    copy = read_run(workspace.runs / capsys.readouterr().out.strip())
    assert (copy.config.lora.r, copy.config.train.epochs) == (4, 5)
    assert copy.origin["train.epochs"] == "--epochs" and copy.origin["lora.r"] == "--set"
    assert settings_like(workspace.runs / str(run_id), []) == read_run(workspace.runs / str(run_id))
    assert main(["add", "--fix", "1"]) == 2 and main(["add", "--like", "99"]) == 2


def test_a_number_that_stands_for_no_fix_is_refused():
    with pytest.raises(InputError, match="run 4 has no fix 3"):
        chosen_fix([Fix("a", {}), Fix("b", {})], [1, 3], 4)


def test_the_cause_of_a_failure_is_the_workers_word_of_the_last_attempt():
    events = (
        Event(1, 1, 0.0, "state", None, "failed", {"cause": "not-finite"}),
        Event(2, 1, 0.0, "state", None, "starting", {}),
        Event(3, 1, 0.0, "state", None, "failed", {"cause": "out-of-memory"}),
    )
    assert failure_cause(failed(), events) == "out-of-memory"
    assert failure_cause(failed(reason="loss became NaN"), events[:2]) == "failed", "of this attempt none is known"


def test_what_a_run_should_fit_is_the_smallest_gpu_it_had():
    gpus = [GpuSample(index, f"GPU-{index}", memory_total_bytes=(index + 1) * GIB) for index in range(3)]
    run = failed(gpus=("2", "GPU-1"))
    assert gpu_of(run, gpus) == GpuSpec("GPU-1", 2 * GIB) and gpu_of(failed(), gpus) is None


@pytest.mark.parametrize(("gpus", "offered"), [((), True), (("0",), False)])
def test_host_memory_is_saved_by_less_in_a_pass_only_where_they_lie_in_it(workspace, gpus, offered):
    settings = {"model.name": "Qwen/Qwen3-8B", "optim.name": "paged_adamw8bit", "run.gpu_count": 4}
    device = line("model", device="cuda" if gpus else "cpu")
    run_id = fail(workspace, settings, device, line("resume", from_step=-1, micro_tokens=2048))
    with contextlib.closing(writer(workspace.database)) as conn:
        conn.execute("UPDATE runs SET gpus = ? WHERE id = ?", (json.dumps(gpus), run_id))
        queue.note(conn, run_id, "ended", "oom-killer: out of memory", detail={"cause": "oom-killer"})
    paths = [tuple(fix.settings) for fix in fixes(workspace, run_id)]
    assert (("data.max_length",) in paths) == offered
    assert ((("run.gpu_count",) in paths) and (("optim.name",) in paths)) == (not offered)


def test_a_file_that_may_not_be_so_large_needs_a_smaller_checkpoint(workspace):
    run_id = fail(workspace, FULL, cause="file-too-large")
    assert [fix.settings["method.kind"] for fix in fixes(workspace, run_id)] == ["lora"]
    assert fixes(workspace, fail(workspace, {"model.name": "Qwen/Qwen3-8B"}, cause="file-too-large")) == []


def test_several_fixes_are_one_and_of_two_for_one_setting_the_later_counts(workspace, capsys):
    made = together([Fix("a", {"x": 1, "y": 1}), Fix("b", {"y": 2})])
    assert (made.label, made.settings) == ("a + b", {"x": 1, "y": 2})
    run_id = fail(workspace, {"optim.learning_rate": 3e-3}, cause="not-finite")
    first, second, *_ = fixes(workspace, run_id)
    assert main(["add", "--like", str(run_id), "--fix", "2,1"]) == 0
    both = read_run(workspace.runs / str(int(capsys.readouterr().out))).config.flat()
    assert {path: both[path] for path in first.settings | second.settings} == first.settings | second.settings
    assert main(["add", "--like", str(run_id), "--fix", "1,99"]) == 2
    assert main(["add", "--like", str(run_id), "--fix", "one"]) == 2


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("no such file: /data/chats.jsonl", "data.files"),
        ("the model org/nowhere is not on this machine", "model.name"),
        ("too many bad rows\nRaise data.max_bad_share, or mend the file /data/chats.jsonl.", "data.max_bad_share"),
        ("killed by signal 9", ""),
    ],
)
def test_the_setting_that_was_wrong_is_what_the_failure_names(words, path):
    settings = {"data.files": ["/data/chats.jsonl"], "model.name": "org/nowhere", "data.val_files": []}
    assert wrong_setting([], words, settings) == path
    assert wrong_setting([Fix("smaller", {"optim.warmup": 0.1})], words, settings) == "optim.warmup"
