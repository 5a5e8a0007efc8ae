"""Which tokens the loss is taken on: exactly the assistant's words and the token that ends them, in any template."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.base.errors import DataError, ModelError
from engine.formats.examples import Example
from engine.settings.resolve import Layer, resolve
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate, Encoded
from engine.worker.data.tokenize import prepare
from tests.engine.tiny_runs import write_jsonl
from tests.engine.worker.data.templates import LLAMA2, QWEN3, SHAPES, Shape, sentencepiece_like

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str | None, **more: Any) -> dict:
    return {"role": "assistant", "content": text, **more}


def system(text: str) -> dict:
    return {"role": "system", "content": text}


def tool(text: str) -> dict:
    return {"role": "tool", "content": text}


def calls(city: str, text: str | None = None) -> dict:
    return assistant(text, tool_calls=[{"type": "function", "function": {"name": "get_weather", "arguments": city}}])


def encode(template: ChatTemplate, *messages: dict, **options: Any) -> Encoded:
    (encoded,) = template.encode_chats([Example(messages=messages, **options)])
    if isinstance(encoded, DataError):
        raise encoded
    return encoded


def supervised(template: ChatTemplate, encoded: Encoded) -> list[str]:
    """The text of each unbroken run of trained tokens."""
    borders = np.flatnonzero(np.diff(np.concatenate(([0], encoded.loss_mask.astype(int), [0]))))
    return [template.tokenizer.decode(encoded.ids[a:b].tolist()) for a, b in borders.reshape(-1, 2)]


def wanted(shape: Shape, messages: list[dict]) -> list[str]:
    last = len(messages) - 1
    answers = [(i, m) for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight", 1)]
    return [shape.written(message["content"], number == last) for number, message in answers]


def same(shape: Shape, found: list[str], expected: list[str]) -> bool:
    if shape.swallows_space:
        found, expected = ([re.sub(r"\s", "", text) for text in texts] for texts in (found, expected))
    return found == expected


# --- one conversation in every shape of template ----------------------------------------------------------------------

SHORT = {
    "one-turn": [user("What is two?"), assistant("It is 2.")],
    "three-turns": [user("a"), assistant("first"), user("b"), assistant("second"), user("c"), assistant("third")],
    "same-as-the-question": [user("Paris"), assistant("Paris"), user("Paris"), assistant("Paris")],
    "one-character": [user("x"), assistant("x"), user("y"), assistant("A"), user("A"), assistant("Y")],
    "spaces-around": [user("a"), assistant("  two  "), user("b"), assistant("\nthree\n"), user("c"), assistant(" ")],
    "chinese": [user("今天天气怎么样？"), assistant("今天是晴天。"), user("好"), assistant("好")],
    "emoji": [user("👍"), assistant("👩‍👩‍👧 \U0001fae0"), user("?"), assistant("龘")],
    "lines": [user("list"), assistant("1. a\n\n2. b\n"), user("more"), assistant("- c\n- d")],
    "says-the-next-role": [user("user"), assistant("assistant"), user("assistant"), assistant("user: model")],
}


@pytest.mark.parametrize("name", SHORT)
def test_the_answer_and_its_end_are_trained_and_nothing_else(shape: Shape, name: str) -> None:
    template = ChatTemplate(shape.tokenizer())
    messages = [m for m in SHORT[name] if m["content"].strip()]
    messages = messages[: len(messages) // 2 * 2]
    assert same(shape, supervised(template, encode(template, *messages)), wanted(shape, messages))


def test_the_system_prompt_is_never_trained_wherever_the_template_puts_it(shape: Shape) -> None:
    template = ChatTemplate(shape.tokenizer())
    messages = [system("Be kind."), user("a"), assistant("first"), user("b"), assistant("second")]
    if shape.takes_system:
        assert same(shape, supervised(template, encode(template, *messages)), wanted(shape, messages))
    else:
        with pytest.raises(DataError, match="System role not supported"):
            encode(template, *messages)


def test_answers_of_weight_0_are_not_trained(shape: Shape) -> None:
    template = ChatTemplate(shape.tokenizer())
    for weights in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (1, 0, 0)):
        messages = []
        for number, weight in enumerate(weights):
            messages += [user(f"question {number}"), assistant(f"answer {number}", weight=weight)]
        encoded = encode(template, *messages)
        assert same(shape, supervised(template, encoded), wanted(shape, messages)), weights


def test_a_text_begins_with_exactly_one_beginning_token(shape: Shape) -> None:
    template = ChatTemplate(shape.tokenizer())
    tokens = template.tokenizer
    prefix = tokens("x")["input_ids"][: -len(tokens("x", add_special_tokens=False)["input_ids"])]
    messages = (user("one question"), assistant("one answer"))
    for ids in (
        encode(template, *messages).ids.tolist(),
        template.encode_prompt(Example(messages=messages[:1])),
        template.encode_text("a document").ids.tolist(),
    ):
        if prefix:
            assert ids[: len(prefix)] == prefix
            assert ids[len(prefix) : 2 * len(prefix)] != prefix
        elif tokens.bos_token_id is not None:
            assert ids.count(tokens.bos_token_id) == 1
    assert not encode(template, *messages).loss_mask[0]


def test_an_encoded_conversation_begins_with_the_prompt_the_model_will_get(shape: Shape) -> None:
    template = ChatTemplate(shape.tokenizer())
    if shape.template == SHAPES["r1"].template:
        pytest.skip("this template's prompt opens a reasoning block that its finished answers do not have")
    messages = (user("one question"), assistant("one answer"))
    encoded = encode(template, *messages)
    prompt = template.encode_prompt(Example(messages=messages[:1]))
    assert encoded.ids[: len(prompt)].tolist() == prompt
    assert encoded.loss_mask[len(prompt)] and not encoded.loss_mask[: len(prompt)].any()


def test_all_tokens_are_trained_where_asked_and_the_end_is_there_too(shape: Shape) -> None:
    template = ChatTemplate(shape.tokenizer())
    example = Example(messages=(user("a"), assistant("b")))
    (every,) = template.encode_chats([example], train_on="all")
    (answers,) = template.encode_chats([example])
    assert every.ids.tolist() == answers.ids.tolist()
    lead = len(template._bos) if answers.ids[: len(template._bos)].tolist() == template._bos else 0
    assert every.loss_mask[lead:].all()


# --- any conversation in every shape of template ----------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        *("a", "Y", "Z", "Paris", " two", "\n", " ", "\t", "\r\n", "\u3000", "é", "，", "好", "🫠", "### "),
        *("<|im_end|>", "<|im_start|>assistant\n", "</s>", "[/INST]", "<|user|>", "Assistant:", "<end_of_turn>"),
        *("<｜Assistant｜><think>\n", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<think>", "assistant"),
        *("user", "model", "{{ x }}", "{% generation %}"),
    ]
)
_TEXTS = st.lists(_PIECES, min_size=1, max_size=5).map("".join).filter(lambda text: text.strip())
_TURNS = st.lists(st.tuples(_TEXTS, _TEXTS, st.sampled_from([1, 1, 0])), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(turns=_TURNS, prompt=st.none() | _TEXTS)
@pytest.mark.parametrize("name", SHAPES)
def test_any_conversation_trains_exactly_its_answers(name: str, turns: list, prompt: str | None) -> None:
    shape = SHAPES[name]
    template = ChatTemplate(shape.tokenizer())
    messages = [system(prompt)] if prompt and shape.takes_system else []
    for question, answer, weight in turns:
        messages += [user(question), assistant(answer, weight=weight)]
    encoded = encode(template, *messages)
    assert same(shape, supervised(template, encoded), wanted(shape, messages))


# --- tool calls -------------------------------------------------------------------------------------------------------


def weather_talk(end: str = "It is sunny.") -> list[dict]:
    return [user("Weather in Paris?"), calls({"city": "Paris"}), tool("sunny, 21"), assistant(end)]


TOOL_TURNS = {
    "qwen3": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>',
    "r1": '<｜tool｜>get_weather\n{"city": "Paris"}<｜tool▁end｜><｜end▁of▁sentence｜>',
    "glm4": 'get_weather\n{"city": "Paris"}<|observation|>',
    "llama3": '{"name": "get_weather", "parameters": {"city": "Paris"}}<|eom_id|>',
}


@pytest.mark.parametrize("name", TOOL_TURNS)
def test_a_tool_call_is_trained_with_its_end_and_the_tools_result_is_not(name: str) -> None:
    shape = SHAPES[name]
    template = ChatTemplate(shape.tokenizer())
    encoded = encode(template, *weather_talk(), tools=(WEATHER,))
    assert supervised(template, encoded) == [TOOL_TURNS[name], shape.written("It is sunny.", True)]


def test_several_calls_with_words_before_them_are_trained_whole() -> None:
    template = ChatTemplate(SHAPES["qwen3"].tokenizer())
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    talk = [
        user("Weather?"),
        assistant("Let me look.", tool_calls=[call, call]),
        tool("rain"),
        tool("sun"),
        assistant("Both."),
    ]
    turn, _ = supervised(template, encode(template, *talk, tools=(WEATHER,)))
    assert turn.startswith("Let me look.\n<tool_call>")
    assert turn.count("<tool_call>") == 2 and turn.endswith("</tool_call><|im_end|>")


def test_the_tools_offered_stand_in_the_prompt_and_are_not_trained() -> None:
    template = ChatTemplate(SHAPES["qwen3"].tokenizer())
    with_tools = encode(template, *weather_talk(), tools=(WEATHER,))
    without = encode(template, *weather_talk())
    assert '"properties": {"city"' in template.tokenizer.decode(with_tools.ids)
    assert len(with_tools.ids) > len(without.ids)
    assert with_tools.loss_mask.sum() == without.loss_mask.sum()


@pytest.mark.parametrize("name", ["chatml-marked", "chatml", "phi3", "plain"])
def test_a_template_that_leaves_out_tool_calls_refuses_the_row(name: str) -> None:
    template = ChatTemplate(SHAPES[name].tokenizer())
    with pytest.raises(DataError, match=r"tool calls|refuses"):
        encode(template, *weather_talk())


# --- reasoning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thought", ["short", "a long thought. " * 20])
def test_reasoning_the_model_is_to_write_is_trained(thought: str) -> None:
    template = ChatTemplate(SHAPES["qwen3"].tokenizer())
    expected = [f"<think>\n{thought.strip()}\n</think>\n\nfour<|im_end|>"]
    inline = encode(template, user("2+2?"), assistant(f"<think>\n{thought.strip()}\n</think>\n\nfour"))
    apart = encode(template, user("2+2?"), assistant("four", reasoning_content=thought.strip()))
    assert supervised(template, inline) == expected
    assert supervised(template, apart) == expected


@pytest.mark.parametrize("name", ["qwen3", "r1"])
def test_reasoning_a_template_drops_from_earlier_turns_is_not_missed(name: str) -> None:
    shape = SHAPES[name]
    template = ChatTemplate(shape.tokenizer())
    talk = [user("a"), assistant("<think>hm</think>one"), user("b"), assistant("two")]
    assert supervised(template, encode(template, *talk)) == [shape.written("one", False), shape.written("two", True)]


# --- tokens and texts do not fall together ----------------------------------------------------------------------------


def test_a_space_and_the_answers_first_word_in_one_token_are_trained() -> None:
    """A sentencepiece vocabulary writes the space into the word: '▁Paris'."""
    template = ChatTemplate(sentencepiece_like(LLAMA2))
    encoded = encode(template, user("What is the capital of France?"), assistant("Paris is the capital. 👍龘"))
    prompt = template.encode_prompt(Example(messages=(user("What is the capital of France?"),)))
    assert encoded.ids[: len(prompt)].tolist() == prompt
    assert encoded.loss_mask.tolist() == [False] * len(prompt) + [True] * (len(encoded.ids) - len(prompt))
    pieces = template.tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    assert pieces[len(prompt)].startswith("▁P") and pieces[-1] == "</s>"


def test_where_prompt_and_answer_share_a_token_training_starts_behind_it() -> None:
    """Two line ends merge into one token: the prompt's own, and the one the answer begins with."""
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Tokenizer(models.BPE(alphabet | {"ĊĊ": len(alphabet)}, [("Ċ", "Ċ")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>")
    tokens.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokens.chat_template = SHAPES["chatml"].template
    template = ChatTemplate(tokens)
    encoded = encode(template, user("a"), assistant("\nyes"))
    trained = tokens.convert_ids_to_tokens(encoded.ids[encoded.loss_mask].tolist())
    assert trained == ["y", "e", "s", "<|im_end|>"]


def test_an_end_of_turn_token_not_called_special_is_trained() -> None:
    tokens = SHAPES["plain"].tokenizer()
    tokens.add_tokens(["<|stop|>", "    "])
    tokens.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|stop|>{% endfor %}"
    template = ChatTemplate(tokens)
    encoded = encode(template, user("a"), assistant("b"), user("c"), assistant("d"))
    # The prompt has no header of the answer, so that the model has to write it.
    assert supervised(template, encoded) == ["[assistant]b<|stop|>", "[assistant]d<|stop|>"]


def test_padding_with_the_end_of_text_token_loses_no_end() -> None:
    """Trained is a property of a position, never of a token id."""
    template = ChatTemplate(SHAPES["plain"].tokenizer())
    assert template.tokenizer.pad_token_id == template.tokenizer.eos_token_id
    encoded = encode(template, user("a"), assistant("b"), user("c"), assistant("d"))
    ends = encoded.ids == template.tokenizer.eos_token_id
    assert ends.sum() == 3  # the beginning's and two answers'
    assert encoded.loss_mask[ends].tolist() == [False, True, True]


# --- templates and rows that cannot be --------------------------------------------------------------------------------


def test_a_row_the_template_refuses_does_not_stop_the_others() -> None:
    template = ChatTemplate(SHAPES["gemma"].tokenizer())
    good = Example(messages=(user("a"), assistant("b")))
    rows = [
        Example(messages=(system("no"), *good.messages)),
        good,
        Example(messages=(user("a"), user("b"), assistant("c"))),
    ]
    first, second, third = template.encode_chats(rows)
    assert isinstance(first, DataError) and "System role not supported" in first.message
    assert isinstance(third, DataError) and "must alternate" in third.message
    assert supervised(template, second) == ["b<end_of_turn>"]
    (only,) = template.encode_chats(rows[:1])
    assert isinstance(only, DataError)


@pytest.mark.parametrize("marked", [False, True])
def test_an_answer_the_template_leaves_out_is_an_error_of_its_row(marked: bool) -> None:
    tokens = SHAPES["plain"].tokenizer()
    answer = "{% if m.content|length > 3 %}{{ m.content }}{% endif %}"
    if marked:
        answer = "{% generation %}" + answer + "{% endgeneration %}"
    tokens.chat_template = f"{{% for m in messages %}}[{{{{ m.role }}}}]{answer}{{% endfor %}}"
    template = ChatTemplate(tokens)
    (kept,) = template.encode_chats([Example(messages=(user("long question"), assistant("long answer")))])
    if not marked:
        assert not isinstance(kept, DataError)
    with pytest.raises(DataError, match="leaves out the assistant's answer"):
        encode(template, user("long question"), assistant("no"))


@pytest.mark.parametrize("empty", ["", " \n "])
def test_an_empty_answer_is_an_error_of_its_row(shape: Shape, empty: str) -> None:
    template = ChatTemplate(shape.tokenizer())
    with pytest.raises(DataError):
        encode(template, user("a"), assistant(empty))


def test_a_template_with_marks_that_miss_some_answers_is_compared_instead() -> None:
    tokens = SHAPES["chatml"].tokenizer()
    tokens.chat_template = SHAPES["chatml"].template.replace(
        "{{ message.content }}<|im_end|>\n{% else %}",
        "{% if loop.last %}{% generation %}{{ message.content }}{% endgeneration %}"
        "{% else %}{{ message.content }}{% endif %}<|im_end|>\n{% else %}",
    )
    template = ChatTemplate(tokens)
    encoded = encode(template, user("a"), assistant("b"), user("c"), assistant("d"))
    assert supervised(template, encoded) == ["b<|im_end|>", "d<|im_end|>"]


def test_one_of_several_templates_is_chosen_by_whether_there_are_tools() -> None:
    tokens = SHAPES["qwen3"].tokenizer()
    tokens.chat_template = {"default": SHAPES["chatml-marked"].template, "tool_use": QWEN3}
    template = ChatTemplate(tokens)
    assert supervised(template, encode(template, user("a"), assistant("b"))) == ["b<|im_end|>"]
    with_tools = encode(template, *weather_talk(), tools=(WEATHER,))
    assert supervised(template, with_tools)[0] == TOOL_TURNS["qwen3"]


def test_several_templates_without_a_default_are_refused_at_once() -> None:
    tokens = SHAPES["qwen3"].tokenizer()
    tokens.chat_template = {"tool_use": QWEN3, "rag": QWEN3}
    with pytest.raises(ModelError, match="template"):
        ChatTemplate(tokens)


def test_a_template_file_takes_the_place_of_the_tokenizers_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", "utf-8")
    template = ChatTemplate(SHAPES["chatml"].tokenizer(), str(path))
    encoded = encode(template, user("a"), assistant("b"))
    assert template.tokenizer.decode(encoded.ids) == "<user>a<assistant>b<|im_end|>"
    assert supervised(template, encoded) == ["<assistant>b<|im_end|>"]


# --- from files to token sets -----------------------------------------------------------------------------------------


def config(path: Path, **changes: Any) -> RunConfig:
    values = {"data.files": [str(path)], "data.val_fraction": 0.0, "data.max_bad_share": 1.0}
    return resolve([Layer("test", values | {k.replace("__", "."): v for k, v in changes.items()})]).config


def chat_file(path: Path, pairs: list[tuple[str, str]]) -> Path:
    return write_jsonl(path, [{"messages": [user(question), assistant(answer)]} for question, answer in pairs])


@pytest.fixture
def chatml() -> ChatTemplate:
    return ChatTemplate(SHAPES["chatml"].tokenizer())


def test_a_row_whose_answer_is_cut_away_is_skipped_and_named_by_its_line(tmp_path: Path, chatml: ChatTemplate) -> None:
    path = chat_file(tmp_path / "a.jsonl", [("short", "yes"), ("q" * 200, "lost"), ("more", "no")])
    prepared = prepare(config(path, data__max_length=64), chatml)
    counts = prepared.report["train"]
    assert (counts["examples"], counts["skipped"], counts["overlong"]) == (2, 1, 1)
    (problem,) = prepared.report["problems"]
    assert (problem["file"], problem["line"], problem["code"]) == (str(path), 2, "nothing-trained")
    assert "max_length 64" in problem["message"]
    assert prepared.report["problem_counts"] == {"nothing-trained": 1}


def test_cut_tokens_and_cut_answer_tokens_are_counted(tmp_path: Path, chatml: ChatTemplate) -> None:
    pairs = [("short", "yes"), ("why", "z" * 100), ("q" * 200, "lost")]
    path = chat_file(tmp_path / "a.jsonl", pairs)
    whole = chatml.encode_chats([Example(messages=(user(q), assistant(a))) for q, a in pairs])
    prepared = prepare(config(path, data__max_length=40), chatml)
    counts = prepared.report["train"]
    assert counts["overlong"] == 2
    assert counts["cut_tokens"] == sum(max(0, len(e.ids) - 40) for e in whole)
    assert counts["cut_supervised"] == sum(int(e.loss_mask[40:].sum()) for e in whole)
    assert counts["longest"] == 40
    assert counts["tokens"] == len(whole[0].ids) + 40
    cut = prepared.train.ids[prepared.train.offsets[1] :]
    assert cut.tolist() == whole[1].ids[:40].tolist()
    trained = prepared.train.loss_mask[prepared.train.offsets[1] :]
    assert trained.tolist() == whole[1].loss_mask[:40].tolist()


def test_overlong_rows_are_left_out_whole_where_asked(tmp_path: Path, chatml: ChatTemplate) -> None:
    path = chat_file(tmp_path / "a.jsonl", [("short", "yes"), ("why", "z" * 100)])
    counts = prepare(config(path, data__max_length=40, data__overlong="skip"), chatml).report["train"]
    assert (counts["examples"], counts["skipped"], counts["cut_tokens"]) == (1, 1, 0)


def test_rows_the_template_refuses_count_as_bad_rows(tmp_path: Path) -> None:
    template = ChatTemplate(SHAPES["gemma"].tokenizer())
    rows = [{"messages": [user("q"), assistant(f"a{i}")]} for i in range(3)]
    rows.insert(1, {"messages": [system("be kind"), user("q"), assistant("a")]})
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    report = prepare(config(path, data__max_bad_share=0.25), template).report
    assert (report["train"]["examples"], report["problem_counts"]) == (3, {"template": 1})
    assert report["problems"][0]["line"] == 2
    with pytest.raises(DataError, match=r"(?s)25%.*a\.jsonl:2: the chat template refuses"):
        prepare(config(path, data__max_bad_share=0.2), template)


def test_without_an_example_left_the_first_reasons_are_told(tmp_path: Path, chatml: ChatTemplate) -> None:
    path = chat_file(tmp_path / "a.jsonl", [("q" * 100, "a"), ("r" * 100, "b")])
    with pytest.raises(DataError, match=r"(?s)no example is left.*a\.jsonl:1: no trained token"):
        prepare(config(path, data__max_length=32), chatml)


def test_equal_examples_never_fall_on_both_sides_of_the_split(tmp_path: Path, chatml: ChatTemplate) -> None:
    pairs = [(f"question {i % 30}", f"answer {i}") for i in range(120)]
    path = chat_file(tmp_path / "a.jsonl", pairs)
    prepared = prepare(config(path, data__val_fraction=0.3), chatml)
    assert len(prepared.train) + len(prepared.val) == 120 and len(prepared.val) == len(prepared.val_examples)
    held_out = {example.messages[0]["content"] for example in prepared.val_examples}
    assert 0 < len(held_out) < 30
    assert len(prepared.val) == 4 * len(held_out)


def documents(path: Path, texts: list[str]) -> Path:
    return write_jsonl(path, [{"text": text} for text in texts])


@pytest.mark.parametrize("length", [8, 16, 23])
def test_plain_text_is_cut_without_losing_a_token(tmp_path: Path, chatml: ChatTemplate, length: int) -> None:
    texts = ["z" * count for count in range(1, 60)]
    path = documents(tmp_path / "a.jsonl", texts)
    prepared = prepare(config(path, method__objective="pretrain", data__max_length=length), chatml)
    whole = [token for text in texts for token in chatml.encode_text(text).ids.tolist()]
    assert prepared.train.ids.tolist() == whole
    assert prepared.train.lengths.min() > 1 and prepared.train.lengths.max() <= length
    first = np.zeros(len(whole), dtype=bool)
    first[prepared.train.offsets[:-1]] = True
    assert prepared.train.loss_mask.tolist() == (~first).tolist()


def test_equal_pieces_of_text_never_fall_on_both_sides_of_the_split(tmp_path: Path, chatml: ChatTemplate) -> None:
    path = documents(tmp_path / "a.jsonl", [f"document {i % 20} {'z' * (i % 20)}" for i in range(60)])
    prepared = prepare(config(path, method__objective="pretrain", data__val_fraction=0.3), chatml)

    def pieces(tokens: Any) -> set[bytes]:
        return {tokens.ids[a:b].tobytes() for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)}

    assert len(prepared.train) + len(prepared.val) == 60 and len(prepared.val)
    assert not pieces(prepared.train) & pieces(prepared.val)


def test_a_conversation_among_texts_that_the_template_refuses_is_skipped(tmp_path: Path) -> None:
    template = ChatTemplate(SHAPES["gemma"].tokenizer())
    rows = [{"messages": [user("q"), assistant(f"a{i}")]} for i in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [system("no"), user("q"), assistant("a")]}, *rows])
    report = prepare(config(path, method__objective="pretrain"), template).report
    assert (report["train"]["examples"], report["train"]["skipped"]) == (3, 1)
