"""Makes a plan of a statement and a catalog: the two tables of docs/capture.md.

Where anything is not certain the plan evicts the keys if they are known, flushes the rule if they are not, and fills
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.catalog.functions import HARMLESS_VOLATILE, NON_VOLATILE
from cache.catalog.tables import LinkType, Scope
from cache.sql import writes
from cache.sql.operands import Operands
from cache.sql.plans import Action, Command, FillPlan, OperandSource, Plan, Reason, WritePlan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cache.catalog.tables import BoundRule, Catalog
    from cache.sql.statements import Name, Statement, TableReference, Write

_SAME_ROWS = frozenset([LinkType.SELF, LinkType.CHILD, LinkType.PARENT])
"""Links of relations that hold rows of the configured table itself."""
_SEVERITY = (Action.FLUSH, Action.EVICT, Action.STORE, Action.NOTHING)


def bind(statement: Statement, catalog: Catalog, scope: Scope, types: tuple[str, ...] = ()) -> Plan:
    """The plan of one statement; ``types`` are those its PREPARE declared for its parameters."""
    return _Binder(catalog, scope, types).plan(statement)


def plan_of_whole_text(catalog: Catalog, names: Collection[str] | None, *, ddl: bool, temporary: bool = False) -> Plan:
    """The plan of a text that cannot be divided into statements: it may write every relation in ``names``, or any
    relation if that is None. ``temporary``: it may also make temporary relations of these names."""
    rules = catalog.bound if names is None else _rules_reached(catalog, names)
    flushes = tuple(WritePlan(bound, Action.FLUSH, counted=False) for bound in rules)
    shadows = tuple(catalog.names if names is None else names) if temporary else ()
    return Plan(
        Reason.OPAQUE,
        Command.UTILITY,
        writes=flushes,
        opaque=True,
        ddl=ddl,
        shadows=shadows,
        modifies=True,
        whole=True,
    )


def _rules_reached(
    catalog: Catalog, names: Iterable[str], link_types: frozenset[LinkType] = frozenset(LinkType)
) -> list[BoundRule]:
    """The rules whose rows a write on a relation with one of these names, in any schema, may change."""
    found: dict[int, BoundRule] = {}
    for name in names:
        for oid in catalog.names.get(name, ()):
            for link in catalog.links.get(oid, ()):
                if link.type in link_types:
                    found[id(link.bound)] = link.bound
    return list(found.values())


class _Binder:
    """Binds one statement to one catalog and scope."""

    def __init__(self, catalog: Catalog, scope: Scope, types: tuple[str, ...]) -> None:
        self._catalog = catalog
        self._scope = scope
        self._types = types

    def plan(self, statement: Statement) -> Plan:
        if statement.inner is not None:
            # The statement within PREPARE or DECLARE is counted when it runs.
            inner = bind(statement.inner, self._catalog, self._scope, statement.types)
            return Plan(
                Reason.UNRELATED,
                statement.command,
                name=statement.name,
                inner=inner,
                holdable=statement.holdable,
            )
        called = [function for function in statement.functions if not self._is_harmless(function)]
        opaque = statement.opaque or bool(called)
        planned = self._writes(statement)
        modifies = bool(statement.writes) or statement.any_table or (statement.unread and statement.writing)
        fills: tuple[FillPlan, ...] = ()
        labels: tuple[str, ...] = ()
        if planned:
            reason = min(planned, key=lambda entry: _SEVERITY.index(entry[0].action))[1]
        else:
            fills, reason, labels = self._fills(statement, no_fill=_why_nothing_fills(modifies, opaque, statement))
        named = bool(statement.identifiers & self._catalog.names.keys())
        return Plan(
            reason,
            statement.command,
            name=statement.name,
            chain=statement.chain,
            arguments=statement.arguments,
            fills=fills,
            writes=tuple(write for write, _ in planned),
            opaque=opaque,
            ddl=statement.ddl or (statement.definition and named) or self._creates(statement),
            shadows=self._shadowed(statement),
            settings=statement.settings,
            labels=labels,
            modifies=modifies,
        )

    # Names

    def _is_harmless(self, function: Name) -> bool:
        name = function.name
        if function.schema in (None, "pg_catalog"):
            if name in HARMLESS_VOLATILE or (name in NON_VOLATILE and name not in self._catalog.volatile):
                return True
            if function.schema is not None:
                return False
        return name in self._catalog.harmless

    def _creates(self, statement: Statement) -> bool:
        """It creates a relation that a name in other statements may mean from now on."""
        temporary = set(statement.temporary)
        return any(name.name in self._catalog.names and name.name not in temporary for name in statement.created)

    def _shadowed(self, statement: Statement) -> tuple[str, ...]:
        names = self._catalog.names
        path = self._scope.search_path
        shadowed = [name for name in statement.temporary if name in names]
        if path is None or any(entry.startswith("pg_temp") for entry in path):
            shadowed += [name.name for name in statement.created if name.schema is None and name.name in names]
        return tuple(dict.fromkeys(shadowed))

    # Writes

    def _writes(self, statement: Statement) -> list[writes.Planned]:
        planned: list[writes.Planned] = []
        for write in statement.writes:
            planned += self._write(write, Operands(self._types, _repeated_parameters(statement, write)))
        bounds_written = [id(write.bound) for write, _ in planned]
        planned = [
            entry if bounds_written.count(id(entry[0].bound)) == 1 else writes.as_one_of_several(*entry)
            for entry in planned
        ]
        flushed: tuple[list[BoundRule], Reason] = ([], Reason.OPAQUE)
        if statement.any_table:
            reason = Reason.FLUSH_TRUNCATE if statement.writes else Reason.FLUSH_DEFINITION
            flushed = (list(self._catalog.bound), Reason.OPAQUE if statement.opaque else reason)
        elif statement.unread and statement.writing:
            flushed = (_rules_reached(self._catalog, statement.identifiers), Reason.OPAQUE)
        elif statement.definition and not statement.keeps_rows:
            flushed = (_rules_reached(self._catalog, statement.identifiers, _SAME_ROWS), Reason.FLUSH_DEFINITION)
        bounds, reason = flushed
        planned += [(WritePlan(bound, Action.FLUSH, counted=False), reason) for bound in bounds]
        return planned

    def _write(self, write: Write, operands: Operands) -> Iterable[writes.Planned]:
        resolution = self._catalog.resolve(write.target.schema, write.target.name, self._scope)
        for oid in resolution.oids:
            for link in self._catalog.links.get(oid, ()):
                joined = any(self._may_mean(reference.name, link.bound) for reference in write.other_references)
                relation = self._catalog.relations[oid]
                case = writes.Case(write, link, relation, resolution.certain, joined, operands)
                planned = writes.plan(case)
                if planned is not None:
                    yield planned

    # Reads

    def _may_mean(self, name: Name, bound: BoundRule) -> bool:
        return bound.relation.oid in self._catalog.resolve(name.schema, name.name, self._scope).oids

    def _fills(
        self, statement: Statement, *, no_fill: Reason | None
    ) -> tuple[tuple[FillPlan, ...], Reason, tuple[str, ...]]:
        """What the statement's rows may fill, the reason, and the labels of all rules whose tables it names."""
        fills: list[FillPlan] = []
        reasons: list[Reason] = []
        refusals: list[Reason] = []
        labels: list[str] = []
        operands = Operands(self._types, _repeated_parameters(statement, None))
        for bound in self._catalog.bound:
            references = [reference for reference in statement.references if self._may_mean(reference.name, bound)]
            named = bool(references) or any(self._may_mean(name, bound) for name in statement.names)
            if not named and not (statement.unread and bound.relation.name in statement.identifiers):
                continue
            labels.append(bound.rule.label)
            reason = no_fill or _unfillable(references)
            if reason is not None:
                refusals.append(reason)
                continue
            fill, why = _fill(bound, references[0], operands)
            fills.append(fill)
            reasons.append(why)
        found = [*reasons, *refusals]
        return tuple(fills), found[0] if found else Reason.UNRELATED, tuple(labels)


def _fill(bound: BoundRule, reference: TableReference, operands: Operands) -> tuple[FillPlan, Reason]:
    nothing = (None,) * len(bound.key)
    fixed = operands.fixed(bound, reference.equalities)
    if reference.nullable:
        return FillPlan(bound, nothing), Reason.FILL if fixed == nothing else Reason.OUTER_JOIN
    return FillPlan(bound, fixed), Reason.FILL if fixed == nothing else Reason.FILL_FIXED_KEY


def _repeated_parameters(statement: Statement, write: Write | None) -> frozenset[int]:
    """The parameters that occur several times, but for those that occur with one and the same column of ``write``."""
    repeated = frozenset(index for index, count in statement.parameters.items() if count > 1)
    if not repeated or write is None:
        return repeated
    places: dict[tuple[int, str], int] = {}
    pairs = [
        *write.assignments,
        *(
            pair
            for equality in write.equalities
            for row in equality.rows
            for pair in zip(equality.columns, row, strict=True)
        ),
    ]
    for column, operand in pairs:
        if operand is not None and operand.source is OperandSource.PARAMETER and operand.cast is None:
            places[operand.index, column] = places.get((operand.index, column), 0) + 1
    return repeated - {index for (index, _), count in places.items() if count == statement.parameters[index]}


def _why_nothing_fills(modifies: bool, opaque: bool, statement: Statement) -> Reason | None:
    """Why none of the statement's rows may fill, whatever they are."""
    if statement.unread:
        return Reason.OPAQUE
    if statement.explained:
        return Reason.NOT_RUN
    if modifies:
        return Reason.READ_WITH_WRITE
    if opaque or statement.settings:
        return Reason.VOLATILE_FUNCTION
    return None


def _unfillable(references: list[TableReference]) -> Reason | None:
    """Why rows of a table with these references cannot fill."""
    if not references:
        return Reason.NOT_SHOWN
    if len(references) > 1 or references[0].uses > 1:
        return Reason.SELF_JOIN
    return references[0].no_fill
