"""How the rows of one set of columns are read: their schema, what must not be trained on, what is not looked at.

And for rows that have no schema finetop knows: the name of their format, and what would make them readable.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.messages import msg
from engine.formats.columns import LABELS, Schema, normalise
from engine.formats.media import media_guard
from engine.formats.preference import compared_columns, pair_guard, verdict_guard
from engine.formats.ratings import is_rating
from engine.formats.row_errors import excerpt
from engine.formats.split_names import COLUMNS as SPLIT_COLUMNS

EXAM_COLUMNS = frozenset(
    [
        "a",
        "choices",
        "options",
        "candidates",
        "b",
        "c",
        "d",
        "option_a",
        "option_b",
        "option_c",
        "option_d",
        "choice_a",
        "choice_b",
        "choice_c",
        "choice_d",
    ]
)
_TRANSCRIPT = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[/INST\]|### ?(?:Human|Assistant|Instruction|Response):"
    r"|<\|(?:user|assistant|prompter)\|>|\[(?:Human|User)\]:|(?:\A|\n)[ \t]*(?:Human|User|USER|用户)[ \t]*[:：]",
)
"""Marks of a conversation that is written into one text: ChatML, Llama, Gemma, Vicuna, Guanaco, MOSS, HH."""
_BY_TURNS = re.compile("dialog|conv|chat|turn|utter|message|data|对话")
_LOOKED_AT = 20_000
Guard = Callable[[dict], None]


@dataclass(frozen=True, slots=True)
class Layout:
    schema: Schema
    guards: tuple[Guard, ...]
    """Each raises RowRejected for a row that must not be trained on."""
    unused: tuple[str, ...]
    ratings: tuple[str, ...]
    """Those of the unused columns whose numbers say how good an answer is."""
    split: str
    """The column that says which part of the data a row belongs to; '' for none."""


def layout_of(
    columns: Sequence[str], schema: Schema, mapped: bool, zero_is_bad: frozenset[str], split: str = ""
) -> Layout:
    """`mapped`: the user said which columns serve, so a worse answer beside them was meant to be left out. `split`: the
    column that says a row's part by its content, where none does by its name."""
    used = set(schema.columns.values())
    by_name = (column for column in columns if normalise(column) in SPLIT_COLUMNS and column not in used)
    split = next(by_name, split if split in columns and split not in used else "")
    guards = (
        None if mapped else pair_guard(columns),
        verdict_guard(columns, schema, zero_is_bad),
        media_guard([column for column in columns if column not in used]),
    )
    unused = tuple(column for column in columns if column not in used and column != split)
    ratings = tuple(filter(is_rating, unused)) if schema.kind in ("chat", "pair") else ()
    return Layout(schema, tuple(filter(None, guards)), unused, ratings, split)


def exam_words(ignored: Iterable[str]) -> list[str]:
    """What to say of ignored columns that are the choices of exam questions."""
    choices = [f"'{excerpt(column)}'" for column in ignored if normalise(column) in EXAM_COLUMNS]
    if not choices:
        return []
    looks = "looks" if len(choices) == 1 else "look"
    advice = msg(
        "{looks} like the choices of exam questions, which are asked without: write them into the question", looks=looks
    )
    return [f"{', '.join(choices)} {advice}"]


def known_layout(columns: Sequence[str], row: dict) -> tuple[str, str] | None:
    """(what rows with these columns are, what to do) for formats that are known and not read; None for others."""
    names = {normalise(column) for column in columns}
    for required, what, how in _KNOWN:
        if required <= names:
            return what, how
    chat = row.get("chat")
    if isinstance(chat, dict) and any(str(key).startswith("turn_") for key in chat):
        how = 'Write each turn of "chat" as a message with a role and a content: {"messages": [...]}.'
        return "holds MOSS conversations ('chat' with turn_1, turn_2, …), which are not read", how
    if isinstance(chat, str) or (isinstance(row.get("sample"), str) and "USER:" in row["sample"]):
        how = 'Cut the text at "USER:", "ASSISTANT:" and "FUNCTION RESPONSE:" into messages: {"messages": [...]}.'
        return "holds whole conversations as one text each (glaive-function-calling)", how
    sides = compared_columns(columns)
    if sides:
        how = "Keep the better answer of each row in one column, and name it: --map prompt=COLUMN,completion=COLUMN."
        return msg("holds answers to be compared ({sides}), which is preference data", sides=", ".join(sides[:4])), how
    for column, value in row.items():
        mark = _TRANSCRIPT.search(value[:_LOOKED_AT]) if isinstance(value, str) else None
        if mark:
            how = msg(
                'Cut it at marks such as "{mark}" into messages: {{"messages": [...]}}.', mark=excerpt(mark[0].strip())
            )
            return msg("holds whole conversations as one text each ('{column}')", column=excerpt(column)), how
        if _is_conversation(value, any_role=True) and not _is_conversation(value):
            how = "Add the answers: as messages of the assistant, or as a column 'completion' beside."
            return msg(
                "holds questions without answers ('{column}'), as for reinforcement learning", column=excerpt(column)
            ), how
    return None


_KNOWN = (
    (
        {"role", "content"},
        "holds single messages, a row each",
        'Write each conversation as one row: {"messages": [{"role": …, "content": …}, …]}.',
    ),
    (
        {"translation"},
        "holds translations, the languages of a row in one object (OPUS, WMT)",
        "Write the two languages as columns 'prompt' and 'completion', with what to do in the prompt.",
    ),
    (
        {"question", "choices", "answerkey"},
        "holds exam questions with their choices beside (ARC, CommonsenseQA)",
        "Write the choices into the question, and the right one as 'answer'.",
    ),
    (
        {"instruction", "instances"},
        "holds several instances of each instruction (Self-Instruct)",
        "Write each instance as a row of its own: instruction, input, output.",
    ),
    (
        {"segments"},
        "holds pieces of text that are trained or not (axolotl's segments)",
        'Write them as messages: {"messages": [{"role": …, "content": …}, …]}.',
    ),
    (
        {"tokens", "ner_tags"},
        "holds words with a tag for each (CoNLL)",
        "Write the sentence as 'prompt' and what is to be found in it as 'completion'.",
    ),
    (
        {"rasa_nlu_data"},
        "holds Rasa's training data",
        "Write the list under common_examples to a file of its own; its columns text and intent are read.",
    ),
    (
        {"mapping", "current_node"},
        "is an export of ChatGPT: trees of messages",
        'Write one path of each tree as messages: {"messages": [{"role": …, "content": …}, …]}.',
    ),
    (
        {"data", "annotations"},
        "is an export of Label Studio",
        "Export it as CSV, or write text and label of each row as columns 'text' and 'label'.",
    ),
    (
        {"message_tree_id", "prompt"},
        "holds OpenAssistant trees: each question has several ranked replies",
        "Take one path of each tree, the replies of rank 0, and write it as messages; oasst_top1 on the hub is that.",
    ),
    (
        {"message_id", "parent_id", "text", "role"},
        "holds single messages of OpenAssistant trees, a row each",
        "Join each message with its parents into one conversation; oasst_top1 on the hub is that.",
    ),
    (
        {"paragraphs"},
        "holds SQuAD's nested form (title, paragraphs, qas)",
        "Use the flat form, one question a row with context, question and answers, as rajpurkar/squad on the hub is.",
    ),
    (
        {"instruction", "completions"},
        "holds several rated completions to each instruction (UltraFeedback), which is preference data",
        "Keep the best completion of each row as 'output'.",
    ),
    (
        {"prompt", "completions", "labels"},
        "holds steps with a verdict on each (stepwise supervision), which finetop does not train on",
        "Join the steps of the good rows into one 'completion'.",
    ),
    (
        {"anchor", "positive"},
        "holds pairs of texts for an embedding model",
        "finetop trains models that write; name columns with a question and an answer: --map prompt=…,completion=….",
    ),
    (
        {"query", "pos", "neg"},
        "holds texts for an embedding or ranking model",
        "finetop trains models that write; name columns with a question and an answer: --map prompt=…,completion=….",
    ),
)


ROLES_HINT = "--map prompt=COLUMN,completion=COLUMN (or text=COLUMN,label=COLUMN)"


def map_hint(columns: Sequence[str], rows: Sequence[dict] = (), lead: str = "Say which column is which: ") -> str:
    """What to give to --map, by what the columns hold where that is plain."""
    shown = ", ".join(excerpt(column) for column in columns[:30]) or "none"
    return f"{lead}{_guess(columns, rows)}. Columns: {shown[:500]}"


def _guess(columns: Sequence[str], rows: Sequence[dict]) -> str:
    if any(normalise(column) in LABELS for column in columns):
        return ROLES_HINT  # two texts beside a label are no question and answer
    texts = []
    for column in columns:
        values = [row[column] for row in rows if row.get(column) not in (None, "")]
        by_turns = bool(_BY_TURNS.search(normalise(column)))
        if values and all(_is_conversation(value, by_turns) for value in values):
            return f"--map {_role_of('messages', column)}"
        if values and all(isinstance(value, str) for value in values) and "=" not in column and "," not in column:
            texts.append(column)
    if len(texts) == 2:
        return msg(
            "{roles_hint}, such as --map {prompt_role},{completion_role}",
            roles_hint=ROLES_HINT,
            prompt_role=_role_of("prompt", texts[0]),
            completion_role=_role_of("completion", texts[1]),
        )
    return ROLES_HINT


def _role_of(role: str, column: str) -> str:
    return f"{role}={excerpt(column)}"


def _is_conversation(value: Any, by_turns: bool = False, any_role: bool = False) -> bool:
    """Whether a value is a list of messages with an answer; `by_turns`: or of texts; `any_role`: or without answers."""
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(turn, str) for turn in value):
        return by_turns and len(value) > 1
    if not all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value):
        return False
    return any_role or any(turn.get("role", turn.get("from")) not in ("system", "user", "human") for turn in value)
