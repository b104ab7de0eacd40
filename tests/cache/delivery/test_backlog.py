"""The backlog without Redis: bounds, batches, what is pending, and what comes back."""

import time

import pytest

from cache.changes import Change, Kind
from cache.counts import Counts
from cache.delivery.backlog import Backlog
from cache.delivery.scripts import FILLED, OVERLAPPED, REFUSED, REMOVED, SCAN, STORED
from cache.keys import KeyTemplate
from cache.rules import TableRule


def make_rule(table):
    template = KeyTemplate.default(database="d", schema="s", table=table, key_columns=("id",))
    return TableRule("d", "s", table, ("id",), ("v",), template, label=f"s.{table}")


A, B = make_rule("a"), make_rule("b")


@pytest.fixture
def backlog():
    return make_backlog()


def make_backlog(max_backlog=100, **options):
    made = Backlog([A, B], max_backlog=max_backlog, counts=Counts.of([A.label, B.label]), **options)
    made.seq = 10
    return made


def put(backlog, kind, key=b"", value=None, rule=A, *, sent_ns=None, **facts):
    facts.setdefault("seq", backlog.seq)
    change = Change(kind, rule, key, value, sent_ns=sent_ns or time.monotonic_ns(), **facts)
    backlog.put([change])
    return change


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


def kinds(batch):
    return {change.key: change.kind for change in batch.changes}


def test_pending_until_confirmed(backlog):
    assert backlog.pending == 0
    assert take(backlog) is None
    store(backlog)
    fill(backlog, b"a:2")
    assert backlog.pending == 2
    batch = take(backlog)
    assert backlog.pending == 2
    backlog.batches.confirm(batch, 11, bytes([STORED, FILLED]), b"")
    assert (backlog.pending, backlog.seq) == (0, 11)
    counts = backlog.counts.rule(A.label)
    assert (counts.stores, counts.fills, backlog.counts.lag.count) == (1, 1, 2)


def test_a_flush_is_pending_until_its_keys_are_gone(backlog):
    flush(backlog)
    flush(backlog)
    assert backlog.pending == 1
    batch = take(backlog)
    assert [(queue.rule, late) for queue, late in batch.flushes] == [(A, False)]
    backlog.batches.confirm(batch, 11, b"", bytes([SCAN]))
    assert backlog.pending == 1
    assert backlog.flushes.start_scan() == (A,)
    flush(backlog)
    assert backlog.pending == 2, "what was written since the scan began needs another"
    backlog.flushes.end_scan(complete=False)
    assert backlog.flushes.scan_waits
    backlog.flushes.start_scan()
    backlog.flushes.end_scan(complete=True)
    assert backlog.pending == 1
    assert backlog.counts.rule(A.label).flushes == 1


def test_a_waiting_flush_stands_for_all_but_holds(backlog):
    fill(backlog)
    store(backlog, b"a:2")
    evict(backlog, b"a:3", may_commit_later=True)
    store(backlog, b"b:1", rule=B)
    flush(backlog)
    store(backlog, b"a:4")
    fill(backlog, b"a:5")
    evict(backlog, b"a:6", may_commit_later=True)
    batch = take(backlog)
    assert kinds(batch) == {b"a:3": Kind.EVICT, b"a:6": Kind.EVICT, b"b:1": Kind.STORE}
    assert all(change.may_commit_later for change in batch.changes if change.rule is A)
    assert backlog.counts.rule(A.label).refused == 2


def test_too_many_keys_drop_fills_first(backlog):
    backlog = make_backlog(3)
    fill(backlog, b"a:1")
    fill(backlog, b"a:2")
    store(backlog, b"a:3")
    fill(backlog, b"a:4")
    store(backlog, b"a:5")
    assert backlog.pending == 3
    assert backlog.counts.rule(A.label).dropped == 2
    assert set(kinds(take(backlog))) == {b"a:1", b"a:3", b"a:5"}


def test_too_many_writes_collapse_into_a_flush_of_the_fullest_rule():
    backlog = make_backlog(3)
    store(backlog, b"b:1", rule=B)
    store(backlog, b"a:1")
    evict(backlog, b"a:2", may_commit_later=True)
    store(backlog, b"b:2", rule=B)
    assert backlog.pending == 3
    assert backlog.counts.collapses == 1
    batch = take(backlog)
    assert set(kinds(batch)) == {b"b:1", b"b:2"}
    assert [(queue.rule, late) for queue, late in batch.flushes] == [(A, True)]


def test_the_arriving_key_may_be_part_of_the_collapse():
    backlog = make_backlog(2)
    for i in range(3):
        store(backlog, b"a:%d" % i)
    assert backlog.pending == 1
    assert kinds(take(backlog)) == {}


def test_too_many_bytes_drop_fills_and_turn_stores_into_evicts():
    backlog = make_backlog(max_bytes=100)
    store(backlog, b"a:1", b"x" * 90)
    store(backlog, b"a:2", b"x" * 90)
    fill(backlog, b"a:3", b"x" * 5)
    store(backlog, b"a:4", b"x" * 10)
    fill(backlog, b"a:5", b"x")
    batch = take(backlog)
    assert kinds(batch) == {
        b"a:1": Kind.STORE,
        b"a:2": Kind.EVICT,
        b"a:4": Kind.EVICT,
        b"a:3": Kind.FILL,
        b"a:5": Kind.FILL,
    }
    backlog.batches.put_back(batch, outcome_unknown=True)
    store(backlog, b"a:6", b"x" * 90)
    assert kinds(take(backlog))[b"a:6"] is Kind.STORE, "bytes are given back"


def test_batches_are_bounded_and_take_turns(backlog):
    for i in range(5):
        store(backlog, b"a:%d" % i)
    store(backlog, b"b:1", rule=B)
    fill(backlog, b"a:9")
    seen = []
    for _ in range(4):
        batch = take(backlog, 2)
        seen += [change.key for change in batch.changes]
        assert len(batch.changes) <= 2
        backlog.batches.confirm(batch, 11, bytes([STORED]) * len(batch.changes), b"")
    assert sorted(seen) == [b"a:0", b"a:1", b"a:2", b"a:3", b"a:4", b"a:9", b"b:1"]
    assert seen[-1] == b"a:9", "writes go first"
    assert seen.index(b"b:1") < 4, "no rule waits for all of another"
    store(backlog, b"a:1", b"x" * 500)
    store(backlog, b"a:2", b"x" * 500)
    assert len(take(backlog, 10, 100).changes) == 1


def test_too_old_is_evicted_or_dropped():
    backlog = make_backlog(fence_life=1000)
    old = time.monotonic_ns() - 501_000_000
    store(backlog, b"a:1", sent_ns=old)
    fill(backlog, b"a:2", sent_ns=old)
    store(backlog, b"a:3")
    assert kinds(take(backlog)) == {b"a:1": Kind.EVICT, b"a:3": Kind.STORE}
    assert backlog.counts.rule(A.label).refused == 1


def test_forget_makes_what_is_under_way_too_old(backlog):
    sent_ns = time.monotonic_ns()
    backlog.distrust_fences()
    store(backlog, sent_ns=sent_ns)
    store(backlog, b"a:2")
    assert kinds(take(backlog)) == {b"a:1": Kind.EVICT, b"a:2": Kind.STORE}


def test_an_unknown_outcome_comes_back_as_evicts_beneath_what_is_newer(backlog):
    store(backlog, b"a:1")
    store(backlog, b"a:2", b"old")
    fill(backlog, b"a:3")
    flush(backlog, rule=B)
    batch = take(backlog)
    store(backlog, b"a:2", b"new")
    fill(backlog, b"a:1", b"read")
    backlog.batches.put_back(batch, outcome_unknown=True)
    assert backlog.pending == 3
    batch = take(backlog)
    assert {c.key: (c.kind, c.value) for c in batch.changes} == {
        b"a:1": (Kind.STORE, b"read"),
        b"a:2": (Kind.STORE, b"new"),
    }
    assert [queue.rule for queue, _ in batch.flushes] == [B]
    assert backlog.counts.rule(A.label).dropped == 1


def test_what_surely_was_not_applied_comes_back_as_it_was(backlog):
    store(backlog, b"a:1")
    fill(backlog, b"a:2")
    sent_ns = time.monotonic_ns()
    store(backlog, b"a:3")
    batch = take(backlog)
    store(backlog, b"a:3", sent_ns=sent_ns)
    backlog.batches.put_back(batch, outcome_unknown=False)
    assert backlog.pending == 3
    assert kinds(take(backlog)) == {b"a:1": Kind.STORE, b"a:2": Kind.FILL, b"a:3": Kind.EVICT}


@pytest.mark.parametrize(
    ("outcome", "seq"), [(STORED, 20), (REMOVED, 20), (OVERLAPPED, 10)], ids=["stored", "removed", "overlapped"]
)
@pytest.mark.parametrize("when", ["in flight", "after"])
def test_what_follows_this_workers_own_write_is_dated_from_it(backlog, outcome, seq, when):
    store(backlog)
    batch = take(backlog)
    sent_ns = time.monotonic_ns()
    if when == "in flight":
        read = fill(backlog, sent_ns=sent_ns)
    backlog.batches.confirm(batch, 20, bytes([outcome]), b"")
    if when == "after":
        read = fill(backlog, sent_ns=sent_ns, seq=10)
    assert read.seq == seq


def test_what_overlaps_this_workers_own_write_keeps_its_date(backlog):
    sent_ns = time.monotonic_ns()
    store(backlog)
    backlog.batches.confirm(take(backlog), 20, bytes([STORED]), b"")
    assert fill(backlog, sent_ns=sent_ns, seq=10).seq == 10
    assert fill(backlog, b"a:2", seq=10).seq == 10
    assert fill(backlog, seq=9).seq == 9, "dated before the write was: somebody may have written in between"


def test_a_new_epoch_flushes_all_and_keeps_refusing_for_holds(backlog):
    store(backlog)
    backlog.begin_epoch()
    assert [late for _, late in take(backlog).flushes] == [False, False]
    backlog = make_backlog()
    evict(backlog, may_commit_later=True)
    backlog.begin_epoch()
    assert [late for _, late in take(backlog).flushes] == [True, True]


def test_refused_fills_are_counted(backlog):
    fill(backlog)
    backlog.batches.confirm(take(backlog), 10, bytes([REFUSED]), b"")
    assert backlog.counts.rule(A.label).refused == 1


def test_unknown_rules_and_nothing_at_all(backlog):
    put(backlog, Kind.STORE, b"c:1", b"v", rule=make_rule("c"))
    backlog.put([])
    assert backlog.pending == 0


async def test_wait_returns_when_something_waits(backlog):
    begun = time.monotonic()
    await backlog.wait(0.02)
    assert time.monotonic() - begun >= 0.015
    store(backlog)
    begun = time.monotonic()
    await backlog.wait(10)
    assert time.monotonic() - begun < 1
