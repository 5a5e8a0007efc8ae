"""A model whose positions are a table ends where the table does: refused before, and answers stop there."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from engine.base.errors import InputError, ModelError
from engine.base.worker_process import DONE
from engine.cli.main import main
from engine.formats.examples import Example
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data_report import report
from engine.worker.evaluate.generate import Sampling, generate
from engine.worker.evaluate.likelihood import choose_labels
from engine.worker.model import attention
from engine.worker.model.load import Precision, check_positions, table_positions
from engine.worker.model.loss import PackedLoss
from engine.worker.train.loop import train
from tests.engine.families import tokenizer
from tests.engine.tiny_runs import NeverStop, events_of, make_run, write_jsonl

PRECISION = Precision(torch.device("cpu"), None, torch.float32)
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=600, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=2),
    "opt": OPTConfig(
        vocab_size=600, max_position_embeddings=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        ffn_dim=64,
        word_embed_proj_dim=32, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def model_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[request.param]).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def rows(path, words: int):
    return write_jsonl(path, [{"prompt": f"say {n} " + "moon " * words, "completion": "moon"} for n in range(12)])


def test_longer_rows_are_refused_by_plan_and_train_alike_and_shorter_ones_trained(model_folder, tmp_path):
    data = rows(tmp_path / "long.jsonl", 60)
    folder = make_run(tmp_path, model_folder, data, data__max_length=2048)
    found = report(folder, 0)
    longest = max(found["data"][part]["longest"] for part in ("train", "val"))
    assert found["facts"]["beyond"] == 12 and longest > 64
    with pytest.raises(
        InputError, match=rf"has {longest} tokens, and this model has a table of 64 positions"
    ) as caught:
        train(folder, stop=NeverStop())
    assert "--max-length 64" in caught.value.hint and not events_of(folder, "model"), "nothing was loaded for it"
    fitting = make_run(
        tmp_path, model_folder, rows(tmp_path / "short.jsonl", 1), train__max_steps=1, eval__metrics=["exact_match"],
        eval__prompts=["moon " * 80], eval__max_new_tokens=500,
    )  # fmt: skip
    assert train(fitting, stop=NeverStop()) == DONE
    cut = make_run(tmp_path, model_folder, data, data__train_on="all", train__max_steps=1, data__max_length=64)
    assert train(cut, stop=NeverStop()) == DONE, "as its hint says"


def test_answers_end_with_the_table_and_a_prompt_that_fills_it_gets_none(model_folder):
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation=attention.NAME).eval()
    assert table_positions(model) == 64
    prompts = [[5] * length for length in (3, 60, 63, 64, 90)]
    for packed in (True, False):
        answers = generate(model, prompts, set(), Sampling(100), PRECISION, packed)
        assert [len(answer) for answer in answers] == [61, 4, 1, 0, 0]
    check_positions(model, 64)
    with pytest.raises(ModelError, match="has 65 tokens, and this model has a table of 64"):
        check_positions(model, 65)


@pytest.mark.parametrize("model_folder", ["gpt2"], indirect=True)
def test_eval_and_sample_say_what_their_user_can_do_about_it_and_it_helps(model_folder, tmp_path, capsys, fork_server):
    data = rows(tmp_path / "long.jsonl", 60)
    ask = ["eval", str(model_folder), "--workspace", str(tmp_path), "--data", str(data), "--metrics", "loss"]
    assert main(ask) == 2
    assert "table of 64 positions" in (said := capsys.readouterr().err) and "--max-length 64" in said
    assert main([*ask, "--max-length", "64", "--set", "data.train_on=all"]) == 0
    assert "12 examples are longer than data.max_length" in capsys.readouterr().out
    ask[0] = "sample"
    assert main([*ask[:4], "--prompt", "moon " * 80]) == 2
    assert "Ask in fewer tokens" in (said := capsys.readouterr().err) and "--max-length" not in said


def test_labels_that_would_stand_beyond_it_are_refused_in_words(model_folder):
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation=attention.NAME).eval()
    template = ChatTemplate(tokenizer())
    prompt = Example(messages=({"role": "user", "content": "moon " * 12},))
    with pytest.raises(ModelError, match="table of 64 positions") as caught:
        choose_labels(
            PackedLoss(model), template, [prompt], ["a", "river of a very long name indeed, and on"], PRECISION
        )
    assert "eval.classify=generate" in caught.value.hint and "--max-length" not in caught.value.hint
