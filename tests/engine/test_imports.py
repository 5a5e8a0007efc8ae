"""The walls between the parts, seen from both sides: what a fresh interpreter loads, and what the sources name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "datasets",
    "numpy",
    "pandas",
    "psutil",
    "pynvml",
    "sqlite_utils",
    "textual",
    "rich",
}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules a fresh interpreter holds after the statement."""
    code = f"{statement}\nimport sys; print('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize(
    "statement",
    [
        "import engine.cli.main",
        "import tui.__main__",
        "import engine.settings.schema, engine.settings.presets, engine.runs.journal",
        "import engine.base.workspace, engine.base.worker_process, engine.formats.examples",
        "import engine.formats",
        "from engine.cli.main import build_parser; build_parser().format_help()",
        "from engine.cli.main import main; import io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['presets'])",
    ],
)
def test_the_command_line_loads_nothing_heavy(statement):
    assert not loaded_by(statement) & HEAVY


def test_a_settings_mistake_is_told_without_loading_anything_heavy():
    statement = "from engine.cli.main import main\nassert main(['train', '--set', 'lr=high']) == 2"
    assert not loaded_by(statement) & HEAVY


def test_queueing_and_listing_load_nothing_heavy(tmp_path, monkeypatch):
    """`finetop add` has 0.35 s, and `finetop ls` 0.3 with 1,000 runs in the queue."""
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    monkeypatch.setenv("FINETOP_WORKSPACE", str(tmp_path))
    data = tmp_path / "rows.csv"
    data.write_text("text,label\na,b\n")
    statement = f"from engine.cli.main import main\nassert main(['add', '--data-file', {str(data)!r}]) == 0"
    assert not loaded_by(statement) & (HEAVY - {"sqlite_utils"}), "the first makes the database"
    assert not loaded_by(f"{statement}\nassert main(['ls']) == 0") & HEAVY


@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"], ["history"]])
def test_listings_load_no_settings(words, tmp_path, monkeypatch):
    """Settings, models and formats take a third of a listing's time to import, and it needs nothing of them."""
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    monkeypatch.setenv("FINETOP_WORKSPACE", str(tmp_path))
    data = tmp_path / "rows.csv"
    data.write_text("text,label\na,b\n")
    subprocess.run([sys.executable, "-m", "tui", "add", "--data-file", data], cwd=ROOT, check=True, capture_output=True)
    code = f"from engine.cli.main import main; import sys; assert main({words!r}) == 0\n"
    code += "print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    parts = {name.split(".")[1] for name in done.stderr.split() if name.startswith("engine.")}
    assert "store" in parts
    assert not parts & {"settings", "models", "formats", "data", "worker"}


@pytest.mark.parametrize(
    ("library", "folder"),
    [
        ("torch", "engine/worker"),
        ("transformers", "engine/worker"),
        ("peft", "engine/worker"),
        ("sqlite3", "engine/store"),
        ("sqlite_utils", "engine/store"),
        ("pynvml", "engine/monitor"),
        ("textual", "tui"),
        ("rich", "tui"),
    ],
)
def test_a_library_is_named_in_one_folder_only(library, folder):
    """Also inside functions, where the static contract looks too but a fresh interpreter does not."""
    named = re.compile(rf"^\s*(import|from)\s+{library}\b", re.MULTILINE)
    sources = [path for part in ("engine", "tui") for path in (ROOT / part).rglob("*.py")]
    users = [str(path.relative_to(ROOT)) for path in sources if named.search(path.read_text("utf-8"))]
    assert [path for path in users if not path.startswith(f"{folder}/")] == []


def test_the_contracts_of_the_layout_hold():
    """import-linter, with the contracts in pyproject.toml."""
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)
