"""Catalog.resolve: which relation a name may mean, and when that is certain."""

from __future__ import annotations

import pytest

from cache.catalog.tables import BoundRule, Catalog, Column, Link, LinkType, Relation, Scope
from cache.keys import KeyTemplate
from cache.rules import TableRule

COLUMN = Column("id", 1, 23, -1)
OWN = Relation(1, "public", "users", "r", {"id": COLUMN})
OTHER = Relation(2, "other", "users", "r", {})
RULE = TableRule(
    "app",
    "public",
    "users",
    ("id",),
    ("name",),
    KeyTemplate.parse("users:{id}", database="app", schema="public", table="users", key_columns=("id",)),
)
BOUND = BoundRule(RULE, OWN, (COLUMN,), (COLUMN,))
CATALOG = Catalog(
    "app",
    bound=(BOUND,),
    relations={1: OWN, 2: OTHER},
    links={1: (Link(1, BOUND, LinkType.SELF),), 2: (Link(2, BOUND, LinkType.VIEW),)},
    names={"users": (1, 2), "unique": (1,)},
)


@pytest.mark.parametrize(
    ("schema", "name", "scope", "oids", "certain"),
    [
        (None, "elsewhere", Scope(), (), True),
        ("public", "users", Scope(), (1,), True),
        ("nowhere", "users", Scope(), (), True),
        ("pg_temp_3", "users", Scope(), (), True),
        (None, "users", Scope(), (1, 2), False),
        (None, "unique", Scope(), (1,), True),
        (None, "users", Scope(search_path=("public",)), (1,), True),
        (None, "users", Scope(search_path=("other",)), (2,), True),
        (None, "users", Scope(search_path=()), (), True),
        # The server passes over a schema that the user may not use.
        (None, "users", Scope(search_path=("other", "public")), (2, 1), False),
        (None, "users", Scope(search_path=("public",), shadowed=frozenset({"users"})), (1, 2), False),
    ],
)
def test_name_resolves_by_schema_and_search_path(schema, name, scope, oids, certain):
    found = CATALOG.resolve(schema, name, scope)
    assert set(found.oids) == set(oids)
    assert found.certain is certain
