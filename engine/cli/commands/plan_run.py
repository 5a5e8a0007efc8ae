"""`finetop plan` at work: what is known without the data at once, the rest when it has been read."""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import how_it_left, worker_command, worker_environment
from engine.base.workspace import Workspace, find_workspace
from engine.cli.settings_flags import flag_layers, resolve_settings
from engine.models.model_facts import find_facts
from engine.plan.cost import read_prices
from engine.plan.forecast import forecast, forecast_json, memory, memory_json
from engine.plan.hardware import detect_hardware, past_runs
from engine.plan.throughput import Speed
from engine.plan.trace_request import run_trace, trace_request
from engine.present.memory_view import estimate_line, memory_lines, memory_view, unknown_memory, verdict_lines
from engine.present.plan_view import (
    course_lines,
    data_lines,
    evaluation_lines,
    finding_lines,
    model_lines,
    settings_lines,
)
from engine.present.text import marked, output_width, print_json, trained_text, visible
from engine.runs import journal, resume_run
from engine.runs.run_folder import check_inputs, create_run
from engine.runs.settings_checks import check, given_by_hand
from engine.runs.settings_findings import Finding, GpuFacts, data_facts, refuse, to_json
from engine.settings.resolve import Resolved

_PROBE_STEPS = 6
"""The first two steps of a probe warm caches and kernels up, and do not count."""


def run_plan(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    notes: tuple[str, ...] = ()
    if options.resume is not None:
        from engine.cli.run_args import resumed

        _, folder, point = resumed(options, workspace)
        found = resume_run.check_resume(folder, flag_layers(options), point, as_another_run=True)
        resolved, notes = found.settings, found.notes
    else:
        resolved = resolve_settings(options)
    config = resolved.config
    check_inputs(config)
    prices = read_prices(options.price_kwh)
    width = output_width()
    oom = OomWatch()
    with _reading_data(resolved, options.show) as reading:
        # All that is known without the data, while it is being read.
        machine, past = detect_hardware(workspace), past_runs(workspace)
        before = memory(config, machine, past, {})
        if not options.json and before is not None:
            print(visible(estimate_line(before, machine)), file=sys.stderr, flush=True)
        try:
            report = _finished(reading, oom)
        except EngineError:
            if not options.json and before is not None:  # what needs no data is still worth knowing
                _print([*model_lines(config, before), "", *memory_lines(memory_view(machine, before), width), ""])
            raise
    config = config.replace(report["auto"])
    gpus = GpuFacts(machine.gpu_names, len(machine.cards))
    given = given_by_hand(resolved)
    findings = check(config, given, find_facts(config.model), data_facts(report), gpus)
    refuse(findings)
    findings += [Finding("resume", "", note) for note in notes]
    needs = memory(config, machine, past, report["facts"])
    if options.trace and needs is not None and not needs.traced:
        request = trace_request(config, needs.estimate, needs.inputs)
        if request is not None:
            run_trace(request)
            needs = memory(config, machine, past, report["facts"])
    probed = _probe(Resolved(config, resolved.origin)) if options.probe else None
    way = forecast(config, report, machine, past, needs, prices, probed)
    if options.json:
        host = {
            "memory_bytes": machine.memory_bytes,
            "free_bytes": machine.memory_free_bytes,
            "limited_by": machine.memory_owner or None,
        }
        head = {"host": host, "settings": resolved.config.flat(), "origin": resolved.origin}
        print_json(
            head | report | {"memory": memory_json(needs)} | forecast_json(way) | {"findings": to_json(findings)}
        )
        return 0
    # What was asked comes last: it is what a terminal still shows.
    _print(settings_lines(resolved, report["auto"], options.all))
    _print(["", *data_lines(report), *evaluation_lines(config, report)])
    for number, pieces in enumerate(report["examples"], 1):
        print(msg("\nexample {number}, trained tokens {marked}:", number=number, marked=marked("like this", True)))
        print(trained_text(pieces))
    verdict = [f"  ? {unknown_memory(config.model.name)}"]
    if needs is not None:
        view = memory_view(machine, needs)
        verdict = verdict_lines(view)
        _print(["", *model_lines(config, needs), "", *memory_lines(view, width)])
    _print(["", "plan", *verdict, *course_lines(report, way), *finding_lines(findings)])
    return 0


def _print(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


@contextlib.contextmanager
def _reading_data(resolved: Resolved, show: int) -> Iterator[subprocess.Popen]:
    """A worker that finds out about the data with the model's own tokenizer. Nothing is trained or kept."""

    with tempfile.TemporaryDirectory(prefix="finetop-plan-") as scratch:
        _, folder = create_run(Workspace(Path(scratch)), resolved)
        with subprocess.Popen(
            worker_command(str(folder), "--report", str(show)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=worker_environment(),
        ) as reading:
            try:
                yield reading
            finally:
                if reading.poll() is None:
                    reading.kill()


def _finished(reading: subprocess.Popen, oom: OomWatch) -> dict[str, Any]:
    out, said_bytes = reading.communicate()
    if reading.returncode == 0:
        return json.loads(out)
    complaint = said_bytes.decode("utf-8", "replace").strip()
    if reading.returncode < 0:
        complaint = msg(
            "the worker {returncode} while it read the data\n{complaint}",
            returncode=how_it_left(reading.returncode),
            complaint=complaint,
        ).strip()
    error = EngineError(complaint, oom.hint(reading.returncode))
    error.exit_code = 2 if reading.returncode == 2 else 1
    raise error


def _probe(resolved: Resolved) -> Speed:
    """Real steps of the real run in a folder that is thrown away; the speed without the first two."""
    short = {
        "train.max_steps": _PROBE_STEPS,
        "train.early_stopping": 0,
        "data.val_files": [],
        "data.val_fraction": 0.0,
        "eval.metrics": [],
        "eval.prompts": [],
        "eval.command": "",
        "eval.best": "loss",
        "save.every": 0,
    }
    config = resolved.config.replace(short)
    if config.optim.warmup >= _PROBE_STEPS:
        config = config.replace({"optim.warmup": 0.0})

    with tempfile.TemporaryDirectory(prefix="finetop-probe-") as scratch:
        _, folder = create_run(Workspace(Path(scratch)), Resolved(config, resolved.origin))
        oom = OomWatch()
        done = subprocess.run(worker_command(str(folder)), capture_output=True, env=worker_environment(), check=False)
        steps = [event["values"] for event in journal.read(folder)[0] if event["kind"] == "metric"]
    if done.returncode or not steps:
        stderr_lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        last_line = stderr_lines[-1] if stderr_lines else "no step was made"
        error = how_it_left(done.returncode) if done.returncode < 0 else last_line
        raise EngineError(
            msg("the probe failed: {error}", error=error),
            f"{oom.hint(done.returncode)} Plan without --probe.".strip(),
        )
    counted = steps[2:] or steps[-1:]
    seconds = sum(step["train/step_s"] for step in counted)
    tokens = sum(step["train/tokens_per_s"] * step["train/step_s"] for step in counted)
    many = f"{len(counted)} steps" if len(counted) > 1 else "one step"
    return Speed(tokens / seconds, msg("a probe of {many} on this machine", many=many), 1.3)
