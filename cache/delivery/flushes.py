"""Flushes on their way: a rule's Flush waits, then its fence is set in Redis, then the rule's keys are looked for.

The fence goes with a batch. Looking for the keys is a scan of all keys of the Redis, for all rules whose turn it is;
until it is over the Flush is pending. What the scan removes is only absent: a value that came after the fence was set
is either newer, and comes back with the next read, or was refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.delivery.blocks import Block, Blocks
    from cache.delivery.queues import RuleQueue
    from cache.rules import TableRule


class Flushes:
    """The Flushes of one worker, by what is to happen with them next. ``fence_life`` is in milliseconds."""

    def __init__(self, blocks: Blocks, fence_life: int) -> None:
        self._blocks = blocks
        self._fence_life = fence_life
        self._waiting: dict[RuleQueue, None] = {}
        """Their fences go with the next batch."""
        self._to_scan: dict[RuleQueue, None] = {}
        """Their fences are set, or a block of the whole rule is: the next scan looks for their keys."""
        self._scanning: dict[RuleQueue, None] = {}
        """The scan that is under way looks for their keys."""
        self._scanned_blocks: list[tuple[str, str]] = []
        self._late_commit_until_ns = 0

    @property
    def pending(self) -> int:
        """Flushes asked for whose keys are not all gone yet; of those in a batch that is under way, none."""
        return len(self._waiting) + len(self._to_scan) + len(self._scanning)

    @property
    def waiting(self) -> int:
        """Flushes whose fences go with the next batch."""
        return len(self._waiting)

    # Asked for, and in a batch.

    def request(self, queue: RuleQueue, *, may_commit_later: bool) -> None:
        """Let a Flush of the queue's rule wait."""
        queue.flush(may_commit_later=may_commit_later)
        if may_commit_later:
            self.note_late_commit()
        self._waiting[queue] = None

    def take(self) -> list[tuple[RuleQueue, bool]]:
        """All that wait, for a batch; with each, whether its write may be committed later."""
        taken = [(queue, queue.take_flush()) for queue in self._waiting]
        self._waiting.clear()
        return taken

    def fence_set(self, queue: RuleQueue) -> None:
        """Redis has the fence of the queue's rule: look for the keys."""
        self._to_scan[queue] = None

    def blocked(self, queue: RuleQueue, block: Block) -> None:
        """Redis has ``block`` for the queue's rule: look for the keys."""
        self._to_scan[queue] = None
        queue.block_to_scan = block.name

    def rule_gone(self, queue: RuleQueue) -> None:
        """The rule was removed, or means other keys now: look for the keys it had. No fence is needed for them."""
        self._waiting.pop(queue, None)
        self._scanning.pop(queue, None)
        self._to_scan[queue] = None

    def note_late_commit(self) -> None:
        """A change goes to Redis whose write may be committed within a fence's life."""
        self._late_commit_until_ns = time.monotonic_ns() + self._fence_life * 1_000_000

    @property
    def late_commit_possible(self) -> bool:
        """Whether such a write may still be committed."""
        return time.monotonic_ns() < self._late_commit_until_ns

    # The scan for keys.

    @property
    def scan_waits(self) -> bool:
        """Whether there are keys to look for beside those of the scan that is under way."""
        return bool(self._to_scan)

    @property
    def scanned_blocks(self) -> list[tuple[str, str]]:
        """Labels of the rules being looked for that are blocked, with their blocks' names: Redis is told of them when
        the scan is complete, before ``end_scan``."""
        return self._scanned_blocks

    def start_scan(self) -> tuple[TableRule, ...]:
        """The rules to look for the keys of, in one scan; call ``end_scan`` when all are gone."""
        assert not self._scanning, "the last scan has not ended"
        self._scanning, self._to_scan = self._to_scan, {}
        self._scanned_blocks = [
            (queue.rule.label, queue.block_to_scan) for queue in self._scanning if queue.block_to_scan
        ]
        self._blocks.start_scan()
        return tuple(queue.rule for queue in self._scanning)

    def end_scan(self, *, complete: bool) -> None:
        """``complete``: the keys are gone. Otherwise the next scan looks for them again. Harmless if there is none."""
        if complete:
            for queue in self._scanning:
                queue.counts.flushes += 1
                if (queue.rule.label, queue.block_to_scan) in self._scanned_blocks:
                    queue.block_to_scan = ""
        else:
            self._to_scan = {**self._scanning, **self._to_scan}
        self._scanning = {}
        self._blocks.end_scan(complete=complete)
