"""Drafts: what was typed into the form of a new run and not queued, for when the form is opened again.

There is one for each thing that a form can be of (a new run, a copy of run 41, the weights of 41@120), by workspace, in
what the screen remembers between two visits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.settings.schema import SETTINGS

_REMEMBERED = "drafts"
_KEPT = 50


@dataclass(frozen=True, slots=True)
class Draft:
    """A form that was left."""

    source: int | str | None = None
    """What it started from: a run's id, a preset's name, None for the defaults."""
    typed: Mapping[str, str] = field(default_factory=dict)
    """The texts of the fields that were changed, by the setting's path."""


def subject(source: int | str | None, parent: tuple[int, int | str] | None) -> str:
    """What a form is of: drafts of different things are different drafts."""
    if parent is not None:
        return f"{parent[0]}@{parent[1]}"
    return "new" if source is None else f"preset {source}" if isinstance(source, str) else f"run {source}"


def draft_of(remembered: Mapping[str, Any], root: Path, of: str) -> Draft | None:
    """The draft of a thing, if there is one."""
    for entry in _entries(remembered):
        if entry[:2] == [str(root), of]:
            return Draft(entry[2], entry[3])
    return None


def keep_draft(remembered: dict[str, Any], root: Path, of: str, draft: Draft | None) -> None:
    """Remember a draft in place of the one there was; None: there is none any more."""
    entries = [entry for entry in _entries(remembered) if entry[:2] != [str(root), of]]
    if draft is not None:
        entries.append([str(root), of, draft.source, dict(draft.typed)])
    remembered[_REMEMBERED] = entries[-_KEPT:]


def _entries(remembered: Mapping[str, Any]) -> list[list[Any]]:
    """`[workspace, subject, source, typed]`, the newest last; what another version or a stranger wrote is left out."""
    entries = remembered.get(_REMEMBERED)
    return [entry for entry in entries if _is_entry(entry)] if isinstance(entries, list) else []


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 4
        and (entry[2] is None or type(entry[2]) in (int, str))
        and isinstance(entry[3], dict)
        and all(path in SETTINGS and isinstance(text, str) for path, text in entry[3].items())
    )
