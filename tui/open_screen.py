"""Opening the screen: settings, workspace, application."""

import argparse
import dataclasses
import sys

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.workspace import find_workspace
from engine.present.text import visible
from tui import settings
from tui.app import FinetopApp


def open_screen(options: argparse.Namespace, welcome: bool = False) -> int:
    """Exit codes: 0 left by the user, 1 the screen failed, 2 there is no such workspace.

    With `welcome` the first keys are shown; whoever opened it so says afterwards how the runs went on.
    """
    try:
        workspace = find_workspace(options.workspace)
    except EngineError as error:
        print(visible(f"finetop: {error.message}\n{error.hint}".rstrip()), file=sys.stderr)
        return error.exit_code
    chosen = settings.read()
    chosen = dataclasses.replace(
        chosen,
        theme=options.theme or chosen.theme,
        ascii=options.ascii or chosen.ascii,
        mouse=options.mouse or chosen.mouse,
    )
    app = FinetopApp(workspace, chosen, readonly=options.readonly, welcome=welcome)
    going_on = app.run(mouse=chosen.mouse)
    if app.failed_with:
        print(
            visible(msg("finetop: the screen failed, runs go on: {failed_with}", failed_with=app.failed_with)),
            file=sys.stderr,
        )
        return 1
    if going_on and not welcome:
        print(msg("{going_on}; `finetop` shows them again.", going_on=going_on))
    return app.return_code or 0
