"""The tables of the consistency tests: their DDL, their rules, and what Redis should hold for a row.

Together they have every format, a composite key, two rules on one table, a view, a trigger, partitions, and a foreign
key that cascades. `stable_sleep` is a sleep that is declared STABLE, which pg_sleep is not: a statement that calls a
volatile function fills nothing.
"""

import json
from typing import Any, NamedTuple

HOT = 6
"""How many rows of each table all sessions read and write. A few more keys exist at times."""

SCHEMA = """
CREATE TABLE users (id int PRIMARY KEY, name varchar(80), n int);
CREATE VIEW people AS SELECT id, name, n FROM users;
CREATE TABLE items (tenant int, id int, name text, n int, note text, PRIMARY KEY (tenant, id));
CREATE TABLE docs (id text PRIMARY KEY, body json, n bigint, flag bool);
CREATE TABLE parts (id int PRIMARY KEY, name text, n int) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (4);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (4) TO (MAXVALUE);
CREATE TABLE marked (id int PRIMARY KEY, name text, n int);
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$;
CREATE TRIGGER mark BEFORE INSERT OR UPDATE OF name ON marked FOR EACH ROW EXECUTE FUNCTION mark();
CREATE FUNCTION stable_sleep(seconds float8) RETURNS bool STABLE LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep(seconds); RETURN true; END $$;
CREATE TABLE owners (id int PRIMARY KEY, name text, n int);
CREATE TABLE pets (id int PRIMARY KEY REFERENCES owners ON DELETE CASCADE ON UPDATE CASCADE, name text, n int);
"""


class Table(NamedTuple):
    """A table of the workload. `columns` are the value columns, each with the kind of value it takes."""

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    aliases: tuple[str, ...] = ()
    """Other names under which its rows may be written."""


TABLES = (
    Table("users", ("id",), {"name": "text", "n": "int"}, ("people",)),
    Table("items", ("tenant", "id"), {"name": "text", "n": "int", "note": "null"}),
    Table("docs", ("id",), {"body": "json", "n": "int", "flag": "bool"}),
    Table("parts", ("id",), {"name": "text", "n": "int"}, ("parts_low", "parts_high")),
    Table("marked", ("id",), {"name": "text", "n": "int"}),
    Table("pets", ("id",), {"name": "text", "n": "int"}),
    Table("owners", ("id",), {"name": "text", "n": "int"}),
)
BY_NAME = {table.name: table for table in TABLES}

RULES: list[dict[str, Any]] = [
    {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"},
    {"name": "users", "key": "id", "value": ["name", "n"], "format": "hash", "redis_key": "person:{id}"},
    {"name": "items", "key": ["tenant", "id"], "value": ["name", "n", "note"], "format": "hash"},
    {"name": "docs", "key": "id", "value": ["body", "n", "flag"], "format": "json", "redis_key": "docs:{id}"},
    {"name": "parts", "key": "id", "value": "name", "redis_key": "parts:{id}"},
    {"name": "marked", "key": "id", "value": ["name", "n"], "format": "hash", "redis_key": "marked:{id}"},
    {"name": "pets", "key": "id", "value": "name", "redis_key": "pets:{id}"},
]

Key = tuple[int | str, ...]


def keys(table: Table, spare: int = 0) -> list[Key]:
    """The keys of the rows of a table, and `spare` more that mostly have no row."""
    numbers = range(1, HOT + 1 + spare)
    if table.name == "items":
        return [(1 + number % 2, number) for number in numbers]
    if table.name == "docs":
        return [
            (f"d:{number}%",) for number in numbers
        ]  # a key template with several parts would escape these characters
    return [(number,) for number in numbers]


def redis_keys(table: str, key: Key) -> list[bytes]:
    """The Redis keys of a row."""
    return [
        _redis_key(rule, dict(zip(BY_NAME[table].key, key, strict=True))) for rule in RULES if rule["name"] == table
    ]


def redis_prefixes(table: str) -> list[bytes]:
    """The common beginnings of all Redis keys of a table."""
    templates = (rule.get("redis_key", f"{table}:{{") for rule in RULES if rule["name"] == table)
    return [template.partition("{")[0].encode() for template in templates]


def query(table: str) -> str:
    """The query that returns all rows with every column in PostgreSQL's text format."""
    found = BY_NAME[table]
    return f"SELECT {', '.join(f'{column}::text' for column in (*found.key, *found.columns))} FROM {table}"


def expected(table: str, rows: list[tuple[str | None, ...]]) -> dict[bytes, Any]:
    """What Redis should hold for these rows of `query`, by Redis key. Rows without a value are left out."""
    found: dict[bytes, Any] = {}
    names = (*BY_NAME[table].key, *BY_NAME[table].columns)
    for row in rows:
        texts = dict(zip(names, row, strict=True))
        for rule in RULES:
            if rule["name"] == table:
                value = _value(rule, texts)
                if value:
                    found[_redis_key(rule, texts)] = value
    return found


def _redis_key(rule: dict[str, Any], parts: dict[str, Any]) -> bytes:
    if "redis_key" in rule:
        return str(rule["redis_key"]).format(**parts).encode()
    return ":".join([str(rule["name"]), *(str(parts[column]) for column in rule["key"])]).encode()


def _value(rule: dict[str, Any], texts: dict[str, str | None]) -> Any:
    columns = rule["value"]
    if isinstance(columns, str):
        text = texts[columns]
        return None if text is None else text.encode()
    if rule.get("format") == "hash":
        return {name.encode(): text.encode() for name in columns if (text := texts[name]) is not None}
    return {name: _decoded(BY_NAME[rule["name"]].columns[name], texts[name]) for name in columns}


def _decoded(kind: str, text: str | None) -> Any:
    return None if text is None else json.loads(text)


def decode(key: bytes, value: Any) -> Any:
    """A value of Redis in the form of `expected`."""
    return json.loads(value) if key.startswith(b"docs:") and isinstance(value, bytes) else value


def encode(value: Any) -> bytes:
    """The inverse of `decode`."""
    return json.dumps(value).encode()
