"""What this worker itself wrote of late: a statement ordered after such a write may be dated by it.

Without this, each statement forwarded between a write of the same key and Redis's answer to it would be refused for
that write's fence, though it is known to be newer. docs/ordering.md, "Dates and fences".
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.changes import Change

MOST_KEYS = 20_000
LIFE = 250_000_000
"""Nanoseconds; what is forgotten at once, or up to twice as late, costs no more than a Fill."""


class OwnWrites:
    """For each key: when its write was answered, from which date on nobody else had written it, and its fence."""

    __slots__ = ("_earlier", "_recent", "_since", "noted")

    def __init__(self) -> None:
        self.noted = False
        """There may be something to date a statement by."""
        self._recent: dict[bytes, tuple[int, int, int]] = {}
        self._earlier: dict[bytes, tuple[int, int, int]] = {}
        self._since = 0

    def note(self, change: Change, seq: int) -> None:
        """``change`` has the fence ``seq`` now, and between its date and ``seq`` nobody else wrote its key."""
        self._recent[change.key] = (change.settled_ns, change.seq, seq)
        self.noted = True

    def redate(self, change: Change) -> None:
        """Date a statement from the fence that this worker set, if it is ordered after the write that set it."""
        own = self._recent.get(change.key) or self._earlier.get(change.key)
        if own is not None and change.sent_ns > own[0] and own[1] <= change.seq < own[2]:
            change.seq = own[2]

    def age(self) -> None:
        """To be called every now and then: forgets what is old."""
        now = monotonic_ns()
        if now - self._since > LIFE or len(self._recent) > MOST_KEYS:
            self._earlier, self._recent, self._since = self._recent, {}, now
            self.noted = bool(self._earlier)

    def forget(self) -> None:
        """Fences may be gone."""
        self.noted = False
        self._recent = {}
        self._earlier = {}
