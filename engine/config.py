"""RunConfig: the typed, validated description of one run, and how it comes about.

A setting is named by its path, `group.name`. Values come from layers, weakest first: default, preset, config file,
flag. `resolve` merges them, checks everything, reports every problem at once in a ConfigError, and remembers for each
setting which layer won.
"""

import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine import best
from engine.errors import ConfigError, InputError
from engine.metrics.names import MAIN_SCORES

Auto = Literal["auto"]
META_KEY = "finetop"
"""The one top-level key of a saved config that is not a group of settings: version, origins."""
PATHS = ("data.files", "data.val_files", "model.name", "model.checkpoint", "data.template", "eval.schema")
"""Settings that may hold paths."""
_MAX_CONFIG_BYTES = 4_000_000
"""No config is this large; a data file given by mistake often is."""


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

    def replace(self, changes: Mapping[str, Any]) -> "RunConfig":
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
        return text if _is_utf8(text) else json.dumps(content, indent=2) + "\n"


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
    found = {}
    for group in dataclasses.fields(RunConfig):
        hints = typing.get_type_hints(group.type)
        for item in dataclasses.fields(group.type):
            default = item.default_factory() if item.default is dataclasses.MISSING else item.default
            path = f"{group.name}.{item.name}"
            bounds = item.metadata["at_least"], item.metadata["at_most"]
            found[path] = Setting(path, hints[item.name], default, item.metadata["doc"], *bounds)
    return found


SETTINGS = _all_settings()


@dataclass(frozen=True)
class Resolved:
    """A checked config and, for each setting's path, the layer its value came from."""

    config: RunConfig
    origin: dict[str, str]


@dataclass(frozen=True)
class Layer:
    """Settings from one place; `label` is how the plan names it, such as 'preset quick' or '--epochs'."""

    label: str
    values: Mapping[str, Any]


def resolve(layers: Iterable[Layer]) -> Resolved:
    """Merge layers, weakest first, over the defaults. Raises ConfigError with every problem found."""
    problems: list[str] = []
    chosen: dict[str, Any] = {}
    origin = dict.fromkeys(SETTINGS, "default")
    for layer in layers:
        for path, value in layer.values.items():
            known = SETTINGS.get(path)
            if known is None:
                problems.append(f"{layer.label}: there is no setting {_quoted(path)}{_nearest(path[:200])}")
                continue
            try:
                chosen[path] = _coerce(value, known.type)
                _check_bounds(chosen[path], known)
                _check_text(chosen[path], path)
                origin[path] = layer.label
            except ValueError as error:
                more = "; a program of your own is given as eval.command" if path == "eval.metrics" else ""
                problems.append(f"{layer.label}: {path} is {_show(value)}, but {error}{more}")
                chosen.pop(path, None)
    config = RunConfig().replace(chosen)
    problems.extend(_cross_checks(config))
    if problems:
        raise ConfigError(problems, "`finetop plan` shows every setting, its value and where it came from.")
    return Resolved(config, origin)


def from_groups(groups: Mapping[str, Mapping[str, Any]], label: str) -> RunConfig:
    """The checked config of settings that lie in their groups, as a checkpoint's manifest has them."""
    flat = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    return resolve([Layer(label, flat)]).config


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings of a JSON or TOML file by path. Raises InputError naming file and line when it cannot be read."""
    return _by_path(_read(path), path)


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content_bytes = file.read(_MAX_CONFIG_BYTES + 1)
        raw = content_bytes.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})", "Save the file as UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {reason}", "Give --config the path of a JSON or TOML file.") from None
    if len(content_bytes) > _MAX_CONFIG_BYTES:
        raise InputError(f"{path}: too large for a file of settings", _NOT_DATA)
    if not raw.strip():
        raise InputError(f"{path}: the file is empty", "A config holds groups of settings, such as [train] epochs = 3.")
    if path.suffix.lower() in (".yaml", ".yml") and not raw.lstrip().startswith("{"):
        raise InputError(f"{path}: YAML, which finetop does not read as settings", _NOT_YAML.format(path=path))
    is_json = path.suffix != ".toml" and (path.suffix == ".json" or raw.lstrip().startswith("{"))
    try:
        content = json.loads(raw, object_pairs_hook=_no_key_twice) if is_json else _toml(raw)
    except json.JSONDecodeError as error:
        # A second value after the first is what a data file of one JSON object a line looks like.
        hint = _NOT_DATA if error.msg == "Extra data" else ""
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})", hint) from None
    except RecursionError:
        raise InputError(f"{path}: values are nested too deep") from None
    except ValueError as error:
        hint = _NOT_DATA if path.suffix in (".jsonl", ".ndjson", ".csv", ".tsv", ".txt") else ""
        raise InputError(f"{path}: not {'JSON' if is_json else 'TOML'}: {error}", hint) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: a config holds groups of settings, such as [train], not a {_kind(content)}", _NOT_DATA
        )
    return content


def _by_path(content: dict[str, Any], path: Path) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for group, values in content.items():
        if group == META_KEY:
            continue
        named = {f"{group}.{name}": value for name, value in values.items()} if isinstance(values, dict) else {}
        if group in SETTINGS or not isinstance(values, dict):
            named = {group: values}
        if twice := sorted(named.keys() & flat.keys()):
            raise InputError(f"{path}: {_quoted(twice[0])} stands in it twice")
        flat |= named
    return flat


_NOT_YAML = (
    "Write it as TOML, [train] and below it epochs = 3, or turn it into JSON: python -c 'import json, yaml; "
    'print(json.dumps(yaml.safe_load(open("{path}"))))\' > config.json'
)
_NOT_DATA = "Settings are read with --config; a data file is given with --data-file."


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{_quoted(next(name for name in names if names.count(name) > 1))} stands in it twice")
    return made


def read_run(folder: Path) -> Resolved:
    """The settings of an existing run, and where each came from when it was made."""
    path = folder / "config.json"
    content = _read(path)
    resolved = resolve([Layer(str(path), _by_path(content, path))])
    described = content.get(META_KEY)
    origin = described.get("origin") if isinstance(described, dict) else None
    if not isinstance(origin, dict):
        return resolved
    return Resolved(resolved.config, resolved.origin | {key: origin[key] for key in resolved.origin if key in origin})


def parse_set(text: str) -> tuple[str, Any]:
    """`key=value` from `--set`: the value is JSON where it parses as such, else the text itself."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError(f"--set {_quoted(text)}: expected key=value, such as --set lora.r=8")
    return path.strip(), parse_value(value.strip())


def parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def auto_values(config: RunConfig, rows: int) -> dict[str, Any]:
    """What `auto` stands for with so many training rows: settings by path, only those that were auto.

    Under 100 rows: 4 epochs and half the rate; up to 1000: 3; above: 2. The batch grows with the square root of the
    rows, so that small sets still get enough optimizer steps. Adapters take a ten times higher rate than full weights,
    after Biderman et al. 2024, "LoRA Learns Less and Forgets Less", and Schulman et al. 2025, "LoRA Without Regret".
    """
    chosen: dict[str, Any] = {}
    if config.train.epochs == "auto":
        chosen["train.epochs"] = 4 if rows < 100 else 3 if rows <= 1000 else 2
    if config.train.batch_size == "auto":
        chosen["train.batch_size"] = max(1, min(32, 2 ** round(math.log2(max(1.0, math.sqrt(rows) / 4)))))
    if config.optim.learning_rate == "auto":
        rate = 2e-5 if config.method.kind == "full" else 2e-4
        chosen["optim.learning_rate"] = rate / 2 if rows < 100 else rate
    return chosen


MAY_CHANGE_ON_RESUME = (
    "train.epochs", "train.max_steps", "train.early_stopping", "train.micro_tokens", "eval.", "save.", "run.",
)  # fmt: skip
"""What a resumed run may do differently from before without becoming another run: settings, or groups of them."""


def diff(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ."""
    left, right = a.flat(), b.flat()
    return {path: (left[path], right[path]) for path in SETTINGS if left[path] != right[path]}


def _check_text(value: Any, path: str) -> None:
    """Text that no file, tokenizer or terminal can take is refused here; file names may hold any byte but NUL."""
    texts = [value]
    if isinstance(value, list | dict):
        texts = [*value, *(value.values() if isinstance(value, dict) else ())]
    for text in texts:
        if isinstance(text, str) and "\0" in text:
            raise ValueError("holds a NUL character")
        if isinstance(text, str) and path not in PATHS and not _is_utf8(text):
            raise ValueError("is not UTF-8 text")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _toml(raw: str) -> dict[str, Any]:
    import tomllib  # 10 ms, which --help need not pay

    return tomllib.loads(raw.replace("\r\n", "\n"))


def _cross_checks(config: RunConfig) -> list[str]:
    problems = []
    if config.optim.warmup >= 1 and 0 < config.train.max_steps <= config.optim.warmup:
        problems.append(
            f"optim.warmup ({config.optim.warmup:g} steps) is not less than train.max_steps ({config.train.max_steps})"
        )
    betas = config.optim.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        problems.append(f"optim.betas is {_show(betas)}, but AdamW takes two numbers from 0 up to, not including, 1")
    if config.train.early_stopping and not config.data.val_files and config.data.val_fraction == 0:
        problems.append("train.early_stopping needs validation data: set data.val_fraction or give --val-file")
    if config.lora.alpha <= 0 and config.method.kind != "full":
        problems.append(f"lora.alpha is {config.lora.alpha:g}, but an adapter scaled by it would never do anything")
    if config.method.objective == "pretrain" and config.eval.metrics:
        problems.append(f"eval.metrics ({', '.join(config.eval.metrics)}) needs answers: not for objective pretrain")
    if "json_schema" in config.eval.metrics and not config.eval.schema:
        problems.append("eval.metrics json_schema needs a schema: set eval.schema to a JSON Schema file")
    if config.method.objective == "pretrain" and config.eval.command:
        problems.append("eval.command needs answers: not for objective pretrain")
    problems += _check_best(config)
    if config.method.kind == "qlora" and config.model.dtype == "float32" and config.optim.name == "paged_adamw8bit":
        problems.append("optim.name paged_adamw8bit needs a GPU and bfloat16: set model.dtype to auto")
    return problems


def _check_best(config: RunConfig) -> list[str]:
    """What eval.best names must be measured. What a command gives is known at the first evaluation only."""
    chosen, measured = config.eval.best, ("loss", "perplexity", *config.eval.metrics)
    try:
        criterion = best.parse(chosen)
    except ValueError as error:
        return [f"eval.best is {_show(chosen)}, but {error}"]
    name = criterion.name.partition("@")[0]
    if name not in measured and not config.eval.command:
        return [f"eval.best is {_show(chosen)}, but {name} is not measured: there are {', '.join(measured)}; more by "
                "eval.metrics, or by a program of yours, eval.command"]  # fmt: skip
    if name not in measured and name in MAIN_SCORES:
        return [f"eval.best is {_show(chosen)}, but {name} is not among eval.metrics"]
    if criterion != best.LOSS and not config.data.val_files and config.data.val_fraction == 0:
        return [f"eval.best is {_show(chosen)}, which needs validation data: set data.val_fraction or give --val-file"]
    return []


def _coerce(value: Any, wanted: Any) -> Any:
    """`value` as the type `wanted`, or ValueError saying what is wanted. Numbers never pass for booleans."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        raise ValueError(f"must be one of {', '.join(map(str, arguments))}")
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _coerce(value, option)
            except ValueError:
                continue
        raise ValueError("must be " + " or ".join(map(_describe, arguments)))
    if origin is list:
        items = value.split(",") if isinstance(value, str) and value else value
        if not isinstance(items, list | tuple):
            if items == "":
                return []
            items = [items]
        try:
            return [_coerce(item.strip() if isinstance(item, str) else item, arguments[0]) for item in items]
        except ValueError:
            raise ValueError(f"must be {_describe(wanted)}") from None
    if origin is dict:
        if isinstance(value, str):
            pairs = [part.partition("=") for part in value.split(",") if part]
            if not all(key.strip() and column for key, _, column in pairs):
                raise ValueError(f"must be {_describe(wanted)}")
            value = {key.strip(): column for key, _, column in pairs}
        if isinstance(value, dict) and all(isinstance(item, str) for item in [*value, *value.values()]):
            return value
        raise ValueError(f"must be {_describe(wanted)}")
    if wanted is bool and isinstance(value, str) and value.lower() in ("true", "yes", "on", "false", "no", "off"):
        return value.lower() in ("true", "yes", "on")
    if wanted is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return float(value)
    if wanted is float and isinstance(value, str):  # TOML and shells like 1e-4, JSON does not always
        try:
            value = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        raise ValueError(f"must be {_describe(wanted)}")
    return value


def _check_bounds(value: Any, known: Setting) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if known.at_least is not None and value < known.at_least:
        raise ValueError(f"must be at least {known.at_least:g}")
    if known.at_most is not None and value > known.at_most:
        raise ValueError(f"must be at most {known.at_most:g}")
    if abs(value) > 2**62:
        raise ValueError("is larger than any machine can take")


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _describe(wanted: Any) -> str:
    if wanted in _WORDS:
        return _WORDS[wanted]
    if typing.get_origin(wanted) is Literal:
        return " or ".join(f"'{item}'" for item in typing.get_args(wanted))
    if typing.get_origin(wanted) is dict:
        return "pairs of texts, such as prompt=ask"
    (item,) = typing.get_args(wanted)
    return "a list of " + ({str: "texts", float: "numbers"}.get(item) or _describe(item))


def _kind(value: Any) -> str:
    kinds = {list: "list", str: "text", int: "number", float: "number", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


def _show(value: Any) -> str:
    try:
        shown = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        shown = "a value nested too deep or too large to show"
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shown[:61])
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _quoted(name: str) -> str:
    """A name from a file as it may be shown: in quotes, cut short, nothing in it for the terminal to obey."""
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in name[:60])
    return f"'{shown}{'…' if len(name) > 60 else ''}'"


_ELSEWHERE = {
    "lr": "optim.learning_rate",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.batch_size",
    "gradient_checkpointing": "train.activation_checkpointing",
    "max_seq_length": "data.max_length",
    "max_seq_len": "data.max_length",
    "cutoff_len": "data.max_length",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "lr_scheduler_type": "optim.schedule",
    "max_grad_norm": "optim.grad_clip",
    "model_name_or_path": "model.name",
    "finetuning_type": "method.kind",
    "lora_rank": "lora.r",
    "rank": "lora.r",
    "lora_target": "lora.targets",
    "target_modules": "lora.targets",
    "save_steps": "save.every",
    "eval_steps": "eval.every",
    "save_total_limit": "save.keep_last",
}
"""What other trainers call our settings; people bring these names with them."""


@functools.lru_cache
def _nearest(path: str) -> str:
    """The settings that may have been meant by a name that is none, as the end of a message."""
    last = path.split(".")[-1]
    by_name: dict[str, list[str]] = {}
    for known in SETTINGS:
        by_name.setdefault(known.split(".")[1], []).append(known)
        by_name.setdefault(known.replace(".", "_"), []).append(known)
    if last in _ELSEWHERE:
        near = [_ELSEWHERE[last]]
    elif last in by_name:
        near = by_name[last]
    elif not (near := difflib.get_close_matches(path, SETTINGS, 1, 0.6)):
        near = [known for name in difflib.get_close_matches(last, by_name, 1, 0.7) for known in by_name[name]]
    return f"; did you mean {' or '.join(map(_quoted, near))}?" if near else ""
