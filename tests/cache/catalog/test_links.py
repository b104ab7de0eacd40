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


def test_table_alone_is_linked_to_itself_only():
    assert {oid: link.type for oid, link in found([]).items()} == {1: LinkType.SELF}


def test_circle_of_foreign_keys_is_walked_once():
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


def test_partitions_of_a_referenced_table_cascade_as_it_does():
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


def test_each_rule_of_a_table_has_its_own_link():
    first, second = bound(1), bound(1)
    links = links_to([first, second], [Edge(1, 2, LinkType.VIEW)])
    assert [link.bound for link in links[2]] == [first, second]


def test_table_that_cascades_to_itself_has_two_links():
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


def test_views_over_the_tables_own_partitions_and_themselves_add_no_link():
    """A view over a partition is a view over the table, and one that is its own ancestor ends the walk."""
    links = found([
        Edge(1, 2, LinkType.CHILD),
        Edge(2, 1, LinkType.PARENT),
        Edge(2, 1, LinkType.VIEW),
        Edge(2, 3, LinkType.VIEW),
        Edge(1, 3, LinkType.VIEW),
        Edge(3, 3, LinkType.VIEW),
    ])  # fmt: skip
    assert {oid: link.type for oid, link in links.items()} == {
        1: LinkType.SELF, 2: LinkType.CHILD, 3: LinkType.VIEW,
    }  # fmt: skip


def test_second_foreign_key_without_on_update_keeps_the_columns_of_the_first():
    links = found([
        Edge(1, 2, LinkType.CASCADE, on_delete=False, on_update=frozenset({"id"})),
        Edge(1, 2, LinkType.CASCADE, on_delete=True, on_update=None),
    ])  # fmt: skip
    assert (links[2].on_delete, links[2].on_update) == (True, frozenset({"id"}))


def test_two_foreign_keys_that_cascade_on_update_reach_by_the_columns_of_both():
    edges = [Edge(1, 2, LinkType.CASCADE, on_update=frozenset({column})) for column in ("id", "code", "id")]
    assert found(edges)[2].on_update == frozenset({"id", "code"})
