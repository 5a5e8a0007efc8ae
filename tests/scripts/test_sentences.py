"""What scripts/sentences.py finds written otherwise, on sources made for it. `make lint` holds the tree to it."""

import ast

import pytest

from scripts import sentences


def faults(source: str) -> list[str]:
    tree = ast.parse(source)
    return [fault.partition(":")[0] for _, fault in sentences.faults(tree, sentences.error_names([tree]))]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('msg("{share:.0f} % of it")', "a space before the percent sign"),
        ('x = f"{share} %"', "a space before the percent sign"),
        ('"""A 95 % interval."""', "a space before the percent sign"),
        ('msg("after {time:.0f} s")', "seconds not written by `duration`"),
        ('msg("{rows} rows")', "a count without commas"),
        ('X = MessageTemplate("{rows} rows")', "a count without commas"),
        ('msg_n("{n} file", "{n} more files", 2)', "a count without commas"),
        ('msg(f"{what} is")', "a template that is no constant"),
        ('host.say(f"queued {ids}")', "a sentence that is no template"),
        ('raise EngineError("it failed: " + why)', "a sentence that is no template"),
        ('raise EngineError("x" if y else f"{path} is gone")', "a sentence that is no template"),
    ],
)
def test_what_is_written_otherwise_is_found(source, fault):
    assert faults(source) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        'msg("{share:.0%} of {rows:,} rows, {speed:,.0f} tokens/s, {pace:.3g} s/step")',
        'raise EngineError(f"{path}: {error}", f"--config {path}")',
        'raise OSError(f"no file {path}")',
        'x = "%s is 5 %(name)s" % {}',
    ],
)
def test_what_is_right_is_let_be(source):
    assert faults(source) == []


def test_errors_are_known_by_what_they_inherit_from():
    tree = ast.parse("class EngineError(Exception): ...\nclass A(EngineError): ...\nclass B(A): ...\nclass C: ...\n")
    assert sentences.error_names([tree]) == {"EngineError", "A", "B"}


def test_pages_of_the_docs_are_read_too():
    assert [line for line, _ in sentences.page_faults("85%\n85 % of it\n")] == [2]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('"before the first step" in reason', ["before the first step"]),
        ('why.startswith("nothing to do")', ["nothing to do"]),
        ('_, _, why = problem.partition(", but ")', [", but "]),
        ('line.removesuffix(("; left out", "; it is left out"))', ["; left out", "; it is left out"]),
        ('path.startswith("lora.") or "train.epochs" in chosen or text.partition(" | ")', []),
        ("TOO_LARGE.values_in(reason)", []),
    ],
)
def test_a_decision_by_the_words_of_a_sentence_is_found(source, words):
    assert [text for _, text in sentences.searched_words(ast.parse(source))] == words
