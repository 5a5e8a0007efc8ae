"""The chat templates of the model families, written anew in as few lines as show what each does to a conversation, with
« where the model's own writing begins behind a header and » where what ends a turn has been written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    family: str
    """Of tokenizer, see tokenizer_kit."""
    source: str
    tools: bool = True
    """The template writes calls and results."""


def _chatml(answer: str, calls: str, result: str, prompt: str = "", system: str = "") -> str:
    """The frame of Qwen and its like. `last` is the last user message that is no tool's result."""
    return (
        "{%- set ns = namespace(last=-1) -%}"
        "{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if tools -%}{{- '<|im_start|>system\\n' + (messages[0].content + '\\n\\n' if messages[0].role == 'system' "
        "else '') + '# Tools' -}}{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}"
        "{{- '<|im_end|>\\n' -}}"
        f"{system}{{%- endif -%}}"
        "{%- for message in messages -%}"
        "{%- set content = message.content if message.content is string else '' -%}"
        "{%- if message.role == 'user' or message.role == 'system' and not (loop.first and tools) -%}"
        "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' -}}"
        "{%- elif message.role == 'assistant' -%}"
        f"{{{{- '<|im_start|>assistant\\n«' -}}}}{answer}"
        f"{{%- for call in message.tool_calls or [] -%}}{calls}{{%- endfor -%}}"
        "{{- '<|im_end|>»\\n' -}}"
        "{%- elif message.role == 'tool' -%}"
        "{%- if loop.previtem is not defined or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}"
        f"{result}"
        "{%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
        "{%- endif -%}{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- '<|im_start|>assistant\\n{prompt}' -}}}}{{%- endif -%}}"
    )


_JSON_CALL = (
    "{{- ('' if loop.first and not content else '\\n') + '<tool_call>\\n{\"name\": \"' + call.function.name -}}"
    "{{- '\", \"arguments\": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' -}}"
)
_XML_CALL = (
    "{{- ('\\n' if not loop.first else '\\n\\n' if content else '') -}}"
    "{{- '<tool_call>\\n<function=' + call.function.name + '>\\n' -}}"
    "{%- for name, value in call.function.arguments | items -%}"
    "{{- '<parameter=' + name + '>\\n' + (value | string) + '\\n</parameter>\\n' -}}{%- endfor -%}"
    "{{- '</function>\\n</tool_call>' -}}"
)
_RESULT = "{{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' -}}"
_SPLIT_THOUGHT = (
    "{%- set thought = message.reasoning_content if message.reasoning_content is string else '' -%}"
    "{%- if not thought and '</think>' in content -%}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}"
)
QWEN25 = _chatml("{{- content -}}", _JSON_CALL, _RESULT)
QWEN3 = _chatml(
    f"{_SPLIT_THOUGHT}{{%- if loop.index0 > ns.last and (loop.last or thought) -%}}"
    "{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}"
    "{%- else -%}{{- content -}}{%- endif -%}",
    _JSON_CALL, _RESULT,
)  # fmt: skip
QWEN35 = _chatml(
    f"{{%- set content = content | trim -%}}{_SPLIT_THOUGHT}{{%- if loop.index0 > ns.last -%}}"
    "{{- '<think>\\n' + (thought | trim) + '\\n</think>\\n\\n' + content -}}"
    "{%- else -%}{{- content -}}{%- endif -%}",
    _XML_CALL, _RESULT, prompt="<think>\\n",
)  # fmt: skip
QWQ = _chatml(
    "{%- if loop.last -%}{{- content -}}{%- else -%}{{- content.split('</think>')[-1].lstrip('\\n') -}}{%- endif -%}",
    _JSON_CALL, _RESULT, prompt="<think>\\n",
)  # fmt: skip
NEMOTRON3 = _chatml(
    "{%- set content = '<think>\\n' ~ message.reasoning_content ~ '\\n</think>\\n' ~ content if "
    "message.reasoning_content is string else content if '<think>' in content or '</think>' in content "
    "else '<think></think>' ~ content -%}"
    "{{- (content if loop.index0 > ns.last else '<think></think>' ~ content.split('</think>')[-1]) | trim -}}"
    "{{- '\\n' if message.tool_calls else '' -}}{%- set content = '' -%}",
    _XML_CALL.replace("'\\n' if not loop.first else ", "").replace("</tool_call>'", "</tool_call>\\n'"),
    _RESULT, prompt="<think>\\n",
)  # fmt: skip

GLM45 = """\
[gMASK]<sop>
{%- if tools -%}{{- '<|system|>\\n# Tools' -}}{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{%- endif -%}
{%- set ns = namespace(last=-1) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{- '<|user|>»\\n' ~ message.content -}}
{%- elif message.role == 'system' -%}{{- '<|system|>»\\n' ~ message.content -}}
{%- elif message.role == 'assistant' -%}
{{- '<|assistant|>«' -}}
{%- set content = message.content ~ '' -%}
{%- set thought = message.reasoning_content if message.reasoning_content is string else '' -%}
{%- if not thought and '</think>' in content -%}
{%- set thought = content.split('</think>')[0].split('<think>')[-1] -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if loop.index0 > ns.last and thought -%}{{- '\\n<think>' + thought.strip() + '</think>' -}}
{%- else -%}{{- '\\n<think></think>' -}}{%- endif -%}
{%- if content.strip() -%}{{- '\\n' + content.strip() -}}{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{- '\\n<tool_call>' + call.function.name + '\\n' -}}
{%- for key, value in call.function.arguments.items() -%}
{{- '<arg_key>' + key + '</arg_key>\\n<arg_value>' + (value if value is string else value | tojson) -}}
{{- '</arg_value>\\n' -}}
{%- endfor -%}{{- '</tool_call>' -}}
{%- endfor -%}
{%- elif message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- '<|observation|>»' -}}{%- endif -%}
{{- '\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""

GLM4 = """\
{{- '[gMASK]<sop>' -}}
{%- if tools -%}{{- '<|system|>\\n' + (tools | tojson) -}}{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' and message.tool_calls -%}
{%- for call in message.tool_calls -%}
{{- '<|assistant|>' ~ ('«' if loop.first else '') ~ call.function.name + '\\n' + (call.function.arguments | tojson) -}}
{%- endfor -%}
{%- else -%}
{{- '<|' + (message.role if message.role != 'tool' else 'observation') + '|>' -}}
{{- '«' if message.role == 'assistant' else '»' -}}{{- '\\n' + message.content -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""

_LLAMA3_HEAD = (
    "{{- bos_token -}}{%- set system = '' -%}"
    "{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content | trim -%}"
    "{%- set messages = messages[1:] -%}{%- endif -%}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: DATE\\n\\n' + system + '<|eot_id|>' -}}"
)
LLAMA31 = (
    _LLAMA3_HEAD.replace("DATE", "26 Jul 2024")
    + """\
{%- if tools -%}
{{- '<|start_header_id|>user<|end_header_id|>\\n\\nGiven these functions:\\n' + (tools | tojson) + '\\n\\n' -}}
{{- messages[0].content | trim + '<|eot_id|>' -}}{%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (message.content | tojson) + '<|eot_id|>' -}}
{%- elif message.tool_calls -%}
{%- if message.tool_calls | length != 1 -%}
{{- raise_exception('This model only supports single tool-calls at once!') -}}{%- endif -%}
{%- set call = message.tool_calls[0].function -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n«{"name": "' + call.name + '", "parameters": ' -}}
{{- (call.arguments | tojson) + '}<|eot_id|>»' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n«' + message.content | trim + '<|eot_id|>»' -}}
{%- else -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""
)
LLAMA32 = LLAMA31.replace("Today Date: 26 Jul 2024\\n", "Now: ' ~ strftime_now('%Y-%m-%d %H:%M:%S.%f') ~ '\\n")

LLAMA2 = """\
{%- set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' if messages[0].role == 'system' else '' -%}
{%- for message in messages if message.role != 'system' -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}{%- endif -%}
{%- if message.role == 'user' -%}
{{- bos_token + '[INST] ' + (system if loop.first else '') + message.content | trim + ' [/INST]' -}}
{%- else -%}{{- '« ' + message.content | trim + ' ' + eos_token + '»' -}}{%- endif -%}
{%- endfor -%}"""

MISTRAL1 = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}{%- endif -%}
{%- if message.role == 'user' -%}{{- '[INST] ' + message.content + ' [/INST]' -}}
{%- elif message.role == 'assistant' -%}{{- '«' + message.content + eos_token + '»' -}}
{%- else -%}{{- raise_exception('Only user and assistant roles are supported!') -}}{%- endif -%}
{%- endfor -%}"""

MISTRAL3 = """\
{%- set system = messages[0].content if messages[0].role == 'system' else none -%}
{%- set rest = messages[1:] if messages[0].role == 'system' else messages -%}
{%- set users = rest | selectattr('role', 'equalto', 'user') | list -%}
{%- for message in rest | rejectattr('role', 'equalto', 'tool') | selectattr('tool_calls', 'undefined') -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('After the optional system message, conversation roles must alternate') -}}{%- endif -%}
{%- endfor -%}
{{- bos_token -}}
{%- for message in rest -%}
{%- if message.role == 'user' -%}
{%- if tools and message == users[-1] -%}
{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' -}}{%- endif -%}
{{- '[INST]' + (system + '\\n\\n' if loop.last and system is not none else '') + message.content + '[/INST]' -}}
{%- elif message.tool_calls is defined -%}
{{- '«[TOOL_CALLS][' -}}
{%- for call in message.tool_calls -%}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + (', ' if not loop.last else '') -}}
{%- endfor -%}{{- ']' + eos_token + '»' -}}
{%- elif message.role == 'assistant' -%}{{- '«' + SPACE + message.content + eos_token + '»' -}}
{%- elif message.role == 'tool' -%}
{{- '[TOOL_RESULTS]{"content": ' + (message.content | string) + ', "call_id": "' + message.tool_call_id -}}
{{- '"}[/TOOL_RESULTS]' -}}
{%- else -%}{{- raise_exception('Only user and assistant roles are supported') -}}{%- endif -%}
{%- endfor -%}"""
NEMO = MISTRAL3.replace("SPACE", "''")
MISTRAL3 = MISTRAL3.replace("SPACE", "' '").replace("[INST]'", "[INST] '").replace("[TOOL_CALLS][", "[TOOL_CALLS] [")

_GEMMA = """\
{{- bos_token -}}HEAD
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}{%- endif -%}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
{{- (first if loop.first else '') ~ ('«' if message.role == 'assistant' else '') ~ message.content | trim -}}
{{- '<end_of_turn>»\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""
GEMMA2 = _GEMMA.replace(
    "HEAD",
    "{%- if messages[0].role == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}"
    "{%- set first = '' -%}",
)
GEMMA3 = _GEMMA.replace(
    "HEAD",
    "{%- if messages[0].role == 'system' -%}{%- set first = messages[0].content + '\\n\\n' -%}"
    "{%- set messages = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- endif -%}",
)

GEMMA4 = """\
{{- bos_token -}}
{%- if tools or messages[0].role == 'system' -%}
{{- '<|turn>system\\n' -}}
{%- if messages[0].role == 'system' -%}{{- messages[0].content | trim -}}
{%- set messages = messages[1:] -%}{%- endif -%}
{%- for tool in tools or [] -%}{{- '<|tool>declaration:' + tool.function.name + '<tool|>' -}}{%- endfor -%}
{{- '<turn|>\\n' -}}
{%- endif -%}
{%- set ns = namespace(last=-1, spoke='', open=false, on=true) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages if message.role != 'tool' -%}
{%- set index = messages.index(message) -%}
{%- if message.role != 'assistant' or ns.spoke != 'assistant' -%}
{{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}{%- endif -%}
{%- set ns.spoke = message.role -%}{%- set ns.open = false -%}
{{- '«' if message.role == 'assistant' else '' -}}
{%- if message.reasoning_content and index > ns.last and message.tool_calls -%}
{{- '<|channel>thought\\n' + message.reasoning_content + '\\n<channel|>' -}}{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{- '<|tool_call>call:' + call.function.name + '{' -}}
{%- for key, value in call.function.arguments | dictsort -%}
{{- key + ':<|"|>' ~ value ~ '<|"|>' + (',' if not loop.last else '') -}}{%- endfor -%}
{{- '}<tool_call|>' -}}
{%- endfor -%}
{%- if message.tool_calls -%}
{{- '»' -}}{%- set ns.open = true -%}{%- set ns.on = true -%}{%- set ns.count = 0 -%}
{%- for follow in messages[index + 1:] -%}
{%- if follow.role != 'tool' -%}{%- set ns.on = false -%}{%- endif -%}
{%- if ns.on -%}{%- set ns.count = ns.count + 1 -%}
{{- '<|tool_response>response:' + message.tool_calls[0].function.name + '{value:<|"|>' -}}
{{- follow.content + '<|"|>}<tool_response|>' -}}{%- endif -%}
{%- endfor -%}
{%- if not ns.count -%}{{- '<|tool_response>' -}}{%- endif -%}
{%- endif -%}
{%- if message.content -%}{{- message.content | trim -}}{%- endif -%}
{%- if not message.tool_calls -%}{{- '<turn|>»\\n' -}}
{%- elif ns.count and message.content -%}{{- '<turn|>\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not ns.open -%}{{- '<|turn>model\\n<|channel>thought\\n<channel|>' -}}{%- endif -%}"""

_DEEPSEEK_CALLS = (
    "{%- for call in message.tool_calls -%}"
    "{{- ('<｜tool▁calls▁begin｜>' if loop.first else '\\n') + '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' -}}"
    "{{- call.function.name + '\\n```json\\n' + (call.function.arguments | tojson) + '\\n```<｜tool▁call▁end｜>' -}}"
    "{%- endfor -%}{{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>»' -}}"
)
_DEEPSEEK_RESULT = (
    "{{- ('<｜tool▁outputs▁begin｜>' if not ns.out else '\\n') + '<｜tool▁output▁begin｜>' + message.content -}}"
    "{{- '<｜tool▁output▁end｜>' -}}{%- set ns.out = true -%}"
)
_DEEPSEEK_HEAD = (
    "{%- set ns = namespace(system='', out=false, user=false) -%}"
    "{%- for message in messages if message.role == 'system' -%}{%- set ns.system = ns.system + message.content -%}"
    "{%- endfor -%}{{- bos_token + ns.system -}}"
    "{%- if tools -%}{{- '\\n\\n# Tools\\n' + (tools | tojson) -}}{%- endif -%}"
)
DEEPSEEK3 = (
    _DEEPSEEK_HEAD + "{%- for message in messages if message.role != 'system' -%}"
    "{%- if message.role == 'user' -%}"
    "{{- '<｜User｜>' + message.content + '<｜Assistant｜>' -}}{%- set ns.out = false -%}{%- set ns.user = true -%}"
    f"{{%- elif message.role == 'tool' -%}}{_DEEPSEEK_RESULT}{{%- set ns.user = false -%}}"
    "{%- else -%}"
    "{{- ('<｜tool▁outputs▁end｜>' if ns.out else '') ~ '«' -}}{%- set ns.out = false -%}{%- set ns.user = false -%}"
    f"{{%- if message.tool_calls -%}}{{{{- message.content or '' -}}}}{_DEEPSEEK_CALLS}"
    "{%- else -%}{{- message.content + '<｜end▁of▁sentence｜>»' -}}{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if ns.out -%}{{- '<｜tool▁outputs▁end｜>' -}}{%- endif -%}"
    "{%- if add_generation_prompt and not ns.user and not ns.out -%}{{- '<｜Assistant｜>' -}}{%- endif -%}"
)
R1 = (
    _DEEPSEEK_HEAD + "{%- for message in messages if message.role != 'system' -%}"
    "{%- if message.role == 'user' -%}{{- '<｜User｜>' + message.content -}}{%- set ns.out = false -%}"
    f"{{%- elif message.role == 'tool' -%}}{_DEEPSEEK_RESULT}"
    "{%- elif message.content is none or message.content is undefined -%}"
    f"{{{{- '<｜Assistant｜>«' -}}}}{_DEEPSEEK_CALLS}"
    "{%- elif ns.out -%}{{- '<｜tool▁outputs▁end｜>«' + message.content + '<｜end▁of▁sentence｜>»' -}}"
    "{%- set ns.out = false -%}"
    "{%- else -%}"
    "{{- '<｜Assistant｜>«' + message.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>»' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if ns.out -%}{{- '<｜tool▁outputs▁end｜>' -}}{%- endif -%}"
    "{%- if add_generation_prompt and not ns.out -%}{{- '<｜Assistant｜><think>\\n' -}}{%- endif -%}"
)

_PHI = """\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' ~ ('«' if message.role == 'assistant' else '') ~ message.content + '<|end|>»\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- else -%}{{- eos_token -}}{%- endif -%}"""
PHI4 = """\
{%- for message in messages if message.role in ('system', 'user', 'assistant') -%}
{{- '<|im_start|>' + message.role + '<|im_sep|>' ~ ('«' if message.role == 'assistant' else '') -}}
{{- message.content + '<|im_end|>»' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%}"""
PHI4_MINI = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' if tools else none -%}
{%- if system is not none -%}
{{- '<|system|>' + system -}}
{%- for tool in tools or [] -%}{{- '<|tool|>' + (tool.function | tojson) + '<|/tool|>' -}}{%- endfor -%}
{{- '<|end|>' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}{{- '<|tool_response|>' + (message.content | tojson) + '<|end|>' -}}
{%- elif message.role != 'system' -%}
{{- '<|' + message.role + '|>' ~ ('«' if message.role == 'assistant' else '') ~ (message.content or '') -}}
{%- for call in message.tool_calls or [] -%}
{{- '<|tool_call|>' + (call.function | tojson) + '<|/tool_call|>' -}}{%- endfor -%}
{{- '<|end|>»' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- else -%}{{- eos_token -}}{%- endif -%}"""

COMMAND_R = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}
{{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + messages[0].content + '<|END_OF_TURN_TOKEN|>' -}}
{%- set messages = messages[1:] -%}{%- endif -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}{%- endif -%}
{%- if message.role == 'user' -%}
{{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message.content.strip() + '<|END_OF_TURN_TOKEN|>' -}}
{%- else -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«' + message.content.strip() + '<|END_OF_TURN_TOKEN|>»' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}{%- endif -%}"""
COMMAND_R_PLUS = """\
{{- bos_token -}}
{{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># Preamble' + (tools | tojson if tools else '') -}}
{{- '<|END_OF_TURN_TOKEN|>' -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' and message.tool_calls is defined -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«' + (message.content | trim if message.content is defined else '') -}}
{{- '\\nAction:\\n```json\\n[\\n' -}}
{%- for call in message.tool_calls -%}
{{- '    {"tool_name": "' + call.function.name + '", "parameters": ' + (call.function.arguments | tojson) + '}' -}}
{{- ',\\n' if not loop.last else '' -}}{%- endfor -%}{{- '\\n]```\\n»' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«' + message.content | trim + '<|END_OF_TURN_TOKEN|>»' -}}
{%- else -%}
{{- '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' if message.role == 'user' else '<|SYSTEM_TOKEN|>') -}}
{{- '<results>\\n' + message.content | trim + '</results>' if message.role == 'tool' else message.content | trim -}}
{{- '<|END_OF_TURN_TOKEN|>' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Write actions.<|END_OF_TURN_TOKEN|>' -}}
{%- if add_generation_prompt -%}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}{%- endif -%}"""
COMMAND_R7B = """\
{{- bos_token + '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble' -}}
{{- ('\\n' + messages[0].content) if messages[0].role == 'system' else '' -}}
{{- ('\\n' + (tools | tojson)) if tools else '' -}}{{- '<|END_OF_TURN_TOKEN|>' -}}
{%- set ns = namespace(on=true) -%}
{%- for message in messages -%}
{%- if message.role == 'user' or message.role == 'system' and not loop.first -%}
{{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' -}}
{%- elif message.role == 'assistant' and message.tool_calls -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«<|START_THINKING|>' ~ (message.reasoning_content or '') -}}
{{- '<|END_THINKING|><|START_ACTION|>[\\n' -}}
{%- for call in message.tool_calls -%}
{{- '    {"tool_name": "' + call.function.name + '", "parameters": ' + (call.function.arguments | tojson) + '}' -}}
{{- ',\\n' if not loop.last else '\\n' -}}{%- endfor -%}{{- ']<|END_ACTION|><|END_OF_TURN_TOKEN|>»' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«<|START_RESPONSE|>' + message.content -}}
{{- '<|END_RESPONSE|><|END_OF_TURN_TOKEN|>»' -}}
{%- elif message.role == 'tool' and messages[loop.index0 - 1].role != 'tool' -%}
{{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[' -}}
{%- set ns.on = true -%}
{%- for follow in messages[loop.index0:] -%}
{%- if follow.role != 'tool' -%}{%- set ns.on = false -%}{%- endif -%}
{%- if ns.on -%}{{- '\\n{"results": ' + (follow.content | tojson) + '},' -}}{%- endif -%}
{%- endfor -%}{{- '\\n]<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt or not messages or messages[-1].role != 'assistant' -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}{%- endif -%}"""
TINY_AYA = (
    """\
{{- bos_token + '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble' -}}
{{- ('\\n' + messages[0].content) if messages[0].role == 'system' else '' -}}{{- '<|END_OF_TURN_TOKEN|>' -}}
{%- for message in messages if message.role != 'system' -%}
{%- if message.role == 'assistant' -%}
{%- set content = '' -%}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«<|START_RESPONSE|>' ~ (message.content or '') -}}
{%- for call in message.tool_calls or [] -%}"""
    + _XML_CALL
    + """{%- endfor -%}{{- '<|END_RESPONSE|><|END_OF_TURN_TOKEN|>»' -}}
{%- else -%}
{{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' -}}
{{- '<tool_response>\\n' + message.content + '\\n</tool_response>' if message.role == 'tool' else message.content -}}
{{- '<|END_OF_TURN_TOKEN|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>' -}}{%- endif -%}"""
)

GPT_OSS = """\
{{- '<|start|>system<|message|>Reasoning: medium\\nNow: ' ~ strftime_now('%Y-%m-%d %H:%M:%S.%f') ~ '<|end|>' -}}
{%- if tools or messages[0].role == 'system' -%}
{{- '<|start|>developer<|message|>' + (messages[0].content + '\\n\\n' if messages[0].role == 'system' else '') -}}
{{- (tools | tojson) if tools else '' -}}{{- '<|end|>' -}}
{%- endif -%}
{%- set ns = namespace(name='', final=false) -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' and message.tool_calls -%}
{%- set ns.final = false -%}
{%- for later in messages[loop.index:] if later.role == 'assistant' and not later.tool_calls -%}
{%- set ns.final = true -%}{%- endfor -%}
{%- if message.content and message.thinking -%}
{{- raise_exception('Cannot pass both content and thinking in an assistant message with tool calls!') -}}{%- endif -%}
{%- set thought = message.content or message.thinking -%}
{{- '<|start|>assistant«' -}}
{%- if thought and not ns.final -%}
{{- '<|channel|>analysis<|message|>' + thought + '<|end|><|start|>assistant' -}}{%- endif -%}
{%- set ns.name = message.tool_calls[0].function.name -%}
{{- ' to=functions.' + ns.name + '<|channel|>commentary json<|message|>' -}}
{{- (message.tool_calls[0].function.arguments | tojson) + '<|call|>»' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|start|>assistant«' -}}
{%- if loop.last and message.thinking -%}
{{- '<|channel|>analysis<|message|>' + message.thinking + '<|end|><|start|>assistant' -}}{%- endif -%}
{{- '<|channel|>final<|message|>' + message.content + ('<|return|>»' if loop.last else '<|end|>»') -}}
{%- elif message.role == 'tool' -%}
{{- '<|start|>functions.' + ns.name + ' to=assistant<|channel|>commentary<|message|>' -}}
{{- (message.content | tojson) + '<|end|>' -}}
{%- elif message.role == 'user' -%}{{- '<|start|>user<|message|>' + message.content + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}"""

HERMES = """\
{{- bos_token -}}{{- '<|im_start|>system\\nYou call functions.' -}}
{%- for tool in tools or [] -%}{{- '\\n' + (tool.function | tojson) -}}{%- endfor -%}{{- '<|im_end|>\\n' -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' and message.tool_calls is defined -%}
{{- '<|im_start|>assistant' -}}
{%- for call in message.tool_calls -%}
{{- ('\\n«' if loop.first else '\\n') ~ '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- (call.function.arguments | tojson) + '}\\n</tool_call>' -}}{%- endfor -%}{{- '<|im_end|>»\\n' -}}
{%- elif message.role == 'tool' -%}
{{- '<|im_start|>tool\\n' if messages[loop.index0 - 1].role != 'tool' else '' -}}
{{- '<tool_response>\\n' + message.content + ('\\n</tool_response>' if loop.last else '\\n</tool_response>\\n') -}}
{{- '' if not loop.last and loop.nextitem.role == 'tool' else '<|im_end|>' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' ~ ('«' if message.role == 'assistant' else '') ~ message.content -}}
{{- '<|im_end|>»\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

HUNYUAN = """\
{{- '<|startoftext|>' -}}
{{- 'Now: ' ~ strftime_now('%Y-%m-%d %H:%M:%S.%f') ~ '\\n' -}}{{- (tools | tojson) if tools else '' -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{- message.content + '<|extra_4|>' -}}
{%- elif message.role == 'user' -%}{{- '用户：' + message.content + '<|extra_0|>' -}}
{%- elif message.role == 'tool' -%}{{- '<tool_response>' + message.content + '</tool_response><|extra_0|>' -}}
{%- else -%}
{{- '«' ~ (message.content or '' if message.tool_calls else '助手：' + message.content) -}}
{%- if message.tool_calls -%}
{{- '<tool_calls>[' -}}{%- for call in message.tool_calls -%}
{{- '{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}' -}}
{{- ', ' if not loop.last else '' -}}{%- endfor -%}{{- ']</tool_calls>' -}}{%- endif -%}
{{- '<|eos|>»' -}}
{%- endif -%}
{%- endfor -%}"""

SHAPES: dict[str, Shape] = {
    "qwen2.5": Shape("qwen2.5", QWEN25),
    "qwen2.5-base": Shape("qwen2.5-base", QWEN25),
    "qwen3": Shape("qwen3", QWEN3),
    "qwen3.5": Shape("qwen3", QWEN35),
    "qwq": Shape("qwen3", QWQ),
    "nemotron3": Shape("qwen3", NEMOTRON3),
    "glm4": Shape("glm4", GLM4),
    "glm4.5": Shape("glm4.5", GLM45),
    "llama2": Shape("llama2", LLAMA2, tools=False),
    "llama3.1": Shape("llama3", LLAMA31),
    "llama3.2": Shape("llama3", LLAMA32),
    "mistral1": Shape("mistral", MISTRAL1, tools=False),
    "mistral3": Shape("mistral3", MISTRAL3),
    "nemo": Shape("nemo", NEMO),
    "gemma2": Shape("gemma", GEMMA2, tools=False),
    "gemma3": Shape("gemma", GEMMA3, tools=False),
    "gemma4": Shape("gemma4", GEMMA4),
    "deepseek3": Shape("deepseek", DEEPSEEK3),
    "r1": Shape("deepseek", R1),
    "phi3": Shape("phi3", _PHI, tools=False),
    "phi4": Shape("phi4", PHI4, tools=False),
    "phi4-mini": Shape("phi4-mini", PHI4_MINI),
    "command-r": Shape("command-r", COMMAND_R, tools=False),
    "command-r-plus": Shape("command-r", COMMAND_R_PLUS),
    "command-r7b": Shape("command-r7b", COMMAND_R7B),
    "tiny-aya": Shape("command-r7b", TINY_AYA),
    "gpt-oss": Shape("gpt-oss", GPT_OSS),
    "hermes": Shape("hermes", HERMES),
    "hunyuan": Shape("hunyuan", HUNYUAN),
}
