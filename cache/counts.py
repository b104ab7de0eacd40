"""What one worker counted: plain integers that the hot path adds to, for an exporter to read.

Nothing here knows of a metrics library. All numbers only grow, except where a name says otherwise.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    ErrorReport = Callable[[str, BaseException], None]
    """Called with the part that caught an exception which no rule expects ("session", "sql", "writer", "relay",
    "server", "event_loop") and the exception. The worker's counts it and logs its traceback; the part then goes on as
    safely as it can."""

LAG_BOUNDS: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
"""Upper bounds in seconds, inclusive, of the lag histogram's buckets; one more bucket takes what is longer."""


@dataclass(slots=True)
class RuleCounts:
    """What became of one rule's changes. The first four count what Redis acknowledged."""

    fills: int = 0
    """Values read that were written to Redis."""
    stores: int = 0
    """Values of committed writes that were written to Redis."""
    evicts: int = 0
    """Single keys removed: by Evicts, and by Stores that overlapped another write."""
    flushes: int = 0
    """Completed removals of all keys of the rule."""
    refused: int = 0
    """Fills that a fence or their age forbade."""
    dropped: int = 0
    """Fills given up because too much was waiting for Redis, or because a batch's outcome was unknown."""


@dataclass(slots=True)
class Histogram:
    """How many values fell into each bucket of ``bounds`` (upper bounds, inclusive; not cumulative)."""

    bounds: tuple[float, ...] = LAG_BOUNDS
    buckets: list[int] = field(init=False)
    """One more than ``bounds``: the last takes everything above."""
    total: float = 0.0

    def __post_init__(self) -> None:
        self.buckets = [0] * (len(self.bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        self.buckets[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def add_all(self, values: list[float]) -> None:
        """Add each of ``values``, which is sorted by this."""
        values.sort()
        self.total += sum(values)
        at, buckets = 0, self.buckets
        while at < len(values):
            bucket = bisect_left(self.bounds, values[at])
            end = bisect_right(values, self.bounds[bucket], at) if bucket < len(self.bounds) else len(values)
            buckets[bucket] += end - at
            at = end

    @property
    def count(self) -> int:
        return sum(self.buckets)


@dataclass(slots=True)
class Counts:
    """Everything one worker counts, apart from what sockets carry."""

    rules: dict[str, RuleCounts] = field(default_factory=dict)
    """By rule label."""
    statements: dict[tuple[str, str], int] = field(default_factory=dict)
    """Statements on a configured table, by (rule label, reason code)."""
    unfilled: dict[tuple[str, str], int] = field(default_factory=dict)
    """Rows read that could not fill, by (rule label, reason)."""
    internal_errors: dict[str, int] = field(default_factory=dict)
    """Exceptions that no rule expects, so faults of Rowtap's own, by the part that caught them: see ``ErrorReport``."""
    sessions_blinded: int = 0
    unconfirmed: int = 0
    """Times a write was forwarded though Redis had not confirmed in time that its keys were gone (before_commit)."""
    redis_errors: int = 0
    """Failed exchanges with Redis: lost connections, timeouts and error replies."""
    redis_reconnects: int = 0
    """Connections made to Redis, without the first."""
    epochs: int = 0
    """Epochs begun because Redis was found to be another, or its counter to have gone back."""
    collapses: int = 0
    """Times that pending writes of a rule were given up for a Flush because too many keys were waiting."""
    batches: int = 0
    """Batches that Redis acknowledged."""
    lag: Histogram = field(default_factory=Histogram)
    """Seconds from a change's arrival in the backlog to Redis's acknowledgement, one value for each key or Flush."""

    @classmethod
    def of(cls, labels: Iterable[str]) -> Counts:
        """Counts in which every configured rule shows up from the start, at zero."""
        return cls(rules={label: RuleCounts() for label in labels})

    def rule(self, label: str) -> RuleCounts:
        counts = self.rules.get(label)
        if counts is None:
            counts = self.rules[label] = RuleCounts()
        return counts

    def internal_error(self, where: str) -> None:
        """Count one exception that no rule expects, caught by the part ``where``."""
        self.internal_errors[where] = self.internal_errors.get(where, 0) + 1

    def row_unfilled(self, label: str, reason: str, rows: int = 1) -> None:
        """Count rows that were read but could not fill ``label``'s keys."""
        key = (label, reason)
        self.unfilled[key] = self.unfilled.get(key, 0) + rows
