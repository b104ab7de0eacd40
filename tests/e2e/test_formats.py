"""How rows become keys and values: formats, composite keys, NULL, partial updates, TTL, max_rows, every type."""

import json
import time

import pytest

from tests.e2e.deployment import deploy
from tests.e2e.statement_client import Typed, int4, text

SCHEMA = """
    CREATE TABLE people (id int PRIMARY KEY, name text, age int, extra jsonb, ok bool, born date);
    CREATE TABLE places (country text, code text, name text, PRIMARY KEY (country, code));
    CREATE TABLE short (id int PRIMARY KEY, v text);
    CREATE TABLE brief (id int PRIMARY KEY, v text);
"""
CONTENT = """
    DELETE FROM people; DELETE FROM places; DELETE FROM short; DELETE FROM brief;
    INSERT INTO people VALUES (1, 'Ada', 36, '{"a": [1, 2.50, null]}', true, '1815-12-10'),
        (2, NULL, NULL, NULL, NULL, NULL), (3, 'Cyd', 50, '"text"', false, 'infinity');
    INSERT INTO places VALUES ('de', 'b', 'Berlin'), ('d', 'e:b', 'colon'), ('d:e', 'b', 'other colon'),
        ('d%3Ae', 'b', 'percent'), ('', '', 'empty');
    INSERT INTO short VALUES (1, 'one'), (2, NULL), (3, '');
    INSERT INTO brief SELECT n, 'v' || n FROM generate_series(1, 20) AS n;
"""
HASH, JSON = "people/hash/{id}", "people/json/{id}"
VALUES = ["name", "age", "extra", "ok", "born"]
RULES = [
    {"name": "people", "key": "id", "value": VALUES, "format": "hash", "redis_key": HASH},
    {"name": "people", "key": "id", "value": VALUES, "format": "json", "redis_key": JSON},
    {"name": "places", "key": ["country", "code"], "value": "name"},
    {"name": "short", "key": "id", "value": "v", "ttl": "1500ms"},
    {"name": "brief", "key": "id", "value": "v", "max_rows": 5},
]
PEOPLE = {"people/hash/1", "people/hash/3", "people/json/1", "people/json/2", "people/json/3"}
PLACES = {"places:de:b", "places:d:e%3Ab", "places:d%3Ae:b", "places:d%253Ae:b", "places::"}


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("formats")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        yield found


@pytest.fixture
def deployment(running):
    running.reset(warm=False)
    return running


@pytest.fixture
def session(deployment):
    return deployment.session()


def run(session, *statements):
    for sql in statements:
        answer = session.simple(sql)
        assert not answer.errors, (sql, answer)


@pytest.mark.parametrize("mode", ["simple", "text", "binary", "prepared", "pipelined"])
def test_read_fills_hash_and_json_values(deployment, session, mode):
    answer = getattr(session, mode)("SELECT * FROM people")
    assert not answer.errors
    assert deployment.settle_and_check() == PEOPLE
    ada = json.loads(deployment.redis.get("people/json/1"))
    assert ada == {"name": "Ada", "age": 36, "extra": {"a": [1, 2.5, None]}, "ok": True, "born": "1815-12-10"}
    assert json.loads(deployment.redis.get("people/json/2")) == dict.fromkeys(VALUES)
    assert deployment.redis.hgetall("people/hash/3")[b"born"] == b"infinity"


def test_read_without_a_value_column_fills_nothing(deployment, session):
    run(session, "SELECT id, name, age, extra, ok FROM people")
    assert deployment.settle_and_check() == set()


def test_update_of_one_column_is_stored_in_a_present_hash(deployment, session):
    run(session, "SELECT * FROM people")
    deployment.settle()
    assert not session.text("UPDATE people SET age = $1 WHERE id = $2", int4(37), int4(1)).errors
    present = deployment.settle_and_check()
    assert "people/hash/1" in present
    assert deployment.redis.hget("people/hash/1", "age") == b"37"
    assert "people/json/1" not in present, "a json value is stored only as a whole"


def test_update_of_one_column_does_not_create_a_hash(deployment, session):
    run(session, "UPDATE people SET age = 38 WHERE id = 1")
    assert deployment.settle_and_check() == set(), "a hash of one field would look complete"


def test_column_set_to_null_is_removed_from_the_hash(deployment, session):
    run(session, "SELECT * FROM people", "UPDATE people SET name = NULL WHERE id = 1")
    assert "people/hash/1" in deployment.settle_and_check()
    assert not deployment.redis.hexists("people/hash/1", "name")


def test_update_of_all_columns_with_returning_is_stored(deployment, session):
    sql = "UPDATE people SET name = 'x', age = 1, ok = false, extra = NULL, born = NULL WHERE id = 1 RETURNING *"
    run(session, sql)
    assert deployment.settle_and_check() == {"people/hash/1", "people/json/1"}


def test_hash_of_null_columns_only_has_no_key(deployment, session):
    run(session, "SELECT * FROM people")
    run(session, "UPDATE people SET name = NULL, age = NULL, ok = NULL, extra = NULL, born = NULL WHERE id = 1")
    deployment.settle_and_check()
    run(session, "SELECT * FROM people")
    assert "people/hash/1" not in deployment.settle_and_check()


def test_parts_of_a_composite_key_are_encoded(deployment, session):
    run(session, "SELECT * FROM places")
    assert deployment.settle_and_check() == PLACES


@pytest.mark.parametrize("mode", ["simple", "text", "binary", "prepared"])
@pytest.mark.parametrize(
    ("sql", "gone"),
    [
        ("UPDATE places SET name = 'x' WHERE country = $1 AND code = $2", False),
        ("UPDATE places SET name = name || '' WHERE country = $1 AND code = $2", True),
        ("DELETE FROM places WHERE (country, code) = ($1, $2)", True),
        ("DELETE FROM places WHERE country = $1 AND code IN ($2, 'none')", True),
        ("UPDATE places SET code = 'new' WHERE code = $2 AND country = $1", True),
    ],
)
def test_write_by_composite_key_removes_its_key_unless_it_is_stored(deployment, mode, sql, gone):
    deployment.reset(warm=True)
    before = deployment.settle_and_check()
    answer = getattr(deployment.session(), mode)(sql, text("d"), text("e:b"))
    assert not answer.errors, answer
    assert deployment.settle_and_check() == before - ({"places:d:e%3Ab"} if gone else set())


def test_write_by_part_of_a_composite_key_flushes_the_table(deployment, session):
    run(session, "SELECT * FROM places", "UPDATE places SET name = 'x' WHERE country = 'd'")
    assert deployment.settle_and_check() == set()
    run(session, "SELECT code, name FROM places WHERE country = 'd'")
    assert deployment.settle_and_check() == {"places:d:e%3Ab"}


def test_null_has_no_key_and_the_empty_string_has_one(deployment, session):
    run(session, "SELECT * FROM short")
    assert deployment.settle_and_check() == {"short:1", "short:3"}
    assert deployment.redis.get("short:3") == b""
    run(session, "UPDATE short SET v = 'now' WHERE id = 2", "UPDATE short SET v = NULL WHERE id = 1")
    assert deployment.settle_and_check() == {"short:2", "short:3"}


def test_keys_expire_after_the_configured_ttl(deployment, session):
    run(session, "SELECT * FROM short", "SELECT * FROM places")
    assert deployment.settle_and_check() >= {"short:1"}
    assert 0 < deployment.redis.pttl("short:1") <= 1500
    assert deployment.redis.pttl("places:de:b") == -1
    run(session, "UPDATE short SET v = 'later' WHERE id = 1")
    deployment.settle()
    assert 0 < deployment.redis.pttl("short:1") <= 1500
    time.sleep(1.6)
    assert deployment.settle_and_check() == PLACES


def test_at_most_max_rows_of_a_statement_fill(deployment, session):
    run(session, "SELECT id, v FROM brief ORDER BY id")
    assert len(deployment.settle_and_check()) <= 5
    run(session, "SELECT id, v FROM brief WHERE id = 17")
    assert "brief:17" in deployment.settle_and_check()


TYPES = {
    "int2": ["-32768", "0", "32767"],
    "int4": ["-2147483648", "7"],
    "int8": ["-9223372036854775808", "9007199254740993"],
    "text": ["", " x ", "é😀", "a\\b'c\"d"],
    "varchar(10)": ["abc", ""],
    "char(5)": ["ab"],
    "bool": ["t", "f"],
    "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"],
    "float4": ["1.1", "0.1", "-0", "NaN", "Infinity", "1e-40", "16777217"],
    "float8": ["1.1", "0.1", "1e300", "5e-324", "-Infinity", "123456789012345680"],
    "numeric": ["0", "-1.50", "123456789012345678901234567890.0001", "NaN", "Infinity", "1e-20", "0.000"],
    "numeric(10,2)": ["1.005", "-0.01"],
    "date": ["2024-02-29", "0001-01-01 BC", "infinity", "294276-12-31"],
    "timestamp": ["2024-02-29 12:34:56.789012", "1999-12-31 24:00:00", "-infinity", "4713-01-01 00:00:00 BC"],
    "timestamptz": ["2024-02-29 12:34:56.7+05:30", "infinity", "1900-01-01 00:00:00+00"],
    "time": ["24:00:00", "01:02:03.000004"],
    "timetz": ["01:02:03+05:30"],
    "interval": ["1 year 2 mons -3 days 04:05:06.7", "0", "-1 day"],
    "json": ['{"b": 1,  "a": [1.0, null]}', '"x"'],
    "jsonb": ['{"b": 1,  "a": [1.0, null]}', "null"],
    "bytea": ["\\xdeadbeef", "\\x"],
    "inet": ["192.168.0.1/24", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": ["101"],
    "varbit": ["10101", ""],
    "point": ["(1.5,-2)"],
    "money": ["12.34"],
    "oid": ["4294967295"],
    "int4[]": ["{1,NULL,3}", "{}"],
    "text[]": ['{a,"b c",NULL,"NULL"}'],
    "int4range": ["[1,5)", "empty"],
    "tsvector": ["'a' 'b':1"],
    "xid8": ["42"],
    "mood": ["calm", "very happy"],
    "positive": ["5"],
    "pair": ['(1,"a b")'],
}
ALWAYS = {"int2", "int4", "int8", "text", "varchar(10)", "bool", "uuid", "float4", "float8", "numeric", "numeric(10,2)"}
ALWAYS |= {"date", "timestamp", "timestamptz", "json", "jsonb", "bytea"}
"""Types whose values fill in text and in binary format."""


@pytest.fixture(scope="module")
def types(postgres, valkey, tmp_path_factory):
    tables, content, rules = [], [], []
    for number, (name, samples) in enumerate(TYPES.items()):
        tables.append(f"CREATE TABLE t{number} (id int PRIMARY KEY, v {name});")
        content.append(f"DELETE FROM t{number};")
        for row, sample in enumerate(samples):
            literal = sample.replace("'", "''")
            content.append(f"INSERT INTO t{number} VALUES ({row}, '{literal}');")
        rules.append({"name": f"t{number}", "key": "id", "value": "v"})
    schema = """
        CREATE TYPE mood AS ENUM ('calm', 'very happy');
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TYPE pair AS (n int, t text);
    """ + "".join(tables)
    directory = tmp_path_factory.mktemp("types")
    with deploy(postgres, valkey, directory, schema=schema, rules=rules, content="".join(content)) as found:
        yield found


SESSIONS = {
    "plain": "",
    "other output": "SET datestyle = 'German'; SET timezone = 'Asia/Kathmandu'; SET intervalstyle = 'iso_8601'; "
    "SET bytea_output = 'escape'",
    "short floats": "SET extra_float_digits = 0",
    "latin1": "SET client_encoding = 'LATIN1'",
}


@pytest.mark.parametrize("how", SESSIONS)
@pytest.mark.parametrize("mode", ["simple", "binary"])
def test_value_of_every_type_is_canonical_or_absent(types, mode, how):
    """For every session's settings, Redis holds PostgreSQL's text under canonical settings, or no key."""
    types.reset(warm=False)
    with types.connect() as session:
        run(session, SESSIONS[how])
        for number in range(len(TYPES)):
            getattr(session, mode)(f"SELECT v, id FROM t{number}")
        present = types.settle_and_check()
    missing = {
        name for number, name in enumerate(TYPES) if not any(key.startswith(f"t{number}:") for key in present)
    } & ALWAYS
    if how == "plain":
        assert not missing
    else:
        assert not missing - {"float4", "float8", "date", "timestamp", "timestamptz", "bytea", "json", "jsonb", "text"}


@pytest.mark.parametrize("mode", ["simple", "text", "prepared"])
def test_written_value_of_every_type_is_canonical_or_absent(types, mode):
    """The samples are written with surrounding spaces where the type permits."""
    types.reset(warm=True)
    session = types.session()
    for number, (name, samples) in enumerate(TYPES.items()):
        for row, sample in enumerate(samples):
            spelling = f"  {sample} " if name.startswith(("int", "float", "numeric", "date", "bool")) else sample
            send = getattr(session, mode)
            answer = send(f"UPDATE t{number} SET v = $1 WHERE id = $2", text(spelling), int4(row))
            assert not answer.errors, (name, sample, answer)
    types.settle_and_check()


def test_literal_in_unusual_spelling_leaves_no_stale_key(types):
    types.reset(warm=True)
    session = types.session()
    for name, literal in (
        ("int4", "+7"), ("int4", "007"), ("int4", "'7'"), ("int4", "7.4"), ("int4", "0x1F"), ("int4", "1_000"),
        ("int4", "- 7"), ("int4", "7::int8"), ("int4", "' 7 '"), ("int8", "1e3"), ("bool", "'yes'"), ("bool", "true"),
        ("bool", "'F'"), ("text", "7"), ("text", "'a' 'b'" .replace(" ", "\n")), ("varchar(10)", "'abc          '"),
        ("text", "N'n'"), ("text", "B'101'::text"), ("uuid", "'{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}'"),
        ("text", "E'a\\\\x41\\u0041'"), ("text", "$$dollar$$"), ("json", "'{\"a\":   1}'"), ("jsonb", "'{\"a\":   1}'"),
        ("mood", "'calm'"), ("positive", "6"), ("date", "'today'"), ("timestamptz", "now()"), ("numeric", "1.10"),
        ("float8", "1.0"), ("bytea", "'abc'"),
    ):  # fmt: skip
        number = list(TYPES).index(name)
        answer = session.simple(f"UPDATE t{number} SET v = {literal} WHERE id = 0")
        assert not answer.errors or name == "text", (name, literal, answer)
        types.settle_and_check()


def test_key_constant_in_unusual_spelling_leaves_no_stale_key(types):
    """A key is compared with a constant of another type or in an unusual spelling."""
    types.reset(warm=True)
    session = types.session()
    number = list(TYPES).index("text")
    for key in ("1", "'1'", "1.0", "+1", "'+1'", "' 1'", "1::int2", "1::numeric", "01", "0x1", "'01'", "(SELECT 1)"):
        answer = session.simple(f"UPDATE t{number} SET v = 'by ' || $s${key}$s$ WHERE id = {key}")
        assert not answer.errors, (key, answer)
        types.settle_and_check()
        session.simple(f"SELECT v FROM t{number} WHERE id = {key}")
        types.settle_and_check()
    for value in ("1", " 1", "+1", "01"):
        answer = session.text(f"UPDATE t{number} SET v = $1 WHERE id = $2", text("p"), Typed("int4", value))
        assert not answer.errors
        types.settle_and_check()
