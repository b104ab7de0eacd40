"""The catalog for the commands that look at one from outside a session: asked over a login of their own, or supposed.

``serve`` never does this: it asks over its clients' sessions and has no credentials.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any

from cache.builtin_types import TEXT
from cache.catalog import query as catalog_query
from cache.catalog.links import links_to
from cache.catalog.tables import BoundRule, Catalog, Column, Relation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.rules import TableRule
    from proxy.config.sections import PostgresSection

_VOLATILE = frozenset(
    (
        *("clock_timestamp", "currval", "gen_random_uuid", "lastval", "lo_create", "lo_from_bytea", "lo_import"),
        *("lo_put", "lo_unlink", "nextval", "pg_advisory_lock", "pg_advisory_unlock", "pg_advisory_xact_lock"),
        *("pg_cancel_backend", "pg_notify", "pg_sleep", "pg_terminate_backend", "query_to_xml", "random", "set_config"),
        *("setseed", "setval", "timeofday"),
    )
)
"""The volatile functions of pg_catalog a statement is most likely to call, for want of a database to ask."""


class LookupFailure(Exception):  # noqa: N818 - the outcome of a look-up, in one line for people
    """PostgreSQL could not be asked."""


def has_login(dsn: str | None) -> bool:
    """Whether somebody said how to log in: a --dsn, or libpq's own variables."""
    return dsn is not None or any(os.environ.get(name) for name in ("PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE"))


def ask(settings: PostgresSection, dsn: str | None, database: str, rules: Sequence[TableRule]) -> Catalog:
    """What ``database`` says of its ``rules``. Raises ``LookupFailure``."""
    try:
        import psycopg
    except ModuleNotFoundError:
        raise LookupFailure("a login needs psycopg: pip install 'rowtap[tools]'") from None
    try:
        with psycopg.connect(**parameters(settings, dsn, database)) as connection:
            connection.read_only = True
            row = connection.execute(catalog_query.text(rules).encode()).fetchone()
    except psycopg.Error as error:
        raise LookupFailure(" ".join(str(error).split())) from None
    if row is None:
        raise LookupFailure("the catalog query has no answer")
    return catalog_query.parse(str(row[0]).encode(), database, rules)


def parameters(settings: PostgresSection, dsn: str | None, database: str) -> dict[str, Any]:
    """libpq parameters: the connection string's, and the configured ones where it says nothing."""
    from psycopg.conninfo import conninfo_to_dict

    found: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "sslmode": settings.sslmode,
        "connect_timeout": max(2, round(settings.connect_timeout)),
        "application_name": "rowtap",
    }
    if settings.sslrootcert is not None:
        found["sslrootcert"] = str(settings.sslrootcert)
    found.update(conninfo_to_dict(dsn or ""))
    # One file may configure several databases, so the rule's goes before the connection string's.
    found["dbname"] = database
    return found


def suppose(database: str, rules: Sequence[TableRule]) -> Catalog:
    """A catalog in which each configured table is as simple as can be: text columns, the key unique, nothing else."""
    oids = count(16_384)
    relations: dict[tuple[str, str], Relation] = {}
    for rule in rules:
        place = (rule.schema, rule.table)
        if place not in relations:
            relations[place] = _relation(next(oids), [other for other in rules if (other.schema, other.table) == place])
    bound = [catalog_query.bind(rule, relations[rule.schema, rule.table]) for rule in rules]
    certain = tuple(one for one in bound if isinstance(one, BoundRule))
    names: dict[str, tuple[int, ...]] = {}
    for relation in relations.values():
        names[relation.name] = (*names.get(relation.name, ()), relation.oid)
    return Catalog(
        database=database,
        bound=certain,
        relations={relation.oid: relation for relation in relations.values()},
        links=links_to(certain, ()),
        names=names,
        volatile=_VOLATILE,
        float_digits_certain=True,
    )


def _relation(oid: int, rules: Sequence[TableRule]) -> Relation:
    """The table that all of ``rules`` are about."""
    names = dict.fromkeys(name for rule in rules for name in (*rule.key, *rule.value))
    columns = {name: Column(name, number, TEXT, -1, base_oid=TEXT) for number, name in enumerate(names, 1)}
    unique = tuple(frozenset(rule.key) for rule in rules)
    return Relation(oid, rules[0].schema, rules[0].table, "r", columns, unique)
