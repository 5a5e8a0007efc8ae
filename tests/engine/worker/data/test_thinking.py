"""Thoughts in rows and answers: what is trained of them, what is scored, and that unlearning them is told."""

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from engine.formats.examples import Example
from engine.metrics.reasoning import parts
from engine.metrics.score import Answer, score
from engine.present.data_warnings import data_warnings
from engine.settings.resolve import Layer, resolve
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.thinking import (
    Thoughts,
    decode,
    has_thought,
    in_known_tags,
    thinking_scores,
    thinks_less,
    without_thoughts,
)
from engine.worker.data.tokenize import prepare
from engine.worker.train.loop import train
from tests.engine.families import build
from tests.engine.tiny_runs import events_of, make_run, write_jsonl
from tests.engine.worker.data.template_recipes import plain
from tests.engine.worker.data.template_shapes import SHAPES
from tests.engine.worker.data.tokenizer_kit import tokenizer

# As Qwen3's: an empty thought before the last answer that has none, thoughts of earlier turns left out.
REASONING = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' -%}
{%- set thought = message.reasoning_content or '' -%}
{%- set content = message.content -%}
{%- if not thought and '</think>' in content -%}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if loop.last or thought -%}
{{ '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
{%- else -%}{{ content }}{%- endif -%}
{%- else -%}{{ message.content }}{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""


@pytest.fixture(scope="module", params=[False, True], ids=["tags are text", "tags are tokens"])
def reasoning(request, tmp_path_factory):
    """A model whose template writes thoughts; its tags are added tokens, as Qwen3's, or not, as others'."""
    folder = build("qwen3", tmp_path_factory.mktemp("models") / "reasoning")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if request.param:
        tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    tokenizer.chat_template = REASONING
    tokenizer.save_pretrained(folder)
    return folder


def row(answer: str, **more) -> dict:
    return {
        "messages": [{"role": "user", "content": f"ask {answer}"}, {"role": "assistant", "content": answer, **more}]
    }


ROWS = [
    row("plain"),
    row("given", reasoning_content="I think of it"),
    row("<think>\ninline thought\n</think>\n\nsaid"),
    row("<think>\n\n</think>\n\nempty"),
]


def trained_texts(model, tmp_path, **changes) -> tuple[list[str], dict]:
    """What is trained of each row, in the order of the rows; and the report."""
    values = {"model.name": str(model), "data.files": [str(write_jsonl(tmp_path / "rows.jsonl", ROWS))],
              "data.val_fraction": 0.0}  # fmt: skip
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    template = ChatTemplate(AutoTokenizer.from_pretrained(model))
    data = prepare(resolve([Layer("test", values)]).config, template)
    examples = [data.train.example(i) for i in range(len(data.train))]
    return [template.tokenizer.decode(ids[np.array(trained)].tolist()) for ids, trained in examples], data.report


EMPTY = "<think>\n\n</think>\n\n"


def test_thoughts_are_trained_as_they_stand(reasoning, tmp_path):
    texts, report = trained_texts(reasoning, tmp_path)
    assert [text.replace("<|im_end|>", "").strip() for text in texts] == [
        EMPTY + "plain",
        "<think>\nI think of it\n</think>\n\ngiven",
        "<think>\ninline thought\n</think>\n\nsaid",
        EMPTY + "empty",
    ]
    assert (report["train"]["thoughts"], report["train"]["empty_thoughts"]) == (2, 2)
    said = "\n".join(data_warnings(report))
    assert "2 of 4 examples have thoughts" in said and "2 of 4 examples have an empty thought: trained" in said


def test_no_loss_on_empty_thoughts(reasoning, tmp_path):
    texts, report = trained_texts(reasoning, tmp_path, data__thinking="no_loss_on_empty")
    assert [text.replace("<|im_end|>", "").strip() for text in texts] == [
        "plain",
        "<think>\nI think of it\n</think>\n\ngiven",
        "<think>\ninline thought\n</think>\n\nsaid",
        "empty",
    ]
    assert all("<|im_end|>" in text for text in texts)
    assert "an empty thought: not trained" in "\n".join(data_warnings(report))


def test_dropped_thoughts_are_nowhere(reasoning, tmp_path):
    texts, report = trained_texts(reasoning, tmp_path, data__thinking="drop")
    words = [text.replace("<|im_end|>", "").strip() for text in texts]
    assert words == [EMPTY + word for word in ("plain", "given", "said", "empty")]
    assert report["thoughts_dropped"] == 2 and report["train"]["thoughts"] == 0
    assert "taken out of 2 examples" in "\n".join(data_warnings(report))


def test_a_template_without_thoughts_is_left_alone(tiny_model, chats, tmp_path):
    values = {"model.name": str(tiny_model), "data.files": [str(chats)]}
    template = ChatTemplate(AutoTokenizer.from_pretrained(tiny_model))
    masks = []
    for thinking in ("as_is", "no_loss_on_empty", "drop"):
        data = prepare(resolve([Layer("test", values | {"data.thinking": thinking})]).config, template)
        assert data.report["train"]["empty_thoughts"] == data.report["thoughts_dropped"] == 0
        masks.append([data.train.example(i)[1].tolist() for i in range(len(data.train))])
    assert masks[0] == masks[1] == masks[2]


@pytest.mark.parametrize(
    ("text", "thought", "answer", "closed"),
    [
        ("<think>\na\n</think>\n\nb", "a", "b", True),
        ("a thought</think>b", "a thought", "b", True),  # the prompt opened it
        ("<think>\n\n</think>\n\nb", "", "b", True),
        ("<think> and on and on", "and on and on", "", False),
        ("[THINK]a[/THINK]b", "a", "b", True),
        ("say <think> and </think> in words", "", "say <think> and </think> in words", True),
        ("  plain ", "", "  plain ", True),
    ],
)
def test_an_answer_is_taken_apart(text, thought, answer, closed):
    found = parts(text)
    assert (found.thought, found.answer, found.closed) == (thought, answer, closed)


def test_scores_are_of_what_comes_after_the_thought():
    answers = [
        Answer("42", "<think>6 times 7</think>42"),
        Answer("<think>other words</think>\n42", "42"),
        Answer("42", "<think>42"),  # never said
        Answer('{"a": 1}', '<think>{"b"</think>{"a": 1}'),
    ]
    found = score(answers, ("exact_match", "contains", "json_valid"), "case")
    assert [answer.scores["exact_match"] for answer in answers] == [1, 1, 0, 1]
    assert found["eval/exact_match"] == 0.75 and answers[3].scores["json_valid"] == 1


def test_how_much_answers_think(reasoning):
    template = ChatTemplate(AutoTokenizer.from_pretrained(reasoning))
    texts = ["<think>\na b c\n</think>\n\nx", EMPTY + "y", "<think>\nand on", "z"]
    found = thinking_scores(template, texts, [])
    lengths = [len(template.tokenizer(text)["input_ids"]) for text in ("a b c", "and on")]
    assert found == {
        "eval/thinking_share": 0.5,
        "eval/thinking_tokens": sum(lengths) / 2,
        "eval/thinking_unclosed": 0.25,
    }


def test_a_thought_that_the_prompt_opens_is_seen_as_one(reasoning):
    template = ChatTemplate(AutoTokenizer.from_pretrained(reasoning))
    tokenizer = template.tokenizer
    prompt, closed = (
        tokenizer(text)["input_ids"] for text in ("<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n" + EMPTY)
    )
    answers = [tokenizer("I see.\n</think>\n\nyes<|im_end|>")["input_ids"], tokenizer("yes")["input_ids"]]
    opened, plain = decode(template, [prompt, closed], answers)
    assert parts(opened).thought == "I see." and parts(opened).answer == "yes" and plain == "yes"


def test_tags_that_are_special_tokens_are_not_lost(reasoning):
    tokenizer = AutoTokenizer.from_pretrained(reasoning)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    (text,) = decode(ChatTemplate(tokenizer), [[]], [tokenizer("[THINK]a[/THINK]b<|im_end|>")["input_ids"]])
    assert text == "[THINK]a[/THINK]b"


def of_shape(name: str) -> ChatTemplate:
    tokens = tokenizer(SHAPES[name].family)
    tokens.chat_template = plain(SHAPES[name].source)
    return ChatTemplate(tokens)


CHANNELS = {
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant",
        "<|channel|>final<|message|>",
        "<|return|>",
    ),
    "gemma4": ("<|channel>thought\n", "\n<channel|>", "", "<turn|>"),
    "qwen3": ("<think>\n", "\n</think>\n\n", "", "<|im_end|>"),
    "command-r7b": (
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
}


@pytest.mark.parametrize("shape", CHANNELS)
def test_answers_are_read_whatever_channel_a_template_has_for_thoughts(shape):
    template, (opening, closing, before, end) = of_shape(shape), CHANNELS[shape]
    written = [f"{opening}hm hm{closing}{before}Paris{end}", f"{before}Paris{end}", f"{opening}and on and on"]
    written.append(f"{opening}{closing}{before}Paris{end}")
    ids = [template.tokenizer(text, add_special_tokens=False)["input_ids"] for text in written]
    texts = decode(template, [template.encode_prompt(Example(messages=ROWS[0]["messages"][:1]))] * 4, ids)
    found = [parts(text) for text in texts]
    assert [(one.thought, one.answer, one.closed) for one in found] == [
        ("hm hm", "Paris", True), ("", "Paris", True), ("and on and on", "", False), ("", "Paris", True)
    ]  # fmt: skip
    scores = thinking_scores(template, texts, [])
    assert (scores["eval/thinking_share"], scores["eval/thinking_unclosed"]) == (0.5, 0.25)


@pytest.mark.parametrize("shape", CHANNELS)
def test_thoughts_in_a_channel_of_the_template_s_own_are_taken_out_too(shape):
    template, (opening, closing, _, _) = of_shape(shape), CHANNELS[shape]
    messages = (*ROWS[0]["messages"][:1], {"role": "assistant", "content": f"{opening}hm{closing}so"})
    example = Example(messages=messages)
    assert has_thought(example, template.thought_tags)
    assert without_thoughts(example, template.thought_tags).messages[1]["content"] == "so"
    assert parts(in_known_tags(messages[1]["content"], template.thought_tags)).thought == "hm"


def test_an_empty_thought_in_such_a_channel_is_found_and_not_trained(reasoning):
    tokens = AutoTokenizer.from_pretrained(reasoning)
    tokens.chat_template = REASONING.replace("<think>", "[[muse]]").replace("</think>", "[[say]]")
    template = ChatTemplate(tokens)
    example = Example(messages=tuple(ROWS[0]["messages"]))
    encoded, thought, empty = Thoughts(template, "no_loss_on_empty").look(example, template.encode_chats([example])[0])
    assert empty and not thought
    assert tokens.decode(encoded.ids[encoded.loss_mask].tolist()).startswith("plain")


def test_what_a_template_has_the_model_write_before_every_answer_is_no_part_of_it():
    template = of_shape("hunyuan")
    ids = template.tokenizer("助手：Paris<|eos|>", add_special_tokens=False)["input_ids"]
    assert decode(template, [[]], [ids]) == ["Paris"]


def test_a_template_that_knows_no_thoughts_has_no_such_scores(tiny_model):
    template = ChatTemplate(AutoTokenizer.from_pretrained(tiny_model))
    assert thinking_scores(template, ["plain"], ["plain"]) == {}
    assert thinking_scores(template, ["plain"], ["<think>a</think>plain"])["eval/thinking_share"] == 0


def test_a_fall_is_told_and_a_small_one_is_not():
    assert "10% of the answers think, 90% did at the start" in thinks_less(0.9, 0.1)
    assert thinks_less(0.9, 0.6) == thinks_less(0.05, 0.0) == thinks_less(None, 0.0) == ""


def test_a_run_that_unlearns_to_think_says_so(reasoning, tmp_path, monkeypatch):
    from engine.worker.evaluate import measure

    said = iter([["<think>\na\n</think>\n\nb"], ["b"], ["b"]])
    monkeypatch.setattr(measure, "decode", lambda template, prompts, written: next(said) * len(prompts))
    rows = write_jsonl(tmp_path / "rows.jsonl", [row(f"answer {number}") for number in range(8)])
    changes = {"eval__metrics": ["exact_match"], "eval__max_new_tokens": 2, "eval__every": 1, "train__max_steps": 2}
    folder = make_run(tmp_path, reasoning, rows, **changes)
    train(folder)
    shares = [event["values"]["eval/thinking_share"] for event in events_of(folder, "eval")]
    assert shares == [1.0, 0.0, 0.0]
    told = [event for event in events_of(folder, "event") if event["event"] == "thinks-less"]
    assert len(told) == 1 and told[0]["step"] == 1 and "100% did at the start" in told[0]["message"]
