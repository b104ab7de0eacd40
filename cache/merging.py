"""How two changes of one key become one while they wait for Redis. Pure rules; docs/ordering.md, "Merging", says why.

``settled_ns`` of the waiting change never lies after that of the arriving one. A statement that was sent after another
was settled is ordered after it; equal instants overlap, and the order of overlapping writes is unknown.

A *read in a write's place* is a STORE whose value was read: ``seq`` and ``sent_ns`` are the read's, ``settled_ns`` is
the write's, so that ``sent_ns > settled_ns`` tells it from a write's own STORE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.changes import Kind

if TYPE_CHECKING:
    from cache.changes import Change


def merge(waiting: Change, arriving: Change) -> Change:
    """The one change that stands for both; one of the two, altered. Neither is a FLUSH."""
    if arriving.kind is Kind.FILL:
        if waiting.kind is Kind.FILL:
            return arriving if _read_later(arriving, waiting) else waiting
        return _read_over_write(waiting, arriving)
    if waiting.kind is Kind.FILL:
        # What was read may be from before or after the write: only what the write wrote is known to be as new as it.
        return _overlay(waiting, arriving) if arriving.partial else arriving
    return _write_over_write(waiting, arriving)


def evict(change: Change) -> Change:
    """Turn a write into the removal of its key, in place."""
    change.kind = Kind.EVICT
    change.value = None
    change.partial = False
    change.removed = ()
    return change


def _read_later(read: Change, other: Change) -> bool:
    return (read.seq, read.sent_ns) >= (other.seq, other.sent_ns)


def _read_over_write(waiting: Change, read: Change) -> Change:
    """A read that was sent after the write settled saw what it wrote: the value read is as new as the write's own."""
    if waiting.may_commit_later or read.sent_ns <= waiting.settled_ns:
        return waiting
    if waiting.sent_ns > waiting.settled_ns and not _read_later(read, waiting):
        return waiting
    # It still stands for a write, whose fence must be set, so it is a STORE. But its value is accepted only if no other
    # write came since the read was sent, so it keeps the read's date.
    read.kind = Kind.STORE
    read.settled_ns = waiting.settled_ns
    return read


def _write_over_write(waiting: Change, write: Change) -> Change:
    if waiting.may_commit_later or write.sent_ns <= waiting.settled_ns:
        # Every statement that follows both was given a date no lower than either of theirs.
        write.seq = max(write.seq, waiting.seq)
        write.may_commit_later = write.may_commit_later or waiting.may_commit_later
        return evict(write)
    return follow(waiting, write)


def follow(earlier: Change, write: Change) -> Change:
    """What is left of a key by ``write``, which is known to come after the write ``earlier``; one of both, altered."""
    if not write.partial:
        return write
    if earlier.kind is Kind.EVICT:
        # A partial value is applied to a hash that is there, and this one is removed.
        return evict(write)
    return _overlay(earlier, write)


def _overlay(waiting: Change, write: Change) -> Change:
    """``waiting``'s fields with those of the partial ``write`` over them.

    The fields are as old as the older of the two statements, so the result has the lower date: it is accepted only if
    no other write came since then. A read may overlap the write: it adds only fields that the write did not touch.
    """
    fields = waiting.value
    over = write.value
    assert isinstance(fields, dict)
    assert isinstance(over, dict)
    merged = {**fields, **over}
    for name in write.removed:
        merged.pop(name, None)
    write.value = merged
    write.partial = waiting.partial
    write.removed = (
        tuple(name for name in {*waiting.removed, *write.removed} if name not in over) if write.partial else ()
    )
    write.seq = min(write.seq, waiting.seq)
    write.sent_ns = min(write.sent_ns, waiting.sent_ns)
    return write
