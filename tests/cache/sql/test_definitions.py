"""CREATE, ALTER, DROP and the like, as statements and as plans."""

import pytest

from cache.sql.plans import Action, Command
from cache.sql.statements import Name
from tests.cache.catalogs import effects, plan, statement


@pytest.mark.parametrize(
    ("text", "created", "temporary"),
    [
        ("CREATE TABLE a (x int)", [Name(None, "a")], ()),
        ("CREATE UNLOGGED TABLE IF NOT EXISTS s.a (x int)", [Name("s", "a")], ()),
        ("CREATE FOREIGN TABLE a (x int) SERVER s", [Name(None, "a")], ()),
        ("CREATE TEMPORARY VIEW v AS SELECT 1", [Name(None, "v")], ("v",)),
        ("CREATE TABLE pg_temp_3.a (x int)", [Name("pg_temp_3", "a")], ("a",)),
        ("CREATE OR REPLACE RECURSIVE VIEW v (n) AS VALUES (1)", [Name(None, "v")], ()),
        ("CREATE MATERIALIZED VIEW m AS SELECT 1", [Name(None, "m")], ()),
        ("CREATE INDEX i ON users (name)", [], ()),
        ("ALTER TABLE a RENAME TO b", [], ("b",)),
        ("ALTER MATERIALIZED VIEW m RENAME TO n", [], ("n",)),
    ],
)
def test_created_relations_are_named(text, created, temporary):
    found = statement(text)
    assert found.command is Command.UTILITY
    assert (list(found.created), found.temporary) == (created, temporary)


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("CREATE TABLE a AS DELETE FROM users WHERE id = 1", ""),
        ("CREATE TABLE a AS WITH d AS (DELETE FROM users WHERE id = 1) SELECT 1", "evict 1 uncounted"),
        ("CREATE TABLE a AS WITH d AS (DELETE FROM users WHERE id = 1) SELECT 1 WITH DATA", "evict 1 uncounted"),
        ("CREATE TABLE a AS WITH d AS (DELETE FROM users WHERE id = 1) SELECT 1 WITH NO DATA", ""),
        ("CREATE TABLE a AS EXECUTE q", "flush uncounted"),
    ],
)
def test_query_of_create_table_as_has_its_effect_if_it_runs(text, effect):
    assert effects(text) == effect


def test_create_table_as_execute_is_opaque():
    assert plan("CREATE TABLE a AS EXECUTE q (1)").opaque


@pytest.mark.parametrize(
    "text", ["DROP FOREIGN TABLE users", "ALTER FOREIGN TABLE users DROP COLUMN n", "DROP TABLE users"]
)
def test_definitions_of_the_table_flush_it_and_ask_the_catalog_again(text):
    made = plan(text)
    assert [write.action for write in made.writes] == [Action.FLUSH]
    assert made.ddl


@pytest.mark.parametrize(
    "text",
    [
        "ALTER ROLE r SET extra_float_digits = 0",
        "ALTER DATABASE app RESET ALL",
        "ALTER SYSTEM SET extra_float_digits = 0",
        "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO public",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM users'",
        "CREATE INDEX i ON users (name)",
        "ALTER INDEX users RENAME TO i",
    ],
)
def test_definitions_that_touch_no_rows_only_ask_the_catalog_again(text):
    made = plan(text)
    assert made.ddl
    assert not made.writes


@pytest.mark.parametrize(
    "text", ["DROP SCHEMA s", "DROP OWNED BY r", "DROP TYPE t CASCADE", "ALTER DOMAIN d DROP NOT NULL"]
)
def test_definitions_that_reach_tables_they_do_not_name_flush_every_rule(text):
    assert effects(text) == "flush uncounted"


@pytest.mark.parametrize(
    "text", ["DROP TYPE t", "ALTER ROLE r RENAME TO s", "DROP ROLE users_admin", "CREATE SCHEMA s"]
)
def test_definitions_elsewhere_flush_nothing(text):
    assert effects(text) == ""


def test_refreshed_view_is_opaque_as_it_calls_functions_that_are_not_seen():
    assert plan("REFRESH MATERIALIZED VIEW m").opaque
