"""The front door: a word goes to the command line. Textual is imported only when the screen opens."""

import sys

from engine.cli.main import main as command_line


def main() -> int:
    return command_line(sys.argv[1:] or ["--help"])


if __name__ == "__main__":
    sys.exit(main())
