"""Texts to statements: literals, and texts made to hurt."""

import time

import pytest

from cache.catalog.tables import Scope
from cache.sql.plans import Action, Reason
from tests.cache.catalogs import catalog, effects, plan, plans, relation


def test_statements_of_one_text_index_the_same_literals():
    found, literals = plans("UPDATE users SET name = 'a' WHERE id = 1; ; DELETE FROM users WHERE id = 2;")
    assert [one.reason for one in found] == [Reason.STORE, Reason.EVICT_DELETE]
    assert literals[found[1].writes[0].targets[0].key[0].index].value == b"2"


@pytest.mark.parametrize("text", ["", ";", " ;; -- nothing\n /* at all */ ;"])
def test_empty_statements_have_no_plan(text):
    assert plans(text)[0] == ()


LITERALS = [
    ("'a'", b"a"),
    ("'it''s'", b"it's"),
    ("'a'\n 'b'", b"ab"),
    ("'a' -- c'\n 'b'", b"ab"),
    (r"'a\b'", rb"a\b"),
    (r"E'a\'b\\\n\x41\101\u0041'", b"a'b\\\nAAA"),
    (r"E'a' " + "\n" + r"'\t'", b"a\t"),
    ("$$it's$$", b"it's"),
    ("$tag$a $$ b$tag$", b"a $$ b"),
    ("'é'", "é".encode()),
    ("'--'", b"--"),
    ("'/*'", b"/*"),
    ("''", b""),
]


@pytest.mark.parametrize(("spelled", "value"), LITERALS)
def test_literal_has_its_value_with_and_without_a_template(spelled, value):
    for where in ("WHERE id = 7", 'WHERE id = 7 AND U&"n" = 8'):  # with a template, and without
        found, literals = plans(f"UPDATE users SET name = {spelled} {where}")
        target = found[0].writes[0].targets[0]
        assert found[0].reason is Reason.STORE
        assert literals[target.values[0].index].value == value
        assert literals[target.key[0].index].value == b"7"


@pytest.mark.parametrize(
    "spelled", [r"E'\xe9'", r"E'\351'", r"E'\u00e9'", r"E'\v'", r"U&'\0061'", "N'x'", "B'1'", "X'1F'"]
)
def test_constant_whose_text_is_not_certain_evicts(spelled):
    assert effects(f"UPDATE users SET name = {spelled} WHERE id = 7") == "evict 7"


@pytest.mark.parametrize("spelled", ["0x1F", "1_000", "1.5", "1e3"])
def test_number_of_another_spelling_is_no_certain_key(spelled):
    assert plan(f"UPDATE users SET n = 4 WHERE id = {spelled}").reason is Reason.NOTHING_UNTOUCHED
    assert plan(f"DELETE FROM users WHERE id = {spelled}").writes[0].action in (Action.FLUSH, Action.EVICT)


def test_backslash_escapes_a_quote_while_strings_do_not_conform():
    scope = Scope(("public",), conforming_strings=False)
    text = r"UPDATE users SET name = 'a\'b' WHERE id = 1"
    found, literals = plans(text, scope=scope)
    assert literals[found[0].writes[0].targets[0].values[0].index].value == b"a'b"
    # A text that hides a write from those who take the backslash for itself.
    hiding = r"SELECT '\'; DELETE FROM users WHERE id = 1; --'"
    assert [one.reason for one in plans(hiding, scope=scope)[0]] == [Reason.UNRELATED]
    assert [one.reason for one in plans(hiding)[0]] == [Reason.UNRELATED, Reason.EVICT_DELETE]


def test_long_list_is_one_array_literal():
    for many in (20, 2000):
        found, literals = plans("UPDATE users SET name = 'x' WHERE id IN (" + ", ".join(map(str, range(many))) + ")")
        write = found[0].writes[0]
        assert literals[write.array.index].kind == "integer[]"
        assert literals[write.array.index].value.count(b",") == many - 1


def test_strings_in_long_lists_are_escaped():
    table_list = ", ".join(f"'{number}'" for number in range(1500)) + ", 'a\\b', 'c\"d'"
    found, literals = plans(f"SELECT 1 FROM users WHERE name IN ({table_list})")
    assert found[0].reason is Reason.FILL
    assert literals[1].kind == "string[]"
    assert literals[1].value.endswith(b'"a\\\\b","c\\"d"}')


def test_insert_of_many_rows_stores_none():
    rows = ", ".join(f"({number}, 'a')" for number in range(500))
    assert effects(f"INSERT INTO users VALUES {rows}") == "nothing"
    assert effects(f"INSERT INTO users VALUES {rows} ON CONFLICT (id) DO UPDATE SET name = 'b'") == "flush"
    assert effects(f"INSERT INTO users VALUES {rows} RETURNING id, name") == "nothing returning store"


# Texts made to hurt


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE users SET name = 'x",
        'UPDATE "users SET name = 1',
        "UPDATE users SET name = $a$x$b$",
        "UPDATE users /* SET name = 1",
        "UPDATE users SET name = 12ab",
        b"UPDATE users SET name = n || '\xff' WHERE \xff = 1; UPDATE users SET name = 'x\x00'",
        b"UPDATE users SET name = 'x\x00' WHERE id = 1",
        'UPDATE u&"\\zzzz" SET name = 1',
        "UPDATE users SET name = '" + "x" * 1_100_000 + "'",
    ],
)
def test_text_that_cannot_be_read_flushes_the_tables_it_names(text):
    made = plan(text)
    assert made.whole
    assert made.opaque
    assert made.reason is Reason.OPAQUE
    assert [write.action for write in made.writes] == [Action.FLUSH]
    assert not made.writes[0].counted


def test_text_that_cannot_be_read_flushes_nothing_if_it_names_or_writes_nothing():
    assert not plan("UPDATE orders SET name = 'x").writes
    assert not plan("SELECT * FROM users WHERE name = 'x").writes
    assert plan("SELECT * FROM users WHERE name = 'x").opaque


def test_text_in_another_encoding_flushes_tables_with_names_beyond_ascii():

    where = catalog(relation(1, "münze", (("id", 1, "int4"), ("name", 2, "text"))))
    assert plan(b'UPDATE "m\xfcnze" SET name = upper(name)', where).writes


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("UPDATE users SET name = " + "(" * 3000 + "1" + ")" * 3000, True),
        ("SELECT " + "(" * 3000 + "1" + ")" * 3000 + " FROM users", False),
        ("DELETE FROM users WHERE " + "NOT " * 5000 + "true", True),
        ("DELETE FROM users WHERE id = " + "- " * 5000 + "1", True),
        ("DELETE FROM users WHERE id = a" + "[1]" * 3000, True),
        ("DELETE FROM users WHERE id = ANY (" + "ARRAY[" * 50 + "1" + "]" * 50 + ")", True),
        ("DELETE FROM users WHERE " + "CASE WHEN true THEN " * 3000 + "true" + " END" * 3000, True),
        ("DELETE FROM users WHERE " + " OR ".join(f"n = {number}" for number in range(10_000)), True),
        ("DELETE FROM users WHERE id IN (" + ", ".join(f"${number}" for number in range(1, 10_001)) + ")", True),
        ("SELECT * FROM users" + " JOIN users ON true" * 5000, False),
        ("SELECT 1 " + "UNION SELECT 1 " * 9000, False),
        (
            "WITH " + ", ".join(f"c{n} AS (SELECT * FROM c{n - 1} x, c{n - 1} y)" for n in range(1, 300)) + " TABLE c9",
            False,
        ),
        ("DELETE FROM users;" * 5000, True),
        ("x " * 400_000, False),
        ("'" * 100_001, False),
        ("/*" * 100_000, False),
        ("SELECT 'a'" + " --" * 100_000, False),
        ("SELECT 'a'\n" + " " * 100_000 + "b", False),
        ("SELECT U&'a'" + " --" * 100_000, False),
        ("SELECT U&'a'" + " " * 100_000 + "b", False),
        ("$" * 100_000, False),
        ("U&'" * 10_000, False),
    ],
)
def test_hostile_text_is_planned_within_five_seconds(text, writes):
    start = time.process_time()
    found = plans(text)[0]
    assert time.process_time() - start < 5
    assert bool(found and found[0].writes) is writes
    if not found or found[0].reason is not Reason.UNRELATED:
        return
    assert not found[0].fills


def test_random_words_never_raise():
    pieces = ["SELECT", "users", "(", ")", "'", '"', "$1", "$$", "E'", ";", "--", "/*", "*/", "UPDATE", "SET", "=", ","]
    pieces += ["WITH", "AS", "FROM", "WHERE", "id", "1", "RETURNING", "INTO", "VALUES", "CREATE", "PREPARE", "EXPLAIN"]
    pieces += ["DECLARE", "MATERIALIZED", "TABLE", "TEMP", "ROWS", "TABLESAMPLE", "COMMIT PREPARED"]
    state = 12345
    for _ in range(3000):
        chosen = []
        for _ in range(12):
            state = (state * 1103515245 + 12345) % 2**31
            chosen.append(pieces[state // 7 % len(pieces)])
        plans(" ".join(chosen))


def test_opaque_statement_leaves_the_others_of_its_text_as_they_are():
    found = plans("UPDATE users SET name = 'x' FROM o WHERE FOO BAR BAZ; DELETE FROM users WHERE id = 1")[0]
    assert [one.reason for one in found] == [Reason.OPAQUE, Reason.EVICT_DELETE]
    assert not any(one.whole for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM users WHERE id = 1 LIMIT 1",
        "UPDATE users SET name = 'x' ORDER BY id LIMIT 1",
        "UPDATE users AS u (a, b) SET name = 'x'",
        "UPDATE users SET name",
        "UPDATE users SET lower(name) = 'x'",
        "DELETE FROM users()",
        "INSERT INTO users (id int) VALUES (1)",
        "INSERT INTO users (id)",
        "INSERT INTO users VALUES (1, 'a') ON CONFLICT (id)",
        "INSERT INTO users VALUES (1, 'a') ON CONFLICT",
        "INSERT INTO users ((SELECT 1) a JOIN o ON true)",
        "MERGE INTO users USING o ON true WHEN MATCHED THEN FOO",
        "DELETE FROM users USING ((o))",
        "DELETE FROM users WHERE app.schema.mine(1)",
        "DELETE FROM users WHERE EXISTS (SELECT 1 FROM ROWS FROM (f(1), g(2)) AS x)",
        "WITH d AS (SELECT 1) DELETE FROM ONLY (users; SELECT 1)",
    ],
)
def test_write_with_grammar_that_is_not_known_flushes(text):
    made = plan(text)
    assert made.reason is Reason.OPAQUE
    assert [write.action for write in made.writes] == [Action.FLUSH]


@pytest.mark.parametrize(
    "text",
    [
        "((users))",
        "SELECT * FROM users LATERAL f()",
        "SELECT * FROM ((users))",
        "(SELECT 1) JOIN users ON true",
        "SELECT id, name FROM users, ROWS FROM (f(1)) AS x",
        "SELECT id, name FROM users, f() AS x (a int)",
    ],
)
def test_read_with_grammar_that_is_not_known_fills_nothing(text):
    made = plan(text)
    assert made.opaque
    assert not made.fills


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("SELECT id, name FROM users, LATERAL generate_series(1, users.id) AS g", "fill"),
        ("SELECT id, name FROM users, LATERAL (VALUES (1)) AS v", "fill"),
        ("SELECT 1, 'a' UNION SELECT 2, 'b' UNION SELECT id, name FROM users", ""),
        ("WITH a AS (WITH a AS (SELECT * FROM users) SELECT * FROM a) SELECT * FROM a", "fill"),
        ("WITH RECURSIVE a AS (SELECT 1 UNION SELECT * FROM a), b AS (SELECT * FROM users) SELECT * FROM b", "fill"),
        ("(SELECT id, name FROM users)", "fill"),
        ("SELECT * FROM ((SELECT 1) AS a CROSS JOIN users)", "fill"),
    ],
)
def test_relations_surface_through_the_grammar_around_them(text, effect):
    assert effects(text) == effect


def test_recursive_query_that_refers_ahead_is_opaque():
    assert plan("WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM users) SELECT * FROM a").opaque


@pytest.mark.parametrize(
    "text",
    [
        'SELECT id, name, "q""u""o", """te" FROM users',
        'SELECT id, name, lower(a => name, b := email), EXTRACT(year FROM seen), \'x\'::"my ""type" FROM users',
        "SELECT id, name, INTERVAL '1' DAY TO SECOND, INTERVAL '1' YEAR FROM users",
        "SELECT id, name, CAST(n AS mine), n::s.mine(3), n::varchar(5)[] FROM users",
    ],
)
def test_names_are_counted_as_the_parser_keeps_them(text):
    assert plan(text).fills


@pytest.mark.parametrize("text", ["SELECT FROM SELECT 1", "INSERT INTO users (VALUES (1))"])
def test_tree_that_is_not_of_postgresqls_grammar_is_opaque(text):
    assert plan(text).opaque


def test_statement_of_which_the_parser_loses_a_name_is_opaque():
    assert plan("SELECT id, name, ARRAY((SELECT o) FETCH FIRST ROW ONLY) FROM users").reason is Reason.OPAQUE
    assert plan("UPDATE users SET name = 'x' FROM o, ROWS FROM (lower('a'))").reason is Reason.OPAQUE
