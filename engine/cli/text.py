"""Numbers as people read them, and text as a terminal may show it."""


def visible(text: str) -> str:
    """Control characters written out, line breaks kept: what comes from a file or a name is shown, never obeyed."""
    return "".join(char if char == "\n" or char.isprintable() else _written_out(char) for char in text)


def _written_out(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def duration(seconds: float) -> str:
    """`42s`, `3m 05s`, `2h 11m`, `3d 4h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def bytes_text(count: float) -> str:
    """`512 B`, `9.1 MB`, `14.5 GB`: powers of ten, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
