"""Every action of the table is done by a method of some listener."""

from tui.app import FinetopApp
from tui.keymap import ACTIONS, BY_ID, SHARED_METHODS
from tui.screens.checkpoint_actions import CheckpointActions
from tui.screens.compare_screen import CompareScreen
from tui.screens.help_screen import Help
from tui.screens.main_actions import RunActions
from tui.screens.main_screen import MainScreen
from tui.screens.new_run_actions import FormActions
from tui.screens.new_run_screen import NewRunScreen
from tui.screens.trash_screen import TrashScreen
from tui.widgets.chart_widget import Chart
from tui.widgets.rows import Rows
from tui.widgets.run_pane import RunPane

LISTENERS = (
    FinetopApp, MainScreen, RunActions, CheckpointActions, TrashScreen, CompareScreen, NewRunScreen, Help, Chart, Rows,
    RunPane, FormActions,
)  # fmt: skip


def test_every_action_has_a_method():
    for action in ACTIONS:
        assert any(callable(getattr(kind, action.method, None)) for kind in LISTENERS), action.id


def test_every_action_method_belongs_to_an_action():
    methods = {action.method for action in ACTIONS}
    for kind in LISTENERS:
        for name in vars(kind):
            assert not name.startswith("action_") or name in methods, (kind, name)


def test_shared_methods_name_actions_of_the_table():
    assert SHARED_METHODS.keys() <= BY_ID.keys()
