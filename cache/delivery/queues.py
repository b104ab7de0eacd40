"""What the backlog is made of: what waits for each rule, and the batches it goes in."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from cache.counts import RuleCounts

if TYPE_CHECKING:
    from cache.changes import Change
    from cache.delivery.blocks import Lift
    from cache.rules import TableRule


@dataclass(slots=True, eq=False)
class Lane:
    """What waits for one rule. A key is in ``writes`` or in ``fills``, never in both."""

    rule: TableRule
    definition: str
    counts: RuleCounts = field(default_factory=RuleCounts)
    writes: dict[bytes, Change] = field(default_factory=dict)
    fills: dict[bytes, Change] = field(default_factory=dict)
    flush: bool = False
    """Every key is to be removed; stands for all writes of the rule that came before."""
    may_commit_later: bool = False
    """``flush`` refuses Fills for a fence's life."""
    holder: str = ""
    """The last block whose keys are to be looked for; Redis is told when that is done."""
    flush_since: int = 0
    """When the Flush was first asked for; ``time.monotonic_ns()``."""


class Part(NamedTuple):
    """Changes of a batch that stand together: all of one rule, and either all Fills or all writes."""

    lane: Lane
    fills: bool
    changes: list[Change]


@dataclass(slots=True, eq=False)
class Batch:
    """Changes of distinct keys, and rules to flush, that Redis applies in one step."""

    parts: list[Part]
    flushes: list[tuple[Lane, bool]]
    """With whether to refuse Fills for a fence's life."""
    lifts: tuple[Lift, ...] = ()
    """Blocks that end with it."""

    @property
    def writes(self) -> bool:
        return bool(self.flushes) or not all(part.fills for part in self.parts)

    @property
    def length(self) -> int:
        """How many changes there are."""
        return sum(len(part.changes) for part in self.parts)

    @property
    def changes(self) -> list[Change]:
        """All of them, in the order of ``parts``."""
        return [change for part in self.parts for change in part.changes]


def definition(rule: TableRule) -> str:
    """What decides which keys a rule has and what their values are. Equal definitions mean the same keys."""
    facts = (rule.database, rule.schema, rule.table, rule.key, rule.value, rule.template.text, rule.format.value)
    return sha256(repr(facts).encode()).hexdigest()[:16]
