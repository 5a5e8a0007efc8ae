"""One run, from its folder to its last checkpoint. Read `train` top to bottom: it is the whole story.

What makes a run repeatable: the order of the data is a pure function of (seed, epoch), the learning rate of the step;
everything else that changes from step to step is in `Progress`, the optimizer, the weights and the random state, and a
checkpoint holds them all. Random state is captured after a step; evaluation and answers draw from a fork of it.
"""

import contextlib
import dataclasses
import gc
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine import __version__, home
from engine.config import META_KEY, Layer, RunConfig, auto_values, diff, read_config_file, resolve
from engine.errors import CheckpointError, EngineError, RunFailed
from engine.journal import Journal
from engine.records import Example
from engine.worker import checkpoint
from engine.worker.data import Prepared, prepare
from engine.worker.generate import answer_examples, exact_match, generate, stop_tokens
from engine.worker.loss import PackedLoss, PlainLoss, choose_loss
from engine.worker.memory import find_micro_tokens, is_out_of_memory
from engine.worker.model import (
    Precision,
    causal_lm,
    choose_precision,
    enable_activation_checkpointing,
    load_base,
    load_tokenizer,
    make_trainable,
    pick_device,
)
from engine.worker.optim import learning_rate, make_optimizer, set_learning_rate
from engine.worker.packing import TokenSet, epoch_order, make_pack, plan_passes
from engine.worker.signals import StopRequest
from engine.worker.template import ChatTemplate

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 3
"""Exit codes of the worker."""

MAY_CHANGE_ON_RESUME = ("train.epochs", "train.max_steps", "train.early_stopping", "eval.", "save.", "run.")
"""What a resumed run may do differently from before without becoming another run."""

_BEAT_SECONDS = 5.0
_PROBE_TOKENS = 512
_LOSS_TOLERANCE = {None: 1e-4, torch.bfloat16: 2e-2}
_DISK_WAIT_SECONDS = 10.0


@dataclass
class Progress:
    """What changes from step to step, beside weights, optimizer and random state."""

    step: int = 0
    tokens: int = 0
    """Real tokens trained on so far."""
    seconds: float = 0.0
    """Time spent in optimizer steps."""
    micro_tokens: int = 0
    activation_checkpointing: bool = False
    best_loss: float = math.inf
    best_step: int = -1
    evals_without_better: int = 0


@dataclass(frozen=True)
class Plan:
    """How long the run is."""

    examples: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int

    def epoch_of(self, step: int) -> float:
        return step / self.steps_per_epoch


def train(folder: Path, resume_from: str = "latest", stop: StopRequest | None = None) -> int:
    """Train the run in `folder` from its newest good checkpoint, or the one named, or the start. Returns exit code.

    Raises EngineError for what the user can mend; whatever else is raised is a fault of finetop or the machine.
    """
    stop = stop or StopRequest()
    config, origin = read_run_config(folder)
    journal = Journal(folder)
    beat = Beat(journal)
    beat.promise(600, "loading")
    journal.write("state", state="starting", pid=os.getpid(), versions=versions())

    device = pick_device()
    set_up_torch(config, device)
    checkpoints = folder / home.CHECKPOINTS
    checkpoint.clean_up(checkpoints)
    last, complaints = checkpoint.find(checkpoints, resume_from)
    for complaint in complaints:
        journal.write("event", event="checkpoint-damaged", message=f"passed over: {complaint}")

    # Data. Tokenised before the model is loaded, so that a bad file is told at once.
    template = ChatTemplate(load_tokenizer(config.model), config.data.template)
    data = prepare(config, template)
    config = config.replace(auto_values(config, len(data.train)))
    plan = make_plan(config, len(data.train))
    facts = {"config": dataclasses.asdict(config), "data": data_hashes(data), "versions": versions()}
    if last:
        refuse_other_run(last, config, facts["data"])
    journal.write("data", **data.report)
    journal.write("plan", **dataclasses.asdict(plan), epochs=config.train.epochs, settings=config.flat(), origin=origin)

    # Model, optimizer, and where they stood.
    torch.manual_seed(config.train.seed)
    precision = choose_precision(config, device)
    full = config.method.kind == "full"
    model = make_trainable(load_base(config, precision, str(last.path) if last and full else None), config)
    optimizer = make_optimizer(model, config.optim)
    inner = causal_lm(model)
    probe = make_pack(data.train, probe_indices(data.train)).to(device)
    model.eval()
    with precision.context():
        loss_of, reason = choose_loss(inner, probe, config.model.attention, _LOSS_TOLERANCE[precision.autocast])
    if reason:
        journal.write("event", event="plain-path", message=f"One example a pass: {reason}.")
    progress = Progress()
    parameters = [p for p in model.parameters() if p.requires_grad]
    journal.write("model", **describe(model, inner, parameters, precision, loss_of))
    if last:
        state = checkpoint.load_state(last, device)
        if not full:
            load_adapter(model, last)
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        checkpoint.set_rng_state(state["rng"])
        compare_probe(journal, state, probe_loss(loss_of, probe, precision), versions())
        if aside := checkpoint.set_aside(checkpoints, last.step):
            journal.write("event", event="set-aside", message=f"Later checkpoints were moved to {aside.name}.")
    else:
        progress.activation_checkpointing = config.train.activation_checkpointing is True
        fit_memory(journal, progress, config, loss_of, data.train, plan, parameters, precision)
    if progress.activation_checkpointing:
        enable_activation_checkpointing(inner)
    journal.write("resume", from_step=progress.step if last else -1, micro_tokens=progress.micro_tokens)
    journal.write("state", state="running", step=progress.step)

    def evaluate() -> float | None:
        """Validation loss, scores and answers at this step, into the journal. None without validation data."""
        beat.promise(3600, "evaluating")
        model.eval()
        inner.config.use_cache = True
        values: dict[str, float] = {}
        with torch.random.fork_rng():
            if len(data.val):
                loss = mean_loss(loss_of, data.val, progress, precision)
                values = {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700))}
            if "exact_match" in config.eval.metrics and data.val_examples:
                chosen = data.val_examples[: config.eval.max_examples or None]
                answered = answer_examples(inner, template, chosen, config.eval.max_new_tokens, precision)
                values["eval/exact_match"] = exact_match(answered)
                for prompt, reference, text in answered:
                    journal.write(
                        "sample", step=progress.step, prompt=last_words(prompt), reference=reference, text=text
                    )
            if config.eval.prompts:
                answer_prompts(journal, inner, template, config, progress.step, precision)
        inner.config.use_cache = False
        model.train()
        if values:
            journal.write("eval", step=progress.step, values=values)
        return values.get("eval/loss")

    def save(*names: str) -> None:
        """A checkpoint of this step under its step, `latest` and the given names."""
        size = checkpoint_bytes(model, parameters)
        wait_for_disk(journal, beat, checkpoints, size)
        beat.promise(60 + size / 20e6, "saving")  # a slow network drive writes 20 MB/s
        state = {
            "progress": dataclasses.asdict(progress),
            "optimizer": optimizer.state_dict(),
            "rng": checkpoint.rng_state(),
            "probe_loss": probe_loss(loss_of, probe, precision),
            "versions": versions(),
        }
        best = progress.best_loss if math.isfinite(progress.best_loss) else None
        saved = checkpoint.save(
            checkpoints,
            progress.step,
            plan.epoch_of(progress.step),
            model,
            template.tokenizer,
            state,
            {**facts, "best_loss": best, "trained_dtypes": sorted({str(p.dtype) for p in parameters})},
        )
        for name in ("latest", *names):
            checkpoint.link(checkpoints, name, progress.step)
        if progress.best_step == progress.step:
            checkpoint.link(checkpoints, "best", progress.step)
        journal.write(
            "checkpoint",
            step=progress.step,
            epoch=round(plan.epoch_of(progress.step), 4),
            path=f"{home.CHECKPOINTS}/{saved.path.name}",
            bytes=saved.bytes,
            kept=checkpoint.links(checkpoints).get(progress.step, []),
        )
        for step in checkpoint.prune(checkpoints, config.save):
            journal.write("checkpoint-removed", step=step)

    def judge(loss: float | None) -> None:
        """Remember the best validation loss, and how many evaluations have passed without a better one."""
        if loss is None:
            return
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.evals_without_better = loss, progress.step, 0
        else:
            progress.evals_without_better += 1

    # What would fail after hours fails now: one evaluation and one save before the first step.
    if not last:
        judge(evaluate())
        save()

    patience = config.train.early_stopping
    model.train()
    while progress.step < plan.total_steps:
        if stop.asked:
            break
        began = time.perf_counter()
        epoch, position = divmod(progress.step, plan.steps_per_epoch)
        if position == 0 or "order" not in locals():
            order = epoch_order(plan.examples, config.train.seed, epoch, config.train.shuffle)
        indices = order[position * plan.batch_size : (position + 1) * plan.batch_size]
        rate = learning_rate(progress.step + 1, plan.total_steps, config.optim)
        set_learning_rate(optimizer, rate)

        while True:
            before = checkpoint.rng_state()
            try:
                loss, norm = forward_backward(
                    loss_of, data.train, indices, progress.micro_tokens, parameters, config, precision
                )
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).splitlines()[0]
            optimizer.zero_grad(set_to_none=True)  # outside the except block, whose traceback holds the activations
            checkpoint.set_rng_state(before)
            shrink(journal, progress, data.train.lengths[indices], config, failure)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            journal.metric(progress.step + 1, {"train/loss": loss, "train/grad_norm": norm, "train/lr": rate})
            raise RunFailed(
                f"the {'loss' if not math.isfinite(loss) else 'gradient'} became "
                f"{'NaN' if math.isnan(loss) or math.isnan(norm) else 'infinite'} at step {progress.step + 1}",
                f"The last good checkpoint is {last_good(checkpoints)}. A lower optim.learning_rate usually helps.",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        progress.step += 1
        took = time.perf_counter() - began
        step_tokens = int(data.train.lengths[indices].sum())
        progress.tokens += step_tokens
        progress.seconds += took
        journal.metric(
            progress.step,
            {
                "train/loss": loss,
                "train/lr": rate,
                "train/grad_norm": norm,
                "train/tokens": progress.tokens,
                "train/tokens_per_s": round(step_tokens / took, 1),
                "train/step_s": round(took, 5),
                "train/epoch": round(plan.epoch_of(progress.step), 4),
            },
        )
        beat.during_steps(took)

        last_step = progress.step == plan.total_steps
        epoch_end = progress.step % plan.steps_per_epoch == 0
        due = epoch_end if config.eval.every == "epoch" else progress.step % config.eval.every == 0
        if due or last_step:
            judge(evaluate())
        early = bool(patience) and progress.evals_without_better >= patience
        new_best = config.save.keep_best and progress.best_step == progress.step
        step_due = config.save.every and progress.step % config.save.every == 0
        if epoch_end or step_due or new_best or last_step or early:
            save(*([f"epoch-{progress.step // plan.steps_per_epoch}"] if epoch_end else []))
        if early:
            journal.write(
                "event",
                event="early-stop",
                step=progress.step,
                message=f"No better validation loss in {patience} evaluations; the best is {progress.best_loss:.4f} "
                f"at step {progress.best_step}.",
            )
            break

    if stop.asked and progress.step < plan.total_steps:
        if checkpoint.steps(checkpoints)[-1:] != [progress.step]:
            save()
        journal.write("state", state="stopped", step=progress.step, reason="asked to stop")
        return STOPPED
    journal.write("state", state="done", step=progress.step)
    return DONE


def forward_backward(
    loss_of: PackedLoss | PlainLoss,
    tokens: TokenSet,
    indices: np.ndarray,
    micro_tokens: int,
    parameters: list[nn.Parameter],
    config: RunConfig,
    precision: Precision,
) -> tuple[float, float]:
    """Gradients of one optimizer step: the loss per supervised token of the step, and the norm before clipping."""
    supervised = int(tokens.supervised[indices].sum())
    total = torch.zeros((), device=precision.device)
    for group in plan_passes(indices, tokens.lengths, micro_tokens):
        pack = make_pack(tokens, group).to(precision.device)
        with precision.context():
            total += loss_of.backward(pack, supervised)
    limit = config.optim.grad_clip or math.inf
    norm = nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
    loss, norm_value = torch.stack([total / supervised, norm.to(total.dtype)]).tolist()  # one wait for the device
    return loss, norm_value


@torch.no_grad()
def mean_loss(loss_of: PackedLoss | PlainLoss, tokens: TokenSet, progress: Progress, precision: Precision) -> float:
    """Loss per supervised token over a whole set; out of memory, it goes on with fewer tokens per pass."""
    micro_tokens = progress.micro_tokens
    while True:
        try:
            total = 0.0
            for group in plan_passes(np.arange(len(tokens)), tokens.lengths, micro_tokens):
                with precision.context():
                    total += float(loss_of(make_pack(tokens, group).to(precision.device)))
            return total / int(tokens.trained.sum())
        except Exception as error:
            if not is_out_of_memory(error) or micro_tokens <= int(tokens.lengths.max()) // 2:
                raise
        micro_tokens //= 2


def fit_memory(
    journal: Journal,
    progress: Progress,
    config: RunConfig,
    loss_of: PackedLoss | PlainLoss,
    tokens: TokenSet,
    plan: Plan,
    parameters: list[nn.Parameter],
    precision: Precision,
) -> None:
    """Tokens per pass for this machine; where too few fit to keep it busy, activations are recomputed, not kept."""
    if config.train.micro_tokens != "auto":
        progress.micro_tokens = config.train.micro_tokens
        return
    if progress.activation_checkpointing:
        enable_activation_checkpointing(loss_of.model)
    progress.micro_tokens, enough = find_micro_tokens(loss_of, tokens, plan.batch_size, parameters, precision)
    if enough or config.train.activation_checkpointing != "auto":
        return
    progress.activation_checkpointing = True
    enable_activation_checkpointing(loss_of.model)
    before = progress.micro_tokens
    progress.micro_tokens, _ = find_micro_tokens(loss_of, tokens, plan.batch_size, parameters, precision)
    journal.write(
        "event",
        event="activation-checkpointing",
        message=f"Only {before:,} tokens fit in a pass; with activations recomputed, {progress.micro_tokens:,} do.",
    )


def make_plan(config: RunConfig, examples: int) -> Plan:
    steps_per_epoch = math.ceil(examples / config.train.batch_size)
    total = steps_per_epoch * config.train.epochs
    if config.train.max_steps:
        total = min(total, config.train.max_steps)
    return Plan(examples, config.train.batch_size, steps_per_epoch, total)


def read_run_config(folder: Path) -> tuple[RunConfig, dict[str, str]]:
    """The settings in the run's folder, and where each came from when the run was made."""
    path = folder / home.CONFIG
    resolved = resolve([Layer(str(path), read_config_file(path))])
    return resolved.config, json.loads(path.read_text("utf-8")).get(META_KEY, {}).get("origin", {})


def set_up_torch(config: RunConfig, device: torch.device) -> None:
    """Threads and determinism. On the CPU a run always repeats bit for bit; on a GPU where asked to."""
    torch.set_num_threads(config.train.threads or os.cpu_count() or 1)
    if device.type == "cpu" or config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Meant for debugging: every new tensor would first be filled with NaN.
        torch.utils.deterministic.fill_uninitialized_memory = False
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def versions() -> dict[str, str]:
    import peft
    import transformers

    return {
        "finetop": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def data_hashes(data: Prepared) -> dict[str, str]:
    """sha256 of each data file, by its path."""
    return {file["path"]: file["sha256"] for file in data.report["files"]}


def refuse_other_run(last: checkpoint.Checkpoint, config: RunConfig, hashes: dict[str, str]) -> None:
    """CheckpointError when settings or data differ from those the checkpoint was made with."""
    groups = last.manifest["config"]
    flat = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    before = resolve([Layer("checkpoint", flat)]).config
    changed = {k: v for k, v in diff(before, config).items() if not k.startswith(MAY_CHANGE_ON_RESUME)}
    lines = [f"{path} was {old!r}, is now {new!r}" for path, (old, new) in changed.items()]
    was = last.manifest["data"]
    if sorted(was.values()) != sorted(hashes.values()):
        lines += [f"the content of {path} has changed" for path in hashes if was.get(path) != hashes[path]]
    if lines:
        raise CheckpointError(
            f"{last.path.name} belongs to a run that differs:\n" + "\n".join(lines),
            "Put back what changed to resume it, or start a new run.",
        )


def probe_indices(tokens: TokenSet) -> np.ndarray:
    """A few examples of different length, at most _PROBE_TOKENS tokens unless one alone is longer."""
    by_length = np.argsort(tokens.lengths, kind="stable")
    spread = by_length[np.unique(np.linspace(0, (len(by_length) - 1) // 2, 4).astype(int))]
    running = np.cumsum(tokens.lengths[spread])
    return spread[: max(1, int((running <= _PROBE_TOKENS).sum()))]


@torch.no_grad()
def probe_loss(loss_of: PackedLoss | PlainLoss, probe: Any, precision: Precision) -> float:
    """Loss on the probe, without dropout: equal before a save and after the load, unless a library changed it."""
    was_training = loss_of.model.training
    loss_of.model.eval()
    with precision.context():
        value = float(loss_of(probe)) / max(1, len(probe.targets))
    loss_of.model.train(was_training)
    return value


def compare_probe(journal: Journal, state: dict[str, Any], now: float, present: dict[str, str]) -> None:
    before = state["probe_loss"]
    if abs(now - before) <= 1e-6 * max(1.0, abs(before)):
        return
    changed = [f"{k} {v} -> {present[k]}" for k, v in state["versions"].items() if present.get(k) != v]
    journal.write(
        "event",
        event="probe-differs",
        message=f"The same examples gave a loss of {before:.6f} when the checkpoint was made and give {now:.6f} now "
        f"({', '.join(changed) or 'same library versions, other hardware?'}). The curve may show a step here.",
    )


def load_adapter(model: nn.Module, last: checkpoint.Checkpoint) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(last.path / "adapter_model.safetensors"))


def shrink(journal: Journal, progress: Progress, lengths: np.ndarray, config: RunConfig, failure: str) -> None:
    """Halve the tokens per forward pass after running out of memory, or RunFailed where that cannot help."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    smallest_useful = int(lengths.max())
    in_use = min(progress.micro_tokens, int(lengths.sum()))
    if config.run.on_oom == "fail" or in_use <= smallest_useful:
        raise RunFailed(
            f"out of memory at step {progress.step + 1} with a single example of {smallest_useful} tokens: {failure}",
            "Cheapest first: --set train.activation_checkpointing=true, a smaller data.max_length, --method qlora.",
        )
    progress.micro_tokens = max(in_use // 2, 8)
    journal.write(
        "event",
        event="oom",
        step=progress.step + 1,
        message=f"Out of memory at step {progress.step + 1}; repeating it with {progress.micro_tokens} tokens a pass, "
        "which changes nothing in the result.",
        micro_tokens=progress.micro_tokens,
    )


def last_good(checkpoints: Path) -> str:
    found = checkpoint.steps(checkpoints)
    return f"step {found[-1]}" if found else "none yet"


def checkpoint_bytes(model: nn.Module, parameters: list[nn.Parameter]) -> int:
    """About how much a checkpoint takes: the weights saved, and two moments for each that is trained."""
    trained = sum(p.numel() * p.element_size() for p in parameters)
    return 3 * trained + 20_000_000


def wait_for_disk(journal: Journal, beat: "Beat", folder: Path, size: int) -> None:
    """Pause while the disk has no room for the checkpoint; training goes on when there is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = False
    while shutil.disk_usage(folder).free < size:
        if not told:
            journal.write(
                "event",
                event="disk-full",
                message=f"Paused: a checkpoint needs {size / 1e9:.1f} GB, {folder} has "
                f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free.",
            )
            told = True
        beat.promise(6 * _DISK_WAIT_SECONDS, "disk-full")
        time.sleep(_DISK_WAIT_SECONDS)
    if told:
        journal.write("event", event="disk-free", message="There is room again; going on.")


def describe(
    model: nn.Module, inner: nn.Module, parameters: list[nn.Parameter], precision: Precision, loss_of: Any
) -> dict[str, Any]:
    """What was loaded, for the journal."""
    device = torch.cuda.get_device_name(precision.device) if precision.device.type == "cuda" else "cpu"
    return {
        "class": type(inner).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in parameters),
        "device": device,
        "autocast": str(precision.autocast).removeprefix("torch."),
        "weights": sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()}),
        "path": "packed" if isinstance(loss_of, PackedLoss) else "plain",
    }


def last_words(example: Example) -> str:
    return str(example.messages[-1].get("content") or "") if example.messages else ""


def answer_prompts(
    journal: Journal, inner: Any, template: ChatTemplate, config: RunConfig, step: int, precision: Precision
) -> None:
    system = [{"role": "system", "content": config.data.system}] if config.data.system else []
    examples = [Example(messages=(*system, {"role": "user", "content": prompt})) for prompt in config.eval.prompts]
    written = generate(
        inner,
        [template.encode_prompt(example) for example in examples],
        stop_tokens(inner, template.tokenizer),
        config.eval.max_new_tokens,
        precision,
    )
    for prompt, text in zip(
        config.eval.prompts, template.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
    ):
        journal.write("sample", step=step, prompt=prompt, text=text.strip())


class Beat:
    """Signs of life. Each promises when the next will come at the latest, so that slow is not taken for dead."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last = 0.0

    def promise(self, seconds: float, doing: str) -> None:
        self._last = time.monotonic()
        self._journal.write("beat", next=round(seconds, 1), doing=doing)

    def during_steps(self, step_seconds: float) -> None:
        if time.monotonic() - self._last >= _BEAT_SECONDS:
            self.promise(max(30.0, 10 * step_seconds), "training")


@contextlib.contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Writes the reason of a failure into the journal, whatever it was, and lets it pass."""
    try:
        yield
    except EngineError as error:
        with contextlib.suppress(OSError):
            Journal(folder).write("state", state="failed", reason=error.message, hint=error.hint)
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            reason = f"out of memory: {str(error).splitlines()[0]}"
        with contextlib.suppress(OSError):
            Journal(folder).write("state", state="failed", reason=reason, hint="The log holds the traceback.")
        raise
