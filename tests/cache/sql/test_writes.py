"""Each row of docs/capture.md's table of writes, with what it does and what it must not do."""

import pytest

from cache.catalog.tables import Link, LinkType
from cache.rules import ValueFormat
from cache.sql.plans import Reason
from tests.cache.catalogs import USERS_COLUMNS, bound, catalog, column, effects, plan, relation

WRITES = [
    ("UPDATE users SET name = 'x' WHERE id = 1", "store 1=x", "store"),
    ("UPDATE users SET name = $1 WHERE id = $2 AND n > 4", "store $2=$1", "store"),
    ("UPDATE ONLY users AS u SET name = 'x' WHERE u.id = 1", "store 1=x", "store"),
    ("UPDATE users SET (name, n) = ('x', 4) WHERE id = 1", "store 1=x", "store"),
    ("UPDATE users SET (name) = ROW ('x') WHERE id = 1", "store 1=x", "store"),
    ("UPDATE users SET name = NULL WHERE id = 1", "store 1=null", "store"),
    ("UPDATE users SET name = 'x'::text WHERE id = 1", "store 1=x::text", "store"),
    ("UPDATE users SET name = 'x' FROM o WHERE users.id = 1 AND o.y = 2", "store 1=x", "store"),
    ("UPDATE users SET id = $1, name = $2 WHERE id = $1", "store $1=$2", "store"),
    ("UPDATE users SET name = 'x' WHERE id IN (1, 2)", "store 1=x 2=x", "store"),
    ("UPDATE users SET name = 'x' WHERE id IN (1, NULL, 2)", "store 1=x 2=x", "store"),
    ("UPDATE users SET name = 'x' WHERE id = ANY ($1)", "store =x any $1", "store"),
    ("UPDATE users SET name = 'x' WHERE id = ANY ($1::bigint[])", "store =x any $1::int8[]", "store"),
    ("UPDATE users SET name = 'x' WHERE id = ANY (ARRAY[1, 2])", "store 1=x 2=x", "store"),
    ("UPDATE users SET name = 'x' WHERE id = ANY ('{1,2}')", "store =x any {1,2}", "store"),
    ("UPDATE users SET name = v.n FROM (VALUES (1, 'x'), (2, 'y')) v (i, n) WHERE id = v.i", "evict 1 2", None),
    ("UPDATE users u SET name = 'x' FROM (VALUES (1), (2)) v WHERE v.column1 = u.id", "store 1=x 2=x", "store"),
    ("UPDATE users u SET name = n FROM unnest($1::int[], $2) AS v (i, n) WHERE u.id = i AND i = 1", "flush", None),
    (
        "UPDATE users u SET name = n FROM unnest($1::int[], $2) AS v (i, n) WHERE u.id = v.i",
        "evict any $1::int4[]",
        None,
    ),
    ("DELETE FROM users u USING unnest(ARRAY[1, 2]) AS v (i) WHERE u.id = v.i", "evict 1 2", "evict-delete"),
    ("DELETE FROM users u USING (VALUES (1), (2)) v (i) WHERE u.id = v.i OR u.n = 1", "flush", None),
    ("UPDATE users SET name = name || 'x' WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name = DEFAULT WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name = (SELECT 'x') WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET (name, n) = (SELECT 'x', 4) WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name = o.y FROM o WHERE users.id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name[1] = 'x' WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name.part = 'x' WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name = 'x'::varchar(2) WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name = 7::int WHERE id = 1", "evict 1", "evict-type"),
    ("UPDATE users SET name = B'101' WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name = N'x' WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET name = $1 WHERE id = 1 AND n = $1", "evict 1", "evict-type"),
    ("UPDATE users SET (name[1], n) = ROW ('x', 4) WHERE id = 1", "evict 1", "evict-expression"),
    ("UPDATE users SET (name.part, n) = ('x', 4) WHERE id = 1", "evict 1", "evict-expression"),
    ("CREATE TABLE o AS WITH d AS (DELETE FROM users WHERE id = $1 RETURNING $1) TABLE d", "flush uncounted", None),
    ("UPDATE users SET seen = now(), n = n + 1 WHERE id = 1", "nothing", "nothing-untouched"),
    ("UPDATE users SET seen = now()", "nothing", "nothing-untouched"),
    ("UPDATE users SET id = 5 WHERE id = 4", "evict 4 5", "evict-key-change"),
    ("UPDATE users SET id = id + 1 WHERE id = 4", "flush", "flush-key-change"),
    ("UPDATE users SET id = 5 WHERE n = 4", "flush", "flush-key-change"),
    ("UPDATE users SET id = 5.5 WHERE id = ANY ($1)", "flush", "flush-key-change"),
    ("UPDATE users SET name = 'x'", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE id > 4", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE id = 1 OR id = 2", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE NOT id = 1", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE id = 1::numeric", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE id NOT IN (1)", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE id <> ANY ($1)", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE id IN (1, n)", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE id IN (SELECT 1)", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' FROM o WHERE o.id = 1", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' FROM users v, ROWS FROM (f()) r RETURNING v.id, v.name", "flush uncounted", "opaque"),
    ("DELETE FROM users USING o, ROWS FROM (s.f()) r WHERE users.id = 4", "flush uncounted", "opaque"),
    ("UPDATE users SET name = 'x' WHERE CURRENT OF c", "flush", "flush-unknown-key"),
    ("UPDATE users SET name = 'x' WHERE n = 1 RETURNING id, name", "flush returning store", "store-returning"),
    ("UPDATE users SET name = 'x' WHERE n = 1 RETURNING new.*", "flush returning store", "store-returning"),
    ("UPDATE users SET name = 'x' WHERE n = 1 RETURNING old.name, id", "flush returning evict", "flush-unknown-key"),
    (
        "UPDATE users SET name = 'x' WHERE n = 1 RETURNING WITH (OLD AS o) id, o.name",
        "flush returning evict",
        "flush-unknown-key",
    ),
    ("UPDATE users SET id = 9 WHERE n = 1 RETURNING id, name", "flush", "flush-key-change"),
    ("UPDATE users SET name = 'x' FROM users v WHERE users.n = v.n RETURNING v.id, users.name", "flush", None),
    ("WITH v AS (SELECT * FROM users) UPDATE users SET name = 'x' FROM v RETURNING v.*", "flush", None),
    (
        "UPDATE users SET name = 'x' WHERE id IN (SELECT id FROM users LIMIT 5) RETURNING id, name",
        "flush returning store",
        None,
    ),
    ("DELETE FROM users WHERE id = 1", "evict 1", "evict-delete"),
    ("DELETE FROM users AS u WHERE u.id IN (1, 2) RETURNING *", "evict 1 2 returning evict", "evict-delete"),
    ("DELETE FROM users USING o WHERE users.id = o.id", "flush", "flush-unknown-key"),
    ("DELETE FROM users WHERE n = 1 RETURNING id", "flush returning evict", None),
    ("DELETE FROM users WHERE n = 1 RETURNING new.id", "flush", None),
    ("DELETE FROM users", "flush", "flush-unknown-key"),
    ("INSERT INTO users (id, name) VALUES (1, 'a')", "store 1=a", "store"),
    ("INSERT INTO users VALUES (1, 'a', 'b'), ($1, $2, 'c')", "store 1=a $1=$2", "store"),
    ("INSERT INTO users (id, name) VALUES (1, 'a') ON CONFLICT DO NOTHING", "store 1=a", "store"),
    ("INSERT INTO users (name) VALUES ('a')", "nothing", "nothing-insert"),
    ("INSERT INTO users (id, name) VALUES (DEFAULT, 'a')", "nothing", "nothing-insert"),
    ("INSERT INTO users (id) VALUES (1)", "nothing", "nothing-insert"),
    ("INSERT INTO users (id, name) VALUES (1, upper('a'))", "nothing", "nothing-insert"),
    ("INSERT INTO users (id, name) OVERRIDING USER VALUE VALUES (1, 'a')", "nothing", "nothing-insert"),
    ("INSERT INTO users (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'a')", "store 1=a", "store"),
    ("INSERT INTO users DEFAULT VALUES", "nothing", "nothing-insert"),
    ("INSERT INTO users SELECT * FROM o", "nothing", "nothing-insert"),
    ("INSERT INTO users (name) VALUES ('a') RETURNING id, name", "nothing returning store", "store-returning"),
    ("INSERT INTO users (name) VALUES ('a') RETURNING old.id, name", "nothing", "nothing-insert"),
    ("INSERT INTO users SELECT * FROM users RETURNING *", "nothing returning store", "store-returning"),
    (
        "INSERT INTO users (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        "evict 1",
        "evict-upsert",
    ),
    (
        "INSERT INTO users (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING *",
        "evict 1 returning store",
        "store-returning",
    ),
    ("INSERT INTO users VALUES (1, 'a') ON CONFLICT (email) DO UPDATE SET name = 'b'", "flush", "flush-unknown-key"),
    ("INSERT INTO users VALUES (1, 'a') ON CONFLICT ON CONSTRAINT c DO UPDATE SET name = 'b'", "flush", None),
    ("INSERT INTO users VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET n = 4", "nothing", "nothing-untouched"),
    ("INSERT INTO users VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET id = 4", "flush", "flush-key-change"),
    ("INSERT INTO users SELECT * FROM o ON CONFLICT (id) DO UPDATE SET name = 'b'", "flush", "flush-unknown-key"),
    ("MERGE INTO users USING o ON users.id = o.id WHEN MATCHED THEN UPDATE SET name = 'x'", "flush", None),
    ("MERGE INTO users USING o ON users.id = o.id WHEN MATCHED THEN DELETE", "flush", "flush-unknown-key"),
    ("MERGE INTO users USING o ON true WHEN MATCHED THEN UPDATE SET n = 1", "nothing", "nothing-untouched"),
    ("MERGE INTO users USING o ON true WHEN NOT MATCHED THEN INSERT (id) VALUES (o.x)", "nothing", "nothing-insert"),
    (
        "MERGE INTO users USING o ON true WHEN MATCHED THEN UPDATE SET name = 'x' RETURNING users.id, name",
        "flush returning store",
        None,
    ),
    ("MERGE INTO users USING o ON true WHEN MATCHED THEN DELETE RETURNING users.*", "flush returning evict", None),
    ("MERGE INTO users USING users s ON true WHEN MATCHED THEN UPDATE SET name = 'x' RETURNING s.*", "flush", None),
    ("MERGE INTO users USING o ON true WHEN MATCHED THEN UPDATE SET name = 'x' RETURNING old.id", "flush", None),
    ("COPY users FROM STDIN", "nothing", "nothing-insert"),
    ("COPY users (id, name) FROM '/tmp/x' WITH (FORMAT csv)", "nothing", "nothing-insert"),
    ("COPY (UPDATE users SET name = 'x' WHERE id = 1 RETURNING *) TO STDOUT", "evict 1 uncounted", None),
    ("TRUNCATE users", "flush uncounted", "flush-truncate"),
    ("TRUNCATE TABLE ONLY o, users * RESTART IDENTITY", "flush uncounted", "flush-truncate"),
    ("TRUNCATE o CASCADE", "flush uncounted", "flush-truncate"),
    ("TRUNCATE o", "", "unrelated"),
    ("WITH a AS (UPDATE users SET name = 'x' WHERE id = 1) SELECT 1", "evict 1 uncounted", "evict-uncounted"),
    ("WITH a AS (INSERT INTO users VALUES (1, 'a')) UPDATE o SET x = 1", "nothing uncounted", "nothing-insert"),
    ("WITH a AS (DELETE FROM users WHERE id = 1 RETURNING *) INSERT INTO o SELECT * FROM a", "evict 1 uncounted", None),
    (
        "WITH a AS (UPDATE users SET name = 'a' WHERE id = 1) UPDATE users SET name = 'b' WHERE id = 2",
        "evict 1 uncounted; evict 2",
        None,
    ),
    ("EXPLAIN ANALYZE UPDATE users SET name = 'x' WHERE id = 1", "evict 1 uncounted", "evict-uncounted"),
    ("EXPLAIN (ANALYZE off) UPDATE users SET name = 'x' WHERE id = 1", "", "not-run"),
    ("EXPLAIN ANALYZE EXECUTE q (1)", "flush uncounted", "opaque"),
    ("ALTER TABLE users ADD COLUMN x int", "flush uncounted", "flush-definition"),
    ("DROP TABLE IF EXISTS users", "flush uncounted", "flush-definition"),
    ("CREATE OR REPLACE RULE r AS ON DELETE TO users DO INSTEAD NOTHING", "flush uncounted", "flush-definition"),
    ("CREATE TRIGGER t BEFORE UPDATE ON users EXECUTE FUNCTION f()", "flush uncounted", "flush-definition"),
    ("ALTER TYPE mood RENAME VALUE 'a' TO 'b'", "flush uncounted", "flush-definition"),
    ("DROP SCHEMA x CASCADE", "flush uncounted", "flush-definition"),
    ("CREATE INDEX i ON users (name)", "", "unrelated"),
    ("CREATE TABLE o2 AS SELECT * FROM users", "", "unrelated"),
    ("VACUUM users", "", "unrelated"),
    ("LOCK TABLE users IN EXCLUSIVE MODE", "", "unrelated"),
    ("DO $$ BEGIN UPDATE users SET name = 'x'; END $$", "flush uncounted", "opaque"),
    ("CALL p()", "", "unrelated"),
    ("UPSERT INTO users VALUES (1)", "flush uncounted", "opaque"),
    ("UPDATE o SET x = 1 WHERE id = 1", "", "unrelated"),
    ("UPDATE other.users SET name = 'x' WHERE id = 1", "", "unrelated"),
]


@pytest.mark.parametrize(("text", "effect", "reason"), WRITES)
def test_write_has_the_effect_and_the_reason_of_the_manual(text, effect, reason):
    assert effects(text) == effect
    assert reason is None or plan(text).reason.value == reason


ALL_EVENTS = frozenset(["INSERT", "UPDATE", "DELETE"])


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("UPDATE users SET name = 'x' WHERE id = 1", "evict 1 uncounted"),
        ("UPDATE users SET n = 1 WHERE id = 1", "evict 1 uncounted"),
        ("UPDATE users SET n = 1", "flush uncounted"),
        ("UPDATE users SET id = 2 WHERE id = 1", "flush uncounted"),
        ("UPDATE users SET n = 1 RETURNING id, name", "flush uncounted returning evict"),
        ("DELETE FROM users WHERE id = 1", "evict 1 uncounted"),
        ("INSERT INTO users VALUES (1, 'a')", "evict 1 uncounted"),
        ("INSERT INTO users (name) VALUES ('a')", "nothing"),
        ("COPY users FROM STDIN", "nothing"),
        ("INSERT INTO users VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET n = 1", "evict 1 uncounted"),
    ],
)
def test_trigger_for_the_event_makes_stores_evicts_and_takes_the_row_count_away(text, effect):
    where = catalog(relation(1, "users", USERS_COLUMNS, triggers=ALL_EVENTS))
    assert effects(text, where) == effect


@pytest.mark.parametrize("events", [["INSERT"], ["DELETE"], ["TRUNCATE"]])
def test_trigger_of_another_event_leaves_the_store(events):
    where = catalog(relation(1, "users", USERS_COLUMNS, triggers=frozenset(events)))
    assert effects("UPDATE users SET name = 'x' WHERE id = 1", where) == "store 1=x"


def test_delete_trigger_makes_update_of_partitioned_table_an_evict():
    where = catalog(relation(1, "users", USERS_COLUMNS, kind="p", triggers=frozenset(["DELETE"])))
    assert effects("UPDATE users SET name = 'x' WHERE id = 1", where) == "evict 1 uncounted"


def test_rewrite_rule_flushes():
    where = catalog(relation(1, "users", USERS_COLUMNS, rewritten=True))
    for text in ("UPDATE users SET n = 1 WHERE id = 1", "INSERT INTO users VALUES (1, 'a')", "DELETE FROM users"):
        assert effects(text, where) == "flush uncounted"


def test_generated_column_evicts_even_if_it_is_not_assigned():
    columns = (*USERS_COLUMNS[:1], column("name", 2, "text", generated=True), *USERS_COLUMNS[2:])
    where = catalog(relation(1, "users", columns))
    assert effects("UPDATE users SET n = 1 WHERE id = 1", where) == "evict 1"
    assert effects("UPDATE users SET n = 1", where) == "flush"
    assert effects("INSERT INTO users (id, n) VALUES (1, 2)", where) == "nothing"


# Composite keys, several values


PAIRS = relation(2, "pairs", (("a", 1, "int4"), ("b", 2, "text"), ("v", 3, "text"), ("w", 4, "int4")), key=("a", "b"))


def pairs(style, value=("v",)):
    return catalog(PAIRS, bound(PAIRS, ("a", "b"), value, style))


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("SELECT v FROM pairs WHERE a = 1 AND b = 'x'", "fill 1,x"),
        ("SELECT v FROM pairs WHERE (a, b) = (1, 'x')", "fill 1,x"),
        ("SELECT v, a FROM pairs WHERE b = 'x'", "fill row,x"),
        ("UPDATE pairs SET v = 'n' WHERE b = 'x' AND a = 1", "store 1,x=n"),
        ("UPDATE pairs SET v = 'n' WHERE a = 1 AND b IN ('x', 'y')", "store 1,x=n 1,y=n"),
        ("UPDATE pairs SET v = 'n' WHERE a IN (1, 2) AND b IN ('x', 'y')", "store 1,x=n 1,y=n 2,x=n 2,y=n"),
        ("UPDATE pairs SET v = 'n' WHERE (a, b) IN ((1, 'x'), (2, 'y'))", "store 1,x=n 2,y=n"),
        ("UPDATE pairs SET v = 'n' WHERE a = 1", "flush"),
        ("UPDATE pairs SET v = 'n' WHERE a = ANY ($1) AND b = 'x'", "flush"),
        ("UPDATE pairs SET b = 'z' WHERE a = 1 AND b = 'x'", "evict 1,x 1,z"),
        ("DELETE FROM pairs WHERE ROW(a, b) = ROW($1, $2)", "evict $1,$2"),
        ("INSERT INTO pairs VALUES (1, 'x', 'n') ON CONFLICT (a, b) DO UPDATE SET v = 'm'", "evict 1,x"),
        ("INSERT INTO pairs VALUES (1, 'x', 'n') ON CONFLICT (a) DO UPDATE SET v = 'm'", "flush"),
    ],
)
def test_composite_key_is_known_if_all_its_columns_are(text, effect):
    assert effects(text, pairs(ValueFormat.STRING)) == effect


def test_partial_assignment_is_a_store_for_hashes_only():
    partly = "UPDATE pairs SET w = 4 WHERE a = 1 AND b = 'x'"
    assert effects(partly, pairs(ValueFormat.HASH, ("v", "w"))) == "store 1,x=-,4"
    assert effects(partly, pairs(ValueFormat.JSON, ("v", "w"))) == "evict 1,x"
    wholly = "UPDATE pairs SET w = 4, v = 'n' WHERE a = 1 AND b = 'x'"
    assert effects(wholly, pairs(ValueFormat.JSON, ("v", "w"))) == "store 1,x=n,4"
    assert effects("INSERT INTO pairs (a, b, v) VALUES (1, 'x', 'n')", pairs(ValueFormat.HASH, ("v", "w"))) == "nothing"


# Relations that reach the table


def test_write_on_a_partition_evicts():
    users = relation(1, "users", USERS_COLUMNS, kind="p")
    rule = bound(users)
    where = catalog(users, rule, others=(relation(2, "part", ()),), links=(Link(2, rule, LinkType.CHILD),))
    assert effects("UPDATE part SET name = 'x' WHERE id = 1", where) == "evict 1"
    assert plan("UPDATE part SET name = 'x' WHERE id = 1", where).reason is Reason.EVICT_PARTITION
    assert effects("INSERT INTO part VALUES (1, 'a')", where) == "nothing"
    assert effects("DELETE FROM part RETURNING *", where) == "flush"
    assert effects("TRUNCATE part", where) == "flush uncounted"


def test_update_of_a_parent_evicts_whatever_it_assigns():
    users = relation(1, "users", USERS_COLUMNS, partition=True)
    rule = bound(users)
    where = catalog(users, rule, others=(relation(2, "top", (), kind="p"),), links=(Link(2, rule, LinkType.PARENT),))
    assert effects("UPDATE top SET region = 'x' WHERE id = 1", where) == "evict 1"
    assert effects("UPDATE top SET region = 'x'", where) == "flush"
    assert plan("DELETE FROM top", where).reason is Reason.FLUSH_PARENT
    assert effects("INSERT INTO top VALUES (1, 'a')", where) == "nothing"


def test_write_through_a_view_flushes():
    users = relation(1, "users", USERS_COLUMNS)
    rule = bound(users)
    where = catalog(users, rule, others=(relation(2, "v", (), kind="v"),), links=(Link(2, rule, LinkType.VIEW),))
    assert effects("UPDATE v SET name = 'x' WHERE id = 1", where) == "flush uncounted"
    assert effects("SELECT id, name FROM v JOIN users USING (id)", where) == "fill"
    assert effects("DROP VIEW v", where) == ""
    assert plan("DROP VIEW v", where).ddl


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("DELETE FROM teams WHERE id = 1", "flush"),
        ("UPDATE teams SET code = 'x'", "flush"),
        ("UPDATE teams SET title = 'x'", ""),
        ("INSERT INTO teams VALUES (1)", ""),
        ("INSERT INTO teams VALUES (1) ON CONFLICT (id) DO UPDATE SET code = 'x'", "flush"),
        ("MERGE INTO teams USING o ON true WHEN MATCHED THEN DELETE", "flush"),
        ("COPY teams FROM STDIN", ""),
        ("WITH d AS (DELETE FROM teams) SELECT 1", "flush uncounted"),
    ],
)
def test_write_that_a_foreign_key_carries_on_flushes(text, effect):
    users = relation(1, "users", USERS_COLUMNS)
    rule = bound(users)
    link = Link(2, rule, LinkType.CASCADE, on_delete=True, on_update=frozenset(["code"]))
    assert effects(text, catalog(users, rule, others=(relation(2, "teams"),), links=(link,))) == effect


def test_delete_does_nothing_if_the_foreign_key_cascades_on_update_only():
    users = relation(1, "users", USERS_COLUMNS)
    rule = bound(users)
    link = Link(2, rule, LinkType.CASCADE, on_delete=False, on_update=frozenset(["code"]))
    where = catalog(users, rule, others=(relation(2, "teams"),), links=(link,))
    assert effects("DELETE FROM teams", where) == ""
