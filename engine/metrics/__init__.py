"""Scores of answers against references, and of classifications. Pure Python: no torch, no files."""
