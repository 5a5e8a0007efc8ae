"""Cases at the edge that users send and training sets lack: nothing, an empty field, far too much, what is declined.

They are advice and no finds: a set may do without any of them. Nothing is said of small sets and of documents.
"""

import json
import re
from array import array

import numpy as np

from engine.formats.examples import Example

_FEWEST_ROWS = 200
_BARE_CHARS = 3
"""Letters and digits up to which a question says nothing: '', '??', 'hi', 'a'."""
_LONG_TIMES, _LONG_CHARS = 4, 400
"""A question is very long from four times the median and 400 characters on."""
_LOOKED_AT = 400
_DECLINES = re.compile(
    r"\b(?:sorry|apologi[sz]e|can ?not|can[’']t|unable to|won[’']t|not able to|do(?: not|n[’']t) (?:know|have)"
    r"|no information|not (?:sure|enough|mentioned|specified|provided|available|possible)|unknown|unanswerable|n/a"
    r"|consult|contact|lo siento|no puedo|désolé|je ne (?:peux|sais)|leider|kann (?:ich )?nicht)\b"
    "|抱歉|对不起|无法|不能|不知道|不清楚|不便|请咨询|申し訳|할 수 없",
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"other|none|unknown|misc|unclear|no[_ -]?match|out[_ -]?of|oos|irrelevant|n/?a\b|其他|其它|无|未知", re.IGNORECASE
)
"""Names of labels for what fits none of the others."""


class Boundaries:
    """Counts, as rows pass, what `lacking` then misses."""

    def __init__(self) -> None:
        self._chars = array("I")
        self._bare = self._declined = self._objects = self._gaps = 0
        self._labels: set[str] = set()

    def add(self, example: Example) -> None:
        if example.text is not None:
            return
        questions = [message["content"] or "" for message in example.messages if message["role"] == "user"]
        answer = example.messages[-1].get("content") or ""
        question = questions[-1] if questions else ""
        self._chars.append(min(sum(map(len, questions)), 2**32 - 1))
        if len(question) < 40:
            self._bare += sum(map(str.isalnum, question)) <= _BARE_CHARS
        self._declined += bool(_DECLINES.search(answer[:_LOOKED_AT]))
        if answer.lstrip()[:1] == "{":
            self._object(answer)
        if len(self._labels) < 1000:
            self._labels.add(answer[:_LOOKED_AT])

    def _object(self, answer: str) -> None:
        try:
            held = json.loads(answer)
        except (ValueError, RecursionError):
            return
        self._objects += 1
        self._gaps += any(value in (None, "", [], {}) for value in held.values())

    def lacking(self, labelled: bool) -> tuple[str, ...]:
        """What no row shows, in words that complete 'no row with …'; empty for sets of which nothing can be said."""
        chars = np.array(self._chars, np.int64)
        if len(chars) < _FEWEST_ROWS:
            return ()
        missing = []
        if not self._bare:
            missing.append("an empty or meaningless question")
        median = float(np.median(chars))
        if chars.max() < max(_LONG_TIMES * median, _LONG_CHARS):
            missing.append("a very long question")
        if self._objects * 2 > len(chars) and not self._gaps:
            missing.append("an answer with a field left empty")
        if labelled and not any(_OTHER.search(label) for label in self._labels):
            missing.append("a label for what fits none of them")
        elif not labelled and not self._objects * 2 > len(chars) and not self._declined:
            missing.append("an answer that declines or says it does not know")
        return tuple(missing)
