"""Conditions that equate columns with constants, as they are read from the SQL parser's tree."""

import pytest

from cache.sql.statements import Name
from tests.cache.catalogs import statement


def equalities(text):
    """The equalities of the first relation in FROM with constants: columns, and the number of rows or ``any``."""
    found = statement(text)
    assert not found.unread
    counted = [
        (*one.columns, "any" if one.array is not None else sum(None not in row for row in one.rows))
        for one in found.references[0].equalities
    ]
    return [one for one in counted if one[-1] != 0]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("id = 1", [("id", 1)]),
        ("((id)) = (1)", [("id", 1)]),
        ("1 = id AND n = $1", [("id", 1), ("n", 1)]),
        ("id IN (1, 2, n)", [("id", 2)]),
        ("id = ANY ($1)", [("id", "any")]),
        ("id = ANY (ARRAY[1, 2]::int[])", [("id", 2)]),
        ("(id, n) = (1, 2)", [("id", "n", 1)]),
        ("(id, n) IN ((1, 2), (3, 4))", [("id", "n", 2)]),
        ("id = '5'::oid", []),
        ("id = 5::int4[]", []),
        ("id = -'5'", []),
        ("(id, n) = (1, 2, 3)", []),
        ("(id, n) IN ((1, 2), (3))", []),
        ("(users.id, o.n) = (1, 2)", []),
        ("db.public.users.id = 1", []),
        ("user = 'x'", []),
        ("id IN ()", []),
        ("$1 = ANY (id)", []),
        ("id = ANY (ARRAY[1, 2]::oid)", []),
        ("id = ANY (n)", []),
    ],
)
def test_conditions_are_equalities_of_plain_columns_with_constants(condition, found):
    assert equalities(f"SELECT name FROM users WHERE {condition}") == found


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("users.id = v.i", [("id", 2)]),
        ("v.i = users.id AND users.n = v.column2", [("id", "n", 2)]),
        ("users.id = v.x", []),
        ("users.id = w.i", []),
        ("v.i = v.column2", []),
        ("(users.id, users.n) = (v.i, 1)", []),
    ],
)
def test_lists_of_constants_equate_the_columns_joined_to_them(condition, found):
    assert equalities(f"SELECT * FROM users, (VALUES (1, 2), (3, 4)) AS v (i) WHERE {condition}") == found


def test_list_with_rows_of_different_length_equates_only_what_all_have():
    assert equalities("SELECT * FROM users, (VALUES (1, 2), (3)) AS v (i, j) WHERE users.id = v.i") == [("id", 2)]
    assert equalities("SELECT * FROM users, (VALUES (1, 2), (3)) AS v (i, j) WHERE users.id = v.j") == []


def test_arrays_joined_by_unnest_equate_their_own_columns():
    text = "SELECT * FROM users, unnest($1::int[], $2) AS v (i, j) WHERE users.id = v.i AND users.n = v.j"
    assert equalities(text) == [("id", "any"), ("n", "any")]
    assert equalities("SELECT * FROM users, app.unnest($1) AS v (i) WHERE users.id = v.i") == []
    assert equalities("SELECT * FROM users, unnest($1) AS v (i, j) WHERE users.id = v.j") == []


def test_too_many_relations_in_a_from_clause_are_unread():
    tables = ", ".join(f"t{number}" for number in range(501))
    assert statement(f"SELECT 1 FROM {tables}").unread
    assert not statement(f"SELECT 1 FROM {tables.removesuffix(', t500')}").unread


@pytest.mark.parametrize(
    ("target", "columns"),
    [
        ("(id)", {"id"}),
        ("(id, n) WHERE n > 1", {"id", "n"}),
        ("(lower(name))", None),
        ("(id, (n + 1))", None),
        ("ON CONSTRAINT c", None),
    ],
)
def test_conflict_columns_are_known_if_all_are_plain(target, columns):
    (write,) = statement(f"INSERT INTO users VALUES (1) ON CONFLICT {target} DO UPDATE SET name = 'x'").writes
    assert write.conflict_columns == columns


@pytest.mark.parametrize(
    ("assignment", "columns"),
    [
        ("name = 'x'", [("name", True)]),
        ("(name, (n)) = ROW ('x', 2)", [("name", True), ("n", True)]),
        ("(name, n) = (SELECT 1, 2)", [("name", False), ("n", False)]),
        ("name[1] = 'x'", [("name", False)]),
        ("(name[1]) = ROW ('x')", [("name", False)]),
        ("name.part = 'x'", [("name", False)]),
        ("name = n = 1", [("name", False)]),
    ],
)
def test_assignments_name_the_column_and_whether_it_gets_a_constant(assignment, columns):
    (write,) = statement(f"UPDATE users SET {assignment} WHERE id = 1").writes
    assert [(column, operand is not None) for column, operand in write.assignments] == columns


def test_functions_are_named_as_they_are_spelled():
    found = statement("SELECT lower(a), app.mine(b), left(c, 1), (x).y")
    assert found.functions == {Name(None, "lower"), Name("app", "mine"), Name(None, "left")}
