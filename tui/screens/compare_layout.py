"""Where the panes of the compare screen lie, for every size of terminal: a pure function."""

from textual.geometry import Region


def layout(width: int, height: int, focused: str, full: bool, adding: bool = False) -> dict[str, Region]:
    """Where everything is; panes that are not in it are not shown. `adding`: what may be added needs a line."""
    caution = 1 if height >= 20 or adding else 0
    body = Region(0, 1, width, max(height - 3 - caution, 1))
    regions = {
        "head": Region(0, 0, width, 1),
        "news": Region(0, height - 2, width, 1),
        "footer": Region(0, height - 1, width, 1),
    }
    if caution:
        regions["caution"] = Region(0, height - 3, width, 1)
    if full or focused == "answers" or width < 100 or height < 30:
        return regions | {focused: body}
    above = max(body.height * 3 // 5, 10)
    left = width // 2
    return regions | {
        "curves": Region(0, body.y, width, above),
        "results": Region(0, body.y + above, left, body.height - above),
        "settings": Region(left, body.y + above, width - left, body.height - above),
    }
