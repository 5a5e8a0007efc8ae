"""The base model of an adapter, identified by its content: what a checkpoint says of it, and whether it is still so."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.base.errors import CheckpointError
from engine.base.messages import msg
from engine.models.model_facts import find_folder
from engine.models.weights import Fingerprint, Fingerprinting, weight_files
from engine.runs.relocate import located
from engine.settings.schema import RunConfig
from engine.worker.model.load import model_source

BASE = "base"
"""Key of a manifest: sha256, tensors and bytes of the base model's weights, its `config`, the commit of one from the
hub."""
_IRRELEVANT_KEYS = frozenset(
    [
        "_name_or_path",
        "architectures",
        "auto_map",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "use_cache",
        "id2label",
        "label2id",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
    ]
)
"""Keys of config.json that change nothing in what the weights compute."""


class BaseWeights:
    """The base of a run. It is hashed while the model is loaded, so that no start waits for it."""

    def __init__(self, config: RunConfig, source: str | None = None) -> None:
        """`source`: the folder it is loaded from, where that is not the model's own."""
        source = None if source == config.model.name else source
        self.name = source or config.model.name
        here = config.model
        self._model = dataclasses.replace(here, name=source, revision="", checkpoint="") if source else here
        self._reading: tuple[Path, Fingerprinting] | None = None
        self.begin()

    def begin(self) -> None:
        """Start reading, if the files are there: a model of the hub may still have to be fetched."""
        folder = find_folder(self._model)
        if folder is None or self._reading is not None:
            return
        files = weight_files(folder)
        if files and all(file.is_file() for file in files):
            self._reading = folder, Fingerprinting(folder)

    def fingerprint(self) -> Fingerprint | None:
        """Of its weights; waits until they have been read. None where there is nothing to read."""
        self.begin()
        return self._reading[1].result() if self._reading else None

    def to_manifest(self) -> dict[str, Any] | None:
        """What a checkpoint's manifest says of its base; None where there was nothing to read."""
        fingerprint = self.fingerprint()
        if fingerprint is None or self._reading is None:
            return None
        folder = self._reading[0]
        commit = {"commit": folder.name} if folder.parent.name == "snapshots" else {}
        return fingerprint.to_json() | commit | {"config": self._config}

    @functools.cached_property
    def _config(self) -> dict[str, Any]:
        """The config.json that says how the weights are used, defaults included; empty where it cannot be read."""
        from transformers import AutoConfig

        revision, trust = self._model.revision or None, self._model.trust_remote_code
        try:
            config = AutoConfig.from_pretrained(model_source(self._model), revision=revision, trust_remote_code=trust)
        except Exception:  # anything may be wrong with it: loading the model reports it
            return {}
        kept = {key: setting for key, setting in config.to_dict().items() if key not in _IRRELEVANT_KEYS}
        return json.loads(json.dumps(kept, default=str))

    def refuse_other(self, manifest: Mapping[str, Any]) -> str:
        """CheckpointError where it is not the base of the checkpoint with this manifest. Returns a warning where that
        cannot be checked, since the checkpoint does not say; mostly an empty string.
        """
        saved = manifest.get(BASE)
        if not isinstance(saved, dict) or "sha256" not in saved:
            return msg(
                "This checkpoint does not say what its base model's weights were (older versions of finetop wrote "
                "none): whether {name} is still the same was not checked.",
                name=self.name,
            )
        fingerprint = self.fingerprint()
        if fingerprint is None:
            return msg(
                "The weights of {name} could not be read: whether they are still the same was not checked.",
                name=self.name,
            )
        if fingerprint.sha256 == saved["sha256"]:
            if changed := list(_changes(saved.get("config"), self._config)):
                raise CheckpointError(
                    msg(
                        "the base is not the one this run was trained on: in the config.json of {name} {changed}",
                        name=self.name,
                        changed="; ".join(changed),
                    ),
                    "Put the model back that the run was trained on.",
                )
            return ""
        commit = msg("; on the hub it was commit {commit}", commit=saved["commit"]) if saved.get("commit") else ""
        raise CheckpointError(
            msg(
                "the base is not the one this run was trained on: the weights of {name} have changed (sha256 "
                "{sha256}, they were {saved_sha256}{commit})",
                name=self.name,
                sha256=fingerprint.sha256[:12],
                saved_sha256=saved["sha256"][:12],
                commit=commit,
            ),
            "Put the model back that the run was trained on. Where it lies elsewhere by now, a resume takes "
            "--model FOLDER.",
        )


def _changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Settings that both have and that differ, in words: another version of the library may know more, or fewer."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() & new.keys() - _IRRELEVANT_KEYS:
            yield from _changes(old[key], new[key], f"{path}.{key}" if path else key)
    elif path and old != new:
        yield msg("{path} was {old}, is {new}", path=path, old=json.dumps(old)[:200], new=json.dumps(new)[:200])


def base_notes(last: Any, config: RunConfig, source: str) -> list[str]:
    """An export's notes on a checkpoint's base, mostly none. CheckpointError where it is another."""
    warning = BaseWeights(config, source).refuse_other(last.manifest)
    return [warning] if warning else []


def with_located_model(config: RunConfig, run_folder: Path | None) -> RunConfig:
    """A checkpoint's settings with the paths where the run's model is now."""
    if run_folder is None:
        return config
    model = located(run_folder).config.model
    return config.replace({"model.name": model.name, "model.checkpoint": model.checkpoint})
