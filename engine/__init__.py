"""The training engine: whole without the screen."""

__version__ = "0.1.0"
