"""What the form of a new run keeps, and what it says while it is filled in: drafts, auto, models, groups."""

import json
import re
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from engine.base.errors import InputError
from engine.base.units import bytes_text
from engine.base.workspace import Workspace
from engine.control import Control
from engine.monitor.samples import Snapshot
from engine.plan.hardware import queue_device
from engine.plan.throughput import PastRun
from engine.store import queries
from engine.store.connect import reader
from tests.tui.stage import Stage, give, played, press, until
from tests.tui.storefill import add_run
from tui.app import FinetopApp
from tui.data.message_log import MessageLog
from tui.screens import new_run_reading
from tui.screens.main_screen import MainScreen
from tui.screens.new_run_checks import memory_needs
from tui.screens.new_run_completion import complete
from tui.screens.new_run_drafts import Draft, draft_of, keep_draft, subject
from tui.screens.new_run_form import Form, check
from tui.screens.new_run_screen import NewRunScreen
from tui.settings import Memory, Settings

SAMPLE = Path(__file__).resolve().parents[3] / "presets" / "samples" / "qa.jsonl"
SIZES = [(120, 36), (80, 24), (60, 16)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    add_run(folder, "baseline", steps=60, settings={"lora.r": 64, "data.files": [str(SAMPLE)]})
    add_run(folder, "second", steps=60, settings={"lora.r": 8, "data.files": [str(SAMPLE)]})
    return folder


async def opened(app: FinetopApp, screen: NewRunScreen | None = None) -> NewRunScreen:
    if screen is not None:
        app.push_screen(screen)
    await until(lambda: isinstance(app.screen, NewRunScreen) and app.screen.is_mounted and app.screen.ready)
    return app.screen


def shown(widget) -> str:
    return "\n".join(widget.shown_text())


def said(screen: NewRunScreen) -> str:
    """What stands above the footer of the form."""
    return shown(screen.status_line).strip()


# drafts


@pytest.mark.parametrize("size", SIZES)
@played
async def test_a_form_that_was_left_is_there_again_and_says_how_to_begin_anew(root, size):
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=size) as pilot:
        screen = await opened(app)
        await give(pilot, screen, "lora.r", "24")
        await give(pilot, screen, "run.name", "mine")
        await press(pilot, "escape")
        await until(lambda: app.screen is not screen)
        again = await opened(app, NewRunScreen())
        assert again.form.typed == {"lora.r": "24", "run.name": "mine"}
        await until(lambda: said(again) == "2 settings of your draft are back; n begins anew")
        await press(pilot, "n")
        await until(lambda: not again.form.typed and "u brings back" in said(again))
        await press(pilot, "u")
        await until(lambda: again.form.typed == {"lora.r": "24", "run.name": "mine"})


@played
async def test_drafts_of_different_things_are_not_mixed_up(root):
    app = Stage(root, lambda: NewRunScreen())
    forms = [
        ({}, "11"),
        ({"source": 1}, "12"),
        ({"source": 2}, "13"),
        ({"parent": (1, 60)}, "14"),
        ({"parent": (1, "best")}, "15"),
    ]
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app)
        for of, rank in forms:
            screen = await opened(app, NewRunScreen(**of))
            assert not screen.form.typed and "draft" not in said(screen)
            await give(pilot, screen, "lora.r", rank)
            await press(pilot, "escape")
            assert app.screen is not screen
        for of, rank in forms:
            screen = await opened(app, NewRunScreen(**of))
            assert screen.form.text("lora.r") == rank
            await press(pilot, "escape")


@played
async def test_where_the_draft_started_from_comes_back_and_what_is_queued_is_no_draft(root):
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        screen.load(2, {"data.files": str(SAMPLE)})
        await until(lambda: screen.ready and screen.form.source.of == 2)
        await press(pilot, "escape")
        again = await opened(app, NewRunScreen())
        assert again.form.source.label == "run 2" and again.form.text("lora.r") == "8"
        await press(pilot, "s")
        await until(lambda: app.screen is not again)
        assert draft_of(app.memory.values, app.workspace.root, "new") is None
        assert (await opened(app, NewRunScreen())).form.source.of is None


@played
async def test_a_draft_is_on_disk_at_once_and_its_paths_mean_the_same_from_anywhere(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(SAMPLE.read_bytes())
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app)
        await give(pilot, screen, "data.files", "rows.jsonl")
        await until(lambda: draft_of(Memory().values, root, "new") is not None)
        assert draft_of(Memory().values, root, "new").typed == {"data.files": str(tmp_path / "rows.jsonl")}


def test_drafts_survive_leaving_and_nonsense_in_the_file_is_none(tmp_path):
    memory = Memory(tmp_path / "screen.json")
    keep_draft(memory.values, tmp_path / "a", "new", Draft("quick", {"lora.r": "8"}))
    keep_draft(memory.values, tmp_path / "b", "new", Draft(None, {"lora.r": "9"}))
    memory.save()
    values = Memory(tmp_path / "screen.json").values
    assert draft_of(values, tmp_path / "a", "new") == Draft("quick", {"lora.r": "8"})
    assert draft_of(values, tmp_path / "a", "run 1") is None
    keep_draft(values, tmp_path / "a", "new", None)
    assert draft_of(values, tmp_path / "a", "new") is None
    assert draft_of(values, tmp_path / "b", "new") == Draft(None, {"lora.r": "9"})
    for content in (7, ["x"], [[str(tmp_path), "new", None, {"no.such": "1"}]], [[str(tmp_path), "new", [], {}]]):
        assert draft_of({"drafts": content}, tmp_path, "new") is None


def test_a_preset_that_is_called_like_a_run_has_another_draft():
    assert (
        len({subject(None, None), subject(1, None), subject("1", None), subject("new", None), subject(1, (1, 1))}) == 5
    )


@played
async def test_a_form_of_a_run_that_is_gone_leaves_no_draft(root):
    app = Stage(root, lambda: NewRunScreen(99))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app)
        await until(lambda: "run 99 is gone" in said(screen))
        await press(pilot, "escape")
        assert draft_of(app.memory.values, app.workspace.root, "run 99") is None


@played
async def test_undo_goes_back_change_by_change(root):
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        await press(pilot, "u")
        assert said(screen) == "nothing was changed yet"
        for rank in ("8", "9"):
            await give(pilot, screen, "lora.r", rank)
        await press(pilot, "backspace")
        assert screen.form.text("lora.r") == "16"
        for rank in ("9", "8", "16", "16"):
            await press(pilot, "u")
            assert screen.form.text("lora.r") == rank


# what auto becomes, and what is said without a token report


@pytest.mark.parametrize("size", SIZES)
@played
async def test_what_auto_becomes_is_said_once_the_rows_are_known(root, size):
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=size) as pilot:
        screen = await opened(app)
        assert "auto →" not in shown(screen.fields)
        await give(pilot, screen, "data.files", str(SAMPLE))
        wanted = {"optim.learning_rate": "auto → 2e-4", "train.epochs": "auto → 3", "train.batch_size": "auto → 4"}
        for path, text in wanted.items():
            await until(lambda: path in screen.reading.auto)  # noqa: B023
            screen.actions.go_to(path)
            await pilot.pause()
            assert text in next(line for line in screen.fields.shown_text() if path in line)
        await give(pilot, screen, "method.kind", "full")
        await until(lambda: screen.reading.auto.get("optim.learning_rate") == 2e-5)
        await give(pilot, screen, "train.epochs", "2")
        assert "train.epochs" not in screen.reading.auto


@pytest.mark.parametrize("size", SIZES)
@played
async def test_a_rate_that_is_too_high_is_said_without_a_token_report(root, size):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app)
        await give(pilot, screen, "optim.learning_rate", "1e6")
        await until(lambda: "A rate of 1e6 is high for lora" in " ".join(shown(screen.info).replace("│", "").split()))


@played
async def test_a_report_of_another_form_is_not_shown_as_that_of_this_one(root, monkeypatch):
    asked = []

    def report(path, child):
        asked.append(json.loads(Path(path).read_text())["train"]["epochs"])
        return "no tokenizer"

    monkeypatch.setattr(new_run_reading, "token_report", report)
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        await until(lambda: screen.reading.data is not None)
        await press(pilot, "r")
        await until(lambda: "no tokenizer" in shown(screen.info))
        await give(pilot, screen, "train.epochs", "7")
        await until(lambda: "r counts again: the form was changed" in shown(screen.info))
        assert "no tokenizer" not in shown(screen.info)
        await press(pilot, "r")
        await until(lambda: asked[1:] == [7] and "no tokenizer" in shown(screen.info))


@pytest.mark.parametrize("measured", [0, 85])
def test_the_list_has_the_figure_that_the_form_had(tmp_path, monkeypatch, measured):
    """Also where earlier runs took less than the arithmetic had said."""
    past = [PastRun("starter", "lora", None, "cpu", 100, measured)]
    monkeypatch.setattr("engine.plan.hardware.past_runs", lambda workspace: past)
    monkeypatch.setattr("engine.daemon.daemon_client.ensure", lambda workspace: False)
    monkeypatch.setattr("engine.plan.hardware._DRIVER_DEVICES", ())
    workspace = Workspace(tmp_path)
    (run,) = check(Form().set("data.files", str(SAMPLE))).runs
    with Control(workspace) as control:
        run_id = control.add(run, held=True)
    with closing(reader(workspace.database)) as conn:
        estimate_bytes = queries.run(conn, run_id).estimate_bytes
    machine = Snapshot(0.0, gpu_problem="No driver.")
    assert memory_needs(run.config, workspace, machine, {}).expected == bytes_text(estimate_bytes)
    workspace.machine_state.parent.mkdir(exist_ok=True)
    workspace.machine_state.write_text('{"gpus": [{"index": 0, "name": "NVIDIA L4"}]}')
    assert queue_device(workspace) == "NVIDIA L4"


# what takes long


@pytest.mark.parametrize("size", SIZES)
@played
async def test_seconds_go_by_while_tokens_are_counted(root, monkeypatch, size):
    ended = threading.Event()
    monkeypatch.setattr(new_run_reading, "token_report", lambda path, child: "done" if ended.wait(20) else None)
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app)
        await press(pilot, "r")
        words = "counting tokens with the model's tokenizer …"
        await until(lambda: words in shown(screen.info))
        await until(lambda: re.search(f"{words} [1-9]s", shown(screen.info)))
        ended.set()
        await until(lambda: words not in shown(screen.info))


@played
async def test_queueing_several_is_said_at_once_with_seconds_and_keys_go_on(root, monkeypatch):
    app = Stage(root, lambda: NewRunScreen(1))
    ended = threading.Event()
    monkeypatch.setattr(app.fake, "add_all", lambda runs, **options: ended.wait(20) and [101, 102, 103], raising=False)
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        await give(pilot, screen, "lora.r", "4,8,16")
        await press(pilot, "s")
        assert "queueing 3 runs …" in shown(screen.head)
        await until(lambda: re.search("queueing 3 runs … [1-9]s", shown(screen.head)))
        ended.set()
        await until(lambda: app.screen is not screen and "queued 3 runs, 101 to 103" in app.status_text.text)


# models


def test_a_models_name_is_completed_by_folders_and_by_what_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("badm", "base-a", "base-b"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad.txt").write_text("")
    here = ["starter", "Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "/models/llama-sql"]
    assert complete("model.name", "bad", here) == ("badm/", ["badm/"])
    assert complete("model.name", "base", here) == ("base-", ["base-a/", "base-b/"])
    assert complete("model.name", "Qwen/Qwen3-8", here)[0] == "Qwen/Qwen3-8B"
    assert complete("model.name", "llama", here) == ("/models/llama-sql", ["/models/llama-sql"])
    assert complete("model.name", "Qwen3", here) == ("Qwen3", ["Qwen/Qwen3-8B", "Qwen/Qwen3-14B"])
    assert complete("model.name", "starter,st", here)[0] == "starter,starter"


@pytest.mark.parametrize("size", SIZES)
@played
async def test_several_candidates_are_shown_at_any_size(root, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats2").mkdir()
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=size) as pilot:
        screen = await opened(app)
        for path in ("data.files", "model.name"):
            screen.actions.go_to(path)
            await press(pilot, "enter")
            screen.editing.value = "ch"
            await press(pilot, "tab")
            await until(lambda: "chats/  chats2/" in shown(screen.info))
            assert screen.editing.value == "chats"
            await press(pilot, "escape")


@pytest.mark.parametrize("size", SIZES)
@played
async def test_the_models_of_this_machine_are_listed_and_chosen(root, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "config.json").write_text('{"model_type": "llama"}')
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=size) as pilot:
        screen = await opened(app)
        await until(lambda: len(screen.reading.models) >= 2)
        screen.actions.go_to("model.name")
        await until(lambda: "here: starter, " in shown(screen.info))
        await press(pilot, "space")
        await until(lambda: app.screen is not screen)
        names = [name for name, _ in app.screen.choices]
        assert names[0] == "starter" and str(tmp_path / "tuned") in names
        await press(pilot, *["j"] * names.index(str(tmp_path / "tuned")), "space")
        await until(lambda: app.screen is screen)
        assert screen.form.text("model.name") == str(tmp_path / "tuned")


@played
async def test_a_model_that_there_cannot_be_is_not_queued(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        await give(pilot, screen, "model.name", "badm")
        await until(lambda: "no folder badm here" in screen.problem("model.name"))
        await press(pilot, "s")
        assert not app.fake.calls and "not queued" in said(screen)
        await give(pilot, screen, "model.name", "Qwen/Qwen2.5-0.5B")  # may be downloaded
        await until(lambda: not screen.problem("model.name"))


# keys and words


@pytest.mark.parametrize("path", ["lora.r", "eval.every", "optim.learning_rate", "data.system", "eval.metrics"])
@played
async def test_space_on_what_may_be_much_edits_it(root, path):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        screen.actions.go_to(path)
        await press(pilot, "space")
        assert screen.editing is not None and screen.editing.path == path
        assert not said(screen)


@played
async def test_the_name_of_a_sweep_is_said_to_be_that_of_its_group(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        await give(pilot, screen, "lora.r", "4,8")
        await until(lambda: "in the group starter-qa; /group:starter-qa" in shown(screen.info))
        await give(pilot, screen, "run.name", "ranks")
        text = " ".join(shown(screen.info).replace("│", "").split())
        assert "also the name of the group that the 2 runs form" in text and "/group:ranks" in text


# what stands above the footer


@played
async def test_what_was_said_before_the_form_is_not_said_in_it(root):
    app = Stage(root, lambda: NewRunScreen())
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app)
        app.say("queued run 6", "done")
        screen = await opened(app, NewRunScreen(1))
        assert not said(screen)
        log: MessageLog = app.messages
        log.show("8 finished", "done", at=time.time())
        screen.status_changed()
        await pilot.pause()
        assert said(screen) == "8 finished"
        log.show("8 finished long ago", "done", at=time.time() - 3600)
        screen.status_changed()
        await pilot.pause()
        assert not said(screen)


@played
async def test_a_refusal_goes_with_its_reason(root):
    app = Stage(root, lambda: NewRunScreen(1))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app)
        await give(pilot, screen, "lora.r", "0")
        await press(pilot, "s")
        assert "1 setting wrong" in said(screen)
        await press(pilot, "backspace")
        await pilot.pause()
        assert not said(screen)
        app.fake.refuse = InputError("the disk is full")
        await press(pilot, "s")
        await until(lambda: "disk is full" in said(screen))
        await give(pilot, screen, "lora.r", "8")
        assert not said(screen)


@played
async def test_what_is_taken_back_is_taken_back_on_every_screen(filled):
    app = FinetopApp(Workspace(filled), Settings(theme="dark"))
    async with app.run_test(size=(120, 36)) as pilot:
        await until(lambda: isinstance(app.screen, MainScreen) and app.snapshot.taken)
        main = app.screen
        app.say("delete: there is no run", "warning")
        await press(pilot, "n")
        screen = await opened(app)
        await until(lambda: screen.checked.runs and "delete" not in app.status_text.text)
        await pilot.pause()
        assert "delete" not in shown(main.status_line)
