"""What people call metrics, and which score stands for a run. Light: lists load it."""

_EVAL = "eval/"
MAIN_SCORES = (
    "accuracy", "exact_match", "number_match", "json_schema", "contains", "macro_f1", "rouge_l", "chrf", "json_valid",
)  # fmt: skip
"""All of `score.METRICS`. The first of them that a run has says most about its answers."""
_SHARES = ("accuracy", "exact_match", "number_match", "json_schema", "contains", "json_valid",
           "thinking_share", "thinking_unclosed")  # fmt: skip
"""Scores that are a share of the examples, shown in percent."""


def metric_name(key: str) -> str:
    """`eval loss` of `eval/loss`, `train loss` of `train/loss`; a score goes by the name that `eval.metrics` takes."""
    if key.startswith(_EVAL) and key != "eval/loss":
        return key.removeprefix(_EVAL)
    return key.replace("/", " ")


def score_text(name: str, value: float) -> str:
    return f"{value:.1%}" if name in _SHARES else f"{value:.4f}"
