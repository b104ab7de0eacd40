"""What the backlog is made of: what waits for each rule, and the batches it goes in."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from cache.changes import Change, Kind

if TYPE_CHECKING:
    from cache.blocks import Lift
    from cache.rules import TableRule


@dataclass(slots=True, eq=False)
class Lane:
    """What waits for one rule. A key is in ``writes`` or in ``fills``, never in both."""

    rule: TableRule
    definition: str
    writes: dict[bytes, Change] = field(default_factory=dict)
    fills: dict[bytes, Change] = field(default_factory=dict)
    flush: bool = False
    """Every key is to be removed; stands for all writes of the rule that came before."""
    hold: bool = False
    """``flush`` refuses Fills for a fence's life."""
    flush_since: int = 0
    """When the Flush was first asked for; ``time.monotonic_ns()``."""


@dataclass(slots=True, eq=False)
class Batch:
    """Changes of distinct keys, and rules to flush, that Redis applies in one step."""

    changes: list[Change]
    flushes: list[tuple[Lane, bool]]
    """With whether to refuse Fills for a fence's life."""
    lifts: tuple[Lift, ...] = ()
    """Blocks that end with it."""

    @property
    def writes(self) -> bool:
        return bool(self.flushes) or any(change.kind is not Kind.FILL for change in self.changes)


def definition(rule: TableRule) -> str:
    """What decides which keys a rule has and what their values are. Equal definitions mean the same keys."""
    facts = (rule.database, rule.schema, rule.table, rule.key, rule.value, rule.template.text, rule.format.value)
    return sha256(repr(facts).encode()).hexdigest()[:16]


def size(change: Change) -> int:
    """Bytes of the change's value."""
    value = change.value
    if value is None:
        return 0
    if isinstance(value, bytes):
        return len(value)
    return sum(len(name) + len(text) for name, text in value.items())
