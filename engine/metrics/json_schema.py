"""JSON Schemas: whether one can be worked with at all, and whether an answer keeps to it. Nothing is ever fetched."""

import functools
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas are applied to the very same value."""


def check_schema(schema: str) -> None:
    """ValueError, in words, for a text that is no JSON Schema, or one that no answer could ever be held against.

    That is: a `$ref` to something that is not in it (nothing is fetched), a `$ref` that comes back to itself before it
    has looked at anything, an expression that Python's `re` cannot read.
    """
    try:
        content = json.loads(schema)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(content, dict | bool):
        raise ValueError("it is no JSON Schema: that is an object, or true or false")
    if isinstance(content, dict) and not isinstance(content.get("$schema", ""), str):
        raise ValueError("it is no JSON Schema: its $schema is not text")
    try:
        with warnings.catch_warnings(action="ignore"):  # of expressions that Python may read otherwise one day
            _walk(content, _validator(schema).META_SCHEMA["$schema"])
    except ValueError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # whatever the library trips over in a $schema or $id of a strange kind
        if getattr(error, "validator", "") == "format":
            _check_expression(str(getattr(error, "instance", "")))
        raise ValueError(f"it is no JSON Schema: {getattr(error, 'message', error)}") from None


def allows(schema: str, content: Any) -> bool:
    """Whether `content`, an answer read as JSON, keeps to a schema that `check_schema` has let pass."""
    try:
        return _validator(schema).is_valid(content)
    except RecursionError:  # the answer goes deeper than can be followed
        return False


@functools.lru_cache(8)
def _validator(schema: str) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for  # 50 ms, wanted only where there is a schema
    from jsonschema_specifications import REGISTRY

    content = json.loads(schema)
    kind = validator_for(content, default=Draft202012Validator)
    kind.check_schema(content)
    return kind(content, registry=REGISTRY)  # given, since the registry it would make itself goes to the network


def _walk(content: Any, dialect: str) -> None:
    """Check every schema within `content`, and every one that a reference leads to."""
    from jsonschema_specifications import REGISTRY
    from referencing.jsonschema import specification_with

    specification = specification_with(dialect)
    waiting = [(content, REGISTRY.resolver_with_root(specification.create_resource(content)))]
    seen: set[int] = set()
    while waiting:
        schema, resolver = waiting.pop()
        if id(schema) in seen or not isinstance(schema, dict):
            continue
        seen.add(id(schema))
        _check_expressions(schema)
        _refuse_circle(schema, resolver, ())
        for target in _targets(schema, resolver):
            waiting.append(target)
        for child in specification.create_resource(schema).subresources():
            waiting.append((child.contents, resolver.in_subresource(child)))


def _targets(schema: dict[str, Any], resolver: Any) -> Iterator[tuple[Any, Any]]:
    """What the references of one schema lead to, each with the resolver that holds there."""
    from referencing.exceptions import Unresolvable

    for keyword in _REFERENCES:
        reference = schema.get(keyword)
        if not isinstance(reference, str):
            continue
        try:
            target = resolver.lookup(reference)
        except Unresolvable:
            remote = "; nothing is fetched from elsewhere" if "://" in reference.split("#")[0] else ""
            raise ValueError(f"{keyword} '{reference[:200]}' leads to nothing in it{remote}") from None
        if not isinstance(target.contents, dict | bool):
            raise ValueError(f"{keyword} '{reference[:200]}' leads to something that is no schema")
        yield target.contents, target.resolver


def _refuse_circle(schema: Any, resolver: Any, above: tuple[int, ...]) -> None:
    """ValueError where a value would be looked at without end: a schema that is a part of itself."""
    if not isinstance(schema, dict):
        return
    if id(schema) in above:
        raise ValueError("a $ref in it comes back to itself, so that no value could ever be checked")
    above = (*above, id(schema))
    for target, inner_resolver in _targets(schema, resolver):
        _refuse_circle(target, inner_resolver, above)
    for keyword in _IN_PLACE:
        value = schema.get(keyword)
        parts = value if isinstance(value, list) else value.values() if keyword == "dependentSchemas" and value else ()
        for part in [value] if keyword in ("not", "if", "then", "else") else parts:
            _refuse_circle(part, resolver, above)


def _check_expressions(schema: dict[str, Any]) -> None:
    named = schema.get("patternProperties")
    for expression in [schema.get("pattern"), *(named if isinstance(named, dict) else ())]:
        if isinstance(expression, str):
            _check_expression(expression)


def _check_expression(expression: str) -> None:
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"the pattern '{expression[:200]}' cannot be read by Python's re: {error}") from None
