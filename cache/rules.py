"""What the operator asked for: one rule for each ``[[table]]`` entry of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.keys import KeyTemplate


class ValueFormat(Enum):
    """How a row's value columns are written to Redis."""

    STRING = "string"
    HASH = "hash"
    JSON = "json"


@dataclass(frozen=True, slots=True, eq=False)
class TableRule:
    """One ``[[table]]`` entry. Names are spelled as PostgreSQL stores them. Compared and hashed by identity."""

    database: str
    schema: str
    table: str
    key: tuple[str, ...]
    """Key columns, in the order of the configuration."""
    value: tuple[str, ...]
    """Value columns; exactly one when ``format`` is STRING."""
    template: KeyTemplate
    format: ValueFormat = ValueFormat.STRING
    ttl: int | None = None
    """Milliseconds; None keeps the key for ever."""
    ttl_jitter: float = 0.0
    """Fraction of ``ttl`` by which each key's life is shortened at random, 0 to 1."""
    max_rows: int = 1000
    """How many rows of one statement may fill."""
    label: str = ""
    """What metrics, logs and Redis fences call this rule: unique in the file, stable over restarts."""
