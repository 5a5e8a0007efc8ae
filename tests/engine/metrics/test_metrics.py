"""Scores equal those of the reference implementations, and read Chinese as well as English."""

import json
import random

import pytest

from engine.metrics import classification, structured_output, text_overlap
from engine.metrics.json_schema import check_schema
from engine.metrics.normalisation import normalise
from engine.metrics.score import Answer, score

_WORDS = ["the", "river", "Moon", "北京", "晴", "a", "7", "1,234", "x-ray", "don't", "。", "散步", "naïve", "，"]


def _texts(count: int, seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)

    def one() -> str:
        return "".join(draw.choice(_WORDS) + draw.choice([" ", "", " "]) for _ in range(draw.randrange(0, 14)))

    return [(one(), one()) for _ in range(count)]


def test_rouge_l_equals_googles_rouge_score():
    from rouge_score.rouge_scorer import RougeScorer

    class OurTokens:
        def tokenize(self, text_: str) -> list[str]:
            return text_overlap.rouge_tokens(text_)

    plain, ours = RougeScorer(["rougeL"]), RougeScorer(["rougeL"], tokenizer=OurTokens())
    for answer, reference in _texts(400, 1):
        assert text_overlap.rouge_l(answer, reference) == pytest.approx(
            ours.score(reference, answer)["rougeL"].fmeasure
        )
        if answer.isascii() and reference.isascii():
            assert text_overlap.rouge_l(answer, reference) == pytest.approx(
                plain.score(reference, answer)["rougeL"].fmeasure
            )


def test_rouge_l_reads_chinese_by_characters():
    assert text_overlap.rouge_tokens("今天 is sunny，出门2次") == ["今", "天", "is", "sunny", "出", "门", "2", "次"]
    assert text_overlap.rouge_l("今天是晴天", "今天是阴天") == pytest.approx(0.8)


def test_chrf_equals_sacrebleu():
    import sacrebleu

    for answer, reference in _texts(200, 2):
        assert text_overlap.chrf(answer, reference) == pytest.approx(
            sacrebleu.sentence_chrf(answer, [reference]).score / 100
        )


def test_each_normalisation_disregards_what_it_says_and_no_more():
    given, wanted = "  Ｈello，　WORLD！ ", "hello world"
    assert text_overlap.exact_match(given, wanted, "punctuation") == 1
    assert text_overlap.exact_match(given, wanted, "case") == 0
    assert text_overlap.exact_match("Hello  World\n", wanted, "case") == 1
    assert text_overlap.exact_match("Hello  World\n", wanted, "space") == 0
    assert text_overlap.exact_match("hello \n world", wanted, "space") == 1
    assert text_overlap.exact_match("hello  world", wanted, "none") == 0
    assert normalise("《红楼梦》、“好”——！（c++ <5>）", "punctuation") == "红楼梦 好 c++ <5>"
    assert text_overlap.exact_match("-5", "5", "punctuation") == 0, "a sign is no punctuation"
    assert text_overlap.exact_match("3.5", "3 5", "punctuation") == 0, "nor is the point within a number"
    assert text_overlap.exact_match("pages 3-7.", "pages 3 7", "punctuation") == 1
    with pytest.raises(KeyError):
        normalise("a", "lower")


def test_contains_finds_the_reference_within():
    assert text_overlap.contains("The answer is Paris.", "paris", "case") == 1
    assert text_overlap.contains("The answer is London.", "paris", "case") == 0
    assert text_overlap.contains("something", "", "case") == 0


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("5+3=8, so 1,234 apples", "3 and then\n#### 1234", 1),
        ("#### 12\nI checked it against 99.", "#### 12", 1),
        ("about 3.50", "3.5", 1),
        ("minus −7", "-7", 1),
        ("一共１２个。", "12", 1),
        ("$1,000,000.00", "1000000", 1),
        ("7 or 8", "7", 0),
        ("no idea", "7", 0),
        ("7", "no number here", None),
        ("It is 5.", "5", 1),
        ("1e3", "1000", 1),
        ("It takes 10-15", "15", 1),
        ("see pages 3-7", "7", 1),
        ("on 2024-01-15", "15", 1),
        ("10–15 days", "15", 1),
        ("１２－１５", "15", 1),
        ("3--7", "7", 1),
        ("10%-15%", "15", 1),
        ("COVID-19", "-19", 0),
        ("it was –5 degrees", "-5", 1),
        ("答案是－５度", "-5", 1),
        ("x=-5", "-5", 1),
        ("[-3,-1]", "-1", 1),
        ("-$3.00", "-3", 1),
        ("５０％", "50", 1),
        ("-50%", "50", 0),
        ("共１，２３４个", "1234", 1),
        ("12\u202f345", "12345", 1),
        ("1'234'567", "1234567", 1),
        ("15.01.2024", "2024", 1),
        ("v1.2.3", "3", 1),
        ("12 m²", "12", 1),
        ("#### 3-7", "3", 1),
        ("#### -7", "-7", 1),
    ],
)
def test_number_match_compares_final_numbers(answer, reference, expected):
    assert structured_output.number_match(answer, reference) == expected


def test_json_is_valid_only_as_a_whole():
    assert structured_output.json_valid(' {"a": [1, "晴"]}\n') == 1
    for wrong in ('{"a": 1,}', "```json\n{}\n```", 'Sure: {"a": 1}', '{"a": NaN}', "7", "", "[" * 100_000):
        assert structured_output.json_valid(wrong) == 0, wrong


def test_json_schema_holds_what_the_schema_says():
    schema = json.dumps({"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}})
    assert structured_output.json_schema('{"age": 3}', schema) == 1
    assert structured_output.json_schema('{"age": "3"}', schema) == 0
    assert structured_output.json_schema("not json", schema) == 0
    with pytest.raises(ValueError, match="no JSON Schema"):
        check_schema('{"type": 5}')


_WORTHLESS = [
    ({"properties": {"a": {"$ref": "#/$defs/none"}}}, r"\$ref '#/\$defs/none' leads to nothing in it"),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "items": {"$ref": "#/definitions/b"}}, "leads to nothing"),
    ({"$defs": {"unused": {"$ref": "other.json#/x"}}}, "leads to nothing"),
    ({"not": {"$ref": "http://127.0.0.1:9/s.json"}}, "nothing is fetched"),
    ({"not": {"$ref": "file:///etc/hostname"}}, "nothing is fetched"),
    ({"$dynamicRef": "#node"}, "leads to nothing"),
    ({"$ref": "#/title", "title": "x"}, "no schema"),
    ({"$ref": "#"}, "comes back to itself"),
    ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}, "comes back to itself"),
    ({"pattern": "(unclosed"}, "cannot be read by Python's re"),
    ({"items": {"patternProperties": {"\\p{L}+": {}}}}, "cannot be read by Python's re"),
    ({"$schema": ["a"]}, "no JSON Schema"),
    ({"$id": 5}, "no JSON Schema"),
    (3, "an object, or true or false"),
    ("text", "an object, or true or false"),
    (None, "an object, or true or false"),
]


@pytest.mark.parametrize(("schema", "words"), _WORTHLESS)
def test_a_schema_that_no_answer_could_be_held_against_is_refused(schema, words):
    with pytest.raises(ValueError, match=words):
        check_schema(json.dumps(schema))


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"properties": {"$ref": {"type": "string"}}},
        {"enum": [{"$ref": "no reference"}], "default": {"pattern": "("}},
        {"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}},
        {"$id": "http://a.b/c", "$defs": {"x": {"$id": "d", "type": "string"}}, "items": {"$ref": "d"}},
        {"$defs": {"x": {"$anchor": "name"}}, "items": {"$ref": "#name"}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"additionalProperties": {"pattern": "[[a-z]||b]"}},
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "definitions": {"a": {}},
            "not": {"$ref": "#/definitions"},
        },
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_schema_that_works_is_let_pass_whatever_it_uses(schema):
    check_schema(json.dumps(schema))
    assert structured_output.json_schema("{}", json.dumps(schema)) in (0, 1)


def test_an_answer_too_deep_to_be_followed_is_a_wrong_one():
    schema = json.dumps({"properties": {"n": {"$ref": "#"}}})
    assert structured_output.json_schema('{"n":' * 900 + "1" + "}" * 900, schema) == 0


def test_classification_scores_equal_scikit_learn():
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    draw = random.Random(3)
    for _ in range(100):
        labels = [f"l{i}" for i in range(draw.randrange(2, 9))]
        size = draw.randrange(1, 60)
        true = draw.choices(labels, k=size)
        predicted = [draw.choice([one, draw.choice(labels), None]) for one in true]
        spelt = [one or "none of them" for one in predicted]
        known = sorted(set(true) | set(predicted) - {None})
        assert classification.accuracy(predicted, true) == pytest.approx(accuracy_score(true, spelt))
        expected = f1_score(true, spelt, labels=known, average="macro", zero_division=0)
        assert classification.macro_f1(predicted, true) == pytest.approx(expected)
        matrix = confusion_matrix(true, spelt, labels=[*known, "none of them"])
        ours = classification.confusion(predicted, true)
        for i, row in enumerate(known):
            for j, column in enumerate([*known, None]):
                assert ours.get((row, column), 0) == matrix[i][j]


def test_an_answer_is_read_as_a_label_after_the_normalisation():
    assert classification.read_label(" Card_Arrival\n", ["card_arrival", "lost"], "case") == "card_arrival"
    assert classification.read_label("card_arrival.", ["card_arrival"], "case") is None
    assert classification.read_label("card_arrival.", ["card_arrival"], "none") is None


def test_scores_are_kept_for_every_example_and_averaged():
    answers = [Answer("Paris", "paris"), Answer("8", "It is 8."), Answer("x", None), Answer("b", None, "b")]
    means = score(answers, ["exact_match", "number_match"], "case")
    assert answers[0].scores == {"exact_match": 1.0}
    assert answers[1].scores == {"exact_match": 0.0, "number_match": 1.0}
    assert answers[2].scores == {}
    assert means == {"eval/exact_match": 0.5, "eval/number_match": 1.0}
    labelled = [Answer("a", label="a"), Answer("b", label=None)]
    assert score(labelled, ["accuracy", "macro_f1"], "case", classified=True) == {
        "eval/accuracy": 0.5,
        "eval/macro_f1": 0.5,
    }


def test_settings_name_the_metrics_and_normalisations_there_are():
    from typing import get_args

    from engine.metrics.normalisation import NORMALISATIONS
    from engine.metrics.score import DESCRIPTIONS, METRICS
    from engine.settings.schema import SETTINGS

    assert get_args(get_args(SETTINGS["eval.metrics"].type)[0]) == METRICS == tuple(DESCRIPTIONS)
    assert get_args(SETTINGS["eval.normalisation"].type) == tuple(NORMALISATIONS)
