"""How many bytes, in powers of 1,024 for memory, files and disks alike, and how long, as people read them."""

MIB, GIB = 1 << 20, 1 << 30


def bytes_text(count: float) -> str:
    """`512 B`, `9.1 MiB`, `14.5 GiB`: powers of 1,024, as nvidia-smi, torch, free -h and df -h count.

    A card sold with 80 GB has 80 GiB, so that what a run needs and what a card has are the same unit.
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < (1000 if unit == "B" else 1023.95):
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def gib_text(count: float, digits: int = 1) -> str:
    """Memory for narrow columns, in GiB: `62.1G`, with M or T where that would say 0.0G or need five digits."""
    if 0 < count < 100 << 20:
        return f"{count / (1 << 20):.0f}M"
    if count >= 1000 << 30:
        return f"{count / (1 << 40):.1f}T"
    return f"{count / (1 << 30):.{digits}f}G"


def span_text(seconds: float) -> str:
    """`30 s`, `2 min`, `1.5 h`, as a sentence tells a time; tables have narrower forms of their own."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
