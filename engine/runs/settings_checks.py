"""Where what a run's settings ask for and what it will do differ: pure functions from facts to findings.

Asked by the plan and by the run's worker, which know the data, and by `train`, `add` and the form of the screen, which
know the settings and the model's files only: what needs more is left out there. A refused finding ends all of them in
the same words; the others are reported.
"""

from collections.abc import Collection, Iterator

from engine.base.messages import msg, msg_n
from engine.metrics.score import needs_labels
from engine.models.model_facts import ModelFacts, find_facts
from engine.runs.idle_settings import idle_settings
from engine.runs.lr_schedule import evaluations_of
from engine.runs.model_checks import check_positions, check_targets
from engine.runs.schedule_checks import check_schedule
from engine.runs.settings_findings import DataFacts, Finding, GpuFacts, refuse
from engine.settings.auto_values import require_resolved
from engine.settings.presets import preset_of
from engine.settings.resolve import Resolved
from engine.settings.schema import SETTINGS, RunConfig


def check(
    config: RunConfig,
    chosen: Collection[str],
    model: ModelFacts,
    data: DataFacts | None = None,
    gpus: GpuFacts | None = None,
) -> list[Finding]:
    """Everything there is to say, refusals first.

    `chosen`: the settings that a person chose, which are reported where they have no effect. With `data`, no setting of
    `config` is auto any more.
    """
    findings = [*check_targets(config, model), *idle_settings(config, chosen)]
    if gpus is not None:
        findings += _gpus(config, gpus)
    if data is not None:
        findings += check_positions(config, model, data)
        findings += check_schedule(require_resolved(config), chosen, data)
        findings += _measuring(config, chosen, data)
    return sorted(findings, key=lambda finding: not finding.refused)


def given_by_hand(resolved: Resolved) -> set[str]:
    """The settings that a person chose for this run: no default, nothing that came along with a preset, and of a whole
    file of settings those that differ from the default.
    """
    flat = resolved.config.flat()
    return {
        path
        for path, label in resolved.origin.items()
        if label not in ("default", "")
        and not preset_of(label)
        and (label.startswith("--") or flat[path] != SETTINGS[path].default)
    }


def by_hand(resolved: Resolved) -> list[Finding]:
    """What of the queue's settings does nothing in a run that is started at once, in the foreground."""
    of_queue = ("run.gpus", "run.priority", "run.retries", "run.share")
    idle = [path for path in of_queue if path in given_by_hand(resolved)]
    if not idle:
        return []
    hint = "CUDA_VISIBLE_DEVICES says which GPUs it sees." if "run.gpus" in idle else ""
    have = "has" if len(idle) == 1 else "have"
    what = msg(
        "{idle} {have} no effect: a run started by `finetop train` does not go through the queue",
        idle=", ".join(idle),
        have=have,
    )
    return [Finding("no-effect", idle[0], what, hint)]


def check_settings(config: RunConfig) -> None:
    """InputError for what no data is needed to refuse: names of modules, for which alone the model's files are read."""
    named = config.method.kind != "full" and not isinstance(config.lora.targets, str)
    refuse(check(config, (), find_facts(config.model) if named else ModelFacts()))


def _gpus(config: RunConfig, gpus: GpuFacts) -> Iterator[Finding]:
    if config.run.gpus and (missing := [name for name in config.run.gpus if name not in gpus.names]):
        names = ", ".join(sorted(gpus.names, key=lambda name: (len(name), name)))
        visible_gpus = msg("this machine has {names}", names=names) if gpus.count else "none can be seen here"
        yield Finding(
            "no-such-gpu",
            "run.gpus",
            msg(
                "run.gpus: there is no GPU {missing}; {visible_gpus}",
                missing=", ".join(missing),
                visible_gpus=visible_gpus,
            ),
            "In the queue the run would wait for it. `finetop top` lists the GPUs.",
        )
    count = config.run.gpus_wanted
    if config.run.gpu_count != "auto" and count > max(gpus.count, 1):
        seen = msg("{count} can be seen here", count=gpus.count) if gpus.count else "none can be seen here"
        yield Finding(
            "too-few-gpus",
            "run.gpu_count",
            msg("run.gpu_count asks for {count} GPUs; {seen}", count=count, seen=seen),
        )


def _measuring(config: RunConfig, chosen: Collection[str], data: DataFacts) -> Iterator[Finding]:
    metrics, patience = config.eval.metrics, config.train.early_stopping
    if needs_labels(metrics) and not data.labels:
        names = " and ".join(name for name in metrics if needs_labels([name]))
        yield Finding(
            "no-labels",
            "eval.metrics",
            msg(
                "eval.metrics: {names} need classification data: one short answer to each question, and the same "
                "answers "
                "again and again",
                names=names,
            ),
            "For other answers there are exact_match, contains, rouge_l and chrf.",
            True,
        )
    if not data.val:
        idle = [path for path in ("eval.metrics", "eval.every", "save.keep_best") if path in chosen]
        idle = [path for path in idle if path != "eval.metrics" or metrics]
        if patience:
            idle.append("train.early_stopping")
        if idle:
            what = "does nothing" if len(idle) == 1 else "do nothing"
            yield Finding(
                "no-validation",
                idle[0],
                msg("{idle} {what}: no example is held out for validation", idle=", ".join(idle), what=what),
                "Set data.val_fraction or give --val-file.",
            )
    elif patience:
        after_first = evaluations_of(config, data.steps_per_epoch, data.total_steps) - 1
        if patience > after_first:
            yield Finding(
                "early-stopping",
                "train.early_stopping",
                msg_n(
                    "train.early_stopping {patience} can never stop this run: it has {n:,} evaluation after the one "
                    "before the first step",
                    "train.early_stopping {patience} can never stop this run: it has {n:,} evaluations after the one "
                    "before the first step",
                    after_first,
                    patience=patience,
                ),
                "Evaluate more often (eval.every), or wait for fewer.",
            )
    if config.data.system and data.with_system == 0:
        yield Finding(
            "system",
            "data.system",
            "data.system is given to no example: every one has a system prompt of its own, or is no conversation",
        )
