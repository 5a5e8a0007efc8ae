"""What Textual keeps private is used in one file only, and that file names it."""

import ast
import gc
import inspect
import re
import weakref
from pathlib import Path

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Region
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.widget import Widget

import tui
from tests.tui.random_walk import Picture
from tests.tui.stage import Stage, played, until
from tui.render.line import Line
from tui.screens.key_screen import KeyScreen, place
from tui.terminal import textual_private
from tui.widgets.pane import Lines

ROOT = Path(tui.__file__).parent


def test_no_other_file_imports_a_private_module_of_textual():
    for path in ROOT.rglob("*.py"):
        if path.name != "textual_private.py":
            assert not re.search(r"(import|from) (textual|rich)[\w.]*\._", path.read_text("utf-8")), path


def test_no_other_file_uses_a_private_attribute_of_textual():
    kinds = (App, Screen, Widget, MessagePump, LinuxDriver)
    private = {name for kind in kinds for name in re.findall(r"\bself\.(_[a-z]\w*)", inspect.getsource(kind))}
    for path in ROOT.rglob("*.py"):
        if path.name == "textual_private.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        own |= {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        }
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & private
        assert not used - own, path


def test_all_that_is_used_is_listed():
    source = Path(textual_private.__file__).read_text("utf-8")
    tree = ast.parse(source)
    listed = ast.get_docstring(tree) or ""
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)}
    assert {name for name in used if name not in listed} == set()


def test_our_methods_hide_none_of_textuals_private_ones():
    """A method of ours by the name of a private one would be called by Textual for its own purposes."""
    for kind in (KeyScreen, *KeyScreen.__subclasses__()):
        ours = {name for name in vars(kind) if name.startswith("_") and callable(vars(kind)[name])}
        theirs = {name for name in dir(Screen) if name.startswith("_")}
        assert not {name for name in ours & theirs if not name.startswith("__")}, kind


class _Word(Lines):
    word = "first"

    def lines(self, width: int, height: int) -> list[Line]:
        return [[(self.word, "text")]]


class _TwoWords(KeyScreen):
    def compose(self):
        self.words = _Word(), _Word()
        yield from self.words

    def on_mount(self):
        for y, word in zip((1, 20), self.words, strict=True):
            place(word, Region(0, y, 60, 1))


class _Painted(Stage):
    """The picture as a terminal has it."""

    picture = Picture(1, 1)

    def paint(self, screen, update):
        self.picture.take(update, *self.size)
        return super().paint(screen, update)

    def says(self, text: str, line: int) -> bool:
        lines = self.picture.lines()
        return len(lines) > line and lines[line].startswith(text)


@played
async def test_a_change_is_painted_when_a_part_of_the_screen_is_drawn_anew_at_the_same_time(tmp_path):
    """As Textual draws anew what changes below a screen, in the regions and for the size that has."""
    app = _Painted(tmp_path, _TwoWords)
    async with app.run_test(size=(80, 24)):
        screen = await until(lambda: isinstance(app.screen, _TwoWords) and app.screen)
        await until(lambda: app.says("first", 20))
        for number in range(3):
            screen.words[1].word = f"number {number}"
            screen.words[1].repaint()
            screen.refresh(Region(0, 0, 80, 12))
            await until(lambda number=number: app.says(f"number {number}", 20), 2.0)


@played
async def test_a_closed_screen_leaves_none_of_its_lines_in_memory(tmp_path):
    """In a screen that is open for weeks, dialogs come and go."""
    app = _Painted(tmp_path, _TwoWords)
    async with app.run_test(size=(80, 24)) as pilot:
        over = _TwoWords()
        await app.push_screen(over)
        await pilot.pause()
        kept = weakref.ref(over._styles_cache)
        assert over._styles_cache._cache
        await app.pop_screen()
        del over
        await pilot.pause()
        gc.collect()
        assert kept() is None
