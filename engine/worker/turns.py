"""`python -m engine.worker.turns MODEL`: what is trained of conversations, turn by turn, for whoever must not import
transformers.

Examples come as JSON lines on stdin, as for `engine.worker.count`; for each, in order, one JSON line goes out, see
`describe`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from engine.config import ModelConfig
from engine.errors import DataError, EngineError
from engine.records import Example
from engine.worker.count import read_example
from engine.worker.model import load_tokenizer
from engine.worker.template import ChatTemplate, Encoded


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.worker.turns", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--template", default="auto")
    options = parser.parse_args()
    try:
        template = ChatTemplate(load_tokenizer(ModelConfig(name=options.model)), options.template)
    except EngineError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    for line in sys.stdin.buffer:
        print(json.dumps(describe(template, read_example(json.loads(line))), ensure_ascii=False))
    return 0


def describe(template: ChatTemplate, example: Example) -> dict[str, Any]:
    """JSON-ready: `error`, where the template refuses the example; else `tokens`, `trained` (how many of them),
    `stop_tokens` (texts), and `turns`.

    A turn is a stretch of tokens: `messages` (their places in the conversation, from 0) and `roles`, `trained`,
    `tokens`, `text`. Of one that is trained also `stop`, the token at which generation ends, or null where there is
    none; `prompt`, the text before it when the model is asked, where that is another than in training, else null; and
    `notes`, what preparing the data says of it.
    """
    if example.text is not None:
        encoded = template.encode_text(example.text)
    else:
        (encoded,) = template.encode_chats([example])
    if isinstance(encoded, DataError):
        return {"error": encoded.message}
    return {
        "tokens": len(encoded.ids),
        "trained": int(encoded.trained.sum()),
        "stop_tokens": template.tokenizer.convert_ids_to_tokens(list(template.stop_token_ids)),
        "turns": list(_turns(template, example, encoded)),
    }


def _turns(template: ChatTemplate, example: Example, encoded: Encoded) -> Iterator[dict[str, Any]]:
    ids, at, told = encoded.ids.tolist(), 0, 0
    for turn in encoded.turns:
        if at < turn.start:
            yield _stretch(template, example, encoded, at, turn.start, range(told, turn.message))
        yield _stretch(template, example, encoded, turn.start, turn.end, [turn.message]) | {
            "prompt": _other_prompt(template, example, turn.message, ids[: turn.start]),
            "notes": list(turn.notes),
        }
        at, told = turn.end, turn.message + 1
    if at < len(ids):
        yield _stretch(template, example, encoded, at, len(ids), range(told, len(example.messages)))


def _stretch(
    template: ChatTemplate, example: Example, encoded: Encoded, start: int, end: int, messages: Sequence[int]
) -> dict[str, Any]:
    ids = encoded.ids[start:end].tolist()
    trained = bool(encoded.trained[start:end].any())
    stretch = {
        "messages": list(messages),
        "roles": [example.messages[number]["role"] for number in messages],
        "trained": trained,
        "tokens": len(ids),
        "text": template.tokenizer.decode(ids),
    }
    if trained:
        ends = [token for token in ids if token in template.stop_token_ids]
        stretch["stop"] = template.tokenizer.convert_ids_to_tokens(ends[0]) if ends else None
    return stretch


def _other_prompt(template: ChatTemplate, example: Example, message: int, before: list[int]) -> str | None:
    """What the model is given at this turn when it is asked, unless that is what stands before it in training."""
    try:
        asked = template.encode_prompt(Example(messages=example.messages[:message], tools=example.tools))
    except DataError:
        return None
    return None if asked == before else template.tokenizer.decode(asked)


if __name__ == "__main__":
    sys.exit(main())
