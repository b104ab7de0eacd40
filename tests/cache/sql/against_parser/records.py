"""What a statement says, in terms that ``cache.sql.statements`` and PostgreSQL's parse tree both have."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.cache.sql.against_parser.conditions import ColumnEquality, Constant

Node = Any
"""A message of the parse tree."""


class AnalysisError(Exception):
    """The parser takes the statement, and the analysis that comes next refuses it, whatever the catalog says."""


class Name(NamedTuple):
    """A relation or function as the statement spells it."""

    schema: str | None
    name: str


@dataclass
class Occurrence:
    """One relation in a FROM clause, or a write's target."""

    name: Name
    alias: str
    renamed: bool = False
    nullable: bool = False
    set_operation: bool = False
    grouping_sets: bool = False
    equalities: tuple[ColumnEquality, ...] = ()
    """What each of its rows that reaches the result meets."""


@dataclass
class Written:
    """One INSERT, UPDATE, DELETE, MERGE, TRUNCATE or COPY FROM."""

    verb: str
    target: Name
    counted: bool = True
    """Its row count is the command tag's."""
    occurrence: Occurrence | None = None
    assignments: list[tuple[str, Constant | None]] = field(default_factory=list)
    columns: list[str] | None = None
    rows: list[list[Constant | None]] | None = None
    conflict: str = "none"
    arbiter: frozenset[str] | None = None
    returning: bool = False
    old: bool = False
    new: bool = False
    deletes: bool = False
    others: list[Occurrence] = field(default_factory=list)


@dataclass
class ParsedStatement:
    """One statement of a text."""

    node: Node
    kind: str
    """The name of its node: ``SelectStmt``, ``TransactionStmt``, …"""
    start: int
    """Where it starts and ends, in bytes."""
    end: int
    surfacing: list[Occurrence] = field(default_factory=list)
    """Relations whose columns may be columns of the result, once for each way."""
    names: set[Name] = field(default_factory=set)
    functions: set[Name] = field(default_factory=set)
    writes: list[Written] = field(default_factory=list)
    created: list[tuple[Name, bool]] = field(default_factory=list)
    """Relations that INTO and CREATE make, and whether each is temporary."""
    settings: list[str | None] = field(default_factory=list)
    """The run-time parameters that it sets by set_config(); None for one that is no constant."""
    parameters: Counter[int] = field(default_factory=Counter)
