"""Evaluations: every prediction is kept, losses and labels are the model's own, and nothing half-written is seen."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.base.errors import InputError
from engine.base.worker_process import DONE
from engine.formats import example_key, read_data
from engine.formats.examples import Example
from engine.runs import evaluation_folder
from engine.runs.journal import Journal
from engine.runs.run_folder import check_inputs
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.evaluate.eval_data import choose_shots, read_sources
from engine.worker.evaluate.likelihood import choose_labels
from engine.worker.evaluate.measure import EvalSpec, add_few_shot
from engine.worker.model import attention
from engine.worker.model.load import Precision
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.train.loop import train
from tests.engine.families import FAMILIES, build
from tests.engine.tiny_runs import events_of, make_run, write_jsonl

_CPU = Precision(torch.device("cpu"), None, torch.float32)
_LABELS = ("card_arrival", "card_arrival_estimate", "lost", "丢失了卡")


def _table(path: Path, rows: int = 12) -> Path:
    pairs = [(word, label) for word, label in (("apple", "fruit"), ("moon", "sky"), ("river", "water"))]
    lines = [f"{word} number {n},{label}" for n in range(rows) for word, label in pairs]
    path.write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def classified(tiny_model, tmp_path_factory) -> Path:
    """A run that learned a classification by heart."""
    root = tmp_path_factory.mktemp("classified")
    folder = make_run(
        root,
        tiny_model,
        _table(root / "table.csv"),
        eval__metrics=["accuracy", "macro_f1", "exact_match"],
        eval__max_new_tokens=6,
        train__epochs=16,
        method__kind="full",
        optim__learning_rate=5e-3,
    )
    assert train(folder) == DONE
    return folder


def _result(folder: Path) -> dict:
    return json.loads((folder / evaluation_folder.RESULT).read_text("utf-8"))


def test_each_evaluation_in_training_leaves_its_predictions(classified):
    events = events_of(classified, "eval")
    found = evaluation_folder.of_run(classified)
    assert [step for step, _, _ in found] == [event["step"] for event in events]
    for event, (step, slug, folder) in zip(events, found, strict=True):
        result, lines = _result(folder), [p.fields for p in evaluation_folder.read_predictions(folder)]
        assert (result["run"], result["step"], result["source"], slug) == (int(classified.name), step, "training", "")
        assert event["folder"] == f"evaluations/{folder.name}" and result["scores"] == event["values"]
        assert sum(line["loss"] for line in lines) / sum(line["tokens"] for line in lines) == pytest.approx(
            event["values"]["eval/loss"], rel=1e-9
        )
        for name in ("exact_match", "accuracy"):
            mean = sum(line["scores"][name] for line in lines) / len(lines)
            assert mean == pytest.approx(event["values"][f"eval/{name}"])
        assert result["data"]["examples"] == len(lines)
        assert result["data"]["key"] == evaluation_folder.data_key(line["key"] for line in lines)
        assert all(0 < line["probability"] <= 1 for line in lines)
    assert {event["values"]["eval/accuracy"] for event in events[-3:]} == {1.0}
    assert events[-1]["values"]["eval/macro_f1"] == 1.0
    assert {line["label"] for line in lines} == {"fruit", "sky", "water"}


def test_predictions_are_known_by_the_key_of_their_example(classified):
    _, _, folder = evaluation_folder.of_run(classified)[-1]
    table = classified.parent.parent / "table.csv"
    keys = {f"{example_key(e):016x}": e.messages[0]["content"] for e in read_data(str(table)).examples}
    for line in [p.fields for p in evaluation_folder.read_predictions(folder)]:
        assert keys[line["key"]] == line["prompt"]


def test_an_evaluation_is_on_disk_before_the_journal_tells_of_it(tiny_model, chats, tmp_path, monkeypatch):
    seen = []
    write = Journal.write

    def watched(self, kind, **fields):
        if kind == "eval":
            folder = next(Path(tmp_path).glob("runs/*")) / fields["folder"]
            seen.append((folder / "result.json").exists() and (folder / "predictions.jsonl").exists())
        write(self, kind, **fields)

    monkeypatch.setattr(Journal, "write", watched)
    assert train(make_run(tmp_path, tiny_model, chats, train__epochs=1)) == DONE
    assert seen == [True] * 2
    assert not list(tmp_path.glob("runs/*/evaluations/.tmp-*"))


def test_plain_text_is_paired_by_its_pieces(tiny_model, tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("今天是晴天，适合出门散步。The river is long and the moon is bright.\n" * 40, "utf-8")
    folders = [
        make_run(tmp_path, tiny_model, text, method__objective="pretrain", train__epochs=1, train__seed=seed)
        for seed in (0, 1)
    ]
    keys = []
    for folder in folders:
        assert train(folder) == DONE
        last = evaluation_folder.of_run(folder)[-1][2]
        keys.append(_result(last)["data"]["key"])
        assert all(p.reference is None and p.loss > 0 for p in evaluation_folder.read_predictions(last))
    assert keys[0] == keys[1]


def test_old_predictions_are_thinned_but_results_stay(tiny_model, chats, tmp_path):
    changes = {"eval__every": 1, "eval__keep_predictions": 2, "save__every": 4, "save__keep_epochs": 1}
    folder = make_run(tmp_path, tiny_model, chats, train__epochs=1, save__keep_best=False, **changes)
    assert train(folder) == DONE
    steps = [step for step, _, _ in evaluation_folder.of_run(folder)]
    with_predictions = [s for s, _, path in evaluation_folder.of_run(folder) if (path / "predictions.jsonl").exists()]
    assert steps == list(range(steps[-1] + 1)) and len(steps) > 6
    assert with_predictions == sorted({0, 4, steps[-2], steps[-1]})


def test_going_back_takes_back_what_was_evaluated_beyond(tmp_path):
    for name in ("step-00000003", "step-00000006", "step-00000006-test-ab", "step-00000003-test-ab"):
        evaluation_folder.write(tmp_path / "evaluations", name, {"scores": {}}, [])
    (tmp_path / "evaluations" / ".tmp-step-00000009-1").mkdir()
    evaluation_folder.take_back(tmp_path, 3)
    assert [path.name for _, _, path in evaluation_folder.of_run(tmp_path)] == [
        "step-00000003",
        "step-00000003-test-ab",
    ]
    assert [p.name for p in (tmp_path / "evaluations" / "abandoned-1").iterdir()] == ["step-00000006-test-ab"]
    assert not list((tmp_path / "evaluations").glob(".tmp-*"))


def test_an_evaluation_written_again_replaces_the_old_one_whole(tmp_path):
    for number in (1, 2):
        evaluation_folder.write(tmp_path, "step-00000001", {"n": number}, [{"key": str(number)}] * number)
    assert _result(tmp_path / "step-00000001") == {"n": 2}
    assert len(evaluation_folder.read_predictions(tmp_path / "step-00000001")) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_accuracy_on_data_without_labels_is_refused_before_training(tiny_model, chats, tmp_path):
    folder = make_run(tmp_path, tiny_model, chats, eval__metrics=["accuracy"])
    with pytest.raises(InputError, match="need classification data"):
        train(folder)
    assert not events_of(folder, "metric")


def test_a_schema_that_is_none_is_refused_with_its_name(tmp_path):
    from engine.settings.schema import EvalConfig

    schema = tmp_path / "s.json"
    schema.write_text('{"type": 3}')
    with pytest.raises(InputError, match=r"s\.json"):
        EvalSpec.of(EvalConfig(metrics=["json_schema"], schema=str(schema)), tmp_path)
    schema.write_text('{"properties": {"a": {"$ref": "#/$defs/none"}}}')
    config = RunConfig().replace({"eval.metrics": ["json_schema"], "eval.schema": str(schema)})
    with pytest.raises(InputError, match=r"s\.json: \$ref '#/\$defs/none' leads to nothing in it"):
        check_inputs(config.replace({"data.files": [str(schema)]}))
    with pytest.raises(InputError, match="No such file"):
        EvalSpec.of(EvalConfig(metrics=["json_schema"], schema=str(tmp_path / "none.json")), tmp_path)


def test_scores_of_json_answers_follow_the_schema(tiny_model, tmp_path):
    rows = [
        {"prompt": f"age of {name}", "completion": json.dumps({"age": age})}
        for age, name in enumerate(["Kim", "Ada", "李雷", "Bo", "Eve", "Jo", "Al", "Cy", "Di", "Fo"] * 2)
    ]
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"age": {"maximum": -1}}}))
    folder = make_run(
        tmp_path,
        tiny_model,
        write_jsonl(tmp_path / "rows.jsonl", rows),
        eval__metrics=["json_valid", "json_schema", "number_match", "rouge_l", "chrf", "contains"],
        eval__schema=str(schema),
        eval__max_new_tokens=16,
        eval__max_examples=2,
        train__epochs=40,
        method__kind="full",
        optim__learning_rate=5e-3,
        eval__every=100,
    )
    assert train(folder) == DONE
    values = events_of(folder, "eval")[-1]["values"]
    assert values["eval/json_valid"] == 1 and values["eval/json_schema"] == 0
    assert {"eval/number_match", "eval/rouge_l", "eval/chrf", "eval/contains"} <= values.keys()
    lines = [p.fields for p in evaluation_folder.read_predictions(evaluation_folder.of_run(folder)[-1][2])]
    assert sum(line["text"] is not None for line in lines) == 2 < len(lines)


def test_a_file_can_be_evaluated_when_the_training_data_is_gone(tmp_path):
    config = RunConfig().replace({"data.files": [str(tmp_path / "gone.csv")]})
    rows = [{"prompt": f"q{n}", "completion": f"answer {n}"} for n in range(40)]
    sources = read_sources(config, [str(write_jsonl(tmp_path / "test.jsonl", [*rows, {"prompt": 5}]))], with_train=True)
    assert len(sources.examples) == 40 and sources.report.bad_rows == 1 and sources.train == ()
    with pytest.raises(InputError, match=r"--shots 2: there are 0 training examples"):
        choose_shots(sources, 2, seed=0)
    with pytest.raises(InputError, match=r"gone\.csv"):
        read_sources(config, [], with_train=True)


def test_data_in_splits_are_trained_and_evaluated_on_by_their_splits(tmp_path):
    rows, names = [{"prompt": str(n), "completion": "yes"} for n in range(9)], ("train", "validation", "test")
    parts = {part: [{**row, "prompt": f"{part} {row['prompt']}"} for row in rows] for part in names}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(parts))

    def asked(examples):
        return {example.messages[0]["content"].split()[0] for example in examples}

    own = read_sources(RunConfig().replace({"data.files": [str(path)]}), [], with_train=True)
    assert (asked(own.train), asked(own.examples), own.held_out) == ({"train"}, {"validation"}, False)
    given = RunConfig().replace({"data.files": [str(path)], "data.val_files": [str(path)]})
    assert asked(read_sources(given, [], with_train=True).examples) == {"validation"}
    assert asked(read_sources(given, [str(path)], with_train=True).examples) == {"test"}
    assert asked(read_sources(given, [f"{path}:train"], with_train=True).examples) == {"train"}


def test_examples_in_the_prompt_are_never_those_that_are_evaluated(tmp_path):
    rows = [{"prompt": f"q{n}", "completion": f"answer {n}"} for n in range(12)]
    train_file = str(write_jsonl(tmp_path / "train.jsonl", rows))
    config = RunConfig().replace({"data.files": [train_file]})
    sources = read_sources(config, [str(write_jsonl(tmp_path / "test.jsonl", rows[:9]))], with_train=True)
    for seed in range(5):
        shots = choose_shots(sources, 3, seed)
        assert {shot.messages[0]["content"] for shot in shots} == {"q9", "q10", "q11"}
    shown = add_few_shot(sources.examples[0], shots)
    assert [message["role"] for message in shown.messages] == ["user", "assistant"] * 4
    assert [message.get("weight") for message in shown.messages if message["role"] == "assistant"] == [0, 0, 0, None]


# --- likelihood -------------------------------------------------------------------------------------------------------


def _prompts() -> list[Example]:
    questions = ["Where is my card?", "卡什么时候到？", "I lost it somewhere in the moon river " * 3, "a"]
    return [Example(messages=({"role": "user", "content": question},)) for question in questions]


def _by_hand(model: torch.nn.Module, template: ChatTemplate, prompt: Example, label: str) -> float:
    """log p(label and end of turn | prompt) from the model's own logits over the whole conversation."""
    answer = {"role": "assistant", "content": label}
    (chat,) = template.encode_chats([Example(messages=(*prompt.messages, answer))])
    ids = torch.from_numpy(chat.ids).long()
    log_p = torch.log_softmax(model(input_ids=ids[None]).logits[0, :-1].double(), -1)
    each = log_p.gather(1, ids[1:, None])[:, 0]
    return float(each[torch.from_numpy(chat.loss_mask[1:])].sum())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_labels_are_scored_by_their_whole_likelihood(family, tmp_path):
    attention.register()
    build(family, tmp_path / family)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / family, attn_implementation=attention.NAME).eval()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / family, attn_implementation="eager").eval()
    template = ChatTemplate(AutoTokenizer.from_pretrained(tmp_path / family))
    expected = np.array([[_by_hand(plain, template, prompt, label) for label in _LABELS] for prompt in _prompts()])
    told: list[int] = []
    for loss_fn in (PackedLoss(model), UnpackedLoss(plain)):
        choices = choose_labels(loss_fn, template, _prompts(), _LABELS, _CPU, told.append)
        for row, choice in zip(expected, choices, strict=True):
            shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            assert choice.label == _LABELS[row.argmax()]
            assert choice.probability == pytest.approx(shares.max(), rel=1e-4)
    assert told[-1] == 4


@torch.no_grad()
def test_out_of_memory_scores_fewer_prompts_at_a_time(tmp_path, monkeypatch):
    attention.register()
    build("qwen2.5", tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", attn_implementation=attention.NAME).eval()
    template = ChatTemplate(AutoTokenizer.from_pretrained(tmp_path / "m"))
    whole = choose_labels(PackedLoss(model), template, _prompts(), _LABELS, _CPU)
    forward, sizes = type(model).forward, []

    def scarce(self, input_ids, **options):
        if input_ids.shape[1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(input_ids.shape[1])
        return forward(self, input_ids, **options)

    monkeypatch.setattr(type(model), "forward", scarce)
    again = choose_labels(PackedLoss(model), template, _prompts(), _LABELS, _CPU)
    assert [c.label for c in again] == [c.label for c in whole] and len(sizes) > 1
    assert all(math.isclose(a.probability, b.probability, rel_tol=1e-4) for a, b in zip(again, whole, strict=True))
