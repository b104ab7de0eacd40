"""Which constants are keys and values, by type and cast."""

import pytest

from cache.sql import operands
from cache.sql.plans import Action, Reason
from tests.cache.catalogs import bound, catalog, column, effects, plan, relation


@pytest.mark.parametrize(
    ("kind", "stores"),
    [
        *((kind, True) for kind in ("text", "varchar", "int8", "bool", "uuid", "json")),
        *((kind, False) for kind in ("jsonb", "numeric", "bpchar", "timestamptz", "other")),
    ],
)
def test_constant_is_stored_if_the_type_keeps_its_text(kind, stores):
    where = catalog(relation(1, "users", (("id", 1, "int4"), ("name", 2, kind))))
    expected = "store 1=x" if stores else "evict 1"
    assert effects("UPDATE users SET name = 'x' WHERE id = 1", where) == expected


def test_enum_and_domain_constants_are_stored_but_for_domains_over_varchar():
    enum = catalog(relation(1, "users", (("id", 1, "int4"), column("name", 2, "mood", type_kind="e"))))
    assert effects("UPDATE users SET name = 'x' WHERE id = 1", enum) == "store 1=x"
    assert effects("UPDATE users SET name = 'x'::text WHERE id = 1", enum) == "evict 1"
    for base, effect in (("text", "store 1=x"), ("varchar", "evict 1")):
        domain = column("name", 2, "d", type_kind="d", base_oid=25 if base == "text" else 1043)
        where = catalog(relation(1, "users", (("id", 1, "int4"), domain)))
        assert effects("UPDATE users SET name = 'x' WHERE id = 1", where) == effect


@pytest.mark.parametrize("kind", ["numeric", "bpchar", "timestamptz", "other", "json"])
def test_key_is_unknown_if_equality_is_not_same_text(kind):
    where = catalog(relation(1, "users", (("id", 1, kind), ("name", 2, "text"))))
    assert effects("SELECT name FROM users WHERE id = '1'", where) == "fill"
    assert effects("DELETE FROM users WHERE id = '1'", where) == "flush"


def test_key_is_unknown_under_a_nondeterministic_collation():
    key = column("id", 1, "text", deterministic=False)
    where = catalog(relation(1, "users", (key, ("name", 2, "text"))))
    assert effects("SELECT name FROM users WHERE id = '1'", where) == "fill"
    assert effects("DELETE FROM users WHERE id = ANY ('{1}')", where) == "flush"


def test_declared_type_of_a_parameter_counts_as_its_cast():
    exact = plan("PREPARE q (int, text) AS UPDATE users SET name = $2 WHERE id = $1").inner
    assert exact.reason is Reason.STORE
    assert exact.writes[0].targets[0].key[0].cast == "int4"
    changed = plan("PREPARE q (int, numeric) AS UPDATE users SET name = $2 WHERE id = $1").inner
    assert changed.reason is Reason.EVICT_TYPE
    quoted = plan('PREPARE q ("int", text) AS UPDATE users SET name = $2 WHERE id = $1').inner
    assert quoted.writes[0].action is Action.FLUSH
    unknown = plan("PREPARE q (numeric(4, 2), text) AS UPDATE users SET name = $2 WHERE id = $1").inner
    assert unknown.reason is Reason.FLUSH_UNKNOWN_KEY
    several = plan("PREPARE q (int, text) AS SELECT name FROM users WHERE id = $1 AND n = $1").inner
    assert several.reason is Reason.FILL_FIXED_KEY


def test_conditions_that_combine_to_too_many_keys_are_a_flush(monkeypatch):
    table = relation(1, "users", (("a", 1, "int4"), ("b", 2, "int4"), ("name", 3, "text")), key=("a", "b"))
    where = catalog(table, bound(table, ("a", "b")))
    text = "DELETE FROM users WHERE a IN (1, 2, 3) AND b IN (4, 5)"
    assert effects(text, where) == "evict 1,4 1,5 2,4 2,5 3,4 3,5"
    monkeypatch.setattr(operands, "MAX_TARGETS", 5)
    assert effects(text, where) == "flush"
