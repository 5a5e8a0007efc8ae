"""An argument parser that guesses what a mistyped command line was meant to be, and says so."""

import argparse
import difflib
import os
from typing import Any, NoReturn

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import LARGEST_INTEGER

_ELSEWHERE = {
    "--data": "--data-file",
    "--dataset": "--data-file",
    "--train-file": "--data-file",
    "--file": "--data-file",
    "--input": "--data-file",
    "--eval-file": "--val-file",
    "--test-file": "--val-file",
    "--lr": "--learning-rate",
    "--batch": "--batch-size",
    "--bs": "--batch-size",
    "--base-model": "--model",
    "--steps": "--max-steps",
    "--cutoff": "--max-length",
    "--system-prompt": "--system",
    "--cfg": "--config",
    "--columns": "--map",
    "--column-mapping": "--map",
}
"""What other programs call our flags."""


class Parser(argparse.ArgumentParser):
    """Complains by InputError, in one line and with a hint, instead of printing a page of usage.

    Flags are not abbreviated: what a script says today must not become ambiguous when a flag is added.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.register("type", int, whole_number)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise InputError(
                msg("unknown: {words}", words=" ".join(unknown)[:200]), _hint(unknown[0], _flags_of(self, options))
            )
        return options

    def error(self, message: str) -> NoReturn:
        raise InputError(_in_words(message), msg("`{prog} --help` shows what there is.", prog=self.prog))


def whole_number(text: str) -> int:
    """What `type=int` makes of a flag's value: numbers that SQLite and slices can hold."""
    try:
        number = int(text)
    except ValueError:  # no number, or of more than 4,300 digits
        raise argparse.ArgumentTypeError(msg("'{text}' is not a whole number", text=text[:60])) from None
    if abs(number) > LARGEST_INTEGER:
        raise argparse.ArgumentTypeError(msg("{text} is too large a number", text=text[:60]))
    return number


def _flags_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Every flag of the command that was given, besides the parser's own."""
    flags = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                if command.get_default("run") is getattr(options, "run", None):
                    flags += command._option_string_actions
    return flags


def _hint(word: str, flags: list[str]) -> str:
    if not word.startswith("-"):
        if os.path.exists(word) or word.lower().endswith((".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")):
            flag = next((flag for flag in ("--data-file", "--data", "--prompts") if flag in flags), "--data-file")
            return msg("Data is given with a flag: {flag} {word}", flag=flag, word=word[:200])
        return "Quote values that hold spaces; lists are given as a,b,c."
    from engine.settings.schema import SETTINGS

    flag, _, value = word.partition("=")
    path = flag.lstrip("-").replace("-", "_")
    if _ELSEWHERE.get(flag) in flags:
        return msg("Did you mean {elsewhere}?", elsewhere=_ELSEWHERE[flag])
    named = [known for known in SETTINGS if path in (known, known.split(".")[1], known.replace(".", "_"))]
    if named and "--set" in flags:
        return msg(
            "Settings without a flag of their own: --set {setting}={setting_value}",
            setting=named[0],
            setting_value=value or "VALUE",
        )
    near = difflib.get_close_matches(flag[:100], flags, 1, 0.6)
    return msg("Did you mean {near}?", near=near[0]) if near else "`finetop COMMAND --help` shows its flags."


def _in_words(message: str) -> str:
    """argparse's message; for a word that is no command, with the nearest one that is."""
    if "invalid choice: " in message and "(choose from " in message:
        which, _, choice_text = message.partition(": invalid choice: ")
        which = which.removeprefix("argument ")
        word = choice_text.split(" (choose")[0].strip("'\"")
        choices = [choice.strip(" '\"") for choice in choice_text.split("(choose from ")[1].rstrip(")").split(",")]
        near = difflib.get_close_matches(word[:100], choices, 1, 0.5)
        guess = (
            msg("; did you mean '{near}'?", near=near[0])
            if near
            else msg("; there are {choices}", choices=", ".join(choices))
        )
        what = (
            msg("there is no command '{word}'", word=word[:60])
            if which.isupper()
            else msg("{which} cannot be '{word}'", which=which, word=word[:60])
        )
        return f"{what}{guess}"
    return message
