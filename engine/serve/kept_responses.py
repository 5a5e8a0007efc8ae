"""Responses that may be gone on from or read again, kept in memory only."""

from collections import OrderedDict
from typing import Any

from engine.serve.api_errors import not_found

_MOST_KEPT = 1000


class KeptResponses:
    """The last ones, by id: the response, and the messages that led to it with its answer."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = OrderedDict()

    def keep(self, response: dict[str, Any], messages: list[dict[str, Any]]) -> None:
        self._kept[response["id"]] = (response, messages)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    def find(self, response_id: str, param: str = "response_id") -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Raises ApiError for one that is not kept."""
        if response_id not in self._kept:
            raise not_found("response", response_id, param)
        return self._kept[response_id]

    def forget(self, response_id: str) -> None:
        self.find(response_id)
        del self._kept[response_id]
