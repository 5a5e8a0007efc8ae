"""How the source writes what users read: numbers in one form, sentences as message templates. `house.py` asks.

A sentence is what an error of ours, a notice or a finding is made with, and the templates of `msg`, `msg_n` and
`MessageTemplate`.
"""

import ast
import re
from collections.abc import Iterator

SPEAKERS = frozenset(["say", "say_whole", "leave", "Finding"])
"""Calls beside the errors of ours whose arguments users read."""
_MAKERS = ("msg", "msg_n", "MessageTemplate")
_FAMILY_ROOT = "EngineError"
_WORD = re.compile(r"(?<![-\w.])[a-z]{2,}(?![\w.]*\.\w)", re.IGNORECASE)
"""A word of a sentence: no flag (`--like`) and no setting (`eval.command`)."""
_SPACED_PERCENT = re.compile(r"[\d}] %(?!\w|[(.])")
_SPACED_SECONDS = re.compile(r"\} s\b(?!/)")
_NOUNS = (
    "tokens|rows|examples|steps|evaluations|points|prompts|labels|characters|checkpoints|predictions|answers|columns|"
    "bytes|times|values|passes|conversations|files|lines|problems"
)
OTHERS_WORDS = frozenset(
    [
        "engine/cli/parser.py",  # argparse
        "engine/formats/delimited.py",  # csv
        "engine/formats/json_lines.py",  # json
        "engine/formats/json_recovery.py",
        "engine/worker/model/out_of_memory.py",  # torch, CUDA
        "engine/worker/runtime/environment.py",  # torch's log
    ]
)
"""Modules that go by the words of a library, which gives nothing else; our own messages have templates."""
_SEARCHES = frozenset(
    ["startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "find", "index"]
)
_WORDS = re.compile(r"[a-z]{2,},? [a-z]{2,}|, [a-z]{2,}|[a-z]{2,} $|[a-z]{2,}: $", re.IGNORECASE)
_BARE_COUNT = re.compile(rf"\{{(\w+)\}} (?:(?:more|usable|different|training|validation) )?(?:{_NOUNS})\b")
"""`1,797 rows` needs `{rows:,} rows`."""


def error_names(trees: list[ast.Module]) -> set[str]:
    """The names of the error family: `EngineError` and what inherits from it."""
    parents = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    family = {_FAMILY_ROOT}
    while more := {name for name, bases in parents.items() if bases & family} - family:
        family |= more
    return family


def faults(tree: ast.Module, errors: set[str]) -> list[tuple[int, str]]:
    """(line, what is written otherwise) of a module; `errors` as `error_names` has them."""
    return sorted({*_spaced(tree), *_templates(tree), *_sentences(tree, errors)})


def page_faults(text: str) -> list[tuple[int, str]]:
    """(line, what is written otherwise) of a page of the docs."""
    return [
        (number, f"a space before the percent sign: {_around(_SPACED_PERCENT, line)}")
        for number, line in enumerate(text.splitlines(), 1)
        if _SPACED_PERCENT.search(line)
    ]


def searched_words(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, words) where a module decides by words of a sentence: whether they are in a text, or where."""
    hits = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            words: list[ast.expr] = [node.left]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SEARCHES:
            words = [word for given in node.args for word in (given.elts if isinstance(given, ast.Tuple) else [given])]
        else:
            continue
        texts = (word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str))
        hits += [(node.lineno, text) for text in texts if _WORDS.search(text)]
    return hits


def _spaced(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr):
            continue
        text = _template(node)
        if text and _SPACED_PERCENT.search(text):
            yield node.lineno, f"a space before the percent sign: {_around(_SPACED_PERCENT, text)}"
        if text and "}" in text and _SPACED_SECONDS.search(text):
            yield node.lineno, f"seconds not written by `duration`: {_around(_SPACED_SECONDS, text)}"


def _templates(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _name(node) not in _MAKERS:
            continue
        for template in node.args[: 2 if _name(node) == "msg_n" else 1]:
            if not isinstance(template, ast.Constant):
                yield node.lineno, f"a template that is no constant: {ast.unparse(template)[:60]}"
            elif _BARE_COUNT.search(str(template.value)):
                yield node.lineno, f"a count without commas: {_around(_BARE_COUNT, str(template.value))}"


def _sentences(tree: ast.Module, errors: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node) in errors | SPEAKERS:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                if built := _built(argument):
                    yield node.lineno, f"a sentence that is no template: {ast.unparse(built)[:60]}"


def _built(node: ast.expr) -> ast.expr | None:
    """The part of an argument that puts a sentence together by itself."""
    if isinstance(node, ast.IfExp):
        return _built(node.body) or _built(node.orelse)
    if isinstance(node, ast.JoinedStr):
        words = [part for part in node.values if isinstance(part, ast.Constant) and _WORD.search(str(part.value))]
        return node if words else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return node
    return None


def _template(node: ast.expr) -> str | None:
    """A string as written, `{}` where an f-string has a value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _around(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return text[max(0, match.start() - 20) : match.end() + 10].replace("\n", " ") if match else ""
