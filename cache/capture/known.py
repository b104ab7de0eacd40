"""What sessions remember of statements they have met: which only read, and what to look for in which result.

A ``View`` is made once for a plan, and a ``Shape`` once for each RowDescription seen with it. Both are shared by all
sessions whose names and values mean the same: a ``Known`` is theirs, and goes with its catalog.
"""

from __future__ import annotations

from functools import lru_cache
from struct import iter_unpack
from typing import TYPE_CHECKING, NamedTuple

from cache.capture import rows as observe_rows
from cache.sql.plans import Command, Reason
from protocol.backend import RowDescription

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.capture.rows import Tap
    from cache.catalog.tables import Catalog
    from cache.sql.plans import Literals, Plan
    from cache.values.loading import ValueSettings

    Counted = tuple[tuple[str, str], ...]
    """Labels of rules, each with a reason code."""
    Parsed = tuple["View", Literals, bytes, tuple[int, ...]]
    """Of a Parse message: the statement's view and literals, its text and the parameters' types."""

MAX_FRAME = 4_096
"""Bytes; a longer Query or Parse is not remembered as it is."""
MAX_FRAMES = 4_096
MAX_VIEWS = 4_096
MAX_COUNTED = 1_024
MAX_SHAPES = 64
"""Results of one plan that are told apart: DDL on other tables and casts make new ones."""


class Shape(NamedTuple):
    """What to read from the rows of one result."""

    taps: tuple[Tap, ...]
    refused: tuple[tuple[str, str], ...]
    """Labels of rules the rows cannot fill, and why."""
    arguments: bool
    """Some key is fixed by the statement, so its arguments are needed."""
    columns: int
    """How many of a row's first columns need to be looked at."""


NO_SHAPE = Shape((), (), False, 0)
"""Of rows nobody can read, or nobody wants."""


class View:
    """What one plan means to those who watch it run."""

    __slots__ = ("_known", "_shapes", "counted", "only_reads", "plan", "quiet")

    def __init__(self, plan: Plan, known: Known) -> None:
        self.plan = plan
        self.quiet = plan.trivial
        """Nothing of it matters."""
        self.only_reads = plan.trivial or _only_reads(plan)
        """It does nothing to the database, the session or its transaction; at most its rows fill."""
        self.counted = counted(plan)
        self._known = known
        self._shapes: dict[object, Shape] = {}

    def shape(self, description: bytes, formats: bytes | None = None) -> Shape:
        """What to read from rows that were described by this RowDescription's body.

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

    def _make(self, description: bytes, result_formats: bytes | None) -> Shape:
        plan = self.plan
        if not plan.fills and not plan.writes:
            return NO_SHAPE
        fields = RowDescription.decode(description).fields
        if plan.fills:
            self._known.look_for_strangers({field.table_oid for field in fields if field.table_oid})
        if result_formats is None:
            formats = [field.format for field in fields]
        else:
            # A count of codes and the codes: none means all text, one is for all.
            formats = [code for (code,) in iter_unpack("!h", result_formats[2:])] or [0]
            if len(formats) == 1:
                formats *= len(fields)
        if len(formats) != len(fields):
            return NO_SHAPE
        taps, refused = observe_rows.taps(plan, fields, formats, self._known.settings)
        return Shape(
            taps,
            tuple((bound.rule.label, reason) for bound, reason in refused),
            any(operand is not None for tap in taps for operand in tap.fixed),
            max((tap.columns for tap in taps), default=0),
        )


@lru_cache(MAX_COUNTED)
def counted(plan: Plan) -> Counted:
    """The labels of the rules a statement concerns, each with the reason it is counted under."""
    if plan.reason is Reason.UNRELATED:
        return ()
    labels = {fill.bound.rule.label for fill in plan.fills} | {write.bound.rule.label for write in plan.writes}
    return tuple((label, plan.reason.value) for label in sorted(labels or set(plan.labels)))


def _only_reads(plan: Plan) -> bool:
    return plan.command is Command.NONE and not (
        plan.writes or plan.opaque or plan.modifies or plan.ddl or plan.shadows or plan.settings or plan.whole
    )


class Known:
    """What was found out under one catalog and one combination of settings. Bounded; forgets everything when full."""

    __slots__ = ("_strange", "_views", "catalog", "parsed", "queries", "settings")

    def __init__(self, catalog: Catalog, settings: ValueSettings, strange: Callable[[int], None]) -> None:
        """``strange`` is told the OIDs of tables that look like configured ones and are not in the catalog."""
        self.catalog = catalog
        self.settings = settings
        self.queries: dict[bytes, tuple[View, Literals]] = {}
        """Whole Query messages that hold one statement, which only reads."""
        self.parsed: dict[bytes, Parsed] = {}
        """Whole Parse messages of such a statement, without a name."""
        self._views: dict[int, View] = {}
        self._strange = strange

    def view(self, plan: Plan) -> View:
        """The view of a plan, which was made by this catalog."""
        view = self._views.get(id(plan))  # its view keeps the plan alive
        if view is None:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            view = self._views[id(plan)] = View(plan, self)
        return view

    def remember_query(self, message: bytes, view: View, literals: Literals) -> None:
        if len(message) <= MAX_FRAME:
            if len(self.queries) >= MAX_FRAMES:
                self.queries.clear()
            self.queries[message] = view, literals

    def remember_parsed(self, message: bytes, parsed: Parsed) -> None:
        if len(message) <= MAX_FRAME:
            if len(self.parsed) >= MAX_FRAMES:
                self.parsed.clear()
            self.parsed[message] = parsed

    def look_for_strangers(self, oids: Sequence[int] | set[int]) -> None:
        """Tell of the tables a result came from, if the catalog knows none of them."""
        if not any(oid in self.catalog.relations for oid in oids):
            for oid in oids:
                self._strange(oid)
