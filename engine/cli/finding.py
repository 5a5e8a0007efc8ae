"""What `finetop doctor` finds, and how."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    area: str
    what: str
    verdict: str = "ok"
    """'ok', 'note': works, but; 'bad': something will not work."""
    hint: str = ""
    """What to do."""


Said = Iterator[tuple[str, ...]]
"""The fields of findings but for their area."""


def counted(number: int, what: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
