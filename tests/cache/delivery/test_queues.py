"""What waits for one rule, what it takes of the budget, and what makes two rules mean the same keys."""

from dataclasses import replace

import pytest

from cache.changes import Kind
from cache.counts import RuleCounts
from cache.delivery.queues import OVERHEAD, Budget, RuleQueue, definition
from cache.keys import KeyTemplate
from cache.rules import ValueFormat
from tests.cache.delivery.offline import A, change


@pytest.fixture
def budget():
    return Budget(10, 100)


@pytest.fixture
def queue(budget):
    return RuleQueue(A, budget, RuleCounts())


def fill(key, value=b"12345", **facts):
    return change(Kind.FILL, key, value, **facts)


def store(key, value=b"12345", **facts):
    return change(Kind.STORE, key, value, **facts)


def spent(budget):
    return budget.keys, 100 - budget.bytes_left


# What makes two rules mean the same keys.


@pytest.mark.parametrize("same", [{}, {"ttl": 5}, {"ttl_jitter": 0.5}, {"max_rows": 1}, {"label": "other"}], ids=str)
def test_rules_with_the_same_keys_and_values_have_one_definition(queue, same):
    assert definition(replace(A, **same)) == definition(A)
    assert queue.means(replace(A, **same))


@pytest.mark.parametrize(
    "other",
    [
        {"database": "e"},
        {"schema": "u"},
        {"table": "u"},
        {"key": ("v",)},
        {"value": ("w",)},
        {"format": ValueFormat.JSON},
        {"template": KeyTemplate.parse("x:{id}", database="d", schema="s", table="t", key_columns=("id",))},
    ],
    ids=lambda other: next(iter(other)),
)
def test_rules_with_other_keys_or_values_have_other_definitions(queue, other):
    assert definition(replace(A, **other)) != definition(A)
    assert not queue.means(replace(A, **other))


# What waits.


def test_waiting_changes_take_keys_and_bytes_of_the_budget(queue, budget):
    queue.add_fill(fill(b"a:1"))
    queue.add_write(store(b"a:2", b"123"))
    queue.add_write(store(b"a:3", {b"name": b"123"}))
    queue.add_write(change(Kind.EVICT, b"a:4"))
    assert spent(budget) == (4, 15)
    queue.clear()
    assert spent(budget) == (0, 0)


def test_budget_is_shared_by_all_queues(queue, budget):
    other = RuleQueue(A, budget, RuleCounts())
    for i in range(6):
        queue.add_fill(fill(b"a:%d" % i, b""))
        other.add_fill(fill(b"b:%d" % i, b""))
    assert budget.keys == 10
    assert (queue.counts.dropped, other.counts.dropped) == (1, 1)


def test_later_fill_replaces_a_waiting_one_and_an_earlier_one_does_not(queue, budget):
    queue.add_fill(fill(b"a:1", b"12", sent_ns=5))
    queue.add_fill(fill(b"a:1", b"1234", sent_ns=6))
    queue.add_fill(fill(b"a:1", b"123", sent_ns=4))
    assert queue.fills[b"a:1"].value == b"1234"
    assert spent(budget) == (1, 4)


def test_fill_after_a_waiting_write_takes_its_place_and_one_before_is_refused(queue, budget):
    write = store(b"a:1", b"12", sent_ns=5)
    write.settled_ns = 6
    queue.add_write(write)
    queue.add_fill(fill(b"a:1", b"1", sent_ns=6))
    assert queue.counts.refused == 1
    queue.add_fill(fill(b"a:1", b"1234", sent_ns=7))
    assert (queue.writes[b"a:1"].kind, queue.writes[b"a:1"].value) == (Kind.STORE, b"1234")
    assert queue.fills == {}
    assert spent(budget) == (1, 4)


def test_write_takes_the_place_of_a_waiting_fill(queue, budget):
    queue.add_fill(fill(b"a:1"))
    queue.add_write(change(Kind.EVICT, b"a:1"))
    assert (list(queue.fills), list(queue.writes)) == ([], [b"a:1"])
    assert spent(budget) == (1, 0)


def test_flush_drops_what_waits_and_refuses_the_fills_that_come(queue, budget):
    queue.add_fill(fill(b"a:1"))
    queue.add_write(store(b"a:2"))
    queue.add_write(change(Kind.EVICT, b"a:3", may_commit_later=True))
    queue.flush(may_commit_later=False)
    queue.add_fill(fill(b"a:4"))
    assert (list(queue.fills), list(queue.writes)) == ([], [b"a:3"])
    assert queue.counts.refused == 2
    assert spent(budget) == (1, 0)
    assert queue.waits(b"a:3")
    assert not queue.waits(b"a:2")


def test_first_flush_that_waits_tells_since_when(queue):
    queue.flush(may_commit_later=False)
    since = queue.flush_since_ns
    queue.flush(may_commit_later=True)
    assert queue.flush_since_ns == since
    assert queue.take_flush()
    assert not queue.flush_waits
    queue.flush(may_commit_later=False)
    assert queue.flush_since_ns > since
    assert not queue.take_flush()


def test_newest_fill_is_dropped_first(queue, budget):
    for i in range(3):
        queue.add_fill(fill(b"a:%d" % i))
    queue.drop_newest_fill()
    assert list(queue.fills) == [b"a:0", b"a:1"]
    assert queue.counts.dropped == 1
    assert spent(budget) == (2, 10)


# What is taken.


def test_changes_are_taken_in_their_order_up_to_a_number_of_keys(queue, budget):
    for i in range(4):
        queue.add_fill(fill(b"a:%d" % i))
    taken, room = queue.take(queue.fills, 3, 1000, 0)
    assert [each.key for each in taken] == [b"a:0", b"a:1", b"a:2"]
    assert room == 1000 - 3 * (3 + 5 + OVERHEAD)
    assert spent(budget) == (1, 5)
    assert [each.key for each in queue.take(queue.fills, 3, 1000, 0)[0]] == [b"a:3"]
    assert spent(budget) == (0, 0)


def test_change_that_uses_up_the_room_is_the_last_one_taken(queue):
    for i in range(3):
        queue.add_write(store(b"a:%d" % i))
    taken, room = queue.take(queue.writes, 10, OVERHEAD + 9, 0)
    assert [each.key for each in taken] == [b"a:0", b"a:1"]
    assert room <= 0


@pytest.mark.parametrize("value", [b"12345", {b"v": b"1234"}], ids=["value", "hash"])
def test_what_was_sent_too_long_ago_is_refused_or_evicted(queue, budget, value):
    queue.add_fill(fill(b"a:1", value, sent_ns=5))
    queue.add_fill(fill(b"a:2", value, sent_ns=6))
    queue.add_write(store(b"a:3", value, sent_ns=5))
    assert [each.key for each in queue.take(queue.fills, 10, 1000, 6)[0]] == [b"a:2"]
    assert queue.counts.refused == 1
    [write] = queue.take(queue.writes, 10, 1000, 6)[0]
    assert (write.kind, write.value, write.seq) == (Kind.EVICT, None, 0)
    assert spent(budget) == (0, 0)


# What comes back.


def test_fill_that_comes_back_is_merged_with_what_came_since(queue, budget):
    queue.add_fill(fill(b"a:1", b"new", sent_ns=6))
    queue.add_write(change(Kind.EVICT, b"a:2"))
    for key in (b"a:1", b"a:2", b"a:3"):
        queue.put_back_fill(fill(key, b"old", sent_ns=5))
    assert {key: each.value for key, each in queue.fills.items()} == {b"a:1": b"new", b"a:3": b"old"}
    assert list(queue.writes) == [b"a:2"]
    assert spent(budget) == (3, 6)


def test_fill_that_comes_back_to_a_flush_is_refused(queue, budget):
    queue.flush(may_commit_later=False)
    queue.put_back_fill(fill(b"a:1"))
    assert queue.counts.refused == 1
    assert spent(budget) == (0, 0)


def test_write_that_comes_back_is_merged_with_what_came_since(queue, budget):
    queue.add_fill(fill(b"a:1", b"read", sent_ns=9))
    queue.add_write(store(b"a:2", b"new", sent_ns=9))
    for key in (b"a:1", b"a:2", b"a:3"):
        queue.put_back_write(store(key, b"old", sent_ns=5))
    assert {key: each.value for key, each in queue.writes.items()} == {b"a:1": b"read", b"a:2": b"new", b"a:3": b"old"}
    assert spent(budget) == (3, 10)
