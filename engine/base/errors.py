"""One family of errors, raised where the fault is known and caught where a user acted or a process ends.

EngineError
 ├─ InputError        what the user gave is wrong: a setting, a file, a name (exit code 2)
 │   ├─ ConfigError   one or more settings; carries every problem at once
 │   └─ DataError     a data file that cannot be read, or too many bad lines in it
 ├─ ModelError        the model or tokenizer cannot be loaded or trained
 ├─ CheckpointError   no good checkpoint, or one that does not fit the run
 └─ RunFailed         the run itself failed, or its worker died (exit code 1)
     ├─ NotFinite     loss or gradient stopped being numbers: trying again gives the same
     ├─ OutOfMemory   even the smallest pass does not fit
     ├─ FileTooLarge  a file would be larger than the system allows: trying again gives the same
     ├─ OomKilled     the kernel's OOM killer took one of the processes that train the run together
     └─ RankLost      one of the processes that train the run together is gone
"""


class EngineError(Exception):
    """What went wrong in the user's words, and in `hint` the next step to take."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", title: str = "") -> None:
        message, hint = as_utf8(message), as_utf8(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.title = title or type(self).__name__

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(EngineError):
    exit_code = 2


class ConfigError(InputError):
    """Every wrong setting at once; `problems` holds one line each."""

    def __init__(self, problems: list[str], hint: str = "") -> None:
        self.problems = [as_utf8(problem) for problem in problems]
        super().__init__("\n".join(problems), hint)


class DataError(InputError):
    pass


class ModelError(EngineError):
    exit_code = 2


class CheckpointError(EngineError):
    pass


class RunFailed(EngineError):
    pass


class NotFinite(RunFailed):
    pass


class OutOfMemory(RunFailed):
    pass


class FileTooLarge(RunFailed):
    pass


class OomKilled(RunFailed):
    pass


class RankLost(RunFailed):
    pass


def as_utf8(text: str) -> str:
    """For people to read: the bytes of a file's name as the UTF-8 they are, or written as `\\xfd`.

    Python has them as surrogates: those that are no UTF-8, and in a C locale all that are not ASCII.
    """
    if is_utf8(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which no file name has
        return encodable(text)


def encodable(text: str) -> str:
    """For JSON: with what no encoding has, bytes of file names and halves of surrogate pairs, written as `\\udcfd`."""
    return text if is_utf8(text) else text.encode("utf-8", "backslashreplace").decode()


def first_line(error: BaseException) -> str:
    """What an error of another's making says, cut to its first line; its type where it says nothing."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
