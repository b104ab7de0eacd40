"""What a finished statement means for one Redis key, or for all keys of a rule."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.rules import TableRule


class Kind(IntEnum):
    """The four things that can happen to a rule's keys."""

    FILL = 0
    """A value read by a SELECT: kept only if nothing newer is known of the key."""
    STORE = 1
    """A new value by a committed write."""
    EVICT = 2
    """Remove one key: its value changed in a way that is not certain."""
    FLUSH = 3
    """Remove every key of the rule."""


Value = bytes | dict[bytes, bytes]
"""STRING and JSON rules: the bytes to SET. HASH rules: the fields to write (a NULL column has no field)."""


@dataclass(slots=True, eq=False)
class Change:
    """One change of one key, made when a statement finished, applied when its outcome is certain.

    ``seq`` (the statement's *date*) and ``sent_ns`` are taken together when the statement was forwarded to PostgreSQL;
    of a Fill inside an explicit transaction, when the transaction began. ``settled_ns`` is when the outcome became
    certain. Two statements overlap unless one was settled before the other was sent; equal instants overlap.
    """

    kind: Kind
    rule: TableRule
    key: bytes
    """The Redis key; empty for FLUSH."""
    value: Value | None
    """FILL and STORE only."""
    seq: int
    """The last value of ``rowtap:seq`` this worker had seen."""
    sent_ns: int
    """``time.monotonic_ns()``."""
    settled_ns: int = 0
    """``time.monotonic_ns()``; set by ``Backlog.put``."""
    partial: bool = False
    """HASH STORE only: ``value`` holds only the columns written; apply it only to a hash that is there."""
    removed: tuple[bytes, ...] = ()
    """HASH STORE with ``partial`` only: fields that became NULL, to be deleted from the hash."""
    may_commit_later: bool = False
    """EVICT and FLUSH only: the session ended before the outcome was known, so the write may commit after this change
    was applied. Redis refuses every value of the key, or of the rule, for a fence's life."""


def weight(value: Value | None) -> int:
    """Bytes of a value."""
    if value is None:
        return 0
    if isinstance(value, bytes):
        return len(value)
    return sum(len(name) + len(text) for name, text in value.items())


def size(change: Change) -> int:
    """Bytes of the change's value."""
    return weight(change.value)
