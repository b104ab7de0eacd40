"""The catalog for the commands, which have no client's session: fetched over the user's login, or assumed.

``serve`` never does this: it asks over its clients' sessions and has no credentials.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any

from cache.builtin_types import TEXT
from cache.catalog import query
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
"""The volatile functions of pg_catalog that a statement is most likely to call, when there is no database to ask."""


class LookupFailure(Exception):  # noqa: N818 - the outcome of a look-up, in one line for people
    """The catalog could not be fetched."""


def has_login(dsn: str | None) -> bool:
    """Whether a login is given: by --dsn, or by libpq's own variables."""
    return dsn is not None or any(os.environ.get(name) for name in ("PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE"))


def fetch_catalog(settings: PostgresSection, dsn: str | None, database: str, rules: Sequence[TableRule]) -> Catalog:
    """The catalog of ``database`` for ``rules``. Raises ``LookupFailure``."""
    try:
        import psycopg
    except ModuleNotFoundError:
        raise LookupFailure("a login needs psycopg: pip install 'rowtap[tools]'") from None
    try:
        with psycopg.connect(**connection_parameters(settings, dsn, database)) as connection:
            connection.read_only = True
            row = connection.execute(query.text(rules).encode()).fetchone()
    except psycopg.Error as error:
        raise LookupFailure(" ".join(str(error).split())) from None
    assert row is not None, "the catalog query always returns one row"
    return query.parse(str(row[0]).encode(), database, rules)


def connection_parameters(settings: PostgresSection, dsn: str | None, database: str) -> dict[str, Any]:
    """libpq parameters: those of the connection string, and the configured ones that it does not have."""
    from psycopg.conninfo import conninfo_to_dict

    parameters: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "sslmode": settings.sslmode,
        "connect_timeout": max(2, round(settings.connect_timeout)),
        "application_name": "rowtap",
    }
    if settings.sslrootcert is not None:
        parameters["sslrootcert"] = str(settings.sslrootcert)
    parameters.update(conninfo_to_dict(dsn or ""))
    # One file may configure several databases, so the rule's takes precedence over the connection string's.
    parameters["dbname"] = database
    return parameters


def assume_catalog(database: str, rules: Sequence[TableRule]) -> Catalog:
    """A catalog in which each configured table is as simple as can be: text columns, the key unique, nothing else."""
    oids = count(16_384)
    relations: dict[tuple[str, str], Relation] = {}
    for rule in rules:
        name = (rule.schema, rule.table)
        if name not in relations:
            relations[name] = _relation(next(oids), [other for other in rules if (other.schema, other.table) == name])
    bound = [query.bind(rule, relations[rule.schema, rule.table]) for rule in rules]
    certain = tuple(rule for rule in bound if isinstance(rule, BoundRule))
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
    """The table of all of ``rules``."""
    names = dict.fromkeys(name for rule in rules for name in (*rule.key, *rule.value))
    columns = {name: Column(name, number, TEXT, -1, base_oid=TEXT) for number, name in enumerate(names, 1)}
    unique = tuple(frozenset(rule.key) for rule in rules)
    return Relation(oid, rules[0].schema, rules[0].table, "r", columns, unique)
