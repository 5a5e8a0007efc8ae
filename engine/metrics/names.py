"""What people call metrics, and which score stands for a run. Light: lists load it."""

_EVAL = "eval/"
MAIN_SCORES = (
    "accuracy", "exact_match", "number_match", "json_schema", "contains", "macro_f1", "rouge_l", "chrf", "json_valid",
)  # fmt: skip
"""All of `score.METRICS`. The first of them that a run has says most about its answers."""
_SHARES = ("accuracy", "exact_match", "number_match", "json_schema", "contains", "json_valid",
           "thinking_share", "thinking_unclosed")  # fmt: skip
"""Scores that are a share of the examples, shown in percent."""
_LOWER_IS_BETTER = ("loss", "perplexity", "ppl", "error", "nll")


def lower_is_better(key: str) -> bool | None:
    """Which direction of a metric is the good one, by its name; None when neither is, or nobody knows."""
    name = key.rsplit("/", 1)[-1].partition("@")[0].lower()
    if any(word in name for word in _LOWER_IS_BETTER):
        return True
    return False if name in MAIN_SCORES else None


def metric_name(key: str) -> str:
    """`eval loss` of `eval/loss`, `train loss` of `train/loss`; a score goes by the name that `eval.metrics` takes."""
    if key.startswith(_EVAL) and key != "eval/loss":
        return key.removeprefix(_EVAL)
    return key.replace("/", " ")


def score_text(name: str, value: float) -> str:
    """A score, of the whole set or of one source of it (`accuracy@web`)."""
    return f"{value:.1%}" if name.partition("@")[0] in _SHARES else f"{value:.4f}"
