"""Committed changes on their way to Redis: merged per key, bounded, handed to the writer in batches.

Sessions call ``put`` from the event loop's thread; it never waits and never raises. The writer takes batches, one at a
time, and says what became of them. What a key's pending changes become is decided in ``merging``; docs/ordering.md
says why.
"""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import TYPE_CHECKING

from cache.changes import Change, Kind, size
from cache.delivery.blocks import Block, Blocks
from cache.delivery.own_writes import OwnWrites
from cache.delivery.queues import Batch, Lane, Part, definition
from cache.delivery.scripts import FILLED, OVERLAPPED, SCAN, STORED
from cache.merging import evict, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache.counts import Counts
    from cache.delivery.blocks import Asking, Lift
    from cache.rules import TableRule

FENCE_LIFE = 60_000
"""Milliseconds for which Redis remembers, at least, that a key was written. The same for all who share a Redis."""

BLOCK_KEYS = 10_000
"""A block of more keys of one rule than this blocks the rule as a whole."""

_FILL = Kind.FILL
_SCANS = (b"", bytes((SCAN,)))


class Backlog:
    """The changes of one worker that Redis has not confirmed yet. Not thread-safe.

    ``max_backlog`` bounds the keys waiting, ``max_bytes`` their values; ``fence_life`` is in milliseconds.
    """

    def __init__(
        self,
        rules: Iterable[TableRule],
        *,
        max_backlog: int,
        counts: Counts,
        max_bytes: int = 64 << 20,
        fence_life: int = FENCE_LIFE,
    ) -> None:
        self.counts = counts
        self.fence_life = fence_life
        self.seq = 0
        """The last counter value Redis told this worker. 0, before the first, is refused by Redis everywhere."""
        self._max_keys = max(max_backlog, 1)
        self._max_bytes = max_bytes
        self._lanes: dict[str, Lane] = {}
        self._flushing: set[str] = set()
        """Labels of lanes whose Flush waits for its fence."""
        self._fenced: dict[str, Lane] = {}
        """Flushes whose fence is set and whose keys are still to be looked for."""
        self._scanning: dict[str, Lane] = {}
        self._blocked: list[tuple[str, str]] = []
        self.flying: Batch | None = None
        """The batch that was taken and neither confirmed nor put back."""
        self._keys = 0
        self._bytes = 0
        self._oldest = 0
        """Statements that began before this instant are too old for any fence to speak for them."""
        self._held_until = 0
        self._own = OwnWrites()
        self._blocks = Blocks(fence_life)
        self._event = asyncio.Event()
        self._lingering: asyncio.Future[None] | None = None
        self.configure(rules)

    @property
    def rules(self) -> tuple[TableRule, ...]:
        return tuple(lane.rule for lane in self._lanes.values())

    def configure(self, rules: Iterable[TableRule]) -> None:
        """Take another set of rules. The keys of rules that are gone, or mean another now, are removed; rules that mean
        the same keep what waits for them."""
        former = self._lanes
        self._lanes = {}
        for rule in rules:
            lane = former.get(rule.label)
            if lane is not None and lane.definition == definition(rule):
                lane.rule = rule
                del former[rule.label]
            else:
                lane = Lane(rule, definition(rule), self.counts.rule(rule.label))
            self._lanes[rule.label] = lane
        for label, lane in former.items():
            self._keys -= len(lane.writes) + len(lane.fills)
            self._bytes -= sum(size(change) for change in (*lane.writes.values(), *lane.fills.values()))
            self._flushing.discard(label)
            for waiting in (self._fenced, self._scanning):
                if waiting.get(label) is lane:
                    del waiting[label]
            self._fenced[f"{label} {id(lane)}"] = lane
            if label in self._lanes:
                self._flush(self._lanes[label], may_commit_later=True)
        self._event.set()

    # What sessions do.

    def put(self, changes: Sequence[Change]) -> None:
        """Accept the changes of a transaction that is certain now. They belong to the backlog from here on."""
        now = time.monotonic_ns()
        lanes = self._lanes
        for change in changes:
            change.settled_ns = now
            rule = change.rule
            lane = lanes.get(rule.label)
            if lane is None:
                continue
            if lane.rule is not rule and lane.definition != definition(rule):
                self._put_former(lane, change)
            elif change.kind is _FILL:
                self._put_fill(lane, change)
            elif change.kind is Kind.FLUSH:
                self._flush(lane, may_commit_later=change.may_commit_later)
            else:
                self._put_write(lane, change)
        if not self._event.is_set():
            self._event.set()

    @property
    def pending(self) -> int:
        """Keys and Flushes accepted and not yet in Redis: 0 exactly when every change observed so far is there."""
        flying = self.flying
        return (
            self._keys
            + len(self._flushing)
            + len(self._fenced)
            + len(self._scanning)
            + self._blocks.pending
            + (flying.length + len(flying.flushes) if flying else 0)
        )

    @property
    def waiting(self) -> int:
        """Keys, Flushes and blocks that could be sent now."""
        return self._keys + len(self._flushing) + self._blocks.waiting

    def block(self, changes: Iterable[Change]) -> Block:
        """Ask that the keys of ``changes`` be gone from Redis, and stay gone until ``release``.

        For a statement about to be forwarded that may make changes of these keys (EVICT) and rules (FLUSH) true. While
        the block is there no worker's Fill is accepted for them, and any write's Store removes its key. Redis bounds a
        block's life; this worker renews it. The caller must call ``release`` once, whatever happens.
        """
        keys: dict[str, list[bytes]] = {}
        labels: dict[str, None] = {}
        for change in changes:
            lane = self._lanes.get(change.rule.label)
            if lane is None or change.kind is Kind.FILL:
                continue
            if change.kind is Kind.FLUSH or self._is_former(lane, change):
                labels[lane.rule.label] = None
            else:
                keys.setdefault(lane.rule.label, []).append(change.key)
        labels.update((label, None) for label, many in keys.items() if len(many) > BLOCK_KEYS)
        chosen = {key: label for label, many in keys.items() if label not in labels for key in many}
        block = self._blocks.add(chosen, tuple(labels))
        if self._lingering is not None:
            _end(self._lingering)
        self._event.set()
        return block

    def release(self, block: Block) -> None:
        """The outcome is known. What became true must have been ``put`` just before, without an await between."""
        self._blocks.release(block)
        self._event.set()

    def _is_former(self, lane: Lane, change: Change) -> bool:
        return lane.rule is not change.rule and lane.definition != definition(change.rule)

    def _put_former(self, lane: Lane, change: Change) -> None:
        """A session that still goes by the former meaning of a rule: which of today's keys it wrote cannot be told."""
        if change.kind is not Kind.FILL:
            self._flush(lane, may_commit_later=change.may_commit_later)

    def _put_fill(self, lane: Lane, change: Change) -> None:
        key = change.key
        if self._own.noted:
            self._own.redate(change)
        if key in lane.writes:
            self._put_fill_on_write(lane, change)
            return
        if lane.flush:
            # Whenever it began, Redis would refuse it: its date is older than the fence the Flush is about to set.
            lane.counts.refused += 1
            return
        value = change.value
        length = len(value) if type(value) is bytes else size(change)
        waiting = lane.fills.get(key)
        if waiting is not None:
            before = size(waiting)
            merged = merge(waiting, change)
            if merged is change:
                lane.fills[key] = change
                self._bytes += length - before
        elif self._keys >= self._max_keys or self._bytes >= self._max_bytes:
            lane.counts.dropped += 1
        else:
            lane.fills[key] = change
            self._keys += 1
            self._bytes += length

    def _put_fill_on_write(self, lane: Lane, change: Change) -> None:
        waiting = lane.writes[change.key]
        before = size(waiting)
        merged = merge(waiting, change)
        if merged is waiting:
            lane.counts.refused += 1
            return
        self._bytes += size(merged) - before
        lane.writes[change.key] = merged

    def _put_write(self, lane: Lane, change: Change) -> None:
        if lane.flush and not change.may_commit_later:
            return  # The Flush's fence will be newer than this write, and its keys are looked for after that.
        self._own.redate(change)
        self._add_write(lane, change)

    def _add_write(self, lane: Lane, change: Change) -> None:
        key = change.key
        if change.may_commit_later:
            self._held_until = max(self._held_until, time.monotonic_ns() + self.fence_life * 1_000_000)
        waiting = lane.writes.get(key) or lane.fills.pop(key, None)
        if waiting is not None:
            self._bytes -= size(waiting)
            change = merge(waiting, change)
        else:
            if self._keys >= self._max_keys and not self._make_room(lane):
                return
            self._keys += 1
        length = size(change)
        if self._bytes + length > self._max_bytes and change.kind is Kind.STORE:
            change = evict(change)
            length = 0
        self._bytes += length
        lane.writes[key] = change

    def _make_room(self, arriving: Lane) -> bool:
        """Give up the least for one more key. False: the key itself is covered by a Flush now."""
        for lane in self._lanes.values():
            if lane.fills:
                key = next(reversed(lane.fills))
                self._bytes -= size(lane.fills.pop(key))
                self._keys -= 1
                lane.counts.dropped += 1
                return True
        fullest = max(self._lanes.values(), key=lambda lane: len(lane.writes))
        self.counts.collapses += 1
        # A key that refuses Fills for a while makes its whole table do so: it is not worth keeping track of here.
        may_commit_later = any(change.may_commit_later for change in fullest.writes.values())
        self._flush(fullest, may_commit_later=may_commit_later)
        self._drop_writes(fullest, {})
        return fullest is not arriving

    def _flush(self, lane: Lane, *, may_commit_later: bool) -> None:
        if not lane.flush:
            lane.flush_since = time.monotonic_ns()
        lane.flush = True
        if may_commit_later:
            lane.may_commit_later = True
            self._held_until = max(self._held_until, time.monotonic_ns() + self.fence_life * 1_000_000)
        self._flushing.add(lane.rule.label)
        self._keys -= len(lane.fills)
        self._bytes -= sum(map(size, lane.fills.values()))
        lane.counts.refused += len(lane.fills)
        lane.fills = {}
        self._drop_writes(lane, {key: change for key, change in lane.writes.items() if change.may_commit_later})
        self._event.set()

    def _drop_writes(self, lane: Lane, kept: dict[bytes, Change]) -> None:
        self._keys -= len(lane.writes) - len(kept)
        self._bytes -= sum(map(size, lane.writes.values()))  # What is kept are Evicts, which have no value.
        lane.writes = kept

    # What the writer does.

    async def wait(self, seconds: float) -> None:
        """Return when something waits, or after ``seconds``."""
        if self.waiting:
            return
        self._event.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass

    async def linger(self, seconds: float) -> None:
        """Let more come to wait, for ``seconds``, unless somebody waits for a block."""
        if self._blocks.asking:
            return
        loop = asyncio.get_running_loop()
        self._lingering = lingering = loop.create_future()
        timer = loop.call_later(seconds, _end, lingering)
        try:
            await lingering
        finally:
            timer.cancel()
            self._lingering = None

    def wake(self) -> None:
        """Make ``wait`` return early."""
        self._event.set()

    def reachable(self, *, up: bool) -> None:
        """Whether Redis answers: while it does not, nobody waits for a block."""
        self._blocks.reachable(up=up)

    def take_blocks(self, max_keys: int) -> Asking | None:
        """What Redis is to be asked to keep absent, before anything else is sent; until ``confirm_blocks``."""
        return self._blocks.take(max_keys) if self._blocks.asking else None

    def confirm_blocks(self, asking: Asking) -> None:
        """Redis did as it was asked."""
        for label, block in self._blocks.confirm(asking, self._lanes).items():
            lane = self._fenced[label] = self._lanes[label]
            lane.holder = block.holder

    def renew_blocks(self) -> None:
        """Ask again for blocks that Redis would let go of soon; to be called every few seconds."""
        self._blocks.renew()

    def take(self, max_keys: int, max_bytes: int) -> Batch | None:
        """The next batch, of at least one key if any waits; None when there is nothing to send.

        The batch is in flight until ``confirm`` or ``put_back``; there is never more than one.
        """
        assert self.flying is None
        now = time.monotonic_ns()
        too_old = max(now - self.fence_life * 500_000, self._oldest)
        flushes = []
        for label in self._flushing:
            lane = self._lanes[label]
            flushes.append((lane, lane.may_commit_later))
            lane.flush = lane.may_commit_later = False
        self._flushing.clear()
        parts = []
        left, room = max_keys, max_bytes
        for lane, waiting, fills in self._turns():
            if left <= 0 or room <= 0:
                break
            taken, room = self._take_some(lane, waiting, left, room, too_old)
            left -= len(taken)
            if taken:
                parts.append(Part(lane, fills, taken))
        lifts = self._blocks.lift(max_keys, self._outcome_waits)
        if not parts and not flushes and not lifts:
            return None
        self.flying = Batch(parts, flushes, lifts)
        return self.flying

    def _take_some(
        self, lane: Lane, waiting: dict[bytes, Change], left: int, room: int, too_old: int
    ) -> tuple[list[Change], int]:
        """At most ``left`` changes out of ``waiting``, until their ``room`` in bytes is used up; and what is left of
        it."""
        taken: list[Change] = []
        seen = lengths = 0
        for change in islice(waiting.values(), left):
            value = change.value
            length = len(value) if type(value) is bytes else size(change)
            seen += 1
            lengths += length
            room -= len(change.key) + length + 64
            if change.sent_ns < too_old:
                if change.kind is _FILL:
                    lane.counts.refused += 1
                    continue
                # Fences set since it was forwarded may be gone: nobody could tell whether it is the newest.
                change.seq = 0
                evict(change)
            taken.append(change)
            if room <= 0:
                break
        if seen == len(waiting):
            waiting.clear()
        else:
            for key in tuple(islice(waiting, seen)):
                del waiting[key]
        self._keys -= seen
        self._bytes -= lengths
        return taken, room

    def _outcome_waits(self, lift: Lift) -> bool:
        """Whether changes that a block protects are still to be sent. A Flush goes with every batch."""
        lane = self._lanes.get(lift.label)
        if lane is None:
            return False
        return lift.key in lane.writes if lift.key else bool(lane.writes)

    def _turns(self) -> Iterator[tuple[Lane, dict[bytes, Change], bool]]:
        """What waits, and whether it is Fills. Writes go first; the rule that was served first is served last the next
        time."""
        if len(self._lanes) > 1:
            label = next(iter(self._lanes))
            self._lanes[label] = self._lanes.pop(label)
        lanes = tuple(self._lanes.values())
        for lane in lanes:
            if lane.writes:
                yield lane, lane.writes, False
        for lane in lanes:
            if lane.fills:
                yield lane, lane.fills, True

    def confirm(self, batch: Batch, seq: int, outcomes: bytes, scans: bytes = b"") -> None:
        """Redis applied ``batch`` at counter value ``seq``.

        ``outcomes`` has a letter for each change, ``scans`` for each Flush (fences); none means SCAN.
        """
        assert batch is self.flying
        self.flying = None
        now = time.monotonic_ns()
        self._own.age()
        self._blocks.lifted()
        self.counts.batches += 1
        lag = self.counts.lag
        start = 0
        for lane, fills, changes in batch.parts:
            stop = start + len(changes)
            if fills:
                filled = outcomes.count(FILLED, start, stop)
                lane.counts.fills += filled
                lane.counts.refused += len(changes) - filled
            else:
                stored = outcomes.count(STORED, start, stop)
                lane.counts.stores += stored
                lane.counts.evicts += len(changes) - stored
                self._note(lane, changes, outcomes[start:stop], seq)
            lag.add_all([(now - change.settled_ns) / 1e9 for change in changes])
            start = stop
        for number, (lane, _) in enumerate(batch.flushes):
            lag.add((now - lane.flush_since) / 1e9)
            if scans[number : number + 1] not in _SCANS:
                lane.counts.flushes += 1
            elif self._lanes.get(lane.rule.label) is lane:
                self._fenced[lane.rule.label] = lane
        self.seq = max(self.seq, seq)

    def _note(self, lane: Lane, changes: list[Change], outcomes: bytes, seq: int) -> None:
        """What follows these writes may be dated by them, where nobody else's came between."""
        for change, outcome in zip(changes, outcomes, strict=True):
            if outcome == OVERLAPPED or change.may_commit_later or not change.seq:
                continue
            self._own.note(change, seq)
            waiting = lane.writes.get(change.key) or lane.fills.get(change.key)
            if waiting is not None:
                self._own.redate(waiting)

    def put_back(self, batch: Batch, *, unknown: bool) -> None:
        """Redis did not apply ``batch``, or (``unknown``) may have: it waits again, beneath what arrived since.

        With an unknown outcome, writes become Evicts and Fills are dropped.
        """
        assert batch is self.flying
        self.flying = None
        self._blocks.put_back()
        for change in batch.changes:
            lane = self._lanes.get(change.rule.label)
            if lane is None or lane.definition != definition(change.rule):
                continue
            if change.kind is Kind.FILL:
                if unknown:
                    lane.counts.dropped += 1
                    continue
                self._put_fill_back(lane, change)
            elif not lane.flush or change.may_commit_later:
                self._put_write_back(lane, evict(change) if unknown else change)
        for lane, may_commit_later in batch.flushes:
            if self._lanes.get(lane.rule.label) is lane:
                self._flush(lane, may_commit_later=may_commit_later)
        self._event.set()

    def _put_fill_back(self, lane: Lane, change: Change) -> None:
        newer = lane.writes.pop(change.key, None) or lane.fills.pop(change.key, None)
        if newer is not None:
            self._bytes -= size(newer)
            change = merge(change, newer)
        elif lane.flush:
            lane.counts.refused += 1
            return
        else:
            self._keys += 1
        self._bytes += size(change)
        (lane.fills if change.kind is Kind.FILL else lane.writes)[change.key] = change

    def _put_write_back(self, lane: Lane, change: Change) -> None:
        newer = lane.writes.pop(change.key, None) or lane.fills.pop(change.key, None)
        if newer is not None:
            self._bytes -= size(newer)
            self._keys -= 1
            change = merge(change, newer)
        self._keys += 1
        self._bytes += size(change)
        lane.writes[change.key] = change

    # Flushes whose fence is set.

    def start_scan(self) -> tuple[TableRule, ...]:
        """The rules to look for the keys of, in one pass; call ``end_scan`` when all are gone."""
        assert not self._scanning
        self._scanning, self._fenced = self._fenced, {}
        self._blocked = [(lane.rule.label, lane.holder) for lane in self._scanning.values() if lane.holder]
        self._blocks.start_scan()
        return tuple(lane.rule for lane in self._scanning.values())

    @property
    def blocked(self) -> list[tuple[str, str]]:
        """Rules being looked for, and the blocks that asked for it: what Redis is to be told when that is done."""
        return self._blocked

    @property
    def scan_waits(self) -> bool:
        return bool(self._fenced)

    def end_scan(self, *, complete: bool) -> None:
        """``complete``: the keys are gone. Otherwise the pass starts again, with those that came to wait since."""
        if complete:
            for lane in self._scanning.values():
                lane.counts.flushes += 1
                if (lane.rule.label, lane.holder) in self._blocked:
                    lane.holder = ""
        else:
            self._fenced = {**self._scanning, **self._fenced}
        self._scanning = {}
        self._blocks.end_scan(complete=complete)

    def flush(self, labels: Iterable[str], *, may_commit_later: bool = False) -> None:
        """Flush rules for a reason that no statement gave."""
        for label in labels:
            lane = self._lanes.get(label)
            if lane is not None:
                self._flush(lane, may_commit_later=may_commit_later)

    def renew(self) -> None:
        """A new epoch has begun: what Redis holds, and what it remembers of writes, is not what it was."""
        may_commit_later = time.monotonic_ns() < self._held_until
        self._own.forget()
        self.flush(self._lanes, may_commit_later=may_commit_later)
        self._blocks.ask_again()

    def forget(self) -> None:
        """This process or Redis's clock stood still or jumped: fences may be gone that statements begun before now
        would need."""
        self._oldest = time.monotonic_ns()
        self._own.forget()


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
