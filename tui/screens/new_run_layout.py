"""Where the parts of the new-run screen stand. Pure."""

from textual.geometry import Region

_WIDE = 100


def layout(width: int, height: int) -> dict[str, Region]:
    """Settings on the left and what comes of them on the right, or below each other."""
    regions = {
        "head": Region(0, 0, width, 1),
        "label": Region(0, height - 3, width, 1),
        "news": Region(0, height - 2, width, 1),
        "footer": Region(0, height - 1, width, 1),
    }
    body = Region(0, 1, width, max(height - 4, 1))
    if width >= _WIDE:
        left = width * 11 // 20
        return regions | {
            "fields": Region(0, 1, left, body.height),
            "info": Region(left, 1, width - left, body.height),
        }
    below = min(9, body.height // 2) if body.height >= 12 else 0
    regions["fields"] = Region(0, 1, width, body.height - below)
    if below:
        regions["info"] = Region(0, 1 + body.height - below, width, below)
    return regions
