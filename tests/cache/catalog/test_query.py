"""The catalog query against a real server: what it finds, and what it refuses to bind."""

from __future__ import annotations

import re
import time

import psycopg
import pytest

from cache.catalog import query as catalog_query
from cache.catalog.facts import changed_rules
from cache.catalog.tables import Catalog, LinkType, Scope
from cache.keys import KeyTemplate
from cache.rules import TableRule
from proxy.net.relay.injected_query import _SETTINGS


def rule(
    table: str,
    key: tuple[str, ...] = ("id",),
    value: tuple[str, ...] = ("name",),
    schema: str = "public",
    redis_key: str | None = None,
):
    template = KeyTemplate.parse(
        redis_key or "{table}:" + ":".join(f"{{{column}}}" for column in key),
        database="app",
        schema=schema,
        table=table,
        key_columns=key,
    )
    return TableRule("app", schema, table, key, value, template, label=f"{schema}.{table}")


@pytest.fixture
def connection(postgres, database):
    with psycopg.connect(postgres.dsn(dbname=database), autocommit=True) as found:
        yield found


def learn(connection: psycopg.Connection, *rules: TableRule) -> Catalog:
    with connection.transaction():
        connection.execute("SET LOCAL search_path TO pg_catalog, pg_temp")
        row = connection.execute(catalog_query.text(rules)).fetchone()
    assert row is not None
    return catalog_query.parse(row[0].encode(), "app", rules)


def reached(catalog: Catalog) -> dict[str, str]:
    return {catalog.relations[oid].name: links[0].type.value for oid, links in catalog.links.items()}


def test_columns_have_the_types_and_keys_of_the_table(connection):
    connection.execute("""
        CREATE DOMAIN short AS varchar(10); CREATE DOMAIN shorter AS short; CREATE TYPE mood AS ENUM ('ok');
        CREATE COLLATION loose (provider = builtin, locale = 'C.UTF-8');
        CREATE TABLE users (gone int, id int PRIMARY KEY, name shorter NOT NULL, tags int[], m mood,
                            twice int GENERATED ALWAYS AS (id * 2) STORED, v varchar(5));
        ALTER TABLE users DROP COLUMN gone
    """)
    catalog = learn(connection, rule("users"))
    (bound,) = catalog.bound
    columns = bound.relation.columns
    assert list(columns) == ["id", "name", "tags", "m", "twice", "v"]
    assert columns["id"].number == 2
    assert (columns["name"].type_kind, columns["name"].base_oid) == ("d", 1043)
    assert columns["name"].base_name == "varchar"
    assert columns["tags"].element_oid == 23
    assert columns["tags"].inner == frozenset({23})
    assert columns["id"].inner is None
    assert columns["m"].type_kind == "e"
    assert columns["twice"].generated
    assert columns["v"].type_modifier == 9
    assert bound.relation.unique == (frozenset({"id"}),)


def test_container_columns_know_the_types_within_them(connection):
    connection.execute("""
        CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN moods AS mood[];
        CREATE TYPE pair AS (at timestamptz, until timestamptz, m moods);
        CREATE TYPE spans AS RANGE (subtype = float8);
        CREATE TABLE users (id int PRIMARY KEY, name pair[], s spans, ms int4multirange, d moods, b box)
    """)
    (bound,) = learn(connection, rule("users")).bound
    columns = bound.relation.columns
    assert columns["name"].inner == frozenset({1184, 3500})
    assert columns["s"].inner == frozenset({701})
    assert columns["ms"].inner == frozenset({23})
    assert (columns["d"].base_kind, columns["d"].inner) == ("b", frozenset({3500}))
    assert columns["b"].inner is None, "points make up a box, but its type has no elements of its own"


@pytest.mark.parametrize(
    ("ddl", "wanted", "words"),
    [
        ("", rule("users"), "table public.users does not exist"),
        (
            "CREATE TABLE users (id int, name text)",
            rule("users"),
            "no unique index of public.users covers the key (id)",
        ),
        (
            "CREATE TABLE users (id int PRIMARY KEY)",
            rule("users"),
            "column 'name' of table public.users does not exist",
        ),
        ("CREATE VIEW users AS SELECT 1 AS id, 'x' AS name", rule("users"), "public.users is a view"),
        (
            "CREATE TABLE users (id int PRIMARY KEY, name text); CREATE TABLE more () INHERITS (users)",
            rule("users"),
            "has inheritance children",
        ),
        (
            "CREATE TABLE users (id int, name text); CREATE UNIQUE INDEX ON users (id) WHERE name = 'x'",
            rule("users"),
            "no unique index",
        ),
        (
            "CREATE TABLE users (id int, name text); CREATE UNIQUE INDEX ON users ((id + 1))",
            rule("users"),
            "no unique index",
        ),
        (
            "CREATE TABLE users (id int, t int, name text, UNIQUE (t, id))",
            rule("users"),
            "no unique index",
        ),
        (
            "CREATE TABLE users (id int, t int, name text); CREATE UNIQUE INDEX ON users (id, t)",
            rule("users"),
            "no unique index",
        ),
    ],
)
def test_rule_that_cannot_be_captured_says_why(connection, ddl, wanted, words):
    if ddl:
        connection.execute(ddl)
    catalog = learn(connection, wanted)
    assert catalog.bound == ()
    assert words in catalog.unbound[0][1]


@pytest.mark.parametrize(
    ("key_type", "templates", "bound"),
    [
        ("int", ("users:{id}", "users:{id}:more"), [0, 1]),
        ("uuid", ("users:{id}", "users:{id}:more"), [0, 1]),
        ("text", ("users:{id}", "users:{id}:more"), [0]),
        ("text", ("users:{id}:more", "users:{id}"), [0]),
        ("text", ("users:{id}", "people:{id}"), [0, 1]),
        ("text", ("a:{id}", "a:{id}:b", "c:{id}", "c:{id}:d"), [0, 2]),
        # Only those that are captured stand in another's way.
        ("text", ("a:{id}", "a:{id}:b", "a:{id}:b:c"), [0]),
        ("date", ("users:{id}", "users:{id}-x"), [0]),
        ("short", ("users:{id}", "users:{id}:more"), [0, 1]),
    ],
)
def test_first_of_rules_whose_keys_can_be_equal_is_captured(connection, key_type, templates, bound):
    connection.execute(f"CREATE DOMAIN short AS int2; CREATE TABLE users (id {key_type} PRIMARY KEY, name text)")
    rules = [rule("users", redis_key=template) for template in templates]
    catalog = learn(connection, *rules)
    assert [rules.index(one.rule) for one in catalog.bound] == bound
    assert [rules.index(one) for one, _ in catalog.unbound] == [i for i in range(len(rules)) if i not in bound]
    for _, reason in catalog.unbound:
        assert "can also be one of" in reason
        assert templates[0] in reason or templates[2] in reason
    linked = {link.bound.rule for links in catalog.links.values() for link in links}
    assert linked == {one.rule for one in catalog.bound}


def test_rule_without_a_table_does_not_stop_a_rule_with_the_same_keys(connection):
    connection.execute("CREATE TABLE users (id text PRIMARY KEY, name text)")
    absent = rule("absent", redis_key="users:{id}")
    present = rule("users", redis_key="users:{id}:name")
    catalog = learn(connection, absent, present)
    assert [one.rule for one in catalog.bound] == [present]
    assert catalog.unbound == ((absent, "table public.absent does not exist"),)


def test_rules_of_two_tables_whose_keys_can_be_equal_are_not_both_captured(connection):
    connection.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text); CREATE TABLE names (id text PRIMARY KEY, name text)
    """)
    numbers, names = rule("users", redis_key="x:{id}"), rule("names", redis_key="x:{id}")
    catalog = learn(connection, numbers, names)
    ((refused, reason),) = catalog.unbound
    assert refused is names
    assert "(public.users)" in reason


def test_unique_index_with_included_columns_covers_the_key(connection):
    connection.execute("CREATE TABLE users (id int, name text); CREATE UNIQUE INDEX ON users (id) INCLUDE (name)")
    assert learn(connection, rule("users")).bound


def test_partitions_below_and_ancestors_above_are_linked(connection):
    connection.execute("""
        CREATE TABLE top (id int, name text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE middle PARTITION OF top FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
        CREATE TABLE leaf PARTITION OF middle FOR VALUES FROM (0) TO (50);
        CREATE TABLE sibling PARTITION OF middle FOR VALUES FROM (50) TO (100)
    """)
    assert reached(learn(connection, rule("middle"))) == {
        "middle": "self", "leaf": "child", "sibling": "child", "top": "parent",
    }  # fmt: skip
    assert "sibling" not in reached(learn(connection, rule("leaf"))), "its rows are not the leaf's"


def test_views_over_views_and_relations_with_rules_are_linked(connection):
    connection.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text); CREATE TABLE other (x int); CREATE TABLE log (x int);
        CREATE VIEW v AS SELECT * FROM users; CREATE VIEW w AS SELECT id FROM v WHERE id > 1;
        CREATE RULE r AS ON INSERT TO log DO ALSO UPDATE users SET name = 'x' WHERE id = new.x
    """)
    assert reached(learn(connection, rule("users"))) == {
        "users": "self", "v": "view", "w": "view", "log": "view",
    }  # fmt: skip


def test_tables_that_foreign_keys_cascade_from_are_linked(connection):
    connection.execute("""
        CREATE TABLE country (code text PRIMARY KEY);
        CREATE TABLE org (id int PRIMARY KEY, c text REFERENCES country ON DELETE CASCADE);
        CREATE TABLE plain (id int PRIMARY KEY);
        CREATE TABLE users (id int PRIMARY KEY, name text, p int REFERENCES plain,
                            org int REFERENCES org ON UPDATE CASCADE ON DELETE SET NULL);
        CREATE TABLE below (u int REFERENCES users ON DELETE CASCADE)
    """)
    catalog = learn(connection, rule("users"))
    assert reached(catalog) == {"users": "self", "org": "cascade", "country": "cascade"}
    links = {catalog.relations[oid].name: link for oid, (link, *_) in catalog.links.items()}
    assert (links["org"].on_delete, links["org"].on_update) == (True, frozenset({"id"}))
    assert (links["country"].on_delete, links["country"].on_update) == (True, None)


def test_two_foreign_keys_to_one_table_make_one_link_of_both(connection):
    connection.execute("""
        CREATE TABLE org (id int PRIMARY KEY, alias int UNIQUE);
        CREATE TABLE users (id int PRIMARY KEY, name text, a int REFERENCES org (id) ON DELETE CASCADE,
                            b int REFERENCES org (alias) ON UPDATE CASCADE)
    """)
    catalog = learn(connection, rule("users"))
    (link,) = next(links for links in catalog.links.values() if links[0].type is LinkType.CASCADE)
    assert link.on_delete
    assert link.on_update == frozenset({"alias"})


def test_enabled_triggers_of_a_partition_are_the_tables(connection):
    connection.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
        CREATE TABLE p PARTITION OF users FOR VALUES FROM (0) TO (9);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
        CREATE TRIGGER t BEFORE INSERT OR UPDATE ON p FOR EACH ROW EXECUTE FUNCTION f()
    """)
    (bound,) = learn(connection, rule("users")).bound
    assert bound.relation.triggers == frozenset({"INSERT", "UPDATE"})
    connection.execute("ALTER TABLE p DISABLE TRIGGER t")
    (bound,) = learn(connection, rule("users")).bound
    assert bound.relation.triggers == frozenset()


def test_name_in_several_schemas_is_certain_by_search_path_only(connection):
    connection.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text);
        CREATE SCHEMA other; CREATE TABLE other.users (id int)
    """)
    catalog = learn(connection, rule("users"))
    (own,) = (bound.relation.oid for bound in catalog.bound)
    assert not catalog.resolve(None, "users", Scope()).certain
    assert len(catalog.resolve(None, "users", Scope()).oids) == 2
    assert catalog.resolve("public", "users", Scope()).oids == (own,)
    assert catalog.resolve(None, "users", Scope(search_path=("public", "elsewhere"))).oids == (own,)
    for path in (("public", "other"), ("other", "public")):  # a schema the user may not use is passed over
        either = catalog.resolve(None, "users", Scope(search_path=path))
        assert own in either.oids
        assert not either.certain
    assert own not in catalog.resolve(None, "users", Scope(search_path=("other",))).oids
    assert catalog.resolve(None, "users", Scope(search_path=("elsewhere",))).oids == ()
    shadowed = catalog.resolve(None, "users", Scope(search_path=("public",), shadowed=frozenset({"users"})))
    assert own in shadowed.oids
    assert not shadowed.certain


def test_odd_names_are_found_under_any_settings(connection):
    connection.execute(r"""
        CREATE SCHEMA "o'd\d"; CREATE TABLE "o'd\d"."Ünï ""q" ("ke y" int PRIMARY KEY, "näme" text)
    """)
    wanted = rule('Ünï "q', ("ke y",), ("näme",), schema="o'd\\d")
    connection.execute(
        "SET client_encoding TO latin1; SET standard_conforming_strings TO off; SET bytea_output TO escape"
    )
    assert learn(connection, wanted).bound


def test_function_with_a_volatile_overload_is_not_harmless(connection):
    connection.execute("""
        CREATE FUNCTION reads(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
        CREATE FUNCTION mixed(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
        CREATE FUNCTION mixed(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
        CREATE FUNCTION log(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
        CREATE TABLE users (id int PRIMARY KEY, name text)
    """)
    catalog = learn(connection, rule("users"))
    assert "reads" in catalog.harmless
    assert "mixed" not in catalog.harmless
    assert "nextval" in catalog.volatile
    assert "lower" not in catalog.volatile
    assert "log" in catalog.volatile, "an overload that a user added"


@pytest.mark.parametrize(("setting", "certain"), [(None, True), ("0", False), ("3", False)])
def test_float_digits_are_certain_unless_a_role_or_database_sets_them(connection, database, setting, certain):
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    if setting is not None:
        connection.execute(f"ALTER DATABASE {database} SET extra_float_digits TO {setting}")
    assert learn(connection, rule("users")).float_digits_certain is certain


@pytest.mark.parametrize("payload", [b"", b"zz", b"7b7d", b"5b5d", "é".encode()])
def test_payload_that_is_no_answer_is_refused(payload):
    with pytest.raises(ValueError):
        catalog_query.parse(payload, "app", [rule("users")])


# -- whatever the session's settings, and however many relations there are

HOSTILE = "; ".join(
    [
        *(f"SET enable_{node} = off" for node in ("nestloop", "hashjoin", "mergejoin", "seqscan", "indexscan")),
        *(f"SET enable_{node} = off" for node in ("indexonlyscan", "bitmapscan", "hashagg", "material", "sort")),
        "SET work_mem = '64kB'; SET cpu_tuple_cost = 1000; SET jit_above_cost = 0; SET jit_optimize_above_cost = 0",
        "SET join_collapse_limit = 1; SET from_collapse_limit = 1",
    ]
)
MANY = """
    DO $$ BEGIN FOR i IN 1..200 LOOP
      EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, up int REFERENCES t%s ON DELETE CASCADE)', i, i);
    END LOOP; END $$;
    CREATE TABLE users (id int PRIMARY KEY, name text, owner int REFERENCES t1 ON DELETE CASCADE)
"""


def seconds(connection: psycopg.Connection, query: str) -> float:
    """What the query takes with the settings that go before it."""
    with connection.transaction():
        connection.execute(_SETTINGS)
        began = time.perf_counter()
        connection.execute(query.encode())
        return time.perf_counter() - began


def test_query_takes_no_longer_under_hostile_planner_settings(connection):
    connection.execute(MANY)
    query = catalog_query.text([rule("users")])
    usual = min(seconds(connection, query) for _ in range(3))
    connection.execute(HOSTILE)
    assert min(seconds(connection, query) for _ in range(3)) < 3 * usual + 0.05
    assert reached(learn(connection, rule("users"))) == {"users": "self", "t1": "cascade"}


def test_query_reads_no_catalog_of_relations_from_end_to_end(connection):
    """Every table that grows with the number of relations is read by an index."""
    connection.execute(MANY)
    connection.execute("VACUUM ANALYZE")
    with connection.transaction():
        connection.execute(_SETTINGS)
        plan = connection.execute(b"EXPLAIN " + catalog_query.text([rule("users")]).encode()).fetchall()
    scanned = {match[1] for (line,) in plan if (match := re.search(r"Seq Scan on (\w+)", line))}
    assert not scanned & {"pg_class", "pg_depend", "pg_constraint", "pg_attribute", "pg_type", "pg_index", "pg_trigger"}


def test_answer_to_a_known_digest_is_short_until_a_fact_changes(connection):
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    catalog = learn(connection, rule("users"))

    def ask():
        with connection.transaction():
            connection.execute(_SETTINGS)
            row = connection.execute(catalog_query.text([rule("users")], catalog.digest).encode()).fetchone()
        assert row is not None
        return catalog_query.read(row[0].encode())

    connection.execute("INSERT INTO users VALUES (1, 'x'); ANALYZE users; CREATE TABLE others (id int PRIMARY KEY)")
    assert ask() == catalog_query.Answer(catalog.digest, None, float_digits=True)
    connection.execute("SET extra_float_digits = -3; SET timezone = 'Asia/Tokyo'; SET client_encoding = latin1")
    assert ask() == catalog_query.Answer(catalog.digest, None, float_digits=None)
    connection.execute("ALTER TABLE users ADD COLUMN mail text")
    answer = ask()
    assert answer.digest != catalog.digest
    assert answer.facts is not None


@pytest.mark.parametrize("facts", [None, {}, {"relations": [1]}])
def test_answer_without_its_facts_is_refused(facts):
    with pytest.raises(ValueError, match="not an answer"):
        catalog_query.catalog_of(catalog_query.Answer("", facts, None), "app", [])


CHANGES = {
    "trigger": "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION"
    " suppress_redundant_updates_trigger()",
    "rename crosswise": "ALTER TABLE users RENAME name TO x; ALTER TABLE users RENAME title TO name;"
    "ALTER TABLE users RENAME x TO title",
    "cascade": "ALTER TABLE users ADD FOREIGN KEY (owner) REFERENCES owners ON DELETE CASCADE",
    "homonym": "CREATE SCHEMA acme; CREATE TABLE acme.users (id int)",
    "view": "CREATE VIEW seen AS SELECT id, name FROM users",
    "view redefined": "CREATE OR REPLACE VIEW v AS SELECT id, title AS name FROM users",
    "child": "CREATE TABLE low () INHERITS (users)",
    "retyped": "DROP VIEW v; ALTER TABLE users ALTER name TYPE varchar(9)",
    "unique index": "CREATE UNIQUE INDEX ON users (name)",
    "made again": "DROP TABLE users CASCADE; CREATE TABLE users (id int PRIMARY KEY, name text)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_of_a_table_changes_the_facts_of_its_rule_alone(connection, change):
    connection.execute("""
        CREATE TABLE owners (id int PRIMARY KEY);
        CREATE TABLE users (id int PRIMARY KEY, name text, title text, owner int);
        CREATE TABLE orders (id int PRIMARY KEY, name text);
        CREATE VIEW v AS SELECT id, name FROM users
    """)
    rules = [rule("users"), rule("orders")]
    before = learn(connection, *rules)
    connection.execute("CREATE TABLE unrelated (id int PRIMARY KEY); ALTER TABLE users ADD COLUMN mail text")
    assert changed_rules(before, learn(connection, *rules)) == []
    connection.execute(CHANGES[change])
    newer = learn(connection, *rules)
    expected = [] if change == "child" else rules[:1]  # a table with children cannot be captured
    assert changed_rules(before, newer) == expected
    assert [each for each, _ in newer.unbound] == (rules[:1] if change == "child" else [])
