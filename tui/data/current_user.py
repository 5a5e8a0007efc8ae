"""The user of the screen."""

import getpass


def current_user() -> str:
    """Whose visits are remembered."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for our uid
        return "someone"
