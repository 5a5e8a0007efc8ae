"""What is said of a run's settings, and what the checks of them go by."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from engine.base.errors import InputError


@dataclass(frozen=True)
class Finding:
    code: str
    """For programs: 'targets', 'warmup', 'no-effect', ..."""
    setting: str
    """The setting it is about, by its path."""
    message: str
    hint: str = ""
    """The next step to take."""
    refused: bool = False
    """The run cannot be what was asked for, so it is not begun."""


@dataclass(frozen=True)
class DataFacts:
    """What is known once the data has been read."""

    train: int
    """Examples to train on."""
    val: int
    longest: int
    """Tokens of the longest example of either."""
    steps_per_epoch: int
    total_steps: int
    labels: int = 0
    """Labels of classification data, else 0."""
    beyond: int = 0
    """Examples longer than the model has positions."""
    with_system: int | None = None
    """Examples that data.system became the system prompt of; None: it is not set."""


@dataclass(frozen=True)
class GpuFacts:
    """The GPUs that can be seen here."""

    names: Collection[str]
    """All by which each may be called: indices and UUIDs."""
    count: int


def refuse(findings: list[Finding]) -> None:
    """InputError for the refused among them."""
    refused = [finding for finding in findings if finding.refused]
    if refused:
        hints = [finding.hint for finding in refused if finding.hint]
        raise InputError("\n".join(finding.message for finding in refused), " ".join(hints))


def data_facts(report: dict[str, Any]) -> DataFacts:
    """From the data report of a worker."""
    data, plan = report["data"], report["plan"]
    return DataFacts(
        train=data["train"]["examples"],
        val=data["val"]["examples"],
        longest=max(data["train"]["longest"], data["val"]["longest"]),
        steps_per_epoch=plan["steps_per_epoch"],
        total_steps=plan["total_steps"],
        labels=data["labels"],
        beyond=report["facts"].get("beyond", 0),
        with_system=report["facts"].get("with_system"),
    )


def to_json(findings: list[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in findings]
