"""The line of tabs over what they hold. Pure."""

from collections.abc import Sequence

from engine.present.text import cells
from tui.render.line import Line, crop_line, line_cells


def tab_line(groups: Sequence[Sequence[str]], chosen: str, width: int) -> Line:
    """The tabs in groups, the one shown in angle quotes, so that it shows without colour. Tabs stand closer where there
    is little room; where there is still too little, the one shown is in sight."""
    groups = [group for group in groups if group]
    wide = sum(cells(tab) + 2 for group in groups for tab in group) + len(groups) - 1 <= width
    line: Line = []
    end = 0
    for group in groups:
        line.append(("│" if line else "", "frame"))
        for index, tab in enumerate(group):
            if tab == chosen:
                line += [("‹", "key"), (tab, "bright"), ("›", "key")]
                end = line_cells(line)
            elif wide:
                line.append((f" {tab} ", "dim"))
            else:
                # The quotes of the tab shown separate it, as the bars do the first and last of a group.
                apart = " " if index and group[index - 1] != chosen else ""
                line.append((f"{apart}{tab}", "dim"))
    beyond = line_cells(line) - width
    if beyond <= 0:
        return line
    start = 0 if end < width else min(end - width + 2, beyond + 1)
    return [*([("…", "dim")] if start else []), *crop_line(line, start, width - (start > 0))]
