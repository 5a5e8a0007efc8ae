"""Answers that begin with a thought: `<think>…</think>` and what other models write for it.

Scores are of what comes after the thought. Light: no model, no tokenizer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TAGS = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM, Nemotron, MiniMax, SmolLM
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
)
"""What opens and what closes a thought. Channels that a template shows (`engine.worker.data.thought_channel`) are read
as well, and
in answers written as the first of these. Not `<reasoning>` and the like, which people use as a form of answers."""


@dataclass(frozen=True)
class Parts:
    """An answer taken apart."""

    thought: str
    """Without its tags; empty where nothing was thought."""
    answer: str
    """What comes after the thought; the text as it was where it has none."""
    closed: bool = True
    """The thought ended."""
    marked: bool = False
    """There are tags, also around an empty thought."""


def parts(text: str, tags: Sequence[tuple[str, str]] = TAGS) -> Parts:
    """The thought that an answer begins with, and the rest. A thought that never ends is followed by no answer.

    Where only the closing tag is there, the opening one was in the prompt, or there is none (an empty text).
    """
    for opening, closing in tags:
        begins = bool(opening) and text.lstrip().startswith(opening)
        if not begins and (closing not in text or (opening and opening in text.partition(closing)[0])):
            continue
        body = text.lstrip().removeprefix(opening)
        thought, end, answer = body.partition(closing)
        return Parts(thought.strip(), answer.strip() if end else "", bool(end), marked=True)
    return Parts("", text)


def answer_of(text: str) -> str:
    """What an answer says after its thought."""
    return parts(text).answer


def has_tags(text: str, tags: Sequence[tuple[str, str]] = TAGS) -> bool:
    return any(tag in text for pair in tags for tag in pair if tag)


def left_open(prompt: str, tags: Sequence[tuple[str, str]] = TAGS) -> str:
    """The tag of a thought that a prompt opens for the answer to go on with, or nothing."""
    return next((opening for opening, _ in tags if opening and prompt.rstrip().endswith(opening)), "")


def share_that_think(answers: Iterable[Parts]) -> float:
    thought = [bool(answer.thought) for answer in answers]
    return sum(thought) / len(thought)
