"""The main screen: four panes, a line of news and the footer."""

from textual import events
from textual.app import ComposeResult

from tui.keys import written
from tui.layout import Layout, arrange
from tui.format import Line, cells
from tui.screens.base import KeyScreen
from tui.snapshot import Snapshot
from tui.widgets.pane import Lines
from tui.widgets.runs import RunsPane


class Footer(Lines):
    def lines(self, width: int, height: int) -> list[Line]:
        screen = self.screen
        line: Line = []
        used = 0
        for action in self.app.keymap.footer(screen.places()):
            keys = self.app.keymap.keys(action.id)
            text = f"{written(keys[0])} {action.label}"
            if used + cells(text) + 3 > width:
                break
            used += cells(text) + 2
            greyed = bool(screen.refusal(action))
            line += [(" ", "text"), (written(keys[0]), "dim" if greyed else "key"), (f" {action.label} ", "dim")]
        return [line]


class NewsLine(Lines):
    def lines(self, width: int, height: int) -> list[Line]:
        return [[(" " + self.app.news.text, self.app.news.role)]]


class MainScreen(KeyScreen):
    own_places = ("main", "any")
    CSS = "MainScreen { layout: vertical; }"

    def __init__(self) -> None:
        super().__init__()
        self.layout_now = Layout("small")

    def compose(self) -> ComposeResult:
        self.runs = RunsPane()
        self.news_line = NewsLine(id="news")
        self.footer = Footer(id="footer")
        yield self.runs
        yield self.news_line
        yield self.footer

    def on_mount(self) -> None:
        self.runs.focus()

    def on_resize(self, event: events.Resize) -> None:
        self.arrange()

    def arrange(self) -> None:
        self.layout_now = arrange(*self.app.size)
        for widget, region in (
            (self.runs, self.layout_now.panes.get("runs")),
            (self.footer, self.layout_now.footer),
            (self.news_line, self.layout_now.news),
        ):
            if region is None:
                widget.display = False
                continue
            widget.display = True
            widget.styles.offset = region.offset
            widget.styles.width, widget.styles.height = region.width, region.height

    def take(self, snapshot: Snapshot) -> None:
        self.runs.take(snapshot)

    def show_news(self) -> None:
        self.news_line.repaint()

    def do_main_quit(self) -> None:
        self.app.exit()
