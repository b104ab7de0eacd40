"""What this worker itself wrote of late: a statement that follows such a write may be dated by the write's fence.

Without this, each statement sent between a write of the same key and Redis's answer to it would be refused because of
that write's fence, though it is known to be newer. docs/ordering.md, "Dates and fences".
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.changes import Change

MAX_KEYS = 20_000
LIFE_NS = 250_000_000
"""Nanoseconds for which a write is remembered at least, and twice as long at most. To forget costs a Fill, no more."""


_Write = tuple[int, int, int]
"""When a write settled (``time.monotonic_ns()``), its date, and its fence. From its date until its fence no other write
of the key was applied."""


class OwnWrites:
    """The last write of each key that this worker sent, with its fence."""

    __slots__ = ("_earlier", "_recent", "_recent_since_ns", "any_known")

    def __init__(self) -> None:
        self.any_known = False
        """False: ``redate`` would do nothing."""
        self._recent: dict[bytes, _Write] = {}
        self._earlier: dict[bytes, _Write] = {}
        self._recent_since_ns = 0

    def note(self, write: Change, fence: int) -> None:
        """``write`` has the fence ``fence`` now, and no other write of its key came between its date and that."""
        self._recent[write.key] = (write.settled_ns, write.seq, fence)
        self.any_known = True

    def redate(self, change: Change) -> None:
        """Date ``change`` by the fence of this worker's write of its key, if it was sent after that write settled."""
        own = self._recent.get(change.key) or self._earlier.get(change.key)
        if own is not None:
            settled_ns, seq, fence = own
            if change.sent_ns > settled_ns and seq <= change.seq < fence:
                change.seq = fence

    def forget_old(self) -> None:
        """Forget writes of long ago, or the older half of too many. To be called with every batch."""
        now = monotonic_ns()
        if now - self._recent_since_ns > LIFE_NS or len(self._recent) > MAX_KEYS:
            self._earlier, self._recent, self._recent_since_ns = self._recent, {}, now
            self.any_known = bool(self._earlier)

    def forget(self) -> None:
        """Forget all: fences may be gone."""
        self.any_known = False
        self._recent = {}
        self._earlier = {}
