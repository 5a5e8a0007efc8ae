"""The model an adapter belongs to, known by its content: what a checkpoint says of it, and whether it still is that."""

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
_OF_NO_MATTER = frozenset(
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
    """The base of a run. It is read through beside the loading of the model, so that no start waits for it."""

    def __init__(self, config: RunConfig, source: str | None = None) -> None:
        """`source`: the folder it is loaded from, where that is not the model's own."""
        source = None if source == config.model.name else source
        self.name = source or config.model.name
        elsewhere = {"name": source, "revision": "", "checkpoint": ""} if source else {}
        self._model = dataclasses.replace(config.model, **elsewhere)
        self._reading: Fingerprinting | None = None
        self._folder: Path | None = None
        self.begin()

    def begin(self) -> None:
        """Begin to read, where the files are there: a model of the hub may still have to be fetched."""
        folder = find_folder(self._model)
        files = weight_files(folder) if folder and self._reading is None else []
        if files and all(file.is_file() for file in files):
            self._folder, self._reading = folder, Fingerprinting(folder)

    def found(self) -> Fingerprint | None:
        """What its weights are known by; waits until they have been read. None where there is nothing to read."""
        self.begin()
        return self._reading.result() if self._reading else None

    def to_manifest(self) -> dict[str, Any] | None:
        found = self.found()
        if found is None:
            return None
        snapshot = self._folder and self._folder.parent.name == "snapshots"
        commit = {"commit": self._folder.name} if snapshot else {}
        return found.to_json() | commit | {"config": self._config}

    @functools.cached_property
    def _config(self) -> dict[str, Any]:
        """What config.json says of how the weights are used, defaults included; empty where it cannot be read."""
        from transformers import AutoConfig

        revision, trust = self._model.revision or None, self._model.trust_remote_code
        try:
            said = AutoConfig.from_pretrained(model_source(self._model), revision=revision, trust_remote_code=trust)
        except Exception:  # anything may be wrong with it: who loads the model tells
            return {}
        kept = {key: value for key, value in said.to_dict().items() if key not in _OF_NO_MATTER}
        return json.loads(json.dumps(kept, default=str))

    def refuse_other(self, manifest: Mapping[str, Any]) -> str:
        """CheckpointError where it is not the base of the checkpoint with this manifest. What there is to say else:
        that nobody can tell, since the checkpoint does not say; mostly nothing.
        """
        before = manifest.get(BASE)
        if not isinstance(before, dict) or "sha256" not in before:
            return msg(
                "This checkpoint does not say what its base model's weights were (older versions of finetop wrote "
                "none): whether {name} is still the same was not checked.",
                name=self.name,
            )
        now = self.found()
        if now is None:
            return msg(
                "The weights of {name} could not be read: whether they are still the same was not checked.",
                name=self.name,
            )
        if now.sha256 == before["sha256"]:
            if changed := list(_changes(before.get("config"), self._config)):
                raise CheckpointError(
                    msg(
                        "the base is not the one this run was trained on: in the config.json of {name} {changed}",
                        name=self.name,
                        changed="; ".join(changed),
                    ),
                    "Put the model back that the run was trained on.",
                )
            return ""
        commit = msg("; on the hub it was commit {commit}", commit=before["commit"]) if before.get("commit") else ""
        raise CheckpointError(
            msg(
                "the base is not the one this run was trained on: the weights of {name} have changed (sha256 "
                "{sha256}, they were {first_sha256}{commit})",
                name=self.name,
                sha256=now.sha256[:12],
                first_sha256=before["sha256"][:12],
                commit=commit,
            ),
            "Put the model back that the run was trained on. Where it lies elsewhere by now, a resume takes "
            "--model FOLDER.",
        )


def _changes(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Settings that both have and that differ, in words: another version of the library may know more, or fewer."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() & now.keys() - _OF_NO_MATTER:
            yield from _changes(before[key], now[key], f"{path}.{key}" if path else key)
    elif path and before != now:
        yield msg(
            "{path} was {before}, is {now}", path=path, before=json.dumps(before)[:200], now=json.dumps(now)[:200]
        )


def base_notes(last: Any, config: RunConfig, source: str) -> list[str]:
    """What an export says of a checkpoint's base, mostly nothing. CheckpointError where it is another."""
    doubt = BaseWeights(config, source).refuse_other(last.manifest)
    return [doubt] if doubt else []


def with_present_model(config: RunConfig, run_folder: Path | None) -> RunConfig:
    """A checkpoint's settings with the places where the run's model lies by now."""
    if run_folder is None:
        return config
    now = located(run_folder).config.model
    return config.replace({"model.name": now.name, "model.checkpoint": now.checkpoint})
