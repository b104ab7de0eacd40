"""What makes two rules mean the same keys, and what a value weighs."""

from dataclasses import replace

import pytest

from cache.changes import Change, Kind
from cache.counts import RuleCounts
from cache.delivery.batches import Batch, Part
from cache.delivery.queues import Budget, RuleQueue, definition
from cache.keys import KeyTemplate
from cache.rules import TableRule, ValueFormat

RULE = TableRule(
    "d",
    "s",
    "t",
    ("id",),
    ("v",),
    KeyTemplate.default(database="d", schema="s", table="t", key_columns=("id",)),
    label="s.t",
)


def change(kind, value=None, **facts):
    return Change(kind, RULE, b"t:1", value, 1, 1, **facts)


@pytest.mark.parametrize("same", [{}, {"ttl": 5}, {"ttl_jitter": 0.5}, {"max_rows": 1}, {"label": "other"}], ids=str)
def test_the_same_keys_and_values(same):
    assert definition(replace(RULE, **same)) == definition(RULE)


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
def test_other_keys_or_values(other):
    assert definition(replace(RULE, **other)) != definition(RULE)


def test_whether_a_batch_writes():
    queue = RuleQueue(RULE, Budget(10, 100), RuleCounts())
    fills, writes = Part(queue, True, [change(Kind.FILL, b"")]), Part(queue, False, [change(Kind.EVICT)] * 2)
    assert not Batch([], []).has_write
    assert not Batch([fills], []).has_write
    assert Batch([], [(queue, False)]).has_write
    both = Batch([writes, fills], [])
    assert both.has_write
    assert both.pending == len(both.changes) == 3
