"""The lexer of literals, by example and against PostgreSQL's own reading of the same text."""

import re
from decimal import Decimal

import psycopg
import pytest
import sqlglot
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st
from psycopg.pq import ExecStatus
from sqlglot import exp

from cache.sql import templates
from cache.sql.canonical import LONG_LIST
from cache.sql.plans import Literal
from cache.sql.templates import list_slot_of, parseable, slot_of, split

LONG_INTEGERS = ", ".join(str(number) for number in range(LONG_LIST + 1))
LONG_STRINGS = ",".join(f"'{number}'" for number in range(LONG_LIST + 1))


def s(value):
    return Literal(value.encode(), "string")


def i(value):
    return Literal(str(value).encode(), "integer")


def d(value):
    return Literal(value.encode(), "decimal")


LITERALS = {
    "SELECT 'it''s'": [s("it's")],
    "SELECT ''": [s("")],
    "SELECT ''''": [s("'")],
    "SELECT 'a\\b'": [s("a\\b")],
    "SELECT 'a'\n'b'": [s("ab")],
    "SELECT 'a''' \t\r\n  '''b'": [s("a''b")],
    "SELECT 'a' -- why\n -- not\n 'b'": [s("ab")],
    "SELECT 'a' 'b'": [s("a"), s("b")],
    "SELECT 'a' -- 'b'": [s("a")],
    r"SELECT E'it\'s \\ \b\f\n\r\t\q'": [s("it's \\ \b\f\n\r\tq")],
    r"SELECT e'\101\x42\u0043\U00000044\1013'": [s("ABCDA3")],
    "SELECT E'a''b'": [s("a'b")],
    "SELECT $$it's$$": [s("it's")],
    "SELECT $$$$": [s("")],
    "SELECT $a$x $$ $b$ $a $a$": [s("x $$ $b$ $a ")],
    "SELECT $été$x$été$": [s("x")],
    "SELECT a$b, a$$b$$": [],
    "SELECT $1, $1::int, $12": [],
    "SELECT /* 'a' /* 1 */ ' */ 2": [i(2)],
    "SELECT 1 -- '": [i(1)],
    "SELECT 1--'\n+2": [i(1), i(2)],
    "SELECT 4*/*x*/2": [i(4), i(2)],
    'SELECT "a""b\'", "1"': [],
    "SELECT t1, col_2, é3, _4": [],
    "SELECT 42, 007, 99999999999999999999": [i(42), i("007"), i("99999999999999999999")],
    "SELECT 4.2, .5, 5., 1e10, 1.5E-3, 1.e+5": [d("4.2"), d(".5"), d("5."), d("1e10"), d("1.5E-3"), d("1.e+5")],
    "SELECT -1, - 2, 3-4, 5 -6": [i(1), i(2), i(3), i(4), i(5), i(6)],
    "SELECT B'101', x'1F', 5": [i(5)],
    "SELECT DATE '2020-01-01', INTERVAL'1 day', date'2020-01-01'": [s("2020-01-01"), s("1 day"), s("2020-01-01")],
    "SELECT '1'::text::int, CAST('2' AS int)": [s("1"), s("2")],
    "SELECT 1::numeric(10, 2)": [i(1)],
    "SELECT 1::numeric ( 10/**/, -2), 5": [i(1), i(5)],
    "SELECT 'x' :: /* 1 */ varchar /* 2 */ ( 3 )": [s("x")],
    "SELECT CAST('x' AS character varying (3)), 4": [s("x"), i(4)],
    "SELECT CAST('x' AS app.vector(3)), y::app.vector(3), z :: vector(3)": [s("x")],
    "SELECT timestamp(3) '2020-01-01', interval '1' second(3)": [s("2020-01-01"), s("1")],
    "SELECT coalesce(1, 2), round(x, 3), length('abc')": [i(1), i(2), i(3), s("abc")],
    "SELECT numeric(10), 2": [i(2)],
    'SELECT f(x)::vector(3), x::"a b" (4), x::int + f(5), cast((x)as bit (6))': [i(5)],
    "SELECT x AS b, (1), (VALUES (2)), x AS c, f(3), has f(4)": [i(1), i(2), i(3), i(4)],
    "SELECT x[1], x[2:3] FROM t ORDER BY 1 LIMIT 4 OFFSET 5": [i(1), i(2), i(3), i(1), i(4), i(5)],
    "SELECT x IN (1, 2) OR y IN ('a')": [i(1), i(2), s("a")],
    "SELECT a-b, a/b, u&1, U & 'x', n&2": [i(1), s("x"), i(2)],
    "SELECT a @-1, b=-1, c<>'x'": [i(1), i(1), s("x")],
    "SELECT x->>'a', x ? 'b', x#>'{c}'": [s("a"), s("b"), s("{c}")],
    "select 1": [i(1)],
    "\n\t-- first\n/* second */ (((SELECT 1)))": [i(1)],
    "WITH a AS (VALUES (1)) TABLE a": [i(1)],
    "INSERT INTO t VALUES (1, 'a'), (2, E'b')": [i(1), s("a"), i(2), s("b")],
    "UPDATE t SET a = 'x' WHERE id = 1": [s("x"), i(1)],
    "DELETE FROM t WHERE id = 1": [i(1)],
    "MERGE INTO t USING u ON t.id = 1 WHEN MATCHED THEN DO NOTHING": [i(1)],
    "EXECUTE p(1, 'a')": [i(1), s("a")],
    "FETCH FORWARD 5 FROM c": [i(5)],
    "SELECT 1; ; UPDATE t SET a = 2 ; ": [i(1), i(2)],
    f"SELECT x IN ({LONG_INTEGERS})": [Literal(b"{%s}" % LONG_INTEGERS.encode(), "integer[]")],
    f"SELECT x in( -7 , {LONG_INTEGERS} )": [Literal(b"{-7 , %s}" % LONG_INTEGERS.encode(), "integer[]")],
    f"SELECT x NOT IN ('it''s', '\"', '', 'NULL', {LONG_STRINGS})": [
        Literal(b'{"it\'s","\\"","","NULL",%s}' % LONG_STRINGS.replace("'", '"').encode(), "string[]")
    ],
}

DOUBTFUL = [
    "",
    " ",
    "SELECT 'a",
    "SELECT '",
    'SELECT "a',
    "SELECT $$a$",
    "SELECT $a$x$b$",
    "SELECT /* /* */ 1",
    "SELECT /*/ 1",
    "/* 1",
    "SELECT E'a",
    r"SELECT E'a\'",
    "SELECT E'a'\n'b'",
    r"SELECT E'\x80'",
    r"SELECT E'\377'",
    r"SELECT E'\400'",
    r"SELECT E'\0'",
    r"SELECT E'\u00e9'",
    r"SELECT E'\ud83d\ude00'",
    r"SELECT E'\v'",
    r"SELECT E'\x'",
    r"SELECT E'\u12'",
    "SELECT U&'a'",
    "SELECT u&'a' UESCAPE '!'",
    'SELECT U&"a"',
    "SELECT N'a'",
    "SELECT n'a'",
    "SELECT B'1'\n'0'",
    "SELECT X'1' -- x\n'0'",
    "SELECT X'1''0'",
    "SELECT a'x'",
    "SELECT 0x1F",
    "SELECT 0b1",
    "SELECT 1_000",
    "SELECT 123abc",
    "SELECT 1e",
    "SELECT 1.5x",
    "SELECT 1..2",
    "SELECT 1.2.3",
    "SELECT 1é",
    "SELECT 1$1",
    "SELECT $1a",
    "SELECT $",
    "SELECT \\",
    "SELECT {1}",
    "SET x = 'a'",
    "-- SELECT 1\nSET x = 'a'",
    "/* SELECT 1 */ SET x = 'a'",
    "BEGIN",
    "SELECTED 1",
    "select$ 1",
    "SELECT 1; SET search_path = 'a'",
    "SELECT 1; COMMIT PREPARED 'a'",
    "SELECT 1;; -- x\n SET a = 1",
    "SELECT set_config('search_path', 'a', false)",
    "SELECT pg_catalog.\"set_config\"('a', 'b', false), SET_CONFIG('a', 'b', true)",
    "UPDATE pg_settings SET setting = 'a'",
    'SELECT "7070707"',
    "SELECT x::numeric(7070707)",
    'SELECT 1 AS "\ue000"',
    'SELECT 1 AS "\ue001"',
    "EXPLAIN ANALYZE DELETE FROM t WHERE id = 1",
]


def must_split(text):
    """`split` of a text that leaves no doubt."""
    result = split(text)
    assert result is not None
    return result


def parse(template):
    return sqlglot.parse_one(parseable(template), dialect="postgres")


@pytest.mark.parametrize("text", LITERALS, ids=str)
def test_literals_are_found_and_read(text):
    assert list(must_split(text.encode())[1]) == LITERALS[text]


@pytest.mark.parametrize("text", DOUBTFUL, ids=str)
def test_doubtful_text_has_no_template(text):
    assert split(text.encode()) is None


def test_text_with_nul_or_beyond_the_limits_has_no_template():
    assert split(b"SELECT 1, \0") is None
    assert split(b"SELECT 1 " + b" " * templates.MAX_TEXT) is None
    assert split(b"SELECT 1" + b" " * (templates.MAX_TEXT - 8)) is not None
    assert split(b"SELECT " + b",".join([b"1"] * templates.MAX_LITERALS)) is not None
    assert split(b"SELECT " + b",".join([b"1"] * (templates.MAX_LITERALS + 1))) is None


def test_bytes_that_are_not_utf8_are_kept():
    template, literals = must_split(b"SELECT '\xff\xe9', \xe9 FROM \xfft")
    assert literals == (Literal(b"\xff\xe9", "string"),)
    assert [table.name for table in parse(template).find_all(exp.Table)] == ["\udcfft"]


def test_backslash_while_strings_do_not_conform_has_no_template():
    assert split(rb"SELECT 'a\'", conforming_strings=False) is None
    assert split(rb"SELECT E'a\n'", conforming_strings=False) is None
    assert split(b"SELECT 'a''b'", conforming_strings=False) == split(b"SELECT 'a''b'", conforming_strings=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 'a', 1", "SELECT 'it''s', 99"),
        ("SELECT 'a', 1", "SELECT $x$b$x$, 1"),
        ("SELECT 'a'", "SELECT E'\\n'"),
        ("SELECT 1 /*traceparent='00-1'*/", "SELECT 2 /*traceparent='00-2'*/"),
        ("SELECT 1.5", "SELECT 1e100"),
        (f"SELECT x IN ({LONG_INTEGERS})", f"SELECT x IN ({LONG_INTEGERS}, 4711)"),
    ],
)
def test_texts_that_differ_in_literals_share_a_template(one, other):
    assert must_split(one.encode())[0] == must_split(other.encode())[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 1", "SELECT '1'"),
        ("SELECT 1", "SELECT 1.0"),
        ("SELECT 1", "SELECT -1"),
        ("SELECT 'x'::varchar(1)", "SELECT 'x'::varchar(2)"),
        ("SELECT 'x'::varchar/**/(1)", "SELECT 'x'::varchar/**/(2)"),
        ("SELECT 1::numeric(10,1)", "SELECT 1::numeric(10,2)"),
        ("SELECT B'1'", "SELECT B'0'"),
        ("SELECT a", "SELECT b"),
        ("SELECT $1", "SELECT $2"),
        ("SELECT x IN (1, 2)", "SELECT x IN (1, 2, 3)"),
        (f"SELECT x IN ({LONG_INTEGERS})", f"SELECT x IN ({LONG_STRINGS})"),
        (f"SELECT x IN ({LONG_INTEGERS})", "SELECT x IN ('a')"),
        ("SELECT a b", "SELECT a/**/b, 1"),
    ],
)
def test_texts_that_differ_in_more_than_literals_have_other_templates(one, other):
    assert must_split(one.encode())[0] != must_split(other.encode())[0]


def test_long_list_that_does_not_follow_in_is_many_literals():
    for text in (
        f"SELECT f({LONG_INTEGERS})",
        f"INSERT INTO t VALUES ({LONG_STRINGS})",
        f'SELECT "in"({LONG_INTEGERS})',
    ):
        _, literals = must_split(text.encode())
        assert len(literals) == LONG_LIST + 1


def test_every_slot_is_recognised_in_a_parsed_template():
    text = f"SELECT 'a', 1, 2.5, -3, x IN (4, 'b'), y IN ({LONG_INTEGERS}), z IN ({LONG_STRINGS}), '9' FROM t LIMIT 10"
    template, literals = must_split(text.encode())
    tree = parse(template)
    slots, lists = {}, {}
    for literal in tree.find_all(exp.Literal):
        slot, array = slot_of(literal.this), list_slot_of(literal.this)
        assert (slot is None) != (array is None)
        if slot is not None:
            slots[slot] = literal.is_string
        if array is not None:
            lists[array] = literal
    assert sorted([*slots, *lists]) == list(range(len(literals)))
    assert all(slots[slot] == (literals[slot].kind == "string") for slot in slots)
    assert {literals[slot].kind for slot in lists} == {"integer[]", "string[]"}


def test_constant_that_the_parser_changed_is_no_slot():
    template, _ = must_split(b"SELECT x[5] FROM t")
    constants = [literal.this for literal in parse(template).find_all(exp.Literal)]
    assert [slot_of(constant) for constant in constants] == [None]  # sqlglot counts elements from 0


@pytest.mark.parametrize(
    "constant", ["", "1", "7070707", "707070700001708", "\ue000\ue000", "\ue0001", "\ue0011\ue001"]
)
def test_constant_of_the_text_itself_is_no_slot(constant):
    assert slot_of(constant) is None


@pytest.mark.parametrize(
    "hostile",
    [
        b"/*" * 30_000,
        b"'" * 60_001,
        b"''\n" * 20_000,
        b"'a'--\n" * 10_000,
        b"$a" * 30_000,
        b"$a$" * 20_001,
        b'"' * 60_001,
        b"(" * 60_000,
        b"-" * 60_000,
        b"IN (1" + b",1" * 30_000,
        b"1IN(" * 15_000,
        b"x IN(" + b"''," * 20_000,
        b"x IN (1,1,1," * 5_000,
        b"E'\\" * 20_000,
        b"a&" * 30_000,
        b"'a' \n" * 12_000,
    ],
    ids=lambda text: text[:12].decode(),
)
@pytest.mark.timeout(5)
def test_hostile_texts_are_read_in_linear_time(hostile):
    split(b"SELECT " + hostile)


# --- against PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(postgres):
    """A connection for each value of standard_conforming_strings, with a one-row table of odd column names."""
    with (
        psycopg.connect(postgres.dsn(), autocommit=True) as on,
        psycopg.connect(postgres.dsn(), autocommit=True) as off,
    ):
        for connection in (on, off):
            connection.execute("SET escape_string_warning = off; SET statement_timeout = '5s'")
            connection.execute(
                """CREATE TEMP TABLE odd ("it's" int, a$b int, t1 int, "--" text, "/*" int, "a""b" int)"""
            )
            connection.execute("INSERT INTO odd DEFAULT VALUES")
        off.execute("SET standard_conforming_strings = off")
        yield {True: on.pgconn, False: off.pgconn}


def outcome(connection, text):
    """The rows of the last result, or None for an error."""
    result = connection.exec_(text)
    if result.status in {ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE}:
        return None
    rows = range(result.ntuples)
    return [[result.get_value(row, column) for column in range(result.nfields)] for row in rows]


def rendered(template, literals):
    """Another text with the same template and literals; no quoting of it depends on a setting."""

    def constant(match):
        literal = next(values)
        match match[1]:
            case b"s":
                return b" E'" + literal.value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
            case b"t" | b"j":
                kind = b"int8[]" if match[1] == b"j" else b"text[]"
                value = literal.value.replace(b"\\", b"\\\\").replace(b"'", b"\\'")
                return b"SELECT unnest(E'" + value + b"'::" + kind + b")"
            case _:
                return literal.value

    values = iter(literals)
    return re.sub(rb"\0(.)", constant, template)


SPECIAL = "'\"\\$\n\t -/*é😀a1n;"
characters = st.text(
    st.one_of(st.sampled_from(SPECIAL), st.characters(exclude_characters="\0", codec="utf-8")), max_size=8
)
escapes = st.lists(
    st.sampled_from(
        [r"\n", r"\'", "''", r"\101", r"\x41", r"\x4", r"\7", r"\u0041", r"\\", r"\q", "a", "1", "é", "\n", '"', "$$"]
    )
).map("".join)
digits = st.from_regex(r"[0-9]{1,12}", fullmatch=True)
decimals = st.from_regex(r"(?:[0-9]{1,5}\.[0-9]{0,5}|\.[0-9]{1,5}|[0-9]{1,5})(?:[eE][+-]?[0-9]{1,2})?", fullmatch=True)
gaps = st.sampled_from(["\n", " \n ", "\n\n", "\r\n\t", " -- it's\n", "\n-- $$ /*\n--\n  ", "\n--\r"])


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def dollars(text):
    return next(f"{tag}{text}{tag}" for tag in ("$$", "$a$", "$tag_1$", "$é$") if tag not in text + tag[:-1])


# Elements of a SELECT list: each is one column, and its text holds one literal or none.
literal_elements = st.one_of(
    characters.map(quoted),
    st.lists(characters.map(quoted), min_size=2, max_size=3).flatmap(
        lambda parts: gaps.map(lambda gap: gap.join(parts))
    ),
    escapes.map("E'{}'".format),
    escapes.map("e'{}'".format),
    characters.map(dollars),
    digits,
    decimals,
)
decorations = st.sampled_from(
    [
        "{}",
        "{} AS a1",
        '{} AS "it\'s"',
        "({})",
        "( {} )",
        "/*'*/ {}",
        "{} -- it's\n",
        "{}/* /* ' */ $$ */",
        "({})::text",
    ]
)
plain_elements = st.sampled_from(
    [
        '"it\'s"',
        "a$b",
        "t1",
        '"--"',
        '"/*"',
        'odd."a""b"',
        "odd.t1",
        "null",
        "B'101'",
        "x'1F'",
        "current_user",
        "t1/**/",
        "- t1",
    ]
)
elements = st.one_of(
    st.tuples(literal_elements, decorations).map(lambda pair: (pair[1].format(pair[0]), True)),
    plain_elements.map(lambda text: (text, False)),
)
separators = st.sampled_from([", ", ",", ",\n", " ,--'\n", "/* ' */,", ",/* /* \" */ ' */ ", ",\n-- $a$\n"])


@given(st.lists(elements, min_size=1, max_size=6), separators, st.booleans())
@settings(max_examples=300, deadline=None)
def test_literals_are_what_the_server_reads(servers, columns, separator, conforming):
    text = f"SELECT {separator.join(text for text, _ in columns)} FROM odd".encode()
    result = split(text, conforming)
    event("doubt" if result is None else "template")
    if result is None:
        reject()
    template, literals = result
    rows = outcome(servers[conforming], text)
    if rows is None:
        return
    values = [value for value, (_, literal) in zip(rows[0], columns, strict=True) if literal]
    for value, literal in zip(values, literals, strict=True):
        if literal.kind == "string":
            assert value == literal.value
        else:
            assert Decimal(value.decode()) == Decimal(literal.value.decode())
            assert (literal.kind == "integer") == literal.value.isdigit()
    assert outcome(servers[conforming], rendered(template, literals)) == rows


SOUP = [
    *(
        "'",
        "''",
        "' '",
        "'\n'",
        "'a'",
        "\\",
        "\\'",
        "E'",
        "e'",
        "U&'",
        "U&",
        "N'",
        "B'1'",
        "x'",
        "$",
        "$$",
        "$a$",
        "$1",
    ),
    *(
        '"',
        '""',
        '"a"',
        "--",
        "\n",
        "/*",
        "*/",
        "/",
        "*",
        "-",
        "+",
        " ",
        " ",
        "  ",
        "a",
        "t1",
        "1",
        "42",
        ".",
        "e",
        "1e5",
    ),
    *("_", "0x1F", ",", "(", ")", "[", "]", "::text", "::", " IN (", " AS ", "::varchar(", "numeric(", "(1)", "(2,3)"),
    *("||", "é", "&", ";", "SELECT ", "SET ", "\t", "\r", "NULL", "=", "''--\n", "1,"),
]


@given(st.lists(st.sampled_from(SOUP), min_size=1, max_size=12).map("".join), st.booleans())
@settings(max_examples=1500, deadline=None)
def test_template_and_literals_mean_what_the_text_means(servers, soup, conforming):
    text = f"SELECT {soup}".encode()
    result = split(text, conforming)
    event("doubt" if result is None else "template")
    if result is None:
        reject()
    before = outcome(servers[conforming], text)
    event("error" if before is None else "rows")
    assert outcome(servers[conforming], rendered(*result)) == before


@given(
    st.lists(characters, min_size=LONG_LIST + 1, max_size=LONG_LIST + 4),
    st.lists(st.integers(-(2**31), 2**31), min_size=LONG_LIST + 1, max_size=LONG_LIST + 4),
)
@settings(max_examples=50, deadline=None)
def test_a_long_list_is_an_array_of_the_same_elements(servers, strings, numbers):
    lists = (", ".join(quoted(text) for text in strings), ", ".join(str(number) for number in numbers))
    for elements, kind, expected in zip(lists, ("string[]", "integer[]"), (strings, numbers), strict=True):
        result = split(f"SELECT x IN ({elements})".encode())
        assert result is not None
        if any("\\" in text for text in strings) and kind == "string[]":
            assert len(result[1]) == len(strings)
            continue
        (literal,) = result[1]
        assert literal.kind == kind
        rows = outcome(
            servers[True],
            b"SELECT unnest(E'" + literal.value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'::text[])",
        )
        assert rows == [[str(element).encode()] for element in expected]


@given(st.lists(elements, min_size=1, max_size=6), st.data())
@settings(max_examples=100, deadline=None)
def test_other_literals_of_the_same_classes_have_the_same_template(columns, data):
    result = split(f"SELECT {', '.join(text for text, _ in columns)} FROM odd".encode())
    if result is None:
        reject()
    template, literals = result
    strategies = {"string": characters, "integer": digits, "decimal": st.just("1.5")}
    others = tuple(Literal(data.draw(strategies[literal.kind]).encode(), literal.kind) for literal in literals)
    rest = iter(others)
    text = re.sub(rb"\0(.)", lambda _: quoted_or_plain(next(rest)), template)
    assert split(text) == (template, others)


def quoted_or_plain(literal):
    return quoted(literal.value.decode()).encode() if literal.kind == "string" else literal.value
