"""What the writer does with the backlog: takes a batch, and says whether Redis applied it.

A batch is under way until it is confirmed or put back, and there is never more than one. docs/ordering.md says why a
batch of which nothing is known comes back as Evicts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cache.changes import Kind
from cache.delivery.scripts import FILLED, OVERLAPPED, SCAN, STORED
from cache.merging import evict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.changes import Change
    from cache.counts import Counts
    from cache.delivery.blocks import Blocks, Release
    from cache.delivery.flushes import Flushes
    from cache.delivery.own_writes import OwnWrites
    from cache.delivery.queues import RuleQueue


class Part(NamedTuple):
    """Changes of a batch that stand together: all of one rule, and either all Fills or all writes."""

    queue: RuleQueue
    fills: bool
    changes: list[Change]


@dataclass(slots=True, eq=False)
class Batch:
    """Changes of distinct keys, rules to flush, and blocks to release, that Redis applies in one step."""

    parts: list[Part]
    flushes: list[tuple[RuleQueue, bool]]
    """With whether the write may be committed later."""
    releases: tuple[Release, ...] = ()

    @property
    def has_write(self) -> bool:
        """Whether it sets a fence, and so needs a new counter value."""
        return bool(self.flushes) or not all(part.fills for part in self.parts)

    @property
    def changes(self) -> list[Change]:
        """All changes, in the order of ``parts``."""
        return [change for part in self.parts for change in part.changes]

    @property
    def pending(self) -> int:
        """How many changes and Flushes there are."""
        return sum(len(part.changes) for part in self.parts) + len(self.flushes)


class Batches:
    """Makes batches of what waits in ``queues``, by label, and takes note of what became of them."""

    def __init__(
        self,
        queues: dict[str, RuleQueue],
        flushes: Flushes,
        blocks: Blocks,
        own_writes: OwnWrites,
        counts: Counts,
        fence_life: int,
    ) -> None:
        self.in_flight: Batch | None = None
        """The batch that was taken and neither confirmed nor put back."""
        self._queues = queues
        self._flushes = flushes
        self._blocks = blocks
        self._own_writes = own_writes
        self._counts = counts
        self._max_age_ns = fence_life * 500_000
        """Half a fence's life: what is older may need fences that have ended."""
        self._oldest_ns = 0

    @property
    def pending(self) -> int:
        """Changes and Flushes of the batch that is under way."""
        return self.in_flight.pending if self.in_flight is not None else 0

    def distrust_what_was_sent(self) -> None:
        """Fences may be gone that statements sent before now would need: they count as too old."""
        self._oldest_ns = time.monotonic_ns()

    def take(self, max_keys: int, max_bytes: int) -> Batch | None:
        """The next batch, of at least one key if any waits; None when there is nothing to send.

        It is in flight until ``confirm`` or ``put_back``.
        """
        assert self.in_flight is None, "the last batch is still under way"
        oldest_ns = max(time.monotonic_ns() - self._max_age_ns, self._oldest_ns)
        # In flight from the start: should any of this fail, what was taken so far can be put back.
        batch = self.in_flight = Batch([], self._flushes.take())
        left, room = max_keys, max_bytes
        for queue, waiting, fills in self._in_turn():
            if left <= 0 or room <= 0:
                break
            taken, room = queue.take(waiting, left, room, oldest_ns)
            left -= len(taken)
            if taken:
                batch.parts.append(Part(queue, fills, taken))
        batch.releases = self._blocks.take_releases(max_keys, self._outcome_waits)
        if not (batch.parts or batch.flushes or batch.releases):
            self.in_flight = None
        return self.in_flight

    def _in_turn(self) -> Iterator[tuple[RuleQueue, dict[bytes, Change], bool]]:
        """What waits, and whether it is Fills. Writes go first; the rule that came first comes last the next time."""
        queues = self._queues
        if len(queues) > 1:
            label = next(iter(queues))
            queues[label] = queues.pop(label)
        in_turn = tuple(queues.values())
        for queue in in_turn:
            if queue.writes:
                yield queue, queue.writes, False
        for queue in in_turn:
            if queue.fills:
                yield queue, queue.fills, True

    def _outcome_waits(self, release: Release) -> bool:
        """Whether changes that a block protects are still to be sent. A Flush goes with every batch."""
        queue = self._queues.get(release.label)
        if queue is None:
            return False
        return release.key in queue.writes if release.key else bool(queue.writes)

    def confirm(self, batch: Batch, seq: int, outcomes: bytes, scans: bytes) -> None:
        """Redis applied ``batch`` at counter value ``seq``.

        ``outcomes`` has a letter for each change, ``scans`` one for each Flush (``scripts``).
        """
        assert batch is self.in_flight, "another batch is under way"
        now = time.monotonic_ns()
        self._own_writes.forget_old()
        self._counts.batches += 1
        lag = self._counts.lag
        start = 0
        for queue, fills, changes in batch.parts:
            stop = start + len(changes)
            if fills:
                filled = outcomes.count(FILLED, start, stop)
                queue.counts.fills += filled
                queue.counts.refused += len(changes) - filled
            else:
                stored = outcomes.count(STORED, start, stop)
                queue.counts.stores += stored
                queue.counts.evicts += len(changes) - stored
                self._note_own_writes(queue, changes, outcomes[start:stop], seq)
            lag.add_all([(now - change.settled_ns) / 1e9 for change in changes])
            start = stop
        for (queue, _), scan in zip(batch.flushes, scans, strict=True):
            lag.add((now - queue.flush_since_ns) / 1e9)
            if scan != SCAN:
                queue.counts.flushes += 1
            elif self._queues.get(queue.rule.label) is queue:
                self._flushes.fence_set(queue)
        self._blocks.released()
        # Last: should any of this fail, the batch can still be put back.
        self.in_flight = None

    def _note_own_writes(self, queue: RuleQueue, changes: list[Change], outcomes: bytes, seq: int) -> None:
        """Statements that follow these writes may be dated by their fence, unless another write came between."""
        for change, outcome in zip(changes, outcomes, strict=True):
            if outcome == OVERLAPPED or change.may_commit_later or not change.seq:
                continue
            self._own_writes.note(change, seq)
            waiting = queue.writes.get(change.key) or queue.fills.get(change.key)
            if waiting is not None:
                self._own_writes.redate(waiting)

    def put_back(self, batch: Batch, *, outcome_unknown: bool) -> None:
        """Redis did not apply ``batch``, or may have (``outcome_unknown``): it waits again, beneath what arrived since.

        If the outcome is unknown, writes come back as Evicts, and Fills are dropped.
        """
        assert batch is self.in_flight, "another batch is under way"
        self.in_flight = None
        self._blocks.put_back_releases()
        for change in batch.changes:
            queue = self._queues.get(change.rule.label)
            if queue is None or not queue.means(change.rule):
                continue
            if change.kind is Kind.FILL:
                if outcome_unknown:
                    queue.counts.dropped += 1
                else:
                    queue.put_back_fill(change)
            elif not queue.flush_waits or change.may_commit_later:
                queue.put_back_write(evict(change) if outcome_unknown else change)
        for queue, may_commit_later in batch.flushes:
            if self._queues.get(queue.rule.label) is queue:
                self._flushes.request(queue, may_commit_later=may_commit_later)
