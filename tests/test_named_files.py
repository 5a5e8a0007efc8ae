"""Every file, module and public name that documents, comments and docstrings mention exists."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = ("engine", "tui", "tests", "bench", "scripts", "presets", "docs")
TREE = f"(?:{'|'.join(TREES)})"
SCREEN_PARTS = "(?:data|render|screens|terminal|widgets)"
SUFFIX = r"\.(?:py|md|toml|json|ya?ml|sh|c)\b"
FILE = re.compile(rf"(?<![\w./-]){TREE}(?:/[\w-]+)*/[\w-]+{SUFFIX}")
MODULE = re.compile(rf"(?<![\w./-])(?:engine|tui|tests|bench|scripts)(?:\.[A-Za-z_]\w*)+(?!{SUFFIX}|[\w/])")
PYTHON_FILE = re.compile(r"`(\w+\.py)[` ]")
SCREEN_MODULE = re.compile(rf"`({SCREEN_PARTS}/\w+)`")
CALL = re.compile(r"`([a-z_]+)\.([a-z_]+)\(")
OF_OTHER_PROJECTS = {"convert_hf_to_gguf.py", "finetune.py", "modeling_qwen.py", "qlinear_cuda_old.py"}

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench" / "README.md"]
SETTINGS = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".pre-commit-config.yaml", ROOT / ".ci" / "run"]
SOURCES = [path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py"))]


@pytest.mark.parametrize("page", [*DOCUMENTS, *SETTINGS], ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    text = page.read_text("utf-8")
    files = {path.name for path in SOURCES} | OF_OTHER_PROJECTS
    missing = list(absent(text))
    missing += [name for name in PYTHON_FILE.findall(text) if name not in files]
    missing += [name for name in SCREEN_MODULE.findall(text) if not (ROOT / "tui" / f"{name}.py").is_file()]
    missing += [f"{module}.{name}" for module, name in CALL.findall(text) if not defined(module, name)]
    assert missing == []


def test_what_comments_and_docstrings_name_exists():
    missing = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES
        for line, text in prose(path.read_text("utf-8"))
        for name in absent(text)
    ]
    assert missing == []


def prose(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each comment and each string that stands by itself."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def absent(text: str) -> Iterator[str]:
    """The files and the dotted names of this project in a text that do not exist."""
    yield from (name for name in FILE.findall(text) if not (ROOT / name).is_file())
    yield from (name for name in MODULE.findall(text) if not exists(name))


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, a package or something that the source of one names."""
    words = dotted.split(".")
    for length in range(len(words), 0, -1):
        folder = ROOT.joinpath(*words[:length])
        if length == len(words) and folder.is_dir():
            return True
        for file in (folder.with_suffix(".py"), folder / "__init__.py"):
            if file.is_file():
                return all(re.search(rf"\b{word}\b", file.read_text("utf-8")) for word in words[length:])
    return False


def defined(module: str, name: str) -> bool:
    """Whether a module of this name defines a function or class of that."""
    files = [path for path in SOURCES if path.stem == module]
    return any(re.search(rf"^(?:def|class) {name}\b", path.read_text("utf-8"), re.MULTILINE) for path in files)
