"""What the training loop promises when things go wrong, and what it keeps."""

import itertools
import json
import math
from pathlib import Path

import psutil
import pytest
import torch

from engine.base import disk_room
from engine.base.errors import DataError, ModelError, OutOfMemory, RunFailed
from engine.base.worker_process import DONE
from engine.models.device_limits import HOST_SHARE
from engine.models.model_shape import find_shape
from engine.monitor.host import HostReader
from engine.monitor.samples import GpuSample
from engine.plan.memory import EstimateInputs, host_pass_tokens, shape_estimate
from engine.runs import resume_run
from engine.runs.failure_reasons import SINGLE_EXAMPLE_TOO_LARGE
from engine.settings.resolve import Layer, read_run
from engine.settings.schema import ModelConfig
from engine.worker.model import load, loss, out_of_memory
from engine.worker.runtime import checkpoint, disk_space, memory_fit
from engine.worker.runtime.heartbeat import failure, report_failure
from engine.worker.train import loop as train_module
from engine.worker.train.loop import train
from tests.engine.groups import fake_groups
from tests.engine.tiny_runs import (
    NeverStop,
    StopAfter,
    evals,
    events_of,
    last_state,
    make_run,
    series,
    weights_hash,
    write_jsonl,
)

__all__ = ["fake_groups"]


def run(folder: Path, **kwargs) -> int:
    return train(folder, stop=NeverStop(), **kwargs)


@pytest.fixture(scope="module")
def undisturbed(tiny_model, chats, tmp_path_factory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("undisturbed"), tiny_model, chats, train__micro_tokens=256)
    assert run(folder) == DONE
    return folder


def fail_above(monkeypatch, limit: int, error: Exception) -> list[int]:
    """Passes of more than `limit` tokens fail as on a full card, after the forward pass has drawn random numbers."""
    refused = []
    whole = loss.PackedLoss.backward

    def backward(self, pack, divisor):
        if pack.input_ids.shape[1] > limit:
            refused.append(pack.input_ids.shape[1])
            torch.rand(100)
            raise error
        return whole(self, pack, divisor)

    monkeypatch.setattr(loss.PackedLoss, "backward", backward)
    return refused


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_out_of_memory_halves_the_pass_and_repeats_the_same_step(error, monkeypatch, tiny_model, chats, tmp_path):
    refused = fail_above(monkeypatch, 100, error)
    folder = make_run(tmp_path, tiny_model, chats, train__micro_tokens=256, lora__dropout=0.0)
    assert run(folder) == DONE
    assert refused
    shrinks = [event for event in events_of(folder, "event") if event["event"] == "oom"]
    assert shrinks[0]["micro_tokens"] < 256
    monkeypatch.undo()
    plain = make_run(tmp_path, tiny_model, chats, train__micro_tokens=256, lora__dropout=0.0)
    assert run(plain) == DONE
    for (_, got), (_, wanted) in zip(series(folder, "train/loss"), series(plain, "train/loss"), strict=True):
        assert math.isclose(float.fromhex(got), float.fromhex(wanted), rel_tol=1e-4)
    assert [step for step, _ in series(folder, "train/loss")] == [step for step, _ in series(plain, "train/loss")]


def test_a_repeated_step_draws_the_same_random_numbers(monkeypatch, tiny_model, chats, tmp_path):
    """With dropout: out of memory once, at the same pass size, ends bit-equal to never."""
    folder = make_run(tmp_path, tiny_model, chats)
    failed = []
    whole = loss.PackedLoss.backward

    def backward(self, pack, divisor):
        result = whole(self, pack, divisor)
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return result

    monkeypatch.setattr(loss.PackedLoss, "backward", backward)
    monkeypatch.setattr(train_module, "halve_micro_batch", lambda *args: None)
    assert run(folder) == DONE
    monkeypatch.undo()
    plain = make_run(tmp_path, tiny_model, chats)
    assert run(plain) == DONE
    assert series(folder) == series(plain)
    assert weights_hash(folder) == weights_hash(plain)


def test_out_of_memory_with_one_example_fails_with_what_helps(monkeypatch, tiny_model, chats, tmp_path):
    fail_above(monkeypatch, 4, torch.OutOfMemoryError("CUDA out of memory."))
    folder = make_run(tmp_path, tiny_model, chats)
    with pytest.raises(RunFailed) as caught, report_failure(folder):
        run(folder)
    assert "single example" in caught.value.message and "activation_checkpointing" in caught.value.hint
    state = last_state(folder)
    assert state["state"] == "failed" and SINGLE_EXAMPLE_TOO_LARGE.values_in(state["reason"])["step"] == 1


def test_evaluation_survives_less_memory_than_training_found(monkeypatch, tiny_model, chats, tmp_path, undisturbed):
    whole = loss.PackedLoss.__call__

    def call(self, pack):
        if pack.input_ids.shape[1] > 180 and not torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(self, pack)

    monkeypatch.setattr(loss.PackedLoss, "__call__", call)
    folder = make_run(tmp_path, tiny_model, chats, train__micro_tokens=256)
    assert run(folder) == DONE
    assert series(folder) == series(undisturbed)


def test_a_nonfinite_loss_stops_before_it_spoils_the_weights(monkeypatch, tiny_model, chats, tmp_path):
    whole = loss.PackedLoss.backward
    passes = []

    def backward(self, pack, divisor):
        passes.append(pack)
        result = whole(self, pack, divisor)
        return result * float("nan") if len(passes) > 8 else result

    monkeypatch.setattr(loss.PackedLoss, "backward", backward)
    folder = make_run(tmp_path, tiny_model, chats, train__micro_tokens=4096)
    with pytest.raises(RunFailed, match="the loss became NaN at step 9") as caught, report_failure(folder):
        run(folder)
    assert "last good checkpoint is step 8" in caught.value.hint or "step 6" in caught.value.hint
    state = last_state(folder)
    assert state["state"] == "failed" and "NaN at step 9" in state["reason"]
    assert events_of(folder, "metric")[-1]["nonfinite"]["train/loss"] == "nan"
    latest, _ = checkpoint.find(folder / "checkpoints", "latest")
    from safetensors.torch import load_file

    assert all(t.isfinite().all() for t in load_file(latest.path / "adapter_model.safetensors").values())


def test_evaluating_saving_and_generating_do_not_change_the_curve(tiny_model, chats, tmp_path, undisturbed):
    changes = {
        "eval__every": 2,
        "eval__metrics": ["exact_match"],
        "eval__prompts": ["Say moon twice."],
        "eval__max_new_tokens": 8,
        "save__every": 5,
    }
    folder = make_run(tmp_path, tiny_model, chats, train__micro_tokens=256, **changes)
    assert run(folder) == DONE
    assert series(folder) == series(undisturbed)
    assert weights_hash(folder) == weights_hash(undisturbed)
    assert {"prompt", "text", "step"} <= set(events_of(folder, "sample")[0])


def test_the_size_of_a_pass_changes_nothing_but_speed(tiny_model, chats, tmp_path):
    losses = []
    for micro_tokens in (4096, 64, 16):
        folder = make_run(tmp_path, tiny_model, chats, train__micro_tokens=micro_tokens, lora__dropout=0.0)
        assert run(folder) == DONE
        losses.append([float.fromhex(value) for _, value in series(folder, "train/loss")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_what_would_fail_late_is_tried_before_the_first_step(undisturbed):
    kinds = [
        event["kind"]
        for event in map(json.loads, (undisturbed / "journal.jsonl").read_text().splitlines())
        if event["kind"] in ("eval", "checkpoint", "metric")
    ]
    assert kinds.index("eval") < kinds.index("metric") and kinds.index("checkpoint") < kinds.index("metric")


def test_early_stopping_counts_evaluations_without_a_better_loss(tiny_model, chats, tmp_path):
    folder = make_run(
        tmp_path, tiny_model, chats, optim__learning_rate=0.5, train__epochs=30, train__early_stopping=2, eval__every=2
    )
    assert run(folder) == DONE
    (event,) = [event for event in events_of(folder, "event") if event["event"] == "early-stop"]
    values = [float.fromhex(value) for _, value in evals(folder)]
    best = values.index(min(values))
    assert len(values) - 1 - best == 2 and event["step"] == evals(folder)[-1][0]


def test_early_stopping_after_a_resume_says_how_many_evaluations_it_were(monkeypatch, tiny_model, chats, tmp_path):
    losses = itertools.chain([5.0], itertools.repeat(6.0))
    monkeypatch.setattr(train_module, "evaluate", lambda *args: {"eval/loss": next(losses)})
    folder = make_run(tmp_path, tiny_model, chats, train__early_stopping=1, eval__every=1)
    assert run(folder) == run(folder) == DONE  # the second as if the first had been killed before its last word
    resume_run.apply(folder, resume_run.check_resume(folder, [Layer("test", {"train.early_stopping": 3})]))
    assert run(folder) == DONE
    told = [(event["step"], event["message"]) for event in events_of(folder, "event") if event["event"] == "early-stop"]
    first, again, more = told
    assert first == again and first[0] == 1 and "in 1 evaluation:" in first[1]
    assert more[0] == 3 and "in 3 evaluations:" in more[1]


def test_retention_keeps_best_latest_epochs_and_the_last_steps(tiny_model, chats, tmp_path):
    folder = make_run(tmp_path, tiny_model, chats, train__epochs=3, save__every=2, save__keep_last=2)
    assert run(folder) == DONE
    names = checkpoint.links(folder / "checkpoints")
    linked = {name: step for step, group in names.items() for name in group}
    assert {"best", "latest", "epoch-1", "epoch-2", "epoch-3"} == set(linked)
    kept = checkpoint.steps(folder / "checkpoints")
    epochs = [linked[f"epoch-{n}"] for n in (1, 2, 3)]
    between = [step for step in kept if step not in epochs and step != linked["best"]]
    assert len(between) <= 2
    saved = {event["step"] for event in events_of(folder, "checkpoint")}
    removed = {event["step"] for event in events_of(folder, "checkpoint-removed")}
    assert saved - removed == set(kept)
    values = {step: float.fromhex(value) for step, value in evals(folder)}
    assert linked["best"] == min(values, key=values.get)


def test_a_full_disk_pauses_and_goes_on(monkeypatch, tiny_model, chats, tmp_path, undisturbed):
    looks = []

    class Usage:
        def __init__(self, free: int) -> None:
            self.free = free

    def disk_usage(path):
        looks.append(path)
        return Usage(0 if len(looks) < 4 else 10**15)

    monkeypatch.setattr(disk_room.shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(disk_space.time, "sleep", lambda seconds: None)
    folder = make_run(tmp_path, tiny_model, chats, train__micro_tokens=256)
    assert run(folder) == DONE
    told = [event["event"] for event in events_of(folder, "event")]
    assert told == ["disk-full", "disk-free"]
    assert series(folder) == series(undisturbed)


def test_resuming_with_another_library_says_that_the_loss_moved(monkeypatch, tiny_model, chats, tmp_path):
    folder = make_run(tmp_path, tiny_model, chats)
    train(folder, stop=StopAfter(2))
    whole = train_module.probe_loss
    monkeypatch.setattr(train_module, "probe_loss", lambda *args: whole(*args) * 1.01)
    assert run(folder) == DONE
    assert [event for event in events_of(folder, "event") if event["event"] == "probe-differs"]


def test_pretraining_takes_plain_text_and_learns_every_token(tiny_model, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("今天是晴天，适合出门散步。The river is long and the moon is bright.\n" * 60, "utf-8")
    folder = make_run(tmp_path, tiny_model, text, method__objective="pretrain", method__kind="full", train__epochs=4)
    assert run(folder) == DONE
    data = events_of(folder, "data")[0]
    assert data["train"]["supervised"] == data["train"]["tokens"] - data["train"]["examples"]
    losses = [float.fromhex(value) for _, value in series(folder, "train/loss")]
    assert losses[-1] < losses[0] - 1


def test_a_classification_table_reports_exact_match(tiny_model, tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{word} number {n},{label}" for n in range(12) for word, label in (("apple", "fruit"), ("moon", "sky"))]
    table.write_text("text,label\n" + "\n".join(rows) + "\n")
    folder = make_run(
        tmp_path,
        tiny_model,
        table,
        eval__metrics=["exact_match"],
        eval__max_new_tokens=8,
        train__epochs=20,
        method__kind="full",
        optim__learning_rate=5e-3,
    )
    assert run(folder) == DONE
    scores = [event["values"]["eval/exact_match"] for event in events_of(folder, "eval")]
    assert scores[0] == 0 and scores[-1] == 1


def test_too_many_bad_lines_refuse_to_start_and_name_them(tiny_model, chats, tmp_path):
    broken = tmp_path / "broken.jsonl"
    lines = chats.read_text("utf-8").splitlines()
    lines[3] = lines[3][:40]
    lines[7] = "not json"
    broken.write_text("\n".join(lines), "utf-8")
    folder = make_run(tmp_path, tiny_model, broken, data__max_bad_share=0.01)
    with pytest.raises(DataError) as caught, report_failure(folder):
        run(folder)
    assert "broken.jsonl:4" in caught.value.message and "broken.jsonl:8" in caught.value.message
    below = make_run(tmp_path, tiny_model, broken, data__max_bad_share=0.5)
    assert run(below) == DONE
    assert sum(events_of(below, "data")[0]["problem_counts"].values()) == 2


def test_a_last_short_batch_is_trained_and_nothing_is_dropped(tiny_model, tmp_path):
    rows = [{"prompt": f"Say {n}.", "completion": f"{n}"} for n in range(7)]
    data = write_jsonl(tmp_path / "seven.jsonl", rows)
    folder = make_run(tmp_path, tiny_model, data, data__val_fraction=0.0, train__epochs=1)
    assert run(folder) == DONE
    plan, counts = events_of(folder, "plan")[0], events_of(folder, "data")[0]["train"]
    assert plan["steps_per_epoch"] == plan["total_steps"] == 2
    assert events_of(folder, "metric")[-1]["values"]["train/tokens"] == counts["tokens"]


def test_a_trial_may_take_what_others_leave_of_a_card():
    gib = 2**30
    assert memory_fit.trial_budget(80 * gib, 0, gib) == pytest.approx(71 * gib)
    assert memory_fit.trial_budget(80 * gib, 73 * gib, gib) == pytest.approx(5.3 * gib), "not less than nothing"


def test_memory_errors_are_told_from_others():
    assert memory_fit.is_out_of_memory(MemoryError())
    full = torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")
    assert failure(full) == {
        "reason": "out of memory: CUDA error: out of memory",
        "hint": "`finetop top` shows who else holds memory.",
        "cause": "out-of-memory",
    }
    with pytest.raises(torch.AcceleratorError), load._loading(ModelConfig(), "model"):
        raise full  # not told as a model that cannot be loaded
    assert not memory_fit.is_out_of_memory(RuntimeError("shape mismatch"))
    long = torch.AcceleratorError("CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in ...")
    assert failure(long)["reason"] == "AcceleratorError: CUDA error: device-side assert triggered"
    assert failure(MemoryError())["reason"] == "out of memory: MemoryError", "Python's own has no text"


@pytest.mark.parametrize(
    ("free", "visible", "out"),
    [((2**20, 2**36), "0", True), ((2**20, 2**36), "1", False), ((2**36, 2**36), "0", False)],
)
def test_a_card_without_room_for_a_context_is_out_of_memory_and_one_in_exclusive_mode_is_not(
    free, visible, out, monkeypatch
):
    class Driver:
        def devices(self):
            return range(len(free))

        def read(self, index):
            total = 2**37
            return GpuSample(index, f"GPU-{index}", memory_total_bytes=total, memory_used_bytes=total - free[index])

    monkeypatch.setattr(out_of_memory, "Nvml", Driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    busy = torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nSearch for ...")
    assert out_of_memory.is_out_of_memory(busy) is out


def test_a_tokenizer_larger_than_the_model_is_told_before_training(chats, tmp_path):
    from transformers import AutoModelForCausalLM

    from tests.engine.families import FAMILIES, tokenizer

    config = FAMILIES["qwen2.5"]()
    config.vocab_size = 300
    model = tmp_path / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    tokenizer().save_pretrained(model)
    with pytest.raises(ModelError, match="the model knows 300 tokens"):
        run(make_run(tmp_path, model, chats))


def test_a_model_with_its_own_table_of_attentions_trains_on_the_plain_path(chats, tmp_path):
    from transformers import AutoModelForCausalLM, FalconConfig

    from tests.engine.families import tokenizer

    model = tmp_path / "falcon"
    config = FalconConfig(vocab_size=600, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, bos_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    tokenizer().save_pretrained(model)
    folder = make_run(tmp_path, model, chats, train__epochs=1)
    assert run(folder) == DONE
    assert events_of(folder, "model")[0]["path"] == "plain"
    with pytest.raises(ModelError, match=r"model\.attention is packed"):
        run(make_run(tmp_path, model, chats, model__attention="packed"))


def test_passes_on_the_cpu_are_cut_to_what_a_container_has(fake_groups, tiny_model, chats, tmp_path):
    """Not tried out: the kernel would end it. The same is planned."""
    whole = make_run(tmp_path / "whole", tiny_model, chats, train__micro_tokens="auto")
    config = read_run(whole).config
    shape, inputs = find_shape(config.model), EstimateInputs("cpu", bfloat16=False, longest=26, step_tokens=104)
    most, least = (shape_estimate(config, shape, micro_tokens=tokens, inputs=inputs).expected for tokens in (104, 52))
    fake_groups("/job").group("/job", limit=int((most + least) / 2 / HOST_SHARE))
    assert host_pass_tokens(config, shape, inputs, HostReader().read().memory_bytes) == 52
    assert run(whole) == DONE
    (resumed,) = events_of(whole, "resume")
    assert 26 <= resumed["micro_tokens"] < 104


def test_weights_that_no_memory_here_holds_are_not_loaded(fake_groups, monkeypatch, tiny_model, chats, tmp_path):
    swap = psutil.swap_memory()._replace(total=0)
    monkeypatch.setattr(psutil, "swap_memory", lambda: swap)
    fake_groups("/docker/4f").group("/docker/4f", limit=100_000)
    monkeypatch.setattr(train_module, "load_base", None)
    with pytest.raises(OutOfMemory, match=r"weights take .*, and 97.7 KiB is all .*container is limited"):
        run(make_run(tmp_path, tiny_model, chats))
