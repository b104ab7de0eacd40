"""Which rules an older catalog was wrong about: what the statements planned by it relied on, rule by rule."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cache.catalog.tables import BoundRule, Catalog, Link, Relation
    from cache.rules import TableRule


def changed_rules(former: Catalog, newer: Catalog) -> list[TableRule]:
    """The rules whose facts differ between two catalogs, as ``newer`` has them.

    A statement that was planned by ``former`` may have changed rows of these rules without any Evict: it may even have
    changed none, such as a DELETE on a table that a foreign key refers to which ``former`` did not have. A rule that
    ``newer`` cannot capture is left out: its reason is reported, and its keys are removed, apart from this.
    """
    all_of_them = (
        former.started != newer.started
        or former.float_digits_by_role != newer.float_digits_by_role
        # A function that was held to change no table may have changed any.
        or bool(newer.volatile - former.volatile)
        or bool(former.harmless - newer.harmless)
    )
    known, found = _facts(former), _facts(newer)
    return [
        bound.rule for bound in newer.bound if all_of_them or known.get(bound.rule.label) != found[bound.rule.label]
    ]


def _facts(catalog: Catalog) -> dict[str, Hashable]:
    """For each rule that can be captured, by its label, a value that is equal where plans would be."""
    links: dict[BoundRule, list[Link]] = defaultdict(list)
    for several in catalog.links.values():
        for link in several:
            links[link.bound].append(link)
    return {bound.rule.label: _facts_of(bound, links[bound], catalog) for bound in catalog.bound}


def _facts_of(bound: BoundRule, links: list[Link], catalog: Catalog) -> Hashable:
    # An INSERT without a column list names columns by their position among those that exist.
    positions = {name: position for position, name in enumerate(bound.relation.columns)}
    names = {catalog.relations[link.oid].name for link in links} | {bound.rule.table}
    return (
        bound.relation.oid,
        tuple((positions[column.name], column) for column in (*bound.key, *bound.value)),
        frozenset(
            (link.type, link.on_delete, link.on_update, _identity(catalog.relations[link.oid]), link.oid)
            for link in links
        ),
        frozenset((name, _named(catalog, name)) for name in names),
    )


def _named(catalog: Catalog, name: str) -> Hashable:
    """Which relations of the database an unqualified ``name`` may mean."""
    return frozenset((oid, catalog.relations[oid].schema) for oid in catalog.names.get(name, ()))


def _identity(relation: Relation) -> Hashable:
    return (
        relation.schema,
        relation.name,
        relation.kind,
        frozenset(relation.unique),
        relation.triggers,
        relation.rewritten,
        relation.inherited,
        relation.partition,
        relation.rules,
    )
