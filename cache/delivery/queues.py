"""What waits for one rule, and how much waits for all of them together.

Every change that comes to wait or goes passes through a ``RuleQueue``, which keeps the worker's ``Budget``; what is
too much for it is for the backlog to decide.
"""

from __future__ import annotations

import time
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING

from cache.changes import Kind, size
from cache.merging import evict, merge

if TYPE_CHECKING:
    from cache.changes import Change
    from cache.counts import RuleCounts
    from cache.rules import TableRule

OVERHEAD = 64
"""Bytes of a batch that a change takes beside its key and value, about."""


class Budget:
    """How many keys may still come to wait in the queues of a worker, and how many bytes of values with them.

    Both can fall below 0: what cannot be given up waits, though there is no room for it.
    """

    __slots__ = ("_max_keys", "bytes_left", "keys_left")

    def __init__(self, max_keys: int, max_bytes: int) -> None:
        self._max_keys = max_keys
        self.keys_left = max_keys
        self.bytes_left = max_bytes

    @property
    def keys(self) -> int:
        """How many keys wait."""
        return self._max_keys - self.keys_left

    def spend(self, change: Change) -> None:
        """A change comes to wait."""
        self.keys_left -= 1
        self.bytes_left -= size(change)

    def give_back(self, change: Change) -> None:
        """A change does not wait any more. To be called before it is altered: its value is measured again."""
        self.keys_left += 1
        self.bytes_left += size(change)


class RuleQueue:
    """The changes that wait for one rule, one for each key, and whether a Flush of the rule does.

    A key is in ``writes`` or in ``fills``, never in both. Both are read by others, and changed here alone.
    """

    __slots__ = (
        "_budget",
        "block_to_scan",
        "counts",
        "definition",
        "fills",
        "flush_may_commit_later",
        "flush_since_ns",
        "flush_waits",
        "rule",
        "writes",
    )

    def __init__(self, rule: TableRule, budget: Budget, counts: RuleCounts) -> None:
        self.rule = rule
        self.definition = definition(rule)
        self.counts = counts
        self.writes: dict[bytes, Change] = {}
        self.fills: dict[bytes, Change] = {}
        self.flush_waits = False
        """A Flush goes with the next batch. It stands for all writes of the rule that came before."""
        self.flush_may_commit_later = False
        """Of the Flush that waits: Redis is to refuse values for a fence's life."""
        self.flush_since_ns = 0
        """When that Flush, or the last one, was first asked for; ``time.monotonic_ns()``."""
        self.block_to_scan = ""
        """Name of the last block of the whole rule: Redis is told when its keys have been looked for."""
        self._budget = budget

    def means(self, rule: TableRule) -> bool:
        """Whether the keys and values of ``rule`` are this queue's: they need not be one object after a reload."""
        return self.rule is rule or self.definition == definition(rule)

    def waits(self, key: bytes) -> bool:
        """Whether a change of ``key`` waits."""
        return key in self.writes or key in self.fills

    # Changes that arrive.

    def add_fill(self, fill: Change) -> None:
        """Let a Fill wait, unless a write or a Flush says better, or too much waits already."""
        key = fill.key
        if key in self.writes:
            self._merge_fill_into_write(fill)
            return
        if self.flush_waits:
            # Redis would refuse it whenever it was sent: its date is older than the fence that the Flush will set.
            self.counts.refused += 1
            return
        budget = self._budget
        value = fill.value
        length = len(value) if type(value) is bytes else size(fill)
        waiting = self.fills.get(key)
        if waiting is not None:
            before = size(waiting)
            if merge(waiting, fill) is fill:
                self.fills[key] = fill
                budget.bytes_left += before - length
        elif budget.keys_left <= 0 or budget.bytes_left <= 0:
            self.counts.dropped += 1
        else:
            self.fills[key] = fill
            budget.keys_left -= 1
            budget.bytes_left -= length

    def _merge_fill_into_write(self, fill: Change) -> None:
        waiting = self.writes[fill.key]
        before = size(waiting)
        merged = merge(waiting, fill)
        if merged is waiting:
            self.counts.refused += 1
            return
        self._budget.bytes_left += before - size(merged)
        self.writes[fill.key] = merged

    def add_write(self, write: Change) -> None:
        """Let a Store or an Evict wait, merged with what waits for its key. A Store for whose value there is no room
        becomes an Evict."""
        budget = self._budget
        key = write.key
        waiting = self.writes.get(key) or self.fills.pop(key, None)
        if waiting is not None:
            budget.give_back(waiting)
            write = merge(waiting, write)
        value = write.value
        length = len(value) if type(value) is bytes else size(write)
        if length > budget.bytes_left and write.kind is Kind.STORE:
            evict(write)
            length = 0
        self.writes[key] = write
        budget.keys_left -= 1
        budget.bytes_left -= length

    # Changes of a batch that was not applied: they go beneath what arrived since, and are never too many.

    def put_back_fill(self, fill: Change) -> None:
        """Let a Fill wait again."""
        newer = self._pop(fill.key)
        if newer is not None:
            fill = merge(fill, newer)
        elif self.flush_waits:
            self.counts.refused += 1
            return
        self._budget.spend(fill)
        (self.fills if fill.kind is Kind.FILL else self.writes)[fill.key] = fill

    def put_back_write(self, write: Change) -> None:
        """Let a Store or an Evict wait again."""
        newer = self._pop(write.key)
        if newer is not None:
            write = merge(write, newer)
        self._budget.spend(write)
        self.writes[write.key] = write

    def _pop(self, key: bytes) -> Change | None:
        change = self.writes.pop(key, None) or self.fills.pop(key, None)
        if change is not None:
            self._budget.give_back(change)
        return change

    # Changes that go.

    def take(self, waiting: dict[bytes, Change], max_keys: int, room: int, oldest_ns: int) -> tuple[list[Change], int]:
        """Take out up to ``max_keys`` of ``waiting`` (``writes`` or ``fills``), until they have used up ``room`` bytes.

        Of what was sent before ``oldest_ns``, Fills are refused and Stores become Evicts. Returns the changes, and what
        is left of ``room``.
        """
        taken: list[Change] = []
        seen = lengths = 0
        for change in islice(waiting.values(), max_keys):
            value = change.value
            length = len(value) if type(value) is bytes else size(change)
            seen += 1
            lengths += length
            room -= len(change.key) + length + OVERHEAD
            if change.sent_ns < oldest_ns:
                if change.kind is Kind.FILL:
                    self.counts.refused += 1
                    continue
                # Fences that were set since it was sent may have ended: nothing tells whether it is the newest write.
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
        self._budget.keys_left += seen
        self._budget.bytes_left += lengths
        return taken, room

    def flush(self, *, may_commit_later: bool) -> None:
        """Let a Flush wait. Fills and writes of before go with it, but writes that may be committed later stay."""
        if not self.flush_waits:
            self.flush_since_ns = time.monotonic_ns()
        self.flush_waits = True
        self.flush_may_commit_later = self.flush_may_commit_later or may_commit_later
        self.counts.refused += len(self.fills)
        self._drop(self.fills)
        self._drop(self.writes, keep_late=True)

    def take_flush(self) -> bool:
        """The Flush that waits goes with a batch. Returns whether its write may be committed later."""
        may_commit_later = self.flush_may_commit_later
        self.flush_waits = self.flush_may_commit_later = False
        return may_commit_later

    def drop_newest_fill(self) -> None:
        """Give up the Fill that came last, to make room for another key."""
        _, fill = self.fills.popitem()
        self._budget.give_back(fill)
        self.counts.dropped += 1

    def drop_writes(self) -> None:
        """Give up every write that waits: a Flush has been asked for in their place."""
        self._drop(self.writes)

    def clear(self) -> None:
        """Give up everything that waits: the rule is gone, or has another meaning now."""
        self._drop(self.fills)
        self._drop(self.writes)

    def _drop(self, waiting: dict[bytes, Change], *, keep_late: bool = False) -> None:
        kept: dict[bytes, Change] = {}
        for key, change in waiting.items():
            if keep_late and change.may_commit_later:
                kept[key] = change
            else:
                self._budget.give_back(change)
        waiting.clear()
        waiting.update(kept)


def definition(rule: TableRule) -> str:
    """What decides which keys a rule has and what their values are. Equal definitions mean the same keys."""
    facts = (rule.database, rule.schema, rule.table, rule.key, rule.value, rule.template.text, rule.format.value)
    return sha256(repr(facts).encode()).hexdigest()[:16]
