"""What a statement says, before its names are looked up in a catalog.

``commands`` and ``queries`` make these records from tokens, ``binding`` makes plans from them. Names are spelled as
PostgreSQL stores them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cache.sql.plans import Command, Operand, Reason


class UnreadError(Exception):
    """What the statement means is not certain: its grammar is not known, or it is too long or nested too deeply."""


class ReturningAliases(NamedTuple):
    """The names under which RETURNING can refer to the old and the new row: ``WITH (OLD AS o, NEW AS n)`` adds some."""

    old: frozenset[str] = frozenset(["old"])
    new: frozenset[str] = frozenset(["new"])


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a relation or function, qualified or not."""

    schema: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Equality:
    """A condition that every row meets: ``columns`` equal one of ``rows``, or the only one an element of ``array``."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Operand | None, ...], ...] = ()
    """Each with an operand for each column; None for an expression."""
    array: Operand | None = None


@dataclass(slots=True, eq=False)
class TableReference:
    """A relation in FROM whose columns may be columns of the result, directly or through subqueries and CTEs."""

    name: Name
    alias: str
    equalities: list[Equality]
    uses: int = 1
    """2 when the result may combine several of its rows (a CTE over it is referred to twice); otherwise 1."""
    nullable: bool = False
    """On the null side of an outer join, of its own FROM clause or of one around it."""
    renamed: bool = False
    """Its columns have other names here (``AS t (a, b)``), or an alias of a join in parentheses hides its name."""
    no_fill: Reason | None = None
    """Why a column of the result may have another value than the table's column has."""


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
    """The command tag's row count is this write's own."""
    equalities: tuple[Equality, ...] = ()
    """UPDATE, DELETE: the target's columns that WHERE compares with constants."""
    assignments: tuple[tuple[str, Operand | None], ...] = ()
    """UPDATE … SET, also of ON CONFLICT and MERGE; None for an expression or DEFAULT."""
    columns: tuple[str, ...] | None = None
    """INSERT's column list; None when it has none."""
    rows: tuple[tuple[Operand | None, ...], ...] | None = None
    """INSERT's VALUES; None when the rows come from a query, or not all of them were read."""
    conflict: Conflict = Conflict.NONE
    conflict_columns: frozenset[str] | None = None
    """The columns of ON CONFLICT (…); None when it names none, a constraint or an expression."""
    returning: bool = False
    old: bool = False
    """RETURNING refers to the old row."""
    new: bool = False
    """RETURNING refers to the new row."""
    other_references: tuple[TableReference, ...] = ()
    """Other relations whose columns RETURNING can show: those of FROM and USING."""
    deletes: bool = False
    """MERGE has a DELETE action."""


@dataclass(slots=True, eq=False)
class Statement:
    """One statement."""

    command: Command
    name: str | None = None
    chain: bool = False
    holdable: bool = False
    """DECLARE … WITH HOLD."""
    types: tuple[str, ...] = ()
    """PREPARE's declared parameter types, by ``Operand.cast``'s names; empty for a type that has none there."""
    inner: Statement | None = None
    arguments: tuple[Operand | None, ...] = ()
    parameters: dict[int, int] = field(default_factory=dict)
    """How often each parameter occurs, by index. An undeclared one has the type that its first occurrence suggests."""
    references: tuple[TableReference, ...] = ()
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
    """CREATE, ALTER, DROP and the like: it may change the catalog query's answer if ``identifiers`` name a relation."""
    keeps_rows: bool = False
    """``definition`` only: it changes no rows of the relations it names."""
    any_table: bool = False
    """It may change rows of any table."""
    opaque: bool = False
    """It may write something that is not in ``writes``."""
    unread: bool = False
    """Its grammar could not be followed: ``identifiers`` is all that is known of it."""
    writing: bool = False
    """``unread`` only: it may be a write."""
    identifiers: frozenset[str] = frozenset()
    """``unread`` and ``definition``: every identifier in it."""
    explained: bool = False
    """EXPLAIN: rows and row count are not the statement's own."""
