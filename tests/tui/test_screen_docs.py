"""The keys in the docs are those of the table."""

import os
from pathlib import Path

from tui.keymap import ACTIONS, PLACES, written

PAGE = Path(__file__).resolve().parents[2] / "docs" / "screen.md"


def test_the_docs_name_every_key():
    text = PAGE.read_text("utf-8")
    head, rest = text.split("test_screen_docs.py writes them -->\n")
    table, tail = rest.split("<!-- /keys -->")
    wanted = "".join(_place(place) for place in PLACES) + "\n"
    if os.environ.get("UPDATE_GOLDENS"):
        table = wanted
        PAGE.write_text(f"{head}test_screen_docs.py writes them -->\n{wanted}<!-- /keys -->{tail}", "utf-8")
    assert table == wanted, "UPDATE_GOLDENS=1 writes it again"


def _place(place: str) -> str:
    rows = [
        f"| {' '.join(f'`{written(key)}`' for key in action.keys)} | {action.help} | `{action.id}` |\n"
        for action in ACTIONS
        if action.where == place
    ]
    return f"\n**{PLACES[place]}**\n\n| key | | name |\n|---|---|---|\n" + "".join(rows) if rows else ""
