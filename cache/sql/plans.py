"""A plan: what one statement would do to Redis. ``cache.sql`` makes plans, ``cache.capture`` carries them out.

A plan is made once for a statement's text, a catalog and a scope, and says what to look at when the statement runs. It
holds no values: constants are *operands*, found in the statement's literals or in Bind's parameters at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.catalog.tables import BoundRule


UNKNOWN = "unknown"
"""The declared type of a parameter whose type is left to the server."""


ANY_SETTING = "*"
"""Stands for a run-time parameter's name where it is not certain which, or how many, a statement sets."""
RESET_ALL = "reset all"
"""Stands for all run-time parameters that RESET ALL resets."""


class OperandSource(Enum):
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

    source: OperandSource
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
    """What the rows of a write's RETURNING are used for, if they have the key as plain columns."""

    NO = "no"
    STORE = "store"
    """They show what is stored: Store each row, or Evict it where a value column is missing."""
    EVICT = "evict"
    """They name the keys that were touched: Evict each."""


@dataclass(frozen=True, slots=True)
class FillPlan:
    """Rows of the result may fill ``bound``, if RowDescription shows its value columns as plain columns."""

    bound: BoundRule
    fixed: tuple[Operand | None, ...]
    """For each key column, the operand that WHERE fixes it to; None where it must be a column of the result."""


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
    DISCARD_TEMP = "discard temp"
    SET = "set"
    """SET, RESET, ALTER … SET, set_config(): ``settings`` says what is certain of it."""
    COPY = "copy"
    UTILITY = "utility"
    """Anything else that is neither a query nor DML: it may commit on its own inside a pipeline."""


class Reason(Enum):
    """Why a statement's plan is what it is: each statement on a configured table counts under exactly one."""

    UNRELATED = "unrelated"
    """Names no configured or related table; not counted."""

    FILL = "fill"
    FILL_FIXED_KEY = "fill-fixed-key"
    SELF_JOIN = "self-join"
    SET_OPERATION = "set-operation"
    GROUPING_SETS = "grouping-sets"
    OUTER_JOIN = "outer-join"
    NOT_SHOWN = "not-shown"
    VOLATILE_FUNCTION = "volatile-function"
    READ_WITH_WRITE = "read-with-write"
    NOT_RUN = "not-run"

    STORE = "store"
    STORE_RETURNING = "store-returning"
    EVICT_DELETE = "evict-delete"
    EVICT_EXPRESSION = "evict-expression"
    EVICT_TYPE = "evict-type"
    EVICT_PARTIAL = "evict-partial"
    EVICT_TRIGGER = "evict-trigger"
    EVICT_GENERATED = "evict-generated"
    EVICT_KEY_CHANGE = "evict-key-change"
    EVICT_UPSERT = "evict-upsert"
    EVICT_PARTITION = "evict-partition"
    EVICT_UNCOUNTED = "evict-uncounted"
    EVICT_SEVERAL = "evict-several"
    EVICT_UNCERTAIN_NAME = "evict-uncertain-name"
    FLUSH_UNKNOWN_KEY = "flush-unknown-key"
    FLUSH_KEY_CHANGE = "flush-key-change"
    FLUSH_REWRITE_RULE = "flush-rewrite-rule"
    FLUSH_VIEW = "flush-view"
    FLUSH_PARENT = "flush-parent"
    FLUSH_CASCADE = "flush-cascade"
    FLUSH_TRUNCATE = "flush-truncate"
    FLUSH_DEFINITION = "flush-definition"
    NOTHING_UNTOUCHED = "nothing-untouched"
    NOTHING_INSERT = "nothing-insert"
    OPAQUE = "opaque"

    @property
    def sentence(self) -> str:
        """The reason as a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.UNRELATED: "It names no configured table, nor one whose writes reach a configured table.",
    Reason.FILL: "Rows that carry the key and every value column as plain columns fill.",
    Reason.FILL_FIXED_KEY: "WHERE fixes the key to a constant, so rows that carry every value column fill.",
    Reason.SELF_JOIN: "The table comes more than once into the result, so one row's key could meet another's value.",
    Reason.SET_OPERATION: "The rows pass through UNION, INTERSECT or EXCEPT, which hides where they come from.",
    Reason.GROUPING_SETS: "ROLLUP, CUBE or GROUPING SETS put NULL where a column has a value.",
    Reason.OUTER_JOIN: "The table is on the null side of an outer join, so only rows that carry the key itself fill.",
    Reason.NOT_SHOWN: "The table is used only to compute or to choose; none of its columns can be in the result.",
    Reason.VOLATILE_FUNCTION: "It calls a function that is not known to be free of side effects.",
    Reason.READ_WITH_WRITE: "It also writes, and what it reads may not be what it leaves behind.",
    Reason.NOT_RUN: "The statement is explained, not run, or its rows do not go to the client.",
    Reason.STORE: "The key and the new values are constants whose stored text is certain.",
    Reason.STORE_RETURNING: "RETURNING shows the rows as they are stored.",
    Reason.EVICT_DELETE: "The rows with these keys are deleted.",
    Reason.EVICT_EXPRESSION: "A new value is not a constant.",
    Reason.EVICT_TYPE: "A column's type may store a constant with another text.",
    Reason.EVICT_PARTIAL: "Not every value column is assigned, and only a hash can take part of them.",
    Reason.EVICT_TRIGGER: "A trigger of the table may change what is stored.",
    Reason.EVICT_GENERATED: "A generated column is computed from what is written.",
    Reason.EVICT_KEY_CHANGE: "It changes the key: both the old and the new one are removed.",
    Reason.EVICT_UPSERT: "ON CONFLICT DO UPDATE: which of the two happened is not shown.",
    Reason.EVICT_PARTITION: "It writes a partition or child of the table directly.",
    Reason.EVICT_UNCOUNTED: "The row count is not this write's own, so whether it touched a row is not known.",
    Reason.EVICT_SEVERAL: "The statement writes the table in several places, in no certain order.",
    Reason.EVICT_UNCERTAIN_NAME: "Which schema the table's name means in this session is not certain.",
    Reason.FLUSH_UNKNOWN_KEY: "WHERE does not say which keys are touched.",
    Reason.FLUSH_KEY_CHANGE: "It changes keys in a way that is not known.",
    Reason.FLUSH_REWRITE_RULE: "A rewrite rule of the table may make another statement of it.",
    Reason.FLUSH_VIEW: "It writes through a view over the table.",
    Reason.FLUSH_PARENT: "It writes a table that this one is a partition or child of.",
    Reason.FLUSH_CASCADE: "A foreign key carries the change on into the table.",
    Reason.FLUSH_TRUNCATE: "The table is emptied.",
    Reason.FLUSH_DEFINITION: "The definition of the table, or of something it depends on, may change.",
    Reason.NOTHING_UNTOUCHED: "None of the configured columns is touched.",
    Reason.NOTHING_INSERT: "New rows of which no key is in Redis yet; the next read fills them.",
    Reason.OPAQUE: "It could not be read, or runs code that cannot be seen, and may write the table.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One statement, bound to one catalog and scope."""

    reason: Reason
    command: Command = Command.NONE
    name: str | None = None
    """Savepoint, gid, prepared statement or cursor the command names; None for DEALLOCATE ALL and CLOSE ALL, and for a
    gid whose value is not certain."""
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
    """Run-time parameters it sets: lower-case name (or ANY_SETTING, RESET_ALL), value (None when not certain or reset),
    and whether only until the end of the transaction (SET LOCAL)."""
    labels: tuple[str, ...] = ()
    """Labels of the rules the statement concerns, to be counted under ``reason``; for a plan with neither fills nor
    writes nothing else would say so."""
    whole: bool = False
    """The plan stands for all statements of its text, which could not be told apart."""
    holdable: bool = False
    """DECLARE … WITH HOLD."""
    modifies: bool = False
    """It writes some table, configured or not: what the rest of its transaction reads may not be committed."""
    trivial: bool = field(init=False)
    """The statement has no effect on keys, counts or what is known of the session: it need not be followed."""

    def __post_init__(self) -> None:
        matters = (
            self.fills
            or self.writes
            or self.labels
            or self.opaque
            or self.modifies
            or self.ddl
            or self.shadows
            or self.settings
            or self.whole
            or self.command is not Command.NONE
        )
        object.__setattr__(self, "trivial", not matters)


EMPTY = Plan(Reason.UNRELATED)
"""The plan of an empty statement."""
