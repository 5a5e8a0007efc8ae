"""What a model is called: a folder, or a name on the hub."""

import difflib
import os
import re
from pathlib import Path

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.models.local_models import local_models
from engine.models.model_shape import cached_config

ADAPTER = "adapter_config.json"
_MOST_NAMED = 6


_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
"""What the hub lets a model be called, told loosely: it knows stricter rules, and refuses by them itself."""
_WITHOUT_OWNER = re.compile(
    r"(albert|bert|camembert|ctrl|distilbert|distilgpt2|distilroberta|gpt2|openai-gpt|roberta|t5|transfo-xl|xlm|xlnet)"
    r"(-.*)?"
)
"""The models that the hub had before names had owners, and still finds by these names: `gpt2` is
`openai-community/gpt2`. Every other name there is owner/name."""


def is_path(name: str) -> bool:
    """Whether a model's name can only be that of a folder: names on the hub have one slash at most."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") > 1


def check_model_name(name: str, revision: str = "") -> None:
    """That `name` is a model's folder, or can be a name on the hub. Raises InputError."""
    if name == "starter":
        return
    folder = os.path.expanduser(name)
    if not name:
        raise InputError("model.name is empty", "Give a folder, a hub name such as org/name, or 'starter'.")
    if os.path.isfile(folder):
        raise InputError(msg("the model {name} is a file", name=name), "Give the folder of a Hugging Face model.")
    if os.path.isdir(folder):
        if not os.path.exists(os.path.join(folder, "config.json")):
            what = "is an adapter" if os.path.exists(os.path.join(folder, ADAPTER)) else "is no model"
            raise InputError(
                msg("{name} {what}: it holds no config.json", name=name, what=what),
                "Give the folder of a Hugging Face model.",
            )
    elif is_path(name):
        raise InputError(
            msg("there is no model folder {name}", name=name), "Give an existing folder, or a hub name: org/name."
        )
    elif not _HUB_NAME.fullmatch(name):
        raise InputError(
            msg("there is no folder {name}, and no model of the hub can have that name", name=name),
            "Give an existing folder, or a hub name: letters, digits, '-', '_' and '.', as org/name.",
        )
    elif not (
        "/" in name or _WITHOUT_OWNER.fullmatch(name) or os.environ.get("HF_ENDPOINT") or cached_config(name, revision)
    ):
        raise InputError(
            msg("there is no folder {name} here, and models on the hub are called org/name", name=name), _near(name)
        )


def _near(name: str) -> str:
    """What may have been meant by a name that there is not."""
    names = {os.path.basename(model.name): model.name for model in local_models([Path.cwd()])}
    near = [names[close] for close in difflib.get_close_matches(name, names, 3, 0.6)]
    if near:
        return msg("Did you mean {names}?", names=", ".join(near))
    return msg("On this machine there are: {names}.", names=", ".join(list(names.values())[:_MOST_NAMED]))
