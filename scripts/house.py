"""How the source reads, in numbers: vague names, module names that occur twice, import circles, docstrings, and numbers
and sentences that are written in another way than the rest (`sentences.py`).

    python scripts/house.py            prints them
    python scripts/house.py --check    exit code 1 where one of them is out of bounds; `make lint` runs this
    python scripts/house.py --names    lists what is to be changed, with file and line

A binding is an assignment, a parameter, the target of a loop or a comprehension, the name after `as`. A placeholder is
a named value of `msg` or `msg_n`: a translator sees nothing else of it.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import sentences  # noqa: E402  found where the script lies, wherever it is started

LINTED = frozenset(["found", "said", "known", "told", "given", "asked", "wanted", "place", "moment", "rest"])
"""Words that a name may be for no longer than `SHORT_LIFE_LINES`."""
VAGUE = LINTED | frozenset(["one", "each", "before", "after", "own", "others", "there"])
"""Words that do not say what the value is."""
SECOND = frozenset(["result", "item", "data", "value", "info", "obj"])
"""The words that a vague name is easily replaced by."""
SHORT_LIFE_LINES = 3
EMPTY_PLACEHOLDER = re.compile(rf"\w+_\d+|suffix|{'|'.join(sorted(VAGUE | SECOND))}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a tree may have at most; of docstrings, at least."""

    vague: float
    """Vague names per 1,000 bindings."""
    second: float
    """Names of `SECOND` per 1,000 bindings."""
    long_lived: int
    """Vague names that live longer than `SHORT_LIFE_LINES`."""
    placeholders: int
    """Placeholders that say nothing."""
    documented: float
    """Public functions, methods and classes with a docstring, of 1."""


BOUNDS = {
    "engine": Bounds(vague=4.8, second=22.8, long_lived=0, placeholders=0, documented=0.83),
    "tui": Bounds(vague=0.5, second=18.5, long_lived=0, placeholders=0, documented=0.84),
}
"""They only get tighter: a change that gets below one lowers it."""
MOST_DUPLICATES = 6


@dataclass(frozen=True, slots=True)
class Binding:
    name: str
    line: int
    last_use: int
    """The last line of its scope that names it."""


def bindings(tree: ast.Module) -> list[Binding]:
    """Every binding of a module and of all functions in it; a name bound twice in a scope counts twice."""
    made: list[Binding] = []
    for scope, nodes in _scopes(tree):
        uses: dict[str, int] = {}
        for node in ast.walk(scope):  # nested functions too: they may use a name of this one
            if isinstance(node, ast.Name):
                uses[node.id] = max(uses.get(node.id, 0), node.lineno)
        for name, line in nodes:
            made.append(Binding(name, line, max(line, uses.get(name, 0))))
    return made


def _scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, list[tuple[str, int]]]]:
    """Each scope with the (name, line) of what is bound in it and in no scope inside it."""
    pending: list[ast.AST] = [tree]
    while pending:
        scope = pending.pop()
        bound: list[tuple[str, int]] = []
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            arguments = scope.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            bound += [(argument.arg, argument.lineno) for argument in every if argument is not None]
        inner = list(ast.iter_child_nodes(scope))
        while inner:
            node = inner.pop()
            if isinstance(node, _OPENS_A_SCOPE):
                pending.append(node)
                continue
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.append((node.id, node.lineno))
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.append((node.name, node.lineno))
            inner += ast.iter_child_nodes(node)
        yield scope, bound


_OPENS_A_SCOPE = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Lambda,
    ast.ClassDef,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which of the modules each of them names in an import, inside functions and for type checkers too."""
    graph: dict[str, set[str]] = {module: set() for module in trees}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = {name if name in trees else node.module for name in names}
            elif isinstance(node, ast.Import):
                targets = {alias.name for alias in node.names}
            else:
                continue
            graph[module] |= {target for target in targets if target in trees and target != module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other by imports (strongly connected components of two or more)."""
    reach: dict[str, set[str]] = {}
    for module in graph:
        seen: set[str] = set()
        pending = list(graph[module])
        while pending:
            target = pending.pop()
            if target not in seen:
                seen.add(target)
                pending += graph[target]
        reach[module] = seen
    groups = {
        tuple(sorted({module, *(target for target in reach[module] if module in reach[target])}))
        for module in graph
        if module in reach[module]
    }
    return [list(group) for group in sorted(groups)]


def duplicates(modules: Iterable[str]) -> dict[str, list[str]]:
    """Modules that share their last name; `__main__` and packages must have theirs."""
    by_name: dict[str, list[str]] = {}
    for module in sorted(modules):
        by_name.setdefault(module.rpartition(".")[2], []).append(module)
    return {name: group for name, group in by_name.items() if len(group) > 1 and name != "__main__"}


def documented(tree: ast.Module) -> tuple[int, int]:
    """How many of the public functions, methods and classes of a module have a docstring, and how many there are."""
    having = count = 0
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            count += 1
            having += ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                pending += node.body
    return having, count


def read(root: Path) -> dict[Path, ast.Module]:
    """The parsed sources of the engine and the screen."""
    return {path: ast.parse(path.read_text("utf-8")) for part in BOUNDS for path in sorted((root / part).rglob("*.py"))}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def placeholders(tree: ast.Module) -> list[tuple[str, int]]:
    """(name, line) of every placeholder of a module's messages."""
    return [
        (keyword.arg, keyword.value.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("msg", "msg_n")
        for keyword in node.keywords
        if keyword.arg
    ]


@dataclass(frozen=True, slots=True)
class Report:
    """What was counted in one tree."""

    counts: Counter[str]
    """How often each name is bound."""
    long_lived: list[str]
    """`file:line: name` of the vague names that live too long."""
    placeholders: list[str]
    """`file:line: name` of the placeholders that say nothing."""
    documented: float

    def share(self, words: Iterable[str]) -> float:
        """How many of 1,000 bindings are named by one of these words."""
        return 1000 * sum(self.counts[word] for word in words) / max(1, self.counts.total())

    def figures(self) -> Bounds:
        """The counts as the tightest bounds that hold."""
        return Bounds(
            self.share(VAGUE), self.share(SECOND), len(self.long_lived), len(self.placeholders), self.documented
        )


def count(sources: Mapping[str, ast.Module]) -> Report:
    """Count in the modules of a tree, each by its file's name."""
    report = Report(Counter(), [], [], 0.0)
    having = public = 0
    for file, tree in sources.items():
        for binding in bindings(tree):
            report.counts[binding.name] += 1
            if binding.name in LINTED and binding.last_use - binding.line >= SHORT_LIFE_LINES:
                report.long_lived.append(f"{file}:{binding.line}: `{binding.name}`")
        for name, line in placeholders(tree):
            if EMPTY_PLACEHOLDER.fullmatch(name):
                report.placeholders.append(f"{file}:{line}: {{{name}}}")
        with_docstring, definitions = documented(tree)
        having, public = having + with_docstring, public + definitions
    return replace(report, documented=having / max(1, public))


def exceeded(figures: Bounds, bounds: Bounds) -> list[str]:
    """The figures that are out of bounds, as `name figure (bound)`."""
    return [
        f"{field.name} {getattr(figures, field.name):.4g} (bound {getattr(bounds, field.name):g})"
        for field in fields(Bounds)
        if (getattr(figures, field.name) > getattr(bounds, field.name)) != (field.name == "documented")
        and getattr(figures, field.name) != getattr(bounds, field.name)
    ]


def main(arguments: list[str] | None = None, bounds: Mapping[str, Bounds] = BOUNDS) -> int:
    """Print the numbers of a source tree; with --check 1 where one is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a number is out of bounds")
    parser.add_argument("--names", action="store_true", help="list what is to be changed")
    parser.add_argument("--root", type=Path, default=ROOT, help="the source tree to read (default: this one)")
    options = parser.parse_args(arguments)
    sources = read(options.root)
    wrong: list[str] = []

    for part, allowed in bounds.items():
        files = {path.relative_to(options.root): tree for path, tree in sources.items()}
        report = count({str(file): tree for file, tree in files.items() if file.parts[0] == part})
        figures = report.figures()
        for words, share, most in (
            (VAGUE, figures.vague, allowed.vague),
            (SECOND, figures.second, allowed.second),
        ):
            often = ", ".join(f"{name} {number}" for name, number in report.counts.most_common() if name in words)
            print(f"{part}: {share:.1f} of 1,000 bindings are vague, at most {most:g} may be: {often}")
        print(f"{part}: {figures.long_lived} vague names live longer than {SHORT_LIFE_LINES} lines")
        print(f"{part}: {figures.placeholders} placeholders say nothing")
        print(f"{part}: {figures.documented:.1%} of the public functions and classes have a docstring")
        if options.names:
            print("\n".join([*report.long_lived, *report.placeholders]))
        wrong += [f"{part}: {fault}" for fault in exceeded(figures, allowed)]

    names = duplicates(module_name(path, options.root) for path in sources if path.name != "__init__.py")
    print(f"module names that occur twice or more: {len(names)}, at most {MOST_DUPLICATES} may: {', '.join(names)}")
    if len(names) > MOST_DUPLICATES:
        wrong.append(f"{len(names)} module names occur twice")

    rings = circles(imports({module_name(path, options.root): tree for path, tree in sources.items()}))
    print(f"import circles: {len(rings)}")
    for ring in rings:
        print(f"  {' <> '.join(ring)}")
    if rings:
        wrong.append(f"{len(rings)} import circles")

    errors = sentences.error_names(list(sources.values()))
    written_otherwise = [
        f"{path.relative_to(options.root)}:{line}: {fault}"
        for path, tree in sources.items()
        for line, fault in sentences.faults(tree, errors)
    ]
    written_otherwise += [
        f"{path.relative_to(options.root)}:{line}: decides by words of a sentence: {words!r}"
        for path, tree in sources.items()
        if path.relative_to(options.root).as_posix() not in sentences.OTHERS_WORDS
        for line, words in sentences.searched_words(tree)
    ]
    pages = [options.root / "README.md", options.root / "CHANGELOG.md", *sorted((options.root / "docs").glob("*.md"))]
    for page in filter(Path.exists, pages):
        name = page.relative_to(options.root)
        written_otherwise += [
            f"{name}:{line}: {fault}" for line, fault in sentences.page_faults(page.read_text("utf-8"))
        ]
    print(f"numbers and sentences written otherwise: {len(written_otherwise)}")
    if options.names and written_otherwise:
        print("\n".join(written_otherwise))
    if written_otherwise:
        wrong.append(f"{len(written_otherwise)} numbers or sentences are written otherwise")

    if options.check and wrong:
        print("out of bounds: " + "; ".join(wrong), file=sys.stderr)
        print("`python scripts/house.py --names` lists what is to be changed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
