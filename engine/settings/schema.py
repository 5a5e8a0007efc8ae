"""RunConfig: the typed, validated description of one run, and how it comes about.

A setting is named by its path, `group.name`. Values come from layers, weakest first: default, preset, config file,
flag. `resolve` merges them, checks everything, reports every problem at once in a ConfigError, and remembers for each
setting which layer won.
"""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from engine.base.errors import is_utf8
from engine.base.workspace import META_KEY

Auto = Literal["auto"]
PATHS = ("data.files", "data.val_files", "model.name", "model.checkpoint", "data.template", "eval.schema")
"""Settings that may hold paths."""


def setting(default: Any, doc: str, at_least: float | None = None, at_most: float | None = None) -> Any:
    """A dataclass field with its help text and its inclusive bounds."""
    metadata = {"doc": doc, "at_least": at_least, "at_most": at_most}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    name: str = setting("starter", "hub name, folder, or 'starter', the small model that ships with finetop")
    revision: str = setting("", "branch, tag or commit on the hub")
    checkpoint: str = setting("", "folder of a checkpoint whose weights the run starts from; empty: those of the model")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "auto: bfloat16 arithmetic where the hardware is good at it, trained weights always kept in float32"
    )
    attention: Literal["auto", "packed", "plain"] = setting(
        "auto", "packed: many examples in one pass, each attending only to itself; plain: one example a pass"
    )
    trust_remote_code: bool = setting(False, "run Python code that comes with the model")


@dataclass(frozen=True)
class DataConfig:
    files: list[str] = setting([], "data files, folders, or hub dataset names")
    val_files: list[str] = setting(
        [], "validation data; when empty, a validation split of the training data, else val_fraction of it"
    )
    val_fraction: float = setting(0.1, "share of the examples held out for validation", 0.0, 0.9)
    format: Literal[
        "auto", "openai", "sharegpt", "alpaca", "prompt-completion", "question-answer", "classification", "text"
    ] = setting("auto", "what the columns mean; auto: found out from their names and content")
    map: dict[str, str] = setting({}, "columns by hand, such as prompt=ask, completion=answer")
    system: str = setting("", "system prompt for conversations that have none")
    template: str = setting("auto", "auto: the tokenizer's chat template, else a plain one; or a Jinja file")
    train_on: Literal["assistant", "matching", "separate", "all"] = setting(
        "assistant",
        "the tokens the loss is taken on; matching: answers that read as at inference only; separate: conversations "
        "with others become an example for each answer",
    )
    clock: str = setting("auto", "the time that chat templates write; auto: when the run began; or 2026-01-31 12:00")
    thinking: Literal["as_is", "no_loss_on_empty", "drop"] = setting(
        "as_is", "no_loss_on_empty: empty thoughts are not trained; drop: thoughts are taken out of the rows"
    )
    max_length: int = setting(2048, "longest example, in tokens", 8)
    overlong: Literal["cut", "skip"] = setting("cut", "what happens to an example longer than max_length")
    max_bad_share: float = setting(0.05, "share of bad lines above which training refuses to start", 0.0, 1.0)
    seed: int = setting(0, "seed of the validation split", 0)


@dataclass(frozen=True)
class MethodConfig:
    kind: Literal["full", "lora", "qlora"] = setting("lora", "train all weights, an adapter, or an adapter on 4 bits")
    objective: Literal["sft", "pretrain"] = setting("sft", "answers to prompts, or continued pre-training on text")


@dataclass(frozen=True)
class LoraConfig:
    r: int = setting(16, "rank of the adapter", 1)
    alpha: float = setting(32, "scale: the update is multiplied by alpha / r", 0)
    dropout: float = setting(0.0, "dropout on the adapter's input", 0.0, 0.95)
    targets: Literal["all-linear"] | list[str] = setting(
        "all-linear", "all-linear, or names of its modules such as q_proj,v_proj"
    )
    dora: bool = setting(False, "DoRA: weight-decomposed adapters")
    rslora: bool = setting(False, "rank-stabilised scale: alpha / sqrt(r)")


@dataclass(frozen=True)
class OptimConfig:
    name: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = setting("adamw", "fused AdamW, or 8-bit by bitsandbytes")
    learning_rate: float | Auto = setting("auto", "peak rate; auto: from the number of rows and the method", 0.0)
    schedule: Literal["cosine", "linear", "constant"] = setting("cosine", "shape of the rate after warm-up")
    warmup: float = setting(0.03, "below 1: share of all steps; from 1 on: number of steps", 0.0)
    weight_decay: float = setting(0.0, "decoupled weight decay, on matrices only", 0.0)
    betas: list[float] = setting([0.9, 0.999], "AdamW's two decay rates")
    grad_clip: float = setting(1.0, "largest gradient norm; 0 leaves gradients alone", 0.0)


@dataclass(frozen=True)
class TrainConfig:
    epochs: int | Auto = setting("auto", "passes over the data; auto: from the number of rows", 1)
    max_steps: int = setting(0, "stop after so many optimizer steps; 0: when the epochs are done", 0)
    batch_size: int | Auto = setting("auto", "examples per optimizer step; auto: from the number of rows", 1)
    micro_tokens: int | Auto = setting("auto", "tokens per forward pass; changes speed and memory, not the result", 8)
    activation_checkpointing: bool | Auto = setting("auto", "recompute activations in the backward pass to save memory")
    shuffle: bool = setting(True, "a new order every epoch, a pure function of seed and epoch")
    seed: int = setting(0, "seed of adapters, dropout and order", 0)
    threads: int = setting(0, "CPU threads; 0: one per core", 0, 4096)
    deterministic: bool = setting(False, "bit-exact repeats on a GPU too, slower; on the CPU it is always so")
    early_stopping: int = setting(0, "stop after so many evaluations without a better one, by eval.best; 0: never", 0)


@dataclass(frozen=True)
class EvalConfig:
    every: int | Literal["epoch"] = setting("epoch", "evaluate every so many steps, or at the end of each epoch", 1)
    metrics: list[
        Literal[
            "exact_match",
            "contains",
            "rouge_l",
            "chrf",
            "json_valid",
            "json_schema",
            "number_match",
            "accuracy",
            "macro_f1",
        ]
    ] = setting([], "scores beside the loss, see evaluation.md; all but accuracy and macro_f1 need generated answers")
    normalisation: Literal["none", "space", "case", "punctuation"] = setting(
        "case", "what is disregarded when answers are compared; each adds to the one before it"
    )
    classify: Literal["likelihood", "generate"] = setting(
        "likelihood", "accuracy and macro_f1: the label the model finds likeliest, or the one it writes"
    )
    schema: str = setting("", "JSON Schema file for json_schema")
    command: str = setting(
        "", "a program of yours that scores the answers, such as 'python score.py': predictions in, numbers out"
    )
    command_seconds: int = setting(300, "how long eval.command may take at each evaluation", 1)
    best: str = setting(
        "loss", "what the best checkpoint, early stopping and rankings go by: loss, a score, METRIC:max or METRIC:min"
    )
    max_examples: int = setting(0, "how many validation examples to generate answers for; 0: all", 0)
    max_new_tokens: int = setting(128, "longest generated answer", 1)
    keep_predictions: int = setting(
        20, "how many of the last evaluations keep every prediction, beside those whose checkpoint is kept; 0: all", 0
    )
    prompts: list[str] = setting([], "prompts answered at every evaluation")


@dataclass(frozen=True)
class SaveConfig:
    every: int = setting(0, "also save every so many steps; 0: at the end of each epoch only", 0)
    keep_last: int = setting(3, "how many of the step checkpoints to keep; 0: all", 0)
    keep_epochs: int = setting(0, "how many of the epoch checkpoints to keep; 0: all", 0)
    keep_best: bool = setting(True, "keep the best checkpoint: that which eval.best calls so")


@dataclass(frozen=True)
class RunSettings:
    name: str = setting("", "name of the run; made from model and data when empty")
    tags: list[str] = setting([], "words to find the run by")
    gpus: list[str] = setting([], "GPUs to use, by index or UUID; empty: any that is free")
    gpu_count: int | Auto = setting(
        "auto",
        "GPUs that train the run together, all weights on each; auto: one, or as many as gpus names; 0: none",
        0,
        1024,
    )
    share: bool = setting(False, "may share its GPU with other runs, where the memory it is expected to need is free")
    priority: int = setting(0, "higher runs first")
    retries: int = setting(0, "how often to start again after a failure", 0)
    on_oom: Literal["shrink", "fail"] = setting("shrink", "out of memory: halve micro_tokens and repeat, or fail")

    @property
    def gpus_wanted(self) -> int:
        """How many GPUs the run is to have together."""
        return max(1, len(self.gpus)) if self.gpu_count == "auto" else self.gpu_count


@dataclass(frozen=True)
class RunConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    run: RunSettings = field(default_factory=RunSettings)

    def flat(self) -> dict[str, Any]:
        """Every setting by its path."""
        return {path: getattr(getattr(self, path.split(".")[0]), path.split(".")[1]) for path in SETTINGS}

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """A copy with the settings at the given paths changed; the values are taken as they are."""
        groups: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            group, name = path.split(".")
            groups.setdefault(group, {})[name] = value
        return dataclasses.replace(
            self, **{group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        )

    def to_json(self, meta: Mapping[str, Any] | None = None) -> str:
        """The saved form: groups of settings, and beside them what `META_KEY` holds."""
        content = ({META_KEY: dict(meta)} if meta else {}) | dataclasses.asdict(self)
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # A file name need not be UTF-8; what is not has a form in ASCII JSON only.
        return text if is_utf8(text) else json.dumps(content, indent=2) + "\n"


@dataclass(frozen=True)
class Setting:
    """What is known of one setting before it has a value."""

    path: str
    type: Any
    default: Any
    doc: str
    at_least: float | None
    at_most: float | None


def _all_settings() -> dict[str, Setting]:
    settings = {}
    defaults = RunConfig()
    for group in dataclasses.fields(RunConfig):
        values = getattr(defaults, group.name)
        hints = typing.get_type_hints(type(values))
        for setting_field in dataclasses.fields(values):
            name, about = setting_field.name, setting_field.metadata
            path = f"{group.name}.{name}"
            bounds = about["at_least"], about["at_most"]
            settings[path] = Setting(path, hints[name], getattr(values, name), about["doc"], *bounds)
    return settings


SETTINGS = _all_settings()


MAY_CHANGE_ON_RESUME = (
    "train.epochs", "train.max_steps", "train.early_stopping", "train.micro_tokens", "eval.", "save.", "run.",
)  # fmt: skip
"""What a resumed run may do differently from before without becoming another run: settings, or groups of them."""


def diff(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ."""
    left, right = a.flat(), b.flat()
    return {path: (left[path], right[path]) for path in SETTINGS if left[path] != right[path]}
