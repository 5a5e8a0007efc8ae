"""A sweep: settings that vary, and the runs that makes. Pure: words in, settings out.

`learning_rate=1e-4,5e-5` is a list of values, `learning_rate=1e-5..1e-3:log` a range to draw from. A setting goes by
its path, or by the last part of it where no other has the same.
"""

import itertools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.errors import ConfigError, InputError
from engine.base.messages import msg
from engine.base.units import plain_number
from engine.settings.coerce import parse_value
from engine.settings.resolve import Layer, Resolved, resolve
from engine.settings.schema import SETTINGS

LARGEST = 10_000
"""More runs in one group than anyone has ever meant."""
_FIRST = {"seed": "train.seed", "name": "run.name", "format": "data.format", "lr": "optim.learning_rate"}
"""What a short name means that several settings share, or that no setting has."""
_SHORT = {
    "optim.learning_rate": "lr",
    "optim.weight_decay": "wd",
    "train.batch_size": "batch",
    "train.max_steps": "steps",
    "data.max_length": "length",
}
"""What people call a setting, where that is shorter than its own name."""


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    high: float
    log: bool
    whole: bool
    """Only whole numbers are drawn."""

    def draw(self, dice: random.Random) -> float | int:
        """One value: three significant digits are all that anyone wants to read in a run's name."""
        if self.log:
            value = math.exp(dice.uniform(math.log(self.low), math.log(self.high)))
        elif self.whole:
            return dice.randint(int(self.low), int(self.high))
        else:
            value = dice.uniform(self.low, self.high)
        if self.whole:
            return min(max(round(value), int(self.low)), int(self.high))
        return min(max(float(f"{value:.3g}"), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Varied:
    """One setting that varies."""

    path: str
    choices: tuple[Any, ...] = ()
    range: Range | None = None

    def draw(self, dice: random.Random) -> Any:
        """One of its values."""
        return self.range.draw(dice) if self.range else dice.choice(self.choices)


def parse_varied(text: str) -> Varied:
    """`lora.r=8,16`, `lora.targets=["q_proj","v_proj"],all-linear` in JSON, or `optim.learning_rate=1e-5..1e-3:log`."""
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not name or not values:
        raise InputError(
            msg("'{text}': expected key=value,value", text=text[:60]), "Such as --grid learning_rate=1e-4,5e-5"
        )
    path = full_path(name)
    if ".." in values and "," not in values:
        return Varied(path, range=_range(path, values))
    different = {json.dumps(value): value for value in _values(values)}
    return Varied(path, choices=tuple(different.values()))


def full_path(name: str) -> str:
    """The path of a setting from its short name; what no setting goes by is left as it is, for `resolve` to refuse."""
    name = name.replace("-", "_")
    if name in SETTINGS:
        return name
    named = [path for path in SETTINGS if path.split(".")[1] == name]
    if len(named) > 1 and name not in _FIRST:
        raise InputError(
            msg("several settings are called '{name}'", name=name), msg("There are {named}.", named=", ".join(named))
        )
    return _FIRST.get(name) or (named[0] if named else name)


def grid(varied: Sequence[Varied]) -> list[dict[str, Any]]:
    """Every combination, the last setting varying fastest."""
    for setting in varied:
        if setting.range:
            raise InputError(
                msg("{path} is a range: how many values of it?", path=setting.path), "Draw from it with --random N."
            )
    if math.prod(len(setting.choices) for setting in varied) > LARGEST:
        raise InputError(
            msg("that would be more than {largest:,} runs", largest=LARGEST), "Draw some of them with --random N."
        )
    combinations = itertools.product(*(setting.choices for setting in varied))
    return [{setting.path: value for setting, value in zip(varied, chosen, strict=True)} for chosen in combinations]


def draw(varied: Sequence[Varied], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` different combinations, the same for the same seed."""
    if not 1 <= count <= LARGEST:
        raise InputError(msg("--random takes a number from 1 to {largest:,}", largest=LARGEST))
    if not any(setting.range for setting in varied):
        every = grid(varied)
        if count > len(every):
            raise InputError(
                msg(
                    "there are only {combinations} combinations, and --random asks for {count}",
                    combinations=len(every),
                    count=count,
                )
            )
        return random.Random(seed).sample(every, count)
    dice = random.Random(seed)
    distinct: dict[str, dict[str, Any]] = {}
    for _ in range(100 * count):
        drawn = {setting.path: setting.draw(dice) for setting in varied}
        distinct.setdefault(json.dumps(drawn), drawn)
        if len(distinct) == count:
            return list(distinct.values())
    raise InputError(
        msg(
            "only {distinct} different combinations were found, and --random asks for {count}",
            distinct=len(distinct),
            count=count,
        )
    )


def runs(layers: Sequence[Layer], combinations: Sequence[dict[str, Any]], label: str) -> list[Resolved]:
    """One checked run for each combination, named for what varies. Raises ConfigError with every problem of all.

    The group is no part of the names: in a narrow column only their beginning is seen, and that is to be what differs.
    """
    short = _short_names(list(dict.fromkeys(path for combination in combinations for path in combination)))
    made: list[Resolved] = []
    problems: dict[str, None] = {}
    for combination in combinations:
        name = " ".join(
            _shown(value) if path == "run.name" else f"{short[path]}={_shown(value)}"
            for path, value in combination.items()
        )
        try:
            made.append(resolve([*layers, Layer(label, combination), Layer("sweep", {"run.name": name})]))
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems), "`finetop plan` shows every setting, its value and where it came from.")
    return made


def _short_names(paths: list[str]) -> dict[str, str]:
    last = [_SHORT.get(path, path.split(".")[-1]) for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else plain_number(value)


def _values(text: str) -> list[Any]:
    try:
        parsed = json.loads(f"[{text}]")  # lists and quoted commas
        if any(isinstance(value, list) for value in parsed) or '"' in text:
            return parsed
    except ValueError:
        pass
    return [parse_value(part.strip()) for part in text.split(",") if part.strip()]


def _range(path: str, text: str) -> Range:
    ends, _, how = text.partition(":")
    low_text, _, high_text = ends.partition("..")
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        raise InputError(
            msg("{path}: '{text}' is no range", path=path, text=text), "Such as 1e-5..1e-3:log or 4..64"
        ) from None
    if how not in ("", "log") or not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise InputError(
            msg("{path}: '{text}' is no range", path=path, text=text),
            "Such as 1e-5..1e-3:log or 4..64, the smaller end first",
        )
    if how and low <= 0:
        raise InputError(msg("{path}: a logarithmic range begins above 0, not at {low:g}", path=path, low=low))
    setting = SETTINGS.get(path)
    whole = setting is not None and float not in (setting.type, *getattr(setting.type, "__args__", ()))
    if whole and not (low.is_integer() and high.is_integer()):
        raise InputError(msg("{path} is a whole number, so its range has whole ends", path=path))
    return Range(low, high, bool(how), whole)
