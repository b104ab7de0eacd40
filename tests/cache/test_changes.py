"""How much a change holds."""

from cache.changes import Change, Kind, size
from tests.cache.delivery.writing import make_rule


def test_sizes():
    rule = make_rule()
    assert size(Change(Kind.EVICT, rule, b"k", None, 0, 0)) == 0
    assert size(Change(Kind.FILL, rule, b"k", b"abc", 0, 0)) == 3
    assert size(Change(Kind.STORE, rule, b"k", {b"a": b"12", b"bc": b""}, 0, 0)) == 5
