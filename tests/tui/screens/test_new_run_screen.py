"""A new run from the keyboard: every problem at its field, sweeps, copies, forks; what is queued is what was typed."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcwidth

from engine.base.errors import InputError
from engine.base.units import GIB
from engine.base.workspace import Workspace
from engine.control import Control
from engine.monitor.samples import GpuSample, Snapshot
from engine.settings.resolve import Layer, read_run, resolve
from engine.settings.schema import SETTINGS
from engine.store import queries
from engine.store.connect import reader
from tests.tui.stage import Stage, give, played, press, until
from tests.tui.storefill import add_run
from tui.data.data_preview import preview
from tui.data.helper_process import HelperProcess
from tui.render.line import fit_line, line_cells
from tui.render.memory_lines import memory_lines
from tui.screens import new_run_form
from tui.screens.new_run_checks import check_files, memory_needs
from tui.screens.new_run_completion import complete
from tui.screens.new_run_fields import _field_line
from tui.screens.new_run_form import Form, Source, alternatives, check, problem_of, text_of, value_of
from tui.screens.new_run_layout import layout
from tui.screens.new_run_screen import NewRunScreen

SAMPLE = Path(__file__).resolve().parents[3] / "presets" / "samples" / "qa.jsonl"


def typed(**values: str) -> Form:
    form = Form()
    for path, text in values.items():
        form = form.set(path.replace("__", "."), text)
    return form


# the form


@pytest.mark.parametrize("path", list(SETTINGS))
def test_every_setting_survives_being_shown_and_typed_again(path):
    default = SETTINGS[path].default
    resolved = resolve([Layer("typed", {path: value_of(path, text_of(default))})])
    assert resolved.config.flat()[path] == default
    assert new_run_form.kind_of(path)


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("lora.r", "0", "at least 1"),
        ("lora.r", "many", "whole number"),
        ("method.kind", "lorra", "one of"),
        ("data.val_fraction", "2", "at most 0.9"),
        ("lora.r", "8,x,16", "x must be"),
        ("optim.betas", "0.9", ""),
        ("optim.learning_rate", "1e-5..1e-3:log", "sweep --random"),
    ],
)
def test_a_wrong_value_is_told_at_its_field(path, text, why):
    assert why in problem_of(path, text)
    assert check(Form().set(path, text)).problems[path]


def test_every_problem_is_told_at_once():
    form = typed(lora__r="0", train__epochs="x", optim__warmup="500", train__max_steps="100")
    assert {"lora.r", "train.epochs", "optim.warmup"} <= check(form).problems.keys()
    assert check(form).runs == ()


def test_values_with_commas_become_a_sweep_of_every_combination():
    checked = check(typed(lora__r="8,16,32", optim__learning_rate="1e-4, 5e-5", data__files=str(SAMPLE)))
    assert checked.count == 6 == len(checked.runs)
    assert {(one.config.lora.r, one.config.optim.learning_rate) for one in checked.runs} == {
        (r, rate) for r in (8, 16, 32) for rate in (1e-4, 5e-5)
    }
    assert len({one.config.run.name for one in checked.runs}) == 6


def test_lists_keep_their_commas_and_vary_by_bars():
    assert alternatives("lora.targets", "q_proj,v_proj") == ["q_proj,v_proj"]
    assert alternatives("lora.targets", "q_proj,v_proj | all-linear") == ["q_proj,v_proj", "all-linear"]
    assert alternatives("data.system", "Be brief, please") == ["Be brief, please"]
    prompts = ["你好，你是谁?", "Why, really?"]
    assert value_of("eval.prompts", text_of(prompts)) == prompts


def test_too_many_runs_are_a_problem_and_none_are_made():
    many = ",".join(map(str, range(1, 400)))
    checked = check(typed(lora__r=many))
    assert "399 runs" in checked.problems["lora.r"] and not checked.runs


def test_typing_what_was_there_takes_the_change_back():
    form = Form(Source("preset quick", {"train.epochs": 1}))
    assert form.set("train.epochs", "3").typed == {"train.epochs": "3"}
    assert form.set("train.epochs", "3").set("train.epochs", "1").typed == {}
    assert form.origin("train.epochs") == "preset quick"


def test_a_copied_run_keeps_where_its_values_had_come_from():
    source = Source("run 7", {"lora.r": 64, "train.epochs": 2}, {"lora.r": "--set", "train.epochs": "preset quick"})
    (one,) = check(Form(source).set("train.epochs", "5")).runs
    assert one.origin["lora.r"] == "--set" and one.origin["train.epochs"] == "new run"


@given(st.sampled_from(list(SETTINGS)), st.text(max_size=40))
def test_nothing_that_can_be_typed_breaks_the_form(path, text):
    checked = check(Form().set(path, text))
    assert checked.problems or checked.runs


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=20), st.integers(24, 120))
def test_a_field_is_never_wider_than_its_pane(text, problem, note, width):
    line = fit_line(_field_line("lora.r", text, problem, note, True, width), width)
    shown = "".join(piece for piece, _ in line)
    assert "\n" not in shown and "\x1b" not in shown
    # a terminal adds up characters; `wcswidth` weighs clusters, and gives some marks a cell of their own
    assert sum(wcwidth(char) for char in shown) == width or min(map(wcwidth, shown)) < 0


def test_data_and_model_that_are_not_there_are_both_told(tmp_path):
    form = typed(data__files=str(tmp_path / "no.jsonl"), model__name="/no/such/model")
    problems = check_files(check(form).runs)
    assert problems.keys() == {"data.files", "model.name"}


def test_paths_are_completed_and_folders_end_in_a_slash(tmp_path):
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "a.jsonl").write_text("")
    (tmp_path / "数据一.jsonl").write_text("")
    (tmp_path / "数据二.jsonl").write_text("")
    assert complete("data.files", f"{tmp_path}/ch")[0] == f"{tmp_path}/chats/"
    assert complete("data.files", f"x.csv,{tmp_path}/chats/a")[0] == f"x.csv,{tmp_path}/chats/a.jsonl"
    completed, names = complete("data.files", f"{tmp_path}/数")
    assert completed == f"{tmp_path}/数据" and len(names) == 2
    assert complete("method.kind", "ql")[0] == "qlora"
    assert complete("model.name", "st", ["starter"])[0] == "starter"
    assert complete("data.files", "/no/such/folder/x") == ("/no/such/folder/x", [])


def test_the_data_is_looked_at_by_a_process_of_its_own(tmp_path):
    config = check(typed(data__files=str(SAMPLE))).runs[0].config
    found = preview(config, HelperProcess())
    assert found.rows == 152 and found.error == ""
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": "b"}\nnot json\n')
    found = preview(check(typed(data__files=str(bad))).runs[0].config, HelperProcess())
    assert found.bad_rows == 1 and "bad.jsonl:2" in found.problems[0]
    child = HelperProcess()
    child.close()
    assert preview(config, child) is None


GPU = GpuSample(0, "GPU-0", name="NVIDIA RTX 4090", memory_total_bytes=24 * GIB, memory_used_bytes=0)


def shown_memory(root: Path, machine: Snapshot | None, width: int = 60, report=None, **settings: str) -> str:
    (run,) = check(typed(**settings)).runs
    lines = memory_lines(memory_needs(run.config, Workspace(root), machine, report or {}), width)
    assert all(line_cells(line) <= width for line in lines)
    return " ".join("".join(text for text, _ in line).strip() for line in lines)


@pytest.mark.parametrize("width", [28, 58, 66])
def test_what_a_run_needs_is_said_of_this_machine_only(tmp_path, width):
    on_cpu = shown_memory(tmp_path, Snapshot(0.0, gpu_problem="No NVIDIA driver."), width, data__files=str(SAMPLE))
    assert "✔ fits" in on_cpu and "this machine's memory" in on_cpu
    assert "card" not in on_cpu and "GPU" not in on_cpu and "driver" not in on_cpu
    assert "libraries and their kernels" in on_cpu and "…" not in on_cpu
    unread = shown_memory(tmp_path, None, width, data__files=str(SAMPLE))
    assert unread.startswith("needs ") and "fits" not in unread and "GPU" not in unread
    large = {"model__name": "Qwen/Qwen2.5-14B-Instruct", "method__kind": "full"}
    on_gpu = shown_memory(tmp_path, Snapshot(0.0, gpus=(GPU,)), width, **large)
    assert "✖ does not fit" in on_gpu and "RTX 4090" in on_gpu and "--set optim.name=adamw8bit → " in on_gpu


def test_a_guess_of_the_memory_is_told_from_a_count(tmp_path):
    facts = {"facts": {"longest": 77, "step_tokens": 300, "supervised": 0.3}}
    guessed = shown_memory(tmp_path, None, data__files=str(SAMPLE))
    counted = shown_memory(tmp_path, None, report=facts, data__files=str(SAMPLE))
    assert "a guess by arithmetic, as if examples had data.max_length tokens" in guessed
    assert "by arithmetic from the lengths of the examples" in counted and "guess" not in counted


@given(st.integers(20, 250), st.integers(8, 90))
def test_the_parts_never_overlap(width, height):
    regions = list(layout(width, height).values())
    for index, one in enumerate(regions):
        assert one.right <= width and one.bottom <= height
        assert not any(one.overlaps(other) for other in regions[index + 1 :])


# on the screen


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    add_run(folder, "基线", steps=60, settings={"lora.r": 64, "data.files": [str(SAMPLE)]})
    return folder


async def opened(app, pilot) -> NewRunScreen:
    await until(lambda: isinstance(app.screen, NewRunScreen) and app.screen.is_mounted)
    await until(lambda: app.screen.checked.problems or app.screen.checked.runs)
    await pilot.pause()
    return app.screen


def told(app) -> set[str]:
    return {name for name, _, _ in app.fake.calls}


@pytest.mark.parametrize("source", [None, "quick"])
@played
async def test_the_data_of_the_newest_run_is_proposed_and_what_is_typed_takes_its_place(tmp_path, source):
    files = [tmp_path / "first.jsonl", tmp_path / "other.jsonl"]
    for file in files:
        file.write_text(SAMPLE.read_text("utf-8"), "utf-8")
    newest = add_run(tmp_path, settings={"data.files": [str(files[0])]})
    app = Stage(tmp_path, lambda: NewRunScreen(source))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await until(lambda: screen.checked.runs)
        assert screen.fields.key == "data.files" and screen.pristine
        assert screen.form.origin("data.files") == f"run {newest}"
        assert app.status_text.text.startswith(f"data.files as in run {newest}")
        await press(pilot, "enter", *str(files[1]), "enter")
        await press(pilot, "h")
        await until(lambda: app.fake.calls)
        ((_, (resolved,), _),) = app.fake.calls
        assert resolved.config.data.files == [str(files[1])]
        await until(lambda: app.status_text.text == "queued run 101, held: h releases it")


@played
async def test_data_that_is_gone_is_not_proposed(tmp_path):
    add_run(tmp_path, settings={"data.files": [str(tmp_path / "gone.jsonl")]})
    app = Stage(tmp_path, lambda: NewRunScreen())
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        assert not screen.form.text("data.files")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("max_grad", "optim.grad_clip"),
        ("epochs", "train.epochs"),
        ("RANK", "lora.r"),
        ("gradient norm", "optim.grad_clip"),
    ],
)
@played
async def test_a_setting_is_found_by_its_name_by_that_elsewhere_and_by_its_help(root, text, path):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "/", *(key if key != " " else "space" for key in text), "enter")
        await until(lambda: screen.fields.key == path)


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (60, 16)])
@played
async def test_a_run_is_made_and_queued_from_the_keyboard(root, size):
    app = Stage(root, lambda: NewRunScreen("quick"))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        assert screen.fields.key == "data.files"
        await press(pilot, "enter", *str(SAMPLE), "enter")
        await press(pilot, "s")
        await until(lambda: app.fake.calls)
        ((name, (resolved,), options),) = app.fake.calls
        assert name == "add" and not options["held"]
        assert resolved.config.data.files == [str(SAMPLE)] and resolved.config.train.epochs == 1
        assert resolved.origin["train.epochs"] == "preset quick"
        await until(lambda: "queued run 101" in app.status_text.text)
        await until(lambda: app.screen is not screen)


@played
async def test_what_is_typed_takes_the_place_of_a_default_and_not_of_what_was_written(root):
    app = Stage(root, lambda: NewRunScreen("quick"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        for path, typed_text, text in (
            ("train.max_steps", "12", "12"),
            ("train.max_steps", "3", "123"),
            ("train.micro_tokens", "64", "64"),
        ):
            screen.actions.go_to(path)
            await press(pilot, "enter")
            await until(lambda: screen.editing is not None and screen.editing.has_focus)
            await press(pilot, *typed_text, "enter")
            await until(lambda: screen.editing is None)
            assert screen.form.text(path) == text


@played
async def test_a_sweep_says_how_many_runs_and_queues_them_together(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await give(pilot, screen, "lora.r", "8,16")
        await give(pilot, screen, "run.name", "ranks")
        assert "2 runs" in "\n".join(screen.head.shown_text())
        assert "× 2" in "\n".join(screen.fields.shown_text())
        await press(pilot, "h")
        await until(lambda: app.fake.calls)
        ((name, (runs,), options),) = app.fake.calls
        assert name == "add_all" and options == {"held": True, "sweep": "ranks"}
        assert [one.config.lora.r for one in runs] == [8, 16]


@played
async def test_what_is_wrong_stands_at_its_field_and_nothing_is_queued(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await give(pilot, screen, "lora.r", "0")
        await give(pilot, screen, "train.max_steps", "-4")
        row = next(line for line in screen.fields.shown_text() if "lora.r" in line)
        assert "✖" in row and "at least 1" in row
        screen.fields.action_list_top()
        await press(pilot, "s")
        assert not app.fake.calls and "2 settings wrong" in app.status_text.text
        assert screen.fields.key == "lora.r"
        await press(pilot, "e")
        assert screen.fields.key == "train.max_steps"
        await press(pilot, "backspace")
        assert "train.max_steps" not in screen.form.typed


@played
async def test_a_problem_shows_while_it_is_typed_and_escape_changes_nothing(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        screen.actions.go_to("lora.r")
        await press(pilot, "enter")
        screen.editing.value = "x"
        await until(lambda: "must be a whole number" in "\n".join(screen.info.shown_text()))
        await press(pilot, "escape")
        assert screen.editing is None and "lora.r" not in screen.form.typed
        assert app.screen is screen


@played
async def test_tab_completes_a_path_and_shows_what_there_is(root):
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        screen.actions.go_to("data.files")
        await press(pilot, "enter")
        screen.editing.value = f"{SAMPLE.parent}/"
        await press(pilot, "tab")
        await until(lambda: "qa.jsonl" in "\n".join(screen.info.shown_text()))
        screen.editing.value = f"{SAMPLE.parent}/qa"
        await press(pilot, "tab")
        await until(lambda: screen.editing.value == str(SAMPLE))


@played
async def test_the_data_and_the_memory_are_looked_at(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await until(lambda: "152 rows" in "\n".join(screen.info.shown_text()))
        await until(lambda: "needs " in "\n".join(screen.info.shown_text()))


@played
async def test_space_goes_through_the_words_a_setting_may_be(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        screen.actions.go_to("method.kind")
        await press(pilot, "space")
        assert screen.form.text("method.kind") == "qlora"
        screen.actions.go_to("lora.r")
        await press(pilot, "space")
        assert "lora.r" not in screen.form.typed


@played
async def test_a_fork_starts_from_the_checkpoint_with_what_was_changed(root):
    app = Stage(root, lambda: NewRunScreen(parent=(1, "best"), changes={"optim.learning_rate": 5e-5}))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        assert "1@best" in screen.head.shown_text()[0]
        await give(pilot, screen, "run.name", "继续")
        await press(pilot, "s")
        await until(lambda: app.fake.calls)
        assert app.fake.calls == [("fork", (1, "best", {"optim.learning_rate": 5e-5}, "继续"), {"held": False})]


@played
async def test_what_the_queue_refuses_is_said_and_may_be_tried_again(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        app.fake.refuse = InputError("the disk is full")
        await press(pilot, "s")
        await until(lambda: "disk is full" in app.status_text.text)
        assert app.screen is screen
        app.fake.refuse = None
        await press(pilot, "s")
        await until(lambda: told(app) == {"add"})


@played
async def test_all_settings_finding_one_and_going_back(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "slash", *"grad_clip", "enter")
        await until(lambda: screen.fields.key == "optim.grad_clip")
        await press(pilot, "a")
        assert "optim.grad_clip" not in [row.key for row in screen.fields.rows]
        await press(pilot, "tab")
        assert screen.info.has_focus
        await press(pilot, "tab", "escape")
        assert app.screen is not screen


@played
async def test_a_readonly_screen_queues_nothing(root):
    app = Stage(root, lambda: NewRunScreen(1), readonly=True)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot)
        await press(pilot, "s", "h")
        assert not app.fake.calls and "--readonly" in app.status_text.text


@played
async def test_a_run_that_is_gone_is_said(root):
    app = Stage(root, lambda: NewRunScreen(99))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        assert "the folder of run 99 is gone" in app.status_text.text


@played
async def test_the_token_report_is_shown(root, monkeypatch):
    report = {
        "auto": {"train.epochs": 3},
        "data": {"train": {"examples": 3, "tokens": 40, "longest": 20, "overlong": 1}},
        "plan": {"total_steps": 9, "steps_per_epoch": 3},
        "facts": {"longest": 20, "step_tokens": 40, "supervised": 0.5},
        "training_tokens": 120,
        "time": {
            "seconds": 130.0,
            "training_seconds": 120.0,
            "evaluation_seconds": 10.0,
            "tokens_per_second": 50.0,
            "from": "a probe",
            "factor": 2,
        },
        "cost": {
            "watts": 300,
            "watts_from": "as you set it",
            "kwh": 0.5,
            "electricity": 0.15,
            "currency": "EUR",
            "training_tokens": 120,
            "openai": {"gpt-4o-mini": 0.36},
            "prices_as_of": "2026-09",
            "prices_note": "",
        },
        "advice": [{"code": "few", "message": "few examples \x1b[31m", "reason": "", "source": ""}],
    }
    asked = []

    def run(path, child):
        asked.append(json.loads(Path(path).read_text()))
        return report

    monkeypatch.setattr("tui.screens.new_run_reading.token_report", run)
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 50)) as pilot:
        screen = await opened(app, pilot)
        await until(lambda: screen.reading.checks.memory)
        await press(pilot, "r")
        await until(lambda: "9 steps" in "\n".join(screen.info.shown_text()))
        shown = "\n".join(screen.info.shown_text())
        assert asked[0]["lora"]["r"] == 64
        assert "1 longer than data.max_length" in shown and "2m 10s (1m 05s to 4m 20s)" in shown
        assert "0.50 kWh" in shown and "0.15 EUR" in shown and "gpt-4o-mini $0.36" in shown
        assert "few examples" in shown and "\x1b" not in shown


@played
async def test_the_first_row_chooses_where_to_start_from_and_what_was_typed_stays(root):
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await give(pilot, screen, "lora.r", "24")
        await press(pilot, "g", "enter")
        await until(lambda: app.screen is not screen)
        await press(pilot, "j", "enter")
        await until(lambda: app.screen is screen and screen.form.source.label.startswith("preset"))
        assert screen.form.text("lora.r") == "24"


@played
async def test_hostile_names_are_shown_and_not_obeyed(tmp_path):
    run_id = add_run(tmp_path, "evil \x1b[2J\x07[bold]x[/] 名", steps=60, settings={"data.files": [str(SAMPLE)]})
    app = Stage(tmp_path, lambda: NewRunScreen(run_id, {"run.name": "a\x1b]0;b\x07", "data.system": "\u202e[red]"}))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        shown = "\n".join([*screen.fields.shown_text(), *screen.info.shown_text(), *screen.head.shown_text()])
        assert "\\x1b]0;b\\x07" in shown and "[red]" in shown
        assert not any(char in shown for char in "\x1b\x07\u202e")


@played
async def test_what_was_typed_arrives_in_the_real_queue(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.daemon.daemon_client.ensure", lambda workspace: False)
    app = Stage(tmp_path, lambda: NewRunScreen("quick"))
    app.commands._make = lambda: Control(app.workspace)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        await give(pilot, screen, "data.files", str(SAMPLE))
        await give(pilot, screen, "lora.r", "4,8")
        await give(pilot, screen, "run.name", "秩")
        await press(pilot, "h")
        await until(lambda: app.screen is not screen)
    with closing(reader(tmp_path / "runs.db")) as conn:
        runs = queries.queue(conn)
        assert [run.sweep for run in runs] == ["秩", "秩"] and all(run.held for run in runs)
        assert [read_run(tmp_path / "runs" / str(run.id)).config.lora.r for run in runs] == [4, 8]
        assert all(run.preset == "quick" and run.estimate_bytes for run in runs)
