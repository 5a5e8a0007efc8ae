"""What a model of ours would have cost at OpenAI: by the name that was asked for, else by the one that was trained."""

from collections.abc import Collection

from engine.plan.cost import Prices

_TUNED = "ft:"
_MILLION = 1e6


def priced_as(prices: Prices, requested_model: str, trained_as: str = "", is_tuned: bool = False) -> str:
    """The name under which a model's tokens are added up: of a few, however many names are asked for."""
    models = prices.answers["input"]
    return (_TUNED if is_tuned else "") + (_known(requested_model, models) or _known(trained_as, models))


def _known(requested_model: str, models: Collection[str]) -> str:
    """`ft:gpt-4o-mini-2024-07-18:org::id` is gpt-4o-mini; a name of ours is none, which is the empty text."""
    base = requested_model.removeprefix(_TUNED).partition(":")[0]
    return max((name for name in models if base == name or base.startswith(f"{name}-")), key=len, default="")


def answer_dollars(prices: Prices, name: str, input_tokens: int, output_tokens: int) -> float:
    """`name`: as `priced_as` has it."""
    kind, model = ("tuned_" if name.startswith(_TUNED) else ""), name.removeprefix(_TUNED)
    read, written = prices.answers[f"{kind}input"], prices.answers[f"{kind}output"]
    if model not in read or model not in written:
        model = prices.compared_with
    return (input_tokens * read[model] + output_tokens * written[model]) / _MILLION


def training_dollars(prices: Prices, requested_model: str, tokens: int) -> float:
    """Of a job that asked for this model to be trained."""
    return tokens * prices.training[_known(requested_model, prices.training) or prices.compared_with] / _MILLION
