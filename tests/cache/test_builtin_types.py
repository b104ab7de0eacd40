"""The table of types is what a real server's pg_type and grammar say."""

import re

import psycopg
import pytest
from sqlglot import exp

from cache import builtin_types
from cache.builtin_types import (
    ANYENUM,
    ARRAYS,
    BY_OID,
    CONSTANT_TYPES,
    FIRST_USER_OID,
    MULTIRANGES,
    RANGES,
    TABLE,
    Family,
    Setting,
    family_of_name,
    family_of_type,
    printed_with,
)


@pytest.fixture(scope="module")
def connection(postgres):
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def pg_type(connection):
    """What the server says of each built-in base type, by OID."""
    rows = connection.execute("""
        SELECT t.oid::int8, t.typname, t.typcategory, t.typarray::int8, t.typmodin <> 0 AS has_modifier, t.typlen,
               coalesce(r.rngtypid, 0)::int8 AS range_oid, coalesce(r.rngmultitypid, 0)::int8 AS multirange_oid
        FROM pg_type t LEFT JOIN pg_range r ON r.rngsubtype = t.oid AND r.rngtypid < 16384
        WHERE t.oid < 16384 AND t.typtype = 'b' AND (t.typcategory <> 'A' OR t.typname IN ('int2vector', 'oidvector'))
    """)
    names = [column.name for column in rows.description]
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def test_every_base_type_of_the_server_is_in_the_table(pg_type):
    assert {row["typname"] for oid, row in pg_type.items() if oid not in BY_OID} == set()
    assert len(BY_OID) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_row_equals_pg_type(pg_type, row):
    server = pg_type[row.oid]
    assert (row.name, row.category) == (server["typname"], server["typcategory"])
    assert row.has_modifier == server["has_modifier"]
    assert row.array_oid in (server["typarray"], 0)
    assert row.array_oid or row.refused
    assert (row.range_oid, row.multirange_oid) == (server["range_oid"], server["multirange_oid"])
    assert row.size == (server["typlen"] if row.family is Family.INTEGER else 0)


def test_names_of_oids_are_those_of_the_types(connection):
    oids = {name: oid for name, oid in vars(builtin_types).items() if name.isupper() and isinstance(oid, int)}
    assert oids.pop("FIRST_USER_OID") == FIRST_USER_OID
    rows = connection.execute("SELECT upper(typname), oid::int8 FROM pg_type WHERE oid = ANY (%s)", ([*oids.values()],))
    assert dict(rows.fetchall()) == oids
    assert ANYENUM not in BY_OID, "a pseudo-type is no base type"


def test_first_user_oid_is_above_all_built_in_types(connection):
    connection.execute("CREATE TYPE pg_temp.mood AS ENUM ('ok')")
    (built_in,), (mood,) = (
        connection.execute(text).fetchone()
        for text in (
            "SELECT max(oid)::int8 FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace",
            "SELECT 'pg_temp.mood'::regtype::oid::int8",
        )
    )
    assert built_in < FIRST_USER_OID <= mood


def test_key_words_are_the_grammars_names_of_the_type(connection):
    for row in TABLE:
        for name in row.key_words:
            assert connection.execute("SELECT to_regtype(%s)::oid::int8", (name,)).fetchone() == (row.oid,), name
    # Category C: key words that name types, or functions with a grammar of their own, and cannot name anything else.
    words = [word for (word,) in connection.execute("SELECT word FROM pg_get_keywords() WHERE catcode = 'C'")]
    named = {word for word in words if is_type(connection, word)}
    # From version 17 on json is one too, for JSON (…), but the type needs no grammar of its own.
    assert named - {"json"} == {word for row in TABLE for word in row.key_words if " " not in word}


def is_type(connection, word):
    try:
        connection.execute(f"SELECT NULL::{word}")
    except psycopg.Error:
        return False
    return True


def test_parser_takes_names_for_their_types():
    """Names the parser does not know become user-defined types of that name."""
    unknown = exp.DataType.build("widget", dialect="postgres", udt=True).this
    for row in TABLE:
        if row.known_to_parser:
            assert exp.DataType.build(row.name, dialect="postgres", udt=True).this is not unknown, row.name


def test_containers_are_found_by_their_own_oid():
    assert ARRAYS[1007] == RANGES[3904] == MULTIRANGES[4451] == builtin_types.INT4
    assert ARRAYS.keys().isdisjoint(BY_OID)


def test_constants_are_certain_for_types_of_a_family_only():
    families = {row.name: row.family for row in TABLE if row.family is not None}
    assert families == {
        "int2": Family.INTEGER, "int4": Family.INTEGER, "int8": Family.INTEGER, "text": Family.TEXT,
        "varchar": Family.TEXT, "bool": Family.BOOL, "uuid": Family.UUID, "json": Family.JSON,
    }  # fmt: skip
    assert {row.name for row in TABLE if row.is_key} == families.keys() - {"json"}
    assert CONSTANT_TYPES["integer"].name == "int4"
    assert family_of_name("character varying") is family_of_type(builtin_types.TEXT) is Family.TEXT
    assert family_of_name("numeric") is family_of_type(builtin_types.NUMERIC) is family_of_type(0) is None


SAMPLES = {
    "int2": ["0", "-32768"], "int4": ["-1", "2147483647"], "int8": ["-9223372036854775808"], "oid": ["0", "4294967295"],
    "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], "bool": ["yes", "off"],
}  # fmt: skip


def test_forms_match_what_the_server_prints(connection):
    assert {row.name for row in TABLE if row.form is not None} == SAMPLES.keys()
    for row in TABLE:
        for sample in SAMPLES.get(row.name, ()):
            (text,) = connection.execute(f"SELECT format('%s', '{sample}'::{row.name})").fetchone()
            assert row.form is not None
            assert re.fullmatch(row.form.pattern, text.encode())
            assert set(text.encode()) <= row.form.alphabet


CASES = [
    (Setting.EXTRA_FLOAT_DIGITS, "-15", "3", {"float4": "0.123456789", "point": "(0.123456789,1)"}),
    (Setting.DATE_STYLE, "German", "ISO", {"date": "2024-01-02", "timestamptz": "2024-01-02 03:04:05+00"}),
    (Setting.INTERVAL_STYLE, "iso_8601", "postgres", {"interval": "1 day"}),
    (Setting.BYTEA_OUTPUT, "escape", "hex", {"bytea": "a"}),
]


@pytest.mark.parametrize(("setting", "one", "other", "values"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_settings_change_how_their_types_are_printed(connection, setting, one, other, values):
    for name, value in values.items():
        texts = set()
        for chosen in (one, other):
            connection.execute("SELECT set_config(%s, %s, false)", (setting.value, chosen))
            texts.add(connection.execute(f"SELECT format('%s', '{value}'::{name})").fetchone()[0])
        assert len(texts) == 2
        assert next(row.oid for row in TABLE if row.name == name) in printed_with(setting)
