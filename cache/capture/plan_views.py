"""What sessions remember of the plans they have met: which only read, and what to read from which result.

A ``PlanView`` is made once for a plan, and a ``ResultShape`` once for each RowDescription that came for it. Both are
shared by all sessions in which names and values mean the same: those are served by one ``PlanViews``, which is thrown
away with its catalog. Nothing here has an effect: the answers are remembered, and would be the same if made anew.
"""

from __future__ import annotations

from functools import lru_cache
from struct import iter_unpack
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cache.capture import rows
from cache.sql.plans import Command, Reason
from protocol.backend import RowDescription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.capture.rows import RowPlan
    from cache.catalog.tables import Catalog
    from cache.sql.plans import Literals, Plan
    from cache.values.loading import ValueSettings
    from protocol.backend import FieldDescription

    Reasons = tuple[tuple[str, str], ...]
    """Labels of rules, each with a reason code."""
    QueryMeaning = tuple["PlanView", Literals]
    """Of a Query message that holds one statement: its view and its literals."""
    ParseMeaning = tuple["PlanView", Literals, bytes, tuple[int, ...]]
    """Of a Parse message: the statement's view and literals, its text and its parameters' types."""

M = TypeVar("M")

MAX_MESSAGE = 4_096
"""Bytes; what a longer Query or Parse means is not remembered by the message itself."""
MAX_MESSAGES = 4_096
MAX_VIEWS = 4_096
MAX_REASONS = 1_024
MAX_SHAPES = 64
"""Results of one plan that are remembered: DDL on other tables, and casts, make new ones."""


class ResultShape(NamedTuple):
    """What to read from the rows of one result."""

    row_plans: tuple[RowPlan, ...]
    refused: Reasons
    """Labels of rules the rows cannot fill, and why."""
    needs_arguments: bool
    """The statement fixes a part of some key, so its constants are needed."""
    unknown_tables: tuple[int, ...]
    """OIDs of the tables the columns come from, if the catalog has none of them though the statement has a configured
    name: for ``Database.note_unknown_tables`` once rows have come."""


NOTHING_TO_READ = ResultShape((), (), needs_arguments=False, unknown_tables=())
"""The shape of a result that concerns no rule, or whose formats make no sense."""


class PlanView:
    """What a session that follows a statement needs to know of its plan."""

    __slots__ = ("_shapes", "_views", "only_reads", "plan", "reasons", "trivial")

    def __init__(self, plan: Plan, views: PlanViews) -> None:
        self.plan = plan
        self.trivial = plan.trivial
        """It concerns no rule and changes nothing."""
        self.only_reads = plan.trivial or _only_reads(plan)
        """It does nothing to the database, the session or its transaction; at most its rows fill."""
        self.reasons = reasons(plan)
        self._views = views
        self._shapes: dict[object, ResultShape] = {}

    def shape(self, description: bytes, formats: bytes | None = None) -> ResultShape:
        """What to read from rows that were described by this RowDescription's body. Raises ``MessageError``.

        Args:
            formats: Bind's result-column format codes as they were sent, where a statement was described and not a
                portal.
        """
        key: object = description if formats is None else (description, formats)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            shape = self._shapes[key] = self._make(description, formats)
        return shape

    def refused(self, reason: str) -> ResultShape:
        """The shape of a result of which no row may fill, for this reason."""
        labels = dict.fromkeys(fill.bound.rule.label for fill in self.plan.fills)
        return NOTHING_TO_READ._replace(refused=tuple((label, reason) for label in labels))

    def _make(self, description: bytes, result_formats: bytes | None) -> ResultShape:
        plan = self.plan
        if not plan.fills and not plan.writes:
            return NOTHING_TO_READ
        fields = RowDescription.decode(description).fields
        unknown_tables = self._unknown_tables(fields) if plan.fills else ()
        if result_formats is None:
            formats = [field.format for field in fields]
        else:
            # A count of codes and the codes: none means all text, one is for all.
            formats = [code for (code,) in iter_unpack("!h", result_formats[2:])] or [0]
            if len(formats) == 1:
                formats *= len(fields)
        if len(formats) != len(fields):
            return NOTHING_TO_READ._replace(unknown_tables=unknown_tables)
        row_plans, refused = rows.row_plans(plan, fields, formats, self._views.settings)
        return ResultShape(
            row_plans,
            tuple((bound.rule.label, reason) for bound, reason in refused),
            any(operand is not None for row_plan in row_plans for operand in row_plan.fixed),
            unknown_tables,
        )

    def _unknown_tables(self, fields: Sequence[FieldDescription]) -> tuple[int, ...]:
        oids = {field.table_oid for field in fields if field.table_oid}
        return () if any(oid in self._views.catalog.relations for oid in oids) else tuple(oids)


@lru_cache(MAX_REASONS)
def reasons(plan: Plan) -> Reasons:
    """The labels of the rules a statement concerns, each with the reason it is counted under."""
    if plan.reason is Reason.UNRELATED:
        return ()
    labels = {fill.bound.rule.label for fill in plan.fills} | {write.bound.rule.label for write in plan.writes}
    return tuple((label, plan.reason.value) for label in sorted(labels or set(plan.labels)))


def _only_reads(plan: Plan) -> bool:
    return plan.command is Command.NONE and not (
        plan.writes or plan.opaque or plan.modifies or plan.ddl or plan.shadows or plan.settings or plan.whole
    )


class PlanViews:
    """The views of one catalog's plans, for one combination of settings. Bounded: when full, all are forgotten."""

    __slots__ = ("_views", "catalog", "parses", "queries", "settings")

    def __init__(self, catalog: Catalog, settings: ValueSettings) -> None:
        self.catalog = catalog
        self.settings = settings
        self.queries: dict[bytes, QueryMeaning] = {}
        """By whole Query message, of one statement that only reads."""
        self.parses: dict[bytes, ParseMeaning] = {}
        """By whole Parse message, of such a statement without a name."""
        self._views: dict[int, PlanView] = {}

    def of(self, plan: Plan) -> PlanView:
        """The view of a plan that was made by this catalog."""
        view = self._views.get(id(plan))  # its view keeps the plan alive
        if view is None:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            view = self._views[id(plan)] = PlanView(plan, self)
        return view

    def remember_query(self, message: bytes, meaning: QueryMeaning) -> None:
        """What a whole Query message means."""
        _remember(self.queries, message, meaning)

    def remember_parse(self, message: bytes, meaning: ParseMeaning) -> None:
        """What a whole Parse message means."""
        _remember(self.parses, message, meaning)


def _remember(memory: dict[bytes, M], message: bytes, meaning: M) -> None:
    if len(message) <= MAX_MESSAGE:
        if len(memory) >= MAX_MESSAGES:
            memory.clear()
        memory[message] = meaning
