"""The terminal: Textual's driver, the cells it shows, its background."""
