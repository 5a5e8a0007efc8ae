"""The text of tokens as they come: never half a character, and nothing that may be the beginning of a stop string."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """One answer. What is held back comes with a later token, or with `flush`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = (), keep_special: bool = False
    ) -> None:
        """`keep_special`: special tokens are text too, such as those that mark a tool call."""
        self._tokenizer, self._stops, self._skip = tokenizer, tuple(stops), not keep_special
        self._ids: list[int] = []
        self._prefix = self._read = 0
        """Those before `_read` have been handed on. New ones are decoded with what was handed on last, since some
        tokenizers write a space or not by what stands before; never from within a character, which would spoil more."""
        self._held = ""
        self.stopped = False
        """A stop string has been written: it and what follows are left out."""

    def push(self, token: int) -> str:
        """The text that this token completes."""
        self._ids.append(token)
        before = self._decode(self._prefix, self._read)
        text = self._decode(self._prefix, len(self._ids))
        if len(text) <= len(before) or text.endswith(_INCOMPLETE):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return self._without_stop(self._held + text[len(before) :])

    def flush(self) -> str:
        """What has been held back, at the end of an answer."""
        if self.stopped:
            return ""
        before = self._decode(self._prefix, self._read)
        rest = self._decode(self._prefix, len(self._ids))[len(before) :]
        self._read = len(self._ids)
        text = self._without_stop(self._held + rest)
        held, self._held = self._held, ""
        return text + held

    def _decode(self, start: int, end: int) -> str:
        text = self._tokenizer.decode(self._ids[start:end], skip_special_tokens=self._skip)
        return text if isinstance(text, str) else "".join(text)

    def _without_stop(self, text: str) -> str:
        """What may be handed on of it; the rest is held back."""
        self._held = ""
        hits = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            self.stopped = True
            return text[: min(hits)]
        longest = max((n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        if longest:
            self._held = text[-longest:]
            return text[:-longest]
        return text
