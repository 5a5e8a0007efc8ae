"""What has been measured so far, in OUT/results.jsonl, and the table made of it."""

import datetime
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu.findings import FAILED

ROOT = Path(__file__).resolve().parents[2]
RESULTS, TABLE, LOG = "results.jsonl", "table.md", "log.txt"
ATTEMPTS = 2
"""A measurement that failed is tried once more by a later command, after all that has not been tried at all."""
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "trl")
_SOURCES = ("engine", "tui", "bench", "presets")


def identity(device: str, size: str) -> dict[str, Any]:
    """What a result belongs to. Results of another card, other versions or another source do not count as done."""
    return {
        "device": device,
        "size": size,
        **(_card() if device == "cuda" else {"card": "CPU"}),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "source": source_hash(),
    }


def _card() -> dict[str, Any]:
    """Name and driver by NVML, which needs no torch. Says so where there is none: nothing can be measured then."""
    from engine.monitor.nvml import DriverUnavailable, Nvml

    nvml = Nvml()
    try:
        card = nvml.devices()[0]
    except DriverUnavailable as reason:
        raise SystemExit(
            f"gpu_kit: {reason}\nWithout a card: --device cpu --size tiny rehearses every stage."
        ) from None
    return {"card": card.facts.get("name") or "unknown card", "driver": nvml.driver, "cuda": nvml.cuda}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def source_hash() -> str:
    """Of what runs, committed or not, whether git is here or not."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".toml", ".csv", ".jsonl") and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str | None:
    """For people to read; a copy of the checkout has none."""
    try:
        words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@dataclass
class Book:
    """The results of one OUT folder under one identity."""

    out: Path
    identity: dict[str, Any]
    lines: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.lines = [line for line in read(self.out / RESULTS) if line.get("identity") == self.identity]

    def add(self, stage: str, key: str, result: dict[str, Any]) -> dict[str, Any]:
        line = {"stage": stage, "key": key, **result, "identity": self.identity}
        with open(self.out / RESULTS, "a", encoding="utf-8") as file:
            # A kit that was killed may have left half a line.
            file.write(("" if _ends_whole(self.out / RESULTS) else "\n") + json.dumps(line) + "\n")
        self.lines.append(line)
        return line

    def latest(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(line["stage"], line["key"]): line for line in self.lines}

    def failures(self, stage: str, key: str) -> int:
        return sum(line["verdict"] == FAILED and (line["stage"], line["key"]) == (stage, key) for line in self.lines)

    def done(self, stage: str, key: str) -> bool:
        """Whether it need not be taken again."""
        last = self.latest().get((stage, key))
        return last is not None and (last["verdict"] != FAILED or self.failures(stage, key) >= ATTEMPTS)


def of_any_source(lines: list[dict[str, Any]], identity: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest result of each measurement on this card with these versions, whatever the source was."""
    ours = {**identity, "source": None}
    same = [line for line in lines if {**line["identity"], "source": None} == ours]
    return {(line["stage"], line["key"]): line for line in sorted(same, key=lambda line: line["began"])}


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line; what a kill has cut short is skipped."""
    results = []
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and {"stage", "key", "verdict", "identity"} <= value.keys():
            results.append(value)
    return results


def _ends_whole(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) == 0:
                return True
            file.seek(-1, 2)
            return file.read(1) == b"\n"
    except FileNotFoundError:
        return True


# -- the table: pure, from lines to Markdown -----------------------------------------------------------------------


def table(identity: dict[str, Any], latest: dict[tuple[str, str], dict[str, Any]], left: list[str]) -> str:
    """Heading and one row for each measurement, in the order given."""
    versions = ", ".join(f"{name} {identity[name]}" for name in ("python", *_PACKAGES) if identity.get(name))
    driver = f", driver {identity['driver']}, CUDA {identity['cuda']}" if identity.get("driver") else ""
    days = sorted({datetime.date.fromtimestamp(line["began"]).isoformat() for line in latest.values()})
    when = f"{days[0]} to {days[-1]}" if len(days) > 1 else "".join(days)
    commits = sorted({line["commit"] for line in latest.values() if line.get("commit")})
    lines = [
        f"**{identity['card']}**{driver}; {versions}; size {identity['size']}; source {identity['source']}"
        f"{' (' + ', '.join(commits) + ')' if commits else ''}; {when or 'nothing measured yet'}.",
        "",
    ]
    if identity["device"] != "cuda":
        lines += ["A rehearsal on a CPU: it shows that the stages run, and says nothing about any card.", ""]
    lines += ["| stage | measurement | verdict | figures | what fell short, or why there is nothing |",
              "|---|---|---|---|---|"]  # fmt: skip
    for (stage, key), line in latest.items():
        figures = "; ".join(_figure(figure) for figure in line.get("figures", ()))
        wrong = [f"not {check['what']}: {check['seen']}" for check in line.get("checks", ()) if not check["ok"]]
        source = line.get("identity", identity)["source"]
        earlier = [f"by source {source}"] if source != identity["source"] else []
        error = [line["error"]] if line.get("error") else []
        remarks = "; ".join([*error, *wrong, *line.get("notes", ()), *earlier])
        cells = (stage, key, line["verdict"], figures, remarks)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    if left:
        lines += ["", f"Not measured yet: {', '.join(left)}."]
    return "\n".join(lines) + "\n"


def _figure(figure: dict[str, Any]) -> str:
    value, unit = figure["value"], figure["unit"]
    if value is None:
        shown = "none"
    elif isinstance(value, str):
        shown = value
    elif unit == "%":
        shown = f"{value:.1%}"
    elif unit == "GB":
        shown = f"{value / 1e9:.2f} GB"
    elif unit == "x":
        shown = f"{value:.2f}x"
    else:
        shown = (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}") + (f" {unit}" if unit else "")
    return f"{figure['name']} {shown}"


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= 600 else flat[:597] + "..."
