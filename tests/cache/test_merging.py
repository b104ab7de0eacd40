"""What two changes of one key become while they wait."""

import pytest

from cache.changes import Change, Kind
from cache.keys import KeyTemplate
from cache.merging import merge
from cache.rules import TableRule, ValueFormat

TEMPLATE = KeyTemplate.default(database="d", schema="s", table="t", key_columns=("id",))
RULE = TableRule("d", "s", "t", ("id",), ("a",), TEMPLATE, ValueFormat.HASH)


def make(kind, sent_ns, settled_ns, value=None, **facts):
    facts.setdefault("seq", sent_ns)
    return Change(kind, RULE, b"t:1", value, sent_ns=sent_ns, settled_ns=settled_ns, **facts)


def fill(sent_ns, settled_ns, value=b"f", **facts):
    return make(Kind.FILL, sent_ns, settled_ns, value, **facts)


def store(sent_ns, settled_ns, value=b"s", **facts):
    return make(Kind.STORE, sent_ns, settled_ns, value, **facts)


def evict(sent_ns, settled_ns, **facts):
    return make(Kind.EVICT, sent_ns, settled_ns, **facts)


def outcome(change):
    return change.kind, change.value, change.seq


@pytest.mark.parametrize("first", [store(1, 3), evict(1, 3)], ids=["store", "evict"])
def test_write_sent_after_another_settled_replaces_it(first):
    assert outcome(merge(first, store(4, 6, b"new"))) == (Kind.STORE, b"new", 4)


@pytest.mark.parametrize("sent_ns", [2, 3])
def test_overlapping_writes_become_an_evict(sent_ns):
    merged = merge(store(1, 3), store(sent_ns, 5))
    assert outcome(merged) == (Kind.EVICT, None, sent_ns)
    assert merged.settled_ns == 5
    assert merge(merged, store(4, 7, b"x")).kind is Kind.EVICT


def test_fill_sent_before_the_write_settled_is_dropped():
    write = store(1, 3)
    assert merge(write, fill(3, 5)) is write
    assert outcome(write) == (Kind.STORE, b"s", 1)


@pytest.mark.parametrize("write", [store(1, 3), evict(1, 3)], ids=["store", "evict"])
def test_fill_sent_after_the_write_settled_takes_its_place_with_its_own_date(write):
    merged = merge(write, fill(4, 6, seq=9))
    assert outcome(merged) == (Kind.STORE, b"f", 9)
    assert merged.settled_ns == 3, "the write's, so that the next write is not thought to overlap"
    assert outcome(merge(merged, store(5, 8, b"n"))) == (Kind.STORE, b"n", 5)


def test_later_dated_of_two_fills_stays():
    early, late = fill(1, 9, b"early"), fill(2, 8, b"late")
    assert merge(early, late) is late
    assert merge(late, early) is late
    placed = merge(evict(0, 0), fill(5, 6, b"late"))
    assert merge(placed, fill(4, 7, b"early")).value == b"late"
    assert merge(placed, fill(6, 7, b"later")).value == b"later"


def test_write_replaces_a_fill_whenever_that_was_sent():
    assert outcome(merge(fill(2, 3), store(1, 4))) == (Kind.STORE, b"s", 1)
    assert outcome(merge(fill(2, 3), evict(1, 4))) == (Kind.EVICT, None, 1)


def test_write_that_may_commit_later_is_never_replaced_by_a_value():
    late = evict(1, 3, may_commit_later=True)
    assert merge(late, fill(4, 5)) is late
    merged = merge(late, store(6, 7))
    assert (merged.kind, merged.may_commit_later) == (Kind.EVICT, True)
    merged = merge(store(1, 2), evict(3, 4, may_commit_later=True))
    assert (merged.kind, merged.may_commit_later) == (Kind.EVICT, True)


def test_partial_value_over_a_whole_one_has_the_older_date():
    whole = store(1, 3, {b"a": b"1", b"b": b"2", b"c": b"3"})
    merged = merge(whole, store(4, 6, {b"a": b"9"}, partial=True, removed=(b"b",)))
    assert outcome(merged) == (Kind.STORE, {b"a": b"9", b"c": b"3"}, 1)
    assert (merged.partial, merged.removed, merged.settled_ns) == (False, (), 6)
    assert outcome(merge(fill(2, 3, {b"a": b"1", b"b": b"2"}), store(1, 4, {b"a": b"9"}, partial=True))) == (
        Kind.STORE,
        {b"a": b"9", b"b": b"2"},
        1,
    )


def test_two_partial_values_become_one():
    first = store(1, 3, {b"a": b"1", b"b": b"2"}, partial=True, removed=(b"c", b"d"))
    merged = merge(first, store(4, 6, {b"c": b"3"}, partial=True, removed=(b"a",)))
    assert outcome(merged) == (Kind.STORE, {b"b": b"2", b"c": b"3"}, 1)
    assert merged.partial
    assert set(merged.removed) == {b"a", b"d"}


def test_partial_value_after_a_removal_or_an_overlap_is_a_removal():
    assert merge(evict(1, 3), store(4, 6, {b"a": b"1"}, partial=True)).kind is Kind.EVICT
    merged = merge(store(1, 5, {b"a": b"0"}), store(4, 6, {b"a": b"1"}, partial=True))
    assert (merged.kind, merged.partial, merged.removed) == (Kind.EVICT, False, ())


def test_whole_value_replaces_a_partial_one():
    merged = merge(store(1, 3, {b"a": b"0"}, partial=True), store(4, 6, {b"b": b"1"}))
    assert (merged.value, merged.partial) == ({b"b": b"1"}, False)
