"""`python -m engine.worker.show_turns`: what a run trains of rows, turn by turn, for processes that must not import
transformers.

The first line of stdin is the run's settings as JSON, by path; examples follow as JSON lines, as for
`engine.worker.count_tokens`; for each, in order, one JSON line goes out: a list, see `describe`.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from engine.base.errors import DataError, EngineError
from engine.formats.examples import Example
from engine.settings.resolve import Layer, resolve
from engine.settings.schema import RunConfig
from engine.worker.count_tokens import read_example
from engine.worker.data.chat_template import ChatTemplate, Encoded, clock_of
from engine.worker.data.thinking import Thoughts, without_thoughts
from engine.worker.data.token_text import token_text
from engine.worker.data.tokenize import Taken, document_pieces, encode_document, take_chats
from engine.worker.model.load import generation_ends, load_tokenizer


def main() -> int:
    """Describe the examples on stdin; returns the exit code."""
    argparse.ArgumentParser(prog="python -m engine.worker.show_turns", description=__doc__).parse_args()
    lines = iter(sys.stdin.buffer)
    try:
        config = resolve([Layer("settings", json.loads(next(lines)))]).config
        tokenizer, clock = load_tokenizer(config.model), clock_of(config.data)
        template = ChatTemplate(tokenizer, config.data.template, generation_ends(config.model), clock)
    except EngineError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    for line in lines:
        print(json.dumps(describe(template, read_example(json.loads(line)), config), ensure_ascii=False))
    return 0


def describe(template: ChatTemplate, example: Example, config: RunConfig) -> list[dict[str, Any]]:
    """What a run with these settings trains of one row, JSON-ready: an item for each example that it becomes, as a rule
    one. `error` says why there is none; else `tokens`, `trained` (how many of them), `cut` (tokens behind
    data.max_length, which are not used), `stop_tokens` (texts), and `turns`.

    A turn is a stretch of tokens: `messages` (their indices in the conversation, from 0) and `roles`, `trained` (any of
    it), `tokens`, `text`, `pieces` (the text as [text, trained] pieces). An answer has also `stop`, the token at which
    generation ends, or null where there is none (not where it is left out of training); `prompt`, the text before it
    in generation, where that differs from training, else null; and `notes`, codes of `engine.formats.turn_notes`.
    """
    if config.method.objective == "pretrain":
        return _document(template, example, config.data.max_length)
    if config.data.thinking == "drop":
        example = without_thoughts(example, template.thought_tags)
    taken = take_chats(config, template, [example], Thoughts(template, config.data.thinking))
    return [_chat(template, row) for row in taken]


def _chat(template: ChatTemplate, row: Taken) -> dict[str, Any]:
    if row.problem is not None or row.encoded is None:
        return {"error": row.problem.message if row.problem else ""}
    ids, loss_mask = row.encoded.ids[: row.kept], _predicted(row.encoded.loss_mask[: row.kept])
    turns = list(_turns(template, row, row.encoded, loss_mask))
    return _described(template, ids, loss_mask, turns) | {"cut": len(row.encoded.ids) - row.kept}


def _document(template: ChatTemplate, example: Example, limit: int) -> list[dict[str, Any]]:
    encoded = encode_document(template, example)
    if isinstance(encoded, DataError):
        return [{"error": encoded.message}]
    indices = range(len(example.messages))
    pieces = [(ids, _predicted(loss_mask)) for ids, loss_mask in document_pieces(encoded, limit)]
    described = [
        _described(template, *piece, [_stretch(template, example, *piece, indices) | _stop(template, *piece)])
        for piece in pieces
    ]
    return described or [{"error": "a document of one token, which nothing predicts"}]


def _described(template: ChatTemplate, ids: np.ndarray, loss_mask: np.ndarray, turns: list[dict]) -> dict[str, Any]:
    return {
        "tokens": len(ids),
        "trained": int(loss_mask.sum()),
        "cut": 0,
        "stop_tokens": template.tokenizer.convert_ids_to_tokens(list(template.stop_token_ids)),
        "turns": turns,
    }


def _predicted(loss_mask: np.ndarray) -> np.ndarray:
    """Without the first token, as `TokenSet` has it: nothing predicts that."""
    return np.concatenate(([False], loss_mask[1:]))


def _turns(template: ChatTemplate, row: Taken, encoded: Encoded, loss_mask: np.ndarray) -> Iterator[dict[str, Any]]:
    example, ids, at, next_message = row.example, encoded.ids, 0, 0

    def stretch(start: int, end: int, messages: Sequence[int]) -> dict[str, Any]:
        return _stretch(template, example, ids[start:end], loss_mask[start:end], messages)

    for turn in encoded.turns:
        start, end = min(turn.start, row.kept), min(turn.end, row.kept)
        if at < start:
            yield stretch(at, start, range(next_message, turn.message))
        if start < end:
            stop = _stop(template, ids[start:end], loss_mask[start:end])
            yield (
                stretch(start, end, [turn.message])
                | stop
                | {
                    "prompt": _other_prompt(template, example, turn.message, ids[:start].tolist()),
                    "notes": list(turn.notes),
                }
            )
        at, next_message = end, turn.message + 1
    if at < row.kept:
        yield stretch(at, row.kept, range(next_message, len(example.messages)))


def _stretch(
    template: ChatTemplate, example: Example, ids: np.ndarray, loss_mask: np.ndarray, messages: Sequence[int]
) -> dict[str, Any]:
    return {
        "messages": list(messages),
        "roles": [example.messages[number]["role"] for number in messages],
        "trained": bool(loss_mask.any()),
        "tokens": len(ids),
        "text": token_text(template.tokenizer, ids.tolist()),
        "pieces": pieces_of(template, ids, loss_mask),
    }


def _stop(template: ChatTemplate, ids: np.ndarray, loss_mask: np.ndarray) -> dict[str, Any]:
    if not loss_mask.any():
        return {}
    ends = [token for token in ids[loss_mask].tolist() if token in template.stop_token_ids]
    return {"stop": template.tokenizer.convert_ids_to_tokens(ends[0]) if ends else None}


def pieces_of(template: ChatTemplate, ids: np.ndarray, loss_mask: np.ndarray) -> list[tuple[str, bool]]:
    """Tokens as (text, trained) pieces."""
    borders = [0, *(np.flatnonzero(np.diff(loss_mask)) + 1).tolist(), len(ids)]
    return [
        (token_text(template.tokenizer, ids[a:b].tolist()), bool(loss_mask[a])) for a, b in itertools.pairwise(borders)
    ]


def _other_prompt(template: ChatTemplate, example: Example, message: int, trained_ids: list[int]) -> str | None:
    """The prompt of this turn in generation, unless the same tokens stand before it in training."""
    try:
        prompt_ids = template.encode_prompt(Example(messages=example.messages[:message], tools=example.tools))
    except DataError:
        return None
    return None if prompt_ids == trained_ids else token_text(template.tokenizer, prompt_ids)


if __name__ == "__main__":
    sys.exit(main())
