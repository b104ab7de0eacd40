"""What must hold once every change is in Redis: pure functions of the contents of Redis and PostgreSQL.

A value is bytes for a string, a dictionary of bytes for a hash, and the decoded value for a JSON text.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

ABSENT = None
"""Instead of a value: there is no such key, or no such row."""


class Difference(NamedTuple):
    """A key whose value differs from its row. `postgres` is ABSENT when there is no such row."""

    key: bytes
    redis: Any
    postgres: Any


def stale(held: Mapping[bytes, Any], rows: Mapping[bytes, Any]) -> list[Difference]:
    """Every key of Redis whose value differs from its row's, sorted. An absent key is never stale."""
    return [
        Difference(key, value, rows.get(key, ABSENT))
        for key, value in sorted(held.items())
        if key not in rows or not same(value, rows[key])
    ]


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal type at every level: JSON's `true`, `1` and `1.0` are three different values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def warmth(held: Mapping[bytes, Any], rows: Mapping[bytes, Any]) -> float:
    """The share of rows whose key is present, from 0 to 1."""
    return sum(key in held for key in rows) / len(rows) if rows else 1.0
