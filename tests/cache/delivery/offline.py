"""A backlog without Redis, with two rules: what is put into it, and what a Redis that does as it is asked would say."""

import time

from cache.changes import Change, Kind, size
from cache.counts import Counts
from cache.delivery.backlog import Backlog
from cache.delivery.scripts import FILLED, SCAN, STORED
from cache.keys import KeyTemplate
from cache.rules import TableRule


def make_rule(table, value="v"):
    template = KeyTemplate.default(database="d", schema="s", table=table, key_columns=("id",))
    return TableRule("d", "s", table, ("id",), (value,), template, label=f"s.{table}")


A, B = make_rule("a"), make_rule("b")


def make_backlog(max_backlog=100, *, reachable=True, **options):
    """At counter value 10, with the rules A and B."""
    made = Backlog([A, B], max_backlog=max_backlog, counts=Counts.of([A.label, B.label]), **options)
    made.note_seq(10)
    made.blocks.set_reachable(reachable)
    return made


def change(kind, key=b"", value=None, rule=A, *, seq=10, sent_ns=None, **facts):
    return Change(kind, rule, key, value, seq, sent_ns or time.monotonic_ns(), **facts)


def put(backlog, kind, key=b"", value=None, rule=A, **facts):
    facts.setdefault("seq", backlog.seq)
    made = change(kind, key, value, rule, **facts)
    backlog.put([made])
    return made


def fill(backlog, key=b"a:1", value=b"f", **facts):
    return put(backlog, Kind.FILL, key, value, **facts)


def store(backlog, key=b"a:1", value=b"s", **facts):
    return put(backlog, Kind.STORE, key, value, **facts)


def evict(backlog, key=b"a:1", **facts):
    return put(backlog, Kind.EVICT, key, **facts)


def flush(backlog, **facts):
    return put(backlog, Kind.FLUSH, **facts)


def take(backlog, keys=1000, size=1 << 20):
    return backlog.batches.take(keys, size)


def confirm(backlog, batch, seq=11, *, outcomes=None, scans=None):
    """Redis applied ``batch``: it took every value, and wants the keys of each Flush to be looked for."""
    if outcomes is None:
        outcomes = b"".join(bytes([FILLED if part.fills else STORED]) * len(part.changes) for part in batch.parts)
    if scans is None:
        scans = bytes([SCAN]) * len(batch.flushes)
    backlog.batches.confirm(batch, seq, outcomes, scans)
    backlog.note_seq(seq)


def scan(backlog, *, complete=True):
    """One scan, from its start to its end; which rules it was for."""
    rules = backlog.flushes.start_scan()
    backlog.flushes.end_scan(complete=complete)
    return rules


def kinds(batch):
    return {change.key: change.kind for change in batch.changes}


def flushes(batch):
    """The rules a batch flushes, each with whether its write may be committed later."""
    return {queue.rule: may_commit_later for queue, may_commit_later in batch.flushes}


def counted_anew(backlog):
    """Keys and bytes that wait, counted from what is there."""
    waiting = [
        change for queue in backlog._queues.values() for change in (*queue.writes.values(), *queue.fills.values())
    ]
    return len(waiting), sum(map(size, waiting))
