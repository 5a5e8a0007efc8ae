"""One run, from its folder to its last checkpoint. `train_loop` reads top to bottom.

What makes a run repeatable: the order of the data is a pure function of (seed, epoch), the learning rate of the step;
everything else that changes from step to step is in `TrainState`, the optimizer, the weights and the random state, and
a checkpoint holds them all. Random state is captured after a step; evaluation and answers draw from a fork of it.
"""

import dataclasses
import functools
import math
import os
import time
from pathlib import Path

import torch

from engine.base import workspace
from engine.base.errors import NotFinite, first_line
from engine.base.messages import msg, msg_n
from engine.base.worker_process import DONE, STOPPED
from engine.metrics import best_evaluation
from engine.metrics.names import metric_name
from engine.runs import evaluation_folder
from engine.runs.journal import Journal
from engine.runs.lr_schedule import learning_rate
from engine.runs.relocate import update_paths
from engine.runs.resume_run import begun
from engine.runs.run_folder import data_changes, read_meta
from engine.settings.auto_values import resolve_auto
from engine.settings.resolve import read_run
from engine.worker.data.chat_template import ChatTemplate, clock_of
from engine.worker.data.packing import epoch_order, make_pack
from engine.worker.data.tokenize import data_hashes, prepare
from engine.worker.evaluate.measure import command_of, evaluate
from engine.worker.model.base_weights import BASE, BaseWeights
from engine.worker.model.fast_layers import use_fast_layers
from engine.worker.model.generation_config import answer_ends
from engine.worker.model.load import (
    causal_lm,
    check_positions,
    check_vocabulary,
    choose_precision,
    enable_activation_checkpointing,
    generation_ends,
    load_base,
    load_tokenizer,
    make_trainable,
    pick_device,
    vocabulary_size,
)
from engine.worker.model.loss import LOSS_TOLERANCE, choose_loss
from engine.worker.model.optimizer import make_optimizer, set_learning_rate
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime import checkpoint
from engine.worker.runtime.heartbeat import Heartbeat, describe, versions
from engine.worker.runtime.initial_weights import initial_model, load_initial_adapter
from engine.worker.runtime.memory_fit import fit_memory, halve_micro_batch, refuse_without_memory
from engine.worker.runtime.peak_memory import PeakMemory
from engine.worker.runtime.resume_checks import (
    command_changes,
    compare_probe,
    load_adapter,
    other_tokens,
    probe_indices,
    probe_loss,
    refuse_other_run,
    reselect_best,
    tokenizer_of,
)
from engine.worker.runtime.stop_signal import StopRequest
from engine.worker.runtime.torch_setup import set_up_torch
from engine.worker.runtime.train_state import TrainState, make_schedule
from engine.worker.train.data_parallel import Begin, Ranks, Step
from engine.worker.train.gradients import forward_backward
from engine.worker.train.preflight import check_run, refuse_broken_model
from engine.worker.train.rank_count import ranks_changed
from engine.worker.train.saving import Saver, last_good


def train(folder: Path, resume_from: str = "latest", stop: StopRequest | None = None) -> int:
    """Train the run in `folder` from its newest good checkpoint, or the one named, or the start. Returns the exit code.

    Raises EngineError for what the user can fix; anything else that is raised is a fault of finetop or the machine.
    """
    with Ranks() as ranks:
        return train_loop(folder, resume_from, stop or StopRequest(), ranks)


def train_loop(folder: Path, resume_from: str, stop: StopRequest, ranks: Ranks) -> int:
    """What `train` does, as rank 0 of `ranks`. A run with one GPU, or none, has no other rank."""
    began_at = time.monotonic()
    journal = Journal(folder)
    moved = update_paths(folder)
    settings = read_run(folder)
    config = settings.config
    beat = Heartbeat(journal)
    beat.announce(600, "loading")
    journal.write("state", state="starting", pid=os.getpid(), versions=versions())

    for path, new_path in moved.items():
        journal.write(
            "event",
            event="moved",
            message=msg("{path}: found by its content at {new_path}.", path=path, new_path=new_path),
        )
    device = pick_device()
    if complaint := ranks.start(folder, config, device):  # the followers load their libraries while data is read
        journal.write("event", event="fewer-gpus", message=complaint)
    set_up_torch(config, device, ranks.count)
    checkpoints = folder / workspace.CHECKPOINTS
    checkpoint.clean_up(checkpoints)
    resumed, problems = checkpoint.find(checkpoints, resume_from)
    for problem in problems:
        journal.write("event", event="checkpoint-damaged", message=msg("skipped: {problem}", problem=problem))

    # Data. Tokenised before the model is loaded, so that a bad file is reported at once.
    tokenizer_config, clock = tokenizer_of(config, resumed), clock_of(config.data, folder)
    template = ChatTemplate(
        load_tokenizer(tokenizer_config), config.data.template, generation_ends(tokenizer_config), clock
    )
    dataset = prepare(config, template)
    config = resolve_auto(settings.config, len(dataset.train))
    schedule = make_schedule(config, len(dataset.train))
    criterion = best_evaluation.parse(config.eval.best)
    data_sha256, command = data_hashes(dataset), command_of(config, folder)
    manifest_base = {
        "config": dataclasses.asdict(config),
        "data": data_sha256,
        "versions": versions(),
        "ranks": ranks.count,
        "command": command,
        "tokens": dataset.train.digest(),
    }
    if resumed:
        refuse_other_run(resumed, config, data_sha256, read_meta(folder).get("files"))
        if warning := other_tokens(resumed, manifest_base):
            journal.write("event", event="tokens-changed", message=warning)
    for change in [] if resumed else data_changes(folder, settings.config):
        journal.write("event", event="data-changed", message=msg("Since the run was queued: {change}.", change=change))
    journal.write("data", **dataset.report)
    journal.write(
        "plan",
        **dataclasses.asdict(schedule),
        epochs=config.train.epochs,
        settings=config.flat(),
        origin=settings.origin,
    )

    check_run(journal, settings, config, dataset, schedule, resumed)

    # Model, optimizer, and where they stood.
    torch.manual_seed(config.train.seed)
    precision = choose_precision(config, device)
    if device.type == "cpu":
        refuse_without_memory(config, precision.autocast is not None)
    full = config.method.kind == "full"
    source = str(resumed.path) if resumed and full else initial_model(config.model)
    base = None if full else BaseWeights(config, source)
    ranks.begin(Begin(config, dataset.train, source, resumed))
    model = make_trainable(load_base(config, precision, source), config)
    use_fast_layers(model)
    optimizer = make_optimizer(model, config.optim)
    lm = causal_lm(model)
    ends = answer_ends(template, lm) if config.method.objective == "sft" else ()
    check_vocabulary(lm, max(int(dataset.train.ids.max()), int(dataset.val.ids.max(initial=0))))
    check_positions(lm, max(int(dataset.train.lengths.max()), int(dataset.val.lengths.max(initial=0))))
    if resumed and base and (warning := base.refuse_other(resumed.manifest)):
        journal.write("event", event="base-unchecked", message=warning)
    probe = make_pack(dataset.train, probe_indices(dataset.train)).to(device)
    model.eval()
    with precision.context():
        loss_fn, reason = choose_loss(lm, probe, config.model.attention, LOSS_TOLERANCE[precision.autocast])
    if reason:
        journal.write("event", event="plain-path", message=msg("One example a pass: {reason}.", reason=reason))
    state = TrainState()
    parameters = [p for p in model.parameters() if p.requires_grad]
    rank_batch = -(-schedule.batch_size // ranks.count)  # examples of a step that this rank takes
    ranks.connect(parameters, config.train.seed)
    journal.write("model", **describe(model, lm, parameters, precision, loss_fn, ranks.count))
    if resumed:
        saved_state = checkpoint.load_state(resumed)
        if not full:
            load_adapter(model, resumed)
        optimizer.load_state_dict(saved_state["optimizer"])
        state = TrainState.restored(saved_state["progress"])
        requested, saved = config.train.micro_tokens, resumed.manifest["config"]["train"]["micro_tokens"]
        if requested != "auto" and requested != saved:
            state.micro_tokens = requested
        checkpoint.set_rng_state(saved_state["rng"])
        if best_evaluation.parse_criterion(resumed.manifest["config"]["eval"].get("best")) != criterion:
            renew = functools.partial(beat.renew, 600, "loading")
            journal.write("best", **reselect_best(folder, state, criterion, config, renew))
        for change in command_changes(resumed, command):
            journal.write(
                "event",
                event="command-changed",
                message=msg("Since step {step}: {change}.", step=resumed.step, change=change),
            )
        compare_probe(journal, saved_state, probe_loss(loss_fn, probe, precision), versions())
        if (ranks_before := resumed.manifest.get("ranks", 1)) != ranks.count:
            journal.write("event", event="ranks-changed", message=ranks_changed(ranks_before, ranks.count))
        if aside := checkpoint.set_aside(checkpoints, resumed.step):
            journal.write(
                "event",
                event="set-aside",
                message=msg("Later checkpoints were moved to {folder}.", folder=aside.name),
            )
    else:
        if config.model.checkpoint and not source:
            load_initial_adapter(model, config.model)
        state.activation_checkpointing = config.train.activation_checkpointing is True
        fit_memory(journal, state, config, loss_fn, dataset.train, rank_batch, parameters, precision)
    if state.activation_checkpointing:
        enable_activation_checkpointing(lm)
    evaluation_folder.take_back(folder, state.step if resumed else -1)
    ranks.broadcast(parameters)
    peak = PeakMemory(journal, config, precision, dataset.train, rank_batch)
    journal.write("resume", from_step=state.step if resumed else -1, micro_tokens=state.micro_tokens)
    journal.write("state", state="running", step=state.step)
    begun(folder)

    saver = Saver(
        checkpoints, journal, beat, config.save, schedule, model, template.tokenizer, optimizer, parameters, ends
    )

    def save() -> None:
        """A checkpoint of this step. A disk without room for it pauses the run."""
        ranks.verify(parameters)
        manifest = {
            **manifest_base,
            "validation_loss": state.last_loss,
            "base_vocabulary": vocabulary_size(lm),
            BASE: base.to_manifest() if base else None,
        }
        saver.save(state, probe_loss(loss_fn, probe, precision), manifest)

    def run_evaluation() -> None:
        """Evaluate; keep the best value of what eval.best names, and how many evaluations since were no better."""
        beat.announce(3600, "evaluating")
        model.eval()
        scores = evaluate(
            folder,
            journal,
            loss_fn,
            template,
            dataset,
            config,
            state,
            precision,
            lambda: beat.renew(3600, "evaluating"),
        )
        model.train()
        state.last_loss = scores["eval/loss"] if scores else None
        if scores:
            state.record_evaluation(scores, criterion)

    if resumed:
        saver.publish(resumed, state.best_step)  # a kill may have come between its rename and its names
    else:
        # What would fail after hours fails now: one evaluation and one save before the first step.
        run_evaluation()
        initial_loss = state.last_loss
        if initial_loss is None:
            initial_loss = probe_loss(loss_fn, probe, precision)
        refuse_broken_model(model, config, initial_loss)
        save()

    def patience_spent() -> bool:
        return 0 < config.train.early_stopping <= state.evals_without_better

    early = patience_spent()  # the run was ended between its last save and its last word
    measured_steps = 0
    order_epoch = -1
    model.train()
    while state.step < schedule.total_steps and not early:
        if stop.requested:
            break
        began = time.perf_counter()
        epoch, position = divmod(state.step, schedule.steps_per_epoch)
        if order_epoch != epoch:
            order_epoch, order = epoch, epoch_order(schedule.examples, config.train.seed, epoch, config.train.shuffle)
        indices = order[position * schedule.batch_size : (position + 1) * schedule.batch_size]
        rate = learning_rate(state.step + 1, schedule.total_steps, config.optim)
        set_learning_rate(optimizer, rate)

        while True:
            rng_before = checkpoint.rng_state()
            micro_tokens = state.micro_tokens
            ranks.begin_step(Step(state.step + 1, indices, micro_tokens, rate, state.activation_checkpointing))
            try:
                loss, norm = forward_backward(
                    loss_fn, dataset.train, indices, micro_tokens, parameters, config, precision, ranks
                )
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failure = first_line(error)
            optimizer.zero_grad(set_to_none=True)  # outside the except block, whose traceback holds the activations
            checkpoint.set_rng_state(rng_before)
            halve_micro_batch(journal, state, dataset.train.lengths[indices], config, failure)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            journal.metric(state.step + 1, {"train/loss": loss, "train/grad_norm": norm, "train/lr": rate})
            raise NotFinite(
                msg(
                    "the {quantity} became {number} at step {step}",
                    quantity="loss" if not math.isfinite(loss) else "gradient",
                    number="NaN" if math.isnan(loss) or math.isnan(norm) else "infinite",
                    step=state.step + 1,
                ),
                msg(
                    "The last good checkpoint is {checkpoint}. A lower optim.learning_rate usually helps.",
                    checkpoint=last_good(checkpoints),
                ),
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        state.step += 1
        step_seconds = time.perf_counter() - began
        step_tokens = int(dataset.train.lengths[indices].sum())
        state.tokens += step_tokens
        journal.metric(
            state.step,
            {
                "train/loss": loss,
                "train/lr": rate,
                "train/grad_norm": norm,
                "train/tokens": state.tokens,
                "train/tokens_per_s": round(step_tokens / step_seconds, 1),
                "train/step_s": round(step_seconds, 5),
                "train/epoch": round(schedule.epoch_of(state.step), 4),
            },
        )
        beat.step(step_seconds)
        measured_steps += 1
        if measured_steps == 2:  # Adam's moments are allocated, and a run that is killed later has reported its peak
            peak.record(state)

        last_step = state.step == schedule.total_steps
        epoch_end = state.step % schedule.steps_per_epoch == 0
        due = epoch_end if config.eval.every == "epoch" else state.step % config.eval.every == 0
        if due or last_step:
            run_evaluation()
        early = patience_spent()
        new_best = config.save.keep_best and state.best_step == state.step
        step_due = config.save.every and state.step % config.save.every == 0
        if epoch_end or step_due or new_best or last_step or early:
            save()

    if early:
        journal.write(
            "event",
            event="early-stop",
            step=state.step,
            message=msg_n(
                "No better {metric} in {n:,} evaluation: {best}.",
                "No better {metric} in {n:,} evaluations: {best}.",
                state.evals_without_better,
                metric=metric_name(criterion.key),
                best=state.describe_best(),
            ),
        )
    if stop.requested and state.step < schedule.total_steps:
        if checkpoint.steps(checkpoints)[-1:] != [state.step]:
            save()
        peak.record(state)
        seconds = round(time.monotonic() - began_at, 1)
        journal.write("state", state="stopped", step=state.step, seconds=seconds, reason="asked to stop")
        return STOPPED
    peak.record(state)
    journal.write("state", state="done", step=state.step, seconds=round(time.monotonic() - began_at, 1))
    return DONE
