"""Writing data files for tests, and looking at what was read of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAIR = {"prompt": "hi", "completion": "hello"}
ASKED, SAID = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
CHAT = {"messages": [ASKED, SAID]}
HI_HELLO = [("user", "hi"), ("assistant", "hello")]


def writer(folder: Path, usual_name: str) -> Callable[..., str]:
    """A function that writes a file below `folder`, values as JSON, and returns its path."""

    def write(content: Any, name: str = usual_name, encoding: str = "utf-8") -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            content = text.encode(encoding)
        path.write_bytes(content)
        return str(path)

    return write


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def turns(example: Any) -> list[tuple]:
    return [(message["role"], message["content"]) for message in example.messages]
