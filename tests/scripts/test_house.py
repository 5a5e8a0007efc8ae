"""What scripts/house.py counts, on sources made for it; and of the tree itself what has reached its bound."""

import ast
from pathlib import Path

import pytest

from scripts import house

STRICT = house.Bounds(vague=0, second=0, long_lived=0, placeholders=0, documented=1)


def named(source: str) -> list[tuple[str, int, int]]:
    return sorted((binding.name, binding.line, binding.last_use) for binding in house.bindings(ast.parse(source)))


def test_every_kind_of_binding_is_counted_once():
    source = (
        "a: int = 0\n"
        "def f(b, /, c, *d, e=1, **g):\n"
        "    for h, i in c: pass\n"
        "    with open(b) as j: pass\n"
        "    if (k := 1): pass\n"
        "    try: pass\n"
        "    except OSError as l: pass\n"
        "    return [m for m in d], lambda n: n\n"
    )
    assert [name for name, *_ in named(source)] == list("abcdeghijklmn")


def test_a_binding_lives_until_its_scope_names_it_last():
    source = "def f(found):\n    x = 1\n\n    def g():\n        return found\n\n\n"
    source += "def h():\n    found = 2\n    return found\n"
    assert ("found", 1, 5) in named(source) and ("found", 9, 10) in named(source)


def test_circles_are_found_through_imports_inside_functions():
    sources = {
        "engine.a": "from engine import b\n",
        "engine.b": "def f():\n    from engine.c import x\n",
        "engine.c": "import engine.a\n",
        "engine.d": "from engine.a import y\n",
    }
    graph = house.imports({name: ast.parse(text) for name, text in sources.items()})
    assert house.circles(graph) == [["engine.a", "engine.b", "engine.c"]]


def test_only_what_is_public_needs_a_docstring():
    source = (
        'class A:\n    """It is."""\n    def f(self): pass\n    def _g(self): pass\nclass _B:\n    def h(self): pass\n'
    )
    assert house.documented(ast.parse(source)) == (1, 2)


def test_placeholders_of_messages_say_what_stands_there():
    tree = ast.parse(
        'msg("{a_2} {suffix} {rows}", a_2=1, suffix=f(value=1), rows=2)\nmsg_n("{n}", "{n}", 2, value=1)\n'
    )
    assert house.count({"a.py": tree}).placeholders == ["a.py:1: {a_2}", "a.py:1: {suffix}", "a.py:2: {value}"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("found = 1\na = 2\nb = 3\nprint(found)\n", "engine: long_lived 1 (bound 0)"),
        ("before = 1\nb = 2\n", "engine: vague 500 (bound 0)"),
        ("item = 1\nb = 2\n", "engine: second 500 (bound 0)"),
        ("def f():\n    pass\n", "engine: documented 0.5 (bound 1)"),
        ("msg('{value}', value=1)\n", "engine: placeholders 1 (bound 0)"),
        ("from engine import b\n", "circles"),
    ],
)
def test_check_ends_with_1_where_a_bound_is_exceeded(tmp_path, capsys, source, complaint):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "a.py").write_text(source)
    (tmp_path / "engine" / "b.py").write_text('from engine import a\ndef b():\n    """It has one."""\n')
    bounds = {"engine": STRICT}
    assert house.main(["--root", str(tmp_path), "--check"], bounds) == 1
    assert complaint in capsys.readouterr().err
    assert house.main(["--root", str(tmp_path)], bounds) == 0


def test_modules_have_names_of_their_own_and_import_in_one_direction():
    sources = house.read(house.ROOT)
    modules = {house.module_name(path, house.ROOT): tree for path, tree in sources.items()}
    files = [house.module_name(path, house.ROOT) for path in sources if path.name != "__init__.py"]
    assert len(house.duplicates(files)) <= house.MOST_DUPLICATES
    assert house.circles(house.imports(modules)) == []
    assert Path(house.ROOT, "engine").is_dir()
