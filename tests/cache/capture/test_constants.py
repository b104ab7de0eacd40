"""Constants against a real server: whatever is read from one is what the server stores, and what it finds by it."""

import itertools
import struct

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import pq

from cache import builtin_types as t
from cache.capture.constants import array_literal_texts, array_texts, keyword_text, literal_text, parameter_text
from cache.catalog.tables import Column
from cache.sql.plans import Literal, Operand, OperandSource
from cache.values.loading import CANONICAL, ValueSettings
from tests.fix_postgres import fresh_database

UTF8 = CANONICAL
COLUMNS = {
    "int2": "int2", "int4": "int4", "int8": "int8", "text": "text", "varchar": "varchar", "varchar5": "varchar(5)",
    "bool": "bool", "uuid": "uuid", "json": "json", "mood": "mood", "int_domain": "int_domain",
    "text_domain": "text_domain", "mood_domain": "mood_domain",
}  # fmt: skip
UNCERTAIN = {
    "numeric": "numeric", "float8": "float8", "bpchar": "char(5)", "name": "name", "jsonb": "jsonb", "date": "date",
    "timestamptz": "timestamptz", "bytea": "bytea", "ints": "int4[]", "varchar_domain": "varchar_domain", "oid": "oid",
    "folded": 'text COLLATE "folded"', "money": "money", '"char"': '"char"',
}  # fmt: skip
STRINGS = [
    "", " ", "0", "-0", "+0", "1", "42", "-42", "+42", "007", "-007", " 42 ", "\t42\n", "\v42\f", "4 2", "- 42",
    "--1", "1.0", "1e2", "0x1F", "0o17", "0b11", "1_000", "_1", "32767", "32768", "-32768", "-32769", "2147483647",
    "2147483648", "-2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "9" * 60,
    "0" * 30 + "5", "\u0661", "t", "T", "true", "TRUE", "tRu", " true ", "yes", "y", "YE", "on", "o", "of", "off",
    "f", "fals", "no", "n", "2", "truex", "abc", "abcde", "abcdef", "abc   ", "abcde   ", "ééééé", "éééééé", "日本語",
    "a'b", "a\"b", "a\\b", "NULL", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
    "a0eebc999c0b4ef8bb6d6bb9bd380a11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
    "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11",
    "a0eebc9-99c0b-4ef8-bb6d-6bb9bd380a11", " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-", "{}", "[1, 2.0]", " {\"a\" : \"\\u00e9\", \"a\": 1} ", "1.50", "\"x\"",
    "happy", "sad day", "Happy", "ärger",
]  # fmt: skip
CASTS = [None, "int2", "int4", "int8", "text", "varchar", "bool", "uuid", "json", "numeric", "int4[]"]


@pytest.fixture(scope="module", params=["postgres", "postgres_tls"])
def server(request):
    """A connection to tables with one column of each type, and what the catalog says of them."""
    server = request.getfixturevalue(request.param)
    with fresh_database(server) as database, psycopg.connect(server.dsn(database), autocommit=True) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('happy', 'sad day', 'ärger', '', '42')")
        connection.execute("CREATE DOMAIN int_domain AS int4 CHECK (VALUE <> 13)")
        connection.execute("CREATE DOMAIN text_inner AS text; CREATE DOMAIN text_domain AS text_inner")
        connection.execute("CREATE DOMAIN mood_domain AS mood; CREATE DOMAIN varchar_domain AS varchar(5)")
        try:
            connection.execute("CREATE COLLATION folded (provider = icu, locale = 'und', deterministic = false)")
        except psycopg.errors.FeatureNotSupported:
            connection.execute('CREATE COLLATION folded FROM "C"')
        for name, definition in (COLUMNS | UNCERTAIN).items():
            bare = name.strip('"')
            connection.execute(f"CREATE TABLE t_{bare} (v {definition})")
        yield Server(connection)


class Server:
    """Runs one value through the server."""

    def __init__(self, connection):
        self.connection = connection
        self.columns = {name: self._facts(name.strip('"')) for name in COLUMNS | UNCERTAIN}

    def _facts(self, name):
        oid, modifier, kind, base, base_kind = self.connection.execute(
            """
            WITH RECURSIVE base(oid, kind, next) AS (
              SELECT t.oid, t.typtype, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = %(table)s::regclass AND a.attname = 'v'
              UNION ALL SELECT u.oid, u.typtype, u.typbasetype FROM base b JOIN pg_type u ON u.oid = b.next)
            SELECT a.atttypid::int8, a.atttypmod, t.typtype, b.oid::int8, b.kind
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid, base b
            WHERE a.attrelid = %(table)s::regclass AND a.attname = 'v' AND b.kind <> 'd'
            """,
            {"table": f"t_{name}"},
        ).fetchone()
        return Column(
            "v", 1, oid, modifier, kind, base, base_kind=base_kind, deterministic=name != "folded"
        )  # fmt: skip

    def run(self, query, raw=None, oid=0, code=0):
        """The first column of the rows, as text; None when the server refuses."""
        parameters = ([raw], [oid], [code]) if raw is not None else (None, None, None)
        result = self.connection.pgconn.exec_params(query.encode(), *parameters, pq.Format.TEXT)
        if result.status != pq.ExecStatus.TUPLES_OK:
            return None
        return [result.get_value(row, 0) for row in range(result.ntuples)]

    def stored(self, name, expression, *parameter):
        """What the column holds after the expression was assigned to it."""
        return self.run(f"INSERT INTO t_{name} VALUES ({expression}) RETURNING v", *parameter)

    def found(self, name, condition, *parameter):
        """What the column holds in the rows that the comparison finds."""
        return self.run(f'SELECT DISTINCT v::text COLLATE "C" FROM t_{name} WHERE v {condition}', *parameter)

    def agrees(self, name, text, expression, *parameter):
        """Asserts that ``text`` is what the expression means; whether the server took it at all."""
        stored = self.stored(name, expression, *parameter)
        assert stored is None or stored == [text], (name, expression, parameter)
        found = None if name == "json" else self.found(name, f"= {expression}", *parameter)
        if found and name == "bool":
            found = [value[:1] for value in found]  # as text a bool is spelled out
        assert not found or found == [text], (name, expression, parameter)
        return stored is not None


def quoted(string):
    return "'" + string.replace("'", "''") + "'"


def literals(string):
    yield quoted(string), Literal(string.encode(), "string"), False
    if string.isascii() and string.isdigit():
        yield string, Literal(string.encode(), "integer"), False
        yield f"-{string}", Literal(string.encode(), "integer"), True
    elif string in ("1.0", "1e2", "1.50"):
        yield string, Literal(string.encode(), "decimal"), False


def test_text_of_a_literal_is_what_the_server_stores_and_finds(server):
    taken = dict.fromkeys(COLUMNS, 0)
    for name, string, cast in itertools.product(COLUMNS, STRINGS, CASTS):
        for sql, literal, negative in literals(string):
            text = literal_text(server.columns[name], literal, Operand(OperandSource.LITERAL, 0, negative, cast), UTF8)
            if text is not None:
                expression = f"({sql})::{cast}" if cast else sql
                taken[name] += server.agrees(name, text, expression)
    floor = {"int2": 30, "int8": 60, "text": 150, "varchar5": 100, "bool": 30, "uuid": 8, "json": 10, "mood": 3,
             "int_domain": 40, "text_domain": 150, "mood_domain": 3}  # fmt: skip
    assert {name: taken[name] for name in floor if taken[name] < floor[name]} == {}


@pytest.mark.parametrize(
    ("name", "literal", "negative", "cast", "text"),
    [
        ("int4", Literal(b"42", "integer"), False, None, b"42"),
        ("int4", Literal(b"007", "integer"), False, None, b"7"),
        ("int4", Literal(b"42", "integer"), True, "int8", b"-42"),
        ("int8", Literal(b"9223372036854775808", "integer"), True, None, b"-9223372036854775808"),
        ("int4", Literal(b" +5 ", "string"), False, "int4", b"5"),
        ("int4", Literal(b"-0", "string"), False, None, b"0"),
        ("text", Literal("é".encode(), "string"), False, None, "é".encode()),
        ("text", Literal(b"x ", "string"), False, "varchar", b"x "),
        ("varchar5", Literal("ééééé".encode(), "string"), False, "text", "ééééé".encode()),
        ("bool", Literal(b"Yes", "string"), False, None, b"t"),
        ("uuid", Literal(b"A0EEBC999C0B4EF8BB6D6BB9BD380A11", "string"), False, "uuid",
         b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("json", Literal(b' {"a" : 1}', "string"), False, "json", b' {"a" : 1}'),
        ("mood", Literal(b"happy", "string"), False, None, b"happy"),
    ],
)  # fmt: skip
def test_literal_of_the_columns_family_has_a_text(server, name, literal, negative, cast, text):
    assert literal_text(server.columns[name], literal, Operand(OperandSource.LITERAL, 0, negative, cast), UTF8) == text


@pytest.mark.parametrize(
    ("name", "literal", "negative", "cast"),
    [
        ("int2", Literal(b"32768", "integer"), False, None),
        ("int8", Literal(b"9223372036854775808", "integer"), False, None),
        ("int4", Literal(b"9" * 100_000, "integer"), False, None),
        ("int4", Literal(b"9" * 100_000, "string"), False, None),
        ("int4", Literal(b"1.0", "decimal"), False, None),
        ("int4", Literal(b"0x10", "string"), False, None),
        ("int4", Literal(b"5", "string"), True, None),
        ("int4", Literal(b"5", "integer"), False, "numeric"),
        ("int4", Literal(b"5", "integer"), False, "text"),
        ("text", Literal(b"5", "integer"), False, None),
        ("text", Literal(b"x", "string"), False, "bpchar"),
        ("text", Literal(b"x", "string"), False, "name"),
        ("varchar5", Literal(b"abc      ", "string"), False, None),
        ("varchar5", Literal("éééééé".encode(), "string"), False, None),
        ("bool", Literal(b"1", "integer"), False, None),
        ("bool", Literal(b"o", "string"), False, None),
        ("uuid", Literal(b"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "string"), False, None),
        ("mood", Literal(b"happy", "string"), False, "mood"),
    ],
)
def test_literal_out_of_range_or_of_another_family_has_no_text(server, name, literal, negative, cast):
    assert literal_text(server.columns[name], literal, Operand(OperandSource.LITERAL, 0, negative, cast), UTF8) is None


@pytest.mark.parametrize("name", UNCERTAIN)
def test_constants_of_other_column_types_have_no_text(server, name):
    column, literal = server.columns[name], Operand(OperandSource.LITERAL)
    for value in (b"1", b"a", b"{1}", b"2024-01-01"):
        for kind in ("string", "integer"):
            assert literal_text(column, Literal(value, kind), literal, UTF8) is None
        for code, oid in itertools.product((0, 1), (0, column.type_oid, t.TEXT, t.INT4)):
            assert parameter_text(column, value, code, oid, Operand(OperandSource.PARAMETER), UTF8) is None
        assert array_texts(column, b"{1}", 0, 0, Operand(OperandSource.PARAMETER), UTF8) is None


def test_literal_of_a_citext_column_has_no_text():
    citext = Column("v", 1, 20000, -1, "b", 20000, base_kind="b", base_name="citext")
    assert literal_text(citext, Literal(b"a", "string"), Operand(OperandSource.LITERAL), UTF8) is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from(" \t\n+-0123456789_xXoObB.e\u00a0\u0663"), max_size=8))
@example("\u00a05")
@example("5\x0b")
def test_integer_strings_are_read_as_the_server_reads_them(server, string):
    text = literal_text(
        server.columns["int4"], Literal(string.encode(), "string"), Operand(OperandSource.LITERAL), UTF8
    )
    result = server.run(f"SELECT {quoted(string)}::int4")
    if text is not None:
        assert result == [text]
    elif result is not None:
        assert any(character in string for character in "_xXoObB")  # spellings that older versions do not know


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from(" tTrRuUeEfFaAlLsSyYnNoO01\t"), max_size=6))
def test_boolean_strings_are_read_as_the_server_reads_them(server, string):
    text = literal_text(
        server.columns["bool"], Literal(string.encode(), "string"), Operand(OperandSource.LITERAL), UTF8
    )
    result = server.run(f"SELECT {quoted(string)}::bool")
    assert result == (None if text is None else [text])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["-", "{", "}", " ", "a0EE", "bc", "0", "12345678"]), max_size=24).map("".join))
@example("a0eebc999c0b4ef8bb6d6bb9bd380a11")
@example("{a0ee-bc99-9c0b4ef8-bb6d6bb9bd380a11}")
def test_uuid_strings_are_read_as_the_server_reads_them(server, string):
    text = literal_text(
        server.columns["uuid"], Literal(string.encode(), "string"), Operand(OperandSource.LITERAL), UTF8
    )
    result = server.run(f"SELECT {quoted(string)}::uuid")
    assert result == (None if text is None else [text])


UUID = bytes.fromhex("a0eebc999c0b4ef8bb6d6bb9bd380a11")
BINARIES = [
    struct.pack("!h", 42), struct.pack("!h", -32768), struct.pack("!i", 42), struct.pack("!i", -(2**31)),
    struct.pack("!q", 42), struct.pack("!q", 2**63 - 1), struct.pack("!q", 2**40), struct.pack("!d", 42.0), UUID, b"\0",
    b"\1", b"\2", b"", b"abc", b"happy", b"42", b"abcde   ", "ééééé".encode(), b'{"a": 1}', b"\xff",
    bytes.fromhex("00010000000000000001"), bytes.fromhex("0000000000000002"),
]  # fmt: skip
DECLARED = [0, 705, t.INT2, t.INT4, t.INT8, t.TEXT, t.VARCHAR, t.BPCHAR, t.NAME, t.NUMERIC, t.FLOAT8, t.BOOL, t.UUID,
            t.JSON, t.JSONB, t.OID]  # fmt: skip


def test_text_of_a_parameter_is_what_the_server_stores_and_finds(server):
    taken = dict.fromkeys(itertools.product(COLUMNS, (0, 1)), 0)
    texts = [string.encode() for string in STRINGS]
    for name, cast, code in itertools.product(COLUMNS, CASTS, (0, 1)):
        column = server.columns[name]
        for raw, oid in itertools.product((texts, BINARIES)[code], [*DECLARED, column.type_oid]):
            text = parameter_text(column, raw, code, oid, Operand(OperandSource.PARAMETER, 0, cast=cast), UTF8)
            if text is not None:
                taken[name, code] += server.agrees(name, text, f"$1::{cast}" if cast else "$1", raw, oid, code)
    floor = {("int4", 0): 100, ("int4", 1): 8, ("text", 0): 500, ("text", 1): 50, ("varchar5", 0): 200, ("bool", 0): 50,
             ("bool", 1): 5, ("uuid", 0): 10, ("uuid", 1): 3, ("json", 0): 20, ("mood", 0): 3, ("mood", 1): 1,
             ("int_domain", 0): 50, ("int_domain", 1): 5, ("text_domain", 1): 20, ("mood_domain", 0): 3}  # fmt: skip
    assert {case: taken[case] for case in floor if taken[case] < floor[case]} == {}


@pytest.mark.parametrize(
    ("name", "raw", "code", "oid", "cast"),
    [
        ("int4", b"5", 0, t.NUMERIC, None),
        ("int4", b"5", 0, t.FLOAT8, None),
        ("int4", b"5", 0, t.TEXT, None),
        ("int4", b"\0\0\0\5", 1, t.OID, None),
        ("int4", b"\0\5", 1, 0, None),
        ("int4", b"\0\0\0\5", 1, 0, "int8"),
        ("int2", b"\0\1\0\0", 1, t.INT4, None),
        ("text", b"x", 0, t.BPCHAR, None),
        ("text", b"5", 0, t.INT4, "text"),
        ("text", b"x\0y", 1, t.TEXT, None),
        ("json", b"{}", 0, t.JSONB, None),
        ("mood", b"happy", 0, t.TEXT, None),
        ("bool", b"t", 0, t.INT4, "bool"),
        ("text", b"x", 2, t.TEXT, None),
    ],
)
def test_parameter_of_another_type_or_format_has_no_text(server, name, raw, code, oid, cast):
    assert (
        parameter_text(server.columns[name], raw, code, oid, Operand(OperandSource.PARAMETER, 0, cast=cast), UTF8)
        is None
    )


def test_keywords_have_a_text_for_boolean_columns_alone(server):
    for name, (keyword, source) in itertools.product(
        COLUMNS, (("TRUE", OperandSource.TRUE), ("FALSE", OperandSource.FALSE))
    ):
        for cast in CASTS:
            text = keyword_text(server.columns[name], Operand(source, cast=cast))
            assert (text is not None) is (name == "bool" and cast in (None, "bool"))
            if text is not None:
                assert server.agrees(name, text, f"{keyword}::{cast}" if cast else keyword)
    assert keyword_text(server.columns["bool"], Operand(OperandSource.NULL)) is None


ARRAYS = {
    "int4": ["{}", "{1,2,42}", "{1,NULL,2}", " { 1 , 2 } ", '{"1"," 2 "}', "{+1,007}", "{1,null}", '{"NULL"}',
             "{{1},{2}}", "[0:1]={1,2}", "{1,}", "{1", "{1 2}", "{1,3000000000}", "{0x1}", "{-42}", "{ }",
             "{1}}", "{\\1}"],
    "text": ["{a,b}", "{NULL,a}", '{"NULL","null"}', '{"a,b","{x}","q\\"q","b\\\\s"}', "{ a b , c }", '{" a "}', '{""}',
             "{é,日本}", '{a"b"}', "{a\\,b}", '{"a"x}', "{nUlL}", "{}", '{"\\a"}', "{a\tb}"],
    "uuid": ["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,A0EEBC999C0B4EF8BB6D6BB9BD380A12}",
             '{"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"}'],
    "bool": ["{t,f,yes,NULL}", "{on,2}"],
    "mood": ["{happy,\"sad day\"}"],
    "varchar5": ["{abc,abcde}", "{abcdef}"],
}  # fmt: skip
SEND = "SELECT array_send({}::{}[])"


@pytest.mark.parametrize("name", ARRAYS)
def test_texts_of_an_array_are_what_the_server_finds_by_it(server, name):
    """Every element is put in first, so that a text left out or made wrong finds too little or too much."""
    column = server.columns[name]
    element = {"varchar5": "varchar"}.get(name, name)
    certain = 0
    for array in ARRAYS[name]:
        texts = array_literal_texts(column, Literal(array.encode(), "string"), Operand(OperandSource.LITERAL), UTF8)
        declared = {value: key for key, value in t.ARRAYS.items()}.get(
            t.VARCHAR if name == "varchar5" else column.base_oid, 0
        )
        for oid, cast in ((0, None), (declared, None), (0, f"{element}[]"), (0, f"_{element}"), (1009, f"{element}[]")):
            operand = Operand(OperandSource.PARAMETER, cast=cast)
            if name != "mood" or cast is None:
                assert array_texts(column, array.encode(), 0, oid, operand, UTF8) == texts
        if texts is None:
            continue
        certain += 1
        server.connection.execute(f"INSERT INTO t_{name} SELECT unnest(%s::{element}[])", (array,))
        expected = sorted(set(texts))
        found = server.found(name, f"= ANY({quoted(array)})")
        assert sorted(value[:1] if name == "bool" else value for value in found) == expected
        (binary,) = server.connection.execute(SEND.format(quoted(array), element)).fetchone()
        for oid in (0, declared):
            assert array_texts(column, binary, 1, oid, Operand(OperandSource.PARAMETER), UTF8) == texts
    assert certain >= len(ARRAYS[name]) // 2


@pytest.mark.parametrize(
    "expression",
    ["'{{1,2},{3,4}}'::int4[]", "'{1.5}'::numeric[]", "'{1}'::text[]", "'{3000000000}'::int8[]", "'{1}'::float8[]"],
)
def test_binary_array_of_another_type_or_shape_has_no_texts(server, expression):
    (binary,) = server.connection.execute(f"SELECT array_send({expression})").fetchone()
    assert array_texts(server.columns["int4"], binary, 1, 0, Operand(OperandSource.PARAMETER), UTF8) is None


def test_binary_array_of_a_larger_integer_type_has_texts(server):
    (binary,) = server.connection.execute("SELECT array_send('[5:7]={1,NULL,2}'::int8[])").fetchone()
    assert array_texts(server.columns["int4"], binary, 1, 1016, Operand(OperandSource.PARAMETER), UTF8) == [b"1", b"2"]


@pytest.mark.parametrize(
    ("raw", "oid", "cast"),
    [(b"{1}", t.TEXT, None), (b"{1}", 0, "int4"), (b"{ ,1}", 0, None)],
    ids=["declared as no array", "cast to no array", "element of spaces"],
)
def test_array_that_is_no_plain_list_has_no_texts(raw, oid, cast):
    column = Column("v", 1, t.INT4, -1, base_oid=t.INT4)
    assert array_texts(column, raw, 0, oid, Operand(OperandSource.PARAMETER, cast=cast), UTF8) is None


@given(st.binary(max_size=60))
def test_array_of_any_bytes_has_texts_or_none(raw):
    column = Column("v", 1, t.TEXT, -1, base_oid=t.TEXT)
    for code in (0, 1):
        texts = array_texts(column, raw, code, 0, Operand(OperandSource.PARAMETER), UTF8)
        assert texts is None or all(isinstance(text, bytes) for text in texts)


def test_array_beyond_the_limit_has_no_texts():
    column, operand = Column("v", 1, t.INT4, -1, base_oid=t.INT4), Operand(OperandSource.PARAMETER)
    for count, read in ((10_000, True), (10_001, False)):
        text = b"{" + b",".join([b"1"] * count) + b"}"
        binary = struct.pack("!iiIii", 1, 0, t.INT4, count, 1) + struct.pack("!ii", 4, 1) * count
        assert (array_texts(column, text, 0, 0, operand, UTF8) is not None) is read
        assert (array_texts(column, binary, 1, 0, operand, UTF8) is not None) is read


def test_list_of_literals_has_the_texts_of_its_elements(server):
    """``IN`` with many literals of one kind arrives as one literal."""
    operand = Operand(OperandSource.LITERAL)
    integers, strings = Literal(b"{1, -2,\n007}", "integer[]"), Literal(b'{"1","NULL","x\\"y"}', "string[]")
    assert array_literal_texts(server.columns["int4"], integers, operand, UTF8) == [b"1", b"-2", b"7"]
    assert array_literal_texts(server.columns["text"], integers, operand, UTF8) is None
    assert array_literal_texts(server.columns["text"], strings, operand, UTF8) == [b"1", b"NULL", b'x"y']
    assert array_literal_texts(server.columns["int4"], strings, operand, UTF8) is None
    assert array_literal_texts(server.columns["text"], Literal(b"{1}", "integer"), operand, UTF8) is None


def test_text_is_certain_by_the_encodings_of_client_and_server():
    column, literal = Column("v", 1, t.TEXT, -1, base_oid=t.TEXT), Operand(OperandSource.LITERAL)

    def read(raw, client=None, server="UTF8"):
        known = None if client is None else ValueSettings(client_encoding=client, server_encoding=server)
        found = literal_text(column, Literal(raw, "string"), literal, known)
        assert parameter_text(column, raw, 0, 0, Operand(OperandSource.PARAMETER), known) == found
        assert parameter_text(column, raw, 1, 0, Operand(OperandSource.PARAMETER), known) == found
        return found

    assert read(b"plain") == b"plain"
    assert read("é".encode()) is None
    assert read("é".encode(), "UTF8") == "é".encode()
    assert read("é".encode(), "UTF8", "LATIN1") == "é".encode()
    assert read("é".encode(), "UTF8", "EUC_JP") is None
    assert read(b"\xe9", "LATIN1") == "é".encode()
    assert read("é".encode(), "SQL_ASCII") == "é".encode()
    assert read("é".encode(), "SQL_ASCII", "SQL_ASCII") is None
    assert read(b"\xc4\xe3", "GBK") is None
    assert read(b"a\\b", "SJIS") is None
    assert read(b"plain", "SJIS") == b"plain"
    assert read(b"plain", "") is None
    assert array_texts(column, b"{\xe9}", 0, 0, Operand(OperandSource.PARAMETER), ValueSettings("LATIN1", "UTF8")) == [
        "é".encode()
    ]
