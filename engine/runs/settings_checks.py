"""Where what a run's settings ask for and what it will do differ: pure functions from facts to findings.

Asked by the plan and by the run's worker, which know the data, and by `train`, `add` and the form of the screen, which
know the settings and the model's files only: what needs more is left out there. A refused finding ends all of them in
the same words; the others are told.
"""

import difflib
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from engine.base.errors import InputError
from engine.metrics.score import needs_labels, needs_text
from engine.models.model_facts import ModelFacts, find_facts, in_some_layers, short_names, without_match
from engine.models.model_name import is_path
from engine.runs.lr_schedule import evaluations_of, learning_rate, warmup_steps
from engine.settings.resolve import Resolved
from engine.settings.schema import SETTINGS, RunConfig


@dataclass(frozen=True)
class Finding:
    code: str
    """For programs: 'targets', 'warmup', 'no-effect', ..."""
    setting: str
    """The setting it is about, by its path."""
    message: str
    hint: str = ""
    """The next step to take."""
    refused: bool = False
    """The run cannot be what was asked for, so it is not begun."""


@dataclass(frozen=True)
class DataFacts:
    """What is known once the data has been read."""

    train: int
    """Examples to train on."""
    val: int
    longest: int
    """Tokens of the longest example of either."""
    steps_per_epoch: int
    total_steps: int
    labels: int = 0
    """Labels of classification data, else 0."""
    beyond: int = 0
    """Examples longer than the model has positions."""
    with_system: int | None = None
    """Examples that data.system became the system prompt of; None: it is not set."""


@dataclass(frozen=True)
class GpuFacts:
    """The GPUs that can be seen here."""

    names: Collection[str]
    """All by which each may be called: indices and UUIDs."""
    count: int


def check(
    config: RunConfig,
    given: Collection[str],
    model: ModelFacts,
    data: DataFacts | None = None,
    gpus: GpuFacts | None = None,
) -> list[Finding]:
    """Everything there is to say, refusals first.

    `given`: the settings somebody chose, which are told of where they have no effect. With `data`, no setting of
    `config` is auto any more.
    """
    found = [*_targets(config, model), *_idle(config, given)]
    if gpus is not None:
        found += _gpus(config, gpus)
    if data is not None:
        found += [*_positions(config, model, data), *_course(config, given, data), *_measuring(config, given, data)]
    return sorted(found, key=lambda one: not one.refused)


def given_by_hand(resolved: Resolved) -> set[str]:
    """The settings that a person chose for this run: no default, nothing that came along with a preset, and of a whole
    file of settings those that differ from the default.
    """
    flat = resolved.config.flat()
    return {
        path
        for path, label in resolved.origin.items()
        if label not in ("default", "")
        and not label.startswith("preset ")
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
    what = f"{', '.join(idle)} {have} no effect: a run started by `finetop train` does not go through the queue"
    return [Finding("no-effect", idle[0], what, hint)]


def refuse(findings: list[Finding]) -> None:
    """InputError for the refused among them."""
    refused = [one for one in findings if one.refused]
    if refused:
        raise InputError("\n".join(one.message for one in refused), " ".join(one.hint for one in refused if one.hint))


def check_settings(config: RunConfig) -> None:
    """InputError for what no data is needed to refuse: names of modules, for which alone the model's files are read."""
    named = config.method.kind != "full" and not isinstance(config.lora.targets, str)
    refuse(check(config, (), find_facts(config.model) if named else ModelFacts()))


def data_facts(report: dict[str, Any]) -> DataFacts:
    """From the data report of a worker."""
    data, plan = report["data"], report["plan"]
    return DataFacts(
        train=data["train"]["examples"],
        val=data["val"]["examples"],
        longest=max(data["train"]["longest"], data["val"]["longest"]),
        steps_per_epoch=plan["steps_per_epoch"],
        total_steps=plan["total_steps"],
        labels=data["labels"],
        beyond=report["facts"].get("beyond", 0),
        with_system=report["facts"].get("with_system"),
    )


def to_json(findings: list[Finding]) -> list[dict[str, Any]]:
    return [asdict(one) for one in findings]


# -- the model -------------------------------------------------------------------------------------------------------


def _targets(config: RunConfig, model: ModelFacts) -> Iterator[Finding]:
    targets = config.lora.targets
    if config.method.kind == "full" or isinstance(targets, str):
        return
    if not targets:
        yield Finding("targets", "lora.targets", "lora.targets names nothing to train", _ALL_LINEAR, True)
        return
    if not model.modules:
        return
    there = short_names(model.modules)
    if wrong := without_match(targets, model.modules):
        near = [name for one in wrong for name in difflib.get_close_matches(one.strip("[]' \""), there, 1, 0.7)]
        matches = "match nothing" if len(wrong) > 1 else "matches nothing"
        hint = f"Did you mean {' and '.join(dict.fromkeys(near))}? " if near else ""
        yield Finding(
            "targets",
            "lora.targets",
            f"lora.targets: {', '.join(wrong)} {matches}; this model has {', '.join(there)}",
            f"{hint}Names are written q_proj,v_proj, without brackets or patterns. {_ALL_LINEAR}",
            True,
        )
        return
    for name, (some, all_of_them) in in_some_layers(targets, model.modules).items():
        yield Finding(
            "targets-in-some-layers",
            "lora.targets",
            f"lora.targets: {name} is in {some} of the model's {all_of_them} layers only",
        )
    shared = [one for one in targets if one.rsplit(".", 1)[-1] in ("lm_head", "embed_tokens", "wte")]
    if shared and model.tied:
        other = "the embedding" if shared[0].endswith("lm_head") else "the head"
        yield Finding(
            "not-mergeable",
            "lora.targets",
            f"lora.targets: {', '.join(shared)} and {other} are one matrix here: the adapter cannot be merged later",
            "`finetop export --to adapter` still works; leave it out to export --to merged or gguf.",
        )


_ALL_LINEAR = "all-linear takes every matrix of the layers."


def _positions(config: RunConfig, model: ModelFacts, data: DataFacts) -> Iterator[Finding]:
    limit = model.positions
    if limit is None or data.longest <= limit:
        return
    if model.table:
        yield position_refusal(data.longest, limit, data.beyond)
        return
    many = f"{data.beyond:,} examples are" if data.beyond != 1 else "1 example is"
    yield Finding(
        "beyond-positions",
        "data.max_length",
        f"{many} longer than the {limit:,} tokens this model was made for, {data.longest:,} at most: it was never "
        "trained to read so far",
        f"--max-length {limit} keeps within it.",
    )


def position_refusal(longest: int, limit: int, beyond: int = 0) -> Finding:
    """For a model whose positions are a table: a longer example has nothing to be looked up."""
    others = f" ({beyond:,} examples are longer than that)" if beyond > 1 else ""
    return Finding(
        "beyond-positions",
        "data.max_length",
        f"the longest example has {longest:,} tokens, and this model has a table of {limit:,} positions{others}",
        f"--max-length {limit} cuts them to fit; with --set data.overlong=skip they are left out.",
        True,
    )


def _gpus(config: RunConfig, gpus: GpuFacts) -> Iterator[Finding]:
    if config.run.gpus and (missing := [name for name in config.run.gpus if name not in gpus.names]):
        names = ", ".join(sorted(gpus.names, key=lambda name: (len(name), name)))
        there = f"this machine has {names}" if gpus.count else "none can be seen here"
        yield Finding(
            "no-such-gpu",
            "run.gpus",
            f"run.gpus: there is no GPU {', '.join(missing)}; {there}",
            "In the queue the run would wait for it. `finetop top` lists the GPUs.",
        )
    wanted = config.run.gpus_wanted
    if config.run.gpu_count != "auto" and wanted > max(gpus.count, 1):
        seen = f"{gpus.count} can be seen here" if gpus.count else "none can be seen here"
        yield Finding("too-few-gpus", "run.gpu_count", f"run.gpu_count asks for {wanted} GPUs; {seen}")


# -- the course ------------------------------------------------------------------------------------------------------


def _course(config: RunConfig, given: Collection[str], data: DataFacts) -> Iterator[Finding]:
    yield from _length(config, given, data)
    yield from _rate(config, given, data)
    total, train = data.total_steps, config.train
    if train.batch_size > data.train:
        yield Finding(
            "batch",
            "train.batch_size",
            f"train.batch_size {train.batch_size:,} is more than the {data.train:,} examples there are: each epoch is "
            f"one step of all of them, {total:,} in all",
        )
    every = config.eval.every
    if data.val and every != "epoch" and every > total:
        yield Finding(
            "eval-every",
            "eval.every",
            f"eval.every {every:,} is more than the {total:,} steps of the run: it is evaluated before the first step "
            "and after the last, never between",
        )
    if config.save.every > total:
        yield Finding(
            "save-every",
            "save.every",
            f"save.every {config.save.every:,} is more than the {total:,} steps of the run: there are checkpoints at "
            "the end of each epoch and of the run only",
        )
    if "save.keep_last" in given and not config.save.every and config.save.keep_last:
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


def _length(config: RunConfig, given: Collection[str], data: DataFacts) -> Iterator[Finding]:
    most = config.train.max_steps
    whole = data.steps_per_epoch * config.train.epochs
    if not most or most == whole:
        return
    if most > whole:
        yield Finding(
            "max-steps",
            "train.max_steps",
            f"train.max_steps {most:,} is never reached: {_epochs(config.train.epochs)} of {data.steps_per_epoch:,} "
            f"steps are {whole:,}",
            f"--epochs {math.ceil(most / data.steps_per_epoch)} gets there.",
        )
    elif "train.epochs" in given:
        yield Finding(
            "epochs",
            "train.epochs",
            f"train.max_steps {most:,} ends the run in epoch {math.ceil(most / data.steps_per_epoch)} of "
            f"{config.train.epochs}: the epochs would be {whole:,} steps",
        )


def _rate(config: RunConfig, given: Collection[str], data: DataFacts) -> Iterator[Finding]:
    total, optim = data.total_steps, config.optim
    warmup = warmup_steps(optim, total)
    if warmup > total:
        top = learning_rate(total, total, optim)
        yield Finding(
            "warmup",
            "optim.warmup",
            f"optim.warmup: a warm-up of {warmup:g} steps is longer than the run of {total:,}: the rate gets to "
            f"{top:.3g} at most, never to {optim.learning_rate:g}",
            "Below 1 it is a share of the steps: --set optim.warmup=0.03",
        )
    elif warmup == total > 1:
        yield Finding(
            "warmup",
            "optim.warmup",
            f"optim.warmup: the warm-up takes all {total:,} steps of the run: the rate rises to the last one and the "
            f"{optim.schedule} schedule never begins",
        )
    elif warmup > total / 2 and total > 2:
        yield Finding("warmup", "optim.warmup", f"optim.warmup: {warmup:g} of the run's {total:,} steps are warm-up")
    if optim.schedule != "constant" and total == 1 and warmup <= 1 and ("optim.schedule" in given):
        yield Finding(
            "schedule",
            "optim.schedule",
            f"optim.schedule {optim.schedule} needs more than one step: the only one has the full rate, "
            f"{optim.learning_rate:g}",
        )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count:,} epochs"


# -- what is measured ------------------------------------------------------------------------------------------------


def _measuring(config: RunConfig, given: Collection[str], data: DataFacts) -> Iterator[Finding]:
    metrics, patience = config.eval.metrics, config.train.early_stopping
    if needs_labels(metrics) and not data.labels:
        names = " and ".join(name for name in metrics if needs_labels([name]))
        yield Finding(
            "no-labels",
            "eval.metrics",
            f"eval.metrics: {names} need classification data: one short answer to each question, and the same answers "
            "again and again",
            "For other answers there are exact_match, contains, rouge_l and chrf.",
            True,
        )
    if not data.val:
        wanted = [path for path in ("eval.metrics", "eval.every", "save.keep_best") if path in given]
        wanted = [path for path in wanted if path != "eval.metrics" or metrics]
        if patience:
            wanted.append("train.early_stopping")
        if wanted:
            what = "does nothing" if len(wanted) == 1 else "do nothing"
            yield Finding(
                "no-validation",
                wanted[0],
                f"{', '.join(wanted)} {what}: no example is held out for validation",
                "Set data.val_fraction or give --val-file.",
            )
    elif patience:
        after_first = evaluations_of(config, data.steps_per_epoch, data.total_steps) - 1
        if patience > after_first:
            yield Finding(
                "early-stopping",
                "train.early_stopping",
                f"train.early_stopping {patience} can never stop this run: it has {after_first} "
                f"evaluation{'s' * (after_first != 1)} after the one before the first step",
                "Evaluate more often (eval.every), or wait for fewer.",
            )
    if config.data.system and data.with_system == 0:
        yield Finding(
            "system",
            "data.system",
            "data.system is given to no example: every one has a system prompt of its own, or is no conversation",
        )


# -- settings without effect -----------------------------------------------------------------------------------------


def _idle(config: RunConfig, given: Collection[str]) -> Iterator[Finding]:
    """Settings that somebody chose and that do nothing beside the others."""
    for covers, when, why in _IDLE:
        if (idle := [path for path in sorted(given) if covers(path)]) and when(config):
            yield Finding(
                "no-effect", idle[0], f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect: {why}"
            )


def _one(*paths: str) -> Callable[[str], bool]:
    return lambda path: path in paths


def _pretrains(config: RunConfig) -> bool:
    return config.method.objective == "pretrain"


def _writes(config: RunConfig) -> bool:
    metrics = config.eval.metrics
    return bool(
        config.eval.prompts or needs_text(metrics) or (needs_labels(metrics) and config.eval.classify == "generate")
    )


_IDLE: tuple[tuple[Callable[[str], bool], Callable[[RunConfig], bool], str], ...] = (
    (lambda path: path.startswith("lora."), lambda c: c.method.kind == "full", "method full has no adapter"),
    (_one("data.val_fraction"), lambda c: bool(c.data.val_files), "data.val_files holds the validation data"),
    (_one("eval.classify"), lambda c: not needs_labels(c.eval.metrics), "it is for eval.metrics accuracy and macro_f1"),
    (_one("eval.schema"), lambda c: "json_schema" not in c.eval.metrics, "eval.metrics does not name json_schema"),
    (
        _one("eval.max_new_tokens"),
        lambda c: not _writes(c),
        "neither eval.metrics nor eval.prompts has answers written",
    ),
    (_one("eval.max_examples", "eval.normalisation"), lambda c: not c.eval.metrics, "eval.metrics names no score"),
    (_one("data.train_on"), _pretrains, "objective pretrain trains on every token"),
    (_one("data.system"), _pretrains, "plain text has no system prompt"),
    (_one("data.overlong"), _pretrains, "objective pretrain makes several examples of a long text"),
    (_one("model.revision"), lambda c: c.model.name == "starter" or is_path(c.model.name), "the model is a folder"),
)
"""Which settings, when, and why."""
