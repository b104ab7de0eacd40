"""Each row of docs/capture.md's table of reads; names; and what else a plan says."""

import pytest

from cache.catalog.tables import Link, LinkType, Scope
from cache.sql.canonical import word_set
from cache.sql.plans import Reason
from tests.cache.catalogs import PUBLIC, USERS, USERS_COLUMNS, bound, catalog, effects, plan, relation

READS = [
    ("SELECT id, name FROM users", "fill", "fill"),
    ("TABLE users", "fill", "fill"),
    ("SELECT * FROM public.users u ORDER BY name LIMIT 5 FOR NO KEY UPDATE OF u SKIP LOCKED", "fill", "fill"),
    ("SELECT name FROM users WHERE id = 42", "fill 42", "fill-fixed-key"),
    ("SELECT name FROM users WHERE 42 = id", "fill 42", "fill-fixed-key"),
    ("SELECT name FROM users WHERE (id) = ((42)) AND n > 1", "fill 42", "fill-fixed-key"),
    ("SELECT name FROM users WHERE id = $1", "fill $1", "fill-fixed-key"),
    ("SELECT name FROM users WHERE id = $1::int", "fill $1::int4", "fill-fixed-key"),
    ("SELECT name FROM users WHERE id = CAST('7' AS bigint)", "fill 7::int8", "fill-fixed-key"),
    ("SELECT name FROM users WHERE id = int '7'", "fill 7::int4", "fill-fixed-key"),
    ("SELECT name FROM users WHERE id = -5", "fill -5", "fill-fixed-key"),
    ("SELECT name FROM users WHERE id IN (42)", "fill 42", "fill-fixed-key"),
    ('SELECT "name" FROM "users" AS "U" WHERE "U"."id" = 3', "fill 3", "fill-fixed-key"),
    ("SELECT name FROM users u WHERE public.users.id = 3", "fill", "fill"),
    ("SELECT name FROM public.users WHERE public.users.id = 3", "fill 3", "fill-fixed-key"),
    ("SELECT name FROM users WHERE id = 42::numeric", "fill", "fill"),
    ("SELECT name FROM users WHERE id = $1::text::int", "fill", "fill"),
    ("SELECT name FROM users WHERE id = 42 OR n = 1", "fill", "fill"),
    ("SELECT name FROM users WHERE NOT id = 42", "fill", "fill"),
    ("SELECT name FROM users WHERE NOT (id = 42 AND n = 1)", "fill", "fill"),
    ("SELECT name FROM users WHERE (id = 42) IS NOT TRUE", "fill", "fill"),
    ("SELECT name FROM users WHERE id = 42 IS NOT TRUE", "fill", "fill"),
    ("SELECT name FROM users WHERE id = 42 + 1", "fill", "fill"),
    ("SELECT name FROM users WHERE id = ALL ('{42}')", "fill", "fill"),
    ("SELECT name FROM users WHERE id >= 42", "fill", "fill"),
    ("SELECT name FROM users WHERE id IN (1, 2)", "fill", "fill"),
    ("SELECT name FROM users WHERE id = NULL", "fill", "fill"),
    ("SELECT name FROM users WHERE id = $1 AND n = $1", "fill", "fill"),
    ("SELECT name FROM users u (name, id) WHERE id = 42", "fill", "fill"),
    ("SELECT name FROM users WHERE n = 42", "fill", "fill"),
    ("SELECT name FROM (users JOIN o ON true) AS j WHERE id = 42", "fill", "fill"),
    ("SELECT name FROM users JOIN o USING (id) WHERE id = 42", "fill", "fill"),
    ("SELECT name FROM users JOIN o USING (x) WHERE users.id = 42", "fill 42", "fill-fixed-key"),
    ("SELECT name FROM users u JOIN o ON u.id = 42 AND o.x = u.n", "fill 42", "fill-fixed-key"),
    ("SELECT name FROM users u, o WHERE o.id = 42", "fill", "fill"),
    ("SELECT u.name FROM o LEFT JOIN users u ON u.id = 42", "fill", "fill"),
    ("SELECT u.name FROM o LEFT JOIN users u ON true WHERE u.id = 42", "fill", "outer-join"),
    ("SELECT u.name FROM users u LEFT JOIN o ON u.id = 42", "fill", "fill"),
    ("SELECT u.name FROM users u LEFT JOIN o ON true WHERE u.id = 42", "fill 42", "fill-fixed-key"),
    ("SELECT u.name FROM users u RIGHT JOIN o ON true WHERE u.id = 42", "fill", "outer-join"),
    ("SELECT u.name FROM users u FULL JOIN o ON true WHERE u.id = 42", "fill", "outer-join"),
    ("SELECT s.name FROM o LEFT JOIN (SELECT * FROM users WHERE id = 42) s ON true", "fill", "outer-join"),
    ("SELECT s.name FROM (SELECT * FROM users WHERE id = 42) s", "fill 42", "fill-fixed-key"),
    ("SELECT s.name FROM (SELECT * FROM users) s WHERE s.id = 42", "fill", "fill"),
    ("SELECT s.name FROM o, LATERAL (SELECT * FROM users u WHERE u.id = 42) s", "fill 42", "fill-fixed-key"),
    ("WITH u AS (SELECT * FROM users WHERE id = 42) SELECT name FROM u", "fill 42", "fill-fixed-key"),
    ("WITH u AS MATERIALIZED (SELECT * FROM users) SELECT a.id, b.name FROM u a, u b", "", "self-join"),
    ("WITH u AS (SELECT * FROM users), v AS (SELECT * FROM u) SELECT v.id, u.name FROM u, v", "", "self-join"),
    ("WITH users AS (SELECT 1 AS id) SELECT * FROM users", "", "unrelated"),
    ("WITH users AS (SELECT * FROM users) SELECT * FROM users", "fill", "fill"),
    ("WITH users AS (SELECT 1 AS id) SELECT * FROM public.users", "fill", "fill"),
    ("SELECT a.id, b.name FROM users a JOIN users b ON true", "", "self-join"),
    ("SELECT a.id, b.name FROM users a, (SELECT * FROM public.users) b", "", "self-join"),
    ("SELECT id, name FROM users WHERE id IN (SELECT id FROM users WHERE n > 1)", "fill", "fill"),
    ("SELECT (SELECT name FROM users WHERE id = 1)", "", "not-shown"),
    ("SELECT 1 FROM o WHERE EXISTS (SELECT 1 FROM users)", "", "not-shown"),
    ("SELECT id, name FROM users UNION SELECT id, name FROM o", "", "set-operation"),
    ("SELECT * FROM (SELECT id, name FROM users EXCEPT SELECT 1, 'a') s", "", "set-operation"),
    ("SELECT id, name FROM users WHERE id IN (SELECT 1 UNION SELECT 2)", "fill", "fill"),
    ("SELECT id, name FROM users GROUP BY ROLLUP (id, name)", "", "grouping-sets"),
    ("SELECT id, name FROM users GROUP BY GROUPING SETS ((id), (name))", "", "grouping-sets"),
    ("SELECT id, name FROM users GROUP BY id, CUBE (name)", "", "grouping-sets"),
    ("SELECT id, name, count(*) FROM users GROUP BY id, name HAVING count(*) > 1", "fill", "fill"),
    ("SELECT id, name, row_number() OVER (PARTITION BY n ORDER BY id) FROM users", "fill", "fill"),
    ("SELECT id, name, now(), random(), nextval('s'), pg_advisory_lock(1) FROM users", "fill", "fill"),
    ("SELECT id, name, pg_catalog.lower(name), coalesce(name, 'x') FROM users", "fill", "fill"),
    ("SELECT id, name, calm(name) FROM users", "fill", "fill"),
    ("SELECT id, name, other.calm(name) FROM users", "fill", "fill"),
    ("SELECT id, name, mine(name) FROM users", "", "volatile-function"),
    ("SELECT id, name FROM users WHERE mine(id)", "", "volatile-function"),
    ("SELECT id, name FROM users, mine() m", "", "volatile-function"),
    ("SELECT id, name FROM users ORDER BY (SELECT mine(1))", "", "volatile-function"),
    ("SELECT id, name, query_to_xml('x', true, true, '') FROM users", "", "volatile-function"),
    ("SELECT id, name, set_config('a', 'b', false) FROM users", "", "volatile-function"),
    ("SELECT id, name INTO x FROM users", "", "not-shown"),
    ("EXPLAIN SELECT id, name FROM users", "", "not-run"),
    ("EXPLAIN (ANALYZE) SELECT id, name FROM users", "", "not-run"),
    ("COPY users TO STDOUT", "", "not-shown"),
    ("WITH d AS (DELETE FROM o RETURNING *) SELECT id, name FROM users", "", "read-with-write"),
    ("SELECT * FROM other.users", "", "unrelated"),
    ("SELECT users FROM o", "", "unrelated"),
    ("SELECT id, name FROM users TABLESAMPLE SYSTEM (10) REPEATABLE (3) WHERE id = 4", "fill 4", "fill-fixed-key"),
    ("SELECT id, name FROM users TABLESAMPLE s.mine (10), mine() m", "", "volatile-function"),
    ("SELECT id, name FROM users TABLESAMPLE SYSTEM (mine())", "", "opaque"),
    ("SELECT id, name FROM users TABLESAMPLE SYSTEM (10) REPEATABLE ((SELECT mine()))", "", "opaque"),
    ("SELECT name FROM users TABLESAMPLE SYSTEM ($1) WHERE id = $1", "fill", "fill"),
    ("SELECT id tablesample, mine(), name FROM users", "", "opaque"),
    ("SELECT id AS tablesample, mine(), name FROM users", "", "volatile-function"),
    ("SELECT name FROM users AS operator (name, id) WHERE id = 4", "fill", "fill"),
    ("SELECT id, name, o.operator (mine()) FROM users", "", "volatile-function"),
    ("SELECT id, name, ARRAY((SELECT mine()) FETCH FIRST ROW ONLY) FROM users", "", "opaque"),
    ("SELECT id, name, EXISTS ((SELECT 1 FROM mine()) FETCH FIRST 2 ROWS ONLY) FROM users", "", "opaque"),
    ("SELECT id, name FROM users WHERE ((SELECT calm()) FETCH FIRST ROW ONLY) = 4", "fill", "fill"),
    ("SELECT name FROM users WHERE id = +4", "fill 4", "fill-fixed-key"),
    ("SELECT name FROM users WHERE +id = 4", "fill", "fill"),
    *[
        (f"SELECT id, name, {word}(1, id) FROM users", "", "volatile-function")
        for word in sorted(
            word_set("by conflict filter ilike isnull like matched merge similar skip substring without")
        )
    ],
    ("SELECT id, name, collation(id) FROM users", "", "volatile-function"),
    ("SELECT id, name, cube(id) FROM users", "", "opaque"),
    ("SELECT id, name, s.only(id), s.operator(*) FROM users", "", "volatile-function"),
    ("SELECT id, name FROM users, join(1) j", "", "volatile-function"),
    ("SELECT id, name FROM users GROUP BY join(id), id", "", "volatile-function"),
    ("SELECT join(id), id, name FROM users", "", "volatile-function"),
    ("SELECT join 'x', id, name FROM users", "", "opaque"),
    ("SELECT id, name, overlay(name PLACING 'x' FROM 1) FROM users", "", "volatile-function"),
    ("SELECT name FROM users WHERE current_schema = 4", "fill", "fill"),
    ("SELECT id, name FROM users LEFT JOIN (SELECT 1) j ON name LIKE ('x') AND id NOT LIKE (name)", "fill", "fill"),
    ("SELECT id, count(*) FILTER (WHERE id > 1) OVER (), name FROM users", "fill", "fill"),
    ("SELECT id, name FROM ONLY (users) WHERE id = 4 AND n OPERATOR(pg_catalog.=) 4", "fill 4", "fill-fixed-key"),
    ("SELECT id, name FROM users WHERE id = 4 AND data->'a'->>'b' = 'x' AND tags @> '{a}' AND d ? 'k'", "fill 4", None),
]


@pytest.mark.parametrize(("text", "effect", "reason"), READS)
def test_read_has_the_effect_and_the_reason_of_the_manual(text, effect, reason):
    where = catalog(
        harmless=frozenset(["calm"]), volatile=frozenset(["random", "query_to_xml", "like", "substring", "overlay"])
    )
    assert effects(text, where) == effect
    assert reason is None or plan(text, where).reason.value == reason


# Names


def two_schemas():
    users = relation(1, "users", USERS_COLUMNS)
    return catalog(users, others=(relation(9, "users", (), schema="app"),))


@pytest.mark.parametrize(
    ("scope", "effect"),
    [
        (Scope(("public",)), "store 1=x"),
        (Scope(("public", "public")), "store 1=x"),
        (Scope(("public", "app")), "evict 1"),  # the user may lack USAGE on public, and then app's table is meant
        (Scope(("app", "public")), "evict 1"),
        (Scope(("app",)), ""),
        (Scope(("nowhere",)), ""),
        (Scope(None), "evict 1"),
        (Scope(("public",), frozenset(["users"])), "evict 1"),
        (Scope(("public",), frozenset(["orders"])), "store 1=x"),
    ],
)
def test_name_that_may_mean_two_tables_makes_a_store_an_evict(scope, effect):
    assert effects("UPDATE users SET name = 'x' WHERE id = 1", two_schemas(), scope) == effect


def test_uncertain_name_makes_returning_evict():
    text = "UPDATE users SET name = 'x' WHERE n = 1 RETURNING *"
    assert effects(text, two_schemas(), Scope(None)) == "flush returning evict"
    assert effects("UPDATE public.users SET name = 'x' WHERE id = 1", two_schemas(), Scope(None)) == "store 1=x"


def test_names_are_folded_and_unquoted_as_the_server_does():
    for spelled in ("USERS", '"users"', 'PUBLIC."users"', 'U&"us\\0065rs"', "/* x */ users", "users -- c\n"):
        assert effects(f"DELETE FROM {spelled} WHERE ID = 1") == "evict 1"
    assert effects('DELETE FROM "Users" WHERE id = 1') == ""
    assert effects('DELETE FROM users WHERE "ID" = 1') == "flush"


# What else a plan says


@pytest.mark.parametrize(
    ("text", "opaque", "modifies", "ddl"),
    [
        ("SELECT 1", False, False, False),
        ("SELECT mine()", True, False, False),
        ("UPDATE o SET x = 1", False, True, False),
        ("INSERT INTO users VALUES (1, 'a')", False, True, False),
        ("CALL p()", True, False, False),
        ("CREATE TABLE o2 (x int)", False, False, False),
        ("CREATE TABLE users (x int)", False, False, True),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", False, False, True),
        ("ALTER TABLE o RENAME TO users", False, False, True),
        ("DROP INDEX i", False, False, True),
        ("CREATE TABLE o2 AS SELECT mine()", True, False, False),
        ("CREATE MATERIALIZED VIEW m AS SELECT mine()", True, False, False),
        ("VACUUM", False, False, False),
        ("SELECT * FROM o CROSS APPLY f()", True, False, False),
        ("SELECT * INTO users FROM o", False, False, True),
        ("SELECT * INTO temp FROM o", False, False, False),
        ("SELECT * INTO users FROM o CROSS APPLY f()", True, False, True),
    ],
)
def test_plan_says_whether_it_is_opaque_modifies_or_defines(text, opaque, modifies, ddl):
    made = plan(text)
    assert (made.opaque, made.modifies, made.ddl) == (opaque, modifies, ddl)


def test_write_elsewhere_is_not_trivial():
    assert not plan("UPDATE o SET x = 1").trivial
    assert plan("SELECT * FROM o").trivial


@pytest.mark.parametrize(
    ("text", "shadows"),
    [
        ("CREATE TEMP TABLE users (id int)", ("users",)),
        ("CREATE LOCAL TEMPORARY TABLE IF NOT EXISTS users AS SELECT 1", ("users",)),
        ("CREATE TABLE pg_temp.users (id int)", ("users",)),
        ("SELECT * INTO TEMP TABLE users FROM o", ("users",)),
        ("SELECT * INTO pg_temp.users FROM o", ("users",)),
        ("SELECT o.into, 1 AS into INTO TEMP users FROM o", ("users",)),
        ("SELECT * INTO TEMP TABLE users FROM o TABLESAMPLE SYSTEM (f())", ("users",)),
        ("(SELECT * INTO TEMP users FROM o CROSS APPLY f())", ("users",)),
        ("EXPLAIN ANALYZE SELECT * INTO LOCAL TEMP users FROM o CROSS APPLY f()", ("users",)),
        ("SELECT * INTO TEMP temp FROM o", ()),
        ("SELECT o.a insert INTO TEMP users FROM o", ("users",)),
        ("SELECT merge INTO TEMP users FROM o CROSS APPLY f()", ("users",)),
        ("WITH d AS (INSERT INTO temp VALUES (1)) SELECT insert INTO TEMP users FROM o CROSS APPLY f()", ("users",)),
        ("WITH d AS (SELECT 1) INSERT INTO users SELECT * FROM o CROSS APPLY f()", ()),
        ("CREATE TEMP TABLE materialized (id int)", ()),
        ("CREATE TEMP TABLE users AS SELECT B'1'\n'0'", ("users",)),
        ("SELECT U&'\\D83D\\DE00' INTO TEMPORARY TABLE users", ("users",)),
        ("SELECT B'1'\n'0' INTO o FROM users", ()),
        ("SELECT * INTO", ()),
        ("SELECT * INTO 5 FROM users", ()),
        ("CREATE TEMP VIEW users AS SELECT 1", ("users",)),
        ("CREATE TEMP TABLE o (id int)", ()),
        ("CREATE TABLE users (id int)", ()),
        ("ALTER TABLE o RENAME TO users", ("users",)),
    ],
)
def test_created_temporary_relation_shadows_a_table_of_its_name(text, shadows):
    assert plan(text).shadows == shadows


def test_relation_created_under_a_temporary_path_shadows():
    assert plan("CREATE TABLE users (id int)", USERS, Scope(("pg_temp", "public"))).shadows == ("users",)
    assert plan("CREATE TABLE users (id int)", USERS, PUBLIC).shadows == ()


def test_every_reason_has_a_sentence():
    for reason in Reason:
        assert reason.sentence.endswith(".")


def test_schema_of_a_function_decides_whether_it_is_harmless():
    where = catalog(harmless=frozenset(["mine"]), volatile=frozenset(["now"]))
    for text, opaque in [
        ("SELECT lower('x')", False),
        ("SELECT pg_catalog.lower('x')", False),
        ("SELECT app.lower('x')", True),
        ("SELECT mine()", False),
        ("SELECT app.mine()", False),
        ("SELECT pg_catalog.mine()", True),
        ("SELECT now()", True),
        ("SELECT random()", False),
    ]:
        assert plan(text, where).opaque is opaque, text


def test_definition_of_a_table_that_only_cascades_here_flushes_nothing():
    users = relation(1, "users", USERS_COLUMNS)
    rule = bound(users)
    where = catalog(users, rule, others=(relation(2, "teams"),), links=(Link(2, rule, LinkType.CASCADE),))
    assert effects("DROP TABLE teams", where) == ""
    assert plan("DROP TABLE teams", where).ddl
    assert effects("DROP TABLE users", where) == "flush uncounted"
