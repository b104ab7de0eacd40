"""links_to on graphs that real catalogs rarely show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from cache.catalog.links import Edge, links_to
from cache.catalog.tables import BoundRule, LinkType


def bound(oid: int) -> BoundRule:
    return cast("BoundRule", SimpleNamespace(relation=SimpleNamespace(oid=oid)))


def found(edges: list[Edge], oid: int = 1) -> dict[int, Any]:
    return {written: link for written, (link,) in links_to([bound(oid)], edges).items()}


def test_a_table_alone_is_only_itself():
    assert {oid: link.type for oid, link in found([]).items()} == {1: LinkType.SELF}


def test_foreign_keys_in_a_circle_end():
    edges = [
        Edge(1, 2, LinkType.CASCADE, on_delete=False, on_update=frozenset({"a"})),
        Edge(2, 3, LinkType.CASCADE),
        Edge(3, 2, LinkType.CASCADE, on_delete=True),
        Edge(2, 1, LinkType.CASCADE),
    ]
    links = links_to([bound(1)], edges)
    assert {oid: [link.type for link in found] for oid, found in links.items()} == {
        1: [LinkType.SELF, LinkType.CASCADE],
        2: [LinkType.CASCADE],
        3: [LinkType.CASCADE],
    }
    assert links[2][0].on_delete, "a delete on 2 reaches 3 and from there comes back"
    assert links[2][0].on_update == frozenset({"a"})


def test_partitions_of_a_referenced_table_cascade_alike():
    links = found([
        Edge(1, 2, LinkType.CASCADE, on_delete=True, on_update=frozenset({"id"})),
        Edge(2, 4, LinkType.CHILD),
        Edge(2, 5, LinkType.PARENT),
        Edge(5, 6, LinkType.VIEW),
    ])  # fmt: skip
    assert links[4].type is LinkType.CASCADE
    assert links[4].on_update == frozenset({"id"})
    assert links[5].type is LinkType.CASCADE
    assert links[6].type is LinkType.VIEW


def test_every_rule_of_one_table_has_its_own_link():
    first, second = bound(1), bound(1)
    links = links_to([first, second], [Edge(1, 2, LinkType.VIEW)])
    assert [link.bound for link in links[2]] == [first, second]


def test_a_table_that_cascades_to_itself_has_two_links():
    edges = [
        Edge(1, 1, LinkType.CASCADE, on_update=frozenset({"id"})),
        Edge(1, 2, LinkType.CHILD),
        Edge(2, 1, LinkType.PARENT),
    ]
    edges += [Edge(3, 2, LinkType.CASCADE, on_delete=False, on_update=frozenset({"x"})), Edge(1, 3, LinkType.CASCADE)]
    links = links_to([bound(1)], edges)
    assert {oid: [link.type for link in found] for oid, found in links.items()} == {
        1: [LinkType.SELF, LinkType.CASCADE],
        2: [LinkType.CHILD, LinkType.CASCADE],
        3: [LinkType.CASCADE],
    }
    assert links[1][1].on_update == frozenset({"id"})
    assert links[2][1].on_update == frozenset({"x"})
