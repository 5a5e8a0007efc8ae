"""What usually helps a failed run, cheapest first: settings to change, what each costs, whether it then fits.

`finetop show` prints the list, the screen offers it, and both queue a fix as `fixed` has it. The effects on memory are
the plan's own estimates, before and after each change; where a model's shape is not known they are left out. The list
depends on the run alone and not on the machine that looks at it, so that a number means the same fix everywhere.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.atomic_files import DISK_FULL
from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.units import plain_number, size
from engine.monitor.samples import GpuSample
from engine.plan.advice import high_rate
from engine.plan.gpu_fit import GpuSpec
from engine.plan.memory import EstimateInputs, memory_estimate, shape_estimate
from engine.plan.memory_ladder import memory_ladder
from engine.runs.failure_reasons import BROKEN_MODEL, SINGLE_EXAMPLE_TOO_LARGE
from engine.runs.relocate import located, new_places
from engine.settings.coerce import coerce, parse_set
from engine.settings.resolve import Layer, Resolved, overlay, read_run
from engine.settings.schema import PATHS, SETTINGS, RunConfig
from engine.store import progress_queries, queries
from engine.store.connect import Connection
from engine.store.run_records import Event, Run

LABEL = "fix"
"""Where a setting that a fix changed came from."""
_EVENTS_READ = 500
_WITHOUT_EFFECT = 0.01
"""Share of the estimate below which a change saves too little to be offered."""
_DISK_FULL = tuple(os.strerror(code) for code in DISK_FULL)
"""In the system's words."""
_SETTING = re.compile("|".join(re.escape(path) for path in sorted(SETTINGS, key=len, reverse=True)))
"""A setting by its path, wherever it is named."""
_SET_FLAG = re.compile(r"--set ([\w.]+=[\w.+-]*\w)")
"""A flag to be pasted, as hints name it: of the command line's syntax, not of a sentence."""


@dataclass(frozen=True, slots=True)
class Fix:
    """Settings to change in a new run after a failed one."""

    label: str
    settings: Mapping[str, Any]
    """By path."""
    cost: str = ""
    """What is paid for it, or why it helps, in words."""
    saved_bytes: int | None = None
    """Of the estimated peak on each GPU; None where the estimate says nothing of it."""
    fits: bool | None = None
    """Whether the estimate then fits the GPU, were it empty; None where that is not known, or where it had fitted
    without the fix."""

    @property
    def effects(self) -> tuple[str, ...]:
        """What it saves, whether that is enough, and what it costs, in words, as far as there is something to say."""
        saved = msg("~−{saved}", saved=size(self.saved_bytes)) if self.saved_bytes is not None else ""
        enough = {True: "then it fits", False: "not enough alone", None: ""}[self.fits]
        return tuple(filter(None, (saved, enough, self.cost)))

    @property
    def effect(self) -> str:
        """All of its effects in a line."""
        return ", ".join(self.effects)


def gpu_of(run: Run, gpus: Sequence[GpuSample]) -> GpuSpec | None:
    """The smallest of the GPUs that the run had, as if nothing else were on it; None where that is not known."""
    its_gpus = [
        GpuSpec(gpu.name or gpu.uuid, gpu.memory_total_bytes)
        for gpu in gpus
        if gpu.memory_total_bytes and (gpu.uuid in run.gpus or (gpu.parent is None and str(gpu.index) in run.gpus))
    ]
    return min(its_gpus, key=lambda gpu: gpu.total_bytes, default=None)


def failure_cause(run: Run, events: Sequence[Event]) -> str:
    """In one word, as worker and daemon call it: 'out-of-memory', 'not-finite', 'input', 'disk-full' ...; 'failed'
    where it is not known."""
    if any(words in (run.reason or "") for words in _DISK_FULL):  # earlier versions had no word for it
        return "disk-full"
    for event in reversed(events):
        cause = event.detail.get("cause") or event.detail.get("end")
        if isinstance(cause, str):
            return cause
        if event.kind == "state" and event.message == "starting":
            break
    return "failed"


def fixes_of(conn: Connection, run: Run, folder: Path, gpu: GpuSpec | None = None) -> list[Fix]:
    """What usually helps the failed run in `folder`; empty where no setting does. `gpu`: what it should fit.

    Reads the model's config file, too. Raises EngineError where the run's own settings cannot be read.
    """
    config = located(folder).config
    events = queries.events(conn, run.id, limit=_EVENTS_READ)
    facts = progress_queries.said(conn, run.id, ("data", "plan", "model", "resume", "memory"))
    hint = next((str(event.detail["hint"]) for event in reversed(events) if event.detail.get("hint")), "")
    match failure_cause(run, events):
        case "out-of-memory":
            return _memory_fixes(run, config, facts, gpu)
        case "oom-killer" if run.gpus:  # the passes are on the GPU
            fixes = _host_memory_fixes(config)
        case "oom-killer":
            return _memory_fixes(run, config, facts, None)
        case "not-finite":
            broken_model = BROKEN_MODEL.values_in(run.reason or "")  # no setting of the training mends it
            fixes = [] if broken_model else _not_finite_fixes(config, facts)
        case "disk-full":
            fixes = _disk_fixes(config)
        case "file-too-large":
            fixes = _smaller_checkpoint(config)
        case "input":
            fixes = _input_fixes(config, folder, hint)
        case _:
            fixes = []
    return _without_repeats([*fixes, *_fixes_in(hint, config)])


def chosen_fix(fixes: Sequence[Fix], numbers: Sequence[int], run_id: int) -> Fix:
    """The fixes by their numbers in the list, from 1 on, as one. Raises InputError."""
    if not fixes:
        raise InputError(
            msg("no change of settings is known to help run {run_id}", run_id=run_id),
            msg("`finetop show {run_id}` says what went wrong.", run_id=run_id),
        )
    for number in numbers:
        if not 1 <= number <= len(fixes):
            raise InputError(
                msg("run {run_id} has no fix {number}", run_id=run_id, number=number),
                msg("`finetop show {run_id}` lists them: 1 to {count}.", run_id=run_id, count=len(fixes)),
            )
    return together([fixes[number - 1] for number in sorted(set(numbers))])


def together(fixes: Sequence[Fix]) -> Fix:
    """Several fixes as one; of two that change one setting the later, which costs more, counts."""
    settings = {path: value for fix in fixes for path, value in fix.settings.items()}
    return Fix(" + ".join(fix.label for fix in fixes), settings)


def wrong_setting(fixes: Sequence[Fix], words: str, settings: Mapping[str, Any]) -> str:
    """Which of a failed run's `settings`, by path, is to be changed first: that of its first fix, the first that the
    failure's `words` name, or one whose value they name, such as a file that is not there; '' where none is known."""
    if fixes:
        return next(iter(fixes[0].settings), "")
    if named := _SETTING.search(words):
        return named[0]
    for path in PATHS:
        value = settings.get(path)
        values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if any(value and value in words for value in values):
            return path
    return ""


def settings_like(folder: Path, layers: Iterable[Layer]) -> Resolved:
    """The settings of an existing run with others laid over them, each with where it came from. Files that lie
    elsewhere by now are named where they are. Raises ConfigError."""
    return overlay(located(folder), layers, f"run {folder.name}")


def fixed(folder: Path, fix: Fix, layers: Iterable[Layer] = ()) -> Resolved:
    """The settings of the new run that a fix makes of the failed one in `folder`. Raises ConfigError."""
    name = located(folder).config.run.name or f"run-{folder.name}"
    return settings_like(folder, [Layer(LABEL, {**fix.settings, "run.name": f"{name}-fixed"}), *layers])


def _memory_fixes(
    run: Run, config: RunConfig, facts: Mapping[str, Mapping[str, Any]], gpu: GpuSpec | None
) -> list[Fix]:
    """Each alone, with what it saves; those that save nothing are left out."""
    passes = {**facts.get("resume", {}), **facts.get("memory", {})}  # as it began, and as it was measured
    inputs = EstimateInputs(
        device="cpu" if facts.get("model", {}).get("device") == "cpu" else "cuda",
        longest=(facts.get("data", {}).get("train") or {}).get("longest"),
    )
    longest, recomputed = inputs.longest_of(config), passes.get("activation_checkpointing")
    tokens = longest if SINGLE_EXAMPLE_TOO_LARGE.values_in(run.reason or "") else passes.get("micro_tokens")
    estimate = memory_estimate(config, micro_tokens=tokens, checkpointing=recomputed, inputs=inputs)
    if estimate is None:
        return [Fix(saver.label, saver.settings, saver.cost) for saver in memory_ladder(config, longest, 0)]
    too_large = gpu is not None and estimate.expected > gpu.usable_bytes
    fixes: list[Fix] = []
    for saver in memory_ladder(config, longest, estimate.micro_tokens):
        changed = config.replace(saver.settings)
        smallest_pass = inputs.longest_of(changed)
        tokens = estimate.micro_tokens if estimate.micro_tokens > longest else smallest_pass
        lighter = shape_estimate(
            changed,
            estimate.shape,
            micro_tokens=max(smallest_pass, saver.settings.get("train.micro_tokens", tokens)),
            checkpointing=saver.settings.get("train.activation_checkpointing", recomputed),
            inputs=inputs,
        )
        saved = estimate.expected - lighter.expected
        if saved >= _WITHOUT_EFFECT * estimate.expected:
            fits = lighter.expected <= gpu.usable_bytes if too_large and gpu else None
            fixes.append(Fix(saver.label, saver.settings, saver.cost, saved, fits))
    return fixes


def _host_memory_fixes(config: RunConfig) -> list[Fix]:
    """What a run on GPUs has in the host's memory."""
    fixes: list[Fix] = []
    if (ranks := config.run.gpus_wanted) > 1:
        label = msg("{ranks} → {fewer} GPUs", ranks=ranks, fewer=ranks // 2)
        named = {"run.gpus": config.run.gpus[: ranks // 2]} if config.run.gpus else {}
        fixes.append(Fix(label, {"run.gpu_count": ranks // 2, **named}, "slower"))
    if config.optim.name == "paged_adamw8bit":
        fixes.append(Fix("optimizer not paged", {"optim.name": "adamw8bit"}, "all of it stays on the GPU"))
    return [*fixes, *_smaller_checkpoint(config)]


def _not_finite_fixes(config: RunConfig, facts: Mapping[str, Mapping[str, Any]]) -> list[Fix]:
    fixes: list[Fix] = []
    rate = config.optim.learning_rate
    if rate == "auto":  # what it became stands in the journal
        rate = (facts.get("plan", {}).get("settings") or {}).get("optim.learning_rate", rate)
    if isinstance(rate, float) and rate > 0:
        lower = min(float(f"{rate / 3:.2g}"), high_rate(config.method.kind))
        label = msg("learning rate {rate} → {lower}", rate=plain_number(rate), lower=plain_number(lower))
        fixes.append(Fix(label, {"optim.learning_rate": lower}, "the usual reason"))
    if config.optim.warmup < 0.1:
        fixes.append(Fix("warm-up over the first tenth", {"optim.warmup": 0.1}, "the first steps are the wildest"))
    if config.optim.grad_clip == 0 or config.optim.grad_clip > 0.5:
        fixes.append(Fix("gradients clipped at 0.5", {"optim.grad_clip": 0.5}, "a single bad batch does less"))
    if config.model.dtype == "bfloat16" or "bfloat16" in str(facts.get("model", {}).get("autocast")):
        fixes.append(Fix("arithmetic in float32", {"model.dtype": "float32"}, "slower, more memory"))
    return fixes


def _disk_fixes(config: RunConfig) -> list[Fix]:
    fixes: list[Fix] = []
    if config.save.keep_last != 1 or config.save.keep_epochs != 1:
        fixes.append(
            Fix(
                "fewer checkpoints kept",
                {"save.keep_last": 1, "save.keep_epochs": 1},
                "beside the best only the newest can be gone back to",
            )
        )
    return [*fixes, *_smaller_checkpoint(config)]


def _smaller_checkpoint(config: RunConfig) -> list[Fix]:
    if config.method.kind != "full":
        return []
    ladder = memory_ladder(config, config.data.max_length)
    adapter = next(saver for saver in ladder if saver.settings.get("method.kind") == "lora")
    return [Fix(adapter.label, adapter.settings, msg("small checkpoints, {cost}", cost=adapter.cost))]


def _input_fixes(config: RunConfig, folder: Path, hint: str) -> list[Fix]:
    """What the run was made of is not there, or is not what its settings say."""
    fixes: list[Fix] = []
    if moved := new_places(folder, read_run(folder).config):
        paths = ", ".join(value if isinstance(value, str) else " ".join(value) for value in moved.values())
        fixes.append(Fix(msg("files where they are now: {paths}", paths=paths), moved, "the same content"))
    if "data.max_bad_share" in hint:  # a setting's name, not a word of the sentence
        fixes.append(Fix("bad rows left out, however many", {"data.max_bad_share": 1.0}, "less data to learn from"))
    if config.data.map:
        fixes.append(Fix("columns recognised by their names", {"data.map": {}}, "in place of data.map"))
    if config.data.format != "auto":
        fixes.append(Fix("format recognised by the content", {"data.format": "auto"}, "in place of data.format"))
    return fixes


def _fixes_in(hint: str, config: RunConfig) -> list[Fix]:
    """Settings that the error itself names: `--set model.attention=plain`."""
    fixes: list[Fix] = []
    for text in _SET_FLAG.findall(hint):
        path, value = parse_set(text)
        setting = SETTINGS.get(path)
        if setting is None:
            continue
        with contextlib.suppress(ValueError):  # a word in place of a value, as in SHARE
            value = coerce(value, setting.type)
            if value != config.flat()[path]:
                fixes.append(Fix(text, {path: value}, _COSTS.get(path, "as the error says")))
    return fixes


_COSTS = {
    "model.trust_remote_code": "runs Python code that comes with the model",
    "model.attention": "one example a pass: slower",
    "model.dtype": "slower, more memory",
}


def _without_repeats(fixes: Iterable[Fix]) -> list[Fix]:
    kept: list[Fix] = []
    for fix in fixes:
        if all(fix.settings != other.settings for other in kept):
            kept.append(fix)
    return kept
