"""One session's changes, kept until their outcome is certain.

PostgreSQL's rules, and how they are judged here (protocol chapter, "Message Flow"; reference pages of BEGIN, SAVEPOINT,
PREPARE TRANSACTION):

- A change exists once CommandComplete has come for its statement, and not before.
- Outside a transaction block, everything up to ReadyForQuery is one implicit transaction: an ErrorResponse before it
  undoes all.
- Inside a block, the command tag of COMMIT decides: a failed block answers ROLLBACK to it.
- ROLLBACK TO undoes what came after the savepoint.
- Where the end of a transaction was not seen, its changes become Evicts: an absent key is never wrong.

A transaction may write more than can be kept: then Evicts replace values, and a Flush replaces the keys of a rule.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from cache.changes import Change, Kind, size
from cache.merging import evict, follow
from protocol import codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cache.rules import TableRule

MAX_CHANGES = 20_000
MAX_BYTES = 1 << 20
"""Of the values that a transaction has written. When either limit is passed, half of it is freed."""


@dataclass(slots=True)
class _Savepoint:
    name: str
    position: int
    """How many changes were pending when it was set."""
    dirty: bool


def without_values(changes: Sequence[Change]) -> list[Change]:
    """The same changes where it is uncertain what the writes have done: Stores become Evicts, Flushes stay, and Fills
    are left out."""
    for change in changes:
        if change.kind is not Kind.FLUSH:
            evict(change)
    return [change for change in changes if change.kind is not Kind.FILL]


def last_of_each(changes: Sequence[Change]) -> list[Change]:
    """One change for each key that a transaction wrote, from its changes in order; a Flush replaces those of its rule.

    They all become true at one instant, so later on their order could not be known.
    """
    flushed = {change.rule: change for change in changes if change.kind is Kind.FLUSH}
    left: dict[tuple[TableRule, bytes], Change] = {}
    for change in changes:
        if change.rule in flushed:
            continue
        former = left.get((change.rule, change.key))
        left[change.rule, change.key] = change if former is None else follow(former, change)
    return [*flushed.values(), *left.values()]


class TransactionBuffer:
    """Keeps the writes of the transaction a session is in, and says which of them became true.

    Methods that end a transaction return the changes to release, in the order they were made.
    """

    __slots__ = (
        "_bytes",
        "_failed",
        "_flushes",
        "_savepoints",
        "_uncertain",
        "dirty",
        "explicit",
        "pending",
        "start",
    )

    def __init__(self) -> None:
        self.pending: list[Change] = []
        self.dirty = False
        """The transaction has written, or called something that may have: what it reads may be uncommitted."""
        self.explicit = False
        """ReadyForQuery last said that a block is open."""
        self.start: tuple[int, int] | None = None
        """Date and instant of its first statement: its snapshot is no older."""
        self._bytes = 0
        """Of the values among ``pending``, at most."""
        self._flushes: set[TableRule] = set()
        """Rules of which too many keys were written. Their Flushes come first in ``pending`` and stay there, also when
        the writes they replace are undone."""
        self._savepoints: list[_Savepoint] = []
        self._failed = False
        self._uncertain = False

    def touch(self, seq: int, sent_ns: int) -> None:
        """A statement forwarded at ``seq`` was answered: if it is the first, the transaction began with it."""
        if self.start is None:
            self.start = (seq, sent_ns)

    def add(self, changes: Iterable[Change]) -> None:
        """A statement finished; ``changes`` are true if the transaction commits."""
        pending = self.pending
        before = len(pending)
        pending.extend(changes)
        self.dirty = True
        if self._flushes:
            pending[before:] = [change for change in pending[before:] if change.rule not in self._flushes]
        for change in pending[before:]:
            self._bytes += size(change)
        if self._bytes > MAX_BYTES or len(pending) > MAX_CHANGES:
            self._shrink()

    def _shrink(self) -> None:
        self._leave_last()
        if self._bytes > MAX_BYTES // 2:
            for change in self.pending:
                if change.value is not None:
                    evict(change)
            self._bytes = 0
        while len(self.pending) - len(self._flushes) > MAX_CHANGES // 2:
            self._give_up_keys()

    def _leave_last(self) -> None:
        """Merge the changes of each key, but none before a savepoint with one behind it: they may be undone apart."""
        kept: list[Change] = []
        start = 0
        for savepoint in self._savepoints:
            kept += last_of_each(self.pending[start : savepoint.position])
            start, savepoint.position = savepoint.position, len(kept)
        kept += last_of_each(self.pending[start:])
        self.pending[:] = kept
        self._bytes = sum(map(size, kept))

    def _give_up_keys(self) -> None:
        """Replace the changes of the rule that has most of them by one Flush."""
        pending = self.pending
        rule = Counter(change.rule for change in pending[len(self._flushes) :]).most_common(1)[0][0]
        stays = [change.rule is not rule for change in pending]
        first = next(change for change in pending if change.rule is rule)
        places = tuple(accumulate(stays, initial=1))
        for savepoint in self._savepoints:
            savepoint.position = places[savepoint.position]
        kept = [change for change, stay in zip(pending, stays, strict=True) if stay]
        pending[:] = [Change(Kind.FLUSH, rule, b"", None, first.seq, first.sent_ns), *kept]
        self._flushes.add(rule)

    def mark_uncertain(self) -> None:
        """Something ran that may have committed, rolled back or written unseen."""
        self._uncertain = True
        self.dirty = True

    def fail(self) -> None:
        """An ErrorResponse came."""
        self._failed = True

    def savepoint(self, name: str) -> None:
        self._savepoints.append(_Savepoint(name, len(self.pending), self.dirty))

    def release(self, name: str) -> None:
        """RELEASE: the savepoint of that name set last, and all after it, are forgotten; their changes stay."""
        index = self._find(name)
        if index is None:
            self.mark_uncertain()
        else:
            del self._savepoints[index:]

    def rollback_to(self, name: str) -> None:
        """ROLLBACK TO: what came after the savepoint is undone; the savepoint itself stays."""
        index = self._find(name)
        if index is None:
            # The savepoint was set unseen, so which changes were undone is not known.
            self.pending = without_values(self.pending)
            self.mark_uncertain()
            return
        savepoint = self._savepoints[index]
        undone = self.pending[savepoint.position :]
        self._bytes -= sum(map(size, undone))
        del self.pending[savepoint.position :]
        del self._savepoints[index + 1 :]
        if self._uncertain:
            self.pending.extend(without_values(undone))
        else:
            self.dirty = savepoint.dirty
        self._failed = False

    def _find(self, name: str) -> int | None:
        for index in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[index].name == name:
                return index
        return None

    def commit(self) -> list[Change]:
        """The transaction committed, or COMMIT AND CHAIN did, which begins another one at once."""
        released = last_of_each(self.pending) if len(self.pending) > 1 else self.pending
        self._reset()
        return released

    def rollback(self) -> list[Change]:
        """The transaction was rolled back. Returns Evicts only where a part of it may have been committed unseen."""
        released = without_values(self.pending) if self._uncertain else []
        self._reset()
        return released

    def take(self) -> list[Change]:
        """PREPARE TRANSACTION succeeded: the changes now belong to the gid, and the session has none left."""
        taken = without_values(self.pending) if self._uncertain else last_of_each(self.pending)
        self._reset()
        return taken

    def ready(self, status: int) -> list[Change]:
        """ReadyForQuery came. Returns what the implicit transaction that ends with it made true."""
        failed, self._failed = self._failed, False
        if status != codes.IDLE:
            self.explicit = True
            return []
        if failed:
            return self.rollback()
        if self.explicit and self.pending:
            # COMMIT and ROLLBACK leave nothing pending, so the end of the block was not seen.
            self._uncertain = True
            return self.rollback()
        return self.commit()

    def lost(self, *, unanswered: bool) -> list[Change]:
        """The session ended. With requests ``unanswered`` it is not known what became of the transaction."""
        if unanswered:
            self._uncertain = True
        return self.rollback()

    def _reset(self) -> None:
        self.pending = []
        self._bytes = 0
        self._flushes.clear()
        self.dirty = False
        self.explicit = False
        self.start = None
        self._savepoints.clear()
        self._uncertain = False
