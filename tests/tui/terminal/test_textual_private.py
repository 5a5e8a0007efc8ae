"""What Textual keeps private is used in one file only, and that file names it."""

import ast
import inspect
import re
from pathlib import Path

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.widget import Widget

import tui
from tui.screens.key_screen import KeyScreen
from tui.terminal import textual_private

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
