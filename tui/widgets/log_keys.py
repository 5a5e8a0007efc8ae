"""What keys do in the log of the selected run: follow, wrap, search. Of a log of which only a part is held, the rest is
read and searched on the feed's thread."""

from typing import Any

from engine.base.messages import msg, msg_n
from engine.store.run_records import Run
from tui.data import log_reader
from tui.data.feed import Answer
from tui.render.log_tab import LogSheet
from tui.widgets.chart_widget import Chart

LOG_ANSWERS = ("log-part", "log-find")
"""What is asked of the feed here."""


class LogKeys(Chart):
    """A chart that has a log, too: the base of `RunPane`."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.run: Run | None = None
        self.logs = LogSheet()

    def take_log_answer(self, answer: Answer) -> None:
        """Show the part of the log that was asked for, or what a search came to."""
        if answer.key == "log-find":
            self._found(answer)
        elif answer.value is not None and self.run is not None:
            run_id, part, offset = answer.value
            if run_id == self.run.id and not part.problem:
                self.logs.show_part(part, offset)
                self.repaint()

    def action_log_follow(self, follow: bool | None = None) -> None:
        """Stay at the end of the log as it grows, or no longer."""
        self.logs.follow_end(not self.logs.follow if follow is None else follow)
        self.repaint()

    def action_log_wrap(self) -> None:
        """Wrap long lines, or let them go on to the right."""
        self.logs.wraps = not self.logs.wraps
        self.logs.left = 0
        self.host.say("long lines are wrapped" if self.logs.wraps else "long lines go on to the right: → and ←", "dim")
        self.repaint()

    def read_part(self, offset: int) -> None:
        """Show the part of a long log around a byte."""
        if self.run is not None and self.logs.tail is not None:
            run_id, path = self.run.id, self.logs.tail.path
            self.host.feed.read("log-part", lambda: (run_id, log_reader.read_around(path, offset), offset))

    def action_log_search(self) -> None:
        """Ask for a text to look for in the log."""
        self.key_screen.ask("search the log", "", self._search)

    def _search(self, text: str) -> None:
        amount = self.logs.search(text)
        if text and self.logs.is_part:
            self._find(1, also_here=True)
        elif text:
            self.logs.go_to_match(1, also_here=True)
            self._say_found(amount)
        self.repaint()

    def _say_found(self, amount: int) -> None:
        text = self.logs.search_text
        if not amount:
            self.host.say(msg("'{text}' is not in the log", text=text), "warning")
            return
        self.host.say(
            msg_n(
                "{n:,} line holds '{text}' · n next, N previous",
                "{n:,} lines hold '{text}' · n next, N previous",
                amount,
                text=text,
            )
        )

    def _find(self, direction: int, also_here: bool = False) -> None:
        """Search all of a log of which only a part is held; it is read on the feed's thread."""
        run, tail, pattern = self.run, self.logs.tail, self.logs.pattern
        if run is None or tail is None or pattern is None:
            return
        offset = self.logs.offset - also_here

        def question() -> Any:
            hit = log_reader.find(tail.path, pattern, offset, direction)
            part = log_reader.read_around(tail.path, hit.offset) if hit.offset is not None else None
            return run.id, pattern, also_here, hit, part

        if also_here:
            self.host.say("searching all of the log …", "dim")
        self.host.feed.read("log-find", question)

    def _found(self, answer: Answer) -> None:
        if answer.error:
            self.host.say(msg("search: {error}", error=answer.error), "failed")
        if answer.value is None or self.run is None:
            return
        run_id, pattern, is_first, hit, part = answer.value
        if run_id != self.run.id or pattern is not self.logs.pattern:
            return
        if part is not None and not part.problem:
            self.logs.show_part(part, hit.offset)
        if is_first or part is None:
            self._say_found(hit.lines)
        self.repaint()

    def action_log_step_match(self, direction: int) -> None:
        """Go to the next line that holds what was searched for, or (-1) the one above."""
        if not self.logs.search_text:
            self.host.say("nothing is searched for yet: / asks what", "warning")
        elif self.logs.is_part:
            self._find(direction)
        elif not self.logs.go_to_match(direction):
            self.host.say(msg("'{text}' is not in the log", text=self.logs.search_text), "warning")
        self.repaint()
