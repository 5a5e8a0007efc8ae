"""Who asks: which key a request has, and what that key may."""

import contextlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engine.serve.api_errors import ApiError
from engine.store.serve_keys import OWNER, SCOPES, KeyStore, digest

INFER, TRAIN, ADMIN = SCOPES
_CALLER = "finetop.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key a request has."""

    name: str
    scopes: frozenset[str]


class Keys:
    """Looked up at every request, so that one that was revoked is refused at once."""

    def __init__(self, owner_file: Path, store: KeyStore) -> None:
        self._owner_file, self._store = owner_file, store
        self._owner_read: tuple[int, ...] = ()
        self._owner = ""

    def caller(self, key: str) -> Caller | None:
        """None: nobody that is known. Keys are compared by digest, in the same time whatever they are."""
        owner = self._owner_digest()
        if owner and hmac.compare_digest(digest(key), owner):
            return Caller(OWNER, frozenset(SCOPES))
        stored = self._store.in_force(key)
        return Caller(stored.name, frozenset(stored.scopes)) if stored else None

    def _owner_digest(self) -> str:
        """Of what the file holds now; empty where that is no key."""
        with contextlib.suppress(OSError):
            status = os.stat(self._owner_file)
            read = (status.st_ino, status.st_size, status.st_mtime_ns)
            if read != self._owner_read:
                key = self._owner_file.read_text("utf-8", "surrogateescape").strip()
                self._owner_read, self._owner = read, digest(key) if len(key) >= 32 else ""
            return self._owner
        return ""


def set_caller(scope: Scope, caller: Caller) -> None:
    scope[_CALLER] = caller


def caller_of(request: Request) -> Caller:
    return request.scope[_CALLER]


class ScopedRoute(Route):
    """A route for keys that have one of these scopes: there is none without."""

    def __init__(self, method: str, path: str, endpoint: Any, *scopes: str) -> None:
        if not scopes or not set(scopes) <= set(SCOPES):
            raise ValueError(f"{method} {path} needs scopes of {SCOPES}")
        super().__init__(path, endpoint, methods=[method])
        self.scopes = scopes

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope[_CALLER]
        if caller.scopes.isdisjoint(self.scopes):
            needed = " or ".join(f"'{name}'" for name in self.scopes)
            raise ApiError(
                403,
                f"You have insufficient permissions for this operation: the key '{caller.name}' has not the scope "
                f"{needed}. `finetop serve keys add NAME --scope {self.scopes[0]}` makes one that has.",
                code="insufficient_permissions",
            )
        await super().handle(scope, receive, send)
