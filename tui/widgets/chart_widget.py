"""A chart on the screen: its picture is read and drawn on the feed's thread, the cursor is laid over it here.

Charts may share a `ChartView`, so that axis, scale, smoothing, zoom and cursor are the same on all of them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from textual.message import Message

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.store.connect import Connection, DatabaseError
from tui.render.chart_data import CurveSpec, Request, draw
from tui.render.chart_drawing import SMOOTHINGS, UNITS, Picture, View
from tui.render.chart_legend import legend, neighbour, zoomed
from tui.render.line import Line, fit_line
from tui.widgets.pane import Pane


class ChartView:
    """Axis, scale, smoothing, zoom and cursor of charts that share them."""

    def __init__(self, view: View | None = None) -> None:
        self.view = view or View(smoothing=SMOOTHINGS[1])
        self._charts: list[Chart] = []

    def join(self, chart: "Chart") -> None:
        """Follow changes of the view."""
        self._charts.append(chart)

    def leave(self, chart: "Chart") -> None:
        """No longer follow them."""
        if chart in self._charts:
            self._charts.remove(chart)

    def change(self, view: View) -> None:
        """Look at all charts in another way."""
        old, self.view = self.view, view
        for chart in self._charts:
            chart.view_changed(old)


class Chart(Pane):
    """Curves of one or several runs, with a legend line above them. A subclass may put `chart_lines` among others."""

    scope = "chart"

    class Drawn(Message):
        """A picture came from the feed's thread; `picture` is None where the store could not be read."""

        def __init__(self, request: Request, picture: Picture | None, error: str = "") -> None:
            self.request, self.picture, self.error = request, picture, error
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Chart.Drawn)

    def __init__(self, views: ChartView | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self.views = views or ChartView()
        self.picture: Picture | None = None
        self._curves: tuple[CurveSpec, ...] = ()
        self._version: Hashable = None
        self._error = ""
        self._requested: tuple[Request, Hashable] | None = None
        self._room = (0, 0)

    @property
    def problem(self) -> str:
        """Why the store could not be read; empty where it could."""
        return self._error

    def show(self, curves: Sequence[CurveSpec], version: Hashable = None) -> None:
        """Show these curves. `version` is anything that changes when their data does; nothing is read again while it is
        equal."""
        if tuple(curves) != self._curves:
            self.picture = None
        self._curves, self._version = tuple(curves), version
        self._ask()

    def chart_lines(self, width: int, height: int) -> list[Line]:
        """Legend and chart as exactly `height` lines; asks for a picture of this size if there is none."""
        if (width, height) != self._room:
            self._room = width, height
            self._ask()
        view, picture, palette = self.views.view, self.picture, self.palette
        if picture is None:
            head: Line = [(f" {self._error}", "warning")]
            return [fit_line(head, width)] + [fit_line([], width) for _ in range(height - 1)]
        head = [(" ", "text")]
        head += [(f"{self._error}  ", "warning")] if self._error else []
        head += legend(picture.curves, view, picture.x, palette.ascii_only, width - 1)
        head += [(f"   {note}", "warning") for note in picture.notes]
        column = picture.cursor_column(view.cursor) if view.cursor is not None else None
        lines = [fit_line(head, width)]
        for index, row in enumerate(picture.rows[: height - 1]):
            line: Line = list(row)
            if column is not None and index < picture.canvas_height:
                line = _with_cursor(line, column, "|" if palette.ascii_only else "┊")
            lines.append(fit_line(line, width))
        return lines + [fit_line([], width) for _ in range(height - len(lines))]

    def body(self, width: int, height: int) -> list[Line]:
        return self.chart_lines(width, height)

    def hint(self) -> str:
        unit = self.views.view.x
        return (
            msg("m metric · l log y · z smooth · t by {unit} · ←→ read · i a zoom", unit=unit) if self.has_focus else ""
        )

    def _ask(self) -> None:
        """Ask for the picture of these curves, unless that was asked last."""
        width, height = self._room
        if not self.is_attached or width < 1 or height < 2:
            return
        view, palette = replace(self.views.view, cursor=None), self.palette
        request = Request(self._curves, view, width, height - 1, palette.ascii_only, palette.name != "mono")
        requested = (request, self._version)
        if requested == self._requested:
            return
        self._requested = requested

        def question(conn: Connection) -> None:
            # On the feed's thread: posting is all it does to this widget.
            try:
                self.post_message(Chart.Drawn(request, draw(conn, request)))
            except (EngineError, DatabaseError) as error:
                self.post_message(Chart.Drawn(request, None, getattr(error, "message", str(error))))

        self.host.feed.query(f"chart {id(self)}", question)

    def on_chart_drawn(self, message: Drawn) -> None:
        """Show a picture, unless another was asked for meanwhile."""
        message.stop()
        if self._requested is None or message.request != self._requested[0]:
            return  # the answer to an older question
        self._error = message.error
        if message.error:
            self._requested = None  # asked again at the next change
        else:
            self.picture = message.picture
        self.repaint()

    def on_mount(self) -> None:
        self.views.join(self)

    def on_unmount(self) -> None:
        self.views.leave(self)

    def view_changed(self, old: View) -> None:
        """The view was changed, here or on another chart."""
        if replace(old, cursor=None) != replace(self.views.view, cursor=None):
            self._ask()
        self.repaint()

    # what the keys do

    def action_chart_log(self) -> None:
        """Logarithmic scale, or linear."""
        self.views.change(replace(self.views.view, log=not self.views.view.log))

    def action_chart_smooth(self) -> None:
        """Smooth more; after the most not at all."""
        view = self.views.view
        stronger = [weight for weight in SMOOTHINGS if weight > view.smoothing]
        self.views.change(replace(view, smoothing=stronger[0] if stronger else SMOOTHINGS[0]))

    def action_chart_axis(self) -> None:
        """By step, tokens or time; a zoom and a cursor mean nothing on another axis."""
        view = self.views.view
        unit = UNITS[(UNITS.index(view.x) + 1) % len(UNITS)]
        self.views.change(replace(view, x=unit, zoom=None, cursor=None))

    def action_chart_move_cursor(self, by: int) -> None:
        """Move the value cursor to the next mark on that side."""
        if self.picture is not None:
            x = neighbour(self.picture.curves, self.views.view.cursor, by, self.picture.x)
            self.views.change(replace(self.views.view, cursor=x))

    def drop_cursor(self) -> bool:
        """Take the cursor away; False if there was none."""
        view = self.views.view
        self.views.change(replace(view, cursor=None))
        return view.cursor is not None

    def action_chart_zoom(self, factor: float) -> None:
        """Show so many times the window around the cursor."""
        if self.picture is not None:
            view = self.views.view
            self.views.change(replace(view, zoom=zoomed(view.zoom, self.picture.whole, factor, view.cursor)))

    def action_chart_zoom_reset(self) -> None:
        """The whole run again."""
        self.views.change(replace(self.views.view, zoom=None))


def _with_cursor(line: Line, column: int, sign: str) -> Line:
    """The cursor in a cell: a thin line where the cell is empty, else the curve stays."""
    spans: Line = []
    at = 0
    for text, role in line:
        if at <= column < at + len(text) and text[column - at] == " ":
            spans += [(text[: column - at], role), (sign, "key"), (text[column - at + 1 :], role)]
        else:
            spans.append((text, role))
        at += len(text)
    return [span for span in spans if span[0]]
