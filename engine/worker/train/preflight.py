"""At a run's start: impossible settings are refused, and what will differ from the settings is journaled."""

import math

from torch import nn

from engine.base.errors import NotFinite
from engine.base.messages import msg
from engine.models.model_facts import find_facts
from engine.runs.failure_reasons import BROKEN_MODEL
from engine.runs.journal import Journal
from engine.runs.lr_schedule import jump
from engine.runs.settings_checks import check, given_by_hand
from engine.runs.settings_findings import DataFacts, Finding, refuse
from engine.settings.auto_values import ResolvedConfig, require_resolved
from engine.settings.resolve import Resolved, from_groups
from engine.settings.schema import RunConfig
from engine.worker.data.data_stats import beyond_positions
from engine.worker.data.tokenize import Prepared
from engine.worker.runtime.checkpoint import Checkpoint
from engine.worker.runtime.train_state import Schedule


def check_run(
    journal: Journal,
    settings: Resolved,
    config: ResolvedConfig,
    dataset: Prepared,
    schedule: Schedule,
    resumed: Checkpoint | None,
) -> None:
    """Raises InputError. `settings` as they were given, `resumed`: what the run goes on from."""
    model = find_facts(config.model)
    facts = DataFacts(
        train=len(dataset.train),
        val=len(dataset.val),
        longest=max(int(dataset.train.lengths.max()), int(dataset.val.lengths.max(initial=0))),
        steps_per_epoch=schedule.steps_per_epoch,
        total_steps=schedule.total_steps,
        labels=len(dataset.labels),
        beyond=beyond_positions(dataset, config),
        with_system=dataset.with_system,
    )
    findings = check(config, given_by_hand(settings), model, facts)
    refuse(findings)
    if resumed is None:
        _journal_findings(journal, findings)
        return
    previous_config = require_resolved(from_groups(resumed.manifest["config"], "checkpoint"))
    if leap := jump(previous_config, config, len(dataset.train), resumed.step):
        journal.write("event", event="schedule-changed", step=resumed.step, message=leap)


def _journal_findings(journal: Journal, findings: list[Finding]) -> None:
    for finding in findings:
        journal.write(
            "event",
            event="not-as-asked",
            code=finding.code,
            setting=finding.setting,
            message=msg("{finding}.", finding=finding.message),
        )


def refuse_broken_model(model: nn.Module, config: RunConfig, loss: float) -> None:
    """NotFinite where the loss before the first step is no number: no training setting fixes that."""
    if math.isfinite(loss):
        return
    name = config.model.checkpoint or config.model.name
    broken = [
        name.removeprefix("base_model.model.").replace(".base_layer.", ".")  # as in the model's files, without peft's
        for name, weights in model.named_parameters()
        if not bool(weights.isfinite().all())
    ]
    number = "NaN" if math.isnan(loss) else "infinite"
    if broken:
        reason = msg(
            "NaN or infinite values are in {tensors:,} of its tensors, the first is {name}",
            tensors=len(broken),
            name=broken[0],
        )
        hint = "Copy the model again, or look at how it was made."
    else:
        reason = "its weights are all numbers, but what is computed with them is not"
        hint = "Its numbers may be too large for 16 bits: try --set model.dtype=float32."
    raise NotFinite(
        BROKEN_MODEL(number=number, model=name, reason=reason),
        hint,
    )
