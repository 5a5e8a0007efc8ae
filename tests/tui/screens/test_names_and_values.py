"""No name runs into its value: where two parts of a line meet, they are not both words."""

import dataclasses
import itertools

import pytest

from tests.tui.screens.test_main_screen import Shown
from tests.tui.stage import Stage, played, until
from tests.tui.storefill import add_run
from tui.render import comparison_view
from tui.screens.compare_screen import CompareScreen
from tui.widgets.pane import Lines


def glued(screen) -> list[str]:
    """Lines in which a part of one role ends in a letter or digit and one of another begins so."""
    found = []
    for pane in screen.query(Lines):
        for line in pane._shown if pane.display else ():
            parts = [(text, role) for text, role in line if text]
            for (text, role), (after, other) in itertools.pairwise(parts):
                if role != other and text[-1].isalnum() and after[0].isalnum():
                    found.append(f"{pane}: {text}|{after}")
    return found


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 36)])
@played
async def test_on_the_main_screen_its_tabs_and_dialogs(filled, size):
    async with Shown(filled, size=size) as shown:
        for number in (1, 4, 6, 11):
            await shown.go(number)
            await shown.press("enter")
            for _ in range(12):
                await shown.press("]")
                await shown.pilot.pause()
                assert not glued(shown.app.screen)
            await shown.press("escape")
        for opener in ("?", ":", "U", "M", "!", "n"):
            await shown.press(opener)
            await until(lambda: getattr(shown.app.screen, "ready", True))
            await shown.pilot.pause(0.1)
            assert not glued(shown.app.screen), opener
            await shown.press("escape")


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 36)])
@played
async def test_in_the_comparison(tmp_path, size):
    for number in range(4):
        add_run(tmp_path, f"a-rather-long-name-of-run-{number}", settings={"lora.r": 1 << number}, seed=number)
    app = Stage(tmp_path, lambda: CompareScreen(["1@latest", "2@latest", "3@latest", "4@latest"]))
    async with app.run_test(size=size) as pilot:
        screen = await until(lambda: isinstance(app.screen, CompareScreen) and app.screen.data and app.screen)
        for key in ("1", "2", "3", "a", "4"):
            await pilot.press(key)
            await pilot.pause(0.1)
            assert not glued(screen)
        subjects = tuple(
            dataclasses.replace(subject, asked=f"123{subject.asked}") for subject in screen.data.comparison.subjects
        )
        comparison = dataclasses.replace(screen.data.comparison, subjects=subjects)
        for width in (size[0] - 2, size[0] // 2 - 2):
            (head,) = comparison_view.result_head(comparison, width)
            assert all(text.endswith(" ") for text, role in head if role.startswith("series"))
            for line in comparison_view.result_lines(comparison, width):
                if len(line) > 4:
                    assert line[0][0].endswith(" ")
