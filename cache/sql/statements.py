"""What a statement says, before any catalog is asked what its names mean.

``statements`` makes these from SQL text, ``binding`` makes plans from them. Names are spelled as PostgreSQL stores
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cache.sql.plans import Command, Operand, Reason


class UnreadError(Exception):
    """The statement's grammar is not one whose meaning is certain."""


class Rows(NamedTuple):
    """What RETURNING calls the old and the new row."""

    old: frozenset[str] = frozenset(["old"])
    new: frozenset[str] = frozenset(["new"])


@dataclass(frozen=True, slots=True)
class Name:
    """A relation or function as the statement spells it."""

    schema: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Fix:
    """A condition that every row must meet: ``columns`` equal one of ``rows``, or an element of ``array``."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Operand | None, ...], ...] = ()
    """None for an expression."""
    array: Operand | None = None


@dataclass(slots=True, eq=False)
class Mention:
    """A relation whose rows' columns may be columns of the result."""

    name: Name
    alias: str
    fixes: list[Fix]
    uses: int = 1
    """How often its rows come together with themselves; 2 for any more than once (a CTE referred to twice)."""
    nullable: bool = False
    """On the null side of an outer join, here or further out."""
    renamed: bool = False
    """Its columns have other names here (``AS t (a, b)``), or it cannot be spoken of by its name."""
    blocked: Reason | None = None
    """Why its columns may not be what they seem."""


class Verb(Enum):
    """What a write does to its target."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    MERGE = "MERGE"
    TRUNCATE = "TRUNCATE"
    COPY = "COPY"
    """COPY … FROM."""


class Conflict(Enum):
    """INSERT's ON CONFLICT."""

    NONE = "none"
    NOTHING = "nothing"
    UPDATE = "update"


@dataclass(slots=True, eq=False)
class Write:
    """One data-modifying (sub)statement."""

    verb: Verb
    target: Name
    counted: bool = True
    fixes: tuple[Fix, ...] = ()
    """UPDATE, DELETE: what WHERE says of the target's columns."""
    assignments: tuple[tuple[str, Operand | None], ...] = ()
    """UPDATE … SET, also of ON CONFLICT and MERGE; None for an expression or DEFAULT."""
    columns: tuple[str, ...] | None = None
    """INSERT's column list; None when it has none."""
    rows: tuple[tuple[Operand | None, ...], ...] | None = None
    """INSERT's VALUES; None when they come from a query, or are too many to look at."""
    conflict: Conflict = Conflict.NONE
    conflict_columns: frozenset[str] | None = None
    """The columns of ON CONFLICT (…); None when it names none, a constraint or an expression."""
    returning: bool = False
    old: bool = False
    """RETURNING speaks of ``old``."""
    new: bool = False
    """RETURNING speaks of ``new``."""
    others: tuple[Mention, ...] = ()
    """What else RETURNING can show columns of."""
    deletes: bool = False
    """MERGE with a DELETE action."""


@dataclass(slots=True, eq=False)
class Shape:
    """One statement."""

    command: Command
    name: str | None = None
    chain: bool = False
    holdable: bool = False
    """DECLARE … WITH HOLD."""
    types: tuple[str, ...] = ()
    """PREPARE's declared parameter types, by ``Operand.cast``'s names; empty for a type that has none there."""
    inner: Shape | None = None
    arguments: tuple[Operand | None, ...] = ()
    parameters: dict[int, int] = field(default_factory=dict)
    """How often each parameter, by index, occurs in it. The first occurrence decides an undeclared one's type."""
    mentions: tuple[Mention, ...] = ()
    names: frozenset[Name] = frozenset()
    """Every relation named anywhere in it."""
    functions: frozenset[Name] = frozenset()
    writes: tuple[Write, ...] = ()
    settings: tuple[tuple[str, str | None, bool], ...] = ()
    created: tuple[Name, ...] = ()
    """Relations it creates (or renames to); they may be temporary if the search path begins so."""
    temporary: tuple[str, ...] = ()
    """Names of temporary relations it creates."""
    ddl: bool = False
    """It may change what the catalog query would answer, whatever it names."""
    definition: bool = False
    """CREATE, ALTER, DROP and their kind: it may change the catalog query's answer if ``words`` name a relation."""
    keeps_rows: bool = False
    """``definition`` only: the rows of the relations it names stay what they are."""
    everything: bool = False
    """Any table may be different afterwards."""
    opaque: bool = False
    unread: bool = False
    """Its grammar could not be followed: ``words`` is all that is known of it."""
    writing: bool = False
    """``unread`` only: it may be a write."""
    words: frozenset[str] = frozenset()
    """``unread`` and ``definition``: every identifier in it."""
    explained: bool = False
    """EXPLAIN ANALYZE: rows and row count are not the statement's."""
