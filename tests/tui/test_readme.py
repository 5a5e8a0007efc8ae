"""What the README says holds: its keys, its commands, its links and its picture."""

import os
import re
import shlex
from pathlib import Path

import pytest

from engine.cli.main import build_parser
from tui.keymap import BY_ID, written

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "README.md"
SHOWN = (
    "main.new",
    "runs.mark",
    "main.compare",
    "compare.answers",
    "main.open",
    "main.next_tab",
    "main.stop",
    "main.resume",
    "main.edit",
    "checkpoints.fork",
    "main.hold",
    "main.move_up",
    "main.delete",
    "main.undo",
    "runs.filter",
    "any.palette",
    "main.quit",
)
"""What a newcomer needs first; docs/screen.md has all."""


def test_the_keys_are_those_of_the_table():
    rows = [f"| {' '.join(f'`{written(key)}`' for key in BY_ID[one].keys)} | {BY_ID[one].help} |\n" for one in SHOWN]
    wanted = "| key | |\n|---|---|\n" + "".join(rows)
    text = PAGE.read_text("utf-8")
    head, rest = text.split("test_readme.py writes them -->\n")
    table, tail = rest.split("<!-- /keys -->")
    if os.environ.get("UPDATE_GOLDENS"):
        table = wanted
        PAGE.write_text(f"{head}test_readme.py writes them -->\n{wanted}<!-- /keys -->{tail}", "utf-8")
    assert table == wanted, "UPDATE_GOLDENS=1 writes it again"


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("finetop ")]


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line):
    words = shlex.split(line)[1:]
    assert callable(build_parser(words[0]).parse_args(words).run)


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)", PAGE.read_text("utf-8"))
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_picture_is_small_and_loads_nothing_from_elsewhere():
    svg = (ROOT / "docs" / "picture.svg").read_text("utf-8")
    assert len(svg.encode()) < 150_000
    assert "url(" not in svg.replace("url(#", "") and "href" not in svg and "<script" not in svg
    for told in ("Runs", "Checkpoints", "finetop"):
        assert told in svg
