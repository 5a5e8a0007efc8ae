"""Where the panes lie, for every size of terminal: a pure function."""

from dataclasses import dataclass, field

from textual.geometry import Region

LEAST_WIDTH, LEAST_HEIGHT = 60, 16
"""Below this there is only a notice."""
TWO_PANES_WIDTH = 80
FOUR_PANES_WIDTH, FOUR_PANES_HEIGHT = 120, 34


@dataclass(frozen=True, slots=True)
class Layout:
    """A region for each pane that is shown."""

    kind: str
    """'four', 'two', 'list', 'zoom' (one pane on the whole screen) or 'small' (only a notice)."""
    panes: dict[str, Region] = field(default_factory=dict)
    """Those that are seen: runs, gpus, run, checkpoints."""
    header: Region = Region()
    news: Region = Region()
    footer: Region = Region()


def arrange(width: int, height: int, zoomed: str = "", grow: int = 0) -> Layout:
    """The layout for a terminal. `zoomed` names a pane on the whole screen; `grow` makes runs larger or smaller."""
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return Layout("small", header=Region(0, 0, width, height))
    header = Region(0, 0, width, 1)
    news = Region(0, height - 2, width, 1)
    footer = Region(0, height - 1, width, 1)
    room = height - 3
    if zoomed:
        return Layout("zoom", {zoomed: Region(0, 1, width, room)}, header, news, footer)
    if width < TWO_PANES_WIDTH:
        return Layout("list", {"runs": Region(0, 1, width, room)}, header, news, footer)
    if width < FOUR_PANES_WIDTH or height < FOUR_PANES_HEIGHT:
        above = _between(room * 2 // 5 + 1 + grow, 5, room - 8)
        return Layout(
            "two",
            {"runs": Region(0, 1, width, above), "run": Region(0, 1 + above, width, room - above)},
            header,
            news,
            footer,
        )
    left = width // 2 if width <= 140 else min(70 + (width - 140) // 3, 96)
    right = width - left
    runs = _between(room * 2 // 3 + grow, 8, room - 5)
    gpus = min(8, room // 3)
    return Layout(
        "four",
        {
            "runs": Region(0, 1, left, runs),
            "checkpoints": Region(0, 1 + runs, left, room - runs),
            "gpus": Region(left, 1, right, gpus),
            "run": Region(left, 1 + gpus, right, room - gpus),
        },
        header,
        news,
        footer,
    )


def _between(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
