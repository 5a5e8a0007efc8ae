"""`finetop init NAME`: a folder from which a first fine-tuned model can be made and served."""

import argparse
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import PACKAGE_ROOT, Workspace
from engine.present.text import visible
from engine.settings.presets import SAMPLES
from engine.store.connect import writer

_TEMPLATES = PACKAGE_ROOT / "presets" / "new_folder"
_UNIT = "finetop.service"
_ROWS = 60
_EXAMPLES = """\
examples:
  finetop init support
  finetop init ~/models/support
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "init",
        description="Makes a folder with sample data, settings for a run and for the server, a unit for systemd, and "
        "clients in Python and curl that run as they are.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("folder", metavar="NAME", type=Path, help="the folder to make; one that is there must be empty")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Raises InputError for a folder that holds something, or cannot be made."""
    folder = Path(os.path.abspath(options.folder.expanduser()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(msg("{folder} is not empty", folder=folder), "Choose another name, or empty it.")
        unit = _fill(folder)
    except OSError as error:
        raise InputError(msg("{folder} cannot be made: {error}", folder=folder, error=error.strerror)) from None
    writer(Workspace(folder).database).close()  # so that commands in it mean this folder, and none above it
    print(visible(_NEXT_STEPS.format(folder=options.folder, place=shlex.quote(str(options.folder)), unit=unit)))
    return 0


def _fill(folder: Path) -> str:
    """The name of the unit."""
    with open(SAMPLES / "qa.jsonl", encoding="utf-8") as rows:
        (folder / "chats.jsonl").write_text("".join(row for row, _ in zip(rows, range(_ROWS), strict=False)), "utf-8")
    for name in ("run.toml", "serve.toml", "notify.toml", "client.py.txt", "client.sh"):
        shutil.copyfile(_TEMPLATES / name, folder / name.removesuffix(".txt"))
    (folder / "client.sh").chmod(0o755)
    unit = f"finetop-{re.sub('[^A-Za-z0-9_.-]+', '-', folder.name).strip('-') or 'server'}.service"
    paths = {
        "FOLDER": _quoted(folder).replace("$", "$$"),  # the command line expands variables
        "PACKAGES": _quoted(PACKAGE_ROOT),
        "PYTHON": _quoted(Path(sys.executable)),
        "UNIT": unit,
    }
    text = (_TEMPLATES / _UNIT).read_text("utf-8")
    (folder / unit).write_text(re.sub(r"\b[A-Z]+\b", lambda word: paths.get(word[0], word[0]), text), "utf-8")
    return unit


def _quoted(path: Path) -> str:
    """Between quotation marks in a unit: systemd.syntax(7), systemd.unit(5)."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


_NEXT_STEPS = """\
{folder} is ready:

  chats.jsonl      sample data: exchange it for yours
  run.toml         finetop add --config run.toml
  serve.toml       what the server answers for
  notify.toml      who is told that a run has ended
  client.py        OpenAI's client in Python; client.sh the same by curl
  {unit}
                   the server as a service of systemd

  cd {place}
  finetop serve --detach
  eval "$(finetop serve env)"
  python client.py"""
