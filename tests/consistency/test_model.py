"""The ordering rules leave no stale value, and each of them is needed.

`MODEL=deep` looks at every program of three operations with every event, and at those of four; it takes hours.
"""

import os

import pytest

from tests.consistency.model import BLOCK_RULES, KINDS, RULES, Model, describe, programs

DEEP = os.environ.get("MODEL") == "deep"

deep = pytest.mark.skipif(not DEEP, reason="takes long; MODEL=deep")

WITNESSES = {
    "a statement is dated when it is forwarded": ("store0 store0", ""),
    "a write sets the key's fence": ("store0 store1", ""),
    "a Flush sets the table's fence": ("flush0 fill1", ""),
    "a Store yields to a newer fence of its key": ("store0 store1", ""),
    "a Store yields to a newer fence of its table": ("store0 flush1", ""),
    "a Fill yields to a newer fence of its key": ("store0 fill1", ""),
    "a Fill yields to a newer fence of its table": ("flush0 fill1", ""),
    "a Flush looks for keys after its fence is set": ("store1 flush0", ""),
    "overlapping writes evict": ("store0 store0", ""),
    "a write ordered after another replaces it": ("store0 store0", ""),
    "a write replaces a waiting Fill": ("store0 fill0", ""),
    "a Fill that began before a waiting write ended is dropped": ("store0 fill0", ""),
    "a Fill in a write's place sets the fence": ("store0 fill0 fill1", ""),
    "a Fill in a write's place has the Fill's date": ("unknown0 fill0 store1", ""),
    "combined fields have the older date": ("store0 partial0 store1", "beat"),
    "a partial value is written to a hash that is there": ("partial0", ""),
    "a new date needs a write that began later": ("store0 store0", ""),
    "a new date needs that nobody else wrote": ("unknown0 fill0 store1", ""),
    "a batch of unknown fate is sent again": ("store0", "lost"),
    "what is too old is evicted or dropped": ("store0 fill1", "age"),
    "a batch under way for too long is refused": ("store0 fill1", "age"),
    "a new epoch counts from above all dates": ("store0 fill1", "restore"),
    "a new epoch flushes": ("store0", "restore"),
    "a write waits for its block": ("store0", ""),
    "a block removes the key": ("store0", ""),
    "a Flush's block looks for keys after its hold is set": ("flush0", ""),
    "a block refuses Fills": ("store0 fill0", ""),
    "a block makes others' Stores evict": ("store0 store1", ""),
    "a block is lifted with the outcome": ("store0 fill1", ""),
}
"""For each rule, operations (kind and worker) and an event that go wrong without it."""
LONG = ("beat", "restore")
"""Events that make for many states."""
BLOCKED_KINDS = (*KINDS, "undone")


def parse(text):
    return [(word[:-1], int(word[-1])) for word in text.split()]


def check(ops, events=(), *, before_commit=False):
    found = Model(before_commit=before_commit).stale(ops, events)
    assert found is None, f"{ops} {events}\n{describe(found)}"


def test_every_rule_has_a_witness():
    assert set(WITNESSES) == {*RULES, *BLOCK_RULES}


@pytest.mark.parametrize("rule", WITNESSES)
def test_without_the_rule_something_goes_wrong(rule):
    ops, events = WITNESSES[rule]
    model = Model([rule], before_commit=rule in BLOCK_RULES)
    assert model.stale(parse(ops), tuple(events.split())), "the rule is not needed for this"


@pytest.mark.parametrize("rule", WITNESSES)
def test_with_the_rule_nothing_does(rule):
    ops, events = WITNESSES[rule]
    if events in LONG and len(parse(ops)) > 1 and not DEEP:
        pytest.skip("takes long; MODEL=deep")
    check(parse(ops), tuple(events.split()), before_commit=rule in BLOCK_RULES)


@pytest.mark.parametrize("events", [(), ("lost",), ("age",), ("beat",)], ids=str)
def test_two_operations(events):
    for ops in programs(2):
        check(ops, events)


@pytest.mark.parametrize("events", [(), ("lost",), ("hurry",)], ids=str)
def test_two_operations_with_blocks(events):
    for ops in programs(2, BLOCKED_KINDS):
        check(ops, events, before_commit=True)


@pytest.mark.parametrize("before_commit", [False, True], ids=["", "before_commit"])
@pytest.mark.parametrize("ops", ["store0 store0 store1", "unknown0 fill0 fill1", "store0 flush1 fill0"])
def test_chosen_longer_programs(ops, before_commit):
    check(parse(ops), before_commit=before_commit)


@deep
@pytest.mark.timeout(0)
@pytest.mark.parametrize("events", [("restore",), ("age", "lost"), ("beat", "lost"), ("lost", "restore")], ids=str)
def test_two_operations_with_several_events(events):
    for ops in programs(2):
        check(ops, events)


@deep
@pytest.mark.timeout(0)
@pytest.mark.parametrize("events", [("age",), ("beat",), ("restore",), ("age", "lost"), ("hurry", "lost")], ids=str)
def test_two_operations_with_blocks_and_several_events(events):
    for ops in programs(2, BLOCKED_KINDS):
        check(ops, events, before_commit=True)


@deep
@pytest.mark.timeout(0)
@pytest.mark.parametrize("before_commit", [False, True], ids=["", "before_commit"])
@pytest.mark.parametrize(
    "events", [(), ("lost",), ("age",), ("beat",), ("restore",), ("age", "lost"), ("beat", "lost")], ids=str
)
def test_three_operations(events, before_commit):
    for ops in programs(3, BLOCKED_KINDS if before_commit else KINDS):
        check(ops, events, before_commit=before_commit)


@deep
@pytest.mark.timeout(0)
@pytest.mark.parametrize("before_commit", [False, True], ids=["", "before_commit"])
def test_four_operations(before_commit):
    for ops in programs(4):
        check(ops, before_commit=before_commit)
