"""Ways in which other trainers learnt the wrong thing without a word. Where each is tested:

mean of means under accumulation        test_loss: the same in one, two or four passes; here: through a whole run
two layers dividing, or neither         here: the logged loss is the model's own
labels counted before the shift         test_loss: an example's first token; here: the divisor of a run
mask all zero or all one                test_template: the answer and its end; here: a row with nothing to learn
end of turn not in the mask             test_template: every template; here: a trained model stops
pad token is the end token              test_template; here: a run with such a tokenizer
two beginnings of text, or none         test_template: exactly one beginning token
prompt and answer share a token         test_template: tokens and texts do not fall together
examples of a pack see each other       test_loss: changing one example changes no other
positions not started anew              test_loss: positions start anew
layers that leak state across a pack    test_loss: runs unpacked with the reason; here: through a whole run
truncation cuts the answer              test_template: cut tokens are counted; here: in the dry run
vocabulary resized under an adapter     test_families: the vocabulary keeps its size
adapters silently in another type       test_families: adapters are float32 and the manifest says so
validation loss averaged per batch      test_loss: weighed by tokens; here: through a whole run
a NaN step hidden                       test_train_loop: a nonfinite loss stops
tokens per second count padding         here: only real tokens are counted
a library changes the loss mid-run      test_train_loop: resuming with another library
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from engine.base.errors import DataError
from engine.base.worker_process import DONE
from engine.settings.resolve import read_run
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.packing import TokenSet, epoch_order
from engine.worker.data.tokenize import prepare
from engine.worker.data_report import report
from engine.worker.evaluate.generate import Sampling, generate, stop_tokens
from engine.worker.model.load import Precision
from engine.worker.train.loop import train
from tests.engine.tiny_runs import NeverStop, events_of, make_run, series, write_jsonl
from tests.engine.worker.model.test_loss import LEAKY, alone, build, eager

ONE_STEP = {"train__max_steps": 1, "method__kind": "full", "lora__dropout": 0.0, "save__every": 0}


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """Answers of very different length, so that a mean of means is far from the mean."""
    rows = [("a", "b"), ("count", " ".join(map(str, range(20)))), ("yes?", "no"), ("list", "x, y, z, " * 4)] * 3
    talks = [
        [{"role": "user", "content": f"{q} {i}"}, {"role": "assistant", "content": a}] for i, (q, a) in enumerate(rows)
    ]
    return write_jsonl(tmp_path / "ragged.jsonl", [{"messages": talk} for talk in talks])


def tokens_of(folder: Path) -> tuple[TokenSet, TokenSet]:
    config = read_run(folder).config
    prepared = prepare(config, ChatTemplate(AutoTokenizer.from_pretrained(config.model.name)))
    return prepared.train, prepared.val


@torch.no_grad()
def own_loss(model: PreTrainedModel, tokens: TokenSet) -> float:
    """Mean over all supervised tokens, by the model's own forward pass in float64."""
    return float(torch.cat(alone(eager(model).double(), tokens)).mean())


def metric(folder: Path, key: str) -> list[float]:
    return [float.fromhex(value) for _, value in series(folder, key)]


@pytest.mark.parametrize("micro_tokens", [8, 64, 4096])
@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_the_logged_loss_is_the_models_own_over_the_tokens_of_the_step(
    micro_tokens: int, train_on: str, tiny_model: Path, ragged: Path, tmp_path: Path
) -> None:
    options = {"data__train_on": train_on, "train__micro_tokens": micro_tokens, "train__batch_size": 8}
    folder = make_run(tmp_path, tiny_model, ragged, **(ONE_STEP | options))
    assert train(folder, stop=NeverStop()) == DONE
    tokens, val = tokens_of(folder)
    first = TokenSet.join([tokens.example(i) for i in epoch_order(len(tokens), 0, 0)[:8]])
    assert first.label_tokens.std() > 5
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert metric(folder, "train/loss") == [pytest.approx(own_loss(model, first), rel=1e-6)]
    before = next(event for event in events_of(folder, "eval") if event["step"] == 0)
    assert before["values"]["eval/loss"] == pytest.approx(own_loss(model, val), rel=1e-6)


def test_a_whole_run_is_the_same_however_its_steps_are_cut(tiny_model: Path, ragged: Path, tmp_path: Path) -> None:
    def losses(micro_tokens: int) -> list[float]:
        folder = make_run(
            tmp_path / str(micro_tokens), tiny_model, ragged, method__kind="full", train__micro_tokens=micro_tokens
        )
        assert train(folder, stop=NeverStop()) == DONE
        return metric(folder, "train/loss")

    whole = losses(4096)
    assert len(whole) >= 4 and whole[-1] < whole[0]
    for micro_tokens in (64, 8):
        assert losses(micro_tokens) == pytest.approx(whole, rel=1e-5)


def test_only_real_tokens_are_counted(tiny_model: Path, ragged: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path, tiny_model, ragged, train__epochs=2, train__batch_size=4)
    assert train(folder, stop=NeverStop()) == DONE
    tokens, _ = tokens_of(folder)
    assert metric(folder, "train/tokens")[-1] == 2 * len(tokens.ids)
    assert events_of(folder, "data")[-1]["train"]["tokens"] == len(tokens.ids)
    for rate, seconds, count in zip(
        metric(folder, "train/tokens_per_s"),
        metric(folder, "train/step_s"),
        np.diff([0, *metric(folder, "train/tokens")]),
        strict=True,
    ):
        assert rate * seconds == pytest.approx(count, rel=0.02)


def test_a_row_with_nothing_to_learn_is_refused_and_the_rest_trained(tiny_model: Path, tmp_path: Path) -> None:
    def talk(answer: str, **more: Any) -> dict:
        return {
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer, **more}],
        }

    rows = [talk(f"answer {i}") for i in range(12)]
    path = write_jsonl(tmp_path / "a.jsonl", [*rows, talk("nothing", weight=0)])
    folder = make_run(tmp_path, tiny_model, path, data__max_bad_share=0.2, data__val_fraction=0.0, **ONE_STEP)
    assert train(folder, stop=NeverStop()) == DONE
    data = events_of(folder, "data")[-1]
    assert (data["train"]["examples"], data["problems"][0]["line"]) == (12, 13)
    only = write_jsonl(tmp_path / "b.jsonl", [talk("nothing", weight=0)])
    with pytest.raises(DataError, match=r"b\.jsonl"):
        train(make_run(tmp_path, tiny_model, only, data__max_bad_share=1.0), stop=NeverStop())


@pytest.mark.parametrize("pad_is_end", [False, True])
def test_a_trained_model_stops_where_its_answers_end(
    pad_is_end: bool, tiny_model: Path, chats: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(base)
    tokens = AutoTokenizer.from_pretrained(tiny_model)
    if pad_is_end:
        tokens.pad_token = tokens.eos_token
    tokens.save_pretrained(base)
    path = write_jsonl(tmp_path / "yes.jsonl", [{"prompt": f"say {i}", "completion": "yes"} for i in range(20)])
    folder = make_run(
        tmp_path,
        base,
        path,
        method__kind="full",
        optim__learning_rate=1e-2,
        train__epochs=6,
        train__batch_size=8,
        save__every=0,
    )
    assert train(folder, stop=NeverStop()) == DONE
    latest = folder / "checkpoints" / "latest"
    model, tokens = AutoModelForCausalLM.from_pretrained(latest).eval(), AutoTokenizer.from_pretrained(latest)
    prompt = tokens.apply_chat_template(
        [{"role": "user", "content": "say 7"}], add_generation_prompt=True, return_dict=False
    )
    cpu = Precision(torch.device("cpu"), None, torch.float32)
    (answer,) = generate(model, [prompt], stop_tokens(model, tokens), Sampling(20), cpu, False)
    assert tokens.decode(answer) == "yes"


def test_a_model_that_leaks_state_is_trained_one_example_a_pass_and_says_why(
    tiny_model: Path, ragged: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model = build(lambda: _sized(LEAKY["lfm2"]()), spread=0.02)
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    folder = make_run(tmp_path, base, ragged, **(ONE_STEP | {"train__batch_size": 8}))
    assert train(folder, stop=NeverStop()) == DONE
    (event,) = (e for e in events_of(folder, "event") if e["event"] == "plain-path")
    assert event["message"] == "One example a pass: packed, the model's layers mix examples."
    assert events_of(folder, "model")[-1]["path"] == "plain"
    tokens, _ = tokens_of(folder)
    first = TokenSet.join([tokens.example(i) for i in epoch_order(len(tokens), 0, 0)[:8]])
    assert metric(folder, "train/loss") == [pytest.approx(own_loss(model, first), rel=1e-6)]


def _sized(config: Any) -> Any:
    config.vocab_size = 600
    return config


def test_the_dry_run_tells_what_is_cut_and_shows_what_is_trained(
    tiny_model: Path, ragged: Path, tmp_path: Path
) -> None:
    whole, _ = tokens_of(make_run(tmp_path, tiny_model, ragged, data__max_length=512, data__val_fraction=0.0))
    folder = make_run(tmp_path, tiny_model, ragged, data__max_length=32, data__val_fraction=0.0)
    told = json.loads(json.dumps(report(folder, 3)))
    counts = told["data"]["train"]
    assert counts["overlong"] == (whole.lengths > 32).sum() > 0
    assert counts["cut_tokens"] == np.maximum(whole.lengths - 32, 0).sum()
    assert counts["cut_supervised"] == whole.loss_mask.sum() - counts["supervised"] > 0
    assert counts["examples"] == 12 and counts["longest"] == 32
    pieces = told["examples"][0]
    assert [trained for _, trained in pieces] == [False, True]
    assert pieces[1][0] == "b<|im_end|>"
    cut = told["examples"][1]
    assert [trained for _, trained in cut] == [False, True]
    assert cut[1][0].startswith("0 1 2") and not cut[1][0].endswith("<|im_end|>")
