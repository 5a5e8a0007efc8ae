"""Chat templates made of parts: any header, closing, prompt, treatment of thoughts, calls, results and system prompts
that templates are seen to have, in any combination.

In the source «  stands where the model's own writing begins behind a header, and » where what ends a turn has been
written; `plain` leaves both out, `annotated` writes them as characters that no text has.
"""

from dataclasses import dataclass, replace

CLOCK = "%Y-%m-%d %H:%M:%S.%f"
BEGIN, INDEX_END, END = "\ue000", "\ue002", "\ue001"


@dataclass(frozen=True)
class Dress:
    """What a family of templates puts around its messages."""

    family: str
    """Of tokenizer, see tokenizer_kit."""
    header: str
    """Before a message; `ROLE` stands for its role."""
    end: str
    second_end: str
    """Another added token, for templates that close calls, or last answers, otherwise."""
    call_open: str = "CALL "
    call_close: str = ""
    after_header: str = ""
    """White space of the header that a prompt may lack."""
    opener: str = ""
    """What some templates begin an answer with that no prompt has."""
    roles: tuple[str, str, str, str] = ("system", "user", "assistant", "tool")


DRESSES = {
    "chatml": Dress(
        "qwen3", "<|im_start|>ROLE", "<|im_end|>", "<|endoftext|>", "<tool_call>\n", "\n</tool_call>", "\n"
    ),
    "base": Dress("qwen2.5-base", "<|im_start|>ROLE", "<|im_end|>", "<|endoftext|>", after_header="\n"),
    "hermes": Dress("hermes", "<|im_start|>ROLE", "<|im_end|>", "<|eot_id|>", "<tool_call>", "</tool_call>", "\n"),
    "llama3": Dress(
        "llama3", "<|start_header_id|>ROLE<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>",
        after_header="\n\n", roles=("system", "user", "assistant", "ipython"),
    ),
    "glm": Dress(
        "glm4.5", "<|ROLE|>", "<|endoftext|>", "[MASK]", "<tool_call>", "</tool_call>", "\n",
        roles=("system", "user", "assistant", "observation"),
    ),
    "gemma": Dress("gemma", "<start_of_turn>ROLE", "<end_of_turn>", "<eos>", after_header="\n",
                   roles=("system", "user", "model", "tool")),
    "gemma4": Dress("gemma4", "<|turn>ROLE", "<turn|>", "<eos>", "<|tool_call>call:", "<tool_call|>", "\n",
                    roles=("system", "user", "model", "tool")),
    "phi3": Dress("phi3", "<|ROLE|>", "<|end|>", "<|endoftext|>", after_header="\n",
                  roles=("system", "user", "assistant", "user")),
    "deepseek": Dress(
        "deepseek", "<｜ROLE｜>", "<｜end▁of▁sentence｜>", "<|EOT|>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
        roles=("EOT", "User", "Assistant", "tool▁sep"),
    ),
    "cohere": Dress(
        "command-r7b", "<|START_OF_TURN_TOKEN|><|ROLE_TOKEN|>", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        "<EOS_TOKEN>", "<|START_ACTION|>", "<|END_ACTION|>", opener="<|START_RESPONSE|>",
        roles=("SYSTEM", "USER", "CHATBOT", "SYSTEM"),
    ),
    "harmony": Dress("gpt-oss", "<|start|>ROLE", "<|end|>", "<|return|>", after_header="<|message|>"),
    "mistral": Dress("mistral3", "[INST] ", "</s>", "[/INST]", "[TOOL_CALLS] ", "", roles=("", "", "", "")),
    "words": Dress("plain", "### ROLE:", "<|endoftext|>", "<|endoftext|>", after_header="\n", opener="助手："),
    "llama2": Dress("llama2", "### ROLE:", "</s>", "</s>", after_header="\n", opener="Sure: "),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    dress: str = "chatml"
    closing: str = "end"
    """end, second+end, space+end, second if last, next header."""
    line_after: bool = True
    """A line end after what closes a turn."""
    prompt: str = "header"
    """header, short (the turn's header has more white space), think, empty think, line, ignored, always (after calls,
    whether it is asked for or not), unasked (after everything)."""
    opener: str = "none"
    """none; turn: every answer begins with the dress' opener; both: prompts, too; last: '~' before the last answer."""
    thoughts: str = "unknown"
    """unknown, always, last turn, last query, block if last, block after query."""
    inline: str = "kept"
    """What becomes of a thought written into an answer: kept, dropped earlier, dropped, kept without its tags."""
    trim: str = "none"
    """none, trim, lstrip."""
    null: str = "empty"
    """What content: null becomes: empty, None, and error; needed: only null has its calls written."""
    calls: str = "all"
    """all, first (of several), name only, none, raise."""
    beside: str = "before"
    """Words beside a call: before, dropped."""
    call_closing: str = "same"
    """same, second, none (the call's own last token is all there is)."""
    results: str = "own"
    """own (a turn of their own), user (as a user's), inside (the calling turn), raise."""
    system: str = "own"
    """own, first user, last user, last user if last, raise, dropped."""
    tools: str = "none"
    """none, system, last user."""
    alternation: bool = False
    """Raises where users and assistants without calls do not alternate."""
    clock: bool = False
    marks: str = "none"
    """{% generation %} around: answer and closing, answer, closing, last (answers only that are the last)."""
    bos: bool = True


def source(recipe: Recipe) -> str:
    """The template with « and »."""
    dress = DRESSES[recipe.dress]
    by_next = recipe.closing == "next header"
    system, user, assistant, tool = (_header(dress, role, by_next) for role in dress.roles)
    is_inst = recipe.dress == "mistral"
    after = "" if is_inst else "\\n" if recipe.line_after else ""
    first_end = {
        "end": _quoted(dress.end),
        "second+end": _quoted(dress.second_end + dress.end),
        "space+end": _quoted(" " + dress.end),
        "second if last": f"({_quoted(dress.second_end)} if loop.last else {_quoted(dress.end)})",
        "next header": "''",
    }[recipe.closing]
    end = f"{{{{ {first_end} ~ '»{after}' }}}}" if not by_next else ""
    other_end = f"{{{{ {_quoted('' if by_next else dress.end)} }}}}{{{{ '{after}' }}}}"
    user_end = "{{ ' [/INST]' }}" if is_inst else other_end
    parts = ["{{ bos_token }}" if recipe.bos else ""]
    if recipe.clock:
        parts.append(f"{{{{ 'Now: ' ~ strftime_now('{CLOCK}') ~ '\\n' }}}}")
    parts.append(
        "{% set ns = namespace(query=-1, users=0, turns=0, system='') %}"
        "{% for message in messages %}{% if message.role == 'user' %}{% set ns.query = loop.index0 %}{% endif %}"
        + (_ALTERNATION if recipe.alternation else "")
        + "{% if message.role == 'system' %}{% set ns.system = message.content %}{% endif %}{% endfor %}"
    )
    offered = "{% if tools %}{{ 'Tools: ' ~ (tools | tojson) ~ '\\n' }}{% endif %}"
    if recipe.tools == "system":
        parts.append(offered)
    parts += ["{% for message in messages %}", "{% if message.role == 'system' %}"]
    parts.append(_SYSTEM_TURNS.get(recipe.system) or f"{system}{{{{ message.content }}}}{other_end}")
    parts += ["{% elif message.role == 'user' %}", user]
    if recipe.tools == "last user":
        parts.append(f"{{% if loop.index0 == ns.query %}}{offered}{{% endif %}}")
    parts.append(_SYSTEM_IN_USER.get(recipe.system, ""))
    parts += ["{{ message.content }}", user_end, "{% elif message.role == 'tool' %}"]
    parts.append(_results(recipe, tool, user, other_end))
    parts += ["{% else %}", _assistant(recipe, dress, assistant, end, after), "{% endif %}", "{% endfor %}"]
    parts.append(_prompt(recipe, dress, assistant))
    return "".join(parts)


_ALTERNATION = (
    "{% if message.role == 'user' or message.role == 'assistant' and not message.tool_calls %}"
    "{% if (message.role == 'user') != (ns.turns % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant/user/assistant') }}"
    "{% endif %}{% set ns.turns = ns.turns + 1 %}{% endif %}"
)
_SYSTEM_TURNS = {
    "raise": "{{ raise_exception('System role not supported') }}",
    "dropped": "{{ '' }}",
    "first user": "{{ '' }}",
    "last user": "{{ '' }}",
    "last user if last": "{{ '' }}",
}
_SYSTEM_IN_USER = {
    "first user": "{% if ns.users == 0 %}{{ ns.system }}{% endif %}{% set ns.users = ns.users + 1 %}",
    "last user": "{% if loop.index0 == ns.query %}{{ ns.system }}{% endif %}",
    "last user if last": "{% if loop.last %}{{ ns.system }}{% endif %}",
}


def _quoted(text: str) -> str:
    return "'" + text.replace("\n", "\\n") + "'"


def _header(dress: Dress, role: str, by_next: bool) -> str:
    text = dress.header.replace("ROLE", role)
    if by_next and ">" in text:  # its first token ends the turn before
        cut = text.index(">") + 1
        text = f"{text[:cut]}»{text[cut:]}"
    return f"{{{{ {_quoted(text + dress.after_header)} }}}}"


def _results(recipe: Recipe, tool: str, user: str, end: str) -> str:
    if recipe.results == "raise":
        return "{{ raise_exception('Only user and assistant roles are supported') }}"
    if recipe.results == "inside":
        return "{{ '' }}"
    header = tool if recipe.results == "own" else user
    return f"{header}{{{{ 'result: ' ~ message.content }}}}{end}"


def _assistant(recipe: Recipe, dress: Dress, header: str, end: str, after: str) -> str:
    inside = recipe.results == "inside"
    goes_on = "{% if loop.previtem is not defined or loop.previtem.role != 'tool' %}" if inside else ""
    parts = [goes_on, "" if recipe.dress == "mistral" else header, "{% endif %}" if inside else "", "{{ '«' }}"]
    parts.append(_MARK_OPEN.get(recipe.marks, ""))
    if recipe.opener in ("turn", "both"):
        parts.append(f"{{{{ {_quoted(dress.opener)} }}}}")
    if recipe.opener == "last":
        parts.append("{{ '~' if loop.last else '' }}")
    parts.append(_thought(recipe.thoughts))
    parts.append(_content(recipe))
    call_end = {"same": end, "second": f"{{{{ {_quoted(dress.second_end)} ~ '»{after}' }}}}", "none": "{{ '»' }}"}
    if inside:
        results = (
            "{{ '»' }}{% set rs = namespace(on=true) %}{% for follow in messages[loop.index0 + 1:] %}"
            "{% if follow.role != 'tool' %}{% set rs.on = false %}{% endif %}"
            "{% if rs.on %}{{ '[result ' ~ follow.content ~ ']' }}{% endif %}{% endfor %}"
        )
        closings = f"{{% if message.tool_calls %}}{results}{{% else %}}{end}{{% endif %}}"
    elif recipe.calls == "none":
        closings = end
    else:
        closings = f"{{% if message.tool_calls %}}{call_end[recipe.call_closing]}{{% else %}}{end}{{% endif %}}"
    calls = _calls(recipe, dress)
    if recipe.marks == "closing":
        return "".join([*parts, calls, "{% generation %}", closings, "{% endgeneration %}"])
    if recipe.marks == "answer":
        return "".join([*parts, calls, "{% endgeneration %}", closings])
    if recipe.marks == "answer and closing":
        return "".join([*parts, calls, closings, "{% endgeneration %}"])
    if recipe.marks == "last":
        body = "".join([*parts, calls, closings])
        before, begin, rest = body.partition("{{ '«' }}")
        return (
            f"{before}{begin}{{% if loop.last %}}{{% generation %}}{rest}{{% endgeneration %}}"
            f"{{% else %}}{rest}{{% endif %}}"
        )
    return "".join([*parts, calls, closings])


_MARK_OPEN = {"answer": "{% generation %}", "answer and closing": "{% generation %}"}
_HAS_THOUGHT = "message.reasoning_content is defined and message.reasoning_content"


def _thought(kind: str) -> str:
    block = "{{ '<think>\\n' ~ (message.reasoning_content or '') ~ '\\n</think>\\n\\n' }}"
    when = {
        "always": _HAS_THOUGHT,
        "last turn": f"loop.last and {_HAS_THOUGHT}",
        "last query": f"loop.index0 > ns.query and {_HAS_THOUGHT}",
        "block if last": "loop.last",
        "block after query": "loop.index0 > ns.query",
    }.get(kind)
    return f"{{% if {when} %}}{block}{{% endif %}}" if when else ""


def _content(recipe: Recipe) -> str:
    text = {
        "empty": "(message.content or '')",
        "None": "(message.content ~ '')",
        "error": "('' + message.content)",
        "needed": "(message.content or '')",
    }[recipe.null]
    trimmed = {"none": text, "trim": f"({text} | trim)", "lstrip": f"({text}).lstrip('\\n')"}[recipe.trim]
    dropped = f"({trimmed}).split('</think>')[-1]"
    shown = {
        "kept": trimmed,
        "dropped": dropped,
        "dropped earlier": f"({trimmed} if loop.index0 > ns.query else {dropped})",
        "kept without its tags": f"({trimmed}).replace('<think>', '').replace('</think>', '')",
    }[recipe.inline]
    text = f"{{{{ {shown} }}}}"
    return f"{{% if not message.tool_calls %}}{text}{{% endif %}}" if recipe.beside == "dropped" else text


def _calls(recipe: Recipe, dress: Dress) -> str:
    if recipe.calls == "none":
        return ""
    if recipe.calls == "raise":
        return "{% if message.tool_calls %}{{ raise_exception('tool calls are not supported') }}{% endif %}"
    arguments = "''" if recipe.calls == "name only" else "(call.function.arguments | tojson)"
    one = f"{{{{ {_quoted(dress.call_open)} ~ call.function.name ~ ' ' ~ {arguments} ~ {_quoted(dress.call_close)} }}}}"
    listed = "message.tool_calls[:1]" if recipe.calls == "first" else "message.tool_calls"
    when = "message.tool_calls and message.content is none" if recipe.null == "needed" else "message.tool_calls"
    return f"{{% if {when} %}}{{% for call in {listed} %}}{one}{{% endfor %}}{{% endif %}}"


def _prompt(recipe: Recipe, dress: Dress, header: str) -> str:
    if recipe.dress == "mistral":
        header = ""
    if recipe.prompt == "ignored":
        return ""
    more = {
        "think": "{{ '<think>\\n' }}",
        "empty think": "{{ '<think>\\n\\n</think>\\n\\n' }}",
        "line": "{{ '\\n' }}",
    }.get(recipe.prompt, "")
    if recipe.prompt == "short" and dress.after_header:
        header = header.replace(_quoted(dress.after_header)[1:-1] + "' }}", "' }}")
    if recipe.opener == "both":
        more += f"{{{{ {_quoted(dress.opener)} }}}}"
    if recipe.results == "inside":
        header = f"{{% if not messages or messages[-1].role != 'tool' %}}{header}{{% endif %}}"
    if recipe.prompt in ("always", "unasked"):
        # A header that nobody asked for ends no turn.
        asked = "add_generation_prompt or messages[-1].tool_calls" if recipe.prompt == "always" else "true"
        return f"{{% if {asked} %}}{{{{ '»' }}}}{header}{more}{{% endif %}}"
    return f"{{% if add_generation_prompt %}}{header}{more}{{% endif %}}"


def plain(text: str) -> str:
    return text.replace("«", "").replace("»", "")


def annotated(text: str, now: str) -> str:
    """Also without marks, and with the time given."""
    text = text.replace("«", f"' ~ '{BEGIN}' ~ message.number ~ '{INDEX_END}' ~ '").replace("»", END)
    text = text.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    return text.replace(f"strftime_now('{CLOCK}')", f"'{now}'")


def sound(recipe: Recipe) -> Recipe:
    """The nearest recipe whose parts can go together."""
    dress = DRESSES[recipe.dress]
    if recipe.closing == "next header" and (">" not in dress.header or recipe.results == "inside"):
        recipe = replace(recipe, closing="end")
    if recipe.call_closing == "none" and not (dress.call_close and recipe.calls != "none"):
        recipe = replace(recipe, call_closing="same")
    if recipe.results == "inside" and not dress.call_close:
        recipe = replace(recipe, results="own")
    if recipe.results == "inside" and recipe.prompt in ("always", "unasked"):
        recipe = replace(recipe, prompt="header")
    return recipe
