"""Pure functions from values to lines and charts."""
