"""The form of a new run, without the screen: where it starts from, what was typed, what is wrong, which runs it makes.

A field holds text. Where a setting takes one value, commas make several of it, and so a sweep; where it takes a list,
` | ` does, and a list in JSON may hold commas. Everything else (types, bounds, what does not go together) is asked of
`engine.settings.schema`, so that the form and the commands say the same.
"""

import dataclasses
import json
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from engine.base.errors import ConfigError, EngineError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.present import numbers
from engine.runs.run_folder import absolute
from engine.settings import sweep
from engine.settings.coerce import parse_value
from engine.settings.presets import find_preset, preset_label
from engine.settings.resolve import (
    IN_LAYER,
    WRONG_VALUE,
    Layer,
    Resolved,
    inherit_origins,
    read_run,
    resolve,
    without_layer,
)
from engine.settings.schema import PATHS, SETTINGS

USUAL = (
    "data.files", "data.val_files", "data.max_length", "model.name", "method.kind", "method.objective", "lora.r",
    "lora.alpha", "optim.learning_rate", "train.epochs", "train.batch_size", "train.max_steps", "train.seed",
    "eval.every", "eval.metrics", "eval.prompts", "save.every", "run.name", "run.tags", "run.gpus",
)  # fmt: skip
"""What most runs are made with; the rest is shown on request, or where it was changed."""
LABEL = "new run"
"""The layer that what was typed comes from."""
_FREE_TEXT = ("run.name", "data.system", "model.revision", "model.checkpoint", "data.template", "eval.schema")
"""Texts in which a comma is a comma."""
_MENTIONED = re.compile("|".join(re.escape(path) for path in sorted(SETTINGS, key=len, reverse=True)))
MOST_RUNS = 100
"""More at once is more likely a slip than meant, and checking them takes 0.2 ms each; `finetop sweep` takes more."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a form starts from."""

    label: str = "default"
    """'preset quick', 'run 41', or 'default'."""
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    """For a copied run: where its values had come from."""
    of: int | str | None = None
    """The run's id, the preset's name; None: the defaults."""

    def value(self, path: str) -> Any:
        """A setting's value in the source, or its default."""
        return self.values.get(path, SETTINGS[path].default)

    def origin(self, path: str) -> str:
        """Where that value comes from."""
        return self.origins.get(path) or (self.label if path in self.values else "default")


@dataclass(frozen=True, slots=True)
class Form:
    """What was typed over the settings of a source."""

    source: Source = Source()
    typed: Mapping[str, str] = field(default_factory=dict)
    """What was typed, by the setting's path; only what differs from the source."""

    def text(self, path: str) -> str:
        """A field's text."""
        return self.typed[path] if path in self.typed else text_of(self.source.value(path))

    def set(self, path: str, text: str) -> "Form":
        """With another text in a field; the text of the source takes the change back."""
        typed = {other: typed for other, typed in self.typed.items() if other != path}
        if text.strip() != text_of(self.source.value(path)):
            typed[path] = text.strip()
        return dataclasses.replace(self, typed=typed)

    def reset(self, path: str) -> "Form":
        """With the text of the source in a field."""
        return self.set(path, text_of(self.source.value(path)))

    def origin(self, path: str) -> str:
        """Where a field's value comes from."""
        return LABEL if path in self.typed else self.source.origin(path)


@dataclass(frozen=True, slots=True)
class Checked:
    """What comes of a form."""

    problems: Mapping[str, str] = field(default_factory=dict)
    """By setting: what is wrong with it."""
    runs: tuple[Resolved, ...] = ()
    """None while something is wrong."""
    varied: Mapping[str, int] = field(default_factory=dict)
    """How many values each setting of a sweep takes."""

    @property
    def count(self) -> int:
        """How many runs it would be, wrong or right."""
        count = 1
        for values in self.varied.values():
            count *= values
        return count


def text_of(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        texts = [text_of(item) for item in value]
        plain = all("," not in text and text == text.strip() and not text.startswith("[") for text in texts)
        return ",".join(texts) if plain else json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return numbers.plain_number(value)


def alternatives(path: str, text: str) -> list[str]:
    """The values of a field: one, or those of a sweep."""
    if path in _FREE_TEXT or text.startswith("["):
        return [text]
    if takes_list(path):
        parts = text.split(" | ")
    elif path in PATHS and os.path.exists(os.path.expanduser(text)):
        parts = [text]
    else:
        parts = text.split(",")
    stripped = [part.strip() for part in parts if part.strip()]
    return list(dict.fromkeys(stripped)) or [""]


def takes_list(path: str) -> bool:
    """Whether a setting takes several values, or pairs."""
    kinds = (SETTINGS[path].type, *typing.get_args(SETTINGS[path].type))
    return any(typing.get_origin(kind) in (list, dict) for kind in kinds)


def choices(path: str) -> tuple[str, ...]:
    """The words a setting may be, for those that have few."""
    kind = SETTINGS[path].type
    if kind is bool:
        return ("true", "false")
    words: list[str] = []
    for part in (kind, *typing.get_args(kind)):
        if typing.get_origin(part) is list:
            continue
        if typing.get_origin(part) is Literal:
            words += map(str, typing.get_args(part))
        elif part is bool:
            words += ["true", "false"]
    return tuple(dict.fromkeys(words))


def next_choice(path: str, text: str) -> str | None:
    """The value after this one; None where a setting may be anything."""
    offered = choices(path)
    if len(offered) < 2 or takes_list(path):
        return None
    return offered[(offered.index(text) + 1) % len(offered)] if text in offered else offered[0]


def kind_of(path: str) -> str:
    """What a field takes, in words."""
    setting = SETTINGS[path]
    words = {str: "text", int: "a whole number", float: "a number"}
    parts = (setting.type,) if isinstance(setting.type, type) else typing.get_args(setting.type)
    if takes_list(path):
        inner = [str(word) for part in parts if typing.get_origin(part) is Literal for word in typing.get_args(part)]
        kind = "pairs a=b,c=d" if typing.get_origin(setting.type) is dict else "a list, with commas"
        if inner:
            kind += (
                f" of {', '.join(inner)}" if typing.get_origin(setting.type) is list else f", or {' or '.join(inner)}"
            )
    else:
        kind = " or ".join([*(words[part] for part in parts if part in words), *choices(path)])
    bounds = (("at least", setting.at_least), ("at most", setting.at_most))
    return ", ".join([kind, *(f"{word} {bound:g}" for word, bound in bounds if bound is not None)])


@lru_cache(maxsize=512)
def problem_of(path: str, text: str) -> str:
    """What is wrong with a field by itself; empty when nothing is. All values of a sweep are looked at."""
    if (
        ".." in text
        and path not in _FREE_TEXT
        and not takes_list(path)
        and re.fullmatch(r"[\d.e+-]+\.\.[\d.e+-]+(:\w+)?", text)
    ):
        return "a range is for `finetop sweep --random`; here values are listed: 1e-4,5e-5"
    for alternative in alternatives(path, text):
        try:
            resolve([Layer("here", {path: value_of(path, alternative)})])
        except ConfigError as error:
            for problem in error.problems:
                if in_layer := IN_LAYER.values_in(problem):
                    wrong = WRONG_VALUE.values_in(in_layer["problem"])
                    shown = f"{alternative} " if len(alternatives(path, text)) > 1 else ""
                    return f"{shown}{wrong['reason'] if wrong else in_layer['problem']}"
    return ""


def value_of(path: str, text: str) -> Any:
    """What a text means for a setting, as `--set` would read it."""
    if takes_list(path) and text.startswith("["):
        return parse_value(text)  # JSON, for items that hold commas
    if SETTINGS[path].type is str or path in PATHS or takes_list(path):
        return absolute({path: text})[path]
    return parse_value(text)


def from_anywhere(path: str, text: str) -> str:
    """A text that means the same when the screen is opened in another folder."""
    return text_of(value_of(path, text)) if path in PATHS and not problem_of(path, text) else text


def check(form: Form) -> Checked:
    """Every problem at once, and the runs if there is none. Looks at no file."""
    problems = {path: why for path, text in form.typed.items() if (why := problem_of(path, text))}
    several = {path: alternatives(path, text) for path, text in form.typed.items()}
    varied = {path: len(values) for path, values in several.items() if len(values) > 1}
    count = Checked(varied=varied).count
    if count > MOST_RUNS:
        worst = max(varied, key=lambda path: varied[path])
        problems.setdefault(
            worst,
            msg(
                "that would be {count:,} runs; {most_runs} at once are the most here", count=count, most_runs=MOST_RUNS
            ),
        )
    if "model.name" not in problems and not form.text("model.name"):
        problems["model.name"] = "a folder, a hub name such as org/name, or 'starter'"
    # What does not go together is looked for among the values that are right by themselves.
    single = {
        path: value_of(path, values[0])
        for path, values in several.items()
        if path not in problems and path not in varied
    }
    layers = [Layer(form.source.label, form.source.values), Layer(LABEL, single)]
    combinations: list[dict[str, Any]] = [{}]
    if varied and count <= MOST_RUNS and not problems.keys() & varied.keys():
        made = [
            sweep.Varied(path, tuple(value_of(path, value) for value in several[path]))
            for path in SETTINGS
            if path in varied
        ]
        combinations = sweep.grid(made)
    runs: list[Resolved] = []
    try:
        if len(combinations) > 1:
            runs = sweep.runs(layers, combinations, LABEL)
        else:
            runs = [resolve(layers)]
    except ConfigError as error:
        for problem in error.problems:
            at = _MENTIONED.search(problem)
            problems.setdefault(at[0] if at else "run.name", without_layer(problem))
    if problems:
        return Checked(problems, (), varied)
    return Checked({}, tuple(inherit_origins(run, form.source.label, form.source.origins) for run in runs), varied)


def group_name(form: Form) -> str:
    """How the runs of a sweep are called together."""
    name = form.text("run.name")
    if name:
        return name
    stem = os.path.splitext(os.path.basename(form.text("data.files").split(",")[0]))[0]
    return "-".join(part for part in (os.path.basename(form.text("model.name")), stem) if part).lower() or "sweep"


def load(source: int | str | None, workspace: Workspace) -> Source:
    """Settings to start from; the data, where it is told nowhere else, is that of the newest run. Raises EngineError
    where there is no such run or preset."""
    runs = workspace.runs
    if not isinstance(source, int):
        label, values = ("default", {}) if source is None else (preset_label(source), find_preset(source).settings())
        newest, files = _last_data(workspace)
        if files and "data.files" not in values:
            origins = dict.fromkeys(values, label) | {"data.files": msg("run {newest}", newest=newest)}
            return Source(label, {**values, "data.files": files}, origins, source)
        return Source(label, values, of=source)
    folder = runs / str(source)
    if not folder.is_dir():
        raise EngineError(msg("the folder of run {source} is gone: {folder}", source=source, folder=folder))
    resolved = read_run(folder)
    values = resolved.config.flat() | {"run.name": "", "model.checkpoint": resolved.config.model.checkpoint}
    return Source(f"run {source}", values, resolved.origin, source)


def _last_data(workspace: Workspace) -> tuple[int, list[str]]:
    """The newest run and its data files; none of a run whose settings or files are gone."""
    newest = max(workspace.run_ids(), default=0)
    try:
        files = list(read_run(workspace.runs / str(newest)).config.data.files) if newest else []
    except EngineError:
        return newest, []
    return newest, [] if any(os.path.isabs(file) and not os.path.exists(file) for file in files) else files
