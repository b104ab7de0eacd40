"""TransactionBuffer: what is released, discarded or evicted, for every way a transaction can go."""

from __future__ import annotations

from cache.capture.transaction import (
    MAX_BYTES,
    MAX_CHANGES,
    TransactionBuffer,
    last_of_each,
)
from cache.changes import Change, Kind
from cache.keys import KeyTemplate
from cache.rules import TableRule
from protocol.codes import FAILED_TRANSACTION, IDLE, IN_TRANSACTION

RULE = TableRule(
    "app", "public", "users", ("id",), ("name",),
    KeyTemplate.parse("users:{id}", database="app", schema="public", table="users", key_columns=("id",)),
)  # fmt: skip


def store(key: str) -> Change:
    return Change(Kind.STORE, RULE, key.encode(), b"value", 1, 1)


def keys(changes: list[Change]) -> list[str]:
    return [f"{change.kind.name} {change.key.decode()}" for change in changes]


def test_changes_outside_a_block_are_released_at_ready_for_query():
    buffer = TransactionBuffer()
    buffer.add([store("a")])
    assert keys(buffer.ready(IDLE)) == ["STORE a"]
    assert buffer.ready(IDLE) == []


def test_error_outside_a_block_discards_all_up_to_ready_for_query():
    buffer = TransactionBuffer()
    buffer.add([store("a")])
    buffer.fail()
    assert buffer.ready(IDLE) == []
    buffer.add([store("b")])
    assert keys(buffer.ready(IDLE)) == ["STORE b"]


def test_changes_in_a_block_are_kept_until_commit():
    buffer = TransactionBuffer()
    assert buffer.ready(IN_TRANSACTION) == []
    buffer.add([store("a")])
    assert buffer.ready(IN_TRANSACTION) == []
    assert keys(buffer.commit()) == ["STORE a"]
    assert buffer.ready(IDLE) == []
    assert not buffer.dirty


def test_rollback_discards_the_changes():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    assert buffer.rollback() == []
    assert buffer.ready(IDLE) == []


def test_error_at_commit_discards_the_changes():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    buffer.ready(IN_TRANSACTION)
    buffer.fail()
    assert buffer.ready(IDLE) == []
    assert buffer.pending == []


def test_failed_block_keeps_changes_before_a_savepoint_it_is_rolled_back_to():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    buffer.savepoint("s")
    buffer.add([store("b")])
    buffer.fail()
    assert buffer.ready(FAILED_TRANSACTION) == []
    buffer.rollback_to("s")
    buffer.add([store("c")])
    assert buffer.ready(IN_TRANSACTION) == []
    assert keys(buffer.commit()) == ["STORE a", "STORE c"]


def test_rollback_to_means_the_savepoint_of_that_name_set_last():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.savepoint("s")
    buffer.add([store("a")])
    buffer.savepoint("s")
    buffer.add([store("b")])
    buffer.rollback_to("s")
    buffer.rollback_to("s")  # the savepoint itself stays
    assert keys(buffer.pending) == ["STORE a"]
    buffer.release("s")
    buffer.rollback_to("s")  # now the older one
    assert buffer.pending == []


def test_released_changes_are_discarded_by_a_rollback_to_an_outer_savepoint():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.savepoint("outer")
    buffer.savepoint("inner")
    buffer.add([store("a")])
    buffer.release("inner")
    buffer.add([store("b")])
    buffer.rollback_to("outer")
    assert buffer.commit() == []


def test_rollback_to_a_savepoint_that_was_set_unseen_evicts():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    buffer.rollback_to("unseen")
    assert keys(buffer.commit()) == ["EVICT a"]


def test_block_whose_end_was_not_seen_evicts():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    assert keys(buffer.ready(IDLE)) == ["EVICT a"]


def test_rollback_evicts_if_a_part_may_have_been_committed_unseen():
    buffer = TransactionBuffer()
    buffer.add([store("a")])
    buffer.mark_uncertain()
    buffer.fail()
    assert keys(buffer.ready(IDLE)) == ["EVICT a"]


def test_lost_session_with_nothing_unanswered_discards_its_block():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    assert buffer.lost(unanswered=False) == []


def test_lost_session_with_requests_unanswered_evicts():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a"), Change(Kind.FLUSH, RULE, b"", None, 1, 1)])
    assert keys(buffer.lost(unanswered=True)) == ["EVICT a", "FLUSH "]


def test_start_is_that_of_the_first_statement():
    buffer = TransactionBuffer()
    buffer.touch(5, 50)
    buffer.touch(6, 60)
    assert buffer.start == (5, 50)
    buffer.ready(IN_TRANSACTION)
    buffer.commit()
    assert buffer.start is None


def test_transaction_is_dirty_from_its_first_write_until_that_is_undone():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.savepoint("s")
    buffer.add([store("a")])
    assert buffer.dirty
    buffer.rollback_to("s")
    assert not buffer.dirty
    buffer.add([])
    assert buffer.dirty, "a write that changed no configured row still happened"


def test_last_write_of_each_key_is_released():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    evicted = Change(Kind.EVICT, RULE, b"a", None, 1, 1)
    buffer.add([store("a"), store("b"), evicted, store("a")])
    assert keys(buffer.commit()) == ["STORE a", "STORE b"]
    buffer.add([store("a"), evicted])
    assert keys(buffer.ready(IDLE)) == ["EVICT a"]


def test_flush_replaces_the_keys_of_its_rule():
    buffer = TransactionBuffer()
    buffer.add([store("a"), Change(Kind.FLUSH, RULE, b"", None, 1, 1), store("b")])
    assert keys(buffer.ready(IDLE)) == ["FLUSH "]


def test_partial_values_of_one_transaction_are_merged():
    whole = Change(Kind.STORE, RULE, b"a", {b"x": b"1", b"y": b"1"}, 1, 1)

    def part() -> Change:
        return Change(Kind.STORE, RULE, b"a", {b"x": b"2"}, 2, 2, partial=True, removed=(b"y",))

    (left,) = last_of_each([whole, part()])
    assert (left.value, left.partial, left.seq) == ({b"x": b"2"}, False, 1)
    (left,) = last_of_each([Change(Kind.EVICT, RULE, b"a", None, 1, 1), part()])
    assert left.kind is Kind.EVICT


OTHER = TableRule(
    "app", "public", "orders", ("id",), ("note",),
    KeyTemplate.parse("orders:{id}", database="app", schema="public", table="orders", key_columns=("id",)),
)  # fmt: skip


def large(key: str, size: int = MAX_BYTES // 4) -> Change:
    return Change(Kind.STORE, RULE, key.encode(), b"v" * size, 1, 1)


def many(rule: TableRule, count: int) -> list[Change]:
    return [Change(Kind.EVICT, rule, b"%d" % number, None, 7, 7) for number in range(count)]


def begun() -> TransactionBuffer:
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    return buffer


def test_stores_become_evicts_if_their_values_are_too_large():
    buffer = begun()
    for key in "abcd":
        buffer.add([large(key)])
    buffer.add([store("e")])
    buffer.add([store("f")])
    assert keys(buffer.commit()) == [*(f"EVICT {key}" for key in "abcde"), "STORE f"]
    buffer.add([large("a")])
    assert keys(buffer.ready(IDLE)) == ["STORE a"], "the next transaction has its own room"


def test_keys_that_are_written_again_count_once_towards_the_limits():
    buffer = begun()
    for _ in range(100):
        buffer.add([large("a"), store("b")])
    for _ in range(3):
        buffer.add(many(OTHER, MAX_CHANGES // 3))
        buffer.add([store(key) for key in "abc" * (MAX_CHANGES // 6)])
    assert len(buffer.pending) <= MAX_CHANGES
    flushes = [change for change in buffer.commit() if change.kind is Kind.FLUSH]
    assert flushes == []


def test_values_that_were_rolled_back_do_not_count_towards_the_limit():
    buffer = begun()
    for _ in range(10):
        buffer.savepoint("s")
        buffer.add([large("a")])
        buffer.rollback_to("s")
    buffer.add([large("b")])
    assert keys(buffer.commit()) == ["STORE b"]


def test_changes_before_and_behind_a_savepoint_are_not_merged():
    buffer = begun()
    buffer.add([store("a") for _ in range(MAX_CHANGES // 2)])
    buffer.savepoint("first")
    buffer.savepoint("second")
    buffer.add([large("a", 10), store("b")])
    buffer.savepoint("third")
    buffer.add([store("c") for _ in range(MAX_CHANGES // 2)])
    assert keys(buffer.pending) == ["STORE a", "STORE a", "STORE b", "STORE c"]
    buffer.rollback_to("third")
    assert keys(buffer.pending) == ["STORE a", "STORE a", "STORE b"]
    buffer.rollback_to("first")
    assert [(change.key, change.value) for change in buffer.commit()] == [(b"a", b"value")]


def test_rule_with_most_keys_is_flushed_if_there_are_too_many():
    buffer = begun()
    buffer.add([store("a")])
    buffer.add(many(OTHER, MAX_CHANGES - 1))
    assert len(buffer.pending) == MAX_CHANGES
    buffer.add([store("b")])
    buffer.add(many(OTHER, 3 * MAX_CHANGES))
    assert len(buffer.pending) == 3
    flush, *stores = buffer.commit()
    assert (flush.kind, flush.rule, flush.seq, flush.sent_ns) == (Kind.FLUSH, OTHER, 7, 7)
    assert keys(stores) == ["STORE a", "STORE b"]
    buffer.add(many(OTHER, 1))
    assert keys(buffer.ready(IDLE)) == ["EVICT 0"], "the next transaction remembers its keys again"


def test_two_rules_are_flushed_if_both_have_too_many_keys():
    buffer = begun()
    for rule in (RULE, OTHER):
        buffer.add(many(rule, MAX_CHANGES + 1))
    assert sorted(keys(buffer.commit())) == ["FLUSH ", "FLUSH "]


def test_flush_for_too_many_keys_stays_if_they_are_rolled_back():
    """Nothing tells what of it is left, and the savepoints before and behind it keep their places."""
    buffer = begun()
    buffer.savepoint("first")
    buffer.add([store("a")])
    buffer.savepoint("second")
    buffer.add(many(OTHER, MAX_CHANGES + 1))
    buffer.savepoint("third")
    buffer.add([store("b")])
    buffer.rollback_to("third")
    assert keys(buffer.pending) == ["FLUSH ", "STORE a"]
    buffer.rollback_to("second")
    assert keys(buffer.pending) == ["FLUSH ", "STORE a"]
    buffer.rollback_to("first")
    assert keys(buffer.pending) == ["FLUSH "]
    buffer.add([store("c")])
    assert keys(buffer.commit()) == ["FLUSH ", "STORE c"]


def test_rollback_discards_a_flush_for_too_many_keys():
    buffer = begun()
    buffer.add(many(OTHER, MAX_CHANGES + 1))
    assert buffer.rollback() == []


def test_rollback_to_a_savepoint_evicts_if_a_part_may_have_been_committed_unseen():
    buffer = begun()
    buffer.savepoint("s")
    buffer.add([store("a")])
    buffer.mark_uncertain()
    buffer.rollback_to("s")
    assert keys(buffer.commit()) == ["EVICT a"]


def test_flushes_and_evicts_stay_as_they_are_if_values_are_too_large():
    buffer = begun()
    buffer.add([Change(Kind.EVICT, RULE, b"z", None, 1, 1), Change(Kind.FLUSH, OTHER, b"", None, 1, 1)])
    for key in "abcde":
        buffer.add([large(key)])
    assert sorted(keys(buffer.commit())) == [*(f"EVICT {key}" for key in "abcdez"), "FLUSH "]


def test_changes_a_rollback_undoes_are_evicts_after_the_release_of_a_savepoint_set_unseen():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.savepoint("s")
    buffer.add([store("a")])
    buffer.release("unseen")
    buffer.rollback_to("s")
    assert keys(buffer.pending) == ["EVICT a"]
