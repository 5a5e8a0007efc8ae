"""What a measurement finds: checks that can fail, figures, and the verdict that follows from the checks alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu.kit import Kit

OK, SHORT, FAILED, ABSENT, REHEARSED = "ok", "fell short", "failed", "not here", "rehearsed"
"""Verdicts. `rehearsed`: the checks hold, but on a CPU, which proves nothing about a card. `failed`: no result."""


class NotHere(Exception):
    """What a measurement needs is not on this machine; says what."""


@dataclass(frozen=True)
class Measurement:
    key: str
    seconds: float
    """What it takes on a card of an H100's kind, start of Python and making of models included. A guess on the safe
    side: it decides whether the measurement still fits into a command's time, and when it counts as hung."""
    take: Callable[["Kit"], "Findings"]


@dataclass
class Findings:
    checks: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, name: str, value: float | int | str | None, unit: str = "") -> None:
        """For the table. Units: '%' of a share, 'GB' of bytes, 's', 'x', 'J', or words to stand behind the number."""
        self.figures.append({"name": name, "value": value, "unit": unit})

    def check(self, what: str, right: bool, seen: Any = None) -> bool:
        """`what` says what ought to be; `seen` what was there instead."""
        self.checks.append({"what": what, "ok": bool(right), "seen": None if right else str(seen)})
        return bool(right)

    def close(self, what: str, seen: float | None, expected: float | None, relative: float) -> bool:
        """Both are there, and differ by no more than this share of `expected`."""
        there = seen is not None and expected is not None
        right = there and math.isfinite(seen) and abs(seen - expected) <= relative * abs(expected)
        return self.check(f"{what} within {relative:.2%}", right, f"{seen} for {expected}")

    def at_least(self, what: str, seen: float | None, least: float) -> bool:
        return self.check(f"{what} at least {least:g}", seen is not None and seen >= least, seen)

    def at_most(self, what: str, seen: float | None, most: float) -> bool:
        return self.check(f"{what} at most {most:g}", seen is not None and seen <= most, seen)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def verdict(self, device: str) -> str:
        """Nothing checked is nothing proved."""
        if not self.checks or not all(check["ok"] for check in self.checks):
            return SHORT
        return OK if device == "cuda" else REHEARSED
