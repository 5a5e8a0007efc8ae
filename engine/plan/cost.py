"""Electricity at the user's price, and what the same tokens would cost at OpenAI's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import config_folder

SHIPPED = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True)
class Prices:
    """A dated table."""

    as_of: str
    note: str
    """What else is to be known of the table, in a few words."""
    training: dict[str, float]
    """US dollars for a million training tokens, by model."""
    kwh: float | None
    """Price of a kilowatt-hour; None: the user has not said."""
    currency: str
    """Of the kilowatt-hour."""
    watts: float | None
    """What the machine draws while training, where the user knows better than the card's limit."""


def user_prices() -> Path:
    return config_folder() / "prices.toml"


def read_prices(kwh: float | None = None) -> Prices:
    """The shipped table with the user's over it. Raises InputError naming the file and key that make no sense."""
    content = _read(SHIPPED)
    path = user_prices()
    users = _read(path) if path.is_file() else {}
    table = {**content["training_per_million_tokens"], **_table(users.get("training_per_million_tokens", {}), path)}
    electricity = users.get("electricity", {})
    if not isinstance(electricity, dict):
        raise InputError(
            msg("{path}: electricity is not a group", path=path), "Write [electricity] and under it kwh = 0.30."
        )
    return Prices(
        as_of=str(users.get("as_of", content["as_of"])),
        note=str(users.get("note", content["note"])),
        training=table,
        kwh=kwh if kwh is not None else _optional_amount(electricity.get("kwh"), "electricity.kwh", path),
        currency=str(electricity.get("currency", "")),
        watts=_optional_amount(electricity.get("watts"), "electricity.watts", path),
    )


@dataclass(frozen=True)
class Cost:
    watts: float | None
    watts_from: str
    kwh: float | None
    electricity: float | None
    """At the user's price; None without a price or without a figure for the power."""
    currency: str
    training_tokens: int
    """Tokens of the data times the epochs: what OpenAI bills."""
    openai: dict[str, float]
    """US dollars by model."""
    prices_as_of: str
    prices_note: str


def cost(seconds: float | None, training_tokens: int, watts: float | None, watts_from: str, prices: Prices) -> Cost:
    if prices.watts is not None:
        watts, watts_from = prices.watts, "as you set it"
    kwh = None if watts is None or seconds is None else watts * seconds / 3.6e6
    return Cost(
        watts=watts,
        watts_from=watts_from,
        kwh=kwh,
        electricity=None if kwh is None or prices.kwh is None else kwh * prices.kwh,
        currency=prices.currency,
        training_tokens=training_tokens,
        openai={model: training_tokens / 1e6 * price for model, price in prices.training.items()},
        prices_as_of=prices.as_of,
        prices_note=prices.note,
    )


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # 10 ms, which --help need not pay

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}", "It is a TOML table; see docs/plan.md.") from None


def _table(prices: Any, path: Path) -> dict[str, float]:
    if not isinstance(prices, dict):
        raise InputError(
            msg("{path}: training_per_million_tokens is not a table", path=path), 'Write "gpt-4o-mini" = 3.00 under it.'
        )
    return {
        str(model): _amount(price, msg("the price of {model}", model=model), path) for model, price in prices.items()
    }


def _amount(amount: Any, what: str, path: Path) -> float:
    """Raises InputError for what is no amount of money, energy or power."""
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < 1e9:
        raise InputError(msg("{path}: {what} is {amount!r}, not an amount", path=path, what=what, amount=amount))
    return float(amount)


def _optional_amount(amount: Any, what: str, path: Path) -> float | None:
    return None if amount is None else _amount(amount, what, path)
