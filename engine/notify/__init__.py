"""Telling people and programs elsewhere what has happened: a signed webhook, and mail."""
