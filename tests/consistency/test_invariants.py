"""The invariants themselves: what counts as stale and what as warm."""

import pytest

from tests.consistency.invariants import Difference, same, stale, warmth


def test_an_absent_key_is_never_stale():
    assert stale({}, {b"a": b"1"}) == []


def test_the_row_s_value_is_not_stale():
    rows = {b"a": b"1", b"b": {b"n": b"1"}, b"c": {"n": 1, "list": [1.5, None]}}
    assert stale(dict(rows), rows) == []


def test_another_value_is_stale():
    assert stale({b"a": b"1"}, {b"a": b"2"}) == [Difference(b"a", b"1", b"2")]


def test_a_key_without_a_row_is_stale():
    assert stale({b"a": b"1"}, {}) == [Difference(b"a", b"1", None)]


def test_differences_come_sorted():
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
def test_what_is_not_the_same(one, other):
    assert not same(one, other)
    assert not same(other, one)


def test_warmth_is_the_share_of_rows_present():
    assert warmth({b"a": b"", b"x": b""}, {b"a": b"1", b"b": b"2"}) == 0.5
    assert warmth({}, {}) == 1.0
