"""`finetop eval`: score checkpoints and base models on data."""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace, find_workspace
from engine.cli.settings_flags import add_chosen_flags, chosen_settings
from engine.cli.worker_request import ask_worker, shown_path, tell_untrained
from engine.metrics.best_evaluation import LOSS
from engine.metrics.names import metric_name, score_text
from engine.metrics.normalisation import NORMALISATIONS
from engine.metrics.score import DESCRIPTIONS, METRICS, results_order
from engine.present.data_warnings import data_warnings
from engine.present.text import Column, one_line, output_width, print_json, table, visible, wrap
from engine.runs.model_refs import ModelRef, find_model_refs, with_settings
from engine.runs.relocate import located
from engine.runs.run_folder import absolute
from engine.settings.eval_inputs import check_scores
from engine.settings.resolve import Layer, resolve
from engine.settings.schema import RunConfig

_LOSS = "loss"
_CONFUSIONS = 8
_WIDEST = 120
_EPILOG = """examples:
  finetop eval 41@best --data test.jsonl
  finetop eval 41@best 41@base --data test.csv --metrics accuracy,macro_f1
  finetop eval 41@base --data test.csv --shots 5
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    metrics = "\n".join(f"  {name:<14}{text}" for name, text in DESCRIPTIONS.items())
    normalisations = "\n".join(f"  {name:<14}{text}" for name, text in NORMALISATIONS.items())
    parser = commands.add_parser(
        "eval",
        parents=[common],
        description="Loss and scores on a file, or on the run's own validation data. Every prediction is kept, so that "
        "`finetop compare` can pair them.",
        epilog=msg(
            "metrics, beside the loss:\n{metrics}\n\nnormalisations:\n{normalisations}\n\n{epilog}",
            metrics=metrics,
            normalisations=normalisations,
            epilog=_EPILOG,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "targets", nargs="+", metavar="MODEL", help="41@best, 41@base (the run's base model), a folder, or a hub name"
    )
    parser.add_argument("--data", action="append", default=[], metavar="FILE", help="default: the validation data")
    parser.add_argument("--run", type=int, metavar="ID", dest="run_id", help="whose settings and examples count")
    parser.add_argument(
        "--metrics", metavar="A,B", help="default: accuracy,macro_f1 for classifications, else exact_match,rouge_l"
    )
    parser.add_argument("--normalisation", choices=NORMALISATIONS, help="what comparing answers disregards")
    parser.add_argument("--classify", choices=("likelihood", "generate"), help="how a label is chosen")
    parser.add_argument("--schema", metavar="FILE", help="JSON Schema for json_schema")
    parser.add_argument("--command", metavar="'PROGRAM …'", help="a program that scores the answers; '' for none")
    parser.add_argument("--shots", type=int, default=0, metavar="N", help="N training examples in every prompt")
    parser.add_argument("--max-examples", type=int, metavar="N", help="answer only the first N; 0: all")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default: the likeliest token each time")
    parser.add_argument("--seed", type=int, default=0, help="of answers drawn, and of the examples of --shots")
    parser.add_argument("--micro-tokens", type=int, default=0, metavar="N", help="tokens per pass for the loss")
    parser.add_argument("--name", default="", help="of the evaluation's folder; default: the data file's")
    add_chosen_flags(parser, "--max-length", "--map", "--objective")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    check_sampling(options)
    if options.shots < 0:
        raise InputError(msg("--shots {shots}: give a number of examples", shots=options.shots))
    settings = chosen_settings(options)
    targets = with_settings(find_model_refs(workspace, options.targets), settings)
    request = {
        "task": "eval",
        "workspace": str(workspace.root),
        "targets": [target.to_json() for target in targets],
        "reading": _reading(options, workspace, targets, settings).flat(),
        "settings": settings,
        "files": options.data,
        "metrics": _metrics(options.metrics),
        "shots": options.shots,
        "temperature": options.temperature,
        "seed": options.seed,
        "micro_tokens": options.micro_tokens,
        "name": options.name,
    }
    tell_untrained(targets)
    results = list(ask_worker(request))
    if options.json:
        print_json([one["result"] | {"folder": one["folder"]} for one in results])
    else:
        _print(results)
    return 0


def check_sampling(options: argparse.Namespace) -> None:
    """InputError for what no answer can be drawn with."""
    if options.temperature < 0 or options.temperature != options.temperature:
        raise InputError(msg("--temperature {temperature:g}: must be at least 0", temperature=options.temperature))
    if options.seed < 0:
        raise InputError(msg("--seed {seed}: must be at least 0", seed=options.seed))


def _metrics(text: str | None) -> list[str] | None:
    """None: whatever suits the data. `loss` is always measured, and alone means nothing else is."""
    if text is None:
        return None
    names = [name.strip().replace("-", "_") for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in (*METRICS, _LOSS)]:
        raise InputError(
            msg("there is no metric '{unknown}'", unknown=unknown[0][:60]),
            msg("There are {metrics}.", metrics=", ".join((_LOSS, *METRICS))),
        )
    return [name for name in names if name != _LOSS]


def _reading(
    options: argparse.Namespace, workspace: Workspace, targets: list[ModelRef], settings: dict[str, Any]
) -> RunConfig:
    """The settings that decide what the examples are and how they are scored: of --run, else of the first run named."""
    if options.run_id is not None:
        config = located(workspace.run_folder(options.run_id)).config
    else:
        config = next((target.config for target in targets if target.run is not None), targets[0].config)
    from_flags: dict[str, Any] = {
        "eval.normalisation": options.normalisation,
        "eval.classify": options.classify,
        "eval.schema": options.schema,
        "eval.command": options.command,
        "eval.best": LOSS.text,
        "eval.max_examples": options.max_examples if options.max_examples is not None else 0,
        "eval.max_new_tokens": options.max_new_tokens,
        "eval.metrics": _metrics(options.metrics),
    }
    flags = Layer("eval", absolute({key: value for key, value in from_flags.items() if value is not None}))
    reading = resolve([Layer("run", config.flat()), Layer("--set", settings), flags]).config
    check_scores(reading.eval)
    return reading


def _print(results: list[dict[str, Any]]) -> None:
    scores = {key: None for one in results for key in one["result"]["scores"]}
    columns = [Column(""), *(Column(one_line(one["target"]), right=True, least=8) for one in results)]
    rows = []
    for key in results_order(scores):
        rows.append([metric_name(key), *(_figure(key, one["result"]["scores"].get(key)) for one in results)])
    first = results[0]["result"]
    generation = first["generation"]
    files = ", ".join(Path(file["path"]).name for file in first["data"]["files"])
    part = "the validation part of " if first["data"].get("part") else ""
    print(
        visible(
            msg(
                "{examples:,} examples of {part}{files}", examples=first["data"]["examples"], part=part, files=files
            ).replace("\n", " ")
        )
    )
    for line in _rows_told(results):
        print(visible(line))
    print()
    print("\n".join(table(columns, rows, output_width(), indent=2)))
    if how := _how(first, generation):
        print()
    for line in how:
        print("\n".join(wrap(line, min(output_width(), _WIDEST), "  ", "    ")))
    for one in results:
        counted = one["result"].get("confusion", ())
        totals: Counter[str] = Counter()
        for true, _, count in counted:
            totals[true] += count
        wrong = [entry for entry in counted if entry[0] != entry[1]]
        if wrong:
            print(
                msg(
                    "\nmistakes of {target}, {wrong:,} in all:",
                    target=one_line(one["target"]),
                    wrong=sum(count for _, _, count in wrong),
                )
            )
            for true, chosen, count in wrong[:_CONFUSIONS]:
                taken = chosen if chosen is not None else "(no label)"
                print("  " + one_line(f"{count:,} of {totals[true]:,}".rjust(9) + f"  {true} → {taken}"))
    print()
    for one in results:
        print(
            visible(
                msg("every prediction of {target}: {folder}", target=one["target"], folder=shown_path(one["folder"]))
            )
        )
    if len(results) > 1:
        names = [one_line(one["target"]) if one["result"]["run"] else shown_path(one["folder"]) for one in results]
        print(visible(msg("how sure the difference is: finetop compare {names}", names=" ".join(names))))


def _rows_told(results: list[dict[str, Any]]) -> Iterator[str]:
    """What became of every row, in the words of the plan; of further models where their templates take others."""
    from engine.present.plan_view import rows_of  # with the plan's words: 20 ms, which --help need not pay

    for file in results[0]["result"]["data"]["files"]:
        if file["rows"] != file["read_rows"]:
            yield f"{Path(file['path']).name}: {rows_of(file)}"
    printed: list[list[str]] = []
    for result in results:
        lines = data_warnings(result["result"]["data"], more="`finetop data check`")
        if lines not in printed:
            yield from [f"with {result['target']}:", *lines] if printed else lines
            printed.append(lines)


def _how(result: dict[str, Any], generation: dict[str, Any]) -> list[str]:
    metrics, remarks = result["metrics"], list[str]()
    labels = any(name in ("accuracy", "macro_f1") for name in metrics)
    if labels:
        by = "the label the model finds likeliest" if generation["classify"] == "likelihood" else "the label it writes"
        remarks.append(f"labels: {by}")
    by_writing = labels and generation["classify"] == "generate"
    if by_writing or any(name in ("exact_match", "contains") for name in metrics):
        remarks.append(f"normalisation {result['normalisation']}: {NORMALISATIONS[result['normalisation']]}")
    drawn = msg(
        "drawn at temperature {temperature:g}, seed {seed}",
        temperature=generation["temperature"],
        seed=generation["seed"],
    )
    if "command" in result:
        remarks.append(msg("scored by {text}", text=result["command"]["text"]))
    if by_writing or "command" in result or any(name not in ("accuracy", "macro_f1") for name in metrics):
        remarks.append(drawn if generation["temperature"] else "greedy answers")
    if generation["shots"]:
        remarks.append(
            msg("{shots:,} examples in every prompt, seed {seed}", shots=generation["shots"], seed=generation["seed"])
        )
    return remarks


def _figure(key: str, value: float | None) -> str:
    return "—" if value is None else score_text(metric_name(key), value)
