"""Settings that do nothing, or something else, in a run of so many steps."""

import math
from collections.abc import Collection, Iterator

from engine.base.messages import msg
from engine.base.units import plain_number
from engine.runs.lr_schedule import learning_rate, warmup_steps
from engine.runs.settings_findings import DataFacts, Finding
from engine.settings.auto_values import ResolvedConfig


def check_schedule(config: ResolvedConfig, chosen: Collection[str], data: DataFacts) -> Iterator[Finding]:
    """Batch, epochs, warm-up, evaluations and saves beside the steps there are."""
    yield from _length(config, chosen, data)
    yield from _rate(config, chosen, data)
    total, train = data.total_steps, config.train
    if train.batch_size > data.train:
        yield Finding(
            "batch",
            "train.batch_size",
            msg(
                "train.batch_size {batch_size:,} is more than the {train:,} examples there are: each epoch is "
                "one step of all of them, {total:,} in all",
                batch_size=train.batch_size,
                train=data.train,
                total=total,
            ),
        )
    every = config.eval.every
    if data.val and every != "epoch" and every > total:
        yield Finding(
            "eval-every",
            "eval.every",
            msg(
                "eval.every {every:,} is more than the {total:,} steps of the run: it is evaluated before the first "
                "step "
                "and after the last, never between",
                every=every,
                total=total,
            ),
        )
    if config.save.every > total:
        yield Finding(
            "save-every",
            "save.every",
            msg(
                "save.every {every:,} is more than the {total:,} steps of the run: there are checkpoints at "
                "the end of each epoch and of the run only",
                every=config.save.every,
                total=total,
            ),
        )
    if "save.keep_last" in chosen and not config.save.every and config.save.keep_last:
        yield Finding(
            "keep-last",
            "save.keep_last",
            "save.keep_last counts checkpoints between epochs, and save.every is 0: there are hardly any",
            "save.keep_epochs limits those of the epochs.",
        )
    if train.early_stopping and not config.save.keep_best:
        yield Finding(
            "keep-best",
            "save.keep_best",
            "train.early_stopping stops some evaluations after the best, and save.keep_best is false: the weights that "
            "were best are deleted",
            "Set save.keep_best to true.",
        )


def _length(config: ResolvedConfig, chosen: Collection[str], data: DataFacts) -> Iterator[Finding]:
    most = config.train.max_steps
    whole = data.steps_per_epoch * config.train.epochs
    if not most or most == whole:
        return
    if most > whole:
        yield Finding(
            "max-steps",
            "train.max_steps",
            msg(
                "train.max_steps {most:,} is never reached: {epochs} of {steps_per_epoch:,} steps are {whole:,}",
                most=most,
                epochs=_epochs(config.train.epochs),
                steps_per_epoch=data.steps_per_epoch,
                whole=whole,
            ),
            msg("--epochs {most} gets there.", most=math.ceil(most / data.steps_per_epoch)),
        )
    elif "train.epochs" in chosen:
        yield Finding(
            "epochs",
            "train.epochs",
            msg(
                "train.max_steps {most:,} ends the run in epoch {ceil} of "
                "{epochs}: the epochs would be {whole:,} steps",
                most=most,
                ceil=math.ceil(most / data.steps_per_epoch),
                epochs=config.train.epochs,
                whole=whole,
            ),
        )


def _rate(config: ResolvedConfig, chosen: Collection[str], data: DataFacts) -> Iterator[Finding]:
    total, optim = data.total_steps, config.optim
    warmup = warmup_steps(optim, total)
    if warmup > total:
        top = learning_rate(total, total, optim)
        yield Finding(
            "warmup",
            "optim.warmup",
            msg(
                "optim.warmup: a warm-up of {warmup:g} steps is longer than the run of {total:,}: the rate gets to "
                "{top} at most, never to {learning_rate}",
                warmup=warmup,
                total=total,
                top=plain_number(float(f"{top:.3g}")),
                learning_rate=plain_number(optim.learning_rate),
            ),
            "Below 1 it is a share of the steps: --set optim.warmup=0.03",
        )
    elif warmup == total > 1:
        yield Finding(
            "warmup",
            "optim.warmup",
            msg(
                "optim.warmup: the warm-up takes all {total:,} steps of the run: the rate rises to the last one and "
                "the "
                "{schedule} schedule never begins",
                total=total,
                schedule=optim.schedule,
            ),
        )
    elif warmup > total / 2 and total > 2:
        yield Finding(
            "warmup",
            "optim.warmup",
            msg("optim.warmup: {warmup:g} of the run's {total:,} steps are warm-up", warmup=warmup, total=total),
        )
    if optim.schedule != "constant" and total == 1 and warmup <= 1 and ("optim.schedule" in chosen):
        yield Finding(
            "schedule",
            "optim.schedule",
            msg(
                "optim.schedule {schedule} needs more than one step: the only one has the full rate, {learning_rate}",
                schedule=optim.schedule,
                learning_rate=plain_number(optim.learning_rate),
            ),
        )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count:,} epochs"
