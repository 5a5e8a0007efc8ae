"""What each key uses, counted in memory and written down every two seconds: that much is lost where the server is
killed.
"""

import threading
import time
from collections import Counter

from engine.plan.api_cost import priced_as
from engine.plan.cost import Prices
from engine.runs.model_refs import ModelRef
from engine.store.serve_keys import UsageStore, Used
from engine.store.serve_store import ServeStore

WRITE_SECONDS = 2.0
_Bucket = tuple[str, str, str, int | None]
"""Key, day, the model as the client named it, the run whose weights answered; None: a base did."""


class Usage:
    """Of one server. Counted by the event loop, written by another thread."""

    def __init__(self, usage_store: UsageStore, jobs: ServeStore, prices: Prices) -> None:
        self._store, self._jobs, self._prices = usage_store, jobs, prices
        self._counted: dict[_Bucket, Counter[str]] = {}
        self._lock = threading.Lock()

    def count(self, key: str, name: str, ref: ModelRef, input_tokens: int, output_tokens: int) -> None:
        """A request that was answered, or as far as it was."""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        bucket = (key, day, name, ref.run if ref.step is not None else None)
        counts = Counter(requests=1, input=input_tokens, output=output_tokens)
        with self._lock:
            self._counted.setdefault(bucket, Counter()).update(counts)

    def write(self) -> None:
        """Raises what the database raises; then it is counted still."""
        with self._lock:
            counted, self._counted = self._counted, {}
        try:
            self._store.add(
                Used(key, day, self._priced_as(name, run), counts["requests"], counts["input"], counts["output"])
                for (key, day, name, run), counts in counted.items()
            )
        except BaseException:
            with self._lock:
                for bucket, counts in counted.items():
                    self._counted.setdefault(bucket, Counter()).update(counts)
            raise

    def close(self) -> None:
        self._store.close()

    def _priced_as(self, name: str, run: int | None) -> str:
        """As what OpenAI would bill it."""
        job = self._jobs.job(run) if run is not None else None
        return priced_as(self._prices, name, job.record["asked"] if job else "", is_tuned=run is not None)
