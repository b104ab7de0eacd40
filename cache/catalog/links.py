"""Which relations' writes reach a configured table, over partitions, ancestors, views, rules and foreign keys."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.catalog.tables import BoundRule, How, Link

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Edge:
    """A write on relation ``written`` may change rows of relation ``target``."""

    target: int
    written: int
    how: str
    """child, parent, view or cascade."""
    on_delete: bool = True
    on_update: frozenset[str] | None = None
    """Cascade only: the referenced columns whose UPDATE cascades; None when none does."""


def links_to(bound: Iterable[BoundRule], edges: Sequence[Edge]) -> dict[int, tuple[Link, ...]]:
    """For every relation that reaches one of the ``bound`` rules, its links, keyed by the relation's oid: one for each
    rule, two if it is one of the rule's own tables and its foreign keys lead back to them."""
    incoming: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        incoming[edge.target].append(edge)
    links: dict[int, list[Link]] = defaultdict(list)
    for rule in bound:
        for link in _links_of(rule, incoming):
            links[link.oid].append(link)
    return {oid: tuple(found) for oid, found in links.items()}


def _links_of(bound: BoundRule, incoming: Mapping[int, Sequence[Edge]]) -> list[Link]:
    own = bound.relation.oid
    lineage = {own: How.SELF}
    # Down and up are walked apart: a sibling partition's rows are not this table's rows.
    for how in (How.CHILD, How.PARENT):
        waiting = [own]
        while waiting:
            for edge in incoming.get(waiting.pop(), ()):
                if edge.how == how.value and edge.written not in lineage:
                    lineage[edge.written] = how
                    waiting.append(edge.written)
    own_rows = {oid: Link(oid, bound, how) for oid, how in lineage.items()}
    beyond: dict[int, Link] = {}
    waiting = list(lineage)
    while waiting:
        target = waiting.pop()
        inside = target in lineage
        for edge in incoming.get(target, ()):
            if inside and edge.how in ("child", "parent"):
                continue
            link = _reach(edge, bound, own_rows[target] if inside else beyond[target])
            if edge.written in lineage and link.how is not How.CASCADE:
                continue
            # Foreign keys may lead a table back to itself: a DELETE then changes more than the rows it names.
            known = beyond.get(edge.written)
            widened = link if known is None else _widen(known, link)
            if widened is not None:
                beyond[edge.written] = widened
                if edge.written not in lineage:
                    waiting.append(edge.written)
    return [*own_rows.values(), *beyond.values()]


def _reach(edge: Edge, bound: BoundRule, beyond: Link) -> Link:
    """The link of ``edge.written``, whose writes change ``edge.target``, which reaches the table by ``beyond``."""
    if edge.how == "cascade":
        return Link(edge.written, bound, How.CASCADE, edge.on_delete, edge.on_update)
    if edge.how == "view":
        return Link(edge.written, bound, How.VIEW)
    return Link(edge.written, bound, How.CASCADE, beyond.on_delete, beyond.on_update)


def _widen(known: Link, link: Link) -> Link | None:
    """``known`` with what ``link`` adds, or None when that is nothing. Two foreign keys may join the same tables."""
    if known.how is not How.CASCADE or link.how is not How.CASCADE:
        return None
    columns = known.on_update
    if link.on_update is not None:
        columns = link.on_update | (known.on_update or frozenset())
    on_delete = known.on_delete or link.on_delete
    if on_delete == known.on_delete and columns == known.on_update:
        return None
    return Link(known.oid, known.bound, How.CASCADE, on_delete, columns)
