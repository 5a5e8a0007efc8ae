"""Presets: named TOML files of settings, shipped in presets/ and the user's own."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import PACKAGE_ROOT, config_folder
from engine.settings.config_file import read_config_file
from engine.settings.resolve import Layer

SHIPPED = PACKAGE_ROOT / "presets"
STARTER_MODEL = SHIPPED / "models" / "starter"
SAMPLES = SHIPPED / "samples"


def user_folder() -> Path:
    """Where the user's own presets lie: $FINETOP_PRESETS, else finetop/presets in the XDG config folder."""
    if chosen_folder := os.environ.get("FINETOP_PRESETS"):
        return Path(os.path.expanduser(chosen_folder))
    return config_folder() / "presets"


@dataclass(frozen=True)
class Preset:
    name: str
    path: Path
    summary: str
    """The first line of the comment head: what it is for."""
    head: str
    """The whole comment head: for what, what it needs, how to run it."""

    def settings(self) -> dict[str, Any]:
        return read_config_file(self.path)


_LABEL = "preset "


def preset_layer(preset: Preset) -> Layer:
    """Its settings, labelled with its name. Raises InputError where it cannot be read."""
    return Layer(preset_label(preset.name), preset.settings())


def preset_label(name: str) -> str:
    """How origins of settings name a preset; config.json and journals hold it."""
    return f"{_LABEL}{name}"


def preset_of(label: str) -> str:
    """The preset that an origin names; '' where it names something else."""
    return label.removeprefix(_LABEL) if label.startswith(_LABEL) else ""


def all_presets() -> list[Preset]:
    """Every preset by name; the user's own stand before shipped ones of the same name."""
    by_name: dict[str, Preset] = {}
    for folder in (SHIPPED, user_folder()):
        if folder.is_dir():
            for path in sorted(folder.glob("*.toml")):
                by_name[path.stem] = _read(path)
    return sorted(by_name.values(), key=lambda preset: preset.name)


def find_preset(name: str) -> Preset:
    presets = {preset.name: preset for preset in all_presets()}
    if name not in presets:
        near = difflib.get_close_matches(name[:200], presets, 1, 0.6)
        hint = msg("Your own presets are TOML files in {user_folder}.", user_folder=user_folder())
        if os.sep in name or name.endswith((".toml", ".json")):
            hint = msg("A file of settings is given with --config {name}", name=name)
        raise InputError(
            msg("there is no preset '{name}'; did you mean '{near}'?", name=name[:60], near=near[0])
            if near
            else msg("there is no preset '{name}'; there are {presets}", name=name[:60], presets=", ".join(presets)),
            hint,
        )
    return presets[name]


def _read(path: Path) -> Preset:
    head = []
    try:
        for line in path.read_text("utf-8", errors="replace").splitlines():
            if not line.startswith("#"):
                break
            head.append(line.removeprefix("#").strip())
    except OSError as error:
        head = [msg("cannot be read: {strerror}", strerror=error.strerror)]
    return Preset(path.stem, path, head[0] if head else "", "\n".join(head))
