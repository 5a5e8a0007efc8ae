"""What the queue needs to know of a run, from its settings."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.base.workspace import META_KEY
from engine.store.run_records import NewRun

_FIELDS = frozenset(field.name for field in dataclasses.fields(NewRun))


def new_run(
    settings: Mapping[str, Any], origins: Mapping[str, str], queued_with: Mapping[str, Any] | None = None
) -> NewRun:
    """A run with these settings by path, each with the layer its value came from.

    `queued_with` holds fields of NewRun that no setting has, such as its group; they win, and others are disregarded.
    """
    from engine.settings.presets import preset_of  # listings need no settings

    presets = {preset for label in origins.values() if (preset := preset_of(str(label)))}
    gpus = tuple(str(gpu) for gpu in settings.get("run.gpus") or ())
    count = settings.get("run.gpu_count", "auto")
    run = NewRun(
        name=settings.get("run.name") or "",
        settings=settings,
        origins=origins,
        preset=", ".join(sorted(presets)),
        model=str(settings.get("model.name", "")),
        data=", ".join(Path(str(file)).name for file in settings.get("data.files") or ()),
        method=str(settings.get("method.kind", "")),
        objective=str(settings.get("method.objective", "")),
        tags=tuple(settings.get("run.tags") or ()),
        gpus_pinned=gpus,
        gpus_wanted=count if isinstance(count, int) else max(len(gpus), 1),
        share=bool(settings.get("run.share")),
        priority=settings.get("run.priority") or 0,
        retries=settings.get("run.retries") or 0,
    )
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (queued_with or {}).items()
        if name in _FIELDS and value is not None
    }
    return dataclasses.replace(run, **changes)


def from_config(content: Mapping[str, Any], created: float | None = None) -> NewRun:
    """A run as the content of its config.json describes it. Raises TypeError where that makes no sense."""
    settings = {
        f"{group}.{name}": value
        for group, values in content.items()
        if group != META_KEY and isinstance(values, Mapping)
        for name, value in values.items()
    }
    meta = _mapping(content.get(META_KEY))
    return new_run(settings, _mapping(meta.get("origin")), {**_mapping(meta.get("queued")), "created": created})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
