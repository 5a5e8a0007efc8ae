"""Chat templates in the shapes of the real ones, each with a tokenizer whose special tokens suit, and what of an answer
such a template has the model write."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.engine.families import CHATML, byte_level

CHATML_MARKED_LINE = CHATML.replace("<|im_end|>{% endgeneration %}\n", "<|im_end|>\n{% endgeneration %}")
"""The marks enclose the line break after the end of turn too."""
CHATML_UNMARKED = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")

QWEN3 = """\
{%- if tools -%}
<|im_start|>system
# Tools{% for tool in tools %}
{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif -%}
{%- set ns = namespace(last_query=0) -%}
{%- for message in messages -%}
{%- if message.role == 'user' %}{% set ns.last_query = loop.index0 %}{% endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- set content = message.content -%}
{%- set thought = message.reasoning_content | default('') -%}
{%- if not thought and '</think>' in content -%}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.index0 > ns.last_query and (loop.last or thought) -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}
{%- else -%}
{{- content -}}
{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{- '\\n' if content or not loop.first -}}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- elif message.role == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}"""
"""Only the last answer gets a reasoning block, an empty one without reasoning; earlier reasoning is dropped."""

R1 = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content }}
{%- elif message.role == 'user' -%}{{ '<｜User｜>' + message.content }}
{%- elif message.content is none -%}
{{- '<｜Assistant｜>' -}}
{%- for call in message.tool_calls -%}
{{- '<｜tool｜>' + call.function.name + '\\n' + call.function.arguments | tojson + '<｜tool▁end｜>' -}}
{%- endfor -%}
{{- '<｜end▁of▁sentence｜>' -}}
{%- elif message.role == 'tool' -%}{{ '<｜output｜>' + message.content + '<｜output▁end｜>' }}
{%- elif message.role == 'assistant' -%}
{{- '<｜Assistant｜>' + message.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif -%}"""
"""The generation prompt opens a reasoning block that the rendered answers do not have."""

GLM4 = """\
[gMASK]<sop>
{%- for message in messages -%}
<|{{ message.role if message.role != 'tool' else 'observation' }}|>
{%- if message.tool_calls -%}
{{- message.tool_calls[0].function.name + '\\n' + message.tool_calls[0].function.arguments | tojson -}}
{%- else -%}
{{- '\\n' + message.content -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}"""
"""No end of turn: the next turn's token ends the one before, and nothing ends the last."""

GEMMA = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
{%- endif -%}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
{{- message.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif -%}"""

LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.tool_calls -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + message.tool_calls[0].function.name -}}
{{- '", "parameters": ' + message.tool_calls[0].function.arguments | tojson + '}<|eom_id|>' -}}
{%- else -%}
{{- '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\\n\\n' -}}
{{- message.content | trim + '<|eot_id|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif -%}"""

LLAMA2 = """\
{%- set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' if messages[0].role == 'system' else '' -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- bos_token + '[INST] ' + (system if loop.index0 <= 1 else '') + message.content | trim + ' [/INST]' -}}
{%- elif message.role == 'assistant' -%}
{{- ' ' + message.content | trim + ' ' + eos_token -}}
{%- endif -%}
{%- endfor -%}"""
"""White space on both sides of an answer, and a beginning-of-text token before every turn."""

LLAMA2_MARKED = LLAMA2.replace("{{- ' ' + message", "{% generation %}{{- ' ' + message").replace(
    "eos_token -}}\n", "eos_token -}}{% endgeneration %}\n"
)

MISTRAL = """\
{{- bos_token -}}
{%- set system = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' -%}
{%- set ns = namespace(last=0) -%}
{%- for message in messages -%}
{%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- '[INST] ' + (system if loop.index0 == ns.last else '') + message.content + '[/INST]' -}}
{%- elif message.role == 'assistant' -%}
{{- ' ' + message.content | trim + eos_token -}}
{%- elif message.role == 'tool' %}{{ raise_exception('Only user and assistant roles are supported') }}
{%- endif -%}
{%- endfor -%}"""
"""The system prompt stands in the last user turn, so every earlier turn reads otherwise when a turn is added."""

PHI3 = """\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif -%}"""
"""Its real tokenizer's turn tokens swallow the white space after them."""

OPEN = """\
{%- for message in messages -%}
### {{ message.role }}:
{{ message.content }}

{% endfor -%}
{%- if add_generation_prompt -%}
### assistant:
{% endif -%}"""
"""Without any token that ends a turn."""


@dataclass(frozen=True)
class Shape:
    template: str
    specials: tuple[str | AddedToken, ...]
    eos: str
    written: Callable[[str, bool], str]
    """What the model is to write for an answer; the second argument says whether it is the conversation's last."""
    bos: str = ""
    adds: str = ""
    """What the tokenizer itself puts before a text: pieces separated by a space."""
    takes_system: bool = True
    swallows_space: bool = False
    """White space next to a turn token is lost in the tokens."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        made = _tokenizer(self.specials, self.eos, self.bos, self.adds)
        made.chat_template = self.template or None
        return made


@functools.lru_cache
def _tokenizer(specials: tuple, eos: str, bos: str, adds: str) -> PreTrainedTokenizerFast:
    bpe = byte_level(list(specials))
    return _finished(bpe, eos, bos, adds, [str(getattr(token, "content", token)) for token in specials])


def _finished(bpe: Tokenizer, eos: str, bos: str, adds: str, specials: list[str]) -> PreTrainedTokenizerFast:
    if adds:
        ids = [(piece, bpe.token_to_id(piece)) for piece in adds.split()]
        bpe.post_processor = processors.TemplateProcessing(single=f"{adds} $A", special_tokens=ids)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=eos, pad_token=eos, bos_token=bos or None)
    made.add_special_tokens({"additional_special_tokens": specials})
    return made


def sentencepiece_like(template: str) -> PreTrainedTokenizerFast:
    """Llama 2's kind: words begin with a visible space, unknown characters become bytes, BOS is put in front."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=list("[]/INSTabcdefgh▁")
    )
    trained.train_from_iterator(["[INST] What is the capital of France? [/INST] It is Paris."] * 3, trainer)
    vocabulary = trained.get_vocab()
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    merges = [pair if isinstance(pair, tuple) else tuple(pair.split()) for pair in _merges(trained)]
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.add_special_tokens(["<unk>", "<s>", "</s>"])
    made = _finished(bpe, "</s>", "<s>", "<s>", ["<s>", "</s>"])
    made.chat_template = template
    return made


def _merges(tokenizer: Tokenizer) -> list:
    import json

    return [tuple(m) if isinstance(m, list) else m for m in json.loads(tokenizer.to_str())["model"]["merges"]]


_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_PHI_TOKENS = tuple(
    AddedToken(t, special=True, rstrip=True) for t in ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
)


def _qwen3_writes(answer: str, last: bool) -> str:
    return ("<think>\n\n</think>\n\n" + answer.lstrip("\n") if last else answer) + "<|im_end|>"


SHAPES = {
    "chatml-marked": Shape(CHATML, _CHATML_TOKENS, "<|im_end|>", lambda answer, last: answer + "<|im_end|>"),
    "chatml": Shape(CHATML_UNMARKED, _CHATML_TOKENS, "<|im_end|>", lambda answer, last: answer + "<|im_end|>"),
    "chatml-marked-line": Shape(
        CHATML_MARKED_LINE, _CHATML_TOKENS, "<|im_end|>", lambda answer, last: answer + "<|im_end|>\n"
    ),
    "qwen3": Shape(QWEN3, _CHATML_TOKENS, "<|im_end|>", _qwen3_writes),
    "r1": Shape(
        R1,
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜end▁of▁sentence｜>",
        lambda answer, last: answer + "<｜end▁of▁sentence｜>",
        bos="<｜begin▁of▁sentence｜>",
        adds="<｜begin▁of▁sentence｜>",
    ),
    "glm4": Shape(
        GLM4,
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        "<|endoftext|>",
        lambda answer, last: "\n" + answer + ("<|endoftext|>" if last else "<|user|>"),
        adds="[gMASK] <sop>",
    ),
    "gemma": Shape(
        GEMMA,
        ("<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        lambda answer, last: answer.strip() + "<end_of_turn>",
        bos="<bos>",
        adds="<bos>",
        takes_system=False,
    ),
    "llama3": Shape(
        LLAMA3,
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"),
        "<|eot_id|>",
        lambda answer, last: answer.strip() + "<|eot_id|>",
        bos="<|begin_of_text|>",
        adds="<|begin_of_text|>",
    ),
    "llama2": Shape(
        LLAMA2,
        ("<unk>", "<s>", "</s>"),
        "</s>",
        lambda answer, last: " " + answer.strip() + " </s>",
        bos="<s>",
        adds="<s>",
    ),
    "llama2-marked": Shape(
        LLAMA2_MARKED,
        ("<unk>", "<s>", "</s>"),
        "</s>",
        lambda answer, last: " " + answer.strip() + " </s>",
        bos="<s>",
        adds="<s>",
    ),
    "mistral": Shape(
        MISTRAL,
        ("<unk>", "<s>", "</s>"),
        "</s>",
        lambda answer, last: " " + answer.strip() + "</s>",
        bos="<s>",
        adds="<s>",
    ),
    "phi3": Shape(
        PHI3,
        ("<|endoftext|>", *_PHI_TOKENS),
        "<|endoftext|>",
        lambda answer, last: answer + "<|end|>",
        swallows_space=True,
    ),
    "open": Shape(
        OPEN,
        ("<|endoftext|>",),
        "<|endoftext|>",
        lambda answer, last: answer + ("\n\n<|endoftext|>" if last else ""),
    ),
    "plain": Shape(
        "",
        ("<|endoftext|>",),
        "<|endoftext|>",
        lambda answer, last: " " + answer + "<|endoftext|>",
        adds="<|endoftext|>",
    ),
}
