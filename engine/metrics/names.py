"""What people call metrics. Light: lists load it."""

_EVAL = "eval/"


def metric_name(key: str) -> str:
    """`eval loss` of `eval/loss`, `train loss` of `train/loss`; a score goes by the name that `eval.metrics` takes."""
    if key.startswith(_EVAL) and key != "eval/loss":
        return key.removeprefix(_EVAL)
    return key.replace("/", " ")
