"""Electricity at the user's price, and what the same tokens would cost at OpenAI's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import config_folder

ANSWERS = ("input", "output", "tuned_input", "tuned_output")
SHIPPED = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True)
class Prices:
    """A dated table."""

    as_of: str
    note: str
    """What else is to be known of the table, in a few words."""
    training: dict[str, float]
    """US dollars for a million training tokens, by model."""
    answers: dict[str, dict[str, float]]
    """The same for `input`, `output`, `tuned_input` and `tuned_output`."""
    compared_with: str
    """The model that counts where a name is none of these."""
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
    tables = {kind: _table(content, kind, SHIPPED) | _table(users, kind, path) for kind in ("training", *ANSWERS)}
    compared_with = str(users.get("compared_with", content["compared_with"]))
    if not all(compared_with in table for table in tables.values()):
        raise InputError(
            msg("{path}: compared_with is '{name}', which has no price in each table", path=path, name=compared_with)
        )
    electricity = users.get("electricity", {})
    if not isinstance(electricity, dict):
        raise InputError(
            msg("{path}: electricity is not a group", path=path), "Write [electricity] and under it kwh = 0.30."
        )
    return Prices(
        as_of=str(users.get("as_of", content["as_of"])),
        note=str(users.get("note", content["note"])),
        training=tables["training"],
        answers={kind: tables[kind] for kind in ANSWERS},
        compared_with=compared_with,
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


def _table(content: dict[str, Any], kind: str, path: Path) -> dict[str, float]:
    name = f"{kind}_per_million_tokens"
    prices = content.get(name, {})
    if not isinstance(prices, dict):
        raise InputError(
            msg("{path}: {name} is not a table", path=path, name=name), 'Write "gpt-4o-mini" = 3.00 under it.'
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
