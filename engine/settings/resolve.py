"""From layers of values to one checked RunConfig, and where each value came from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import ConfigError
from engine.base.messages import Message, MessageTemplate, msg
from engine.base.workspace import META_KEY
from engine.metrics import best_evaluation
from engine.metrics.names import MAIN_SCORES
from engine.settings.aliases import nearest_setting
from engine.settings.coerce import as_text, check_bounds, check_text, coerce, quoted_name
from engine.settings.config_file import by_path, read_groups
from engine.settings.schema import SETTINGS, RunConfig

IN_LAYER = MessageTemplate("{label}: {problem}")
"""What is wrong in one layer, as `ConfigError.problems` has it. What is wrong between layers stands there alone."""
WRONG_VALUE = MessageTemplate("{path} is {setting}, but {reason}")


@dataclass(frozen=True)
class Resolved:
    """A checked config and, for each setting's path, the layer its value came from."""

    config: RunConfig
    origin: dict[str, str]


@dataclass(frozen=True)
class Layer:
    """Settings from one place; `label` is how the plan names it, such as 'preset quick' or '--epochs'."""

    label: str
    values: Mapping[str, Any]


def resolve(layers: Iterable[Layer]) -> Resolved:
    """Merge layers, weakest first, over the defaults. Raises ConfigError with every problem found."""
    problems: list[str] = []
    chosen: dict[str, Any] = {}
    origin = dict.fromkeys(SETTINGS, "default")
    for layer in layers:
        for path, value in layer.values.items():
            setting = SETTINGS.get(path)
            if setting is None:
                unknown = msg(
                    "there is no setting {path}{nearest_setting}",
                    path=quoted_name(path),
                    nearest_setting=nearest_setting(path[:200]),
                )
                problems.append(IN_LAYER(label=layer.label, problem=unknown))
                continue
            try:
                chosen[path] = coerce(value, setting.type)
                check_bounds(chosen[path], setting)
                check_text(chosen[path], path)
                origin[path] = layer.label
            except ValueError as error:
                hint = "; a program of your own is given as eval.command" if path == "eval.metrics" else ""
                wrong = WRONG_VALUE(
                    path=path, setting=as_text(value), reason=msg("{error}{hint}", error=error, hint=hint)
                )
                problems.append(IN_LAYER(label=layer.label, problem=wrong))
                chosen.pop(path, None)
    config = RunConfig().replace(chosen)
    problems.extend(_cross_checks(config))
    if problems:
        raise ConfigError(problems, "`finetop plan` shows every setting, its value and where it came from.")
    return Resolved(config, origin)


def without_layer(problem: str) -> str:
    """A line of `ConfigError.problems` without the layer's name, for where it is plain."""
    in_layer = IN_LAYER.values_in(problem) if isinstance(problem, Message) else None
    return in_layer["problem"] if in_layer else problem


def from_groups(groups: Mapping[str, Mapping[str, Any]], label: str) -> RunConfig:
    """The checked config of settings that lie in their groups, as a checkpoint's manifest has them."""
    flat = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    return resolve([Layer(label, flat)]).config


def read_run(folder: Path) -> Resolved:
    """The settings of an existing run, and where each came from when it was made."""
    path = folder / "config.json"
    content = read_groups(path)
    resolved = resolve([Layer(str(path), by_path(content, path))])
    meta = content.get(META_KEY)
    origin = meta.get("origin") if isinstance(meta, dict) else None
    return inherit_origins(resolved, str(path), origin) if isinstance(origin, dict) else resolved


def overlay(base: Resolved, layers: Iterable[Layer], label: str) -> Resolved:
    """Settings with other layers over them; what the layers leave alone keeps its origin. `label` is how a message
    calls the settings below. Raises ConfigError."""
    return inherit_origins(resolve([Layer(label, base.config.flat()), *layers]), label, base.origin)


def inherit_origins(resolved: Resolved, label: str, origins: Mapping[str, str]) -> Resolved:
    """The values that came from the layer `label` have the origin that they had there."""
    inherited = {path: origins.get(path, layer) if layer == label else layer for path, layer in resolved.origin.items()}
    return Resolved(resolved.config, inherited)


def _cross_checks(config: RunConfig) -> list[str]:
    problems = []
    if config.optim.warmup >= 1 and 0 < config.train.max_steps <= config.optim.warmup:
        problems.append(
            msg(
                "optim.warmup ({warmup:g} steps) is not less than train.max_steps ({max_steps})",
                warmup=config.optim.warmup,
                max_steps=config.train.max_steps,
            )
        )
    betas = config.optim.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        problems.append(
            msg(
                "optim.betas is {betas}, but AdamW takes two numbers from 0 up to, not including, 1",
                betas=as_text(betas),
            )
        )
    if config.train.early_stopping and not config.data.val_files and config.data.val_fraction == 0:
        problems.append("train.early_stopping needs validation data: set data.val_fraction or give --val-file")
    if config.lora.alpha <= 0 and config.method.kind != "full":
        problems.append(
            msg("lora.alpha is {alpha:g}, but an adapter scaled by it would never do anything", alpha=config.lora.alpha)
        )
    if config.method.objective == "pretrain" and config.eval.metrics:
        problems.append(
            msg(
                "eval.metrics ({metrics}) needs answers: not for objective pretrain",
                metrics=", ".join(config.eval.metrics),
            )
        )
    if "json_schema" in config.eval.metrics and not config.eval.schema:
        problems.append("eval.metrics json_schema needs a schema: set eval.schema to a JSON Schema file")
    if config.method.objective == "pretrain" and config.eval.command:
        problems.append("eval.command needs answers: not for objective pretrain")
    problems += _check_best(config)
    if config.method.kind == "qlora" and config.model.dtype == "float32" and config.optim.name == "paged_adamw8bit":
        problems.append("optim.name paged_adamw8bit needs a GPU and bfloat16: set model.dtype to auto")
    return problems


def _check_best(config: RunConfig) -> list[str]:
    """What eval.best names must be measured. What a command gives is known at the first evaluation only."""
    chosen, measured = config.eval.best, ("loss", "perplexity", *config.eval.metrics)
    try:
        criterion = best_evaluation.parse(chosen)
    except ValueError as error:
        return [msg("eval.best is {chosen}, but {error}", chosen=as_text(chosen), error=error)]
    name = criterion.name.partition("@")[0]
    if name not in measured and not config.eval.command:
        return [msg("eval.best is {chosen}, but {name} is not measured: there are {measured}; more by "
                "eval.metrics, or by a program of yours, eval.command", 
                chosen=as_text(chosen), name=name, measured=', '.join(measured))]  # fmt: skip
    if name not in measured and name in MAIN_SCORES:
        return [msg("eval.best is {chosen}, but {name} is not among eval.metrics", chosen=as_text(chosen), name=name)]
    if criterion != best_evaluation.LOSS and not config.data.val_files and config.data.val_fraction == 0:
        return [
            msg(
                "eval.best is {chosen}, which needs validation data: set data.val_fraction or give --val-file",
                chosen=as_text(chosen),
            )
        ]
    return []
