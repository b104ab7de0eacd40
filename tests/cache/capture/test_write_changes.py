"""What a finished write makes of its rule's keys: by its constants, its row count, and the rows of its RETURNING."""

from __future__ import annotations

import pytest

from cache.capture.arguments import Arguments
from cache.capture.rows import MAX_RETURNED, RowCollector, row_plans
from cache.capture.write_changes import changes_of_write
from cache.values.loading import CANONICAL
from tests.cache.capture.results import HASH, ID, NAME, PAIR
from tests.cache.catalogs import USERS, plans

ONE = "UPDATE users SET name = 'a' WHERE id = 1"
RETURNING = "UPDATE users SET name = upper(name) RETURNING id, name"


def changes(text, count, *, where=USERS, parameters=(), rows=None, fields=(ID, NAME), certain=True):
    """The changes of a write with this row count, and these rows of its RETURNING."""
    (found,), literals = plans(text, where)
    arguments = Arguments(literals, parameters, settings=CANONICAL)
    (write,) = found.writes
    collector = None
    if rows is not None:
        ((row_plan,), _) = row_plans(found, fields, [0] * len(fields), CANONICAL)
        collector = RowCollector(row_plan, arguments)
        for row in rows:
            collector.add(row)
    return changes_of_write(write, arguments, count, collector, (1, 1), certain=certain)


def shown(*arguments, **facts):
    """The same in words."""
    return [
        f"{change.kind.name} {change.key.decode()}" + (f" {change.value}" if change.value else "")
        for change in changes(*arguments, **facts)
    ]


@pytest.mark.parametrize(
    ("text", "count", "made"),
    [
        (ONE, 1, ["STORE users:1 b'a'"]),
        (ONE, 0, []),
        (ONE, None, ["EVICT users:1"]),
        ("UPDATE users SET name = NULL WHERE id = 1", 1, ["EVICT users:1"]),
        ("UPDATE users SET name = 'a' WHERE id = 'x'", 1, ["FLUSH "]),
        ("UPDATE users SET name = 'a' WHERE name = 'b'", 3, ["FLUSH "]),
        ("UPDATE users SET name = 'a' WHERE id IN (1, 2)", 2, ["STORE users:1 b'a'", "STORE users:2 b'a'"]),
        ("UPDATE users SET n = 1 WHERE id = 1", 1, []),
        ("DELETE FROM users WHERE id = 1", 1, ["EVICT users:1"]),
        ("DELETE FROM users", 0, []),
        ("INSERT INTO users (id, name) VALUES (1, 'a')", 1, ["STORE users:1 b'a'"]),
        ("INSERT INTO users (id, name) VALUES (1, 'a') ON CONFLICT DO NOTHING", None, []),
        ("INSERT INTO users (id, name) VALUES ('x', 'a')", 1, []),
    ],
)
def test_write_makes_these_changes_for_this_row_count(text, count, made):
    assert shown(text, count) == made


def test_write_to_a_null_key_changes_nothing():
    assert shown("UPDATE users SET name = 'a' WHERE id = $1", 1, parameters=[None]) == []


def test_keys_are_evicted_if_fewer_rows_were_written_than_keys_are_named():
    text = "UPDATE users SET name = 'a' WHERE id IN (1, 2)"
    assert sorted(shown(text, 1)) == ["EVICT users:1", "EVICT users:2"]


@pytest.mark.parametrize("where", [USERS, HASH], ids=["string", "hash"])
def test_key_is_evicted_if_the_new_value_is_not_certain(where):
    assert shown("UPDATE users SET name = $1 WHERE id = 1", 1, where=where, parameters=[b"a\0b"]) == ["EVICT users:1"]


def test_keys_are_evicted_if_nothing_is_known_of_the_values():
    text = "UPDATE users SET name = upper(name) WHERE id IN (1, 2)"
    assert sorted(shown(text, 2)) == ["EVICT users:1", "EVICT users:2"]


@pytest.mark.parametrize(
    ("array", "made"),
    [
        (b"{1,2,1,NULL}", ["STORE users:1 b'a'", "STORE users:2 b'a'"]),
        (b"{1,x}", ["FLUSH "]),
        (None, []),
    ],
    ids=["certain", "not certain", "NULL"],
)
def test_write_to_an_array_of_keys_stores_each_or_flushes(array, made):
    assert shown("UPDATE users SET name = 'a' WHERE id = ANY($1)", 2, parameters=[array]) == made


def test_delete_of_an_array_of_keys_evicts_each():
    text = "DELETE FROM users WHERE id = ANY($1)"
    assert sorted(shown(text, 2, parameters=[b"{1,2}"])) == ["EVICT users:1", "EVICT users:2"]


def test_nothing_is_stored_while_the_catalog_is_uncertain():
    assert shown(ONE, 1, certain=False) == ["EVICT users:1"]
    assert shown(RETURNING, 1, rows=[[b"1", b"A"]], certain=False) == ["EVICT users:1"]
    assert shown(ONE, 1, where=HASH, certain=False) == ["EVICT users:1"]


def test_rows_of_returning_are_stored_and_those_without_a_value_evicted():
    assert shown(RETURNING, 2, rows=[[b"1", b"A"], [b"2", None]]) == ["STORE users:1 b'A'", "EVICT users:2"]
    assert shown(RETURNING, 1, rows=[[b"1"]], fields=(ID,)) == ["EVICT users:1"]


@pytest.mark.parametrize(
    ("count", "rows", "fields"),
    [
        (3, [[b"1", b"A"], [b"2", b"B"]], (ID, NAME)),
        (2, [[b"1"]], (ID,)),
        (MAX_RETURNED + 1, [[b"%d" % number, b"x"] for number in range(MAX_RETURNED + 1)], (ID, NAME)),
    ],
    ids=["one did not come", "one did not come, keys alone", "too many"],
)
def test_returning_of_which_some_rows_were_not_read_flushes(count, rows, fields):
    assert shown(RETURNING, count, rows=rows, fields=fields) == ["FLUSH "]


def test_assigned_columns_of_a_hash_are_stored_and_null_ones_removed():
    (change,) = changes(ONE, 1, where=HASH)
    assert (change.partial, change.value, change.removed) == (True, {b"name": b"a"}, ())
    (change,) = changes("UPDATE users SET email = NULL WHERE id = 1", 1, where=HASH)
    assert (change.partial, change.value, change.removed) == (True, {}, (b"email",))


def test_whole_hash_is_stored_if_all_of_its_columns_are_assigned():
    (change,) = changes("UPDATE users SET name = 'a', email = 'b' WHERE id = 1", 1, where=HASH)
    assert (change.partial, change.value) == (False, {b"name": b"a", b"email": b"b"})


def test_key_of_two_columns_is_rendered_from_both():
    text = "UPDATE users SET name = 'a' WHERE id = 1 AND email = 'b:c'"
    assert shown(text, 1, where=PAIR) == ["STORE users:1:b%3Ac b'a'"]
