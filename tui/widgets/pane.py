"""A pane: a frame with a title, and lines inside it that a subclass computes from values.

Painting is line by line: `repaint` asks for all lines again, which is cheap, compares them with those shown, and marks
only the ones that differ. Nothing here goes through Rich markup, so text from names and logs cannot be read as such.
"""

from typing import Self

from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from engine.present.text import cells, cut, one_line
from tui.host import Host, ScreenHost, host_of, screen_of
from tui.render.line import Line, fit_line, line_cells
from tui.render.theme import Palette

WHEEL_LINES = 3


class Lines(Widget, can_focus=False, inherit_bindings=False):
    """A widget made of lines. Subclasses say which in `lines`."""

    DEFAULT_CSS = "Lines { position: absolute; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: list[Line] = []
        self._strips: list[Strip | None] = []
        self._strip_width = 0
        self.drawn = False
        """Whether it has been in a picture."""

    def lines(self, width: int, height: int) -> list[Line]:
        """At most `height` lines; each is cut or padded to `width`."""
        return []

    @property
    def host(self) -> Host:
        """The application."""
        return host_of(self)

    @property
    def key_screen(self) -> ScreenHost:
        """The screen these lines stand on."""
        return screen_of(self)

    @property
    def palette(self) -> Palette:
        """The colours in force."""
        return self.host.palette

    def repaint(self) -> None:
        """Compute the lines again and mark those that differ."""
        width, height = self.outer_size
        if not width or not height or not self.is_attached:
            return
        computed = [fit_line(line, width) for line in self.lines(width, height)[:height]]
        computed += [[(" " * width, "text")]] * (height - len(computed))
        if width != self._strip_width or height != len(self._shown):
            self._shown, self._strips, self._strip_width = computed, [None] * height, width
            self.refresh()
            return
        changed = [y for y, line in enumerate(computed) if line != self._shown[y]]
        if changed:
            self._shown = computed
            for y in changed:
                self._strips[y] = None
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def palette_changed(self) -> None:
        """Other colours: every line is drawn again."""
        self._strips = [None] * len(self._strips)
        self.refresh()

    def on_resize(self) -> None:
        self.repaint()

    def on_show(self) -> None:
        self.repaint()

    def render_lines(self, crop: Region) -> list[Strip]:
        """The strips that Textual asks for; drawn once for each line that differs."""
        width, height = self.outer_size
        if width != self._strip_width or height != len(self._shown):
            self.repaint()
        palette, strips = self.palette, []
        self.drawn = True
        for y in range(crop.y, crop.bottom):
            if y >= len(self._shown):
                strips.append(Strip.blank(crop.width, palette.style("text")))
                continue
            strip = self._strips[y]
            if strip is None:
                strip = self._strips[y] = palette.strip(self._shown[y], width)
            strips.append(strip if crop.width == width and not crop.x else strip.crop(crop.x, crop.right))
        return strips

    def shown_text(self) -> list[str]:
        """The lines as plain text: what tests look at."""
        return ["".join(text for text, _ in line) for line in self._shown]


class Pane(Lines, can_focus=True):
    """Lines in a frame, heavy when it has the focus. `scope` is where its keys are looked up first."""

    scope = "main"
    number = 0

    def title(self) -> str | Line:
        """What stands in the upper frame."""
        return ""

    def hint(self) -> str:
        """What stands at the lower right of the frame."""
        return ""

    def body(self, width: int, height: int) -> list[Line]:
        """The lines inside the frame."""
        return []

    def places(self) -> tuple[str, ...]:
        """Where the keys pressed here are looked up, besides the screen's own places."""
        return (self.scope,)

    def focus(self, scroll_visible: bool = False) -> Self:
        """Take the focus at once: Textual does it one message later, and the next key typed ahead would miss it."""
        self.screen.set_focus(self, scroll_visible)
        return self

    def repaint(self) -> None:
        """Also what the screen says about it elsewhere."""
        super().repaint()
        if self.is_attached:
            self.key_screen.repainted()

    def clicked(self, x: int, y: int) -> bool:
        """The mouse was clicked on a cell inside the frame; whether that chose something to open."""
        return False

    def on_click(self, event: events.Click) -> None:
        """A click chooses, a second one opens."""
        event.stop()
        if self.clicked(event.x - 1, event.y - 1) and event.chain == 2:
            self.key_screen.key(events.Key("enter", "\r"))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves as the keys of a list do."""
        self._wheel(event, "action_list_down")

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, "action_list_up")

    def _wheel(self, event: events.MouseEvent, action: str) -> None:
        event.stop()
        for _ in range(WHEEL_LINES if hasattr(self, action) else 0):
            getattr(self, action)()

    def watch_has_focus(self, focused: bool) -> None:
        """The frame is heavy with the focus."""
        # Not on_focus: that comes before `has_focus` is set, and the frame would show the focus one key late.
        super().watch_has_focus(focused)
        self.repaint()

    def lines(self, width: int, height: int) -> list[Line]:
        """The body in its frame."""
        if width < 4 or height < 3:
            return []
        inner = [fit_line(line, width - 2) for line in self.body(width - 2, height - 2)[: height - 2]]
        inner += [[(" " * (width - 2), "text")]] * (height - 2 - len(inner))
        title = self.title()
        if isinstance(title, str):
            title = [(one_line(title), "title")]
        if self.number:
            title = [(f"{self.number} ", "title"), *title]
        return framed(inner, width, title, self.hint(), self.has_focus)


def framed(inner: list[Line], width: int, title: Line, hint: str = "", focus: bool = False) -> list[Line]:
    """Lines of `width - 2` cells with a frame around them; the title above, the hint below on the right."""
    corner = "┏┓┗┛━┃" if focus else "┌┐└┘─│"
    role = "focus" if focus else "frame"
    if title:
        room = width - 6
        if line_cells(title) > room:
            title = fit_line(title, room)
        above: Line = [(corner[0] + corner[4] + " ", role), *title, (" ", role)]
    else:
        above = [(corner[0] + corner[4], role)]
    above.append((corner[4] * (width - line_cells(above) - 1) + corner[1], role))
    hint = cut(hint, max(0, width - 6))
    below: Line = [(corner[2], role)]
    if hint:
        below += [(corner[4] * (width - 5 - cells(hint)) + " ", role), (hint, "dim"), (" " + corner[4], role)]
    else:
        below.append((corner[4] * (width - 2), role))
    below.append((corner[3], role))
    side = (corner[5], role)
    return [above, *([side, *line, side] for line in inner), below]
