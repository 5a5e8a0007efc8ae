"""The rows of the files under check as numbers: what is compared between rows is held as 64-bit hashes and signatures.

A row costs about 60 bytes, and 300 more for the signature of a new question. The texts stand in an unnamed temporary
file, from where near duplicates are proved. So memory follows the number of rows, not their length.
"""

import json
import os
import tempfile
from array import array
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from engine.data.near_duplicates import PERMUTATIONS, signatures
from engine.formats.examples import Example
from engine.formats.train_val_split import example_key, plain

_BATCH_CHARS = 1 << 20
LONGEST_COMPARED = 4000
"""Characters of a question or an answer that near duplicates are judged by."""


class RowIndex:
    """Rows in the order they were met. `part` tells whose they are: 0 the data, 1 the validation, 2 the test file."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.file = array("I")
        self.line = array("Q")
        self.part = array("B")
        self.question = array("Q")
        """example_key: equal for equal questions."""
        self.frame = array("Q")
        """Hash of the tools offered and the system message; 0 for rows without. A part of what is asked."""
        self.answer = array("Q")
        """Hash of what the assistant says, compared as questions are; 0 for documents."""
        self.thoughts = array("Q")
        """Hash of thoughts and weights of the answers; 0 for rows without. A part of what is taught."""
        self.answer_chars = array("I")
        self._place = array("Q")
        """Where the texts of a row begin in the temporary file."""
        self._seen: set[int] = set()
        self._distinct = array("Q")
        """Rows with a question not met before, in order."""
        self._texts = tempfile.TemporaryFile(prefix="finetop-check-")  # noqa: SIM115 - closed with the pool
        self._end = 0
        self._waiting: list[str] = []
        self._waiting_chars = 0
        self._signatures: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.question)

    def add(self, example: Example, part: int = 0) -> int:
        """The row's number in the pool."""
        if not self.files or self.files[-1] != example.file:
            self.files.append(example.file)
        row = len(self)
        self.file.append(len(self.files) - 1)
        self.line.append(example.line)
        self.part.append(part)
        key = example_key(example)
        question, answer = question_text(example), answer_text(example)
        bare_answer = plain(answer).rstrip(" .!。！")
        self.question.append(key)
        self.frame.append(_frame(example))
        self.answer.append(int.from_bytes(blake2b(bare_answer.encode(errors="replace"), digest_size=8).digest(), "big"))
        self.thoughts.append(_thoughts(example))
        self.answer_chars.append(min(len(answer.strip()), 2**32 - 1))
        question, answer = question[:LONGEST_COMPARED], answer[:LONGEST_COMPARED]
        new = key not in self._seen
        compared = bare(question) if new else ""
        self._write(question, answer, compared)
        if new:
            self._seen.add(key)
            self._distinct.append(row)
            self._waiting.append(compared)
            self._waiting_chars += len(compared)
            if self._waiting_chars > _BATCH_CHARS or len(self._waiting) >= 10_000:
                self._sign()
        return row

    def _write(self, *texts: str) -> None:
        self._place.append(self._end)
        for text in texts:
            data = text.encode(errors="replace")
            self._texts.write(len(data).to_bytes(4, "little") + data)
            self._end += 4 + len(data)

    def _sign(self) -> None:
        if self._waiting:
            self._signatures.append(signatures(self._waiting))
        self._waiting, self._waiting_chars = [], 0

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """(row numbers, signatures) of the first row with each question."""
        self._sign()
        if self._signatures:
            self._signatures = [np.concatenate(self._signatures)]
        empty = np.empty((0, PERMUTATIONS), np.uint32)
        return np.array(self._distinct, np.int64), self._signatures[0] if self._signatures else empty

    def texts(self, row: int) -> tuple[str, str]:
        """(question, answer) of a row, each up to LONGEST_COMPARED characters."""
        question, answer, _ = self._record(row)
        return question, answer

    def bare_question(self, row: int) -> str:
        """The question of a row that `distinct` names, as `bare` makes it."""
        return self._record(row)[2]

    def _record(self, row: int) -> list[str]:
        start = self._place[row]
        end = self._place[row + 1] if row + 1 < len(self._place) else self._end
        self._texts.flush()
        record = os.pread(self._texts.fileno(), end - start, start)
        parts, at = [], 0
        for _ in range(3):
            size = int.from_bytes(record[at : at + 4], "little")
            parts.append(record[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return parts

    def where(self, row: int) -> tuple[str, int]:
        return self.files[self.file[row]], self.line[row]

    def groups(self, keys: np.ndarray) -> Iterator[np.ndarray]:
        """Row numbers, ascending, of each key that two rows or more have; in the order of the first of them."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else np.empty(0, np.int64)
        ends = np.r_[starts[1:], len(keys)]
        many = np.flatnonzero(ends - starts > 1)
        for index in many[np.argsort(order[starts[many]], kind="stable")]:
            yield order[starts[index] : ends[index]]

    def close(self) -> None:
        self._texts.close()

    def __enter__(self) -> "RowIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _frame(example: Example) -> int:
    system = [plain(message["content"] or "") for message in example.messages[:1] if message["role"] == "system"]
    return _hash([example.tools, system]) if example.tools or system else 0


def _thoughts(example: Example) -> int:
    held = [
        (at, plain(message.get("reasoning_content") or ""), message.get("weight", 1))
        for at, message in enumerate(example.messages)
        if len(message) > 2 and (message.get("reasoning_content") or message.get("weight") == 0)
    ]
    return _hash(held) if held else 0


def _hash(value: object) -> int:
    written = json.dumps(value, sort_keys=True, default=str).encode()
    return int.from_bytes(blake2b(written, digest_size=8).digest(), "big")


def question_text(example: Example) -> str:
    """What is asked: the user's words of every turn; the text of a document."""
    if example.text is not None:
        return example.text
    return "\n".join(message.get("content") or "" for message in example.messages if message["role"] == "user")


def answer_text(example: Example) -> str:
    """What the assistant says, with the calls it makes; '' for a document."""
    parts = []
    for message in example.messages:
        if message["role"] == "assistant":
            parts.append(message.get("content") or "")
            parts += [str(call["function"]) for call in message.get("tool_calls") or ()]
    return "\n".join(parts)


def bare(text: str) -> str:
    """Letters and digits only, with single spaces: punctuation makes no difference between near duplicates."""
    return " ".join("".join(char if char.isalnum() else " " for char in plain(text)).split())
