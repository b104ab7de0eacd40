"""Values as a real server sends them, in both formats and under hostile settings, against its own canonical text."""

import dataclasses

import psycopg
import pytest
from psycopg import pq, sql

from cache import builtin_types as types
from cache.catalog.tables import Column
from cache.values import loading
from cache.values.encodings import CODECS
from cache.values.loaders import ValueSettings, loader, verbatim
from tests.cache.values import samples
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
    {**CANONICAL, "extra_float_digits": "3", "DateStyle": "ISO, DMY", "bytea_output": "escape",
     "TimeZone": "Asia/Kolkata"},
    {"DateStyle": "German", "TimeZone": "Asia/Kolkata", "IntervalStyle": "iso_8601", "extra_float_digits": "-15",
     "bytea_output": "escape", "client_encoding": "LATIN1"},
    {"DateStyle": "SQL, DMY", "TimeZone": "America/St_Johns", "IntervalStyle": "sql_standard",
     "extra_float_digits": "0", "bytea_output": "escape", "client_encoding": "SQL_ASCII"},
    {"DateStyle": "Postgres, MDY", "TimeZone": "Africa/Monrovia", "IntervalStyle": "postgres_verbose",
     "extra_float_digits": "-4", "bytea_output": "hex", "client_encoding": "WIN1252"},
]  # fmt: skip
ALL = samples.SAMPLES | samples.RANGES | samples.ARRAYS | samples.MULTIRANGES


@pytest.fixture(scope="module", params=["postgres", "postgres_tls"])
def server(request):
    """A database with one table for each type: the embedded server, and a packaged older one where there is one."""
    server = request.getfixturevalue(request.param)
    with fresh_database(server) as database, psycopg.connect(server.dsn(database), autocommit=True) as connection:
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


def raw(connection, query, code):
    """The first column of the query's rows as it came over the wire, and its type's OID."""
    result = connection.pgconn.exec_params(query.encode(), None, None, None, code)
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise psycopg.OperationalError(result.error_message.decode())
    return [result.get_value(row, 0) for row in range(result.ntuples)], result.ftype(0)


def column(oid, **facts):
    return Column("value", 1, oid, -1, base_oid=oid, **facts)


def chosen(*facts):
    load = loader(*facts)
    assert not isinstance(load, str), load
    return load


def refusal(*facts):
    reason = loader(*facts)
    assert isinstance(reason, str)
    return reason


def expected(connection, number):
    return raw(connection, f"SELECT value FROM t{number} ORDER BY id", pq.Format.TEXT)


FLOATS = {"float4", "float8", "point", "lseg", "path", "box", "polygon", "line", "circle", "float8[]", "float4[]",
          "box[]", "point[]"}  # fmt: skip
DATED = {"date", "timestamp", "timestamptz", "daterange", "tsrange", "tstzrange", "datemultirange", "tsmultirange",
         "tstzmultirange", "date[]", "timestamp[]", "timestamptz[]"}  # fmt: skip
STYLED = {"interval", "interval[]"}


@pytest.mark.parametrize(
    "settings", HOSTILE, ids=lambda settings: settings["DateStyle"] + settings["extra_float_digits"]
)
@pytest.mark.parametrize("code", [pq.Format.TEXT, pq.Format.BINARY])
def test_values_are_canonical_or_refused_under_any_settings(server, settings, code):
    wrong: list[object] = []
    refused, unread = set(), set()
    with server() as canonical, server() as session:
        use(canonical, CANONICAL)
        use(session, settings)
        facts = reported(session, settings)
        for number, name in enumerate(ALL):
            texts, oid = expected(canonical, number)
            values, _ = raw(session, f"SELECT value FROM t{number} ORDER BY id", code)
            load = loader(column(oid), code, facts)
            if isinstance(load, str):
                refused.add(name)
                continue
            for text, value in zip(texts, values, strict=True):
                result = load(value)
                if result is None:
                    unread.add(name)
                elif result != text:
                    wrong.append((name, value, result, text))
    assert wrong == []
    hostile = not facts.iso_dates
    if code == pq.Format.BINARY:
        assert refused == {"money"} | ({"xml"} if hostile and settings["client_encoding"] != "SQL_ASCII" else set())
        assert unread == set()
    else:
        assert refused == {"money"} | ((FLOATS | DATED | STYLED) if hostile else set())
        assert unread == set()


def test_every_built_in_type_is_read_or_refused_by_name(server):
    """Every base type of pg_type is read and has samples, or is refused by name; so is every array and range."""
    with server() as connection:
        rows = connection.execute(
            """
            SELECT t.oid::int8, t.typname, t.typtype, t.typcategory, t.typelem::int8,
                   coalesce(r.rngsubtype, m.rngsubtype)::int8
            FROM pg_type t LEFT JOIN pg_range r ON r.rngtypid = t.oid LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
            WHERE t.oid < 16384 AND (t.typtype IN ('b', 'r', 'm')) AND t.typrelid = 0
              AND NOT EXISTS (SELECT FROM pg_type e
                              WHERE e.oid = t.typelem AND e.typtype <> 'b' AND t.typcategory = 'A')
            """
        ).fetchall()
    tested = {name.partition("(")[0] for name in samples.SAMPLES}
    for oid, name, kind, category, element, subtype in rows:
        if kind == "r":
            assert types.RANGES[oid] == subtype
            assert name in samples.RANGES
        elif kind == "m":
            assert types.MULTIRANGES[oid] == subtype
            assert name in samples.MULTIRANGES
        elif category == "A" and oid not in types.BY_OID:
            assert types.ARRAYS.get(oid, element) == element
            assert oid in types.ARRAYS or types.BY_OID[element].refused
        elif types.BY_OID[oid].refused:
            assert isinstance(loader(column(oid), 0, loading.CANONICAL), str)
            assert isinstance(loader(column(oid), 1, loading.CANONICAL), str)
            assert name in types.BY_OID[oid].refused
        else:
            assert types.BY_OID[oid].label in tested
    assert len(rows) > 120


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII", "EUC_JP", "SJIS", "WIN1251", "GBK"])
@pytest.mark.parametrize("code", [pq.Format.TEXT, pq.Format.BINARY])
def test_text_in_other_encodings_is_read_right_or_not_at_all(server, encoding, code):
    """One value a query: what an encoding lacks is an error of the server."""
    read = 0
    with server() as connection:
        for sample in samples.WIDE_TEXTS:
            connection.execute("SET client_encoding = 'UTF8'")
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS wide (value text)")
            connection.execute("TRUNCATE wide")
            connection.execute("INSERT INTO wide VALUES (%s)", (sample,))
            connection.execute(f"SET client_encoding = '{encoding}'")
            facts = reported(connection, CANONICAL)
            assert facts.client_encoding == encoding
            try:
                (value,), oid = raw(connection, "SELECT value FROM wide", code)
            except psycopg.OperationalError:
                continue
            result = chosen(column(oid), code, facts)(value)
            assert result in (None, sample.encode())
            read += result is not None
        connection.execute("SET client_encoding = 'UTF8'")
    assert read >= {"UTF8": 14, "SQL_ASCII": 14, "EUC_JP": 3, "SJIS": 1, "WIN1251": 4, "GBK": 4}[encoding]


@pytest.mark.parametrize("name", sorted(name for name in CODECS if name.isupper()))
def test_codecs_agree_with_the_server(server, name):
    """Every byte, and for encodings of two bytes every pair that both sides know."""
    wide = name in ("EUC_CN", "EUC_KR", "GBK")
    codes = [bytes([high, low]) for high in range(0x81, 0xFF) for low in range(0xA1, 0xFF)] if wide else [
        bytes([byte]) for byte in range(1, 256)
    ]  # fmt: skip
    facts = ValueSettings(client_encoding=name, server_encoding="UTF8")
    load = chosen(column(types.TEXT), 0, facts)
    known = [code for code in codes if load(code) is not None]
    with server() as connection:
        connection.execute(
            """
            CREATE FUNCTION pg_temp.read(codes bytea[], encoding text) RETURNS text[] LANGUAGE plpgsql AS $$
            DECLARE answer text[] := '{}'; code bytea;
            BEGIN
              FOREACH code IN ARRAY codes LOOP
                BEGIN answer := answer || convert_from(code, encoding);
                EXCEPTION WHEN others THEN answer := answer || NULL::text; END;
              END LOOP;
              RETURN answer;
            END $$
            """
        )
        (answers,) = connection.execute("SELECT pg_temp.read(%s, %s)", (known[:: 7 if wide else 1], name)).fetchone()
    assert len(answers) > 100
    for code, answer in zip(known[:: 7 if wide else 1], answers, strict=True):
        assert answer is None or load(code) == answer.encode()


USER_TYPES = """
CREATE TYPE mood AS ENUM ('happy', 'sad day', 'größe');
CREATE DOMAIN mood_domain AS mood; CREATE DOMAIN int_domain AS int4; CREATE DOMAIN ints_domain AS int4[];
CREATE DOMAIN stamp_domain AS timestamptz;
CREATE TYPE pair AS (a int4, b text); CREATE TYPE stamped AS (a timestamptz, b interval, c float8);
CREATE TYPE with_money AS (a money); CREATE TYPE with_bytes AS (a bytea);
CREATE TYPE textrange AS RANGE (subtype = text); CREATE TYPE floatrange AS RANGE (subtype = float8)
"""
INNER = {
    "int4": 23,
    "text": 25,
    "mood": 3500,
    "timestamptz": 1184,
    "interval": 1186,
    "float8": 701,
    "money": 790,
    "bytea": 17,
}
USER_SAMPLES = [
    # type, kind, kind of base, inner, values, read as text under canonical settings, under hostile ones, as binary
    ("mood", "e", "e", ["mood"], ["happy", "sad day", "größe"], True, True, True),
    ("mood_domain", "d", "e", ["mood"], ["happy", "größe"], True, True, True),
    ("int_domain", "d", "b", ["int4"], ["42"], True, True, True),
    ("ints_domain", "d", "b", ["int4"], ["{1,NULL,3}"], True, True, True),
    ("stamp_domain", "d", "b", ["timestamptz"], ["2024-07-01 12:00:00+02"], True, True, True),
    ("mood[]", "b", "b", ["mood"], ['{happy,"sad day",größe}'], True, True, False),
    ("pair", "c", "c", ["int4", "text"], ['(1,"a ""b, é")', "(,)"], True, True, False),
    ("pair[]", "b", "b", ["int4", "text"], ['{"(1,é)"}'], True, True, False),
    ("stamped", "c", "c", ["timestamptz", "interval", "float8"], ['("2024-07-01 12:00:00+02","1 day",0.1)'],
     True, False, False),
    ("with_money", "c", "c", ["money"], ["(1)"], False, False, False),
    ("with_bytes", "c", "c", ["bytea"], ['("\\\\x41")'], False, False, False),
    ("textrange", "r", "r", ["text"], ['["a b",é)'], True, True, False),
    ("floatrange", "r", "r", ["float8"], ["[0.1,2)"], True, False, False),
]  # fmt: skip


@pytest.mark.parametrize("sample", USER_SAMPLES, ids=lambda sample: sample[0])
def test_types_of_users_are_read_if_all_within_them_is(server, sample):
    name, kind, base_kind, inner, texts, *read = sample
    hostile = {**CANONICAL, "TimeZone": "Asia/Kolkata", "client_encoding": "LATIN1", "extra_float_digits": "0"}
    with server() as connection:
        if connection.execute("SELECT to_regtype('mood') IS NULL").fetchone()[0]:
            connection.execute(USER_TYPES)
        connection.execute(f"CREATE TEMP TABLE sample (value {name})")
        for text in texts:
            connection.execute(f"INSERT INTO sample VALUES ((%s::text)::{name})", (text,))
        oid, base, element = connection.execute(
            "SELECT t.oid::int8, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END::int8,"
            " CASE WHEN t.typcategory = 'A' AND t.typtype = 'b' THEN t.typelem ELSE 0 END::int8"
            " FROM pg_type t WHERE t.oid = to_regtype(%s)", (name,)
        ).fetchone()  # fmt: skip
        facts = Column("value", 1, oid, -1, kind, base, element, base_kind=base_kind)
        full = dataclasses.replace(facts, inner=frozenset(INNER[one] for one in inner))
        use(connection, CANONICAL)
        wanted, _ = raw(connection, "SELECT value FROM sample", pq.Format.TEXT)
        outcomes = []
        for settings, code in ((CANONICAL, 0), (hostile, 0), (CANONICAL, 1)):
            use(connection, settings)
            values, _ = raw(connection, "SELECT value FROM sample", code)
            known = reported(connection, settings)
            for column in (facts, full):
                load = loader(column, code, known)
                results = None if isinstance(load, str) else [load(value) for value in values]
                assert results in (None, wanted)
            outcomes.append(results is not None)
    assert outcomes == read


def test_types_of_known_extensions_are_read():
    citext = Column("value", 1, 20000, -1, "b", 20000, base_kind="b", base_name="citext")
    assert loader(citext, 0, loading.CANONICAL) is verbatim
    assert loader(citext, 1, loading.CANONICAL) is verbatim
    unknown = dataclasses.replace(citext, base_name="widget")
    assert "widget" in refusal(unknown, 0, loading.CANONICAL)
    assert "widget" in refusal(unknown, 1, loading.CANONICAL)
    composite = Column("value", 1, 20001, -1, "c", 20001, base_kind="c", inner=frozenset({23, 20000}))
    assert "20000" in refusal(composite, 0, loading.CANONICAL)
