"""Which keys a scan of Redis is to find: those of one or more rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.rules import TableRule


_SPECIAL = re.compile(rb"[*?\[\]\\]")
"""Characters that a glob does not take as they are."""


class Scan:
    """One pass over all keys of a Redis, for those of ``rules``; slice by slice, from ``cursor`` on."""

    __slots__ = ("cursor", "pattern", "rules")

    def __init__(self, rules: tuple[TableRule, ...]) -> None:
        self.rules = rules
        self.cursor = 0
        """As SCAN has it: 0 before the first slice, and after the last."""
        patterns = [rule.template.pattern for rule in rules]
        self.pattern = patterns[0] if len(patterns) == 1 else _covering(patterns)
        """For SCAN MATCH: all keys of the rules match, and others may."""

    def owned(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of ``keys`` that have the form of a rule's key."""
        return [key for key in keys if any(rule.template.owns(key) for rule in self.rules)]


def _covering(patterns: list[bytes]) -> bytes:
    """A pattern that matches whatever one of ``patterns`` does: the plain text they all begin with, and anything."""
    plain = [_SPECIAL.split(pattern, maxsplit=1)[0] for pattern in patterns]
    first, last = min(plain), max(plain)
    length = 0
    while length < len(first) and first[length] == last[length]:
        length += 1
    return first[:length] + b"*"
