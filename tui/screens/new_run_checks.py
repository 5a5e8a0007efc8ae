"""What a form's settings come to on this machine, found out by reading the files of data and model: never on the event
loop."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.models.local_models import LocalModel, local_models
from engine.models.model_facts import find_facts
from engine.monitor.samples import Snapshot
from engine.runs.run_folder import check_base_model, check_checkpoint, check_column_roles, check_data_files
from engine.runs.settings_checks import check as check_asked
from engine.runs.settings_checks import given_by_hand
from engine.runs.settings_findings import Finding
from engine.settings.eval_inputs import check_scoring_command, read_schema
from engine.settings.resolve import Resolved
from engine.settings.schema import EvalConfig, RunConfig

if TYPE_CHECKING:
    from engine.present.memory_view import MemoryView

_Config = TypeVar("_Config", RunConfig, EvalConfig)


@dataclass(frozen=True, slots=True)
class FormChecks:
    """What reading the files of data and model showed."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Problems with data and model, by setting."""
    memory: "MemoryView | str" = ""
    """What the first run would need, or why that is not known."""
    warnings: tuple[str, ...] = ()
    """Where the run will not be what was asked for, and advice that needs no data."""


def examine(
    runs: Sequence[Resolved],
    workspace: Workspace,
    machine: Snapshot | None,
    report: Mapping[str, Any],
    auto: Mapping[str, Any],
) -> FormChecks:
    """All of it. `report` is a token report, or empty; `auto`: what is known of the settings that are so."""
    files, first = check_files(runs), runs[0]
    memory = "" if "model.name" in files else memory_needs(first.config, workspace, machine, report)
    differing = [finding.message for finding in findings(first) if not finding.refused]
    return FormChecks(files, memory, (*differing, *settings_advice(first.config, auto)))


def check_files(runs: Sequence[Resolved]) -> dict[str, str]:
    """What is wrong with data and model on this machine, by setting. Reads folders: not for the event loop."""
    problems: dict[str, str] = {}
    for config in {(str(r.config.data), str(r.config.model), r.config.method.kind): r.config for r in runs}.values():
        for setting, check in _CHECKS.items():
            _run_check(problems, setting, check, config)
    for config in {str(r.config.eval): r.config for r in runs}.values():
        _run_check(problems, "eval.schema", read_schema, config.eval)
        _run_check(problems, "eval.command", check_scoring_command, config.eval)
    for finding in (finding for resolved in runs for finding in findings(resolved)):
        if finding.refused:
            problems.setdefault(finding.setting, f"{finding.message}. {finding.hint}")
    return problems


def findings(resolved: Resolved) -> list[Finding]:
    """What model and settings say of each other. Reads the model's files: not for the event loop."""
    return check_asked(resolved.config, given_by_hand(resolved), find_facts(resolved.config.model))


def _data_files(config: RunConfig) -> None:
    if not config.data.files:
        raise InputError("give a data file, a folder or a hub name; tab completes")
    check_data_files(config)


_CHECKS: dict[str, Callable[[RunConfig], None]] = {
    "data.files": _data_files,
    "data.map": check_column_roles,
    "model.name": check_base_model,
    "model.checkpoint": check_checkpoint,
}
"""By the setting that they find wrong."""


def _run_check(problems: dict[str, str], setting: str, check: Callable[[_Config], object], config: _Config) -> None:
    try:
        check(config)
    except EngineError as error:
        problems.setdefault(setting, f"{error.message}. {error.hint}" if error.hint else error.message)
    except OSError as error:
        problems.setdefault(setting, str(error))


def settings_advice(config: RunConfig, auto: Mapping[str, Any]) -> list[str]:
    """What the plan advises whatever the data is. `auto`: what is known of the settings that are so."""
    from engine.plan.advice import advise_settings

    def number(path: str, value: float | int | str) -> float | None:
        value = auto.get(path, value)
        return None if isinstance(value, str) else float(value)

    rate = number("optim.learning_rate", config.optim.learning_rate)
    epochs = None if config.train.max_steps else number("train.epochs", config.train.epochs)
    return [piece.message for piece in advise_settings(rate, epochs, config.method.kind, config.method.objective)]


def memory_needs(
    config: RunConfig, workspace: Workspace, machine: Snapshot | None, report: Mapping[str, Any]
) -> "MemoryView | str":
    """The plan's view of the memory, or why there is none; `report` is a token report, or empty."""
    from engine.monitor.host import HostReader  # with psutil and the plan 60 ms, which opening the screen need not pay
    from engine.plan.forecast import memory
    from engine.plan.hardware import hardware_of, past_runs
    from engine.present.memory_view import memory_view, unknown_memory

    try:
        # GPUs as they were read last; the host answers at once.
        now = machine and dataclasses.replace(machine, host=HostReader().read())
        hardware = hardware_of(now)
        needs = memory(config, hardware, past_runs(workspace), dict(report.get("facts") or {}))
    except (EngineError, OSError, ValueError) as error:
        return msg("memory not known: {error}", error=error)
    return unknown_memory(config.model.name) if needs is None else memory_view(hardware, needs)


def models_here(workspace: Workspace, used: Sequence[str]) -> list[LocalModel]:
    """The models that may be named without a download."""
    return local_models([Path.cwd(), workspace.root, workspace.root.parent], used)
