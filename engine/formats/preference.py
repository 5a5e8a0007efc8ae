"""Preference data in its many forms: answers of which some are worse, and would be learnt like the others.

There is no training by preference here, so a row that holds a worse answer is refused, in words that name its form and
what can be done. Column names are compared as in `columns.normalise`.
"""

import re
from collections.abc import Callable, Sequence

from engine.base.messages import msg
from engine.formats.columns import ANSWERS, CONVERSATIONS, MESSAGES, PROMPTS, Schema, normalise
from engine.formats.row_errors import RowRejected

_WORSE = {"rejected", "reject", "dispreferred", "unpreferred", "loser", "rejection"}
_BETTER = {"chosen", "preferred", "winner"}
_VERDICTS = (
    "label", "labels", "kto_tag", "desirable", "is_desirable", "preferred", "is_preferred", "chosen", "is_chosen",
    "accepted", "is_accepted", "acceptable", "is_acceptable", "correct", "is_correct", "good", "is_good", "liked",
    "thumbs_up", "upvoted", "is_answer", "feedback", "rating", "vote", "is_safe", "safe", "passed", "is_valid", "valid",
)  # fmt: skip
"""Columns that say of an answer beside them whether it is a good one (TRL's KTO, LLaMA-Factory, WikiQA)."""
_BAD = ("false", "bad", "rejected", "undesirable", "dislike", "thumbs_down", "thumbs-down", "down", "unsafe", "👎")
_NO = ("no", "n", "f", "wrong", "incorrect")
"""Bad where the column asks about the answer; in a `label` they may be the answer of a yes-or-no question."""
_DISMISSED = ("reject", "rejected", "ignore")
"""What Prodigy's `answer` says of labels that are wrong or were not judged."""
_BAD_WORDS = {"negative", "neg", "bad", "worse", "wrong", "incorrect"} | _WORSE
_ANSWER_WORDS = {"answer", "answers", "resp", "response", "responses", "output", "outputs", "completion", "reply"}
_SIDES = re.compile(
    r"(?:response|answer|output|completion|conversation|human_ref|summary|generation|text)s?_?(a|b|j|k|0|1|2)$"
)
PAIRS_HINT = "Train on the better answers alone"


def worse_columns(columns: Sequence[str]) -> list[str]:
    """The columns that hold worse answers by their names, such as 'rejected' or 'non_preferred_output'."""
    return [column for column in columns if _is_worse(normalise(column))]


def _is_worse(name: str) -> bool:
    words = set(re.split(r"[\W_]+", name))
    if words & _WORSE or ("preferred" in words and words & {"non", "not", "less"}):
        return True
    return bool(words & _ANSWER_WORDS) and bool(words & {"neg", "negative", "bad", "worse"})


def worse_rows(key: str) -> str:
    """What is wrong with rows under this key of a file, such as 'Negative Examples'; '' where nothing is."""
    words = set(re.split(r"[\W_]+", normalise(key)))
    return (
        msg("it stands under '{key}', among answers that are not to be learnt", key=key) if words & _BAD_WORDS else ""
    )


def is_pair(row: dict, worse: Sequence[str]) -> bool:
    return any(row.get(column) not in (None, "", [], {}) for column in worse)


def pair_words(columns: Sequence[str], worse: Sequence[str], row: dict) -> tuple[str, str]:
    """(what such rows are, what to do with them)."""
    better = next((column for column in columns if _is_better(normalise(column))), "")
    named = "', '".join([*([better] if better else []), *worse[:1]])
    by_name = {normalise(column): column for column in columns}
    turns = next((by_name[name] for name in (*MESSAGES, *CONVERSATIONS) if name in by_name), "")
    prompt = next((by_name[name] for name in PROMPTS if name in by_name), "")
    answer = next((by_name[name] for name in ANSWERS if name in by_name), "")
    better_value = row.get(better)
    if isinstance(row.get(prompt), dict):
        how = msg(
            "{pairs_hint}: write each as {{\"messages\": …}} without '{worse}'.", pairs_hint=PAIRS_HINT, worse=worse[0]
        )
    elif isinstance(better_value, list) and len(better_value) > 1:
        how = f"{PAIRS_HINT}: --map messages={better}."
    elif prompt and (better or answer):
        how = f"{PAIRS_HINT}: --map prompt={prompt},completion={better or answer}."
    elif turns and better:
        how = msg(
            "{pairs_hint}: append '{better}' to '{turns}' and leave out '{worse}'.",
            pairs_hint=PAIRS_HINT,
            better=better,
            turns=turns,
            worse=worse[0],
        )
    elif turns:
        how = f"{PAIRS_HINT}: --map messages={turns}."
    else:
        how = msg(
            "{pairs_hint}: write each as {{\"messages\": …}} without '{worse}'.", pairs_hint=PAIRS_HINT, worse=worse[0]
        )
    return msg("preference pairs ('{named}')", named=named), how


def _is_better(name: str) -> bool:
    words = set(re.split(r"[\W_]+", name))
    return bool(words & _BETTER) and not _is_worse(name) and not words & {"rating", "score", "avg", "model"}


def pair_guard(columns: Sequence[str]) -> Callable[[dict], None] | None:
    """Raises RowRejected for rows that hold a worse answer; None where these columns cannot."""
    worse = worse_columns(columns)
    if not worse:
        return None

    def guard(row: dict) -> None:
        if is_pair(row, worse):
            what, how = pair_words(columns, worse, row)
            what = what.replace("preference pairs", "a preference pair")
            raise RowRejected(
                "preference", msg("{what}, which finetop does not train on. {how}", what=what, how=how), row
            )

    return guard


def is_verdict(name: str) -> bool:
    return normalise(name) in _VERDICTS


def verdict_columns(rows: Sequence[dict]) -> frozenset[str]:
    """Columns of these rows in which 0 says that an answer is bad: they hold nothing but 0, 1 and -1."""
    values: dict[str, set] = {}
    for row in rows:
        for column, value in row.items():
            if normalise(column) in _VERDICTS and value not in (None, ""):
                values.setdefault(column, set()).add(_verdict(value))
    return frozenset(column for column, held in values.items() if held <= {"0", "1", "-1", "true", "false"})


def verdict_guard(columns: Sequence[str], schema: Schema, zero_is_bad: frozenset[str]) -> Callable[[dict], None] | None:
    """Raises RowRejected for answers that a column beside them calls bad; None where no column does."""
    used = set(schema.columns.values())
    if schema.kind == "classification":
        return _dismissed_guard([column for column in columns if normalise(column) == "answer" and column not in used])
    verdicts = [column for column in columns if normalise(column) in _VERDICTS and column not in used]
    if schema.kind not in ("chat", "pair") or not verdicts:
        return None

    def guard(row: dict) -> None:
        for column in verdicts:
            value = row.get(column)
            verdict = _verdict(value)
            no = verdict in _NO and normalise(column) not in ("label", "labels")
            if no or verdict in _BAD or (verdict in ("0", "-1") and column in zero_is_bad):
                shown = "false" if value is False else f"{value}"[:20]
                raise RowRejected(
                    "preference",
                    msg(
                        "'{column}' is {shown}: a bad answer (KTO and the like), which finetop does not train on. Keep "
                        "only the rows where it is true; if it means something else, give the column another name",
                        column=column,
                        shown=shown,
                    ),
                    row,
                )

    return guard


def _dismissed_guard(columns: Sequence[str]) -> Callable[[dict], None] | None:
    def guard(row: dict) -> None:
        for column in columns:
            if _verdict(row.get(column)) in _DISMISSED:
                message = msg(
                    "'{column}' is {row}: an annotation that was not accepted (Prodigy)", column=column, row=row[column]
                )
                raise RowRejected("preference", message, row)

    return guard if columns else None


def _verdict(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower() if isinstance(value, (int, str)) else "?"


def compared_columns(columns: Sequence[str]) -> list[str]:
    """Two columns or more that are answers to be compared: 'response_a' and 'response_b', 'output_1' and 'output_2'."""
    sides = [column for column in columns if _SIDES.match(normalise(column))]
    return sides if len(sides) > 1 else []
