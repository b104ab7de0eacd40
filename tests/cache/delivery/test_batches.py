"""What is taken from the backlog in one batch, and what its outcome does to what waits; without Redis."""

import time

import pytest

from cache.changes import Kind
from cache.counts import RuleCounts
from cache.delivery.batches import Batch, Part
from cache.delivery.queues import Budget, RuleQueue
from cache.delivery.scripts import NO_SCAN, OVERLAPPED, REFUSED, REMOVED, SCAN, STORED
from tests.cache.delivery.offline import (
    A,
    B,
    change,
    confirm,
    evict,
    fill,
    flush,
    flushes,
    kinds,
    make_backlog,
    scan,
    store,
    take,
)


@pytest.fixture
def backlog():
    return make_backlog()


def test_batch_has_a_write_unless_it_has_fills_alone():
    queue = RuleQueue(A, Budget(10, 100), RuleCounts())
    fills = Part(queue, True, [change(Kind.FILL, b"a:1", b"")])
    writes = Part(queue, False, [change(Kind.EVICT, b"a:2"), change(Kind.EVICT, b"a:3")])
    assert not Batch([], []).has_write
    assert not Batch([fills], []).has_write
    assert Batch([], [(queue, False)]).has_write
    both = Batch([writes, fills], [(queue, False)])
    assert both.has_write
    assert (both.pending, len(both.changes)) == (4, 3)


# Taking.


def test_batches_are_bounded_and_rules_take_turns(backlog):
    for i in range(5):
        store(backlog, b"a:%d" % i)
    store(backlog, b"b:1", rule=B)
    fill(backlog, b"a:9")
    seen = []
    for _ in range(4):
        batch = take(backlog, 2)
        seen += [each.key for each in batch.changes]
        assert len(batch.changes) <= 2
        confirm(backlog, batch)
    assert sorted(seen) == [b"a:0", b"a:1", b"a:2", b"a:3", b"a:4", b"a:9", b"b:1"]
    assert seen[-1] == b"a:9", "writes go first"
    assert seen.index(b"b:1") < 4, "no rule waits for all of another"


def test_batch_ends_with_the_change_that_uses_up_its_bytes(backlog):
    store(backlog, b"a:1", b"x" * 500)
    store(backlog, b"a:2", b"x" * 500)
    assert len(take(backlog, 10, 100).changes) == 1


@pytest.mark.parametrize("value", [b"v", {b"v": b"1"}], ids=["value", "hash"])
def test_statement_older_than_half_a_fences_life_is_evicted_or_refused(value):
    backlog = make_backlog(fence_life=1000)
    old = time.monotonic_ns() - 501_000_000
    store(backlog, b"a:1", value, sent_ns=old)
    fill(backlog, b"a:2", value, sent_ns=old)
    store(backlog, b"a:3", value)
    batch = take(backlog)
    assert kinds(batch) == {b"a:1": Kind.EVICT, b"a:3": Kind.STORE}
    assert [each.seq for each in batch.changes] == [0, 10]
    assert backlog.counts.rule(A.label).refused == 1


def test_batch_of_fills_that_are_all_too_old_is_none():
    backlog = make_backlog(fence_life=1000)
    fill(backlog, sent_ns=time.monotonic_ns() - 501_000_000)
    assert take(backlog) is None
    assert backlog.pending == 0


# Confirming.


def test_outcomes_are_counted_by_rule(backlog):
    for key in (b"a:1", b"a:2", b"a:3"):
        store(backlog, key)
    fill(backlog, b"a:4")
    confirm(backlog, take(backlog), outcomes=bytes([STORED, REMOVED, OVERLAPPED, REFUSED]))
    counts = backlog.counts.rule(A.label)
    assert (counts.stores, counts.evicts, counts.fills, counts.refused) == (1, 2, 0, 1)
    assert backlog.counts.batches == 1


@pytest.mark.parametrize(
    ("outcome", "seq"), [(STORED, 20), (REMOVED, 20), (OVERLAPPED, 10)], ids=["stored", "removed", "overlapped"]
)
@pytest.mark.parametrize("later", ["write", "fill", "fill after confirmation"])
def test_statement_after_this_workers_own_write_is_dated_by_its_fence_unless_it_overlapped(
    backlog, outcome, seq, later
):
    store(backlog)
    batch = take(backlog)
    if later == "write":
        change = store(backlog)
    elif later == "fill":
        change = fill(backlog)
    confirm(backlog, batch, 20, outcomes=bytes([outcome]))
    if later == "fill after confirmation":
        change = fill(backlog, seq=10)
    assert change.seq == seq


def test_statement_that_overlaps_this_workers_own_write_keeps_its_date(backlog):
    sent_ns = time.monotonic_ns()
    store(backlog)
    confirm(backlog, take(backlog), 20)
    assert fill(backlog, sent_ns=sent_ns, seq=10).seq == 10
    assert fill(backlog, b"a:2", seq=10).seq == 10, "another key"
    assert fill(backlog, seq=9).seq == 9, "dated before the write was: another write may have come between"


@pytest.mark.parametrize("write", ["too old", "may commit later"])
def test_statement_is_not_dated_by_a_write_whose_order_is_unknown(write):
    backlog = make_backlog(fence_life=1000)
    if write == "too old":
        store(backlog, sent_ns=time.monotonic_ns() - 501_000_000)
    else:
        evict(backlog, may_commit_later=True)
    confirm(backlog, take(backlog), 20, outcomes=bytes([REMOVED]))
    assert fill(backlog, seq=10).seq == 10


def test_confirmed_flush_waits_for_a_scan_unless_its_keys_are_known_to_be_gone(backlog):
    flush(backlog)
    flush(backlog, rule=B)
    batch = take(backlog)
    assert flushes(batch) == {A: False, B: False}
    confirm(backlog, batch, scans=bytes([SCAN if queue.rule is A else NO_SCAN for queue, _ in batch.flushes]))
    assert scan(backlog) == (A,)
    assert (backlog.counts.rule(A.label).flushes, backlog.counts.rule(B.label).flushes) == (1, 1)


def test_flush_of_a_rule_that_is_gone_when_it_is_confirmed_needs_no_scan_of_its_own(backlog):
    flush(backlog)
    batch = take(backlog)
    backlog.configure([B])
    assert scan(backlog) == (A,)
    confirm(backlog, batch)
    assert not backlog.flushes.scan_waits


def test_release_of_a_rule_that_is_gone_waits_for_nothing(backlog):
    block = backlog.block([change(Kind.EVICT, b"a:1")])
    backlog.confirm_blocks(backlog.blocks.take_request(10))
    backlog.configure([B])
    backlog.release(block)
    assert [release.key for release in take(backlog).releases] == [b"a:1"]


def test_only_one_batch_is_under_way(backlog):
    store(backlog)
    batch = take(backlog)
    with pytest.raises(AssertionError):
        take(backlog)
    for settle in (confirm, lambda backlog, batch: backlog.batches.put_back(batch, outcome_unknown=True)):
        with pytest.raises(AssertionError):
            settle(backlog, Batch([], []))
    confirm(backlog, batch)


def test_batch_can_be_put_back_when_its_confirmation_fails(backlog):
    store(backlog)
    flush(backlog, rule=B)
    batch = take(backlog)
    with pytest.raises(ValueError, match="zip"):
        confirm(backlog, batch, scans=b"")
    backlog.batches.put_back(batch, outcome_unknown=True)
    batch = take(backlog)
    assert kinds(batch) == {b"a:1": Kind.EVICT}
    assert flushes(batch) == {B: False}


# Putting back.


def test_unknown_outcome_comes_back_as_evicts_beneath_what_is_newer(backlog):
    store(backlog, b"a:1")
    store(backlog, b"a:2", b"old")
    store(backlog, b"a:4")
    fill(backlog, b"a:3")
    flush(backlog, rule=B, may_commit_later=True)
    batch = take(backlog)
    store(backlog, b"a:2", b"new")
    fill(backlog, b"a:1", b"read")
    backlog.batches.put_back(batch, outcome_unknown=True)
    assert backlog.pending == 4
    batch = take(backlog)
    assert {each.key: (each.kind, each.value) for each in batch.changes} == {
        b"a:1": (Kind.STORE, b"read"),
        b"a:2": (Kind.STORE, b"new"),
        b"a:4": (Kind.EVICT, None),
    }
    assert flushes(batch) == {B: True}
    assert backlog.counts.rule(A.label).dropped == 1


def test_batch_that_was_surely_not_applied_comes_back_as_it_was(backlog):
    store(backlog, b"a:1")
    fill(backlog, b"a:2")
    fill(backlog, b"a:4", b"old")
    sent_ns = time.monotonic_ns()
    store(backlog, b"a:3")
    batch = take(backlog)
    store(backlog, b"a:3", sent_ns=sent_ns)
    fill(backlog, b"a:4", b"new")
    backlog.batches.put_back(batch, outcome_unknown=False)
    assert backlog.pending == 4
    batch = take(backlog)
    assert kinds(batch) == {b"a:1": Kind.STORE, b"a:2": Kind.FILL, b"a:3": Kind.EVICT, b"a:4": Kind.FILL}
    assert [each.value for each in batch.changes if each.key == b"a:4"] == [b"new"]


def test_flush_that_came_meanwhile_stands_for_a_batch_that_comes_back(backlog):
    store(backlog, b"a:1")
    evict(backlog, b"a:2", may_commit_later=True)
    fill(backlog, b"a:3")
    batch = take(backlog)
    flush(backlog)
    backlog.batches.put_back(batch, outcome_unknown=False)
    assert kinds(take(backlog)) == {b"a:2": Kind.EVICT}
    assert backlog.counts.rule(A.label).refused == 1


def test_changes_of_a_rule_that_is_gone_do_not_come_back(backlog):
    store(backlog, b"a:1")
    flush(backlog)
    store(backlog, b"a:2")
    evict(backlog, b"a:3", may_commit_later=True)
    batch = take(backlog)
    backlog.configure([B])
    backlog.batches.put_back(batch, outcome_unknown=True)
    assert take(backlog) is None
