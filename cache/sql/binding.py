"""From what a statement says and what the database says to a plan: the two tables of docs/capture.md.

Every doubt ends in an Evict where the keys are known, in a Flush where they are not, and in no Fill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.catalog.functions import CALM, QUIET
from cache.catalog.tables import How, Scope
from cache.sql import writes
from cache.sql.operands import Operands
from cache.sql.plans import Action, Command, FillPlan, Plan, Reason, Source, WritePlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.catalog.tables import BoundRule, Catalog
    from cache.sql.statements import Mention, Name, Shape, Write

_ROWS = (How.SELF, How.CHILD, How.PARENT)
_SEVERITY = (Action.FLUSH, Action.EVICT, Action.STORE, Action.NOTHING)


def bind(shape: Shape, catalog: Catalog, scope: Scope, types: tuple[str, ...] = ()) -> Plan:
    """The plan of one statement; ``types`` are those its PREPARE declared for its parameters."""
    return _Binder(catalog, scope, types).plan(shape)


def whole(catalog: Catalog, words: Iterable[str] | None, *, ddl: bool) -> Plan:
    """The plan of a text whose statements cannot be told apart: it may write every table that ``words`` name; None:
    every table there is."""
    binder = _Binder(catalog, Scope(), ())
    rules = catalog.bound if words is None else binder.named(words)
    flushes = tuple(WritePlan(bound, Action.FLUSH, counted=False) for bound in rules)
    return Plan(Reason.OPAQUE, Command.UTILITY, writes=flushes, opaque=True, ddl=ddl, modifies=True, whole=True)


class _Binder:
    """Binds one statement to one catalog and scope."""

    def __init__(self, catalog: Catalog, scope: Scope, types: tuple[str, ...]) -> None:
        self._catalog = catalog
        self._scope = scope
        self._types = types

    def plan(self, shape: Shape) -> Plan:
        if shape.inner is not None:
            # What is prepared or declared is counted when it runs.
            inner = bind(shape.inner, self._catalog, self._scope, shape.types)
            return Plan(
                Reason.UNRELATED,
                shape.command,
                name=shape.name,
                inner=inner,
                holdable=shape.holdable,
            )
        called = [function for function in shape.functions if not self._is_harmless(function)]
        opaque = shape.opaque or bool(called)
        planned = self._writes(shape)
        modifies = bool(shape.writes) or shape.everything or (shape.unread and shape.writing)
        fills: tuple[FillPlan, ...] = ()
        labels: tuple[str, ...] = ()
        if planned:
            reason = min(planned, key=lambda entry: _SEVERITY.index(entry[0].action))[1]
        else:
            fills, reason, labels = self._fills(shape, refused=_refused(modifies, opaque, shape))
        named = bool(shape.words & self._catalog.names.keys())
        return Plan(
            reason,
            shape.command,
            name=shape.name,
            chain=shape.chain,
            arguments=shape.arguments,
            fills=fills,
            writes=tuple(write for write, _ in planned),
            opaque=opaque,
            ddl=shape.ddl or (shape.definition and named) or self._creates(shape),
            shadows=self._shadows(shape),
            settings=shape.settings,
            labels=labels,
            modifies=modifies,
        )

    # Names

    def named(self, words: Iterable[str]) -> list[BoundRule]:
        """The rules whose rows a write on a relation with one of these names, in any schema, may change."""
        found: dict[int, BoundRule] = {}
        for word in words:
            for oid in self._catalog.names.get(word, ()):
                for link in self._catalog.links.get(oid, ()):
                    found[id(link.bound)] = link.bound
        return list(found.values())

    def _defined(self, words: Iterable[str]) -> list[BoundRule]:
        """The rules whose rows may be different after a definition that names these words."""
        found: dict[int, BoundRule] = {}
        for word in words:
            for oid in self._catalog.names.get(word, ()):
                for link in self._catalog.links.get(oid, ()):
                    if link.how in _ROWS:
                        found[id(link.bound)] = link.bound
        return list(found.values())

    def _is_harmless(self, function: Name) -> bool:
        name = function.name
        if function.schema in (None, "pg_catalog"):
            if name in QUIET or (name in CALM and name not in self._catalog.volatile):
                return True
            if function.schema is not None:
                return False
        return name in self._catalog.harmless

    def _creates(self, shape: Shape) -> bool:
        """It makes a relation that another statement's name may now mean."""
        temporary = set(shape.temporary)
        return any(name.name in self._catalog.names and name.name not in temporary for name in shape.created)

    def _shadows(self, shape: Shape) -> tuple[str, ...]:
        names = self._catalog.names
        path = self._scope.search_path or ()
        hidden = [name for name in shape.temporary if name in names]
        if any(entry.startswith("pg_temp") for entry in path):
            hidden += [name.name for name in shape.created if name.schema is None and name.name in names]
        return tuple(dict.fromkeys(hidden))

    # Writes

    def _writes(self, shape: Shape) -> list[writes.Planned]:
        planned: list[writes.Planned] = []
        for write in shape.writes:
            planned += self._write(write, Operands(self._types, _doubtful(shape, write)))
        bounds_written = [id(write.bound) for write, _ in planned]
        planned = [
            entry if bounds_written.count(id(entry[0].bound)) == 1 else writes.doubted(*entry) for entry in planned
        ]
        flushed: tuple[list[BoundRule], Reason] = ([], Reason.OPAQUE)
        if shape.everything:
            reason = Reason.FLUSH_TRUNCATE if shape.writes else Reason.FLUSH_DEFINITION
            flushed = (list(self._catalog.bound), Reason.OPAQUE if shape.opaque else reason)
        elif shape.unread and shape.writing:
            flushed = (self.named(shape.words), Reason.OPAQUE)
        elif shape.definition and not shape.keeps_rows:
            flushed = (self._defined(shape.words), Reason.FLUSH_DEFINITION)
        bounds, reason = flushed
        planned += [(WritePlan(bound, Action.FLUSH, counted=False), reason) for bound in bounds]
        return planned

    def _write(self, write: Write, operands: Operands) -> Iterable[writes.Planned]:
        resolution = self._catalog.resolve(write.target.schema, write.target.name, self._scope)
        for oid in resolution.oids:
            for link in self._catalog.links.get(oid, ()):
                joined = any(self._may_mean(mention.name, link.bound) for mention in write.others)
                relation = self._catalog.relations[oid]
                case = writes.Case(write, link, relation, resolution.certain, joined, operands)
                planned = writes.plan(case)
                if planned is not None:
                    yield planned

    # Reads

    def _may_mean(self, name: Name, bound: BoundRule) -> bool:
        return bound.relation.oid in self._catalog.resolve(name.schema, name.name, self._scope).oids

    def _fills(self, shape: Shape, *, refused: Reason | None) -> tuple[tuple[FillPlan, ...], Reason, tuple[str, ...]]:
        """What the statement's rows may fill; why; and the labels of all rules whose tables it names."""
        fills: list[FillPlan] = []
        reasons: list[Reason] = []
        refusals: list[Reason] = []
        labels: list[str] = []
        operands = Operands(self._types, _doubtful(shape, None))
        for bound in self._catalog.bound:
            mentions = [mention for mention in shape.mentions if self._may_mean(mention.name, bound)]
            named = bool(mentions) or any(self._may_mean(name, bound) for name in shape.names)
            if not named and not (shape.unread and bound.relation.name in shape.words):
                continue
            labels.append(bound.rule.label)
            reason = refused or _mentioned(mentions)
            if reason is not None:
                refusals.append(reason)
                continue
            fill, why = _fill(bound, mentions[0], operands)
            fills.append(fill)
            reasons.append(why)
        found = [*reasons, *refusals]
        return tuple(fills), found[0] if found else Reason.UNRELATED, tuple(labels)


def _fill(bound: BoundRule, mention: Mention, operands: Operands) -> tuple[FillPlan, Reason]:
    nothing = (None,) * len(bound.key)
    fixed = operands.fixed(bound, mention.fixes)
    if mention.nullable:
        return FillPlan(bound, nothing), Reason.FILL if fixed == nothing else Reason.OUTER_JOIN
    return FillPlan(bound, fixed), Reason.FILL if fixed == nothing else Reason.FILL_FIXED_KEY


def _doubtful(shape: Shape, write: Write | None) -> frozenset[int]:
    """The parameters that occur several times, unless all the places are of one and the same column of ``write``."""
    repeated = frozenset(index for index, count in shape.parameters.items() if count > 1)
    if not repeated or write is None:
        return repeated
    places: dict[tuple[int, str], int] = {}
    pairs = [
        *write.assignments,
        *(pair for fix in write.fixes for row in fix.rows for pair in zip(fix.columns, row, strict=True)),
    ]
    for column, operand in pairs:
        if operand is not None and operand.source is Source.PARAMETER and operand.cast is None:
            places[operand.index, column] = places.get((operand.index, column), 0) + 1
    return repeated - {index for (index, _), count in places.items() if count == shape.parameters[index]}


def _refused(modifies: bool, opaque: bool, shape: Shape) -> Reason | None:
    """Why none of the statement's rows may fill, whatever they are."""
    if shape.unread:
        return Reason.OPAQUE
    if shape.explained:
        return Reason.NOT_RUN
    if modifies:
        return Reason.READ_WITH_WRITE
    if opaque or shape.settings:
        return Reason.VOLATILE_FUNCTION
    return None


def _mentioned(mentions: list[Mention]) -> Reason | None:
    """Why a table that is spoken of like this cannot be filled."""
    if not mentions:
        return Reason.NOT_SHOWN
    if len(mentions) > 1 or mentions[0].uses > 1:
        return Reason.SELF_JOIN
    return mentions[0].blocked
