"""The ordering rules leave no stale value, and each of them is needed.

`DEEP=1` looks at every program of four operations, and at every one of three with every event.
"""

import random

import pytest

from tests.consistency.model import BLOCK_RULES, BLOCKED_KINDS, KINDS, RULES, Model
from tests.consistency.model_canonical import Canonical
from tests.consistency.model_search import Search, anything, describe, program, programs
from tests.depth import depth, only_deep, patient

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
    "combined fields have the older date": ("store0 partial0 store1", "heartbeat"),
    "a partial value is written to a hash that is there": ("partial0", ""),
    "a new date needs a write that began later": ("store0 store0", ""),
    "a new date needs that no other write came between": ("unknown0 fill0 store1", ""),
    "a batch of unknown outcome is sent again": ("store0", "lost"),
    "what is too old is evicted or dropped": ("store0 fill1", "age"),
    "a batch under way for too long is refused": ("store0 fill1", "age"),
    "a new epoch counts from above all dates": ("store0 fill1", "restore"),
    "a new epoch flushes": ("store0", "restore"),
    "a write waits for its block": ("store0", ""),
    "a block removes the key": ("store0", ""),
    "a Flush's block looks for keys after it is set": ("flush0", ""),
    "a block refuses Fills": ("store0 fill0", ""),
    "a block makes others' Stores evict": ("store0 store1", ""),
    "a block is released with the outcome": ("store0 fill1", ""),
}
"""For each rule, operations (kind and worker) and an event that go wrong without it."""
EVENTS = [(), ("lost",), ("age",), ("heartbeat",), ("restore",)]
BLOCKS = pytest.mark.parametrize("before_commit", [False, True], ids=["", "before_commit"])


def kinds(before_commit):
    return BLOCKED_KINDS if before_commit else KINDS


def check(length, events=(), *, before_commit=False):
    search = Search(Model(before_commit=before_commit), anything(length, kinds(before_commit)), events)
    found = search.stale()
    assert found is None, f"{length} operations {events}\n{describe(found)}"


def test_every_rule_has_a_witness():
    assert set(WITNESSES) == {*RULES, *BLOCK_RULES}


@pytest.mark.parametrize("rule", WITNESSES)
def test_a_key_is_stale_when_the_rule_is_left_out(rule):
    """With the operations that show it, and with as many operations of any worker and kind."""
    text, events = WITNESSES[rule]
    model = Model([rule], before_commit=rule in BLOCK_RULES)
    ops = program(text)
    assert Search(model, ops, events.split()).stale(), "the rule is not needed for this"
    some = {kind for _, (kind,) in ops}
    assert Search(model, anything(len(ops), depth(some, kinds(model.before_commit))), events.split()).stale()


@pytest.mark.parametrize("events", [(), ("lost",), ("age",), ("heartbeat",), ("restore",)], ids=str)
def test_no_key_is_stale_after_two_operations(events):
    check(2, events)


@pytest.mark.parametrize("events", [(), ("lost",), ("age",), ("heartbeat",), ("hurry",)], ids=str)
def test_no_key_is_stale_after_two_operations_with_blocks(events):
    check(2, events, before_commit=True)


@BLOCKS
def test_no_key_is_stale_after_three_operations(before_commit):
    check(3, before_commit=before_commit)


@only_deep
@patient
@BLOCKS
@pytest.mark.parametrize("events", [("age", "lost"), ("heartbeat", "lost"), ("lost", "restore")], ids=str)
def test_no_key_is_stale_after_two_operations_with_two_events(events, before_commit):
    check(2, events, before_commit=before_commit)


@only_deep
@patient
@BLOCKS
@pytest.mark.parametrize("events", [("lost",), ("age",), ("heartbeat",), ("restore",), ("hurry",)], ids=str)
def test_no_key_is_stale_after_three_operations_with_an_event(events, before_commit):
    if events == ("hurry",) and not before_commit:
        pytest.skip("there is nothing to wait for")
    check(3, events, before_commit=before_commit)


@only_deep
@patient
@BLOCKS
def test_no_key_is_stale_after_four_operations(before_commit):
    check(4, before_commit=before_commit)


# The search looks at few of the states there are. These look at all of them.


@patient
@pytest.mark.parametrize("rule", [None, *WITNESSES])
def test_the_search_finds_what_a_whole_search_finds(rule):
    """In programs of two operations, with and without an event, where a rule is left out or none is."""
    before_commit = rule in BLOCK_RULES or random.random() < 0.3
    model = Model([rule] if rule else [], before_commit=before_commit)
    events = depth([(), ("lost",), ("age",), ("heartbeat",)], EVENTS)
    ways = [(ops, event) for ops in programs(2, kinds(before_commit)) for event in events]
    for ops, event in random.sample(ways, depth(1, 50)):
        reduced, whole = (Search(model, ops, event, whole=whole).stale() is not None for whole in (False, True))
        assert reduced == whole, (ops, event)


@patient
@BLOCKS
@pytest.mark.parametrize("events", [*EVENTS, ("lost", "restore"), ("age", "lost")], ids=str)
def test_states_taken_for_one_are_followed_by_the_same(events, before_commit):
    """Nothing that is forgotten matters: the states that follow a state, and those that follow the one it is taken for,
    are taken for the same. With all rules, and without any one of them.
    """
    rules = [*RULES, *(BLOCK_RULES if before_commit else ())]
    for without in [[], *([rule] for rule in random.sample(rules, depth(1, 10)))]:
        model = Model(without, before_commit=before_commit)
        search = Search(model, anything(2, kinds(before_commit)), events, whole=True)
        canonical = Canonical(model, events, symmetric=True)
        stack = [search.canonical(start) for start in search.starts()]
        seen = set(stack)
        for _ in range(depth(40, 2000)):
            if not stack:
                break
            # Anywhere in the middle: the last ones would be alike.
            state = stack.pop(random.randrange(len(stack)))
            same = canonical(state)
            following = {search.canonical(x) for x in search.moves(state)}
            # A step that changes nothing is none.
            assert {same, *map(canonical, following)} == {same, *map(canonical, search.moves(same))}, describe([state])
            assert bool(search.wrong(state)) == bool(search.wrong(same)), describe([state])
            assert canonical(same) == same
            stack += following - seen
            seen |= following
