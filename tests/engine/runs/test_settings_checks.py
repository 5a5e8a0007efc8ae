"""Where what is asked for and what a run will do differ: pure functions from facts to findings."""

import json
import math

import pytest

from engine.base.errors import InputError
from engine.models import weights
from engine.models.model_facts import ModelFacts, facts_of, find_facts
from engine.runs.lr_schedule import jump, learning_rate, steps
from engine.runs.settings_checks import by_hand, check, check_settings, given_by_hand
from engine.runs.settings_findings import DataFacts, GpuFacts
from engine.settings.resolve import Layer, Resolved, resolve
from engine.settings.schema import RunConfig

NAMES = [f"model.layers.{n}.self_attn.{name}" for n in range(4) for name in ("q_proj", "v_proj")]
NAMES += [f"model.layers.{n}.mlp.down_proj" for n in range(4)] + [
    "model.layers.3.mlp.gate",
    "model.embed_tokens",
    "lm_head",
]
MODEL = ModelFacts(tuple(NAMES), positions=2048)
DATA = DataFacts(train=800, val=80, longest=900, steps_per_epoch=100, total_steps=300, labels=4)
SOUND = {"train.epochs": 3, "train.batch_size": 8, "optim.learning_rate": 2e-4}


def found(model=MODEL, data=DATA, gpus=None, **changes):
    """Findings by their code."""
    values = SOUND | {path.replace("__", "."): value for path, value in changes.items()}
    resolved = resolve([Layer("--set", values)])
    return {one.code: one for one in check(resolved.config, given_by_hand(resolved), model, data, gpus)}


def test_where_all_is_as_asked_nothing_is_said():
    assert found() == {}
    assert found(lora__targets=["q_proj", "mlp.down_proj", "layers.0.self_attn.v_proj"]) == {}
    assert found(model=ModelFacts(), lora__targets=["anything"]) == {}, "of a model nobody knows nothing is claimed"


@pytest.mark.parametrize("wrong", ["qkv_prj", "[q_proj]", "mlp", ".*q_proj", "q_pro", "proj", "all-linear"])
def test_a_target_that_names_no_module_is_refused_with_what_the_model_has(wrong):
    for targets in ([wrong], ["q_proj", wrong]):
        one = found(lora__targets=targets)["targets"]
        assert (
            one.refused
            and wrong in one.message
            and "q_proj, v_proj, down_proj, gate, embed_tokens, lm_head" in one.message
        )
    assert not found(method__kind="full", lora__targets=[wrong]).get("targets"), "without an adapter there are none"


def test_the_names_come_from_config_json_or_from_the_weights_files(tiny_model, tmp_path):
    """One for the kinds whose shape is known, the other for any model that is here."""
    config = resolve([Layer("t", {"lora.targets": ["c_attn", "w_q"], "model.name": str(tmp_path)})]).config
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    header = {"h.0.attn.c_attn.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    raw = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(16))
    with pytest.raises(InputError, match=r"w_q matches nothing; this model has c_attn, lm_head"):
        check_settings(config)
    known = find_facts(resolve([Layer("t", {"model.name": str(tiny_model)})]).config.model)
    assert "model.layers.1.mlp.up_proj" in known.modules and known.positions == 512 and known.tied and not known.table
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x", "quantization_config": {"bits": 4}}))
    check_settings(config)  # its matrices are called otherwise once loaded: the worker judges
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x"}))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    check_settings(config)  # nothing is known of its names: who loads it tells


def test_targets_of_some_layers_and_of_a_shared_matrix_are_told():
    assert "1 of the model's 4 layers" in found(lora__targets=["gate"])["targets-in-some-layers"].message
    tied = ModelFacts(MODEL.modules, tied=True)
    told = found(model=tied, lora__targets=["q_proj", "lm_head"])["not-mergeable"]
    assert "cannot be merged" in told.message and not told.refused
    assert not found(lora__targets=["q_proj", "lm_head"])


@pytest.mark.parametrize(
    ("config", "tensors", "expected"),
    [
        ({"model_type": "gpt2", "n_positions": 64}, [], (64, True)),
        (
            {"model_type": "opt", "max_position_embeddings": 2048},
            ["model.decoder.embed_positions.weight"],
            (2048, True),
        ),
        ({"model_type": "new", "max_position_embeddings": 100}, ["transformer.wpe.weight"], (100, True)),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, [], (512, True)),
        ({"model_type": "gptj", "n_positions": 2048}, [], (2048, True)),
        (
            {"model_type": "llama", "max_position_embeddings": 4096},
            ["model.layers.0.self_attn.q_proj.weight"],
            (4096, False),
        ),
        ({"text_config": {"model_type": "x", "max_position_embeddings": 7}}, [], (7, False)),
        ({"model_type": "mamba"}, [], (None, False)),
    ],
)
def test_positions_are_a_table_or_a_custom(config, tensors, expected):
    facts = facts_of(config, (), tensors)
    assert (facts.positions, facts.table) == expected


def test_rows_beyond_a_table_of_positions_are_refused_and_beyond_a_custom_told():
    data = DataFacts(train=10, val=0, longest=136, steps_per_epoch=3, total_steps=9, beyond=4)
    one = found(model=ModelFacts(positions=64, table=True), data=data)["beyond-positions"]
    assert one.refused and "136" in one.message and "64" in one.message and "--max-length 64" in one.hint
    told = found(model=ModelFacts(positions=64), data=data)["beyond-positions"]
    assert not told.refused and "4 examples" in told.message and "136" in told.message
    assert "beyond-positions" not in found(model=ModelFacts(positions=136, table=True), data=data)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"optim__warmup": 400}, "warmup", "the rate gets to 1.5e-4 at most"),
        ({"optim__warmup": 300}, "warmup", "never begins"),
        ({"optim__warmup": 0.9}, "warmup", "270 of the run's 300 steps"),
        ({"train__max_steps": 1000}, "max-steps", "never reached: 3 epochs of 100 steps are 300"),
        ({"train__max_steps": 150}, "epochs", "ends the run in epoch 2 of 3"),
        ({"train__batch_size": 1000}, "batch", "more than the 800 examples"),
        ({"eval__every": 301}, "eval-every", "more than the 300 steps"),
        ({"save__every": 301}, "save-every", "more than the 300 steps"),
        ({"save__keep_last": 5}, "keep-last", "save.every is 0"),
        ({"train__early_stopping": 4}, "early-stopping", "has 3 evaluations after"),
        ({"train__early_stopping": 2, "save__keep_best": False}, "keep-best", "are deleted"),
        ({"method__kind": "full", "lora__r": 8, "lora__dora": True}, "no-effect", "lora.dora, lora.r have no effect"),
        ({"eval__classify": "generate"}, "no-effect", "eval.classify has no effect"),
        ({"eval__max_new_tokens": 9}, "no-effect", "eval.max_new_tokens has no effect"),
        ({"data__val_files": ["v.jsonl"], "data__val_fraction": 0.2}, "no-effect", "data.val_fraction has no effect"),
        ({"model__revision": "main"}, "no-effect", "model.revision has no effect"),
    ],
)
def test_each_difference_is_told_with_its_figures(changes, code, words):
    told = found(**changes)
    assert words in told[code].message and list(told) == [code] and not told[code].refused


def test_borders_of_the_course():
    assert found(optim__warmup=150) == found(train__max_steps=300) == found(eval__every=300) == {}
    assert found(train__batch_size=800) == found(train__early_stopping=3) == {}
    one = DataFacts(train=4, val=1, longest=9, steps_per_epoch=1, total_steps=1)
    assert (
        "only one has the full rate" in found(data=one, optim__schedule="linear", train__epochs=1)["schedule"].message
    )
    rate = resolve([Layer("t", SOUND | {"optim.warmup": 400.0})]).config.optim
    assert math.isclose(max(learning_rate(step, 300, rate) for step in range(1, 301)), 1.5e-4)


def test_what_cannot_be_measured_is_refused_or_told():
    unlabelled = DataFacts(train=800, val=80, longest=9, steps_per_epoch=100, total_steps=300)
    assert found(data=unlabelled, eval__metrics=["accuracy", "rouge_l"])["no-labels"].refused
    none = DataFacts(train=800, val=0, longest=9, steps_per_epoch=100, total_steps=300, labels=4)
    told = found(data=none, eval__metrics=["accuracy"], train__early_stopping=2)["no-validation"]
    assert "eval.metrics, train.early_stopping do nothing" in told.message
    own = DataFacts(train=800, val=80, longest=9, steps_per_epoch=100, total_steps=300, with_system=0)
    assert "given to no example" in found(data=own, data__system="Be kind.")["system"].message


def test_gpus_that_are_not_here_are_told():
    two = GpuFacts(("0", "1", "GPU-aa"), 2)
    assert "no GPU 7; this machine has 0, 1, GPU-aa" in found(gpus=two, run__gpus=["1", "7"])["no-such-gpu"].message
    assert "asks for 4 GPUs; 2 can be seen" in found(gpus=two, run__gpu_count=4)["too-few-gpus"].message
    assert "none can be seen here" in found(gpus=GpuFacts((), 0), run__gpus=["0"])["no-such-gpu"].message
    assert found(gpus=two, run__gpus=["GPU-aa"]) == {}


def test_settings_of_the_queue_are_idle_by_hand():
    resolved = resolve([Layer("--set", {"run.gpus": ["1"], "run.retries": 2, "run.gpu_count": 2})])
    (one,) = by_hand(resolved)
    assert "run.gpus, run.retries have no effect" in one.message and "CUDA_VISIBLE_DEVICES" in one.hint
    assert by_hand(resolve([Layer("preset p", {"run.retries": 2})])) == []


def test_only_what_a_person_chose_is_told_to_have_no_effect():
    """Not what a preset brings along, and of a whole file of settings not what is the default."""
    full = {"method.kind": "full"}
    preset = resolve([Layer("preset p", {"lora.r": 8}), Layer("--method", full)])
    saved = resolve([Layer("run.json", RunConfig().flat()), Layer("--method", full)])
    for resolved in (preset, saved):
        assert given_by_hand(resolved) == {"method.kind"}
    assert given_by_hand(Resolved(saved.config.replace({"lora.r": 9}), saved.origin)) == {"method.kind", "lora.r"}


def test_a_longer_course_says_where_the_rate_leaps_to():
    before = resolve([Layer("t", SOUND | {"train.epochs": 2, "train.batch_size": 4})]).config
    after = before.replace({"train.epochs": 4})
    (_, old), (_, new) = steps(before, 16), steps(after, 16)
    said = jump(before, after, 16, 8)
    assert (old, new) == (8, 16) and "from 9.9e-6 at step 8 to 1.1e-4 at step 9" in said
    assert jump(before, before, 16, 8) == jump(before, after, 16, 0) == ""
    constant = {"optim.schedule": "constant"}
    assert jump(before.replace(constant), after.replace(constant), 16, 8) == ""


def test_the_names_of_a_folder_of_shards_are_read_through_its_index(tmp_path):
    for name, tensor in (("a.safetensors", "x.weight"), ("b.safetensors", "y.weight")):
        raw = json.dumps({tensor: {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}).encode()
        (tmp_path / name).write_bytes(len(raw).to_bytes(8, "little") + raw + b"1234")
    (tmp_path / "consolidated.safetensors").write_bytes(b"another copy")
    index = {"weight_map": {"x.weight": "a.safetensors", "y.weight": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [tensor.name for tensor in weights.tensors(tmp_path)] == ["x.weight", "y.weight"]
