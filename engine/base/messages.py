"""Sentences that users read: templates with named values, as gettext has them, rendered to English at once.

`msg("{rows} rows of {file} are bad", rows=3, file=path)` is the text itself, a `str`, and keeps what it is made of. The
journal and the store keep both beside the text, so that a presentation layer can render the template in another
language; what is joined or cut afterwards is plain text. A sentence without values is its own template and stays a
plain string. A sentence that a program goes by has a name, as a `MessageTemplate`, and is known by its template and
never by its words. `xgettext --keyword=msg --keyword=msg_n:1,2 --keyword=MessageTemplate` lists them.
"""

import functools
import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

_PLAIN_SPEC = re.compile(r"(?!.*\d{4})[^{}]{0,8}")
"""How a stored template may format a value: a journal may be a stranger's, and `{x:>9999999999}` fills the memory."""


class Message(str):
    """A rendered sentence. `template` is a format string over `values`."""

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, values: Mapping[str, Any]) -> "Message":
        message = super().__new__(cls, template.format_map(values))
        message.template, message.values = template, values
        return message

    def __reduce__(self) -> tuple[Any, ...]:
        return Message, (self.template, {name: _plain(value) for name, value in self.values.items()})

    def record(self) -> dict[str, Any]:
        """`{"template": …, "values": {…}}`, as JSON can hold it; a value that is a message itself is such a record."""
        return {"template": self.template, "values": {name: _stored(value) for name, value in self.values.items()}}


def msg(template: str, /, **values: Any) -> str:
    """The `Message` of a template such as `"step {step:,} of {steps:,}"`. Raises KeyError where a value is missing."""
    return Message(template, values)


def msg_n(singular: str, plural: str, number: int, /, **values: Any) -> str:
    """One of two templates by `number`, which both may name as `{n}`."""
    return Message(singular if number == 1 else plural, {"n": number, **values})


class MessageTemplate:
    """A template with a name, for a sentence that is recognised again where it is read."""

    def __init__(self, template: str) -> None:
        self.template = template

    def __call__(self, **values: Any) -> str:
        """The sentence. Raises KeyError where a value is missing."""
        return Message(self.template, values)

    def values_in(self, text: str) -> Mapping[str, Any] | None:
        """The values of this sentence in a text that is or holds it, as `rank 1 failed: {reason}` may; None where it
        does not. Of a text without a template, as earlier versions stored all, they are texts too."""
        if isinstance(text, Message):
            if text.template == self.template:
                return text.values
            inner = (self.values_in(value) for value in text.values.values() if isinstance(value, str))
            return next((values for values in inner if values is not None), None)
        match = self._pattern.search(text)
        return match.groupdict() if match else None

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(
            "".join(
                re.escape(words) + (f"(?P<{name}>.+)" if name is not None else "")
                for words, name, _, _ in Formatter().parse(self.template)
            )
        )


def from_record(record: Mapping[str, Any]) -> Message:
    """A message as `Message.record` described it. Raises KeyError, TypeError or ValueError where it is none, or names
    more than its values: `{path.__class__}` reaches beyond them."""
    for _, name, spec, _ in Formatter().parse(record["template"]):
        if name is not None and not (name.isidentifier() and _PLAIN_SPEC.fullmatch(spec or "")):
            raise ValueError(record["template"])
    values = {
        name: from_record(value) if isinstance(value, dict) and "template" in value else value
        for name, value in record["values"].items()
    }
    return Message(record["template"], values)


def restored(text: str, record: Any) -> str:
    """A text as the message that `record` describes; as it is where the record is none, or not that of this text."""
    try:
        message = from_record(record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
        return text
    return message if message == text else text


def records(fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is kept beside the English text: the record of each field that is a message."""
    return {name: value.record() for name, value in fields.items() if isinstance(value, Message)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _stored(value: Any) -> Any:
    return value.record() if isinstance(value, Message) else _plain(value)
