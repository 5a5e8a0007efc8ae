"""`finetop export`: a checkpoint as an adapter, a merged model or a GGUF file, proven by loading it again."""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import how_it_left, worker_command, worker_environment
from engine.base.workspace import CHECKPOINTS, find_workspace, parse_checkpoint_name
from engine.present.numbers import bytes_text
from engine.present.text import print_json, visible
from engine.runs.checkpoints import checkpoint_folder

_EPILOG = """examples:
  finetop export 41@best my-model --to merged
  finetop export 41@1200 /models/support --to gguf --dtype float16
  finetop export runs/41/checkpoints/best adapter --to adapter
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "export",
        parents=[common],
        description="Writes a checkpoint into a new folder for other programs, with a model card, loads it again with "
        "transformers and peft alone, and compares the logits. Needs 4 bytes of memory for each weight of the model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="41@best, 41@latest, 41@1200, 41@epoch-3, or its folder")
    parser.add_argument("target", metavar="DIR", help="a folder that does not exist yet, or is empty")
    parser.add_argument("--to", choices=("adapter", "merged", "gguf"), required=True, help="what to write")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "float16", "bfloat16"),
        default="auto",
        help="type of the weights; auto: that of the base model's files",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    checkpoint, run_folder = _checkpoint(options)
    target = Path(options.target).expanduser().absolute()
    if target.is_dir() and any(target.iterdir()):
        raise InputError(
            msg("{target} exists and is not empty", target=target), "Name another folder, or empty this one yourself."
        )
    words = [str(checkpoint), str(target), "--to", options.to, "--dtype", options.dtype]
    done = _worker([*words, *(["--run", str(run_folder)] if run_folder else [])])
    if options.json:
        print_json(done)
    else:
        print(visible("\n".join(_lines(done))))
    return 0


def _checkpoint(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """The checkpoint's folder, and that of its run where it lies in one."""
    given = Path(options.checkpoint).expanduser()
    if given.is_dir() and not options.checkpoint.isdecimal():
        path = given.resolve()
        run_folder = path.parent.parent
        return path, run_folder if path.parent.name == CHECKPOINTS and (run_folder / "config.json").exists() else None
    run_id, point = parse_checkpoint_name(options.checkpoint)
    run_folder = find_workspace(options.workspace).run_folder(run_id)
    return checkpoint_folder(run_folder, point), run_folder


def _worker(words: list[str]) -> dict[str, Any]:
    """Run the export in a worker of its own; its words go to the terminal, its outcome comes back."""
    command = worker_command(*words, module="engine.worker.export.export")
    oom = OomWatch()
    done = subprocess.run(command, stdout=subprocess.PIPE, env=worker_environment(), check=False)
    try:
        reply = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
    except (ValueError, IndexError):
        hint = oom.hint(done.returncode)
        if hint:
            hint += " An export takes 4 bytes of memory for each weight."
        raise EngineError(
            msg("the export {returncode}; nothing was kept", returncode=how_it_left(done.returncode)), hint
        ) from None
    if "error" in reply:
        error = EngineError(reply["error"], reply["hint"])
        error.exit_code = reply["exit_code"]
        raise error
    return reply


def _lines(done: dict[str, Any]) -> list[str]:
    lines = [f"{done['target']}: {done['form']}, {done['dtype']}, {bytes_text(done['bytes'])}"]
    lines += [f"  {name}" for name in done["files"]]
    lines += done["notes"]
    lines.append(
        msg(
            "Loaded again and compared: the largest difference of a logit is {difference:.3g} (they scatter by "
            "{spread:.3g}); the same next token at {same_share:.4g}% of the positions.",
            difference=done["difference"],
            spread=done["spread"],
            same_share=100 * done["same_first"],
        )
    )
    if done["trained_difference"] is not None:
        lines.append(
            msg(
                "Against the model as trained, on weights rounded to 4 bits: {trained_difference:.3g}. The export "
                "does not have that rounding.",
                trained_difference=done["trained_difference"],
            )
        )
    return lines
