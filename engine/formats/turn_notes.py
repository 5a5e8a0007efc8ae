"""What is said of a trained turn that a chat template writes otherwise than the model will be asked for it."""

from engine.base.messages import msg

PROMPT_DIFFERS = "prompt-differs"
TURN_DIFFERS = "turn-differs"
NO_STOP = "no-stop"
EARLY_STOP = "early-stop"
DIFFERING = {
    PROMPT_DIFFERS: "follow another prompt than the model is given when it is asked",
    TURN_DIFFERS: "read otherwise than when they come last, such as without their reasoning",
    NO_STOP: "end without a token that stops generation",
    EARLY_STOP: "contain a token that stops generation before their end",
}
"""What these turns do, by note: in each, training and inference differ."""

REASONING_DROPPED = "reasoning-dropped"
TEXT_DROPPED = "text-dropped"
SYSTEM_DROPPED = "system-dropped"
QUESTION_DROPPED = "question-dropped"
RESULT_DROPPED = "result-dropped"
TOOLS_DROPPED = "tools-dropped"
NAME_DROPPED = "name-dropped"
CONTROL_TOKEN = "control-token"
ELSEWHERE = frozenset({SYSTEM_DROPPED, QUESTION_DROPPED, RESULT_DROPPED, TOOLS_DROPPED, NAME_DROPPED})
"""These are of what stands before the trained turn that has them."""
DROPPED = {
    REASONING_DROPPED: "the chat template leaves out the reasoning of an answer",
    TEXT_DROPPED: "the chat template leaves out the words beside a tool call",
    SYSTEM_DROPPED: "the chat template leaves out the system prompt",
    QUESTION_DROPPED: "the chat template leaves out a message of the user",
    RESULT_DROPPED: "the chat template leaves out the result of a tool call",
    TOOLS_DROPPED: "the chat template leaves out the tools that may be called",
    NAME_DROPPED: "the chat template leaves out the names of those who speak",
}

LINES = DROPPED | {
    PROMPT_DIFFERS: "this answer follows another prompt than the model is given when it is asked",
    TURN_DIFFERS: "this answer reads otherwise than when it comes last",
    NO_STOP: "this answer ends without a token that stops generation",
    EARLY_STOP: "this answer contains a token that stops generation before its end",
}
"""Each note of one turn."""

_MENDED = (PROMPT_DIFFERS, TURN_DIFFERS, NO_STOP)
_REMEDY = (
    "  data.train_on=separate trains each turn from the prompt it is asked with, matching leaves these turns out. "
    "Where the prompt opens a thought, give the rows thoughts (reasoning_content), or data.template another template."
)


def control_token_line(role: str, index: int, token: str) -> str:
    """`index`: of the message, from 0."""
    does = "ends the answer there" if role == "assistant" else "splits the turn there"
    return msg(
        "message {index} ({role}) contains {token}, a control token of the model, which {does}",
        index=index + 1,
        role=role,
        token=token,
        does=does,
    )


def differing_lines(part: str, counts: dict) -> list[str]:
    """A line for each way in which trained answers differ from inference, and what to do; `counts`: `train` or `val` of
    the journal's `data`; those of older runs lack the figures."""
    differing = counts.get("differing") or {}
    turns = counts.get("turns", 0)
    lines = [
        msg(
            "{part}: {differing:,} of {turns:,} answers {does} [{note}]",
            part=part,
            differing=differing[note],
            turns=turns,
            does=does,
            note=note,
        )
        for note, does in DIFFERING.items()
        if differing.get(note)
    ]
    return [*lines, _REMEDY] if any(differing.get(note) for note in _MENDED) else lines
