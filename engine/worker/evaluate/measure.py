"""Evaluation: the loss of every example of a set, the answers and labels that the spec asks for, and their scores.

Training (`evaluate`) and `finetop eval` (serve.py) call the same `measure`, so that the same checkpoint on the same
examples gets the same figures.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import CHECKPOINTS
from engine.formats import example_key
from engine.formats.examples import Example
from engine.formats.source_names import groups
from engine.metrics.classification import confusion, read_label
from engine.metrics.reasoning import answer_of
from engine.metrics.score import Answer, means, needs_labels, needs_text, score
from engine.metrics.scoring_command import CommandFailed, ScoreCommand, answered
from engine.runs import evaluation_folder
from engine.runs.journal import Journal
from engine.runs.run_folder import score_command
from engine.settings.eval_inputs import read_schema
from engine.settings.schema import EvalConfig, RunConfig
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.packing import TokenSet, make_pack, plan_passes
from engine.worker.data.thinking import decode, in_known_tags, thinking_scores, thinks_less
from engine.worker.data.tokenize import Prepared
from engine.worker.evaluate.generate import Sampling, generate, stop_tokens
from engine.worker.evaluate.likelihood import Choice, choose_labels
from engine.worker.model.load import Precision
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime import checkpoint
from engine.worker.runtime.disk_space import write_with_room
from engine.worker.runtime.train_state import TrainState

_MOST_SAMPLES = 20
"""Answers to validation examples that go into the journal, where they outlast the evaluation's folder, which holds
them all until `eval.keep_predictions` thins it."""


@dataclass(frozen=True)
class EvalSpec:
    """What is to be measured."""

    metrics: tuple[str, ...] = ()
    normalisation: str = "case"
    classify: str = "likelihood"
    schema: str = ""
    """The text of a JSON Schema."""
    max_examples: int = 0
    """Only so many of the examples are answered or classified; 0: all."""
    sampling: Sampling = Sampling()
    command: ScoreCommand | None = None
    """The user's own program that scores the answers."""

    @staticmethod
    def of(config: EvalConfig, folder: Path) -> "EvalSpec":
        """`folder` is where eval.command runs. Raises InputError when the schema cannot be used."""
        sampling = Sampling(config.max_new_tokens)
        metrics = tuple(dict.fromkeys(config.metrics))
        command = ScoreCommand(config.command, folder, config.command_seconds) if config.command else None
        return EvalSpec(
            metrics, config.normalisation, config.classify, read_schema(config), config.max_examples, sampling, command
        )

    @property
    def by_likelihood(self) -> bool:
        """Whether labels are chosen by their likelihood."""
        return needs_labels(self.metrics) and self.classify == "likelihood"

    @property
    def writes(self) -> bool:
        """Whether answers are generated."""
        labels_are_written = needs_labels(self.metrics) and self.classify == "generate"
        return self.command is not None or needs_text(self.metrics) or labels_are_written


@dataclass(frozen=True)
class EvalResult:
    """The measurements, example by example and of the whole set."""

    losses: np.ndarray
    """Summed over the supervised tokens, float64, shape (examples,)."""
    tokens: np.ndarray
    """Supervised tokens, int64, shape (examples,)."""
    answers: list[Answer]
    """One for each example; empty for plain text."""
    choices: list[Choice]
    """Of the first examples, where labels were chosen by likelihood."""
    prompts: list[str]
    """The last message of each prompt."""
    keys: list[str]
    """The key by which each example is paired with itself in another evaluation."""
    scores: dict[str, float]
    sources: dict[str, list[int]] = field(default_factory=dict)
    """The indices of each source's examples; empty where there is one source only."""
    command_failed: CommandFailed | None = None

    def predictions(self) -> list[dict[str, Any]]:
        """The lines of predictions.jsonl."""
        lines = []
        source_of = {index: name for name, indices in self.sources.items() for index in indices}
        for i, key in enumerate(self.keys):
            answer = self.answers[i] if self.answers else Answer(None)
            line: dict[str, Any] = {
                "key": key,
                "prompt": evaluation_folder.shown_prompt(self.prompts[i]) if self.prompts else "",
                "reference": answer.reference,
                "text": answer.text,
                "loss": float(self.losses[i]) if math.isfinite(self.losses[i]) else None,
                "tokens": int(self.tokens[i]),
                "scores": answer.scores,
            }
            if i in source_of:
                line["source"] = source_of[i]
            if answer.label is not None:
                line["label"] = answer.label
            if i < len(self.choices):
                line["probability"] = round(self.choices[i].probability, 6)
            lines.append(line)
        return lines


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be measured."""

    loss_fn: PackedLoss | UnpackedLoss
    template: ChatTemplate
    precision: Precision

    def write(
        self, prompts: Sequence[Example], sampling: Sampling, progress: Callable[[int], None] = lambda done: None
    ) -> list[str]:
        """The answer to each conversation."""
        template, model = self.template, self.loss_fn.model
        encoded = [template.encode_prompt(prompt) for prompt in prompts]
        written = generate(
            model,
            encoded,
            stop_tokens(model, template.tokenizer, template.stop_token_ids),
            sampling,
            self.precision,
            packed=isinstance(self.loss_fn, PackedLoss),
            progress=progress,
        )
        return decode(template, encoded, written)


@torch.no_grad()
def measure(
    model: LoadedModel,
    tokens: TokenSet,
    examples: Sequence[Example],
    labels: Sequence[str],
    spec: EvalSpec,
    micro_tokens: int,
    progress: Callable[[str, int, int], None] = lambda doing, done, of: None,
    keys: Sequence[str] = (),
    files: Sequence[str] = (),
) -> EvalResult:
    """Evaluate `model` on `tokens`. `examples` are the conversations behind them, or nothing for plain text; `keys`
    identify them, where that is not their own question; `files` say where each is from. Raises InputError when labels
    are needed and there are none. A failure of eval.command is a field of the result: all else has been measured.
    """
    losses = example_losses(model.loss_fn, tokens, micro_tokens, model.precision, progress)
    loss = float(losses.sum()) / int(tokens.label_tokens.sum())
    scores = {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700)) if not math.isnan(loss) else math.nan}
    keys = (
        list(keys)
        or [example_id(example) for example in examples]
        or [hashlib.blake2b(tokens.example(i)[0].tobytes(), digest_size=8).hexdigest() for i in range(len(tokens))]
    )
    parts = [split_answer(example) for example in examples]
    answers = [Answer(in_known_tags(reference, model.template.thought_tags)) for _, reference in parts]
    choices: list[Choice] = []
    sources = groups(files)
    for name, indices in sources.items():
        scores[f"eval/loss@{name}"] = float(losses[indices].sum()) / int(tokens.label_tokens[indices].sum())
    if (spec.metrics or spec.command) and parts:
        chosen = parts[: spec.max_examples or None]
        prompts = [prompt for prompt, _ in chosen]
        if needs_labels(spec.metrics) and not labels:
            raise InputError(
                "accuracy and macro_f1 need classification data: one short answer to each question, and the same "
                "answers again and again",
                "For other answers there are exact_match, contains, rouge_l and chrf.",
            )
        if spec.by_likelihood:
            choices = choose_labels(
                model.loss_fn,
                model.template,
                prompts,
                labels,
                model.precision,
                lambda done: progress("classifying", done, len(prompts)),
            )
            for answer, choice in zip(answers, choices, strict=False):
                answer.label = choice.label
        if spec.writes:
            texts = model.write(prompts, spec.sampling, lambda done: progress("answering", done, len(prompts)))
            for answer, text in zip(answers, texts, strict=False):
                answer.text = text
                if needs_labels(spec.metrics) and not spec.by_likelihood:
                    answer.label = read_label(answer_of(text), labels, spec.normalisation)
            references = [reference for _, reference in chosen]
            scores |= thinking_scores(model.template, texts, references)
        classified = needs_labels(spec.metrics)
        scores |= score(answers[: len(chosen)], spec.metrics, spec.normalisation, spec.schema, classified)
        for name, indices in sources.items():
            source_answers = [answers[index] for index in indices if index < len(chosen)]
            scores |= {f"{key}@{name}": value for key, value in means(source_answers, spec.metrics, classified).items()}
    questions = [last_message(prompt) for prompt, _ in parts]
    evaluation = EvalResult(losses, tokens.label_tokens, answers, choices, questions, keys, scores, sources)
    try:
        numbers = _set_scores(evaluation, spec, progress)
    except CommandFailed as error:
        return replace(evaluation, command_failed=error)
    scores |= {f"eval/{name}": value for name, value in numbers.items()}
    return evaluation


def _set_scores(evaluation: EvalResult, spec: EvalSpec, progress: Callable[[str, int, int], None]) -> dict[str, float]:
    """Scores by name of all answers together, not of single examples, from the lines of predictions.jsonl: those of
    eval.command. Another score added here is charted, compared and ranked like these."""
    if spec.command is None:
        return {}
    lines = answered(evaluation.predictions())
    return spec.command.numbers(lines, lambda: progress("scoring", 0, 0)) if lines else {}


@torch.no_grad()
def example_losses(
    loss_fn: PackedLoss | UnpackedLoss,
    tokens: TokenSet,
    micro_tokens: int,
    precision: Precision,
    progress: Callable[[str, int, int], None] = lambda doing, done, of: None,
) -> np.ndarray:
    """The summed loss of each example, float64, shape (examples,); out of memory, with fewer tokens per pass."""
    sums = np.full(len(tokens), np.nan)
    left = np.arange(len(tokens))
    while len(left):
        try:
            for group in plan_passes(left, tokens.lengths, micro_tokens):
                with precision.context():
                    losses = loss_fn.token_losses(make_pack(tokens, group).to(precision.device))
                owner = np.repeat(np.arange(len(group)), tokens.label_tokens[group])
                sums[group] = np.bincount(owner, losses.double().cpu().numpy(), len(group))
                left = np.setdiff1d(left, group)
                progress("loss", len(tokens) - len(left), len(tokens))
        except Exception as error:
            if not is_out_of_memory(error) or micro_tokens <= int(tokens.lengths.max()) // 2:
                raise
            micro_tokens //= 2
    return sums


def example_id(example: Example) -> str:
    """16 hex digits of the example's question."""
    return f"{example_key(example):016x}"


def split_answer(example: Example) -> tuple[Example, str]:
    """The conversation before its last answer, and that answer."""
    last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
    prompt = Example(messages=example.messages[:last], tools=example.tools, file=example.file, line=example.line)
    return prompt, example.messages[last]["content"] or ""


def add_few_shot(example: Example, shots: Sequence[Example]) -> Example:
    """Put other questions and their answers before the question, after its system prompt; the loss is not on them."""
    if not shots:
        return example
    system = [message for message in example.messages[:1] if message["role"] == "system"]
    shot_messages = [
        message | {"weight": 0} if message["role"] == "assistant" else message
        for shot in shots
        for message in shot.messages
        if message["role"] != "system"
    ]
    messages = (*system, *shot_messages, *example.messages[len(system) :])
    return Example(messages=messages, tools=example.tools, file=example.file, line=example.line)


def to_prompt(config: RunConfig, messages: Sequence[dict[str, Any]]) -> Example:
    """A conversation to be answered, with the run's system prompt where it has none."""
    if config.data.system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": config.data.system}, *messages]
    return Example(messages=tuple(messages))


def last_message(example: Example) -> str:
    """The text of the conversation's last message."""
    return str(example.messages[-1].get("content") or "") if example.messages else ""


def template_hash(template: ChatTemplate) -> str:
    """Of the chat template in force; of the tool template where there are several."""
    text = template.tokenizer.get_chat_template()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def evaluate(
    folder: Path,
    journal: Journal,
    loss_fn: PackedLoss | UnpackedLoss,
    template: ChatTemplate,
    dataset: Prepared,
    config: RunConfig,
    state: TrainState,
    precision: Precision,
    heartbeat: Callable[[], None] = lambda: None,
) -> dict[str, float] | None:
    """The evaluation of this step, into the run's folder and its journal. Returns its scores; None without data.

    `heartbeat` is called repeatedly while it goes on.

    Random numbers are drawn from a fork, so that evaluating more or less often changes nothing in training.
    """
    model, began = LoadedModel(loss_fn, template, precision), time.monotonic()
    spec = EvalSpec.of(config.eval, folder.resolve().parents[1])
    evaluation = None
    with torch.random.fork_rng(precision.devices), torch.no_grad():
        if len(dataset.val):
            evaluation = measure(
                model,
                dataset.val,
                dataset.val_examples,
                dataset.labels,
                spec,
                state.micro_tokens,
                lambda doing, done, of: heartbeat(),
                files=dataset.val_files,
            )
        if config.eval.prompts:
            prompts = [to_prompt(config, [{"role": "user", "content": prompt}]) for prompt in config.eval.prompts]
            texts = model.write(prompts, spec.sampling)
            for prompt, text in zip(config.eval.prompts, texts, strict=True):
                journal.write("sample", step=state.step, prompt=prompt, text=text)
    if evaluation is None:
        return None
    if evaluation.command_failed and state.step == 0:  # it would fail after every hour of training
        raise evaluation.command_failed
    if evaluation.command_failed:
        message = msg("Its numbers are missing here: {message}.", message=evaluation.command_failed.message)
        journal.write("event", event="command-failed", step=state.step, message=message)
    name = evaluation_folder.step_name(state.step)
    run = int(folder.name) if folder.name.isdecimal() else None
    record = describe(evaluation, model, spec, time.monotonic() - began) | {
        "run": run,
        "step": state.step,
        "model": config.model.name,
        "name": name,
        "source": "training",
    }
    record["data"]["files"] = [{"path": file["path"], "sha256": file["sha256"]} for file in dataset.report["files"]]
    record["data"]["part"] = "validation"
    parent = folder / evaluation_folder.FOLDER
    write_with_room(
        journal,
        heartbeat,
        parent,
        "an evaluation",
        lambda: evaluation_folder.write(parent, name, record, evaluation.predictions()),
    )
    evaluation_folder.thin(folder, config.eval.keep_predictions, checkpoint.steps(folder / CHECKPOINTS))
    written = [(i, answer) for i, answer in enumerate(evaluation.answers) if answer.text is not None]
    for i, answer in written[:_MOST_SAMPLES]:
        prompt = evaluation_folder.shown_prompt(evaluation.prompts[i])
        journal.write("answer", step=state.step, prompt=prompt, reference=answer.reference, text=answer.text)
    journal.write("eval", step=state.step, values=evaluation.scores, folder=f"{evaluation_folder.FOLDER}/{name}")
    if (share := evaluation.scores.get("eval/thinking_share")) is not None:
        if state.thinking_at_start is None:
            state.thinking_at_start = share
        if not state.thinks_less and (message := thinks_less(state.thinking_at_start, share)):
            state.thinks_less = True
            journal.write("event", event="thinks-less", step=state.step, message=message)
    return evaluation.scores


def command_of(config: RunConfig, folder: Path) -> dict[str, Any] | None:
    """What a checkpoint's manifest says of eval.command: its words, and the hashes of the files among them."""
    command = score_command(config, folder.resolve().parents[1])
    return command.identity() if command else None


def describe(evaluation: EvalResult, model: LoadedModel, spec: EvalSpec, seconds: float) -> dict[str, Any]:
    """The fields of result.json that any evaluation has."""
    scores = {key: value if math.isfinite(value) else None for key, value in evaluation.scores.items()}
    generation: Mapping[str, Any] = {
        "max_new_tokens": spec.sampling.max_new_tokens,
        "temperature": spec.sampling.temperature,
        "seed": spec.sampling.seed,
        "shots": 0,
        "classify": spec.classify,
        "max_examples": spec.max_examples,
    }
    optional: dict[str, Any] = {"confusion": _confusion(evaluation.answers)} if needs_labels(spec.metrics) else {}
    if spec.command:
        optional["command"] = spec.command.identity()
    return optional | {
        "t": time.time(),
        "data": {"examples": len(evaluation.keys), "key": evaluation_folder.data_key(evaluation.keys)},
        "template": template_hash(model.template),
        "normalisation": spec.normalisation,
        "generation": generation,
        "metrics": list(spec.metrics),
        "scores": scores,
        "seconds": round(seconds, 3),
    }


def _confusion(answers: Sequence[Answer]) -> list[list[Any]]:
    """[true label, label chosen or null, how often], the most frequent first."""
    scored = [answer for answer in answers if "accuracy" in answer.scores]
    counts = confusion([answer.label for answer in scored], [answer.reference or "" for answer in scored])
    return [[true, label, count] for (true, label), count in sorted(counts.items(), key=lambda pair: -pair[1])]
