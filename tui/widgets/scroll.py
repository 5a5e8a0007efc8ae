"""A pane whose lines scroll under the keys for lists, without a cursor."""

from tui.render.line import Line
from tui.widgets.pane import Pane


class ScrollPane(Pane):
    """Subclasses give all their lines in `content`, and lines that stay above them in `head`."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._top = 0
        self._most = 0
        self._room = 1

    def content(self, width: int) -> list[Line]:
        """All lines that scroll."""
        return []

    def head(self, width: int) -> list[Line]:
        """Lines that stay above them."""
        return []

    def places(self) -> tuple[str, ...]:
        return (self.scope, "list")

    def body(self, width: int, height: int) -> list[Line]:
        """Head, and the lines in sight."""
        head, content = self.head(width), self.content(width)
        self._room = max(height - len(head), 1)
        self._most = max(len(content) - self._room, 0)
        self._top = min(self._top, self._most)
        return [*head, *content[self._top : self._top + self._room]]

    @property
    def below(self) -> int:
        """How many lines lie below what is shown."""
        return self._most - self._top

    def scroll_lines(self, by: int) -> None:
        """Move by lines, as far as there are any."""
        top = min(max(self._top + by, 0), self._most)
        if top != self._top:
            self._top = top
            self.repaint()

    def action_list_down(self) -> None:
        self.scroll_lines(1)

    def action_list_up(self) -> None:
        self.scroll_lines(-1)

    def action_list_page_down(self) -> None:
        self.scroll_lines(max(self._room - 1, 1))

    def action_list_page_up(self) -> None:
        self.scroll_lines(-max(self._room - 1, 1))

    def action_list_top(self) -> None:
        self.scroll_lines(-self._top)

    def action_list_bottom(self) -> None:
        self.scroll_lines(self._most)
