"""What states and roles look like: glyph, word and colour, from truecolor down to one-coloured ASCII.

Every state has a glyph and a word as well as a colour. Colours are from a set whose least distance between two
states is 20 (CIE76) under simulated protan, deutan and tritan vision; plain green and red fall to 14.
"""

import dataclasses
import os
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.theme import BUILTIN_THEMES
from textual.theme import Theme as TextualTheme

from engine.present.text import cells
from engine.store.run_records import Run, RunState
from tui.render.line import Line

NAMES = ("auto", "dark", "light", "ansi", "mono")


@dataclass(frozen=True, slots=True)
class StateStyle:
    """How a state is shown."""

    glyph: str
    word: str
    role: str


STATE_STYLES = {
    RunState.QUEUED: StateStyle("○", "waits", "queued"),
    RunState.STARTING: StateStyle("●", "start", "running"),
    RunState.RUNNING: StateStyle("●", "run", "running"),
    RunState.DONE: StateStyle("✔", "done", "done"),
    RunState.STOPPED: StateStyle("■", "stopped", "stopped"),
    RunState.FAILED: StateStyle("✖", "failed", "failed"),
    RunState.INTERRUPTED: StateStyle("!", "interrupted", "warning"),
}
HELD = StateStyle("‖", "held", "warning")
NO_BETTER = StateStyle("✔", "no better", "warning")
"""Done, and training made it no better than it was before its first step."""


def state_style(run: Run) -> StateStyle:
    """Glyph, word and role of a run's state."""
    if run.state is RunState.DONE and run.best.improved is False:
        return NO_BETTER
    return HELD if run.state is RunState.QUEUED and run.held else STATE_STYLES[run.state]


# role: (dark, light, ansi, mono); each "foreground" or "attribute foreground"
ROLES: dict[str, tuple[str, str, str, str]] = {
    "text": ("#C8D0D8", "#20262C", "default", "default"),
    "bright": ("bold #F2F5F7", "bold #000000", "bold default", "bold default"),
    "dim": ("#76808A", "#6A737C", "dim default", "default"),
    "title": ("bold #C8D0D8", "bold #20262C", "bold default", "bold default"),
    "frame": ("#3A444D", "#A9B2BA", "dim default", "default"),
    "focus": ("#8FA3B5", "#4A5A68", "default", "bold default"),
    "key": ("#F0B429", "#8A5A00", "yellow", "bold default"),
    "cursor": ("bold #4FB3F6", "bold #0B62A8", "bold bright_cyan", "bold default"),
    "mark": ("reverse #C8D0D8", "reverse #20262C", "reverse default", "reverse default"),
    "match": ("reverse #F0B429", "reverse #8A5A00", "reverse yellow", "reverse default"),
    "differs": ("underline #F0B429", "underline #8A5A00", "underline yellow", "underline default"),
    "running": ("#4FB3F6", "#0B62A8", "bright_cyan", "default"),
    "done": ("#9FE0C0", "#1B6E48", "bright_green", "default"),
    "queued": ("#76808A", "#5F6870", "default", "default"),
    "warning": ("#F0B429", "#8A5A00", "yellow", "bold default"),
    "failed": ("#F2552C", "#B3260A", "bold bright_red", "bold default"),
    "stopped": ("#C8D0D8", "#20262C", "default", "default"),
    "gauge": ("#4FB3F6", "#0B62A8", "cyan", "default"),
    "gauge2": ("#B48EF0", "#6A3FB0", "magenta", "default"),
    "stale": ("italic #76808A", "italic #6A737C", "dim default", "default"),
    # Series of charts, A to D: told apart by dots and letters as well.
    "series0": ("#4FB3F6", "#0B62A8", "bright_cyan", "default"),
    "series1": ("#F0B429", "#8A5A00", "yellow", "default"),
    "series2": ("#F2F5F7", "#20262C", "bright_white", "bold default"),
    "series3": ("#F28AC6", "#A8246E", "bright_magenta", "default"),
    # What a smoothed line leaves behind: raw values, in the same hue nearer to the background.
    "faint0": ("#2B5E80", "#9CC3E2", "dim cyan", "default"),
    "faint1": ("#77602B", "#DDC596", "dim yellow", "default"),
    "faint2": ("#666D74", "#AEB5BB", "dim white", "default"),
    "faint3": ("#7A4C69", "#E0AECB", "dim magenta", "default"),
}
_BACKGROUND = {"dark": "#101418", "light": "#FAFAF7", "ansi": "", "mono": ""}

_ASCII = str.maketrans(
    {
        "●": "*",
        "✔": "+",
        "○": "o",
        "‖": "=",
        "✖": "x",
        "■": "#",
        "✓": ">",
        "▌": ">",
        "★": "*",
        "·": ".",
        "—": "-",
        "–": "-",
        "−": "-",
        "…": "~",
        "⏎": "/",
        "→": ">",
        "←": "<",
        "↑": "^",
        "↓": "v",
        "▼": "v",
        "▲": "^",
        "‹": "<",
        "›": ">",
        "°": "'",
        "×": "x",
        "≥": ">",
        "└": "+",
        "█": "#",
        "▏": ".",
        "▎": ":",
        "▍": ":",
        "▋": "|",
        "▊": "#",
        "▉": "#",
        **dict.fromkeys("┌┐┘├┤┬┴┼┏┓┗┛╭╮╰╯", "+"),
        **dict.fromkeys("─━", "-"),
        **dict.fromkeys("│┃", "|"),
    }
)


class Palette:
    """The colours in force: turns lines into strips. Made once, when the screen opens."""

    def __init__(self, name: str = "auto", ascii_only: bool = False, utf8: bool = True) -> None:
        self.name = name
        self.ascii_only = ascii_only or not utf8
        self._utf8 = utf8
        column = NAMES.index(name) - 1
        background = _BACKGROUND[name]
        self.background = Style(bgcolor=background) if background else Style()
        self.styles = {
            role: self.background + Style.parse(styles[column].replace("default", "").strip() or "none")
            for role, styles in ROLES.items()
        }
        self._text = self.styles["text"]

    def style(self, role: str) -> Style:
        """Rich's style for a role; an unknown role is plain text."""
        return self.styles.get(role, self._text)

    def plain(self, text: str) -> str:
        """Text as this terminal can draw it: ASCII where it must be."""
        if not self.ascii_only or text.isascii():
            return text
        text = text.translate(_ASCII)
        if text.isascii():
            return text
        return "".join(_ascii(char, self._utf8) for char in text)

    def strip(self, line: Line, width: int) -> Strip:
        """A line of exactly `width` cells as Textual draws it."""
        style = self.style
        if self.ascii_only:
            return Strip([Segment(self.plain(text), style(role)) for text, role in line], width)
        return Strip([Segment(text, style(role)) for text, role in line], width)

    def textual(self) -> TextualTheme:
        """The same colours for Textual's own widgets (input lines)."""
        if self.name in ("ansi", "mono"):
            return dataclasses.replace(BUILTIN_THEMES["ansi-dark"], name="finetop")
        dark = self.name == "dark"
        background = _BACKGROUND[self.name]
        return TextualTheme(
            name="finetop",
            primary="#4FB3F6" if dark else "#0B62A8",
            foreground="#C8D0D8" if dark else "#20262C",
            background=background,
            surface=background,
            panel=background,
            dark=dark,
        )


def _ascii(char: str, utf8: bool) -> str:
    """Braille and blocks as characters of about the same ink; other writing stays if the terminal knows UTF-8."""
    code = ord(char)
    if 0x2800 <= code <= 0x28FF:
        dots = (code - 0x2800).bit_count()
        return " " if not dots else "." if dots < 3 else ":" if dots < 6 else "#"
    if char.isascii() or (utf8 and not 0x2190 <= code <= 0x2BFF):
        return char
    return "?" * cells(char)


def choose(theme: str, color_system: str | None, environ: dict[str, str] | None = None) -> str:
    """The palette for `auto` and for what the terminal can do; `color_system` is rich's name for that."""
    environ = dict(os.environ) if environ is None else environ
    if environ.get("NO_COLOR") or color_system is None:
        return "mono"
    if theme != "auto":
        return theme
    if color_system == "standard":
        return "ansi"
    # Terminals that report their background in a variable do it here: "15;0", the last number being its colour.
    background = environ.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background in ("7", "15") else "dark"


def lacks_glyphs(environ: dict[str, str] | None = None) -> bool:
    """Whether the terminal's font has neither Braille nor the glyphs of states: that of the Linux console, which holds
    512 characters at most."""
    return (dict(os.environ) if environ is None else environ).get("TERM") == "linux"


def speaks_utf8(environ: dict[str, str] | None = None) -> bool:
    """Whether the locale promises UTF-8. Nothing set means a container, where it nearly always is."""
    environ = dict(os.environ) if environ is None else environ
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    return not locale or "utf" in locale.lower()
