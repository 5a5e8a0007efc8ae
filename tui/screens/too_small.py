"""The notice of a terminal that has no room for the panes."""

from engine.base.messages import msg
from engine.present.text import wrap
from tui.render.line import Line
from tui.screens.main_layout import LEAST_HEIGHT, LEAST_WIDTH
from tui.widgets.pane import Lines


class TooSmall(Lines):
    """All there is room for on a very small terminal."""

    def lines(self, width: int, height: int) -> list[Line]:
        text = [
            "finetop needs more room:",
            msg(
                "{least_width}x{least_height} at least, this is {width}x{height}.",
                least_width=LEAST_WIDTH,
                least_height=LEAST_HEIGHT,
                width=width,
                height=height,
            ),
            "Runs go on. q leaves.",
        ]
        return [[(part, "text")] for line in text for part in wrap(line, width)]
