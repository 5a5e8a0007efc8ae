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


def model_card(last: Any, config: RunConfig, done: Any, run_folder: Path | None) -> str:
    """README.md for the exported folder. `last` is the checkpoint, `done` what was written (export.Exported)."""
    base = config.model.name
    title = config.run.name or f"{Path(base).name} fine-tuned"
    kind = {"full": "all weights trained", "lora": "LoRA", "qlora": "QLoRA (base held in 4 bits while training)"}
    front = {
        "base_model": base,
        "library_name": {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[done.form],
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
            step=last.step,
            epoch=last.epoch,
            form=done.form,
            dtype=done.dtype,
        )
    )
    lines += ["", *done.notes] if done.notes else []
    lines += ["", "## How to load it", "", *_how(done), *_ends(done)]
    results = _results(last, run_folder)
    if results:
        lines += ["", "## Results", "", "| | |", "|---|---:|", *(f"| {_text(k)} | {v:.4g} |" for k, v in results)]
    lines += ["", "## Data", "", "| file | sha256 |", "|---|---|"]
    lines += [f"| {_text(Path(path).name)} | `{sha}` |" for path, sha in last.manifest.get("data", {}).items()]
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
            "Loaded again with transformers{suffix} alone, its logits differ from "
            "the checkpoint's by at most {difference:.3g} (their standard deviation is {spread:.3g}); the most "
            "likely next token is the same at {value:.4g} % of the positions.",
            suffix=" and peft" if done.form == "adapter" else "",
            difference=done.difference,
            spread=done.spread,
            value=100 * done.same_first,
        )
    )
    if done.trained_difference is not None:
        lines.append(
            msg(
                "From the model as it was trained, on 4-bit weights, they differ by at most {trained_difference:.3g}:"
                " that is the rounding to 4 bits, which this form does not have.",
                trained_difference=done.trained_difference,
            )
        )
    versions = ", ".join(f"{name} {version}" for name, version in (last.manifest.get("versions") or {}).items())
    lines += ["", msg("Trained with {versions}.", versions=_text(versions))] if versions else []
    lines += ["", "## Licence", "", _licence(base)]
    return "\n".join(lines) + "\n"


def _how(done: Any) -> list[str]:
    if done.form == "gguf":
        name = next(name for name in done.files if name.endswith(".gguf"))
        shell = ["```sh", f"llama-cli -m {name} -p 'Hello' -cnv", "```"]
        return [*shell, "", "or in Ollama, with a Modelfile:", "", "```", f"FROM ./{name}", "```"]
    adapter = done.form == "adapter"
    more = ", GenerationConfig" if adapter and done.ends else ""
    script = ["```python", msg("from transformers import AutoModelForCausalLM, AutoTokenizer{more}", more=more)]
    if adapter:
        source = json.loads((Path(done.target) / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
        script += ["from peft import PeftModel", "",
                   f"base = AutoModelForCausalLM.from_pretrained({source!r})",
                   'model = PeftModel.from_pretrained(base, ".")']  # fmt: skip
        script += ['model.generation_config = GenerationConfig.from_pretrained(".")'] if done.ends else []
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


def _ends(done: Any) -> list[str]:
    """Where answers end, and what of it the user has to see to."""
    if not done.ends:
        return []
    first, *others = (f"`{token}`" for token in done.ends)
    said = msg("Answers end with {first}", first=first) + (
        msg(", or at {others}.", others=", ".join(others)) if others else "."
    )
    if done.form == "adapter":
        said += " generation_config.json says so; an adapter is loaded with that of its base unless it is named, as"
        said += " above, or in vLLM with `--generation-config`."
    elif done.form == "merged":
        said += " generation_config.json says so, which transformers and vLLM read by themselves."
    return ["", said]


def _results(last: Any, run_folder: Path | None) -> list[tuple[str, float]]:
    """Scores at the checkpoint's step: those of training, then those of `finetop eval`."""
    found: dict[str, float] = {}
    if last.manifest.get("validation_loss") is not None:
        found["validation loss"] = last.manifest["validation_loss"]
    if run_folder is None:
        return list(found.items())
    for event in journal.effective(journal.read(run_folder)[0]):
        if event["kind"] == "eval" and event.get("step") == last.step:
            found |= {key: value for key, value in event["values"].items() if value is not None and key != "eval/loss"}
    for result in evaluation_folder.results_at(run_folder, last.step, last.step, any_step=False):
        if result.source == "eval":
            where = msg(
                " on {data} ({examples:,} examples)", data=result.data or result.folder.name, examples=result.examples
            )
            found |= {f"{key}{where}": value for key, value in result.scores.items()}
    return list(found.items())


def _licence(base: str) -> str:
    if base == "starter":
        return "finetop's starter model is under Apache-2.0, and so may be what is made from it."
    return msg(
        "This is a derivative of {base}: its licence applies to this model too, and may ask for a notice, a "
        "name or limits of use. Read it before you pass the model on. The training data may set terms of their own.",
        base=_text(base),
    )


def _text(text: str) -> str:
    """Text of unknown origin in Markdown: one line, nothing a renderer would obey."""
    flat = "".join(char if char.isprintable() else " " for char in text)
    for char in "\\`*_|<>[]":
        flat = flat.replace(char, f"\\{char}")
    return flat
