"""Texts to statements: literals, and texts made to hurt."""

import time

import pytest

from cache.catalog.tables import Scope
from cache.sql.plans import Action, Reason
from tests.cache.catalogs import catalog, plan, plans, relation, told


def test_several_statements_share_their_literals():
    found, literals = plans("UPDATE users SET name = 'a' WHERE id = 1; ; DELETE FROM users WHERE id = 2;")
    assert [one.reason for one in found] == [Reason.STORE, Reason.EVICT_DELETE]
    assert literals[found[1].writes[0].targets[0].key[0].index].value == b"2"


@pytest.mark.parametrize("text", ["", ";", " ;; -- nothing\n /* at all */ ;"])
def test_empty(text):
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
def test_literal(spelled, value):
    for where in ("WHERE id = 7", 'WHERE id = 7 AND U&"n" = 8'):  # with a template, and without
        found, literals = plans(f"UPDATE users SET name = {spelled} {where}")
        target = found[0].writes[0].targets[0]
        assert found[0].reason is Reason.STORE
        assert literals[target.values[0].index].value == value
        assert literals[target.key[0].index].value == b"7"


@pytest.mark.parametrize("spelled", [r"E'\xe9'", r"E'\351'", r"E'\u00e9'", r"U&'\0061'", "N'x'", "B'1'", "X'1F'"])
def test_constants_whose_text_is_not_certain(spelled):
    assert told(f"UPDATE users SET name = {spelled} WHERE id = 7") == "evict 7"


@pytest.mark.parametrize("spelled", ["0x1F", "1_000", "1.5", "1e3"])
def test_numbers(spelled):
    assert plan(f"UPDATE users SET n = 4 WHERE id = {spelled}").reason is Reason.NOTHING_UNTOUCHED
    assert plan(f"DELETE FROM users WHERE id = {spelled}").writes[0].action in (Action.FLUSH, Action.EVICT)


def test_nonconforming_strings():
    scope = Scope(("public",), conforming_strings=False)
    text = r"UPDATE users SET name = 'a\'b' WHERE id = 1"
    found, literals = plans(text, scope=scope)
    assert literals[found[0].writes[0].targets[0].values[0].index].value == b"a'b"
    # A text that hides a write from those who take the backslash for itself.
    hiding = r"SELECT '\'; DELETE FROM users WHERE id = 1; --'"
    assert [one.reason for one in plans(hiding, scope=scope)[0]] == [Reason.UNRELATED]
    assert [one.reason for one in plans(hiding)[0]] == [Reason.UNRELATED, Reason.EVICT_DELETE]


def test_long_lists_are_arrays():
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


def test_many_rows_are_not_all_looked_at():
    rows = ", ".join(f"({number}, 'a')" for number in range(500))
    assert told(f"INSERT INTO users VALUES {rows}") == "nothing"
    assert told(f"INSERT INTO users VALUES {rows} ON CONFLICT (id) DO UPDATE SET name = 'b'") == "flush"
    assert told(f"INSERT INTO users VALUES {rows} RETURNING id, name") == "nothing returning store"


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
def test_unreadable_writes_flush(text):
    made = plan(text)
    assert made.whole
    assert made.opaque
    assert made.reason is Reason.OPAQUE
    assert [write.action for write in made.writes] == [Action.FLUSH]
    assert not made.writes[0].counted


def test_unreadable_texts_that_name_nothing_or_write_nothing():
    assert not plan("UPDATE orders SET name = 'x").writes
    assert not plan("SELECT * FROM users WHERE name = 'x").writes
    assert plan("SELECT * FROM users WHERE name = 'x").opaque


def test_names_that_another_encoding_may_hide():

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
def test_time_is_bounded(text, writes):
    start = time.process_time()  # which goes on for this process alone, however busy the machine is
    found = plans(text)[0]
    assert time.process_time() - start < 5
    assert bool(found and found[0].writes) is writes
    if not found or found[0].reason is not Reason.UNRELATED:
        return
    assert not found[0].fills


def test_never_raises():
    pieces = ["SELECT", "users", "(", ")", "'", '"', "$1", "$$", "E'", ";", "--", "/*", "*/", "UPDATE", "SET", "=", ","]
    pieces += ["WITH", "AS", "FROM", "WHERE", "id", "1", "RETURNING", "INTO", "VALUES", "CREATE", "PREPARE", "EXPLAIN"]
    state = 12345
    for _ in range(3000):
        chosen = []
        for _ in range(12):
            state = (state * 1103515245 + 12345) % 2**31
            chosen.append(pieces[state // 7 % len(pieces)])
        plans(" ".join(chosen))


def test_opaque_statements_keep_the_others():
    found = plans("UPDATE users SET name = 'x' FROM o WHERE FOO BAR BAZ; DELETE FROM users WHERE id = 1")[0]
    assert [one.reason for one in found] == [Reason.OPAQUE, Reason.EVICT_DELETE]
    assert not any(one.whole for one in found)
