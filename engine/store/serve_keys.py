"""Who may ask the server, and what each has used. Of a key its SHA-256 alone is kept: it is 32 random bytes, which
nobody guesses from that.
"""

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.store.serve_database import ServeDatabase

OWNER = "owner"
"""The name of the key in `.finetop/serve.key`."""
SCOPES = ("infer", "train", "admin")
"""Answers are made; files, jobs; models are deleted. None includes another."""
_KEY_PREFIX = "sk-finetop-"


@dataclass(frozen=True, slots=True)
class StoredKey:
    name: str
    scopes: tuple[str, ...]
    created: float
    revoked: float | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """By one key on one day, of one price."""

    key: str
    day: str
    """As ISO 8601 has it, UTC."""
    priced_as: str
    """A name of `engine.plan.api_cost`."""
    requests: int
    input_tokens: int
    output_tokens: int


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    return _KEY_PREFIX + secrets.token_urlsafe(32)


class KeyStore(ServeDatabase):
    """The keys beside the owner's."""

    def add(self, name: str, scopes: Collection[str]) -> str:
        """A new key, to be shown once. Raises InputError for a name that is in use."""
        key = new_key()
        ordered = " ".join(scope for scope in SCOPES if scope in scopes)
        try:
            self._do("INSERT INTO keys VALUES(?, ?, ?, ?, NULL)", (digest(key), name, ordered, time.time()))
        except sqlite3.IntegrityError:
            raise InputError(
                msg("there is a key '{name}' already", name=name), "Revoke it first, or choose another name."
            ) from None
        return key

    def revoke(self, name: str) -> bool:
        """False where no such key is in force."""
        values = (time.time(), name)
        return self._do("UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL", values) > 0

    def all(self) -> list[StoredKey]:
        """The oldest first, with those that were revoked."""
        rows = self._all("SELECT name, scopes, created, revoked FROM keys ORDER BY created")
        return [StoredKey(name, tuple(scopes.split()), *times) for name, scopes, *times in rows]

    def in_force(self, key: str) -> StoredKey | None:
        rows = self._all("SELECT name, scopes, created FROM keys WHERE digest = ? AND revoked IS NULL", (digest(key),))
        return StoredKey(rows[0][0], tuple(rows[0][1].split()), rows[0][2]) if rows else None


class UsageStore(ServeDatabase):
    """What has been used, added up by key, day and price."""

    def add(self, used: Iterable[Used]) -> None:
        """All of it, or nothing."""
        rows = [astuple(usage) for usage in used]
        if rows:
            self._do_many(
                "INSERT INTO usage VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " requests = requests + excluded.requests, input_tokens = input_tokens + excluded.input_tokens,"
                " output_tokens = output_tokens + excluded.output_tokens",
                rows,
            )

    def since(self, day: str = "") -> list[Used]:
        """From that day on, by key."""
        return [Used(*row) for row in self._all("SELECT * FROM usage WHERE day >= ? ORDER BY key, day", (day,))]
