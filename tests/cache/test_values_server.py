"""Values as a real server sends them, in both formats and under hostile settings, against its own canonical text."""

import dataclasses

import psycopg
import pytest
from psycopg import pq, sql

from cache import values_types
from cache.catalog import Column
from cache.values import ValueSettings, loader
from tests.cache import values_samples
from tests.fix_postgres import fresh_database

CANONICAL = {
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
}
HOSTILE = [
    CANONICAL,
    {**CANONICAL, "extra_float_digits": "3", "DateStyle": "ISO, DMY", "bytea_output": "escape", "TimeZone": "Asia/Kolkata"},
    {"DateStyle": "German", "TimeZone": "Asia/Kolkata", "IntervalStyle": "iso_8601", "extra_float_digits": "-15",
     "bytea_output": "escape", "client_encoding": "LATIN1"},
    {"DateStyle": "SQL, DMY", "TimeZone": "America/St_Johns", "IntervalStyle": "sql_standard", "extra_float_digits": "0",
     "bytea_output": "escape", "client_encoding": "SQL_ASCII"},
    {"DateStyle": "Postgres, MDY", "TimeZone": "Africa/Monrovia", "IntervalStyle": "postgres_verbose",
     "extra_float_digits": "-4", "bytea_output": "hex", "client_encoding": "WIN1252"},
]  # fmt: skip
ALL = values_samples.SAMPLES | values_samples.RANGES | values_samples.ARRAYS | values_samples.MULTIRANGES
REFUSED = {"money"}


@pytest.fixture(scope="module", params=["postgres", "postgres_tls"])
def server(request):
    """A database with one table for each type: the embedded server, and a packaged older one where there is one."""
    server = request.getfixturevalue(request.param)
    with fresh_database(server) as database, psycopg.connect(server.dsn(database), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS citext")
        for number, (name, samples) in enumerate(ALL.items()):
            connection.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, value {name})")
            statement = f"INSERT INTO t{number} SELECT %s, (%s::text)::{name}"
            try:
                for position, sample in enumerate(samples):
                    connection.execute(statement, (position, sample))
            except psycopg.errors.FeatureNotSupported:
                assert name == "xml"
        yield lambda: psycopg.connect(server.dsn(database), autocommit=True)


def use(connection, settings):
    for name, value in settings.items():
        connection.execute(sql.SQL("SELECT set_config({}, {}, false)").format(name, value))


def reported(connection, settings):
    names = ("client_encoding", "server_encoding", "DateStyle", "IntervalStyle", "TimeZone", "server_version")
    parameters = {name: connection.info.parameter_status(name) for name in names}
    return ValueSettings.from_parameters(parameters, float_digits_certain=int(settings["extra_float_digits"]) > 0)


def raw(connection, query, format):
    """The first column of the query's rows as it came over the wire, and its type's OID."""
    result = connection.pgconn.exec_params(query.encode(), None, None, None, format)
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise psycopg.OperationalError(result.error_message.decode())
    return [result.get_value(row, 0) for row in range(result.ntuples)], result.ftype(0)


def column(oid, **facts):
    return Column("value", 1, oid, -1, base_oid=oid, **facts)


def expected(connection, number):
    return raw(connection, f"SELECT value FROM t{number} ORDER BY id", pq.Format.TEXT)


@pytest.mark.parametrize("settings", HOSTILE, ids=lambda settings: settings["DateStyle"] + settings["extra_float_digits"])
@pytest.mark.parametrize("format", [pq.Format.TEXT, pq.Format.BINARY])
def test_values_are_canonical_or_refused(server, settings, format):
    wrong = []
    with server() as canonical, server() as session:
        use(canonical, CANONICAL)
        use(session, settings)
        facts = reported(session, settings)
        for number, name in enumerate(ALL):
            texts, oid = expected(canonical, number)
            values, _ = raw(session, f"SELECT value FROM t{number} ORDER BY id", format)
            load = loader(column(oid), format, facts)
            if isinstance(load, str):
                if settings is CANONICAL and name not in REFUSED:
                    wrong.append((name, load))
                continue
            assert name not in REFUSED
            for text, value in zip(texts, values, strict=True):
                result = load(value)
                if result is None and settings is not CANONICAL:
                    continue
                if result != text:
                    wrong.append((name, value, result, text))
    assert wrong == []
