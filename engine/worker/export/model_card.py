"""The model card of an export: what it is, how it was made, how good it is, how to load it."""

import json
from pathlib import Path
from typing import Any

from engine import __version__
from engine.base.messages import msg
from engine.runs import evaluation_folder, journal
from engine.settings.schema import SETTINGS, RunConfig

_SHOWN = ("model.", "method.", "lora.", "optim.", "train.", "data.")
_NOT_SHOWN = ("data.files", "data.val_files", "train.threads", "model.name")


def model_card(saved: Any, config: RunConfig, exported: Any, run_folder: Path | None) -> str:
    """README.md for the exported folder. `last` is the checkpoint, `done` what was written (export.Exported)."""
    base = config.model.name
    title = config.run.name or f"{Path(base).name} fine-tuned"
    kind = {"full": "all weights trained", "lora": "LoRA", "qlora": "QLoRA (base held in 4 bits while training)"}
    front = {
        "base_model": base,
        "library_name": {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[exported.form],
        "tags": ["finetop", config.method.kind, config.method.objective],
    }
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""]
    lines += [f"# {_text(title)}", ""]
    lines.append(
        msg(
            "{base}, {kind}, by finetop {version}: step {step:,}, epoch {epoch:.4g}. Form: {form}, {dtype}.",
            base=_text(base),
            kind=kind[config.method.kind],
            version=__version__,
            step=saved.step,
            epoch=saved.epoch,
            form=exported.form,
            dtype=exported.dtype,
        )
    )
    lines += ["", *exported.notes] if exported.notes else []
    lines += ["", "## How to load it", "", *_how(exported), *_ends(exported)]
    results = _results(saved, run_folder)
    if results:
        lines += ["", "## Results", "", "| | |", "|---|---:|", *(f"| {_text(k)} | {v:.4g} |" for k, v in results)]
    lines += ["", "## Data", "", "| file | sha256 |", "|---|---|"]
    lines += [f"| {_text(Path(path).name)} | `{sha}` |" for path, sha in saved.manifest.get("data", {}).items()]
    lines += ["", "## Settings", "", "Those that are not the defaults.", "", "| setting | value |", "|---|---|"]
    flat = config.flat()
    lines += [
        f"| {path} | {_text(json.dumps(flat[path], ensure_ascii=False))} |"
        for path in SETTINGS
        if path.startswith(_SHOWN) and path not in _NOT_SHOWN and flat[path] != SETTINGS[path].default
    ]
    lines += ["", "## Verified", ""]
    lines.append(
        msg(
            "Loaded again with {libraries} alone, its logits differ from "
            "the checkpoint's by at most {difference:.3g} (their standard deviation is {spread:.3g}); the most "
            "likely next token is the same at {percent:.4g}% of the positions.",
            libraries="transformers and peft" if exported.form == "adapter" else "transformers",
            difference=exported.difference,
            spread=exported.spread,
            percent=100 * exported.same_first,
        )
    )
    if exported.trained_difference is not None:
        lines.append(
            msg(
                "From the model as it was trained, on 4-bit weights, they differ by at most {trained_difference:.3g}:"
                " that is the rounding to 4 bits, which this form does not have.",
                trained_difference=exported.trained_difference,
            )
        )
    versions = ", ".join(f"{name} {version}" for name, version in (saved.manifest.get("versions") or {}).items())
    lines += ["", msg("Trained with {versions}.", versions=_text(versions))] if versions else []
    lines += ["", "## Licence", "", _licence(base)]
    return "\n".join(lines) + "\n"


def _how(exported: Any) -> list[str]:
    if exported.form == "gguf":
        name = next(name for name in exported.files if name.endswith(".gguf"))
        shell = ["```sh", f"llama-cli -m {name} -p 'Hello' -cnv", "```"]
        return [*shell, "", "or in Ollama, with a Modelfile:", "", "```", f"FROM ./{name}", "```"]
    adapter = exported.form == "adapter"
    more = ", GenerationConfig" if adapter and exported.ends else ""
    script = ["```python", f"from transformers import AutoModelForCausalLM, AutoTokenizer{more}"]
    if adapter:
        source = json.loads((Path(exported.target) / "adapter_config.json").read_text("utf-8"))[
            "base_model_name_or_path"
        ]
        script += ["from peft import PeftModel", "",
                   f"base = AutoModelForCausalLM.from_pretrained({source!r})",
                   'model = PeftModel.from_pretrained(base, ".")']  # fmt: skip
        script += ['model.generation_config = GenerationConfig.from_pretrained(".")'] if exported.ends else []
    else:
        script += ["", 'model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")']
    return [
        *script,
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        'messages = [{"role": "user", "content": "Hello"}]',
        "inputs = tokenizer.apply_chat_template("
        'messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))",
        "```",
    ]


def _ends(exported: Any) -> list[str]:
    """Where answers end, and what the user has to do about it."""
    if not exported.ends:
        return []
    first, *other_ends = (f"`{token}`" for token in exported.ends)
    sentences = msg("Answers end with {first}", first=first) + (
        msg(", or at {other_ends}.", other_ends=", ".join(other_ends)) if other_ends else "."
    )
    if exported.form == "adapter":
        sentences += (
            " generation_config.json says so; an adapter is loaded with that of its base unless it is named, as"
        )
        sentences += " above, or in vLLM with `--generation-config`."
    elif exported.form == "merged":
        sentences += " generation_config.json says so, which transformers and vLLM read by themselves."
    return ["", sentences]


def _results(saved: Any, run_folder: Path | None) -> list[tuple[str, float]]:
    """Scores at the checkpoint's step: those of training, then those of `finetop eval`."""
    scores: dict[str, float] = {}
    if saved.manifest.get("validation_loss") is not None:
        scores["validation loss"] = saved.manifest["validation_loss"]
    if run_folder is None:
        return list(scores.items())
    for event in journal.effective(journal.read(run_folder)[0]):
        if event["kind"] == "eval" and event.get("step") == saved.step:
            scores |= {key: value for key, value in event["values"].items() if value is not None and key != "eval/loss"}
    for evaluation in evaluation_folder.results_at(run_folder, saved.step, saved.step, any_step=False):
        if evaluation.source == "eval":
            where = msg(
                " on {dataset} ({examples:,} examples)",
                dataset=evaluation.data or evaluation.folder.name,
                examples=evaluation.examples,
            )
            scores |= {f"{key}{where}": value for key, value in evaluation.scores.items()}
    return list(scores.items())


def _licence(base: str) -> str:
    if base == "starter":
        return "finetop's starter model is under Apache-2.0, and so may be what is made from it."
    return msg(
        "This is a derivative of {base}: its licence applies to this model too, and may ask for a notice, a "
        "name or limits of use. Read it before you pass the model on. The training data may set terms of their own.",
        base=_text(base),
    )


def _text(text: str) -> str:
    """Text of unknown origin in Markdown: one line, with nothing that a renderer would interpret."""
    flat = "".join(char if char.isprintable() else " " for char in text)
    for char in "\\`*_|<>[]":
        flat = flat.replace(char, f"\\{char}")
    return flat
