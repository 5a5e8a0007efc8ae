"""How long a run is, and its learning rate as a pure function of the step."""

import math

from engine.base.messages import msg
from engine.base.units import plain_number
from engine.settings.auto_values import ResolvedConfig, ResolvedOptim
from engine.settings.schema import OptimConfig, RunConfig


def steps(config: ResolvedConfig, examples: int) -> tuple[int, int]:
    """Optimizer steps of an epoch, and of the run, with so many training examples."""
    of_epoch = math.ceil(examples / config.train.batch_size)
    total = of_epoch * config.train.epochs
    return of_epoch, min(total, config.train.max_steps) if config.train.max_steps else total


def warmup_steps(optim: OptimConfig, total_steps: int) -> float:
    return optim.warmup if optim.warmup >= 1 else math.ceil(optim.warmup * total_steps)


def learning_rate(step: int, total_steps: int, optim: ResolvedOptim) -> float:
    """The rate of optimizer step `step`, counted from 1, in a run of `total_steps`."""
    warmup = warmup_steps(optim, total_steps)
    if step <= warmup:
        return optim.learning_rate * step / warmup
    progress = (step - 1 - warmup) / max(1, total_steps - warmup)
    if optim.schedule == "cosine":
        return optim.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    if optim.schedule == "linear":
        return optim.learning_rate * (1 - progress)
    return optim.learning_rate


def jump(old_config: ResolvedConfig, new_config: ResolvedConfig, examples: int, step: int) -> str:
    """What a course of another length does to the rate of a run that goes on after `step`; empty where it is the same.

    The schedule is stretched or squeezed over all steps from the first, so the rate leaps
    to where the new course would be by now.
    """
    (_, old), (_, new) = steps(old_config, examples), steps(new_config, examples)
    if old == new or not 0 < step < new:
        return ""
    was, now = learning_rate(step, old, old_config.optim), learning_rate(step + 1, new, new_config.optim)
    due = learning_rate(step + 1, old, old_config.optim) if step < old else learning_rate(step, old, old_config.optim)
    if math.isclose(now, due, rel_tol=1e-9):
        return ""
    return msg(
        "The run is {new:,} steps long now, it was {old:,}: the {schedule} schedule is that of the whole "
        "new course, so the rate goes from {was} at step {step:,} to {now} at step {next_step:,}.",
        new=new,
        old=old,
        schedule=new_config.optim.schedule,
        was=plain_number(float(f"{was:.3g}")),
        step=step,
        now=plain_number(float(f"{now:.3g}")),
        next_step=step + 1,
    )


def evaluations_of(config: RunConfig, steps_per_epoch: int, total_steps: int) -> int:
    """One before the first step, then as set; the last step always has one."""
    every = steps_per_epoch if config.eval.every == "epoch" else config.eval.every
    return 1 + -(-total_steps // max(1, every))
