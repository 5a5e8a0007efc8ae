"""The line of tabs: the one shown is always in sight, and no tab runs into another."""

import pytest

from engine.present.text import cells
from tui.render.line import line_cells
from tui.render.tab_line import tab_line

GROUPS = [
    ["Why", "Loss", "Eval", "LR", "Grad", "Tok/s", "VRAM"],
    ["GPUs", "Ckpts"],
    ["Log", "Config", "Events"],
]


@pytest.mark.parametrize("width", [30, 58, 78, 118])
@pytest.mark.parametrize("chosen", [tab for group in GROUPS for tab in group])
@pytest.mark.parametrize("groups", [GROUPS, [GROUPS[0][1:], *GROUPS[1:]]])
def test_the_tab_shown_is_in_sight_at_every_width(width, chosen, groups):
    line = tab_line(groups, chosen, width)
    text = "".join(text for text, _ in line)
    assert line_cells(line) == cells(text) <= width
    if any(chosen in group for group in groups):
        assert f"‹{chosen}›" in text
    for name in ("Loss", "Eval", "Grad"):
        assert f"{name}E" not in text and f"{name}L" not in text and f"{name}T" not in text


@pytest.mark.parametrize("chosen", ["Loss", "Config", "VRAM", "GPUs", "Events"])
def test_at_sixty_columns_all_tabs_of_a_run_are_there(chosen):
    text = "".join(text for text, _ in tab_line([GROUPS[0][1:], *GROUPS[1:]], chosen, 58))
    assert "…" not in text and all(tab in text for group in GROUPS for tab in group if tab != "Why")
