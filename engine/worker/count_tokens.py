"""`python -m engine.worker.count_tokens MODEL`: how long examples are in tokens, for processes that must not import
transformers.

Examples come as JSON lines on stdin ({"messages": [...], "tools": [...]} or {"text": "..."}); for each, in order, one
line goes out: `LENGTH LEFT NOTES`, its tokens with the chat template, how many tokens would still be trained on after
cutting it to --max-length (-1 where nothing is cut), and notes on it: a JSON list of [code, message], see
`engine.formats.turn_notes`. `-1 -1` stands for an example the template refuses.
"""

import argparse
import itertools
import json
import sys

from engine.base.errors import DataError, EngineError
from engine.formats.examples import Example
from engine.formats.turn_notes import CONTROL_TOKEN, ELSEWHERE, LINES, control_token_line
from engine.settings.schema import ModelConfig
from engine.worker.data.chat_template import ChatTemplate, Encoded
from engine.worker.model.load import generation_ends, load_tokenizer

_BATCH = 500


def main() -> int:
    """Count the examples on stdin; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.worker.count_tokens", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--template", default="auto")
    parser.add_argument("--max-length", type=int, default=0)
    options = parser.parse_args()
    try:
        model = ModelConfig(name=options.model)
        template = ChatTemplate(load_tokenizer(model), options.template, generation_ends(model))
    except EngineError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    lines = iter(sys.stdin.buffer)
    while batch := list(itertools.islice(lines, _BATCH)):
        examples = [read_example(json.loads(line)) for line in batch]
        for length, left, notes in _count(template, examples, options.max_length):
            sys.stdout.write(f"{length} {left} {json.dumps(notes)}\n")
    return 0


def read_example(row: dict) -> Example:
    """An example from one line of stdin."""
    return Example(tuple(row.get("messages") or ()), row.get("text"), tuple(row.get("tools") or ()))


def _count(template: ChatTemplate, examples: list[Example], limit: int) -> list[tuple[int, int, list]]:
    chats = iter(template.encode_chats([example for example in examples if example.text is None]))
    counted: list[tuple[int, int, list]] = []
    for example in examples:
        encoded = template.encode_text(example.text) if example.text is not None else next(chats)
        if isinstance(encoded, DataError):
            counted.append((-1, -1, []))
            continue
        # A document beyond the limit is cut into several; nothing of it is lost.
        cut = limit and len(encoded.ids) > limit and example.text is None
        notes = _notes(template, example, encoded)
        counted.append((len(encoded.ids), int(encoded.loss_mask[1:limit].sum()) if cut else -1, notes))
    return counted


def _notes(template: ChatTemplate, example: Example, encoded: Encoded) -> list[tuple[str, str]]:
    notes = [
        (note, LINES[note] if note in ELSEWHERE else f"message {turn.message + 1}: {LINES[note]}")
        for turn in encoded.turns
        for note in turn.notes
    ]
    return notes + [
        (CONTROL_TOKEN, control_token_line(example.messages[index]["role"], index, token))
        for index, token in template.control_tokens(example)
    ]


if __name__ == "__main__":
    sys.exit(main())
