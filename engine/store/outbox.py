"""What is to be told to others, until it has been: kept, so that a daemon that ends loses none of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.store.serve_database import ServeDatabase


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one receiver."""

    id: str
    """The same however often it is tried, so that a receiver knows it again."""
    channel: str
    """'webhook' or 'mail'."""
    created: float
    subject: str
    body: str
    tries: int = 0


class Outbox(ServeDatabase):
    """Of the daemon."""

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Those that are there already, sent or not, are left as they are."""
        self._do_many(
            "INSERT OR IGNORE INTO deliveries(id, channel, created, subject, body, tries, due, state)"
            " VALUES(?, ?, ?, ?, ?, 0, 0, 'waiting')",
            [(one.id, one.channel, one.created, one.subject, one.body) for one in deliveries],
        )

    def due(self, now: float) -> list[Delivery]:
        """The oldest first."""
        sql = (
            "SELECT id, channel, created, subject, body, tries FROM deliveries WHERE state = 'waiting' AND due <= ?"
            " ORDER BY created"
        )
        return [Delivery(*row) for row in self._all(sql, (now,))]

    def waiting(self) -> int:
        """How many have not been delivered yet."""
        return self._all("SELECT count(*) FROM deliveries WHERE state = 'waiting'")[0][0]

    def undelivered(self) -> list[tuple[str, int, str]]:
        """By channel: how many have failed so far or for good, and why the last did."""
        rows = self._all(
            "SELECT channel, count(*), error, max(created) FROM deliveries WHERE state <> 'sent' AND error <> ''"
            " GROUP BY channel"
        )
        return [(channel, number, error) for channel, number, error, _ in rows]

    def put_off(self, delivery: Delivery, due: float, error: str) -> None:
        """It has failed, and is tried again then."""
        values = (due, error, delivery.id, delivery.channel)
        self._do("UPDATE deliveries SET tries = tries + 1, due = ?, error = ? WHERE id = ? AND channel = ?", values)

    def settle(self, delivery: Delivery, state: str, error: str = "") -> None:
        """'sent' or 'dropped'; what it said is not needed any more."""
        self._do(
            "UPDATE deliveries SET state = ?, error = ?, body = '' WHERE id = ? AND channel = ?",
            (state, error, delivery.id, delivery.channel),
        )

    def forget(self, before: float) -> None:
        """Those that were settled long ago."""
        self._do("DELETE FROM deliveries WHERE state <> 'waiting' AND created < ?", (before,))

    def since(self, channel: str, configured: float | None) -> float:
        """From when on ends are told by that channel: when it was first configured. None: it is not, any more."""
        if configured is None:
            self._do("DELETE FROM delivered_since WHERE channel = ?", (channel,))
            return float("inf")
        self._do("INSERT OR IGNORE INTO delivered_since VALUES(?, ?)", (channel, configured))
        return self._all("SELECT since FROM delivered_since WHERE channel = ?", (channel,))[0][0]
