"""The prompts of a conversation's answers, cut out of one rendering of it.

The prompt of an answer is the rendering of the messages before it, with a generation prompt behind. Most templates loop
over the messages and look at none before its turn: what they have written when they come to a message is what they
write for the messages before it alone, whatever may follow. Whether a template does so is not guessed from its text: it
is given a list that sees which messages it reads, and when (`Trail`). A message that it has read early, the length or
the end of the list, `loop.last` or `add_generation_prompt` inside the loop: from there on, nothing is cut.

What stands behind the loop, the generation prompt, must depend on nothing but whether it is asked for.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

TRAIL = "finetop_trail"
"""The name by which a template has its trail."""
_AHEAD, _WALK = "finetop_ahead", "finetop_walk"
_BEHIND_ONLY = frozenset(("index", "index0", "first", "previtem", "cycle", "changed", "depth", "depth0"))
"""What a loop knows without the items to come."""
_ELSEWHERE = (nodes.Block, nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)


def with_trail(environment: jinja2.Environment, text: str) -> tuple[jinja2.Template, jinja2.Template] | None:
    """The template, for rendering with a `Trail`, and the part of it behind its loop; None where it has no loop behind
    which nothing depends on the conversation."""
    tree = environment.parse(text)
    if any(True for _ in tree.find_all(_ELSEWHERE)):
        return None
    at = max((i for i, node in enumerate(tree.body) if isinstance(node, nodes.For)), default=-1)
    loop = tree.body[at] if at >= 0 else None
    if not isinstance(loop, nodes.For) or loop.test or loop.else_ or loop.recursive:
        return None
    own = {"messages", "tools", "loop"}
    own |= {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    own |= {macro.name for macro in tree.find_all(nodes.Macro)}
    behind = nodes.Template(tree.body[at + 1 :], lineno=loop.lineno)
    if any(name.name in own for name in behind.find_all(nodes.Name)):
        return None
    behind.set_environment(environment)
    header = jinja2.Template.from_code(environment, environment.compile(behind), {})
    tree.body[: at + 1] = [_Ahead().visit(node) for node in tree.body[: at + 1]]
    loop.iter = _filtered(loop.iter, _WALK)
    environment = environment.overlay()
    environment.filters = {**environment.filters, _AHEAD: _ahead, _WALK: _walk}
    tree.set_environment(environment)
    return jinja2.Template.from_code(environment, environment.compile(tree), {}), header


class _Ahead(NodeTransformer):
    """Lets a rendering tell that it reads what differs between a conversation and the prompts in it."""

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        is_known = isinstance(node.node, nodes.Name) and node.node.name == "loop" and node.attr in _BEHIND_ONLY
        return node if is_known else self.generic_visit(node)

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        is_read = node.ctx == "load" and node.name in ("loop", "add_generation_prompt")
        return _filtered(node, _AHEAD, nodes.Name(TRAIL, "load")) if is_read else node


def _filtered(value: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    """Filters are called at a fifth of the cost of functions, which the sandbox asks whether they are safe."""
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


class Trail:
    """One rendering by a template that `with_trail` made."""

    __slots__ = ("_latest", "blocks", "cuts", "messages")

    def __init__(self, messages: Sequence[dict[str, Any]]) -> None:
        self.messages = _Watched(self, messages, 0)
        """For the template."""
        self.blocks: list[str] = []
        """What is written, block by block, as it is written."""
        self._latest: float = -1
        """The last message that was read; infinite once anything was that not only these messages decide."""
        self.cuts: dict[int, int] = {}
        """By message: how many blocks are written for the messages before it, whatever follows."""

    def look_ahead(self) -> None:
        """The template reads what depends on more than the messages so far."""
        self._latest = math.inf

    def read(self, message: int) -> None:
        """The template reads this message."""
        self._latest = max(self._latest, message)

    def steps(self, messages: Sequence[dict], first: int) -> Iterator[dict]:
        """The messages, numbered from `first`, for the template's loop."""
        for number, message in enumerate(messages, first):
            if self._latest < number:
                self.cuts[number] = len(self.blocks)
                self._latest = number
            yield message


def _ahead(value: Any, trail: Trail) -> Any:
    trail.look_ahead()
    return value


def _walk(values: Iterable) -> Iterable:
    return values._trail.steps(*values._of) if type(values) is _Watched else values


class NotFollowedError(Exception):
    """A template uses its list of messages as nothing but a true list can be used."""


class _Watched:
    """The messages from one on, as a template has them."""

    __slots__ = ("_of", "_trail")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, trail: Trail, messages: Sequence[dict], first: int) -> None:
        self._trail, self._of = trail, (messages, first)

    def __getitem__(self, key: Any) -> Any:
        messages, first = self._of
        if type(key) is int and key >= 0:
            self._trail.read(first + key)
        elif type(key) is slice and type(key.start) is int and key.start >= 0 and key.stop is key.step is None:
            return _Watched(self._trail, messages[key], first + key.start)
        else:
            self._trail.look_ahead()
        return messages[key]

    def __iter__(self) -> Iterator[dict]:
        self._trail.look_ahead()
        return iter(self._of[0])

    def __len__(self) -> int:
        self._trail.look_ahead()
        return len(self._of[0])

    def __getattr__(self, name: str) -> Any:
        raise NotFollowedError(name)

    def __eq__(self, other: object) -> bool:
        raise NotFollowedError

    def __str__(self) -> str:
        raise NotFollowedError

    __repr__ = __str__
