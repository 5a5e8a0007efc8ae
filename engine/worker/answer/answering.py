"""Requests to answers: those that wait for the same model are written in one batch."""

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from engine.base.errors import EngineError, first_line
from engine.base.messages import msg
from engine.formats.examples import Example
from engine.models.device_limits import ANSWER_ROWS
from engine.runs.model_refs import ModelRef
from engine.worker.answer.call_reader import CallForm, CallReader
from engine.worker.answer.prompt_logprobs import prompt_logprobs
from engine.worker.answer.sampling import RowSampler, RowSampling, TokenLogprob, logprobs_json
from engine.worker.answer.text_stream import TextStream
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.packing import make_pack
from engine.worker.evaluate.generate import Sampling, Writing, stop_tokens, write_all
from engine.worker.evaluate.model_cache import ModelCache, prompt_tokens
from engine.worker.model.load import Precision, check_vocabulary, table_positions
from engine.worker.model.loss import LOSS_TOLERANCE, PackedLoss, choose_loss
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime.resume_checks import probe_indices


class Asker(Protocol):
    """Where a request came from."""

    is_gone: bool

    def send(self, *lines: dict[str, Any]) -> None: ...


class Refused(Exception):
    """A request that cannot be answered, in the API's words."""

    def __init__(self, status: int, message: str, code: str = "", param: str = "") -> None:
        super().__init__(message)
        self.fields = {"status": status, "message": message, "code": code or None, "param": param or None}


@dataclass
class Row:
    """One answer that is being written."""

    asker: Asker
    index: int
    prompt: list[int]
    most: int
    sampler: RowSampler
    text: TextStream
    calls: CallReader | None = None
    """Where tools may be called."""
    stops: bool = True
    """Ends at the tokens that end a turn."""
    written: int = 0
    finish: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    """Log probabilities of tokens whose text is still held back."""

    def end_at_once(self) -> bool:
        """Nothing is to be written, only the prompt read."""
        self.finish = "length"
        self.asker.send(_end_line(self))
        return False


class Answering:
    """The models of one process."""

    def __init__(self, cache_bytes: int | None = None) -> None:
        """`cache_bytes`: of keys and values, at most."""
        self.most_requests, self._cache_bytes = ANSWER_ROWS, cache_bytes
        self._models = ModelCache()
        self._templates: dict[str, ChatTemplate] = {}
        self._forms: dict[str, CallForm] = {}
        self._packed: dict[tuple, bool] = {}

    def answer(self, batch: Sequence[tuple[Asker, dict[str, Any]]]) -> None:
        """All of them, in groups by model; what goes wrong with one is told to those that it concerns."""
        groups: dict[str, list[tuple[Asker, dict[str, Any]]]] = {}
        for asker, request in batch:
            if not asker.is_gone:
                groups.setdefault(_key(request), []).append((asker, request))
        for group in groups.values():
            self._answer_group(group)

    def _answer_group(self, group: Sequence[tuple[Asker, dict[str, Any]]]) -> None:
        askers = [asker for asker, _ in group]
        with _told(askers):
            ref = ModelRef.from_json(group[0][1]["model"])
            template = self._template(ref)
            with self._models.activate(ref) as (model, precision):
                rows: list[Row] = []
                begun: list[tuple[Asker, dict[str, Any]]] = []
                for asker, request in group:
                    with _told([asker]):
                        rows += self._begin(asker, request, ref, template, model, precision)
                        begun.append((asker, request))
                if rows:
                    packed = self._is_packed(ref, model, precision, rows)
                    writing = _RowWriting.of(model, rows, template, precision)
                    writing.most_cache_bytes = self._cache_bytes
                    with _told([asker for asker, _ in begun]):
                        write_all(writing, packed)
                for asker, _ in begun:
                    asker.send({"kind": "done"})

    def _begin(
        self,
        asker: Asker,
        request: dict[str, Any],
        ref: ModelRef,
        template: ChatTemplate,
        model: PreTrainedModel,
        precision: Precision,
    ) -> list[Row]:
        """The rows of a request. Raises Refused."""
        prompts = self._prompts(request, template)
        limit = table_positions(model) or getattr(model.config.get_text_config(), "max_position_embeddings", None)
        sampling = RowSampling.from_json(request["sampling"])
        weights: Any = model.get_input_embeddings().weight
        vocabulary = int(weights.shape[0])
        if bad := [token for token in sampling.logit_bias if token >= vocabulary]:
            raise Refused(400, f"logit_bias names token {bad[0]}; this model has {vocabulary:,}", param="logit_bias")
        form = self._call_form(ref, template) if request.get("tools") else None
        rows = []
        for number, prompt in enumerate(prompts):
            check_vocabulary(model, max(prompt))
            room = (limit or 2**31) - len(prompt)
            most = request["max_tokens"]
            if room < (0 if most == 0 else 1) or (most is not None and most > room):
                raise Refused(
                    400,
                    f"This model has {limit:,} positions; the prompt has {len(prompt):,} tokens"
                    + (f", and {most:,} were asked for." if most is not None and room >= 1 else "."),
                    "context_length_exceeded",
                    "messages" if "messages" in request else "prompt",
                )
            for choice in range(request["n"]):
                index = number * request["n"] + choice
                text = TextStream(template.tokenizer, request["stop"], keep_special=form is not None)
                calls = None if form is None else CallReader(form, request["tools"])
                sampler = RowSampler(sampling, index)
                stops = not request.get("ignore_eos", False)
                rows.append(Row(asker, index, prompt, room if most is None else most, sampler, text, calls, stops))
        begun: dict[str, Any] = {"kind": "begun", "prompt_tokens": sum(map(len, prompts))}
        if request.get("echo"):
            tokenizer, top = template.tokenizer, sampling.top_logprobs
            begun["prompts"] = [tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts]
            if top is not None:
                begun["prompt_logprobs"] = [
                    [logprobs_json(tokenizer, entry) for entry in prompt_logprobs(model, precision, prompt, top)]
                    for prompt in prompts
                ]
        asker.send(begun)
        return [row for row in rows if row.most > 0 or row.end_at_once()]

    def _prompts(self, request: dict[str, Any], template: ChatTemplate) -> list[list[int]]:
        if "messages" in request:
            example = Example(messages=tuple(request["messages"]), tools=tuple(request.get("tools") or ()))
            return [template.encode_prompt(example)]
        prompts = request["prompts"]
        return [template.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

    def _template(self, ref: ModelRef) -> ChatTemplate:
        key = f"{ref.tokenizer} {ref.config.data.template} {ref.config.data.clock}"
        if key not in self._templates:
            self._templates[key] = self._models.template(ref)
        return self._templates[key]

    def _call_form(self, ref: ModelRef, template: ChatTemplate) -> CallForm:
        if ref.tokenizer not in self._forms:
            self._forms[ref.tokenizer] = CallForm.seen(template)
        return self._forms[ref.tokenizer]

    def _is_packed(self, ref: ModelRef, model: PreTrainedModel, precision: Precision, rows: Sequence[Row]) -> bool:
        """Whether prompts may be read end to end; tried once a model."""
        key = (ref.base, ref.adapter)
        if key not in self._packed:
            tokens = prompt_tokens([row.prompt for row in rows])
            probe = make_pack(tokens, probe_indices(tokens)).to(precision.device)
            with precision.context():
                loss, _ = choose_loss(model, probe, ref.config.model.attention, LOSS_TOLERANCE[precision.autocast])
            self._packed[key] = isinstance(loss, PackedLoss)
        return self._packed[key]


def _key(request: dict[str, Any]) -> str:
    model = request["model"]
    return f"{model['base']}\0{model['adapter']}\0{model['step']}"


@contextlib.contextmanager
def _told(askers: Sequence[Asker]) -> Iterator[None]:
    """What goes wrong in here ends the requests of these; the process goes on."""
    try:
        yield
        return
    except Refused as refusal:
        fields = refusal.fields
    except EngineError as error:
        fields = {"status": 400, "message": str(error), "code": None, "param": None}
    except Exception as error:
        traceback.print_exc()
        message = msg("the model could not answer: {error}", error=f"{type(error).__name__}: {first_line(error)}")
        fields = {"status": 503 if is_out_of_memory(error) else 500, "message": message, "code": None, "param": None}
    for asker in askers:
        asker.send({"kind": "error", **fields}, {"kind": "done"})


class _RowWriting(Writing):
    """Rows of several requests, each by its own sampling; what is written is told at every step."""

    rows: Sequence[Row]
    template: ChatTemplate

    @staticmethod
    def of(model: PreTrainedModel, rows: Sequence[Row], template: ChatTemplate, precision: Precision) -> "_RowWriting":
        stop = stop_tokens(model, template.tokenizer, template.stop_token_ids)
        most = max(row.most for row in rows)
        prompts = [row.prompt for row in rows]
        writing = _RowWriting(model, prompts, stop, Sampling(most), precision, lambda done: None)
        writing.rows, writing.template = rows, template
        writing.room = [min(room, row.most) for room, row in zip(writing.room, rows, strict=True)]
        writing.logprobs = [None] * len(rows)
        for number in range(len(rows)):
            if writing.room[number] <= 0:
                writing._end(number, "length")
        return writing

    logprobs: list[TokenLogprob | None]

    def todo(self) -> list[int]:
        """After running out of memory, each goes on behind what it has written."""
        left = [i for i, done in enumerate(self.done) if not done]
        self.prompts = [[*row.prompt, *answer] for row, answer in zip(self.rows, self.answers, strict=True)]
        return sorted(left, key=lambda i: -len(self.prompts[i]))

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        logits = logits.float()
        tokens = []
        for row_logits, i in zip(logits, rows, strict=True):
            token, self.logprobs[i] = self.rows[i].sampler.choose(row_logits)
            tokens.append(token)
        return tokens

    def accept(self, rows: Sequence[int], tokens: Sequence[int]) -> list[int]:
        going = []
        lines: dict[int, tuple[Asker, list[dict[str, Any]]]] = {}
        for i, token in zip(rows, tokens, strict=True):
            row = self.rows[i]
            if row.asker.is_gone:
                self.done[i] = True
                continue
            line = self._grow(i, token)
            if not self.done[i]:
                going.append(i)
            if line:
                lines.setdefault(id(row.asker), (row.asker, []))[1].extend(line)
        for asker, told in lines.values():
            asker.send(*told)
        return going

    def _grow(self, i: int, token: int) -> list[dict[str, Any]]:
        """What there is to tell after this token."""
        row = self.rows[i]
        ends = row.stops and token in self.stop
        text = ""
        if not ends:
            self.answers[i].append(token)
            row.written += 1
            if (logprob := self.logprobs[i]) is not None:
                row.told.append(logprobs_json(self.template.tokenizer, logprob))
            text = row.text.push(token)
        if ends or row.text.stopped:
            row.finish = "stop"
        elif row.written >= self.room[i]:
            row.finish = "length"
        if row.finish:
            self.done[i] = True
            text += row.text.flush()
        called: list[dict[str, str]] = []
        if row.calls is not None:
            text = row.calls.push(text)
            if row.finish:
                rest, called = row.calls.finish() if row.finish == "stop" else (row.calls.kept(), [])
                text += rest
                row.finish = "tool_calls" if called else row.finish
        lines = []
        if text or (row.finish and row.told):
            lines.append(self._text_line(row, text))
        if row.finish:
            lines.append(_end_line(row) | ({"tool_calls": called} if called else {}))
        return lines

    def _text_line(self, row: Row, text: str) -> dict[str, Any]:
        line: dict[str, Any] = {"kind": "text", "index": row.index, "text": text}
        if row.sampler.sampling.top_logprobs is not None:
            line["logprobs"], row.told = row.told, []
        return line

    def _end(self, i: int, finish: str) -> None:
        row = self.rows[i]
        row.finish, self.done[i] = finish, True
        row.asker.send(_end_line(row))


def _end_line(row: Row) -> dict[str, Any]:
    return {"kind": "end", "index": row.index, "finish_reason": row.finish, "tokens": row.written}
