"""The ordering rules leave no stale value, and each of them is needed.

`ROWTAP_MODEL=deep` looks at every program of three operations with every event, and at those of four; it takes hours.
"""

import os

import pytest
from consistency.model import KINDS, RULES, Model, describe, programs

DEEP = os.environ.get("ROWTAP_MODEL") == "deep"

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
}
"""For each rule, operations (kind and worker) and an event that go wrong without it."""


def parse(text):
    return [(word[:-1], int(word[-1])) for word in text.split()]


def stale(model, ops, events=()):
    for warm in (True, False):
        found = model.stale(ops, events, warm=warm)
        if found:
            return found
    return None


def check(ops, events=()):
    found = stale(Model(), ops, events)
    assert found is None, f"{ops} {events}\n{describe(found)}"


def test_every_rule_has_a_witness():
    assert set(WITNESSES) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_a_stale_value_stays(rule):
    ops, events = WITNESSES[rule]
    assert stale(Model([rule]), parse(ops), tuple(events.split())), "the rule is not needed for this"


@pytest.mark.parametrize("rule", RULES)
def test_with_the_rule_none_stays(rule):
    ops, events = WITNESSES[rule]
    if events in ("beat", "restore") and len(parse(ops)) > 1 and not DEEP:
        pytest.skip("takes long; ROWTAP_MODEL=deep")
    check(parse(ops), tuple(events.split()))


@pytest.mark.parametrize("events", [(), ("lost",), ("age",), ("beat",)], ids=str)
def test_two_operations(events):
    for ops in programs(2):
        check(ops, events)


@pytest.mark.parametrize("ops", ["store0 store0 store1", "unknown0 fill0 fill1", "store0 flush1 fill0"])
def test_chosen_longer_programs(ops):
    check(parse(ops))


@pytest.mark.skipif(not DEEP, reason="takes long; ROWTAP_MODEL=deep")
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "events", [(), ("lost",), ("age",), ("restore",), ("age", "lost"), ("beat", "lost"), ("lost", "restore")], ids=str
)
def test_three_operations(events):
    for ops in programs(3):
        check(ops, events)


@pytest.mark.skipif(not DEEP, reason="takes long; ROWTAP_MODEL=deep")
@pytest.mark.timeout(0)
def test_four_operations():
    for ops in programs(4, KINDS):
        check(ops)
