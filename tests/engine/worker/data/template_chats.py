"""Conversations of every sort, as hypothesis strategies; each message, argument and result has a word of its own."""

from collections.abc import Callable

from hypothesis import strategies as st

from engine.formats.examples import Example
from tests.engine.worker.data.template_recipes import DRESSES, Recipe, sound

TOOLS = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name}s",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("look", "find")
)
_EDGES = st.sampled_from(["", "", "", "", " ", "\n", "  ", "\n\n", "\t"])
_PIECES = st.sampled_from(
    [
        *("", "", "", "", "", "", " and more", "好", "👍", "é", "{{ x }}", "{% generation %}", "### user:\n", ":)"),
        "[1, 2]",
        *("<|im_end|>", "<|im_start|>assistant\n", "</s>", "[/INST]", "<|user|>", "<end_of_turn>", "<think>"),
        *("<｜Assistant｜>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "</tool_call>", "assistant", "Assistant:"),
    ]
)  # fmt: skip
_HARMLESS = st.sampled_from(["", "", "", " and more", "好", "👍", "é", "{{ x }}", "### user:\n", "[1, 2]", ":)"])
_RARE = st.sampled_from([False] * 15 + [True])


@st.composite
def chats(draw: Callable) -> Example:
    count = 0

    def word() -> str:
        nonlocal count
        count += 1
        number, letters = count * 7919 + 104729, ""
        for _ in range(5):
            number, letter = divmod(number, 26)
            letters += chr(97 + letter)
        return f"zq{letters}"

    def text(pieces: st.SearchStrategy[str] = _PIECES) -> str:
        return f"{draw(_EDGES)}{draw(pieces)}{word()}{draw(pieces)}{draw(_EDGES)}"

    def system() -> dict:
        return {"role": "system", "content": text()}

    def calls() -> list[dict]:
        names = draw(st.lists(st.sampled_from(["look", "look", "find"]), min_size=1, max_size=2))
        return [
            {"type": "function", "id": f"call{i:05}", "function": {"name": name, "arguments": {"city": word()}}}
            for i, name in enumerate(names)
        ]

    def calling() -> list[dict]:
        content = draw(st.sampled_from([None, None, "", "words"]))
        made = calls()
        message = {"role": "assistant", "content": word() if content == "words" else content, "tool_calls": made}
        if draw(st.sampled_from([False, False, True])):
            message["reasoning_content"] = word()
        results = [
            {"role": "tool", "content": "" if draw(_RARE) else text(), "tool_call_id": call["id"]} for call in made
        ]
        return [message, *results]

    def answer() -> dict:
        content = text(_PIECES if draw(_RARE) else _HARMLESS)
        message = {"role": "assistant"}
        thought = draw(st.sampled_from(["", "", "", "apart", "inline"]))
        if thought == "inline":
            content = f"<think>\n{word()}\n</think>\n\n{content}"
        if thought == "apart":
            message["reasoning_content"] = f"{draw(_EDGES)}{word()}"
        message["content"] = "" if draw(_RARE) and draw(_RARE) else content
        return message

    messages = [system()] if draw(st.booleans()) else []
    with_calls = draw(st.sampled_from([False, True, True, True]))
    for _ in range(draw(st.integers(1, 3))):
        if draw(_RARE):
            messages.append(system())
        messages.append({"role": "user", "content": text()})
        for _ in range(draw(st.integers(0, 2)) if with_calls else 0):
            messages += calling()
        if not with_calls or draw(st.sampled_from([True, True, True, False])) or messages[-1]["role"] == "user":
            messages.append(answer())
    while messages[-1]["role"] != "assistant":
        messages.pop()
    for message in messages:
        if message["role"] == "assistant" and draw(st.sampled_from([False] * 6 + [True])):
            message["weight"] = draw(st.sampled_from([0, 1]))
    return Example(messages=tuple(messages), tools=TOOLS if with_calls and draw(st.booleans()) else ())


def _mostly(usual: str, *others: str) -> st.SearchStrategy[str]:
    """Half of the time the usual, so that a template has few peculiarities at once."""
    return st.sampled_from([usual] * max(len(others), 2) + list(others))


def recipes() -> st.SearchStrategy[Recipe]:
    return st.builds(
        Recipe,
        dress=st.sampled_from(list(DRESSES)),
        closing=_mostly("end", "second+end", "space+end", "second if last", "next header"),
        line_after=st.booleans(),
        prompt=_mostly("header", "short", "think", "empty think", "line", "ignored", "always", "unasked"),
        opener=_mostly("none", "turn", "both", "last"),
        thoughts=_mostly("unknown", "always", "last turn", "last query", "block if last", "block after query"),
        inline=_mostly("kept", "dropped earlier", "dropped", "kept without its tags"),
        trim=_mostly("none", "trim", "lstrip"),
        null=_mostly("empty", "None", "error", "needed"),
        calls=_mostly("all", "all", "first", "first", "name only", "none", "raise"),
        beside=_mostly("before", "dropped"),
        call_closing=_mostly("same", "second", "none"),
        results=_mostly("own", "user", "inside", "inside", "raise"),
        system=_mostly("own", "first user", "last user", "last user if last", "raise", "dropped"),
        tools=_mostly("none", "system", "last user"),
        alternation=st.sampled_from([False, False, False, True]),
        clock=st.sampled_from([False, False, False, True]),
        marks=_mostly("none", "answer and closing", "answer", "closing", "last"),
        bos=st.booleans(),
    ).map(sound)
