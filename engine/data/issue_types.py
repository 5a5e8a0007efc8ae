"""What can be wrong with a data file, most important first; the words for it, and whether `clean` takes it out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IssueType:
    title: str
    serious: bool
    """The check fails on it. The others are notes: true, and often harmless."""
    cleaned: bool
    """`clean` removes such rows unless told otherwise."""
    advice: str = ""


ISSUE_TYPES: dict[str, IssueType] = {
    "unreadable": IssueType("rows that cannot be used", True, True),
    "secrets": IssueType("keys, tokens and passwords", True, True, "withdraw those that are real, then clean"),
    "identity": IssueType("identity, card and account numbers", True, True),
    "leaks": IssueType("questions that are also in the validation or test file", True, True),
    "contradictions": IssueType("the same question with contradicting answers", True, True),
    "labels": IssueType("labels that differ in case, spacing or Unicode form only", True, False, "write them alike"),
    "encoding": IssueType("damaged text", True, True),
    "control-tokens": IssueType(
        "texts with control tokens of the model", True, True, "they end an answer or split a turn"
    ),
    "no-answer-left": IssueType("answers beyond max_length, nothing is learnt", True, True, "raise --max-length"),
    "truncated": IssueType("rows longer than max_length", False, False, "their ends are cut off in training"),
    "unlike-inference": IssueType(
        "answers that the chat template writes otherwise than the model is asked for them",
        False,
        False,
        "data.train_on: separate or matching",
    ),
    "duplicates": IssueType("exact duplicates", False, True),
    "near-duplicates": IssueType("near duplicates", False, False),
    "near-leaks": IssueType("questions much like one in the validation or test file", False, False),
    "several-answers": IssueType("the same question with different long answers", False, False),
    "short-answers": IssueType("very short answers among long ones", False, False),
    "contacts": IssueType("e-mail addresses and phone numbers", False, False),
    "controls": IssueType("control characters and invisible marks", False, False),
    "roles": IssueType("unusual order of roles", False, False),
    "left-out": IssueType("parts of rows that are left out", False, False),
}
"""`left-out` is what the readers tell as notes: an unanswered last turn, a broken line of a document; with a model
also what its chat template leaves out."""

REMOVED_BY_DEFAULT = tuple(name for name, kind in ISSUE_TYPES.items() if kind.cleaned)
