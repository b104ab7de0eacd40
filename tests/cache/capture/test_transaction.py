"""TransactionBuffer: what is released, discarded or doubted, for every way a transaction can go."""

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


def test_an_implicit_transaction_is_true_at_ready_for_query():
    buffer = TransactionBuffer()
    buffer.add([store("a")])
    assert keys(buffer.ready(IDLE)) == ["STORE a"]
    assert buffer.ready(IDLE) == []


def test_an_error_undoes_the_whole_implicit_transaction():
    buffer = TransactionBuffer()
    buffer.add([store("a")])
    buffer.fail()
    assert buffer.ready(IDLE) == []
    buffer.add([store("b")])
    assert keys(buffer.ready(IDLE)) == ["STORE b"]


def test_a_block_holds_until_commit():
    buffer = TransactionBuffer()
    assert buffer.ready(IN_TRANSACTION) == []
    buffer.add([store("a")])
    assert buffer.ready(IN_TRANSACTION) == []
    assert keys(buffer.commit()) == ["STORE a"]
    assert buffer.ready(IDLE) == []
    assert not buffer.dirty


def test_a_rollback_discards():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    assert buffer.rollback() == []
    assert buffer.ready(IDLE) == []


def test_an_error_at_commit_discards():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    buffer.ready(IN_TRANSACTION)
    buffer.fail()
    assert buffer.ready(IDLE) == []
    assert buffer.pending == []


def test_a_failed_block_keeps_what_a_savepoint_can_bring_back():
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


def test_savepoints_of_one_name_shadow_each_other():
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


def test_release_keeps_changes_for_the_outer_savepoint_to_undo():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.savepoint("outer")
    buffer.savepoint("inner")
    buffer.add([store("a")])
    buffer.release("inner")
    buffer.add([store("b")])
    buffer.rollback_to("outer")
    assert buffer.commit() == []


def test_rolling_back_to_a_savepoint_nobody_saw_doubts_everything():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    buffer.rollback_to("unseen")
    assert keys(buffer.commit()) == ["EVICT a"]


def test_a_block_that_ends_unseen_evicts():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    assert keys(buffer.ready(IDLE)) == ["EVICT a"]


def test_a_rollback_after_something_unseen_evicts_what_may_have_escaped():
    buffer = TransactionBuffer()
    buffer.add([store("a")])
    buffer.mark_uncertain()
    buffer.fail()
    assert keys(buffer.ready(IDLE)) == ["EVICT a"]


def test_a_session_lost_at_rest_in_a_block_was_rolled_back():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a")])
    assert buffer.lost(unanswered=False) == []


def test_a_session_lost_with_a_request_unanswered_may_have_committed():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.add([store("a"), Change(Kind.FLUSH, RULE, b"", None, 1, 1)])
    assert keys(buffer.lost(unanswered=True)) == ["EVICT a", "FLUSH "]


def test_the_transaction_is_dated_from_its_first_statement():
    buffer = TransactionBuffer()
    buffer.touch(5, 50)
    buffer.touch(6, 60)
    assert buffer.start == (5, 50)
    buffer.ready(IN_TRANSACTION)
    buffer.commit()
    assert buffer.start is None


def test_own_writes_make_reads_dirty_until_undone():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    buffer.savepoint("s")
    buffer.add([store("a")])
    assert buffer.dirty
    buffer.rollback_to("s")
    assert not buffer.dirty
    buffer.add([])
    assert buffer.dirty, "a write that changed no configured row still happened"


def test_the_last_write_of_a_key_is_what_a_transaction_leaves():
    buffer = TransactionBuffer()
    buffer.ready(IN_TRANSACTION)
    evicted = Change(Kind.EVICT, RULE, b"a", None, 1, 1)
    buffer.add([store("a"), store("b"), evicted, store("a")])
    assert keys(buffer.commit()) == ["STORE a", "STORE b"]
    buffer.add([store("a"), evicted])
    assert keys(buffer.ready(IDLE)) == ["EVICT a"]


def test_a_flush_stands_for_its_rules_keys():
    buffer = TransactionBuffer()
    buffer.add([store("a"), Change(Kind.FLUSH, RULE, b"", None, 1, 1), store("b")])
    assert keys(buffer.ready(IDLE)) == ["FLUSH "]


def test_partial_values_of_one_transaction_come_together():
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


def test_more_values_than_can_be_held_are_given_up():
    buffer = begun()
    for key in "abcd":
        buffer.add([large(key)])
    buffer.add([store("e")])
    buffer.add([store("f")])
    assert keys(buffer.commit()) == [*(f"EVICT {key}" for key in "abcde"), "STORE f"]
    buffer.add([large("a")])
    assert keys(buffer.ready(IDLE)) == ["STORE a"], "the next transaction has its own room"


def test_the_same_keys_written_again_and_again_take_the_room_of_one_write():
    buffer = begun()
    for _ in range(100):
        buffer.add([large("a"), store("b")])
    for _ in range(3):
        buffer.add(many(OTHER, MAX_CHANGES // 3))
        buffer.add([store(key) for key in "abc" * (MAX_CHANGES // 6)])
    assert len(buffer.pending) <= MAX_CHANGES
    flushes = [change for change in buffer.commit() if change.kind is Kind.FLUSH]
    assert flushes == []


def test_what_was_undone_takes_no_room():
    buffer = begun()
    for _ in range(10):
        buffer.savepoint("s")
        buffer.add([large("a")])
        buffer.rollback_to("s")
    buffer.add([large("b")])
    assert keys(buffer.commit()) == ["STORE b"]


def test_what_a_savepoint_keeps_is_not_merged_with_what_came_after_it():
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


def test_of_more_keys_than_can_be_held_the_fullest_rule_is_flushed():
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


def test_both_rules_may_have_too_many():
    buffer = begun()
    for rule in (RULE, OTHER):
        buffer.add(many(rule, MAX_CHANGES + 1))
    assert sorted(keys(buffer.commit())) == ["FLUSH ", "FLUSH "]


def test_a_flush_for_many_keys_outlasts_their_undoing():
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


def test_a_transaction_of_many_keys_that_is_undone_changes_nothing():
    buffer = begun()
    buffer.add(many(OTHER, MAX_CHANGES + 1))
    assert buffer.rollback() == []
