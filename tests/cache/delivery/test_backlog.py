"""What sessions put into the backlog, without Redis: what waits, what is given up for want of room, what is flushed."""

import asyncio
import random
import time

import pytest

from cache.changes import Kind
from tests.cache.delivery.offline import (
    A,
    B,
    change,
    confirm,
    counted_anew,
    evict,
    fill,
    flush,
    flushes,
    kinds,
    make_backlog,
    make_rule,
    put,
    scan,
    store,
    take,
)


@pytest.fixture
def backlog():
    return make_backlog()


def test_nothing_is_pending_at_first(backlog):
    assert backlog.pending == 0
    assert take(backlog) is None


def test_changes_are_pending_until_redis_confirms_them(backlog):
    store(backlog)
    fill(backlog, b"a:2")
    assert (backlog.pending, backlog.waiting) == (2, 2)
    batch = take(backlog)
    assert (backlog.pending, backlog.waiting) == (2, 0)
    confirm(backlog, batch)
    assert backlog.pending == 0
    counts = backlog.counts.rule(A.label)
    assert (counts.stores, counts.fills, backlog.counts.lag.count) == (1, 1, 2)


def test_counter_value_never_goes_back(backlog):
    backlog.note_seq(12)
    backlog.note_seq(11)
    assert backlog.seq == 12


def test_change_of_a_rule_that_is_not_configured_is_ignored(backlog):
    put(backlog, Kind.STORE, b"c:1", b"v", rule=make_rule("c"))
    backlog.put([])
    assert backlog.pending == 0


def test_waiting_flush_stands_for_all_changes_but_writes_that_may_commit_later(backlog):
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
    assert all(each.may_commit_later for each in batch.changes if each.rule is A)
    assert backlog.counts.rule(A.label).refused == 2


# Too much.


def test_fills_are_dropped_first_when_too_many_keys_wait():
    backlog = make_backlog(3)
    fill(backlog, b"a:1")
    fill(backlog, b"a:2")
    store(backlog, b"a:3")
    fill(backlog, b"a:4")
    store(backlog, b"a:5")
    assert backlog.pending == 3
    assert backlog.counts.rule(A.label).dropped == 2
    assert set(kinds(take(backlog))) == {b"a:1", b"a:3", b"a:5"}


def test_write_of_a_key_that_waits_needs_no_room():
    backlog = make_backlog(2)
    store(backlog, b"a:1")
    store(backlog, b"a:2")
    store(backlog, b"a:2", b"newer")
    assert backlog.counts.collapses == 0
    assert {each.value for each in take(backlog).changes} == {b"s", b"newer"}


def test_writes_of_the_fullest_rule_become_a_flush_when_too_many_keys_wait():
    backlog = make_backlog(3)
    store(backlog, b"b:1", rule=B)
    store(backlog, b"a:1")
    evict(backlog, b"a:2", may_commit_later=True)
    store(backlog, b"b:2", rule=B)
    assert backlog.pending == 3
    assert backlog.counts.collapses == 1
    batch = take(backlog)
    assert set(kinds(batch)) == {b"b:1", b"b:2"}
    assert flushes(batch) == {A: True}


@pytest.mark.parametrize("may_commit_later", [False, True])
def test_flush_of_the_fullest_rule_covers_the_key_that_arrives(may_commit_later):
    backlog = make_backlog(2)
    store(backlog, b"a:1")
    store(backlog, b"a:2")
    evict(backlog, b"a:3", may_commit_later=may_commit_later)
    assert backlog.pending == 1
    batch = take(backlog)
    assert kinds(batch) == {}
    assert flushes(batch) == {A: may_commit_later}


def test_fills_are_dropped_and_stores_become_evicts_when_values_are_too_large():
    backlog = make_backlog(max_bytes=100)
    store(backlog, b"a:1", b"x" * 90)
    store(backlog, b"a:2", b"x" * 90)
    fill(backlog, b"a:3", b"x" * 5)
    store(backlog, b"a:4", b"x" * 10)
    fill(backlog, b"a:5", b"x" * 5)
    fill(backlog, b"a:6", b"x")
    batch = take(backlog)
    assert kinds(batch) == {
        b"a:1": Kind.STORE,
        b"a:2": Kind.EVICT,
        b"a:4": Kind.EVICT,
        b"a:3": Kind.FILL,
        b"a:5": Kind.FILL,
    }
    assert backlog.counts.rule(A.label).dropped == 1
    backlog.batches.put_back(batch, outcome_unknown=True)
    store(backlog, b"a:6", b"x" * 90)
    assert kinds(take(backlog))[b"a:6"] is Kind.STORE, "the room is given back"


@pytest.mark.parametrize("seed", range(20))
def test_keys_and_bytes_are_counted_right_whatever_happens(seed):
    """Random changes, batches, flushes and reloads; after each, the budget is what a count anew finds."""
    dice = random.Random(seed)
    max_keys, max_bytes = 12, 60
    backlog = make_backlog(max_keys, max_bytes=max_bytes)
    stamps = [time.monotonic_ns()]
    for _ in range(400):
        budget = backlog._budget
        assert (budget.keys, max_bytes - budget.bytes_left) == counted_anew(backlog)
        batch = backlog.batches.in_flight
        step = dice.choice(["fill", "fill", "store", "store", "evict", "flush", "batch", "batch", "batch", "configure"])
        rule = dice.choice([A, B])
        key = b"%b:%d" % (rule.table.encode(), dice.randrange(10))
        value = b"x" * dice.randrange(12)
        stamps.append(time.monotonic_ns())
        facts = {"rule": rule, "sent_ns": dice.choice(stamps)}
        if step == "fill":
            fill(backlog, key, value, **facts)
        elif step == "store":
            store(backlog, key, value, **facts)
        elif step == "evict":
            evict(backlog, key, may_commit_later=dice.random() < 0.1, **facts)
        elif step == "flush":
            if dice.random() < 0.2:
                flush(backlog, **facts)
        elif step == "configure":
            if dice.random() < 0.1:
                backlog.configure(dice.choice([[A], [A, B], [make_rule("a", "other"), B]]))
        elif batch is None:
            take(backlog, dice.randrange(1, 6), dice.randrange(1, 500))
        elif dice.random() < 0.5:
            confirm(backlog, batch)
        else:
            backlog.batches.put_back(batch, outcome_unknown=dice.random() < 0.5)


# Rules that change.


def test_rule_with_the_same_meaning_keeps_what_waits(backlog):
    store(backlog)
    same = make_rule("a")
    backlog.configure([same, B])
    assert backlog.rules == (same, B)
    assert kinds(take(backlog)) == {b"a:1": Kind.STORE}
    assert not backlog.flushes.scan_waits


def test_keys_of_a_rule_that_is_gone_are_looked_for(backlog):
    store(backlog)
    fill(backlog, b"a:2")
    flush(backlog)
    backlog.configure([B])
    assert backlog.pending == 1
    assert take(backlog) is None
    assert scan(backlog) == (A,)
    assert backlog.pending == 0


def test_rule_that_means_other_keys_is_flushed_and_refuses_values(backlog):
    store(backlog)
    other = make_rule("a", "other")
    backlog.configure([other, B])
    batch = take(backlog)
    assert flushes(batch) == {other: True}
    assert kinds(batch) == {}
    assert scan(backlog) == (A,)


def test_write_by_the_former_meaning_of_a_rule_flushes_and_a_fill_is_ignored(backlog):
    former = make_rule("a", "other")
    fill(backlog, rule=former)
    assert backlog.pending == 0
    store(backlog, rule=former)
    assert flushes(take(backlog)) == {A: False}


# For reasons that no statement gave.


def test_flush_without_a_statement(backlog):
    store(backlog)
    backlog.flush([A.label, "unknown"])
    batch = take(backlog)
    assert flushes(batch) == {A: False}
    assert kinds(batch) == {}


def test_new_epoch_flushes_all_rules(backlog):
    store(backlog)
    backlog.begin_epoch()
    assert flushes(take(backlog)) == {A: False, B: False}


@pytest.mark.parametrize("late", [evict, flush])
def test_new_epoch_refuses_values_while_a_write_may_commit_later(late):
    backlog = make_backlog(fence_life=100)
    late(backlog, may_commit_later=True)
    confirm(backlog, take(backlog), scans=b"") if late is evict else confirm(backlog, take(backlog))
    backlog.begin_epoch()
    assert flushes(take(backlog)) == {A: True, B: True}
    time.sleep(0.11)
    confirm(backlog, backlog.batches.in_flight)
    backlog.begin_epoch()
    assert flushes(take(backlog)) == {A: False, B: False}


def test_statements_sent_before_fences_were_distrusted_are_too_old(backlog):
    sent_ns = time.monotonic_ns()
    backlog.distrust_fences()
    store(backlog, sent_ns=sent_ns)
    store(backlog, b"a:2")
    assert kinds(take(backlog)) == {b"a:1": Kind.EVICT, b"a:2": Kind.STORE}


# How the writer waits.


async def test_wait_ends_in_time_or_when_something_waits(backlog):
    begun = time.monotonic()
    await backlog.wait(0.02)
    assert time.monotonic() - begun >= 0.015
    store(backlog)
    begun = time.monotonic()
    await backlog.wait(10)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("event", ["put", "wake", "block", "flush"])
async def test_wait_is_ended_by(backlog, event):
    does = {
        "put": lambda: store(backlog),
        "wake": backlog.wake,
        "block": lambda: backlog.block([change(Kind.EVICT, b"a:1")]),
        "flush": lambda: backlog.flush([A.label]),
    }
    asyncio.get_running_loop().call_later(0.01, does[event])
    async with asyncio.timeout(5):
        await backlog.wait(60)


async def test_linger_ends_in_time_or_for_a_block(backlog):
    begun = time.monotonic()
    await backlog.linger(0.02)
    assert time.monotonic() - begun >= 0.015
    asyncio.get_running_loop().call_later(0.01, backlog.block, [change(Kind.EVICT, b"a:1")])
    begun = time.monotonic()
    await backlog.linger(60)
    assert time.monotonic() - begun < 1
    await backlog.linger(60)
    assert time.monotonic() - begun < 1, "the block still waits to be requested"


async def test_several_blocks_end_one_linger(backlog):
    lingering = asyncio.create_task(backlog.linger(60))
    await asyncio.sleep(0)
    for key in (b"a:1", b"a:2"):
        backlog.block([change(Kind.EVICT, key)])
    async with asyncio.timeout(5):
        await lingering
