"""Finds the relations whose writes may change a configured table: partitions, ancestors, views, foreign keys."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.catalog.tables import BoundRule, Link, LinkType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Edge:
    """A write on relation ``written`` may change rows of relation ``target``."""

    target: int
    written: int
    type: LinkType
    """What ``written`` is to ``target``: CHILD, PARENT, VIEW (also a relation with a rewrite rule) or CASCADE."""
    on_delete: bool = True
    on_update: frozenset[str] | None = None
    """Cascade only: the referenced columns whose UPDATE cascades; None when none does."""


def links_to(bound: Iterable[BoundRule], edges: Sequence[Edge]) -> dict[int, tuple[Link, ...]]:
    """The links of every relation whose writes may change rows of one of the ``bound`` rules, by the relation's OID.

    There is one link for each such rule; a second one where the relation holds the rule's own rows and a foreign key
    among them leads back to it.
    """
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
    lineage = {own: LinkType.SELF}
    # Children of children and parents of parents, but not children of parents: a sibling partition has other rows.
    for direction in (LinkType.CHILD, LinkType.PARENT):
        waiting = [own]
        while waiting:
            for edge in incoming.get(waiting.pop(), ()):
                if edge.type is direction and edge.written not in lineage:
                    lineage[edge.written] = direction
                    waiting.append(edge.written)
    own_rows = {oid: Link(oid, bound, type_) for oid, type_ in lineage.items()}
    beyond: dict[int, Link] = {}
    waiting = list(lineage)
    while waiting:
        target = waiting.pop()
        inside = target in lineage
        for edge in incoming.get(target, ()):
            if inside and edge.type in (LinkType.CHILD, LinkType.PARENT):
                continue
            link = _reach(edge, bound, own_rows[target] if inside else beyond[target])
            if edge.written in lineage and link.type is not LinkType.CASCADE:
                continue
            # A foreign key may refer to a table of the lineage: a DELETE then changes more rows than it names.
            known = beyond.get(edge.written)
            widened = link if known is None else _widen(known, link)
            if widened is not None:
                beyond[edge.written] = widened
                if edge.written not in lineage:
                    waiting.append(edge.written)
    return [*own_rows.values(), *beyond.values()]


def _reach(edge: Edge, bound: BoundRule, beyond: Link) -> Link:
    """The link of ``edge.written``, given the link ``beyond`` of ``edge.target``."""
    if edge.type is LinkType.CASCADE:
        return Link(edge.written, bound, LinkType.CASCADE, edge.on_delete, edge.on_update)
    if edge.type is LinkType.VIEW:
        return Link(edge.written, bound, LinkType.VIEW)
    return Link(edge.written, bound, LinkType.CASCADE, beyond.on_delete, beyond.on_update)


def _widen(known: Link, link: Link) -> Link | None:
    """``known`` widened by ``link``, a further foreign key between the same tables; None when that adds nothing."""
    if known.type is not LinkType.CASCADE or link.type is not LinkType.CASCADE:
        return None
    columns = known.on_update
    if link.on_update is not None:
        columns = link.on_update | (known.on_update or frozenset())
    on_delete = known.on_delete or link.on_delete
    if on_delete == known.on_delete and columns == known.on_update:
        return None
    return Link(known.oid, known.bound, LinkType.CASCADE, on_delete, columns)
