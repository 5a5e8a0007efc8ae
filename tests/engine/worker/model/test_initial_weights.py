"""A run may start from another's weights; pinned checkpoints stay; data that changed while a run waited is said."""

from pathlib import Path

import pytest

from engine.base.errors import CheckpointError, ModelError
from engine.base.worker_process import DONE, STOPPED
from engine.base.workspace import PINNED
from engine.runs.run_folder import data_fingerprints, read_meta, write_config
from engine.settings.resolve import read_run
from engine.worker.runtime import checkpoint
from engine.worker.train.loop import train
from tests.engine.tiny_runs import NeverStop, StopAfter, evals, events_of, last_state, make_run, weights_hash


def trained(root: Path, model: Path, data: Path, **changes) -> Path:
    folder = make_run(root, model, data, train__max_steps=4, **changes)
    assert train(folder, stop=NeverStop()) == DONE
    return folder


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ({"method__kind": "lora"}, {"method__kind": "lora"}),
        ({"method__kind": "full", "optim__learning_rate": 1e-3}, {"method__kind": "full"}),
        ({"method__kind": "full", "optim__learning_rate": 1e-3}, {"method__kind": "lora"}),
    ],
    ids=["adapter-adapter", "full-full", "full-adapter"],
)
def test_a_run_starts_exactly_where_the_given_weights_stood(parent, child, tiny_model, chats, tmp_path):
    first = trained(tmp_path, tiny_model, chats, **parent)
    given = str((first / "checkpoints" / "latest").resolve())
    second = make_run(tmp_path, tiny_model, chats, train__max_steps=6, model__checkpoint=given, **child)
    assert train(second, stop=StopAfter(3)) == STOPPED
    assert evals(second)[0][0] == 0 and evals(first)[-1][0] == 4
    assert float.fromhex(evals(second)[0][1]) == pytest.approx(float.fromhex(evals(first)[-1][1]), abs=1e-6)
    assert float.fromhex(evals(second)[0][1]) != pytest.approx(float.fromhex(evals(first)[0][1]), abs=1e-4)
    assert events_of(second, "metric")[0]["step"] == 1, "the steps count anew"
    assert train(second, stop=NeverStop()) == DONE, "and it resumes like any other"
    assert events_of(second, "resume")[-1]["from_step"] == 3
    assert weights_hash(second) != weights_hash(first)


def test_an_adapter_of_another_shape_is_refused_with_the_first_difference(tiny_model, chats, tmp_path):
    first = trained(tmp_path, tiny_model, chats)
    given = str(first / "checkpoints" / "latest")
    other = make_run(tmp_path, tiny_model, chats, model__checkpoint=given, lora__r=8)
    with pytest.raises(ModelError, match=r"is 4 by \d+, here it is 8 by \d+"):
        train(other, stop=NeverStop())
    fewer = make_run(tmp_path, tiny_model, chats, model__checkpoint=given, lora__targets=["q_proj"])
    with pytest.raises(ModelError, match="it also has"):
        train(fewer, stop=NeverStop())
    full = make_run(tmp_path, tiny_model, chats, model__checkpoint=given, method__kind="full")
    with pytest.raises(ModelError, match="cannot start from an adapter"):
        train(full, stop=NeverStop())


def test_given_weights_that_changed_since_they_were_saved_are_refused(tiny_model, chats, tmp_path):
    first = trained(tmp_path, tiny_model, chats)
    weights = first / "checkpoints" / "step-00000004" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    second = make_run(tmp_path, tiny_model, chats, model__checkpoint=str(weights.parent))
    with pytest.raises(CheckpointError, match="its content changed"):
        train(second, stop=NeverStop())


def test_a_pinned_checkpoint_outlives_the_retention_settings(tiny_model, chats, tmp_path):
    folder = make_run(tmp_path, tiny_model, chats, save__every=1, save__keep_last=1, save__keep_best=False)
    assert train(folder, stop=StopAfter(2)) == STOPPED
    (folder / "checkpoints" / "step-00000002" / PINNED).touch()
    assert train(folder, stop=NeverStop()) == DONE
    left = checkpoint.steps(folder / "checkpoints")
    assert 2 in left and 1 not in left and 3 not in left


def test_data_that_changed_while_a_run_waited_is_said_and_trained_on(tiny_model, chats, tmp_path):
    data = tmp_path / "数据.jsonl"
    data.write_bytes(chats.read_bytes())
    same = make_run(tmp_path, tiny_model, data, train__max_steps=1)
    changed = make_run(tmp_path, tiny_model, data, train__max_steps=1)
    for folder in (same, changed):
        config = read_run(folder).config
        write_config(folder, config, read_meta(folder) | {"data": data_fingerprints(config)})
    assert train(same, stop=NeverStop()) == DONE
    assert not [event for event in events_of(same, "event") if event["event"] == "data-changed"]
    with open(data, "ab") as file:
        file.write(chats.read_bytes().splitlines(keepends=True)[0])
    assert train(changed, stop=NeverStop()) == DONE
    (said,) = [event["message"] for event in events_of(changed, "event") if event["event"] == "data-changed"]
    assert "数据.jsonl has changed" in said and last_state(changed)["state"] == "done"
