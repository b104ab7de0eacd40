"""What one statement would do to Redis: the contract between the analysis of SQL and the observation of traffic.

A plan is made once for a statement's text, one catalog and one scope, and says what to look at when the statement runs.
It holds no values: constants are *operands*, found in the statement's literals or in Bind's parameters at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.catalog import BoundRule


class Source(Enum):
    """Where an operand's value is found."""

    LITERAL = "literal"
    """``Literals[index]`` of the statement's text."""
    PARAMETER = "parameter"
    """``$index+1``: Bind's parameter, or EXECUTE's argument."""
    NULL = "null"
    TRUE = "true"
    FALSE = "false"


@dataclass(frozen=True, slots=True)
class Operand:
    """A constant of a statement. ``cast`` is the type it is explicitly cast to, as PostgreSQL names it ("int4",
    "text", "uuid", …), without type modifier; an operand with any other cast never becomes part of a plan."""

    source: Source
    index: int = 0
    negative: bool = False
    """A minus sign stands before the (numeric) literal."""
    cast: str | None = None


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal of a statement's text, with its quotes and escapes undone."""

    value: bytes
    """UTF-8 (or the session's encoding, unconverted)."""
    kind: str
    """"string", "integer" or "decimal" (any number that is not a plain run of digits)."""


Literals = tuple[Literal, ...]


class Action(Enum):
    """What a write does to a rule's keys once it is committed and if it touched a row."""

    NOTHING = "nothing"
    STORE = "store"
    EVICT = "evict"
    FLUSH = "flush"


class Returning(Enum):
    """What a write's result rows (RETURNING) may be used for, if they carry the key as plain columns."""

    NO = "no"
    STORE = "store"
    """Rows show what is stored: Store each (Evict each where a value column is missing)."""
    EVICT = "evict"
    """Rows name the touched keys: Evict each."""


@dataclass(frozen=True, slots=True)
class FillPlan:
    """Rows of the result may fill ``bound``, if RowDescription shows its value columns as plain columns."""

    bound: BoundRule
    fixed: tuple[Operand | None, ...]
    """For each key column, the operand WHERE fixes it to; None where it must be a column of the result."""


@dataclass(frozen=True, slots=True)
class Target:
    """One row the write names by its key."""

    key: tuple[Operand, ...]
    """One operand for each key column of the rule."""
    values: tuple[Operand | None, ...] = ()
    """STORE: one operand for each value column; None for a column the statement leaves alone (HASH rules only).
    Empty when nothing is known of the values."""


@dataclass(frozen=True, slots=True)
class WritePlan:
    """One data-modifying (sub)statement and what it may do to one rule's rows."""

    bound: BoundRule
    action: Action
    targets: tuple[Target, ...] = ()
    """The rows touched can only be these. STORE needs them; EVICT without them and without ``array`` is a Flush."""
    array: Operand | None = None
    """Single-column key ``= ANY(operand)``: the rows touched have keys in this array; ``targets`` then has at most one
    element, whose ``values`` (if any) every row gets and whose ``key`` is empty."""
    counted: bool = True
    """The command tag's row count is this write's own (not so for a CTE inside another statement): 0 means untouched,
    and fewer rows than targets means that a STORE must become an EVICT of each."""
    returning: Returning = Returning.NO
    missing: Action = Action.EVICT
    """What a STORE becomes for a target when the row count is not the number of distinct targets: EVICT, or NOTHING
    for INSERT … ON CONFLICT DO NOTHING."""


class Command(Enum):
    """What a statement does to the session itself, apart from tables."""

    NONE = "none"
    BEGIN = "begin"
    COMMIT = "commit"
    """COMMIT, END; ``chain`` in the plan for AND CHAIN."""
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"
    PREPARE_TRANSACTION = "prepare transaction"
    COMMIT_PREPARED = "commit prepared"
    ROLLBACK_PREPARED = "rollback prepared"
    PREPARE = "prepare"
    EXECUTE = "execute"
    DEALLOCATE = "deallocate"
    DECLARE = "declare"
    FETCH = "fetch"
    """FETCH and MOVE."""
    CLOSE = "close"
    DISCARD_ALL = "discard all"
    SET = "set"
    """SET, RESET, ALTER … SET, set_config(): ``settings`` says what is certain of it."""
    COPY = "copy"
    UTILITY = "utility"
    """Anything else that is neither a query nor DML: it may commit on its own inside a pipeline."""


class Reason(Enum):
    """Why a statement's plan is what it is: each statement on a configured table counts under exactly one."""

    UNRELATED = "unrelated"
    """Names no configured or related table; not counted."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One statement, bound to one catalog and scope."""

    reason: Reason
    command: Command = Command.NONE
    name: str | None = None
    """Savepoint, gid, prepared statement or cursor the command names; None for DEALLOCATE ALL and CLOSE ALL."""
    chain: bool = False
    inner: Plan | None = None
    """PREPARE, DECLARE (and EXPLAIN ANALYZE, whose rows are not the inner statement's): the statement within."""
    arguments: tuple[Operand | None, ...] = ()
    """EXECUTE's; None where an argument is not a plain constant."""
    fills: tuple[FillPlan, ...] = ()
    writes: tuple[WritePlan, ...] = ()
    opaque: bool = False
    """It may write something the plan does not show (a function not known to be harmless, CALL, DO, text that could not
    be read): what the rest of its transaction reads does not fill."""
    ddl: bool = False
    """It may change what the catalog query would answer."""
    shadows: tuple[str, ...] = ()
    """Names of temporary relations it creates."""
    settings: tuple[tuple[str, str | None, bool], ...] = ()
    """Run-time parameters it sets: lower-case name ("*" for RESET ALL, or when which is not certain), value (None when
    not certain or reset), and whether only until the end of the transaction (SET LOCAL)."""
    labels: tuple[str, ...] = ()
    """Labels of the rules the statement concerns, to be counted under ``reason``; for a plan with neither fills nor
    writes nothing else would say so."""
    whole: bool = False
    """The plan stands for all statements of its text, which could not be told apart."""
    holdable: bool = False
    """DECLARE … WITH HOLD."""
    typed: bool = False
    """PREPARE with declared parameter types: a constant of EXECUTE may be changed by a conversion."""
    trivial: bool = field(init=False)
    """Nothing about the statement matters to anybody but its client."""

    def __post_init__(self) -> None:
        matters = (
            self.fills or self.writes or self.labels or self.opaque or self.ddl or self.shadows or self.settings
            or self.whole or self.command is not Command.NONE
        )
        object.__setattr__(self, "trivial", not matters)


EMPTY = Plan(Reason.UNRELATED)
"""The plan of an empty statement."""
