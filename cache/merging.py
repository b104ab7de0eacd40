"""How two changes of one key become one while they wait for Redis. Pure rules; docs/ordering.md argues for them.

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
        # What the read saw may lie before or after the write: only the write's value is known to be as new as itself.
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
    """A read that began after the write ended saw it, and whatever the write's own value was, this one is as new."""
    if waiting.may_commit_later or read.sent_ns <= waiting.settled_ns:
        return waiting
    if waiting.sent_ns > waiting.settled_ns and not _read_later(read, waiting):
        return waiting
    # Still a write to everybody else: the fence of the write it stands for must be set. But the value is accepted only
    # if nobody wrote since the read was forwarded, hence the read's date.
    read.kind = Kind.STORE
    read.settled_ns = waiting.settled_ns
    return read


def _write_over_write(waiting: Change, write: Change) -> Change:
    if waiting.may_commit_later or write.sent_ns <= waiting.settled_ns:
        # Every later statement that may be ordered after this one was dated no earlier than either.
        write.seq = max(write.seq, waiting.seq)
        write.may_commit_later = write.may_commit_later or waiting.may_commit_later
        return evict(write)
    return follow(waiting, write)


def follow(former: Change, write: Change) -> Change:
    """What ``write`` leaves of a key when it is known to come after the write ``former``; one of the two, altered."""
    if not write.partial:
        return write
    if former.kind is Kind.EVICT:
        # A partial value applies to a hash that is there, and this one will not be.
        return evict(write)
    return _overlay(former, write)


def _overlay(waiting: Change, write: Change) -> Change:
    """``waiting``'s fields with those of the partial ``write`` over them.

    The fields are as old as the older statement, so nobody else may have written since *that* one was dated. A read
    may overlap the write: the fields it adds are those the write leaves alone.
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
