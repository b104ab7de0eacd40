"""What counts as stale and what as warm."""

import pytest

from tests.consistency.invariants import Difference, same, stale, warmth


def test_absent_key_is_not_stale():
    assert stale({}, {b"a": b"1"}) == []


def test_key_with_the_value_of_its_row_is_not_stale():
    rows = {b"a": b"1", b"b": {b"n": b"1"}, b"c": {"n": 1, "list": [1.5, None]}}
    assert stale(dict(rows), rows) == []


def test_key_with_another_value_than_its_row_is_stale():
    assert stale({b"a": b"1"}, {b"a": b"2"}) == [Difference(b"a", b"1", b"2")]


def test_key_without_a_row_is_stale():
    assert stale({b"a": b"1"}, {}) == [Difference(b"a", b"1", None)]


def test_differences_are_sorted_by_key():
    assert [found.key for found in stale({b"b": b"", b"a": b""}, {})] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1", "1"),
        (1, True),
        (1, 1.0),
        ({b"n": b"1"}, {b"n": b"1", b"m": b""}),
        ({"n": 1}, {"n": 1.0}),
        ([1], [1, 2]),
        (["a"], ["b"]),
        (None, 0),
        (b"hash", {b"n": b"1"}),
    ],
)
def test_values_of_different_type_or_content_are_not_the_same(one, other):
    assert not same(one, other)
    assert not same(other, one)


def test_warmth_is_the_share_of_rows_present():
    assert warmth({b"a": b"", b"x": b""}, {b"a": b"1", b"b": b"2"}) == 0.5
    assert warmth({}, {}) == 1.0
