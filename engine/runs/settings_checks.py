"""Where what a run's settings ask for and what it will do differ: pure functions from facts to findings.

Asked by the plan and by the run's worker, which know the data, and by `train`, `add` and the form of the screen, which
know the settings and the model's files only: what needs more is left out there. A refused finding ends all of them in
the same words; the others are reported.
"""

import difflib
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg, msg_n
from engine.base.units import plain_number
from engine.metrics.score import needs_labels, needs_text
from engine.models.model_facts import ModelFacts, find_facts, in_some_layers, short_names, without_match
from engine.models.model_name import is_path
from engine.runs.lr_schedule import evaluations_of, learning_rate, warmup_steps
from engine.settings.auto_values import ResolvedConfig, require_resolved
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
    chosen: Collection[str],
    model: ModelFacts,
    data: DataFacts | None = None,
    gpus: GpuFacts | None = None,
) -> list[Finding]:
    """Everything there is to say, refusals first.

    `chosen`: the settings that a person chose, which are reported where they have no effect. With `data`, no setting of
    `config` is auto any more.
    """
    findings = [*_targets(config, model), *_idle(config, chosen)]
    if gpus is not None:
        findings += _gpus(config, gpus)
    if data is not None:
        findings += _positions(config, model, data)
        findings += _course(require_resolved(config), chosen, data)
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
    what = msg(
        "{idle} {have} no effect: a run started by `finetop train` does not go through the queue",
        idle=", ".join(idle),
        have=have,
    )
    return [Finding("no-effect", idle[0], what, hint)]


def refuse(findings: list[Finding]) -> None:
    """InputError for the refused among them."""
    refused = [finding for finding in findings if finding.refused]
    if refused:
        hints = [finding.hint for finding in refused if finding.hint]
        raise InputError("\n".join(finding.message for finding in refused), " ".join(hints))


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
    return [asdict(finding) for finding in findings]


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
        near = [name for target in wrong for name in difflib.get_close_matches(target.strip("[]' \""), there, 1, 0.7)]
        matches = "match nothing" if len(wrong) > 1 else "matches nothing"
        hint = msg("Did you mean {near}? ", near=" and ".join(dict.fromkeys(near))) if near else ""
        yield Finding(
            "targets",
            "lora.targets",
            msg(
                "lora.targets: {wrong} {matches}; this model has {modules}",
                wrong=", ".join(wrong),
                matches=matches,
                modules=", ".join(there),
            ),
            msg(
                "{hint}Names are written q_proj,v_proj, without brackets or patterns. {all_linear}",
                hint=hint,
                all_linear=_ALL_LINEAR,
            ),
            True,
        )
        return
    for name, (some, all_of_them) in in_some_layers(targets, model.modules).items():
        yield Finding(
            "targets-in-some-layers",
            "lora.targets",
            msg(
                "lora.targets: {name} is in {some} of the model's {all_of_them} layers only",
                name=name,
                some=some,
                all_of_them=all_of_them,
            ),
        )
    shared = [target for target in targets if target.rsplit(".", 1)[-1] in ("lm_head", "embed_tokens", "wte")]
    if shared and model.tied:
        other = "the embedding" if shared[0].endswith("lm_head") else "the head"
        yield Finding(
            "not-mergeable",
            "lora.targets",
            msg(
                "lora.targets: {shared} and {other} are one matrix here: the adapter cannot be merged later",
                shared=", ".join(shared),
                other=other,
            ),
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
    many = msg("{beyond:,} examples are", beyond=data.beyond) if data.beyond != 1 else "1 example is"
    yield Finding(
        "beyond-positions",
        "data.max_length",
        msg(
            "{many} longer than the {limit:,} tokens this model was made for, {longest:,} at most: it was never "
            "trained to read so far",
            many=many,
            limit=limit,
            longest=data.longest,
        ),
        msg("--max-length {limit} keeps within it.", limit=limit),
    )


def position_refusal(longest: int, limit: int, beyond: int = 0) -> Finding:
    """For a model whose positions are a table: a longer example has nothing to be looked up."""
    and_more = msg(" ({beyond:,} examples are longer than that)", beyond=beyond) if beyond > 1 else ""
    return Finding(
        "beyond-positions",
        "data.max_length",
        msg(
            "the longest example has {longest:,} tokens, and this model has a table of {limit:,} positions{and_more}",
            longest=longest,
            limit=limit,
            and_more=and_more,
        ),
        msg("--max-length {limit} cuts them to fit; with --set data.overlong=skip they are left out.", limit=limit),
        True,
    )


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


# -- the course ------------------------------------------------------------------------------------------------------


def _course(config: ResolvedConfig, chosen: Collection[str], data: DataFacts) -> Iterator[Finding]:
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


# -- what is measured ------------------------------------------------------------------------------------------------


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


# -- settings without effect -----------------------------------------------------------------------------------------


def _idle(config: RunConfig, chosen: Collection[str]) -> Iterator[Finding]:
    """Settings that a person chose and that do nothing beside the others."""
    for covers, when, why in _IDLE:
        if (idle := [path for path in sorted(chosen) if covers(path)]) and when(config):
            yield Finding(
                "no-effect",
                idle[0],
                msg(
                    "{settings} {have} no effect: {why}",
                    settings=", ".join(idle),
                    have="has" if len(idle) == 1 else "have",
                    why=why,
                ),
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
