"""Characters that a terminal would hide or obey, written out."""


def escape(text: str, keep: str = "") -> str:
    """The text with every control and format character as `\\n`, `\\x1b` or `\\u200b`, but for those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else escaped(char) for char in text)


def escaped(char: str) -> str:
    """The escape of one character."""
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no UTF-8, as Python has it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
