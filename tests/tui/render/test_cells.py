"""The engine counts a text's cells without Rich, which draws the screen: both must count alike."""

import sys

from rich.cells import get_character_cell_size

from engine.present.text import char_cells


def test_every_character_has_the_width_that_rich_gives_it():
    shown = (char for char in map(chr, range(32, sys.maxunicode)) if char.isprintable())
    differing = [f"U+{ord(char):04X}" for char in shown if char_cells(char) != get_character_cell_size(char)]
    assert not differing, differing[:20]
