"""Counting, as exporters read it."""

import random

from cache.counts import Counts, Histogram


def test_configured_rules_are_counted_from_the_start():
    counts = Counts.of(["a", "b"])
    assert set(counts.rules) == {"a", "b"}
    counts.rule("a").fills += 1
    counts.rule("c").fills += 2
    assert {label: rule.fills for label, rule in counts.rules.items()} == {"a": 1, "b": 0, "c": 2}


def test_rows_that_could_not_fill_add_up_by_rule_and_reason():
    counts = Counts()
    counts.row_unfilled("a", "null key")
    counts.row_unfilled("a", "null key", 3)
    counts.row_unfilled("b", "type")
    assert counts.unfilled == {("a", "null key"): 4, ("b", "type"): 1}


def test_internal_errors_add_up_by_the_part_that_caught_them():
    counts = Counts()
    for where in ("writer", "session", "writer"):
        counts.internal_error(where)
    assert counts.internal_errors == {"writer": 2, "session": 1}


def test_value_at_a_bound_falls_into_the_bucket_below_it():
    histogram = Histogram((1.0, 2.0))
    histogram.add(1.0)
    histogram.add(1.5, 2)
    histogram.add(9.0)
    assert (histogram.buckets, histogram.count, histogram.total) == ([1, 2, 1], 4, 13.0)


def test_adding_all_values_at_once_is_adding_each():
    dice = random.Random(1)
    for length in (0, 1, 2, 50):
        values = [dice.choice([0.5, 1.0, 1.5, 2.0, 2.5, 9.0]) for _ in range(length)]
        one, all_ = Histogram((1.0, 2.0)), Histogram((1.0, 2.0))
        for value in values:
            one.add(value)
        all_.add_all(values)
        assert (all_.buckets, all_.total) == (one.buckets, one.total)
