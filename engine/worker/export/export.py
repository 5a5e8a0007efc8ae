"""`python -m engine.worker.export.export CHECKPOINT TARGET --to FORM`: write a checkpoint for other programs.

The export appears under its name only when it is whole and verified: it is written beside the target, loaded again
with nothing but transformers (and peft), and its logits are compared with those of the checkpoint as finetop runs it.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import CheckpointError, EngineError, InputError
from engine.base.messages import msg
from engine.base.system_errors import refused_write
from engine.base.units import bytes_text
from engine.runs.checkpoints import untrained_note
from engine.settings.resolve import from_groups
from engine.settings.schema import RunConfig
from engine.worker.export.verify_export import (
    PROBE_TOKENS,
    ROUNDING,
    compare_logits,
    difference_as_trained,
    load_plain_adapter,
    load_plain_model,
    logits_of,
    probe_ids,
    quiet_libraries,
    refuse_difference,
    trust_options,
)

FORMS = ("adapter", "merged", "gguf")
DTYPES = ("auto", "float32", "float16", "bfloat16")
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from the checkpoint."""

    target: str
    form: str
    dtype: str
    bytes: int
    files: tuple[str, ...]
    difference: float
    """Largest difference of any logit to the checkpoint's."""
    spread: float
    """Standard deviation of the checkpoint's logits, to judge the difference by."""
    same_first: float
    """Share of the positions at which both would write the same token."""
    trained_difference: float | None
    """For QLoRA: the largest difference to the model as it was trained, on weights rounded to 4 bits."""
    notes: tuple[str, ...]
    ends: tuple[str, ...] = ()
    """The tokens at which answers stop, the end of turn first; none where plain text was trained."""


def export(
    path: Path,
    target: Path,
    form: str,
    dtype: str = "auto",
    run_folder: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write the checkpoint at `path` as `form` into the new folder `target`, and verify it. `say` prints progress.

    Raises InputError for what cannot be exported in that form, CheckpointError when the checkpoint is damaged, the
    disk too small, or the export not the same model; then nothing is left at `target`.
    """
    from engine.worker.model.base_weights import with_located_model
    from engine.worker.runtime import checkpoint

    refuse_target(target)
    say("reading the checkpoint")
    saved = checkpoint.verify(path)
    config = with_located_model(from_groups(saved.manifest["config"], "checkpoint"), run_folder)
    if form == "adapter" and config.method.kind == "full":
        raise InputError("this run trained all weights, so it has no adapter", "Export it with --to merged.")
    temporary = target.parent / f".{target.name}.part-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        exported = _write(saved, config, temporary, form, dtype, run_folder, say)
        if target.exists():
            target.rmdir()
        os.rename(temporary, target)
    except Exception as error:
        if refused := refused_write(error):
            raise CheckpointError(refused.message, refused.hint) from error
        if isinstance(error, OSError):
            raise CheckpointError(
                msg("{target} cannot be written: {error}", target=target, error=error.strerror or error)
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dataclasses.replace(exported, target=str(target))


def refuse_target(target: Path) -> None:
    """InputError unless `target` can become a new folder."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(
            msg("{target} exists and is no folder", target=target), "Name a folder that does not exist yet."
        )
    if target.is_dir() and any(target.iterdir()):
        raise InputError(
            msg("{target} exists and is not empty", target=target), "Name another folder, or empty this one yourself."
        )


def _write(
    saved: Any,
    config: RunConfig,
    folder: Path,
    form: str,
    dtype: str,
    run_folder: Path | None,
    say: Callable[[str], None],
) -> Exported:
    import torch
    from transformers import AutoTokenizer

    from engine.worker.data.chat_template import ChatTemplate
    from engine.worker.export import model_card
    from engine.worker.model.base_weights import base_notes
    from engine.worker.model.generation_config import answer_ends, end_turns, stop_at, write_generation_config
    from engine.worker.model.load import model_source
    from engine.worker.runtime.initial_weights import initial_model

    full = config.method.kind == "full"
    source = str(saved.path) if full else initial_model(config.model) or model_source(config.model)
    tokenizer = AutoTokenizer.from_pretrained(str(saved.path), trust_remote_code=config.model.trust_remote_code)
    notes = [msg("Mind that {note}.", note=note)] if (note := untrained_note(saved.path)) else []
    notes += [] if full else base_notes(saved, config, source)
    say("loading the model in full precision")
    model = _as_trained(saved, config, source)
    end_ids: tuple[int, ...] = ()
    if config.method.objective == "sft":
        end_ids = answer_ends(ChatTemplate(tokenizer), model)
    if form == "gguf":
        from engine.worker.export.gguf_loader import refuse_config

        refuse_config(model if full else model.get_base_model())
    # What reads GGUF knows no sliding window; within it there is no difference.
    window = getattr(model.config, "sliding_window", None) if form == "gguf" else None
    probes = probe_ids(tokenizer, min(window or PROBE_TOKENS, PROBE_TOKENS))
    dtype_name = _dtype(dtype, form, config)
    reference = logits_of(model, probes)
    if config.method.kind == "qlora" and form != "adapter":
        notes.append(
            "Trained on weights rounded to 4 bits; merged into the full-precision weights of the base model, not into "
            "the rounded ones."
        )
    size = _bytes_needed(model, saved.path, form, dtype_name)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise CheckpointError(
            msg(
                "{size} are needed in {folder}, {free} are free",
                size=bytes_text(size),
                folder=folder.parent,
                free=bytes_text(free),
            ),
            "Free some space, or export to another disk.",
        )
    say(msg("writing {size}", size=bytes_text(size)))
    if form == "adapter":
        _copy_adapter(saved.path, folder, source, config.model.revision)
        end_turns(tokenizer, end_ids)
        tokenizer.save_pretrained(folder)
        write_generation_config(model, end_ids, folder)
        del model
        expected = reference
        reload: Callable[[], Any] = lambda: load_plain_adapter(folder, config)  # noqa: E731
    else:
        merged = model if full else _merged(model)
        del model
        refuse_difference(reference, logits_of(merged, probes), "merging changed the model")
        merged.config.use_cache = True  # training had switched it off
        if form == "merged":
            _cast(merged, getattr(torch, dtype_name))
            merged.config = stop_at(merged.config, end_ids)  # SGLang and MLX read it there
            merged.save_pretrained(folder)
            write_generation_config(merged, end_ids, folder)
            end_turns(tokenizer, end_ids)
            tokenizer.save_pretrained(folder)
            _cast(merged, torch.float32)
            reload = lambda: load_plain_model(folder, **trust_options(config))  # noqa: E731
        else:
            from engine.worker.export import gguf_file

            file = folder / f"{_file_stem(config, saved)}-{_GGUF_NAMES[dtype_name]}.gguf"
            notes += gguf_file.write(merged, tokenizer, file, dtype_name, end_ids)
            say("reading it back")
            gguf_file.verify(merged, file)
            gguf_file.round_matrices(merged, dtype_name)
            # With a config: transformers does not read some sizes, such as Qwen3's heads, from the file but guesses.
            shape = gguf_file.reading_config(merged)
            reload = lambda: load_plain_model(folder, gguf_file=file.name, config=shape)  # noqa: E731
        expected = logits_of(merged, probes)  # of the weights as they were written
        del merged
    say("loading the result with transformers alone")
    with quiet_libraries():
        loaded = reload()
    exported_logits = logits_of(loaded, probes)
    del loaded
    refuse_difference(expected, exported_logits, "what was written does not read back as the same model")
    difference, spread, same = compare_logits(reference, exported_logits)
    if not difference <= ROUNDING * spread:
        raise CheckpointError(
            msg(
                "rounding to {dtype} makes it another model: a logit differs by {difference:.3g}",
                dtype=dtype_name,
                difference=difference,
            ),
            "Nothing was kept. Use --dtype float32, or bfloat16, which holds the same range.",
        )
    trained_difference = difference_as_trained(saved, config, source, probes, exported_logits)
    files = tuple(sorted(entry.name for entry in folder.iterdir()))
    exported = Exported(
        target=str(folder),
        form=form,
        dtype=dtype_name,
        bytes=0,
        files=(*files, "README.md"),
        difference=difference,
        spread=spread,
        same_first=same,
        trained_difference=trained_difference,
        notes=tuple(notes),
        ends=tuple(tokenizer.convert_ids_to_tokens(list(end_ids))),
    )
    (folder / "README.md").write_text(model_card.model_card(saved, config, exported, run_folder), "utf-8")
    return dataclasses.replace(exported, bytes=sum(entry.stat().st_size for entry in folder.iterdir()))


_GGUF_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def _file_stem(config: RunConfig, saved: Any) -> str:
    name = config.run.name or Path(config.model.name).name
    kept = "".join(char if char.isalnum() or char in "-_." else "-" for char in name).strip("-.")
    return f"{kept[:60] or 'model'}-step-{saved.step}"


def _as_trained(saved: Any, config: RunConfig, source: str) -> Any:
    """The checkpoint's model in float32 on the CPU, an adapter unmerged on the full-precision weights of `source`."""
    import torch

    from engine.monitor.host import HostReader
    from engine.worker.model.load import Precision, load_base, make_trainable
    from engine.worker.runtime.resume_checks import load_adapter

    full = config.method.kind == "full"
    if (weights := _weight_bytes(Path(source))) is not None:
        # Weights are mostly stored in 16 bits: twice that in float32, and some of it again while they are read.
        needed, free = 2.5 * weights, HostReader().read().memory_free_bytes or 0
        if needed > free:
            raise CheckpointError(
                msg(
                    "about {needed} of memory are needed, {free} are free",
                    needed=bytes_text(needed),
                    free=bytes_text(free),
                ),
                "Export on a machine with more memory; on a GPU server close what holds memory.",
            )
    plain = config.replace({"method.kind": "full" if full else "lora"})
    base = load_base(plain, Precision(torch.device("cpu"), None, torch.float32), source)
    if full:
        return base.eval()
    model = make_trainable(base, plain)
    load_adapter(model, saved)
    return model.eval()


def _weight_bytes(folder: Path) -> int | None:
    sizes = [entry.stat().st_size for entry in folder.glob("*.safetensors")] if folder.is_dir() else []
    return sum(sizes) or None


def _dtype(dtype: str, form: str, config: RunConfig) -> str:
    """The type of the written weights: for `auto` that of an adapter's as they are, else that of the base's files."""
    import torch
    from transformers import AutoConfig

    from engine.worker.model.load import model_source

    if form == "adapter":
        if dtype not in ("auto", "float32"):
            raise InputError("an adapter is handed over as it was trained, in float32", "Leave out --dtype.")
        return "float32"
    if dtype != "auto":
        return dtype
    with contextlib.suppress(Exception):  # anything may be wrong with a base's config; then float32 is right
        stored = AutoConfig.from_pretrained(model_source(config.model), revision=config.model.revision or None).dtype
        if stored in (torch.float16, torch.bfloat16):
            return str(stored).removeprefix("torch.")
    return "float32"


def _bytes_needed(model: Any, path: Path, form: str, dtype: str) -> int:
    spare = 50_000_000  # tokenizer, card, and what a file system takes for itself
    if form == "adapter":
        return spare + sum((path / name).stat().st_size for name in _ADAPTER_FILES)
    bytes_per_number = 4 if dtype == "float32" else 2
    return spare + bytes_per_number * sum(p.numel() for p in model.parameters())


def _copy_adapter(path: Path, folder: Path, base: str, revision: str) -> None:
    shutil.copy2(path / "adapter_model.safetensors", folder)
    adapter_config = json.loads((path / "adapter_config.json").read_text("utf-8"))
    adapter_config["base_model_name_or_path"] = base
    if revision:
        adapter_config["revision"] = revision
    (folder / "adapter_config.json").write_text(
        json.dumps(adapter_config, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )


def _cast(model: Any, dtype: Any) -> None:
    """The parameters alone: `model.to` would round the rotation's frequencies too, which no file holds."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _merged(model: Any) -> Any:
    with quiet_libraries():
        return model.merge_and_unload(safe_merge=True)  # refuses to merge NaN


def main(arguments: list[str] | None = None) -> int:
    """Export as the arguments say, and print the outcome as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.worker.export.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--to", choices=FORMS, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--run", type=Path, help="the run's folder, for its results")
    options = parser.parse_args(arguments)
    with _own_output() as say:
        try:
            done = export(options.checkpoint, options.target, options.to, options.dtype, options.run, say)
            code, reply = 0, dataclasses.asdict(done)
        except EngineError as error:
            code, reply = error.exit_code, {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        except Exception as error:
            say(traceback.format_exc())
            refused = refused_write(error) or EngineError(f"{type(error).__name__}: {error}")
            code, reply = 1, {"error": refused.message, "hint": refused.hint, "exit_code": 1}
    print(json.dumps(reply))
    return code


@contextlib.contextmanager
def _own_output() -> Iterator[Callable[[str], None]]:
    """A function that prints to stderr, while what libraries print (bars, advice) is discarded."""
    ours, out = os.dup(2), os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)

    def say(text: str) -> None:
        os.write(ours, f"{text}\n".encode("utf-8", "replace"))

    try:
        os.dup2(nowhere, 2)
        os.dup2(nowhere, 1)
        yield say
    finally:
        sys.stdout.flush()
        os.dup2(ours, 2)
        os.dup2(out, 1)
        for descriptor in (ours, out, nowhere):
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
