"""What a front end may ask: every change is made whole or not at all, and says why not."""

import fcntl
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from engine.base.errors import EngineError, InputError
from engine.base.workspace import PINNED, Workspace
from engine.control import Control
from engine.plan.fixes import failure_cause
from engine.runs import data_fingerprint
from engine.runs.journal import NAME
from engine.runs.run_folder import data_changes, read_meta
from engine.settings.presets import STARTER_MODEL
from engine.settings.resolve import Layer, read_run, resolve
from engine.store import queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.discover import import_unknown
from engine.store.journal_import import import_journal
from engine.store.rebuild import rebuild
from engine.store.run_records import RunState
from engine.store.store_errors import StoreMissing
from tests.engine.store.storekit import line, metric, write


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "工作区")


@pytest.fixture
def control(workspace):
    with Control(workspace) as made:
        yield made


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "意图.csv"
    path.write_text("text,label\n你好,问候\n再见,告别\n", "utf-8")
    return path


@pytest.fixture
def settings(data):
    def make(**changes):
        values = {"data.files": [str(data)]} | {key.replace("__", "."): value for key, value in changes.items()}
        return resolve([Layer("test", values)])

    return make


def run_of(workspace: Workspace, run_id: int):
    return queries.run(reader(workspace.database), run_id)


def checkpoint(workspace: Workspace, run_id: int, step: int, *names: str, adapter: dict | None = None) -> Path:
    """A checkpoint's folder as the worker leaves it, and its line in the journal."""
    folder = workspace.runs / str(run_id)
    path = folder / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps(adapter or {"r": 16}))
    (path / "adapter_model.safetensors").write_bytes(b"weights of %d" % step)
    (path / "training_state.pt").write_bytes(b"optimizer")
    (path / "manifest.json").write_text("{}")
    for name in names:
        (folder / "checkpoints" / name).unlink(missing_ok=True)
        (folder / "checkpoints" / name).symlink_to(path.name)
    write(folder, line("checkpoint", step=step, path=f"checkpoints/{path.name}", bytes=20, kept=list(names)))
    return path


def ended(workspace: Workspace, control: Control, settings, *steps: int, state: str = "stopped", **changes) -> int:
    """A run that has been trained up to some checkpoints."""
    run_id = control.add(settings(**changes))
    folder = workspace.runs / str(run_id)
    with_conn = writer(workspace.database)
    run_lifecycle.claim(with_conn, run_id)
    write(folder, line("state", state="starting", pid=1), metric(1, loss=1.0))
    for step in steps:
        checkpoint(workspace, run_id, step, "latest")
    write(folder, line("state", state=state, step=steps[-1] if steps else 1))
    import_journal(with_conn, run_id, folder)
    with_conn.close()
    return run_id


# into the queue


def test_a_queued_run_keeps_settings_origins_and_data_of_its_moment(workspace, control, settings, data):
    run_id = control.add(settings(run__tags=["甲"], run__gpu_count=2, run__share=True), held=True)
    run = run_of(workspace, run_id)
    assert (run.state, run.held, run.name) == (RunState.QUEUED, True, "starter-意图-lora")
    assert (run.tags, run.gpus_wanted, run.share, run.data) == (("甲",), 2, True, "意图.csv")
    assert run.estimate_bytes and run.estimate_bytes > 1 << 20
    folder = workspace.runs / str(run_id)
    assert read_run(folder).origin["run.tags"] == "test"
    assert (folder.stat().st_mode & 0o777, (folder / "config.json").stat().st_mode & 0o777) == (0o700, 0o600)
    assert data_changes(folder, read_run(folder).config) == []
    data.write_text("text,label\n你好,问候\n再会,告别\n", "utf-8")
    (said,) = data_changes(folder, read_run(folder).config)
    assert "意图.csv has changed" in said
    data.unlink()
    assert "does not exist" in data_changes(folder, read_run(folder).config)[0]


def test_a_touched_file_with_the_same_content_has_not_changed(workspace, control, settings, data):
    run_id = control.add(settings())
    os.utime(data, (1, 1))
    folder = workspace.runs / str(run_id)
    assert data_changes(folder, read_run(folder).config) == []


def test_a_large_file_is_known_by_pieces_and_a_change_between_them_by_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(data_fingerprint, "WHOLE_BYTES", 1000)
    path = tmp_path / "large.jsonl"
    path.write_bytes(os.urandom(3 << 20))
    before = data_fingerprint.fingerprints([str(path)], plain_text=False)
    assert set(before[str(path)]) == {"bytes", "mtime_ns", "sampled"}
    assert data_fingerprint.changes(before, [str(path)], plain_text=False) == []
    with open(path, "r+b") as file:
        file.seek(100_000)  # between two pieces
        file.write(b"another")
    os.utime(path, (2, 2))
    assert "was written to since" in data_fingerprint.changes(before, [str(path)], plain_text=False)[0]
    with open(path, "r+b") as file:
        file.write(b"another")
    os.utime(path, (3, 3))
    assert "its content is another" in data_fingerprint.changes(before, [str(path)], plain_text=False)[0]


def test_a_folder_of_data_tells_of_files_that_came_and_went(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}\n")
    before = data_fingerprint.fingerprints([str(tmp_path)], plain_text=False)
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    said = data_fingerprint.changes(before, [str(tmp_path)], plain_text=False)
    assert said == [f"{tmp_path / 'b.jsonl'} is gone", f"{tmp_path / 'c.jsonl'} is new"]


def test_of_several_runs_all_are_queued_or_none(workspace, control, settings):
    with pytest.raises(InputError, match="nowhere") as told:
        control.add_all([settings(), settings(model__name="/nowhere/at/all"), settings(data__files=["gone.csv"])])
    assert "gone.csv" in told.value.message, "every problem at once"
    with pytest.raises(InputError, match="no run 99 to wait for"):
        control.add_all([settings(), settings()], after=[99])
    assert workspace.run_ids() == [] and queries.queue(reader(workspace.database)) == ()
    ids = control.add_all([settings(), settings()], sweep="组", held=True)
    assert ids == [1, 2]
    assert {run.sweep for run in queries.queue(reader(workspace.database))} == {"组"} == control.groups()


def test_a_failure_while_the_store_is_written_leaves_no_folder(workspace, control, settings, monkeypatch):
    control.add(settings())
    monkeypatch.setattr(queue, "_insert", lambda *words: (_ for _ in ()).throw(EngineError("the disk is full")))
    with pytest.raises(EngineError, match="disk is full"):
        control.add_all([settings(), settings()])
    assert workspace.run_ids() == [1]


def test_no_id_is_ever_given_twice_not_even_after_a_purge(workspace, control, settings):
    first = control.add(settings())
    assert control.trash(first) and control.add(settings()) == 2
    assert control.trash(2) and control.purge(2) and control.purge(1)
    assert control.add(settings()) == 3


def test_a_look_only_changes_nothing(workspace, settings):
    with Control(workspace, readonly=True) as control:
        for act in (lambda: control.add(settings()), lambda: control.stop(1), lambda: control.trash(1)):
            with pytest.raises(EngineError, match="look only"):
                act()
    assert not workspace.root.exists()


def test_asking_for_a_run_where_there_are_none_makes_no_database(workspace, control):
    with pytest.raises(StoreMissing, match="no runs in"):
        control.stop(1)
    assert not workspace.database.exists()


# going on


def test_a_resume_names_its_checkpoint_or_says_which_there_are(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, 6)
    assert "has no checkpoint '5'" in control.resume(run_id, "5").why
    assert "latest, 3, 6" in control.resume(run_id, "5").why
    assert run_of(workspace, run_id).state is RunState.STOPPED
    assert control.resume(run_id, "3")
    assert run_of(workspace, run_id).resume_step == 3
    assert control.resume(run_id).why == f"run {run_id} is still waiting"
    assert control.resume(77).why == "there is no run 77"


def test_a_done_run_goes_on_only_when_there_is_more_to_do(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, state="done", train__epochs=1)
    assert "--epochs" in control.resume(run_id).why
    refused = control.resume(run_id, changes={"optim.learning_rate": 1.0})
    assert "a resumed run stays the run it was" in refused.why and not refused
    assert control.resume(run_id, changes={"train.epochs": 3})
    assert read_run(workspace.runs / str(run_id)).config.train.epochs == 3
    kept = {setting.key: setting.value for setting in queries.settings(reader(workspace.database), run_id)}
    assert kept["train.epochs"] == 3
    assert read_meta(workspace.runs / str(run_id))["data"], "what was known of the data is kept"


def test_a_run_that_was_held_when_it_left_the_queue_is_resumed_held_and_says_so(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3)
    assert control.resume(run_id) and control.hold(run_id) and control.stop(run_id)
    outcome = control.resume(run_id)
    assert outcome and any("still held" in note for note in outcome.notes)
    assert run_of(workspace, run_id).held


def test_a_run_out_of_patience_is_resumed_with_more_of_it_or_earlier(workspace, control, settings):
    """Else it would end again before its first step: said before anything of it is touched."""
    run_id = ended(workspace, control, settings, 3, 6, 9, state="running", train__early_stopping=2, train__epochs=3)
    folder = workspace.runs / str(run_id)
    losses = {0: 3.0, 3: 2.0, 6: None, 9: 2.0}  # no better: not a number, and just as good
    write(folder, *(line("eval", step=step, values={"eval/loss": loss}) for step, loss in losses.items()))
    write(folder, line("state", state="done", step=9))
    import_journal(control._writer(), run_id, folder)
    before = (folder / "config.json").read_bytes()
    for point, changes in (("latest", {}), ("9", {}), ("latest", {"train.epochs": 9, "train.early_stopping": 1})):
        why = control.resume(run_id, point, changes).why
        assert "ended by early stopping: at step 9 the last 2 evaluations had no better eval loss" in why
        assert "train.early_stopping=N, above 2" in why and "--epochs" in why
    assert (folder / "config.json").read_bytes() == before
    assert run_of(workspace, run_id).state is RunState.DONE
    for point, changes in (("6", {}), ("latest", {"train.early_stopping": 3}), ("latest", {"train.early_stopping": 0})):
        assert control.resume(run_id, point, changes), point
        control.stop(run_id)
        run_lifecycle.finish(control._writer(), run_id, RunState.DONE, None)


def test_a_run_killed_before_it_could_say_that_it_ended_early_is_resumed(workspace, control, settings):
    """Its worker then says so; see test_best."""
    run_id = ended(workspace, control, settings, 3, state="running", train__early_stopping=1)
    folder = workspace.runs / str(run_id)
    write(folder, *(line("eval", step=step, values={"eval/loss": 2.0}) for step in (0, 3)))
    run_lifecycle.finish(control._writer(), run_id, RunState.FAILED, None)
    assert control.resume(run_id)


def test_a_run_whose_worker_has_not_left_is_neither_resumed_nor_removed(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3)
    with open(workspace.runs / str(run_id) / "log.txt", "wb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert "still has a worker" in control.resume(run_id).why
        assert "still has a worker" in control.trash(run_id).why
    assert control.resume(run_id)


def test_a_fork_has_the_weights_even_when_its_parent_is_gone(workspace, control, settings):
    parent = ended(workspace, control, settings, 3, 6, run__name="父")
    forked = control.fork(parent, "3", {"optim.learning_rate": 1e-5, "train.epochs": 7})
    run = run_of(workspace, forked)
    assert (run.parent_run, run.parent_step, run.name, run.state) == (parent, 3, "父-fork", RunState.QUEUED)
    resolved = read_run(workspace.runs / str(forked))
    start = Path(resolved.config.model.checkpoint)
    assert start == workspace.runs / str(forked) / "start"
    assert sorted(os.listdir(start)) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert resolved.origin["model.checkpoint"] == f"run {parent}" and resolved.origin["train.epochs"] == "--set"
    assert control.trash(parent) and control.purge(parent)
    assert (start / "adapter_model.safetensors").read_bytes() == b"weights of 3"


@pytest.mark.parametrize("cut", ["end", "header", "missing"])
def test_a_model_that_was_cut_short_is_refused_with_the_file_and_what_to_do(control, settings, tmp_path, cut):
    folder = tmp_path / "base"
    shutil.copytree(STARTER_MODEL, folder)
    file = folder / "model.safetensors"
    if cut == "missing":
        file.rename(folder / "model-00001-of-00002.safetensors")
        weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        words = "model-00002-of-00002.safetensors is missing"
    else:
        os.truncate(file, file.stat().st_size - 1 if cut == "end" else 1000)
        words = f"{file} " + ("was cut short: it has 8.5 MiB" if cut == "end" else "is damaged or was cut short")
    with pytest.raises(InputError) as refused:
        control.add(settings(model__name=str(folder)))
    assert words in refused.value.message and refused.value.hint == "Copy or download the model again."
    shutil.rmtree(folder)
    shutil.copytree(STARTER_MODEL, folder)
    assert control.add(settings(model__name=str(folder)))


def test_a_fork_that_could_not_start_is_refused_at_once(workspace, control, settings):
    parent = ended(workspace, control, settings, 3)
    before = workspace.run_ids()
    for changes, words in (
        ({"lora.r": 8}, "lora.r = 16; this run has lora.r = 8"),
        ({"method.kind": "full"}, "cannot start from an adapter"),
        ({"lora.rank": 8}, "no setting 'lora.rank'"),
    ):
        with pytest.raises(InputError, match=words):
            control.fork(parent, "latest", changes)
    with pytest.raises(InputError, match="no checkpoint 'best'"):
        control.fork(parent, "best", {})
    assert workspace.run_ids() == before


# checkpoints


def test_a_pin_is_a_marker_in_the_folder_and_outlives_the_database(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, 6)
    assert control.pin(run_id, 3)
    assert (workspace.runs / str(run_id) / "checkpoints" / "step-00000003" / PINNED).exists()
    assert "pinned" in control.delete_checkpoint(run_id, 3, force=True).why
    assert "there are 3, 6" in control.pin(run_id, 5).why
    control.close()
    for suffix in ("", "-wal", "-shm"):
        (workspace.root / f"runs.db{suffix}").unlink(missing_ok=True)
    rebuild(workspace.root)
    assert {c.step: c.pinned for c in queries.checkpoints(reader(workspace.database), run_id)} == {3: True, 6: False}
    assert control.pin(run_id, 3, False) and control.delete_checkpoint(run_id, 3)


def test_a_deleted_checkpoint_leaves_its_names_to_the_newest_and_the_only_one_stays(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, 6)
    folder = workspace.runs / str(run_id) / "checkpoints"
    assert control.delete_checkpoint(run_id, 6)
    assert sorted(os.listdir(folder)) == ["latest", "step-00000003"]
    assert os.readlink(folder / "latest") == "step-00000003"
    (left,) = queries.checkpoints(reader(workspace.database), run_id)
    assert (left.step, left.kept) == (3, ("latest",))
    assert "only checkpoint" in control.delete_checkpoint(run_id, 3).why
    assert control.delete_checkpoint(run_id, 3, force=True)
    assert os.listdir(folder) == []


def test_a_deleted_checkpoint_lies_in_the_trash_and_comes_back_with_its_names(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, 6)
    folder = workspace.runs / str(run_id) / "checkpoints"
    (folder / "best").symlink_to("step-00000006")
    before = {name: os.readlink(folder / name) for name in ("best", "latest")}
    assert control.delete_checkpoint(run_id, 6)
    control.close()  # another day, another process
    (item,) = control.trashed()
    assert (item.label, item.run_id, item.step) == (f"{run_id}@6", run_id, 6)
    assert control.restore_checkpoint(run_id, 6)
    assert {name: os.readlink(folder / name) for name in ("best", "latest")} == before
    assert (folder / "step-00000006" / "training_state.pt").read_bytes() == b"optimizer"
    kept = {point.step: point.kept for point in queries.checkpoints(reader(workspace.database), run_id)}
    assert kept == {6: ("best", "latest"), 3: ()}
    assert control.trashed() == () and os.listdir(workspace.trash) == []
    assert control.restore_checkpoint(run_id, 6).why == f"{run_id}@6 is not in the trash"


def test_a_checkpoint_of_a_course_the_run_has_left_does_not_come_back(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, 6)
    assert control.delete_checkpoint(run_id, 6)
    folder = workspace.runs / str(run_id)
    write(folder, line("resume", from_step=3), metric(4, loss=0.5))
    with writer(workspace.database) as conn:
        import_journal(conn, run_id, folder)
    assert "gone another way" in control.restore_checkpoint(run_id, 6).why
    checkpoint(workspace, run_id, 6, "latest")
    with writer(workspace.database) as conn:
        import_journal(conn, run_id, folder)
    assert not control.restore_checkpoint(run_id, 6)
    assert control.purge_checkpoint(run_id, 6) and control.trashed() == ()


def test_a_run_takes_its_deleted_checkpoints_with_it(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, 6)
    assert control.delete_checkpoint(run_id, 6) and control.trash(run_id)
    assert [item.label for item in control.trashed()] == [f"{run_id}@6", str(run_id)]
    assert "in the trash itself" in control.restore_checkpoint(run_id, 6).why
    assert control.purge(run_id)
    assert control.trashed() == () and os.listdir(workspace.trash) == []


def test_of_a_run_at_work_a_checkpoint_comes_back_pinned(workspace, control, settings):
    """Its worker deletes what the settings do not keep, at its next save."""
    run_id = ended(workspace, control, settings, 3, 6)
    assert control.delete_checkpoint(run_id, 3) and control.resume(run_id)
    run_lifecycle.claim(writer(workspace.database), run_id)
    assert control.restore_checkpoint(run_id, 3)
    pinned = {point.step: point.pinned for point in queries.checkpoints(reader(workspace.database), run_id)}
    assert pinned == {6: False, 3: True}
    assert (workspace.runs / str(run_id) / "checkpoints" / "step-00000003" / PINNED).exists()


def test_an_active_run_keeps_the_checkpoint_it_would_go_on_from(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3, 6)
    assert control.resume(run_id)
    run_lifecycle.claim(writer(workspace.database), run_id)
    assert "latest checkpoint of a run that is active" in control.delete_checkpoint(run_id, 6, force=True).why
    assert control.delete_checkpoint(run_id, 3)


# words about a run


def test_words_about_a_run_stand_in_its_folder_too(workspace, control, settings):
    run_id = control.add(settings())
    assert control.rename(run_id, " 新名字 ") and control.tag(run_id, ["甲", "b"]) and control.note(run_id, "试试")
    assert not control.rename(run_id, "  ") and control.rename(9, "x").why == "there is no run 9"
    assert "holds a NUL character" in control.rename(run_id, "nul\0").why
    control.close()
    for suffix in ("", "-wal", "-shm"):
        (workspace.root / f"runs.db{suffix}").unlink(missing_ok=True)
    rebuild(workspace.root)
    run = run_of(workspace, run_id)
    assert (run.name, run.tags, run.note) == ("新名字", ("甲", "b"), "试试")


# the trash


def test_the_trash_gives_back_what_was_put_into_it(workspace, control, settings):
    run_id = ended(workspace, control, settings, 3)
    size = control.run_bytes(run_id)
    assert size > 20
    assert control.trash(run_id)
    assert not (workspace.runs / str(run_id)).exists() and control.run_bytes(run_id) == size
    assert [item.run_id for item in control.trashed()] == [run_id]
    assert control.trash(run_id).why == f"run {run_id} is in the trash" == control.resume(run_id).why
    assert control.restore(run_id) and control.run_bytes(run_id) == size
    assert run_of(workspace, run_id).state is RunState.STOPPED
    assert control.purge(run_id).why == f"run {run_id} is not in the trash"
    assert control.trash(run_id) and control.purge(run_id)
    assert control.run_bytes(run_id) == 0 and run_of(workspace, run_id) is None
    assert not control.restore(run_id)


def test_a_waiting_run_comes_back_held(workspace, control, settings):
    run_id = control.add(settings())
    assert control.trash(run_id) and control.restore(run_id)
    assert run_of(workspace, run_id).held


def test_a_run_at_work_is_not_removed(workspace, control, settings):
    run_id = control.add(settings())
    run_lifecycle.claim(writer(workspace.database), run_id)
    assert control.trash(run_id).why == f"run {run_id} is starting"
    assert (workspace.runs / str(run_id)).exists()


def test_a_removal_cut_short_between_store_and_folder_can_be_undone_and_finished(workspace, control, settings):
    first, second = control.add(settings()), control.add(settings())
    for run_id in (first, second):
        queue.trash(writer(workspace.database), run_id)  # and killed before the folder moved
    assert control.restore(first) and (workspace.runs / str(first)).exists()
    assert control.purge(second) and not (workspace.runs / str(second)).exists()


def test_a_folder_that_cannot_move_leaves_the_run_where_it_was(workspace, control, settings):
    run_id = control.add(settings())
    control.workspace.trash.parent.mkdir(exist_ok=True)
    control.workspace.trash.write_text("a file where the trash should be")
    outcome = control.trash(run_id)
    assert not outcome and "cannot be moved" in outcome.why
    run = run_of(workspace, run_id)
    assert run.trashed is None and not run.held


# runs that nobody queued


def by_hand(workspace: Workspace, settings, *lines: bytes) -> Path:
    _, folder = Control(workspace).train(settings())
    return write(folder, *lines)


def test_runs_trained_by_hand_come_into_the_store_and_never_into_the_queue(workspace, control, settings):
    done = by_hand(
        workspace, settings, line("state", state="starting"), metric(1, loss=0.5), line("state", state="done")
    )
    torn = by_hand(workspace, settings, line("state", state="starting"), metric(1, loss=0.5))
    alive = by_hand(workspace, settings, line("state", state="starting", pid=os.getpid()), metric(1, loss=0.5))
    young = by_hand(workspace, settings)
    with open(alive / "log.txt", "wb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        control.add(settings())
    states = {run.id: (run.state, run.pid) for run in queries.list_runs(reader(workspace.database))}
    assert states == {
        int(done.name): (RunState.DONE, None),
        int(torn.name): (RunState.INTERRUPTED, None),
        int(alive.name): (RunState.RUNNING, os.getpid()),
        5: (RunState.QUEUED, None),
    }
    assert int(young.name) not in states, "its worker may not have said a word yet"
    assert [run.id for run in queries.queue(reader(workspace.database))] == [5]
    assert import_unknown(writer(workspace.database), workspace) == []


def test_a_worker_started_by_hand_is_told_of_and_its_end_too(workspace, control, settings):
    control.add(settings(), held=True)
    run_id, folder = control.train(settings())
    control.began(folder, os.getpid())
    run = run_of(workspace, run_id)
    assert (run.state, run.pid) == (RunState.STARTING, os.getpid()) and run.pid_started
    assert run_lifecycle.claim(writer(workspace.database), run_id) is None
    with pytest.raises(InputError, match="being trained already"):
        control.refuse_by_hand(run_id)
    write(folder, line("state", state="starting"), line("state", state="done", step=4))
    control.ended(folder, 0)
    run = run_of(workspace, run_id)
    assert (run.state, run.pid, run.exit_code) == (RunState.DONE, None, 0)
    control.began(folder, os.getpid())
    control.ended(folder, -9)
    assert (run_of(workspace, run_id).state, run_of(workspace, run_id).reason) == (
        RunState.FAILED,
        "its worker was killed by signal 9",
    )
    control.began(folder, os.getpid())
    control.ended(folder, -9, "limit 3.0 GiB of this container")
    run = run_of(workspace, run_id)
    assert run.reason == "out of memory (limit 3.0 GiB of this container): the kernel's OOM killer ended it"
    assert failure_cause(run, queries.events(reader(workspace.database), run_id)) == "oom-killer"


def test_a_waiting_run_is_not_trained_by_hand_beside_the_queue(workspace, control, settings):
    run_id = control.add(settings())
    with pytest.raises(InputError, match="waits in the queue"):
        control.refuse_by_hand(run_id)
    control.began(workspace.runs / str(run_id), os.getpid())
    assert run_of(workspace, run_id).state is RunState.QUEUED


def test_whoever_shows_runs_keeps_up_with_those_trained_by_hand(workspace, settings):
    """In a new folder, and as they go on, where no daemon reads what they write."""
    with Control(workspace) as control, Control(workspace) as shown:
        shown.keep_up()
        assert not workspace.database.exists(), "there is nothing to keep"
        run_id, folder = control.train(settings())
        write(folder, line("state", state="starting", pid=os.getpid()), line("state", state="running", step=0))
        at_work = open(folder / "log.txt", "wb")  # noqa: SIM115, a worker holds it as long as it lives
        fcntl.flock(at_work, fcntl.LOCK_EX)
        shown.keep_up()
        assert run_of(workspace, run_id).state is RunState.RUNNING
        write(folder, metric(7, loss=0.5))
        shown.keep_up()
        run = run_of(workspace, run_id)
        assert (run.state, run.step, run.train_loss) == (RunState.RUNNING, 7, 0.5)
        other, folder = control.train(settings())
        write(folder, line("state", state="done", step=3))
        shown.keep_up()
        assert run_of(workspace, other).state is RunState.DONE
        at_work.close()


def test_training_by_hand_makes_no_database(workspace, settings):
    with Control(workspace) as control:
        _, folder = control.train(settings())
        control.began(folder, os.getpid())
        control.ended(folder, 0)
    assert not workspace.database.exists() and not (folder / NAME).exists()


def test_stopping_a_run_that_waits_for_room_says_what_it_waits_for(workspace, control, settings):
    run_id, conn = control.add(settings()), writer(workspace.database)
    folder = workspace.runs / str(run_id)
    run_lifecycle.claim(conn, run_id)
    now = time.time()
    write(folder, line("state", state="running"), line("event", now, event="disk-full", message="Paused."))
    import_journal(conn, run_id, folder)
    (note,) = control.stop(run_id).notes
    assert "no room on its disk" in note and f"finetop kill {run_id}" in note
    write(folder, line("event", now, event="disk-free", message="There is room again; going on."))
    import_journal(conn, run_id, folder)
    assert control.stop(run_id).notes == () == control.kill(run_id).notes
    conn.close()
