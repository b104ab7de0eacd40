"""How many bytes a change's value has."""

from cache.changes import Change, Kind, size
from tests.cache.delivery.writing import make_rule


def test_size_is_that_of_the_value_with_its_field_names():
    rule = make_rule()
    assert size(Change(Kind.EVICT, rule, b"k", None, 0, 0)) == 0
    assert size(Change(Kind.FILL, rule, b"k", b"abc", 0, 0)) == 3
    assert size(Change(Kind.STORE, rule, b"k", {b"a": b"12", b"bc": b""}, 0, 0)) == 5
