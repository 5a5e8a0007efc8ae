"""Settings that a person chose and that do nothing beside the others."""

from collections.abc import Callable, Collection, Iterator

from engine.base.messages import msg
from engine.metrics.score import needs_labels, needs_text
from engine.models.model_name import is_path
from engine.runs.settings_findings import Finding
from engine.settings.schema import RunConfig


def idle_settings(config: RunConfig, chosen: Collection[str]) -> Iterator[Finding]:
    """Those among `chosen` that have no effect, with the reason."""
    for covers, when, why in _IDLE:
        if (idle := [path for path in sorted(chosen) if covers(path)]) and when(config):
            yield Finding(
                "no-effect",
                idle[0],
                msg(
                    "{settings} {have} no effect: {why}",
                    settings=", ".join(idle),
                    have="has" if len(idle) == 1 else "have",
                    why=why,
                ),
            )


def _one(*paths: str) -> Callable[[str], bool]:
    return lambda path: path in paths


def _pretrains(config: RunConfig) -> bool:
    return config.method.objective == "pretrain"


def _writes(config: RunConfig) -> bool:
    metrics = config.eval.metrics
    return bool(
        config.eval.prompts or needs_text(metrics) or (needs_labels(metrics) and config.eval.classify == "generate")
    )


_IDLE: tuple[tuple[Callable[[str], bool], Callable[[RunConfig], bool], str], ...] = (
    (lambda path: path.startswith("lora."), lambda c: c.method.kind == "full", "method full has no adapter"),
    (_one("data.val_fraction"), lambda c: bool(c.data.val_files), "data.val_files holds the validation data"),
    (_one("eval.classify"), lambda c: not needs_labels(c.eval.metrics), "it is for eval.metrics accuracy and macro_f1"),
    (_one("eval.schema"), lambda c: "json_schema" not in c.eval.metrics, "eval.metrics does not name json_schema"),
    (
        _one("eval.max_new_tokens"),
        lambda c: not _writes(c),
        "neither eval.metrics nor eval.prompts has answers written",
    ),
    (_one("eval.max_examples", "eval.normalisation"), lambda c: not c.eval.metrics, "eval.metrics names no score"),
    (_one("data.train_on"), _pretrains, "objective pretrain trains on every token"),
    (_one("data.system"), _pretrains, "plain text has no system prompt"),
    (_one("data.overlong"), _pretrains, "objective pretrain makes several examples of a long text"),
    (_one("model.revision"), lambda c: c.model.name == "starter" or is_path(c.model.name), "the model is a folder"),
)
"""Which settings, when, and why."""
