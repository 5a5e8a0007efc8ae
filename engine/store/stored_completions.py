"""Chat completions that are kept, with what was asked."""

import json
import time
from collections.abc import Mapping
from typing import Any

from engine.store.serve_database import ServeDatabase


class StoredCompletions(ServeDatabase):
    """Of the server."""

    def keep(self, completion: dict[str, Any], messages: list[dict[str, Any]]) -> None:
        """`messages`: what was asked."""
        self._do(
            "INSERT INTO completions VALUES(?, ?, ?, ?, ?, ?)",
            (
                completion["id"],
                completion["created"],
                completion["model"],
                json.dumps(completion.get("metadata") or {}),
                json.dumps(completion),
                json.dumps(messages),
            ),
        )

    def find(self, completion_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """The completion, with its metadata as it is now, and what was asked."""
        rows = self._all("SELECT completion, metadata, messages FROM completions WHERE id = ?", (completion_id,))
        return (json.loads(rows[0][0]) | {"metadata": json.loads(rows[0][1])}, json.loads(rows[0][2])) if rows else None

    def page(
        self,
        limit: int,
        after: str | None = None,
        newest_first: bool = False,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """The next ones by time after that id; none after one that is not there."""
        conditions, values = ["TRUE"], []
        if after is not None:
            cursor = "(SELECT created, rowid FROM completions WHERE id = ?)"
            conditions.append(f"(created, rowid) {'<' if newest_first else '>'} {cursor}")
            values.append(after)
        if model is not None:
            conditions.append("model = ?")
            values.append(model)
        for key, value in (metadata or {}).items():
            conditions.append("EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND value = ?)")
            values += [key, value]
        direction = "DESC" if newest_first else "ASC"
        rows = self._all(
            f"SELECT completion, metadata FROM completions WHERE {' AND '.join(conditions)}"
            f" ORDER BY created {direction}, rowid {direction} LIMIT ?",
            (*values, limit),
        )
        return [json.loads(completion) | {"metadata": json.loads(metadata)} for completion, metadata in rows]

    def set_metadata(self, completion_id: str, metadata: dict[str, str]) -> bool:
        values = (json.dumps(metadata), completion_id)
        return self._do("UPDATE completions SET metadata = ? WHERE id = ?", values) > 0

    def remove(self, completion_id: str) -> bool:
        return self._do("DELETE FROM completions WHERE id = ?", (completion_id,)) > 0

    def remove_older(self, seconds: float) -> int:
        """How many were removed."""
        return self._do("DELETE FROM completions WHERE created < ?", (time.time() - seconds,))
