"""The arguments of the scripts, argument by argument. What the scripts do with them is tested against real servers."""

from dataclasses import replace

import pytest

from cache.changes import Kind
from cache.counts import RuleCounts
from cache.delivery.batches import Batch, Part
from cache.delivery.blocks import Block, BlockRequest, Release
from cache.delivery.packing import Identity, apply_arguments, block_arguments, join_arguments, scanned_arguments
from cache.delivery.queues import Budget, RuleQueue, definition
from tests.cache.delivery.offline import A, B, change

IDENTITY = Identity(b"w", b"token", 7)
LIFE = 60_000


def queue_of(rule):
    return RuleQueue(rule, Budget(10, 100), RuleCounts())


def packed(batch, *, out_of_memory=False):
    return apply_arguments(batch, IDENTITY, 1234, LIFE, out_of_memory=out_of_memory)


def packed_changes(*changes, fills=False, rule=A, out_of_memory=False):
    """The arguments of the changes themselves, behind those of the batch."""
    arguments = packed(Batch([Part(queue_of(rule), fills, list(changes))], []), out_of_memory=out_of_memory)
    return arguments[1 + len(changes) + 11 + 1 :]


def test_batch_says_what_it_has_before_its_changes():
    a, b = queue_of(A), queue_of(B)
    write, read = change(Kind.EVICT, b"a:1"), change(Kind.FILL, b"b:1", b"v", B)
    batch = Batch([Part(a, False, [write]), Part(b, True, [read])], [(b, True), (a, False)])
    assert packed(batch) == [
        *(2, b"a:1", b"b:1"),
        *(b"w", b"token", 7, 1234, 0, 1, LIFE, 2, 2, 0, 2),
        *(b"s.a", b"s.b"),
        *(2, LIFE, 1, 0),
        *(b"E", b"1", 10, 0),
        *(b"F", b"2", 10, b"0", b"v"),
    ]


def test_batch_of_fills_has_no_write():
    batch = Batch([Part(queue_of(A), True, [change(Kind.FILL, b"a:1", b"v")])], [])
    assert packed(batch)[2:8] == [b"w", b"token", 7, 1234, 0, 0]


@pytest.mark.parametrize(
    ("made", "fills", "arguments"),
    [
        (change(Kind.FILL, b"k", b"v"), True, [b"F", b"1", 10, b"0", b"v"]),
        (change(Kind.STORE, b"k", b"v"), False, [b"S", b"1", 10, b"0", b"v"]),
        (change(Kind.FILL, b"k", {b"a": b"1"}), True, [b"f", b"1", 10, b"0", 1, b"a", b"1"]),
        (change(Kind.STORE, b"k", {b"a": b"1", b"b": b"2"}), False, [b"s", b"1", 10, b"0", 2, b"a", b"1", b"b", b"2"]),
        (
            change(Kind.STORE, b"k", {b"a": b"1"}, partial=True, removed=(b"b", b"c")),
            False,
            [b"p", b"1", 10, 1, b"a", b"1", 2, b"b", b"c"],
        ),
        (change(Kind.EVICT, b"k"), False, [b"E", b"1", 10, 0]),
        (change(Kind.EVICT, b"k", may_commit_later=True), False, [b"E", b"1", 10, LIFE]),
    ],
    ids=["fill", "store", "fill a hash", "store a hash", "update a hash", "evict", "evict, may commit later"],
)
def test_operation_and_arguments_of_a_change(made, fills, arguments):
    assert packed_changes(made, fills=fills) == arguments


def test_ttl_is_the_rules_and_shorter_at_random_where_jitter_is_wanted():
    store = change(Kind.STORE, b"k", b"v")
    assert packed_changes(store, rule=replace(A, ttl=5000))[3] == b"5000"
    ttls = [packed_changes(store, rule=replace(A, ttl=5000, ttl_jitter=0.5))[3] for _ in range(100)]
    assert min(ttls) >= 2500
    assert max(ttls) <= 5000
    assert len(set(ttls)) > 10
    assert packed_changes(store, rule=replace(A, ttl=1, ttl_jitter=1.0))[3] == 1, "0 would mean no expiry"


def test_out_of_memory_writes_only_remove_and_fills_are_sent_to_be_refused():
    store, update = change(Kind.STORE, b"k", b"v"), change(Kind.STORE, b"l", {b"a": b"1"}, partial=True)
    assert packed_changes(store, update, out_of_memory=True) == [b"E", b"1", 10, 0, b"E", b"1", 10, 0]
    reads = change(Kind.FILL, b"k", b"v"), change(Kind.FILL, b"l", {b"a": b"1"})
    assert packed_changes(*reads, fills=True, out_of_memory=True) == [b"F", b"1", 0, 0, b""] * 2
    batch = Batch([Part(queue_of(A), False, [store])], [])
    assert packed(batch, out_of_memory=True)[6] == 1


def test_releases_name_keys_and_rules_that_no_change_is_there_for():
    block = Block("t.1", {b"a:1": A.label, b"a:2": A.label}, (A.label, B.label))
    releases = (
        Release(block, b"a:1", A.label),
        Release(block, b"a:2", A.label),
        Release(block, b"", A.label),
        Release(block, b"", B.label),
    )
    batch = Batch([Part(queue_of(A), False, [change(Kind.EVICT, b"a:1")])], [], releases)
    assert packed(batch) == [
        *(2, b"a:1", b"a:2"),
        *(b"w", b"token", 7, 1234, 0, 1, LIFE, 1, 2, 4, 0),
        *(b"s.a", b"s.b"),
        *(1, b"t.1", 2, b"t.1", -1, b"t.1", -2, b"t.1"),
        *(b"E", b"1", 10, 0),
    ]


def test_join_has_label_and_definition_of_each_rule():
    arguments = join_arguments(IDENTITY, registered=True, run_id=b"run", lease_ms=30_000, fence_life=LIFE, rules=[A, B])
    assert arguments == [
        *(0, b"w", b"token", 7, 1, b"run", 30_000, LIFE),
        *(b"s.a", definition(A).encode(), b"s.b", definition(B).encode()),
    ]


def test_block_has_the_blocks_name_of_each_rule_and_key():
    one, other = Block("t.1", {}, ()), Block("t.2", {}, ())
    request = BlockRequest([(b"a:1", one), (b"a:2", other)], [("s.b", other)], [])
    assert block_arguments(request, IDENTITY, LIFE) == [
        *(2, b"a:1", b"a:2"),
        *(b"w", b"token", 7, LIFE, 1, b"s.b", b"t.2"),
        *(b"t.1", b"t.2"),
    ]


def test_scanned_has_label_and_block_of_each_rule():
    assert scanned_arguments([("s.a", "t.1"), ("s.b", "t.2")]) == [0, b"s.a", b"t.1", b"s.b", b"t.2"]
