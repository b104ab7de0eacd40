"""Lexemes as PostgreSQL reads them."""

import pytest

from cache.sql import lexer
from cache.sql.lexer import BIT_STRING, MARK, NAME, NUMBER, OPERATOR, PARAMETER, STRING, WORD, LexicalError


def read(text, conforming=True):
    return [(token.kind, token.text) for token in lexer.tokenize(text, conforming)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT Ünï_1$", [(WORD, "select"), (WORD, "Ünï_1$")]),
        ('"A""b"', [(NAME, 'A"b')]),
        (r'U&"d\0061t\+000061"', [(NAME, "data")]),
        (r"""U&"d!0061t!!" UESCAPE '!'""", [(NAME, "dat!")]),
        ("""U&"d!0061" --\n/* ' */uescape/**/\n'!' x""", [(NAME, "da"), (WORD, "x")]),
        ('U&"d" uescaped', [(NAME, "d"), (WORD, "uescaped")]),
        ("a.b", [(WORD, "a"), (MARK, "."), (WORD, "b")]),
        ("1.5 .5 5. 1e-3", [(NUMBER, "1.5"), (NUMBER, ".5"), (NUMBER, "5."), (NUMBER, "1e-3")]),
        ("1..2", [(NUMBER, "1"), (MARK, ".."), (NUMBER, "2")]),
        ("$1::int", [(PARAMETER, "1"), (MARK, "::"), (WORD, "int")]),
        ("a*-1", [(WORD, "a"), (OPERATOR, "*"), (OPERATOR, "-"), (NUMBER, "1")]),
        ("a@-1", [(WORD, "a"), (OPERATOR, "@-"), (NUMBER, "1")]),
        ("a--1\n+b", [(WORD, "a"), (OPERATOR, "+"), (WORD, "b")]),
        ("a+/*x*/b", [(WORD, "a"), (OPERATOR, "+"), (WORD, "b")]),
        ("a!=b", [(WORD, "a"), (OPERATOR, "<>"), (WORD, "b")]),
        ("a=>b", [(WORD, "a"), (MARK, "=>"), (WORD, "b")]),
        ("a=>/*c*/b", [(WORD, "a"), (MARK, "=>"), (WORD, "b")]),
        ("a=>--c\nb", [(WORD, "a"), (MARK, "=>"), (WORD, "b")]),
        ("a=>>b", [(WORD, "a"), (OPERATOR, "=>>"), (WORD, "b")]),
        ("/* a /* b */ ' */ c", [(WORD, "c")]),
        ("B'01' X'fF'", [(BIT_STRING, "01"), (BIT_STRING, "fF")]),
        ("'a''b'", [(STRING, "a'b")]),
        ("'a'\n--c\n'b'", [(STRING, "ab")]),
        ("$a$ $b$ $a$", [(STRING, " $b$ ")]),
        ("e'a' n'b'", [(STRING, "a"), (STRING, "b")]),
        (r"E'\\\'\b\f\n\r\t\q'", [(STRING, "\\'\b\f\n\r\tq")]),
        ("some_e'x'", [(WORD, "some_e"), (STRING, "x")]),
    ],
)
def test_text_is_cut_into_the_servers_lexemes(text, expected):
    assert read(text) == expected


def test_identifier_is_truncated_to_63_bytes():
    assert read("A" * 70) == [(WORD, "a" * 63)]
    assert read('"' + "é" * 40 + '"') == [(NAME, "é" * 31)]


@pytest.mark.parametrize(
    "text",
    [
        *[
            "'",
            '"',
            '""',
            "$$",
            "$a$ $A$",
            "/*",
            "/* /* */",
            "1a",
            "0x",
            "1_",
            "$1a",
            "E'\\'",
            "'a' 'b",
            "a\0",
            "'\0'",
            "X'\\'",
        ],
        *[
            """U&"a" UESCAPE E'!'""",
            "U&'a' UESCAPE '!'\n'!'",
            "U&'a' UESCAPE '!!'",
            "U&'a' UESCAPE",
            "1\u0661",
            "$1\u0661",
        ],
        *["E'\\u12'", 'U&"\\12"', 'U&"\\D800"', "U&'a' UESCAPE '+'", "B'1'\n'0'"],
    ],
)
def test_text_the_server_refuses_or_reads_by_version_is_refused(text):
    with pytest.raises(LexicalError):
        lexer.tokenize(text)


def test_backslashes_escape_while_strings_do_not_conform():
    assert read(r"'a\'b'", conforming=False) == [(STRING, "a'b")]
    assert read(r"'\'' 'x'", conforming=False) == [(STRING, "'"), (STRING, "x")]
    with pytest.raises(LexicalError):
        lexer.tokenize("U&'a'", conforming_strings=False)


def test_text_with_too_many_lexemes_is_refused():
    with pytest.raises(LexicalError):
        lexer.tokenize("a " * (lexer.MAX_TOKENS + 1))


ROUTINE = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC"


@pytest.mark.parametrize(
    "text",
    [
        f"{ROUTINE} SELECT 1; DELETE FROM other; END",
        f"{ROUTINE} SELECT CASE WHEN true THEN 1 END; END",
        f"{ROUTINE} SELECT 1 AS case; END",
        f"{ROUTINE} SELECT 1 AS end; SELECT o.end FROM other o; SELECT o.atomic end FROM other o; END",
        f"{ROUTINE} ; END",
        f"{ROUTINE} END",
        "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC DELETE FROM other; END",
        "CREATE TABLE t (begin atomic)",
        "CREATE VIEW v AS SELECT begin atomic FROM other",
        "CREATE FUNCTION f(begin atomic) RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2'",
        "CREATE RULE r AS ON UPDATE TO t DO (DELETE FROM a; DELETE FROM b)",
    ],
)
def test_semicolons_in_a_routine_end_no_statement_and_all_others_do(text):
    found = lexer.split_statements(lexer.tokenize(f"SELECT 1; {text}; DELETE FROM users"))
    assert found[1] == lexer.tokenize(text)
    assert [statement[0].text for statement in found] == ["select", "create", "delete"]
