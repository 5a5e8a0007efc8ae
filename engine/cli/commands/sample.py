"""`finetop sample`: several models answer the same prompts. `finetop samples`: a run's answers as it learned."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import find_workspace
from engine.cli.commands.eval import check_sampling
from engine.cli.settings_flags import add_chosen_flags, chosen_settings
from engine.cli.worker_request import ask_worker, tell_untrained
from engine.formats.examples import rows_told
from engine.present.data_warnings import data_warnings
from engine.present.text import fit, one_line, output_width, print_json, visible, wrap
from engine.runs import journal
from engine.runs.model_refs import find_model_refs, with_settings

_WIDEST = 160
_UNKNOWN_WIDTH = 100
"""Where the output is no terminal."""
_NARROWEST_COLUMN = 24
"""Cells. Where the models do not fit beside each other, their answers stand one below the other."""
_EXAMPLES = """examples:
  finetop sample 41@best 40@best base --prompt "Where is my card?"
  finetop sample 41@best --prompts questions.txt --temperature 0.7 --seed 1
"""
_HISTORY_EXAMPLES = """examples:
  finetop samples 41
  finetop samples 41 --prompt 2
"""


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    sample = commands.add_parser(
        "sample",
        parents=[common],
        epilog=_EXAMPLES,
        formatter_class=style,
    )
    sample.add_argument(
        "targets", nargs="+", metavar="MODEL", help="41@best, base (of the first run named), a folder, or a hub name"
    )
    sample.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    sample.add_argument(
        "--prompts", metavar="FILE", help="a prompt a line (.txt), or a data file whose questions are asked"
    )
    sample.add_argument("--system", metavar="TEXT", help="system prompt; default: that of the run")
    sample.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default 256)")
    sample.add_argument("--temperature", type=float, default=0.0, help="0, the default: the likeliest token each time")
    sample.add_argument("--seed", type=int, default=0, help="of answers drawn")
    add_chosen_flags(sample, "--map")
    form = sample.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print prompts and answers as JSON")
    form.add_argument("--markdown", action="store_true", help="print them as Markdown")
    sample.set_defaults(run=run_sample)
    samples = commands.add_parser(
        "samples",
        parents=[common],
        epilog=_HISTORY_EXAMPLES,
        formatter_class=style,
    )
    samples.add_argument("run_id", type=int, metavar="ID", help="the run")
    samples.add_argument("--prompt", type=int, metavar="N", help="only the Nth prompt")
    samples.add_argument("--json", action="store_true", help="print them as JSON")
    samples.set_defaults(run=run_history)


def run_sample(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    check_sampling(options)
    if options.max_new_tokens < 1:
        raise InputError(
            msg("--max-new-tokens {max_new_tokens}: must be at least 1", max_new_tokens=options.max_new_tokens)
        )
    settings = chosen_settings(options)
    targets = with_settings(find_model_refs(workspace, options.targets), settings)
    prompts = [[{"role": "user", "content": text}] for text in options.prompt]
    if options.prompts:
        prompts += read_prompts(Path(options.prompts), targets[0].config.data.map if settings.get("data.map") else {})
    if not prompts:
        raise InputError("nothing to ask", "Give --prompt TEXT, or --prompts FILE.")
    if options.system:
        system = {"role": "system", "content": options.system}
        prompts = [[system, *(m for m in messages if m["role"] != "system")] for messages in prompts]
    request = {
        "task": "sample",
        "targets": [target.to_json() for target in targets],
        "prompts": prompts,
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "seed": options.seed,
    }
    tell_untrained(targets)
    texts: list[list[str]] = [[] for _ in targets]
    for reply in ask_worker(request):
        texts[reply["index"]] = reply["texts"]
    names = [target.name for target in targets]
    questions = [str(messages[-1].get("content") or "") for messages in prompts]
    answers = list(zip(*texts, strict=True))  # for each question those of all models
    if options.json:
        rows = [
            {"prompt": question, "messages": messages, "answers": dict(zip(_unique(names), replies, strict=True))}
            for question, messages, replies in zip(questions, prompts, answers, strict=True)
        ]
        how = {"temperature": options.temperature, "seed": options.seed, "max_new_tokens": options.max_new_tokens}
        print_json({"models": names, "generation": how, "samples": rows})
    elif options.markdown:
        for question, replies in zip(questions, answers, strict=True):
            print(f"**{_markdown(question)}**\n")
            print("\n".join(_markdown_table(names, replies)) + "\n")
    else:
        for question, replies in zip(questions, answers, strict=True):
            print("\n".join(side_by_side(question, names, replies, _width())) + "\n")
    return 0


def read_prompts(path: Path, mapping: Mapping[str, str] | None = None) -> list[list[dict[str, Any]]]:
    """Conversations to be answered: the lines of a .txt file, or the questions of a data file. Raises InputError.

    In JSON lines a row may be a text, {"prompt": text} or {"messages": [...]}; what stands after the last question, the
    answer, is left out. `mapping`: which columns are what, as in data.map. Rows that are left out are told on stderr.
    """
    try:
        raw = path.read_text("utf-8-sig") if path.suffix in (".txt", ".jsonl", ".ndjson") else None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"--prompts {path}: {reason}", "Give a text file with a prompt a line.") from None
    if raw is not None and path.suffix == ".txt":
        prompts = [[{"role": "user", "content": line.strip()}] for line in raw.splitlines() if line.strip()]
    elif raw is not None and (bare := _bare_prompts(raw)):
        prompts = bare
    else:
        from engine.formats import read_data

        prompts = []
        report = read_data(str(path), mapping=dict(mapping) if mapping else None, use="evaluation")
        for line in data_warnings(rows_told([report]), more="`finetop data check`"):
            print(visible(line), file=sys.stderr)
        for example in report.examples:
            last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
            prompts.append(list(example.messages[:last]))
    if not prompts:
        raise InputError(msg("--prompts {path}: there is no prompt in it", path=path))
    return prompts


def _bare_prompts(raw: str) -> list[list[dict[str, Any]]] | None:
    """Rows without answers; None where there are others, which the data readers know."""
    prompts = []
    for line in filter(str.strip, raw.splitlines()):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if isinstance(row, dict) and set(row) == {"prompt"}:
            row = row["prompt"]
        if isinstance(row, str) and row.strip():
            prompts.append([{"role": "user", "content": row}])
            continue
        messages = row.get("messages") if isinstance(row, dict) else None
        if not messages or not all(map(_is_message, messages)) or messages[-1]["role"] != "user":
            return None
        prompts.append(messages)
    return prompts


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def run_history(options: argparse.Namespace) -> int:
    folder = find_workspace(options.workspace).run_folder(options.run_id)
    events = journal.effective(journal.read(folder)[0])
    answers = [answer for event in events if (answer := journal.sampled_answer(event)) and not answer.to_example]
    prompts = list(dict.fromkeys(answer.prompt for answer in answers))
    if not prompts:
        raise InputError(
            msg("run {run_id} has answered no prompts", run_id=options.run_id),
            'Train with --set eval.prompts="What is…?,And…?" to see them.',
        )
    if options.prompt is not None:
        if not 1 <= options.prompt <= len(prompts):
            raise InputError(
                msg(
                    "--prompt {prompt}: run {run_id} has prompts 1 to {num_prompts}",
                    prompt=options.prompt,
                    run_id=options.run_id,
                    num_prompts=len(prompts),
                )
            )
        prompts = prompts[options.prompt - 1 : options.prompt]
    histories = [
        (prompt, [(answer.step, answer.text) for answer in answers if answer.prompt == prompt]) for prompt in prompts
    ]
    if options.json:
        rows = [{"prompt": p, "answers": [{"step": s, "text": t} for s, t in history]} for p, history in histories]
        print_json(rows)
        return 0
    for prompt, history in histories:
        print("\n".join(_question(prompt, _width())))
        steps = [f"step {step:,}" for step, _ in history]
        room = max(map(len, steps)) + 2
        for step, (_, text) in zip(steps, history, strict=True):
            for number, line in enumerate(_answer_lines(text, _width() - room - 2) or [""]):
                print(f"  {step if not number else '':<{room}}{line}")
        print()
    return 0


def side_by_side(question: str, names: Sequence[str], answers: Sequence[str], width: int) -> list[str]:
    """Lines of at most `width` cells: the question, and the answers in columns; below each other where too narrow."""
    lines = _question(question, width)
    column = (width - 3 * (len(names) - 1)) // len(names)
    if column < _NARROWEST_COLUMN:
        for name, answer in zip(names, answers, strict=True):
            lines += [
                f"  {one_line(name)}",
                *(f"    {line}" for line in _answer_lines(answer, width - 4) or ["(nothing)"]),
            ]
        return lines
    columns = [_answer_lines(answer, column) or ["(nothing)"] for answer in answers]
    lines.append(" │ ".join(fit(one_line(name), column) for name in names).rstrip())
    lines.append("─┼─".join("─" * column for _ in names))
    for row in range(max(map(len, columns))):
        cells_of_row = [fit(lines_[row] if row < len(lines_) else "", column) for lines_ in columns]
        lines.append(" │ ".join(cells_of_row).rstrip())
    return lines


def _question(text: str, width: int) -> list[str]:
    return [f"{'» ' if not number else '  '}{line}" for number, line in enumerate(_answer_lines(text, width - 2))]


def _answer_lines(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells; none for no text."""
    paragraphs = visible(text.replace("\t", "    ")).splitlines()
    return [row for paragraph in paragraphs for row in wrap(paragraph, width)]


def _width() -> int:
    return min(output_width(_UNKNOWN_WIDTH), _WIDEST)


def _unique(names: Sequence[str]) -> list[str]:
    """Names as keys: one that is asked for twice gets a number."""
    return [name if names.index(name) == i else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _markdown(text: str) -> str:
    """One line of text in which nothing is Markdown."""
    escaped = "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in visible(text))
    return "<br>".join(escaped.splitlines())


def _markdown_table(names: Sequence[str], answers: Sequence[str]) -> list[str]:
    return [
        f"| {' | '.join(map(_markdown, names))} |",
        f"|{'---|' * len(names)}",
        f"| {' | '.join(map(_markdown, answers))} |",
    ]
