"""Every action of the screen in one table: the bindings, the footer, the help, the palette and the docs come from it.

A key is written as it is typed: a printable character as itself (`J` is shift+j), others by Textual's names (`up`,
`ctrl+p`, `space`). `where` says in which pane or screen a key means this action; a key may mean different things in
different places, and the place that has the focus is asked before the wider ones (`PLACES`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.base.messages import msg

PLACES = {
    "runs": "Runs",
    "gpus": "GPUs",
    "run": "The selected run",
    "chart": "Charts",
    "log": "Log",
    "checkpoints": "Checkpoints",
    "trash": "Trash",
    "compare": "Compare",
    "form": "New run",
    "line": "While editing a line",
    "help": "This list of keys",
    "list": "Lists",
    "main": "Main screen",
    "any": "Everywhere",
}
"""Where keys are looked up, and what these places are called."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something a key does."""

    id: str
    """`place.verb`; the name under which the key can be changed in the settings file."""
    keys: tuple[str, ...]
    label: str
    """One or two words, for the footer."""
    help: str
    """One sentence, for the help screen, the palette and the docs."""
    where: str
    footer: int = 0
    """Order in the footer, 0: not shown there; the first that fit are shown."""
    writes: bool = False
    """Changes something, and so is refused with --readonly."""

    @property
    def method(self) -> str:
        """The method that does it, on whichever listener has one (see `KeyScreen.listeners`): `action_runs_mark`."""
        shared = SHARED_METHODS.get(self.id)
        return "action_" + (shared[0] if shared else self.id).replace(".", "_")

    @property
    def arguments(self) -> tuple[str | float, ...]:
        """What the method is called with."""
        shared = SHARED_METHODS.get(self.id)
        return shared[1:] if shared else ()


ACTIONS: tuple[Action, ...] = (
    # moving
    Action("list.down", ("j", "down"), "down", "one line down", "list"),
    Action("list.up", ("k", "up"), "up", "one line up", "list"),
    Action("list.top", ("g", "home"), "top", "first line", "list"),
    Action("list.bottom", ("G", "end"), "bottom", "last line", "list"),
    Action("list.page_down", ("pagedown", "ctrl+f"), "page down", "one page down", "list"),
    Action("list.page_up", ("pageup", "ctrl+b"), "page up", "one page up", "list"),
    Action("list.right", ("right",), "right", "what lies further right", "list"),
    Action("list.left", ("left",), "left", "back to the left", "list"),
    Action("main.pane1", ("1",), "runs", "go to pane 1, runs", "main"),
    Action("main.pane2", ("2",), "gpus", "go to pane 2, GPUs", "main"),
    Action("main.pane3", ("3",), "run", "go to pane 3, the selected run", "main"),
    Action("main.pane4", ("4",), "checkpoints", "go to pane 4, its checkpoints", "main"),
    Action("main.next_pane", ("tab",), "next pane", "next pane", "main"),
    Action("main.previous_pane", ("shift+tab",), "previous pane", "previous pane", "main"),
    Action("main.next_tab", ("]",), "next tab", "next tab of the selected run", "main"),
    Action("main.previous_tab", ("[",), "previous tab", "previous tab of the selected run", "main"),
    Action("main.open", ("enter",), "open", "open the pane on the whole screen", "main", 2),
    Action("any.back", ("escape",), "back", "one step back: close, clear marks, clear the filter", "any"),
    Action("main.bigger", ("+",), "bigger", "make the pane bigger", "main"),
    Action("main.smaller", ("_",), "smaller", "make the pane smaller", "main"),
    Action("main.jump", ("#",), "go to run", "go to a run by its number", "main"),
    # finding and choosing runs
    Action("runs.mark", ("space",), "mark", "mark the run, or take the mark away", "runs", 3),
    Action("runs.mark_range", ("v",), "mark range", "mark all runs from the last mark to here", "runs"),
    Action("runs.filter", ("/",), "filter", "show only runs that match: state:failed, a word, !word", "runs", 8),
    Action("runs.sort", ("s",), "sort", "sort by the next column", "runs"),
    Action("runs.sort_invert", ("S",), "invert sort", "turn the order around", "runs"),
    Action("runs.fork", ("f",), "fork", "new run from the weights of a checkpoint of this one", "runs", 0, True),
    # acting on runs
    Action("main.new", ("n",), "new", "new run from a preset", "main", 1, True),
    Action("main.edit", ("e",), "edit", "a new run from this one; the fix of a failed one", "main", 9, True),
    Action("main.compare", ("c",), "compare", "compare 2-4 marked runs, or this with the best on its data", "main", 4),
    Action("main.stop", ("x",), "stop", "stop after this step and save; take off the queue", "main", 5, True),
    Action("main.kill", ("X",), "kill", "end the run's process now, unsaved; take off the queue", "main", 0, True),
    Action("main.resume", ("r",), "resume", "go on from a checkpoint, or run again", "main", 6, True),
    Action("main.hold", ("h",), "hold", "hold a waiting run, or release it", "main", 0, True),
    Action("main.move_down", ("J",), "move down", "move down in the queue", "main", 0, True),
    Action("main.move_up", ("K",), "move up", "move up in the queue", "main", 0, True),
    Action("main.move_top", ("T",), "move to top", "move to the front of the queue", "main", 0, True),
    Action("main.delete", ("d",), "delete", "move the run to the trash", "main", 7, True),
    Action("main.undo", ("u",), "undo", "undo the last deletion, or taking off the queue", "main", 0, True),
    Action("main.trash", ("U",), "trash", "what lies in the trash: take it back, or delete it for good", "main", 0),
    Action("main.rename", ("N",), "rename", "give the run another name", "main", 0, True),
    Action("main.tag", ("t",), "tag", "set the run's tags", "main", 0, True),
    Action("main.note", ("o",), "note", "write a note on the run", "main", 0, True),
    Action("checkpoints.pin", ("P",), "pin", "keep it whatever the settings say, or no longer", "checkpoints", 3, True),
    Action("checkpoints.delete", ("d",), "delete", "move the checkpoint to the trash", "checkpoints", 4, True),
    Action("checkpoints.fork", ("f",), "fork", "new run from its weights, other settings", "checkpoints", 6, True),
    Action("checkpoints.compare", ("c",), "compare", "beside the best; the best beside the newest", "checkpoints", 7),
    Action("checkpoints.best", ("b",), "best by", "let another metric say which is best", "checkpoints", 8, True),
    Action("checkpoints.resume", ("r",), "resume here", "go on from this checkpoint", "checkpoints", 5, True),
    # the trash
    Action("trash.restore", ("enter", "u"), "take back", "take it back out of the trash", "trash", 1, True),
    Action("trash.purge", ("d",), "delete", "delete it for good, after a question", "trash", 2, True),
    Action("trash.empty", ("D",), "empty", "delete all of the trash for good, after a question", "trash", 3, True),
    # charts
    Action("chart.metric", ("m",), "metric", "next metric", "chart", 3),
    Action("chart.log", ("l",), "log y", "logarithmic scale", "chart", 4),
    Action("chart.smooth", ("z",), "smooth", "how much the line is smoothed", "chart", 5),
    Action("chart.axis", ("t",), "x axis", "by step, tokens or time", "chart", 6),
    Action("chart.left", ("left",), "cursor left", "value cursor to the left", "chart"),
    Action("chart.right", ("right",), "cursor right", "value cursor to the right", "chart"),
    Action("chart.zoom_in", ("i",), "zoom in", "look closer around the cursor", "chart", 7),
    Action("chart.zoom_out", ("a",), "zoom out", "look at more", "chart", 8),
    Action("chart.zoom_reset", ("0",), "all", "the whole run again", "chart"),
    # comparing
    Action("compare.pane1", ("1",), "curves", "go to pane 1, curves", "compare"),
    Action("compare.pane2", ("2",), "results", "go to pane 2, results", "compare"),
    Action("compare.pane3", ("3",), "settings", "go to pane 3, settings", "compare"),
    Action("compare.pane4", ("4",), "answers", "go to pane 4, answers", "compare"),
    Action("compare.next_pane", ("tab",), "next pane", "next pane", "compare", 1),
    Action("compare.previous_pane", ("shift+tab",), "previous pane", "previous pane", "compare"),
    Action("compare.open", ("enter",), "whole screen", "the pane on the whole screen, and back", "compare"),
    Action("compare.answers", ("v",), "answers", "the answers side by side, and back", "compare", 2),
    Action("compare.next_answer", ("]",), "next prompt", "answers to the next prompt", "compare"),
    Action("compare.previous_answer", ("[",), "previous prompt", "answers to the prompt before", "compare"),
    Action("compare.only", ("o",), "only", "answers: all, those that differ, those where A scores better", "compare"),
    Action("compare.all", ("a",), "all settings", "all settings, or only those that differ", "compare", 3),
    Action("compare.baseline", ("b",), "baseline", "take differences to the next one", "compare", 4),
    Action("compare.add", ("+",), "add", "add a run or a checkpoint: 41, 41@best, 41@1200", "compare"),
    Action("compare.remove", ("-",), "remove", "leave out the last one", "compare"),
    Action("compare.copy", ("y",), "copy", "copy the comparison as Markdown (works over SSH)", "compare", 5),
    Action("compare.export", ("w",), "write", "write the comparison to a Markdown file in the workspace", "compare", 6),
    Action("compare.new", ("e",), "new from A", "a new run with the settings of the first", "compare", 7, True),
    # a new run
    Action("form.edit", ("enter",), "edit", "edit the setting; several values with commas make a sweep", "form", 2),
    Action("form.cycle", ("space",), "next value", "the next of a few values; choose a model", "form", 3),
    Action("form.reset", ("backspace", "delete"), "as it was", "the value it had at first", "form", 4),
    Action("form.queue", ("ctrl+s", "s"), "queue", "queue the run, or all runs of the sweep", "form", 1, True),
    Action("form.hold", ("h",), "queue held", "queue it, but held until you release it", "form", 0, True),
    Action("form.problem", ("e",), "next problem", "go to the next setting that is wrong", "form", 5),
    Action("form.all", ("a",), "all settings", "all settings, or only the usual ones", "form", 6),
    Action("form.find", ("/",), "find", "go to the setting whose name holds a text", "form", 7),
    Action("form.report", ("r",), "token report", "count tokens, steps, time and cost", "form", 8),
    Action("form.anew", ("n",), "anew", "begin anew, as if nothing had been typed", "form", 9),
    Action("form.undo", ("u",), "undo", "take back the last change of the form", "form"),
    Action("form.pane", ("tab",), "other pane", "go to what it takes, and back", "form"),
    Action("line.complete", ("tab",), "complete", "complete a path or a name", "line", 1),
    # the log
    Action("main.log", ("L",), "log", "the run's log on the whole screen", "main"),
    Action("log.follow", ("f",), "follow", "stay at the end of the log as it grows", "log", 3),
    Action("log.search", ("/",), "search", "look for a text in the log", "log", 4),
    Action("log.next_match", ("n",), "next match", "next place where it was found", "log", 5),
    Action("log.previous_match", ("N",), "previous match", "the place before", "log"),
    Action("log.wrap", ("w",), "wrap", "wrap long lines, or let them go on to the right", "log", 6),
    # daemon, picture, help
    Action("main.daemon", ("D",), "start daemon", "start the daemon, which runs the queue", "main", 0, True),
    Action("main.pause", ("p",), "pause picture", "stop updating the picture; runs go on", "main"),
    Action("main.copy", ("y",), "copy", "copy the run's folder to the clipboard (works over SSH)", "main"),
    Action("help.find", ("/",), "find", "show only lines that hold a text", "help"),
    Action("any.close", ("q",), "close", "close what is open over the main screen", "any"),
    Action("any.redraw", ("ctrl+l",), "redraw", "paint the whole screen again", "any"),
    Action("any.palette", (":", "ctrl+p"), "command", "all commands by name", "any", 10),
    Action("any.help", ("?", "f1"), "keys", "what the keys do", "any", 11),
    Action("any.messages", ("M",), "messages", "all that was said here, whole, the newest first", "any"),
    Action("any.doctor", ("!",), "doctor", "what would not work here, and what to do about it", "any"),
    Action("any.interrupt", ("ctrl+c",), "", "nothing but a hint: people press it by habit; q leaves", "any"),
    Action("main.quit", ("q",), "quit", "leave; runs go on", "main", 12),
)  # fmt: skip
SHARED_METHODS: dict[str, tuple[str, str | float]] = {
    "main.pane1": ("main.pane", "runs"),
    "main.pane2": ("main.pane", "gpus"),
    "main.pane3": ("main.pane", "run"),
    "main.pane4": ("main.pane", "checkpoints"),
    "main.next_pane": ("main.step_pane", 1),
    "main.previous_pane": ("main.step_pane", -1),
    "main.next_tab": ("main.step_tab", 1),
    "main.previous_tab": ("main.step_tab", -1),
    "main.bigger": ("main.resize", 1),
    "main.smaller": ("main.resize", -1),
    "main.move_down": ("main.move", "down"),
    "main.move_up": ("main.move", "up"),
    "main.move_top": ("main.move", "top"),
    "chart.left": ("chart.move_cursor", -1),
    "chart.right": ("chart.move_cursor", 1),
    "chart.zoom_in": ("chart.zoom", 0.5),
    "chart.zoom_out": ("chart.zoom", 2.0),
    "compare.pane1": ("compare.pane", "curves"),
    "compare.pane2": ("compare.pane", "results"),
    "compare.pane3": ("compare.pane", "settings"),
    "compare.pane4": ("compare.pane", "answers"),
    "compare.next_pane": ("compare.step_pane", 1),
    "compare.previous_pane": ("compare.step_pane", -1),
    "compare.next_answer": ("compare.step_answer", 1),
    "compare.previous_answer": ("compare.step_answer", -1),
    "log.next_match": ("log.step_match", 1),
    "log.previous_match": ("log.step_match", -1),
}
"""Actions that one method does with different arguments; every other action has a method of its own name."""
BY_ID = {action.id: action for action in ACTIONS}

KEY_NAMES = {
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "escape": "esc",
    "pageup": "pgup",
    "pagedown": "pgdn",
}


def written(key: str) -> str:
    """A key as the footer and the help show it."""
    return KEY_NAMES.get(key, key)


_NAMED_KEYS = {
    "up", "down", "left", "right", "home", "end", "pageup", "pagedown", "insert", "delete", "backspace", "enter",
    "escape", "tab", "space", *(f"f{number}" for number in range(1, 25)),
}  # fmt: skip
_MODIFIERS = {"ctrl", "alt", "shift", "super", "hyper", "meta"}


def is_key(key: str) -> bool:
    """Whether a terminal can send such a key: `x`, `X`, `f3`, `pagedown`, `ctrl+x`, `shift+tab`."""
    *modifiers, name = key.split("+") if len(key) > 1 else [key]
    letter = len(name) == 1 and name.isprintable() and name != " " and "shift" not in modifiers
    return (letter or name in _NAMED_KEYS) and _MODIFIERS.issuperset(modifiers)


class Keymap:
    """Which key means which action where; the user's own keys replace the table's."""

    def __init__(self, custom: Mapping[str, Iterable[str]] | None = None) -> None:
        self.problems: list[str] = []
        usable = {name: self._usable(name, keys) for name, keys in (custom or {}).items()}
        self._keys = {action.id: usable.get(action.id) or action.keys for action in ACTIONS}
        self._meaning: dict[tuple[str, str], str] = {}
        # The user's keys come first: they push a default out of a place, and two of them on one key are a mistake.
        for action in sorted(ACTIONS, key=lambda action: not usable.get(action.id)):
            for key in self._keys[action.id]:
                first = self._meaning.setdefault((action.where, key), action.id)
                if first != action.id and usable.get(action.id):
                    self.problems.append(
                        msg("'{key}' is both {first} and {second}", key=key, first=first, second=action.id)
                    )
        self.problems += [self._left_without(action) for action in ACTIONS if not self.keys(action.id)]
        self.problems += [hidden for name, keys in usable.items() for key in keys if (hidden := self._hides(name, key))]

    def _usable(self, action_id: str, keys: Iterable[str]) -> tuple[str, ...]:
        """The keys that there are, of an action that there is; the others are told. Without any the table's stay."""
        if action_id not in BY_ID:
            self.problems.append(msg("there is no action '{name}'", name=action_id))
            return ()
        keys = tuple(keys)
        for key in keys:
            if not is_key(key):
                self.problems.append(
                    msg(
                        "{name}: there is no key '{key}'; keys are written as x, X, f3, pagedown, ctrl+x",
                        name=action_id,
                        key=key,
                    )
                )
        return tuple(filter(is_key, keys))

    def _left_without(self, action: Action) -> str:
        key = self._keys[action.id][0]
        pushed_by = self._meaning[action.where, key]
        return msg("'{key}' is {first} now, and {second} has no key", key=key, first=pushed_by, second=action.id)

    def _hides(self, action_id: str, key: str) -> str:
        """Where an own key of a pane is the only one of an action that is meant for everywhere."""
        where = BY_ID[action_id].where
        for wider in ("main", "any") if where != "any" else ():
            hidden = self._meaning.get((wider, key)) if wider != where else None
            if hidden and self.keys(hidden) == (key,):
                return msg("'{key}' is {first}, which hides {second} there", key=key, first=action_id, second=hidden)
        return ""

    def keys(self, action_id: str) -> tuple[str, ...]:
        """The keys of an action that reach it."""
        where = BY_ID[action_id].where
        return tuple(key for key in self._keys[action_id] if self._meaning.get((where, key)) == action_id)

    def action(self, key: str, places: Iterable[str]) -> Action | None:
        """What a key means in the first of these places that knows it."""
        for where in places:
            if action_id := self._meaning.get((where, key)):
                return BY_ID[action_id]
        return None

    def reachable(self, places: Iterable[str]) -> list[Action]:
        """The actions that keys reach in these places, the narrowest place first; none hidden behind a narrower key."""
        places = tuple(places)
        return [
            action
            for where in places
            for action in ACTIONS
            if action.where == where and any(self.action(key, places) is action for key in self.keys(action.id) or ())
        ]

    def footer(self, places: Iterable[str]) -> list[Action]:
        """What the footer names, in order: what is for this pane alone comes first, in the list of runs among the rest,
        and help and leaving last."""

        def order(action: Action) -> tuple[int, int]:
            wide = action.where in ("runs", "main", "any")
            return (2 if action.footer >= 10 else 1 if wide else 0), action.footer

        return sorted((action for action in self.reachable(tuple(places)) if action.footer), key=order)
