"""How the source reads, in numbers: vague names, module names that occur twice, import circles, docstrings.

    python scripts/house.py            prints them
    python scripts/house.py --check    exit code 1 where one of them is out of bounds

A binding is an assignment, a parameter, the target of a loop or a comprehension, the name after `as`.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("engine", "tui")
VAGUE = frozenset(
    [
        "found",
        "said",
        "known",
        "told",
        "given",
        "asked",
        "wanted",
        "place",
        "moment",
        "rest",
        "one",
        "each",
        "before",
        "after",
        "own",
        "others",
        "there",
    ]
)
"""Words that do not say what the value is."""
LINTED = frozenset(["found", "said", "known", "told", "given", "asked", "wanted", "place", "moment", "rest"])
"""Those that a name may be for no longer than `SHORT_LIFE_LINES`."""
SECOND = frozenset(["result", "item", "data", "value", "info", "obj"])
"""The words that a vague name is easily replaced by."""
SHORT_LIFE_LINES = 3
MOST_VAGUE = 5.0
"""Per 1,000 bindings."""
MOST_SECOND = {"engine": 26.0, "tui": 22.0}
"""Per 1,000 bindings: what they were when the vague names began to go."""
MOST_DUPLICATES, LEAST_DOCUMENTED = 8, 0.7


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
    return {path: ast.parse(path.read_text("utf-8")) for part in PARTS for path in sorted((root / part).rglob("*.py"))}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def main(arguments: list[str] | None = None) -> int:
    """Print the numbers of a tree; with --check 1 where one is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a number is out of bounds")
    parser.add_argument("--names", action="store_true", help="list every vague name that lives too long")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to read (default: this one)")
    options = parser.parse_args(arguments)
    sources = read(options.root)
    wrong: list[str] = []

    long_lived: list[str] = []
    for part in PARTS:
        counts: Counter[str] = Counter()
        having = count = 0
        for path, tree in sources.items():
            if path.relative_to(options.root).parts[0] != part:
                continue
            for binding in bindings(tree):
                counts[binding.name] += 1
                if binding.name in LINTED and binding.last_use - binding.line >= SHORT_LIFE_LINES:
                    long_lived.append(f"{path.relative_to(options.root)}:{binding.line}: `{binding.name}`")
            mine = documented(tree)
            having, count = having + mine[0], count + mine[1]
        for words, most in ((VAGUE, MOST_VAGUE), (SECOND, MOST_SECOND[part])):
            share = 1000 * sum(counts[word] for word in words) / max(1, counts.total())
            often = ", ".join(f"{name} {number}" for name, number in counts.most_common() if name in words)
            print(f"{part}: {share:.1f} of 1,000 bindings are vague, at most {most:g} may be: {often}")
            if share > most:
                wrong.append(f"{part}: {share:.1f} vague names of 1,000")
        share = having / max(1, count)
        print(f"{part}: {share:.0%} of {count} public functions and classes have a docstring")
        if share < LEAST_DOCUMENTED:
            wrong.append(f"{part}: {share:.0%} documented, less than {LEAST_DOCUMENTED:.0%}")

    print(f"vague names that live longer than {SHORT_LIFE_LINES} lines: {len(long_lived)}")
    if options.check or options.names:
        print("\n".join(long_lived))
    if long_lived:
        wrong.append(f"{len(long_lived)} vague names live longer than {SHORT_LIFE_LINES} lines")

    files = [path for path in sources if path.name != "__init__.py"]
    twice = duplicates(module_name(path, options.root) for path in files)
    print(f"module names that occur twice or more: {len(twice)}, at most {MOST_DUPLICATES} may: {', '.join(twice)}")
    if len(twice) > MOST_DUPLICATES:
        wrong.append(f"{len(twice)} module names occur twice")

    rings = circles(imports({module_name(path, options.root): tree for path, tree in sources.items()}))
    print(f"import circles: {len(rings)}")
    for ring in rings:
        print(f"  {' <> '.join(ring)}")
    if rings:
        wrong.append(f"{len(rings)} import circles")

    if options.check and wrong:
        print("out of bounds: " + "; ".join(wrong), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
