"""`python -m engine.worker.serve < request.json`: evaluate models on data, or let them answer prompts.

The request is one JSON object, made by `finetop eval` and `finetop sample` (engine/cli/commands/eval.py,
engine/cli/commands/sample.py);
what comes back on stdout is one JSON object a line, its `kind` being progress, result, answers or error.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from engine.base.messages import msg
from engine.models.device_limits import CPU_TOKENS

_GPU_TOKENS = 16384
"""Tokens of one pass; halved where they do not fit."""
_FEWER_SHOTS = (
    "With examples in its prompt nothing is cut: give --shots a smaller number, or leave the longest rows out."
)


def main() -> int:
    """Serve the request on stdin; returns the exit code."""
    from engine.base.errors import EngineError, first_line
    from engine.base.system_errors import refused_write
    from engine.worker.runtime.environment import set_environment

    set_environment()
    # What libraries print must not come between these lines.
    out, sys.stdout = sys.stdout, sys.stderr
    output = _Output(out)
    try:
        request = json.load(sys.stdin)
        output.progress("loading libraries", 0, 0)
        from engine.worker.model.out_of_memory import is_out_of_memory
    except Exception:
        traceback.print_exc()
        return 1
    try:
        (_evaluate if request["task"] == "eval" else _sample)(request, output)
        return 0
    except EngineError as error:
        output.send("error", message=error.message, hint=error.hint, exit_code=error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        message, hint = f"{type(error).__name__}: {error}", ""
        if refused := refused_write(error):
            message, hint = refused.message, refused.hint
        if is_out_of_memory(error):
            message = msg("out of memory: {error}", error=first_line(error))
            hint = "Even one example at a time does not fit. A shorter --max-new-tokens needs less."
        output.send("error", message=message, hint=hint, exit_code=1)
        return 1


class _Output:
    """JSON lines on stdout, for the command that started this process."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._last = 0.0

    def send(self, kind: str, **fields: Any) -> None:
        self._out.write(json.dumps({"kind": kind, **fields}) + "\n")
        self._out.flush()

    def warnings(self, models: Any, name: str) -> None:
        """Those of the model's reference, once."""
        if warning := models.warnings.pop(name, ""):
            self.send("note", message=f"{name}: {warning}")

    def progress(self, doing: str, done: int, of: int) -> None:
        """At most ten a second."""
        now = time.monotonic()
        if done and done < of and now - self._last < 0.1:
            return
        self._last = now
        self.send("progress", doing=doing, done=done, of=of)


def _evaluate(request: dict[str, Any], output: _Output) -> None:
    from engine.runs.model_refs import ModelRef
    from engine.settings.resolve import Layer, resolve
    from engine.worker.evaluate.eval_data import choose_shots, encode, read_sources
    from engine.worker.evaluate.measure import describe, measure
    from engine.worker.evaluate.model_cache import ModelCache
    from engine.worker.runtime.torch_setup import set_up_torch

    refs = [ModelRef.from_json(fields) for fields in request["targets"]]
    reading = resolve([Layer("request", request["reading"])]).config
    output.progress("reading data", 0, 0)
    sources = read_sources(reading, request["files"], with_train=True)
    shots = choose_shots(sources, request["shots"], request["seed"])
    spec = _eval_spec(request, reading, sources.labels)
    models = ModelCache()
    set_up_torch(refs[0].config, models.device)
    micro_tokens = request["micro_tokens"] or (CPU_TOKENS if models.device.type == "cpu" else _GPU_TOKENS)
    for ref in refs:
        output.progress(f"loading {ref.name}", 0, 0)
        template = models.template(ref)
        eval_set = encode(reading, template, sources, shots)
        started = time.monotonic()
        with models.acquire(ref, template, eval_set.tokens, _FEWER_SHOTS if shots else "") as loaded:
            output.warnings(models, ref.name)

            def report(doing: str, done: int, of: int, name: str = ref.name) -> None:
                output.progress(f"{name}: {doing}", done, of)

            evaluation = measure(
                loaded,
                eval_set.tokens,
                eval_set.examples,
                sources.labels,
                spec,
                micro_tokens,
                report,
                eval_set.keys,
                eval_set.files,
            )
            if evaluation.command_failed:
                raise evaluation.command_failed
            record = describe(evaluation, loaded, spec, time.monotonic() - started)
        skipped, bad_rows = eval_set.rows["eval"]["skipped"], sources.report.bad_rows
        record["data"] |= {**eval_set.rows, "skipped": skipped, "bad_rows": bad_rows}
        if sources.from_run:
            record["data"]["part"] = "validation"
        record["generation"]["shots"] = request["shots"]
        path, record = _keep(request, ref, record, evaluation.predictions())
        output.send("result", target=ref.name, folder=str(path), result=record)


def _eval_spec(request: dict[str, Any], reading: Any, labels: tuple[str, ...]) -> Any:
    """What to measure: what the request names; else what the run's settings name; else what suits the data."""
    from engine.worker.evaluate.generate import Sampling
    from engine.worker.evaluate.measure import EvalSpec

    metrics = request["metrics"]
    if metrics is None:
        metrics = reading.eval.metrics
    nothing_requested = request["metrics"] is None and not metrics and not reading.eval.command
    if nothing_requested and reading.method.objective == "sft":
        metrics = ["accuracy", "macro_f1"] if labels else ["exact_match", "rouge_l"]
    config = reading.replace({"eval.metrics": list(metrics)}).eval
    sampling = Sampling(config.max_new_tokens, request["temperature"], request["seed"])
    return dataclasses.replace(EvalSpec.of(config, Path(request["workspace"])), sampling=sampling)


def _keep(
    request: dict[str, Any], ref: Any, record: dict[str, Any], predictions: list[dict[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """Write the folder of the evaluation: by a run's checkpoint, else among those of models that belong to no run.

    The same data and settings give the same name, so that an evaluation done again replaces the one before.
    """
    from engine.runs import evaluation_folder

    workspace, files = Path(request["workspace"]), record["data"]["files"]
    stem = "validation" if "part" in record["data"] else Path(files[0]["path"]).stem if files else "data"
    shots = f"{request['shots']}shot" if request["shots"] else ""
    of_run = ref.run is not None and ref.step is not None
    model = ref.config.model.name if of_run else ref.adapter or ref.base
    same = [record[key] for key in ("metrics", "normalisation", "generation", "template")] + [record["data"]["key"]]
    if "command" in record:
        same.append(record["command"])
    if request["settings"]:
        same.append(request["settings"])
    if not of_run:  # folders of the same name may hold different models
        same.append(os.path.realpath(model) if os.path.isdir(model) else model)
    digest = hashlib.sha256(json.dumps(same).encode()).hexdigest()[:6]
    name = f"{evaluation_folder.slug(request['name'] or stem, shots)}-{digest}"
    if of_run:
        folder = workspace / "runs" / str(ref.run) / evaluation_folder.FOLDER
        name = evaluation_folder.step_name(ref.step, name)
    else:
        folder = workspace / evaluation_folder.FOLDER
        name = f"{evaluation_folder.slug(Path(model).name)}-{name}"
    record |= {
        "run": ref.run if of_run else None,
        "step": ref.step,
        "model": model,
        "name": name,
        "source": "eval",
        "asked": ref.name,
    }
    return evaluation_folder.write(folder, name, record, predictions), record


def _sample(request: dict[str, Any], output: _Output) -> None:
    from engine.runs.model_refs import ModelRef
    from engine.worker.evaluate.generate import Sampling
    from engine.worker.evaluate.measure import to_prompt
    from engine.worker.evaluate.model_cache import ModelCache, prompt_tokens
    from engine.worker.runtime.torch_setup import set_up_torch

    models = ModelCache()
    refs = [ModelRef.from_json(fields) for fields in request["targets"]]
    set_up_torch(refs[0].config, models.device)
    sampling = Sampling(request["max_new_tokens"], request["temperature"], request["seed"])
    bases = [ref.base for ref in refs]
    for index in sorted(range(len(refs)), key=lambda i: bases.index(bases[i])):  # so that a base is loaded once
        ref = refs[index]
        output.progress(f"loading {ref.name}", 0, 0)
        template = models.template(ref)
        prompts = [to_prompt(ref.config, messages) for messages in request["prompts"]]
        tokens = prompt_tokens([template.encode_prompt(prompt) for prompt in prompts])
        with models.acquire(ref, template, tokens, "Ask in fewer tokens.") as loaded:
            output.warnings(models, ref.name)

            def answering(done: int, name: str = ref.name) -> None:
                output.progress(f"{name}: answering", done, len(request["prompts"]))

            texts = loaded.write(prompts, sampling, answering)
        output.send("answers", target=ref.name, index=index, texts=texts)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the command that started this process is gone
        sys.exit(main())
