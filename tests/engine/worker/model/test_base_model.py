"""A base model is known by its content, as data are; what moved is found by it; a refused resume changes nothing."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from engine.base.errors import CheckpointError, InputError, NotFinite
from engine.base.units import plain_number
from engine.base.worker_process import DONE, STOPPED
from engine.base.workspace import Workspace
from engine.cli.main import main
from engine.control import Control
from engine.daemon.exit_status import ExitCause, ExitEvidence, classify_exit
from engine.models import weights
from engine.present.event_text import describe_event
from engine.runs import relocate, resume_run
from engine.runs.model_refs import find_model_refs
from engine.runs.run_folder import change_run, read_meta, write_config
from engine.settings.resolve import Layer, read_run
from engine.store.run_records import RunState
from engine.worker.evaluate import model_cache
from engine.worker.evaluate.model_cache import ModelCache, prompt_tokens
from engine.worker.export.export import export
from engine.worker.runtime import checkpoint
from engine.worker.runtime.heartbeat import report_failure
from engine.worker.train.loop import train
from tests.engine.tiny_runs import NeverStop, StopAfter, events_of, last_state, make_run, series

EPOCHS_3 = [Layer("--epochs", {"train.epochs": 3})]


def change_bits(folder: Path, tensor: str, mask: int = 0x80, every: int = 1) -> None:
    """Turn bits of a float32 tensor in a folder's only safetensors file: the sign, unless asked otherwise."""
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    start, end = json.loads(raw[8:begin])[tensor]["data_offsets"]
    for byte in range(begin + start + 3, begin + end, 4 * every):
        raw[byte] ^= mask
    file.write_bytes(raw)


@pytest.fixture(scope="module")
def original(tiny_model, chats, tmp_path_factory) -> Path:
    """A workspace `a` with data, base and one run that is done."""
    root = tmp_path_factory.mktemp("moved") / "a"
    root.mkdir()
    shutil.copytree(tiny_model, root / "models" / "base")
    shutil.copy(chats, root / "chats.jsonl")
    folder = make_run(root, root / "models" / "base", root / "chats.jsonl", save__every=0)
    assert train(folder, stop=NeverStop()) == DONE
    return root


@pytest.fixture
def done(original, tmp_path) -> Path:
    """That workspace under another name and in another folder, the first one out of reach: its run's folder."""
    root = tmp_path / "b"
    shutil.copytree(original, root, symlinks=True)
    config = root / "runs" / "1" / "config.json"
    config.write_text(config.read_text("utf-8").replace(str(original), str(original.with_name("gone"))), "utf-8")
    for manifest in (root / "runs" / "1" / "checkpoints").glob("step-*/manifest.json"):
        said = json.loads(manifest.read_text("utf-8").replace(str(original), str(original.with_name("gone"))))
        del said["checksum"]
        said["checksum"] = checkpoint._checksum(said)
        manifest.write_text(json.dumps(said), "utf-8")
    return root / "runs" / "1"


# -- content ---------------------------------------------------------------------------------------------------------


def test_the_same_tensors_are_the_same_model_and_one_bit_makes_another(tiny_model, tmp_path, monkeypatch):
    from safetensors.numpy import load_file, save_file

    whole = weights.fingerprint(tiny_model)
    tensors = load_file(tiny_model / "model.safetensors")
    parted = tmp_path / "parted"
    parted.mkdir()
    names = sorted(tensors)
    parts = {"z.safetensors": names[:5], "a.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, parted / file, {"format": "pt", "made": "by a test"})
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (parted / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights.fingerprint(parted) == whole and whole.tensors == len(names)

    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    assert weights.fingerprint(copy) == whole
    file, before = copy / "model.safetensors", (copy / "model.safetensors").stat()
    change_bits(copy, names[-1], every=10**9)  # the sign of one number
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert weights.fingerprint(copy).sha256 != whole.sha256, "also where the time of change was set back"

    monkeypatch.setattr(weights, "_digests", None)
    assert weights.fingerprint(parted) == whole, "it is read once"
    (copy / "model.safetensors").write_bytes(b"cut short")
    assert weights.fingerprint(copy) is None and weights.fingerprint(tmp_path) is None


def test_a_base_that_changed_is_refused_in_resume_export_eval_and_sample(done, tmp_path):
    root = done.parent.parent
    resume_run.apply(done, resume_run.check_resume(done, []))
    before = weights.fingerprint(root / "models" / "base").sha256
    assert checkpoint.find(done / "checkpoints", "latest")[0].manifest["base"]["sha256"] == before
    change_bits(root / "models" / "base", "model.layers.1.mlp.down_proj.weight")
    with pytest.raises(InputError, match="not the one this run was trained on"):
        resume_run.check_resume(done, EPOCHS_3)
    (target,) = find_model_refs(Workspace(root), ["1@latest"])
    models = ModelCache()
    with (
        pytest.raises(CheckpointError, match="not the one this run was trained on"),
        models.acquire(target, models.template(target), prompt_tokens([[5, 6, 7]])),
    ):
        pass
    with pytest.raises(CheckpointError, match="not the one this run was trained on") as caught:
        export(done / "checkpoints" / "latest", tmp_path / "out", "merged", run_folder=done)
    assert before[:12] in caught.value.message and not (tmp_path / "out").exists()


def test_a_base_whose_weights_are_used_otherwise_is_another(done, tmp_path):
    root = done.parent.parent
    resume_run.apply(done, resume_run.check_resume(done, []))
    file = root / "models" / "base" / "config.json"
    was = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(was | {"rms_norm_eps": 0.5}), "utf-8")
    with pytest.raises(CheckpointError, match=r"in the config.json of .* rms_norm_eps was 1e-06, is 0.5"):
        export(done / "checkpoints" / "latest", tmp_path / "out", "merged", run_folder=done)
    resume_run.apply(done, resume_run.check_resume(done, EPOCHS_3))
    with pytest.raises(CheckpointError, match="rms_norm_eps"), report_failure(done):
        train(done, stop=NeverStop())
    assert read_run(done).config.train.epochs == 2

    # What changes nothing in what they compute, and what another version of the library leaves out, is no difference.
    here = {key: value for key, value in was.items() if key != "rms_norm_eps"}
    file.write_text(json.dumps(here | {"transformers_version": "9", "use_cache": False, "made_by": "a test"}), "utf-8")
    export(done / "checkpoints" / "latest", tmp_path / "out", "merged", run_folder=done)


def test_a_tokenizer_or_template_that_changed_under_a_run_is_told(done):
    resume_run.apply(done, resume_run.check_resume(done, []))
    template = done.parent.parent / "models" / "base" / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<|im_end|>", " <|im_end|>"), "utf-8")
    resume_run.apply(done, resume_run.check_resume(done, EPOCHS_3))
    assert train(done, stop=NeverStop()) == DONE
    (said,) = (event["message"] for event in events_of(done, "event") if event["event"] == "tokens-changed")
    assert "the model's tokenizer or chat template has changed" in said


def test_a_checkpoint_that_does_not_know_its_base_works_and_says_so(done, tmp_path):
    root = done.parent.parent
    resume_run.apply(done, resume_run.check_resume(done, []))
    for manifest in (done / "checkpoints").glob("step-*/manifest.json"):
        said = {key: value for key, value in json.loads(manifest.read_text("utf-8")).items() if key != "checksum"}
        del said["base"]
        manifest.write_text(json.dumps(said), "utf-8")  # as written before manifests were hashed
    (target,) = find_model_refs(Workspace(root), ["1@latest"])
    models = ModelCache()
    with models.acquire(target, models.template(target), prompt_tokens([[5, 6, 7]])):
        assert "does not say" in models.warnings["1@latest"]
    assert (
        "does not say" in export(done / "checkpoints" / "latest", tmp_path / "out", "adapter", run_folder=done).notes[0]
    )
    copy = shutil.copytree(root / "models" / "base", tmp_path / "copy")
    with pytest.raises(InputError, match="no checkpoint says what"):
        resume_run.check_resume(done, [Layer("--model", {"model.name": str(copy)})])
    change_run(done, EPOCHS_3)
    assert train(done, stop=NeverStop()) == DONE
    assert "base-unchecked" in [event["event"] for event in events_of(done, "event")]


def test_a_base_of_nan_is_at_fault_before_training_begins(tiny_model, chats, tmp_path):
    base = tmp_path / "nan"
    shutil.copytree(tiny_model, base)
    change_bits(base, "model.layers.0.mlp.up_proj.weight", mask=0x7F, every=10**9)
    file = base / "model.safetensors"
    raw = bytearray(file.read_bytes())
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    start, end = json.loads(raw[8:begin])["model.layers.0.mlp.up_proj.weight"]["data_offsets"]
    raw[begin + start : begin + end] = np.full((end - start) // 4, np.nan, np.float32).tobytes()
    file.write_bytes(raw)
    for fraction in (0.2, 0.0):
        folder = make_run(tmp_path, base, chats, data__val_fraction=fraction)
        with pytest.raises(
            NotFinite, match=r"before the first step: .*nan itself is at fault.*is model\.layers\.\d\.mlp\.up_proj"
        ) as caught:
            train(folder, stop=NeverStop())
        assert "Copy the model again" in caught.value.hint and not events_of(folder, "metric")


# -- what moved ------------------------------------------------------------------------------------------------------


def test_a_renamed_workspace_finds_data_and_base_by_their_content(done, original):
    root = done.parent.parent
    found = resume_run.check_resume(done, EPOCHS_3)
    assert found.settings.config.data.files == [str(root / "chats.jsonl")]
    part = read_run(done).config.replace({"data.files": [f"{original.with_name('gone')}/chats.jsonl:train"]})
    assert relocate.new_places(done, part)["data.files"] == [f"{root}/chats.jsonl:train"]
    assert found.settings.config.model.name == str(root / "models" / "base")
    assert any("learning" in note or "schedule" in note for note in found.notes) and len(found.notes) == 3
    change_run(done, EPOCHS_3)
    assert train(done, stop=NeverStop()) == DONE, "the worker finds them, too: the daemon asks nobody"
    told = [event for event in events_of(done, "event") if event["event"] == "moved"]
    assert len(told) == 2 and str(root / "chats.jsonl") in "".join(event["message"] for event in told)
    assert series(done)[: len(series(original / "runs" / "1"))] == series(original / "runs" / "1")
    assert read_run(done).config.data.files == [str(root / "chats.jsonl")]
    (leap,) = [event for event in events_of(done, "event") if event["event"] == "schedule-changed"]
    rates = {event["step"]: event["values"]["train/lr"] for event in events_of(done, "metric")}
    for step in (leap["step"], leap["step"] + 1):
        assert f"{plain_number(float(f'{rates[step]:.3g}'))} at step {step}" in leap["message"]


def test_the_same_content_may_be_named_on_a_resume_and_other_content_not(done, tmp_path, chats, tiny_model):
    root = done.parent.parent
    (root / "chats.jsonl").rename(tmp_path / "renamed.jsonl")
    (root / "models" / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="does not exist") as caught:
        resume_run.check_resume(done, EPOCHS_3)
    assert "--data-file FILE" in caught.value.hint
    named = Layer("flags", {"data.files": [str(tmp_path / "renamed.jsonl")], "model.name": str(tmp_path / "elsewhere")})
    assert resume_run.check_resume(done, [named]).settings.config.model.name == str(tmp_path / "elsewhere")
    assert not resume_run.check_resume(done, [named]).changed
    other = tmp_path / "other.jsonl"
    other.write_bytes(chats.read_bytes().replace(b"France", b"Spain!"))
    twice = [str(tmp_path / "renamed.jsonl")] * 2
    for files in ([str(other)], twice):
        with pytest.raises(InputError, match=r"is not the data this run was trained on"):
            resume_run.check_resume(done, [named, Layer("--data-file", {"data.files": files})])
    change_bits(tmp_path / "elsewhere", "model.norm.weight", every=10**9)
    with pytest.raises(InputError, match=r"elsewhere is not the base model this run was trained on"):
        resume_run.check_resume(done, [named])


def test_data_in_a_folder_and_a_template_are_found_and_a_full_run_needs_no_base(tiny_model, chats, tmp_path):
    root = tmp_path / "a"
    (root / "data").mkdir(parents=True)
    shutil.copy(chats, root / "data" / "chats.jsonl")
    base = shutil.copytree(tiny_model, tmp_path / "base")
    template = root / "own.jinja"
    template.write_text((base / "chat_template.jinja").read_text("utf-8"), "utf-8")
    changes = {"method__kind": "full", "optim__learning_rate": 1e-3, "data__template": str(template)}
    folder = make_run(root, base, root / "data", **changes)
    assert train(folder, stop=StopAfter(3)) == STOPPED
    root.rename(tmp_path / "b")
    shutil.rmtree(base)
    folder = tmp_path / "b" / "runs" / "1"
    found = resume_run.check_resume(folder, [])
    assert found.settings.config.data.files == [str(tmp_path / "b" / "data")]
    assert found.settings.config.data.template == str(tmp_path / "b" / "own.jinja")
    assert train(folder, stop=NeverStop()) == DONE
    (tmp_path / "b" / "data" / "chats.jsonl").write_text("{}\n")
    assert relocate.hashes_of([str(tmp_path / "b" / "data")], "data.files", read_run(folder).config) != list(
        relocate.known_data(folder).values()
    )


def test_a_fork_in_a_moved_workspace_and_a_moved_fork(done, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    with Control(Workspace(done.parent.parent)) as control:
        forked = control.fork(1, "latest", {"train.epochs": 1})
    assert train(done.parent / str(forked), stop=StopAfter(2)) == STOPPED
    folder = (done.parent.parent).rename(tmp_path / "c") / "runs" / str(forked)
    found = resume_run.check_resume(folder, [])
    assert found.settings.config.model.checkpoint == str(folder / "start")
    (target,) = find_model_refs(Workspace(tmp_path / "c"), [f"{forked}@latest"])
    assert target.base == str(tmp_path / "c" / "models" / "base")
    assert train(folder, stop=NeverStop()) == DONE


def test_a_model_of_the_hub_that_moved_on_is_resumed_at_its_commit(done, tmp_path, monkeypatch):
    """As huggingface_hub lays its cache out: `main` is another commit by now."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    base, repository = done.parent.parent / "models" / "base", tmp_path / "hub" / "models--org--name"
    for commit in ("c1", "c2"):
        shutil.copytree(base, repository / "snapshots" / commit)
    change_bits(repository / "snapshots" / "c2", "model.norm.weight")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c1")
    resume_run.apply(done, resume_run.check_resume(done, [Layer("--model", {"model.name": "org/name"})]))
    (repository / "refs" / "main").write_text("c2")
    with pytest.raises(InputError, match=r"the weights in .*c2 have changed"):
        resume_run.check_resume(done, [])
    there = Layer("--set", {"model.revision": "c1"})
    assert resume_run.check_resume(done, [there]).settings.config.model.revision == "c1"
    with pytest.raises(InputError, match="c2 is not the base model"):
        resume_run.check_resume(done, [Layer("--set", {"model.revision": "c2"})])


# -- a resume that cannot begin --------------------------------------------------------------------------------------


def test_a_resume_that_cannot_begin_writes_nothing(done, tmp_path, capsys):
    root = done.parent.parent
    (root / "chats.jsonl").rename(tmp_path / "renamed.jsonl")
    before = {path: path.read_bytes() for path in sorted(done.rglob("*")) if path.is_file()}
    words = ["train", "--workspace", str(root), "--resume", "1", "--epochs", "3"]
    assert main(words) == 2 and "does not exist" in capsys.readouterr().err
    assert main([*words, "--data-file", str(tmp_path / "renamed.jsonl"), "--learning-rate", "1"]) == 2
    assert {path: path.read_bytes() for path in sorted(done.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize("state", ["done", "stopped"])
def test_what_only_the_worker_finds_out_leaves_the_run_as_it_was(done, state):
    """The base changes between the look and the start."""
    root, was = done.parent.parent, read_run(done).config.train.epochs
    if state == "stopped":
        with open(done / "journal.jsonl", "a", encoding="utf-8") as journal:
            journal.write('{"t": 1, "kind": "state", "state": "stopped", "step": 14, "reason": "asked to stop"}\n')
    total, step = events_of(done, "plan")[-1]["total_steps"], last_state(done)["step"]
    resume_run.apply(done, resume_run.check_resume(done, EPOCHS_3))
    assert read_run(done).config.train.epochs == 3
    change_bits(root / "models" / "base", "model.norm.weight")
    with pytest.raises(CheckpointError), report_failure(done):
        train(done, stop=NeverStop())
    said = last_state(done)
    assert said["state"] == state and "not the one" in said["refused"] and said["step"] == step
    assert read_run(done).config.train.epochs == was and "before_resume" not in read_meta(done)
    assert events_of(done, "plan")[-1]["total_steps"] == total
    assert "as before: it could not go on" in describe_event("state", state, said)
    ending = classify_exit(ExitEvidence(status=1 << 8, last_state=said))
    assert (
        ending.state is RunState(state) and ending.cause is not ExitCause.ASKED and ending.cause is not ExitCause.DONE
    )

    # Once it has begun, what it was resumed with stays, and a failure is one.
    change_bits(root / "models" / "base", "model.norm.weight")
    resume_run.apply(done, resume_run.check_resume(done, EPOCHS_3))
    assert train(done, stop=NeverStop()) == DONE
    assert read_run(done).config.train.epochs == 3 and "before_resume" not in read_meta(done)
    write_config(done, read_run(done).config.replace({"train.epochs": 4}), read_meta(done))
    with pytest.raises(RuntimeError), report_failure(done):
        train(done, stop=StopAfter(1))
        raise RuntimeError("later")


def test_a_data_file_whose_name_is_not_utf8_is_trained_on_and_listed(tiny_model, chats, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    data = tmp_path / os.fsdecode(b"\xca\xfd\xbe\xdd.jsonl")
    shutil.copy(chats, data)
    folder = make_run(tmp_path, tiny_model, data, train__max_steps=1)
    assert train(folder, stop=NeverStop()) == DONE
    resume_run.apply(folder, resume_run.check_resume(folder, [Layer("--max-steps", {"train.max_steps": 2})]))
    assert train(folder, stop=NeverStop()) == DONE
    assert checkpoint.find(folder / "checkpoints", "latest")[0].manifest["data"].keys() == {str(data)}
    queued = ["add", "--data-file", str(data), "--model", str(tiny_model), "--workspace", str(tmp_path)]
    for command in (["ls", "--workspace", str(tmp_path)], queued, ["ls", "--workspace", str(tmp_path)]):
        assert main(command) == 0
    shown = capsys.readouterr().out
    assert shown.count(r"-\xca\xfd") >= 2
    shown.encode()


def test_of_many_checkpoints_those_asked_last_stay_loaded_and_answer_alike(done, monkeypatch):
    resume_run.apply(done, resume_run.check_resume(done, []))
    steps = sorted(checkpoint.steps(done / "checkpoints"))
    refs = find_model_refs(Workspace(done.parent.parent), [f"1@{step}" for step in steps])
    monkeypatch.setattr(model_cache, "MOST_ADAPTERS", 1)
    models = ModelCache()

    def weights_of(ref):
        with models.activate(ref) as (model, _):
            return sum(float(w.double().abs().sum()) for name, w in model.named_parameters() if "lora_B" in name)

    asked = [*refs, *refs, refs[0]]
    seen = [weights_of(ref) for ref in asked]
    assert len(models._adapters) == 1 and seen[: len(refs)] == seen[len(refs) : -1] and seen[-1] == seen[0]
    assert len(refs) > 1 and len(set(seen)) == len(refs)
