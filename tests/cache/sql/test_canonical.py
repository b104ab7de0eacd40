"""Tokens as text for the parser."""

import pytest

from cache.sql import canonical, lexer
from cache.sql.canonical import CALL_PREFIX
from cache.sql.lexer import LexicalError
from cache.sql.plans import Literal


def written(text):
    tokens, _ = canonical.number_literals(lexer.tokenize(text))
    return canonical.render_for_parser(canonical.simplified(tokens)).replace(CALL_PREFIX, "^")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT Glob, final FROM semi sample", 'select "glob" , "final" from "semi" "sample"'),
        ("SELECT key, value, position, timestamp", 'select "key" , "value" , "position" , "timestamp"'),
        ("FOR NO KEY UPDATE", "for no key update"),
        ("lower(a), left(a, 5), t.f (1)", '"^lower" ( "a" ) , "^left" ( "a" , 0 ) , "t" . "^f" ( 1 )'),
        ("a->'b' @> c == d = e", '"a" <-> \'0\' <-> "c" <-> "d" = "e"'),
        ("@ a = ~ 5", '~ "a" = ~ 0'),
        ("date '2020-01-01'", "'0' :: date"),
        ("mine '5'", "'0' :: \"^mine\""),
        ("a::string, CAST(b AS string)", '"a" :: "^string" , cast ( "b" as "^string" )'),
        ("SELECT 1 AS int8, 2 AS select", 'select 0 as "int8" , 1 as select'),
        ("c::timestamp with time zone", '"c" :: timestamp'),
        ("WHERE CURRENT OF c", 'where "^current of" ( )'),
        ("a OPERATOR(s.+) b", '"a" <-> "b"'),
        ("FROM ONLY (t) TABLESAMPLE system (5) REPEATABLE (1)", 'from only "t"'),
        ("B'1' || N'x'", "'x' :: \"^bit\" <-> 'x' :: \"^bpchar\""),
    ],
)
def test_write(text, expected):
    assert written(text) == expected


def test_forged_marks_are_refused():
    with pytest.raises(LexicalError):
        written(f'"{CALL_PREFIX}f" (1)')


def test_long_lists_are_one_literal():
    tokens, literals = canonical.number_literals(lexer.tokenize("IN (" + "1, -2, " * 10 + "3)"))
    assert literals == (Literal(b"{" + b"1,-2," * 10 + b"3}", "integer[]"),)
    assert canonical.render_for_parser(tokens) == "in ( 'L0' )"
    _, mixed = canonical.number_literals(lexer.tokenize("IN (" + "1, 'a', " * 10 + "3)"))
    assert len(mixed) == 21


def test_rows_of_other_than_constants_are_kept():
    plain = lexer.tokenize("INSERT INTO t VALUES " + ", ".join(["(1, 'a', DEFAULT, $1::int)"] * 100) + " RETURNING a")
    shorter = canonical.shortened(plain)
    assert shorter is not None
    assert len(shorter) < len(plain)
    assert shorter[-1].text == "a"
    calls = lexer.tokenize("INSERT INTO t VALUES " + ", ".join(["(f(1), 'a')"] * 100))
    assert canonical.shortened(calls) is None


def test_depth():
    assert canonical.depth(lexer.tokenize("((a)) + (b)")) == 2
    assert canonical.depth(lexer.tokenize("a" + "[1]" * 100)) > canonical.MAX_DEPTH
    assert canonical.depth(lexer.tokenize("ARRAY" + "[" * 9 + "]" * 9)) > canonical.MAX_DEPTH
    assert canonical.depth(lexer.tokenize("NOT " * 100)) == 100
