"""Committed changes on their way to Redis: what sessions put here, merged by key and bounded, for the writer to take.

Sessions call ``put``, ``block`` and ``release`` from the event loop's thread; none of them waits or raises. What the
changes of a key become while they wait is decided in ``merging``; docs/ordering.md says why.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cache.changes import Change, Kind
from cache.delivery.batches import Batches
from cache.delivery.blocks import Block, BlockRequest, Blocks
from cache.delivery.flushes import Flushes
from cache.delivery.own_writes import OwnWrites
from cache.delivery.queues import Budget, RuleQueue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cache.counts import Counts
    from cache.rules import TableRule

FENCE_LIFE = 60_000
"""Milliseconds for which Redis remembers, at least, that a key was written. The same for all who share a Redis."""

BLOCK_KEYS = 10_000
"""A block of more keys of one rule than this blocks the rule as a whole."""

_FILL = Kind.FILL


class Backlog:
    """The changes of one worker that Redis has not confirmed yet. Not thread-safe.

    ``max_backlog`` bounds the keys waiting, ``max_bytes`` their values; ``fence_life`` is in milliseconds. The writer
    takes what waits by way of ``batches``, ``flushes`` and ``blocks``.
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
        self._budget = Budget(max(max_backlog, 1), max_bytes)
        self._queues: dict[str, RuleQueue] = {}
        """By label. Shared with ``batches``, which changes their order."""
        self._own_writes = OwnWrites()
        self.blocks = Blocks(fence_life)
        self.flushes = Flushes(self.blocks, fence_life)
        self.batches = Batches(self._queues, self.flushes, self.blocks, self._own_writes, counts, fence_life)
        self._event = asyncio.Event()
        self._lingering: asyncio.Future[None] | None = None
        self.configure(rules)

    @property
    def rules(self) -> tuple[TableRule, ...]:
        """The rules whose changes are taken."""
        return tuple(queue.rule for queue in self._queues.values())

    @property
    def pending(self) -> int:
        """Keys and Flushes accepted and not yet in Redis: 0 exactly when every change observed so far is there."""
        return self._budget.keys + self.flushes.pending + self.blocks.pending + self.batches.pending

    @property
    def waiting(self) -> int:
        """Keys, Flushes and blocks that could be sent now."""
        return self._budget.keys + self.flushes.waiting + self.blocks.waiting

    def configure(self, rules: Iterable[TableRule]) -> None:
        """Take another set of rules. The keys of rules that are gone, or mean others now, are removed; rules that mean
        the same keys keep what waits for them."""
        gone = dict(self._queues)
        self._queues.clear()
        for rule in rules:
            queue = gone.get(rule.label)
            if queue is not None and queue.means(rule):
                queue.rule = rule
                del gone[rule.label]
            else:
                queue = RuleQueue(rule, self._budget, self.counts.rule(rule.label))
            self._queues[rule.label] = queue
        for label, queue in gone.items():
            queue.clear()
            self.flushes.rule_gone(queue)
            if label in self._queues:
                self.flushes.request(self._queues[label], may_commit_later=True)
        self._event.set()

    # What sessions do.

    def put(self, changes: Sequence[Change]) -> None:
        """Accept the changes of a transaction that is certain now. They belong to the backlog from here on."""
        now = time.monotonic_ns()
        queues = self._queues
        for change in changes:
            change.settled_ns = now
            rule = change.rule
            queue = queues.get(rule.label)
            if queue is None:
                continue
            if queue.rule is not rule and not queue.means(rule):
                # The session goes by what the rule meant before: which of today's keys it wrote cannot be told.
                if change.kind is not _FILL:
                    self.flushes.request(queue, may_commit_later=change.may_commit_later)
            elif change.kind is _FILL:
                if self._own_writes.any_known:
                    self._own_writes.redate(change)
                queue.add_fill(change)
            elif change.kind is Kind.FLUSH:
                self.flushes.request(queue, may_commit_later=change.may_commit_later)
            else:
                self._put_write(queue, change)
        if not self._event.is_set():
            self._event.set()

    def _put_write(self, queue: RuleQueue, write: Change) -> None:
        if queue.flush_waits and not write.may_commit_later:
            return  # The Flush's fence will be newer than this write, and its keys are looked for after that.
        self._own_writes.redate(write)
        if write.may_commit_later:
            self.flushes.note_late_commit()
        if self._budget.keys_left > 0 or queue.waits(write.key) or self._make_room(queue, write):
            queue.add_write(write)

    def _make_room(self, arriving: RuleQueue, write: Change) -> bool:
        """Give up the least for the key of ``write``. False: the key itself is covered by a Flush now."""
        for queue in self._queues.values():
            if queue.fills:
                queue.drop_newest_fill()
                return True
        fullest = max(self._queues.values(), key=lambda queue: len(queue.writes))
        self.counts.collapses += 1
        # One write that may be committed later makes Redis refuse values of the whole rule for a while: it is not worth
        # keeping track of such keys here.
        covered = [*fullest.writes.values(), write] if fullest is arriving else fullest.writes.values()
        self.flushes.request(fullest, may_commit_later=any(each.may_commit_later for each in covered))
        fullest.drop_writes()
        return fullest is not arriving

    def flush(self, labels: Iterable[str], *, may_commit_later: bool = False) -> None:
        """Flush rules for a reason that no statement gave."""
        for label in labels:
            queue = self._queues.get(label)
            if queue is not None:
                self.flushes.request(queue, may_commit_later=may_commit_later)
        self._event.set()

    def block(self, changes: Iterable[Change]) -> Block:
        """Ask that the keys of ``changes`` be gone from Redis, and stay gone until ``release``.

        For a statement about to be forwarded that may make changes of these keys (EVICT) and rules (FLUSH) true. While
        the block is there no worker's Fill is accepted for them, and any write's Store removes its key. Redis bounds a
        block's life; this worker renews it. The caller must call ``release`` once, whatever happens.
        """
        keys: dict[str, list[bytes]] = {}
        labels: dict[str, None] = {}
        for change in changes:
            queue = self._queues.get(change.rule.label)
            if queue is None or change.kind is Kind.FILL:
                continue
            if change.kind is Kind.FLUSH or not queue.means(change.rule):
                labels[change.rule.label] = None
            else:
                keys.setdefault(change.rule.label, []).append(change.key)
        labels.update((label, None) for label, many in keys.items() if len(many) > BLOCK_KEYS)
        chosen = {key: label for label, many in keys.items() if label not in labels for key in many}
        block = self.blocks.add(chosen, tuple(labels))
        if self._lingering is not None:
            _end(self._lingering)
        self._event.set()
        return block

    def release(self, block: Block) -> None:
        """The outcome is known. What became true must have been ``put`` just before, without an await between."""
        self.blocks.release(block)
        self._event.set()

    # What the writer does, apart from taking what waits.

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
        """Let more changes come to wait, for ``seconds``, or until a session asks for a block."""
        if self.blocks.requested:
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

    def note_seq(self, seq: int) -> None:
        """Redis's counter had the value ``seq``: what is sent to PostgreSQL from now on has that date."""
        self.seq = max(self.seq, seq)

    def confirm_blocks(self, request: BlockRequest) -> None:
        """Redis did as it was asked."""
        for label, block in self.blocks.confirm(request, self._queues).items():
            self.flushes.blocked(self._queues[label], block)

    def begin_epoch(self) -> None:
        """A new epoch has begun: what Redis holds, and what it remembers of writes, is not what it was."""
        self._own_writes.forget()
        self.flush(self._queues, may_commit_later=self.flushes.late_commit_possible)
        self.blocks.request_all_again()

    def distrust_fences(self) -> None:
        """This process or Redis's clock stood still or jumped: fences may be gone that statements sent before now would
        need."""
        self.batches.distrust_what_was_sent()
        self._own_writes.forget()


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
