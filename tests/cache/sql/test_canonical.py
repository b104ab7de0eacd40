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
def test_tokens_are_rendered_as_the_parser_needs_them(text, expected):
    assert written(text) == expected


def test_identifier_with_the_call_prefix_is_refused():
    with pytest.raises(LexicalError):
        written(f'"{CALL_PREFIX}f" (1)')


def test_long_list_of_one_kind_is_one_literal():
    tokens, literals = canonical.number_literals(lexer.tokenize("IN (" + "1, -2, " * 10 + "3)"))
    assert literals == (Literal(b"{" + b"1,-2," * 10 + b"3}", "integer[]"),)
    assert canonical.render_for_parser(tokens) == "in ( 'L0' )"
    _, mixed = canonical.number_literals(lexer.tokenize("IN (" + "1, 'a', " * 10 + "3)"))
    assert len(mixed) == 21


def test_rows_beyond_the_first_are_left_out_if_all_are_constants():
    plain = lexer.tokenize("INSERT INTO t VALUES " + ", ".join(["(1, 'a', DEFAULT, $1::int)"] * 100) + " RETURNING a")
    shorter = canonical.shortened(plain)
    assert shorter is not None
    assert len(shorter) < len(plain)
    assert shorter[-1].text == "a"
    calls = lexer.tokenize("INSERT INTO t VALUES " + ", ".join(["(f(1), 'a')"] * 100))
    assert canonical.shortened(calls) is None


def test_depth_counts_nesting_and_prefix_operators():
    assert canonical.depth(lexer.tokenize("((a)) + (b)")) == 2
    assert canonical.depth(lexer.tokenize("a" + "[1]" * 100)) > canonical.MAX_DEPTH
    assert canonical.depth(lexer.tokenize("ARRAY" + "[" * 9 + "]" * 9)) > canonical.MAX_DEPTH
    assert canonical.depth(lexer.tokenize("NOT " * 100)) == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval '1' day, day", "interval '0' day , \"day\""),
        ("FROM ROWS FROM (f(1))", 'from rows from ( "^f" ( 0 ) )'),
        ("FROM rows", 'from "rows"'),
        ("FROM t TABLESAMPLE system (5) WHERE a", 'from "t" where "a"'),
        ("AT TIME ZONE 'UTC', AT LOCAL", "at time zone '0' , at local"),
        ("current_date - 1 @ 2", "current_date - 0 <-> 1"),
        ("a::\"Int4\", time '12:00'", '"a" :: "^Int4" , time \'0\''),
    ],
)
def test_words_are_key_words_only_where_the_grammar_has_them(text, expected):
    assert written(text) == expected


def test_two_dots_outside_of_a_routine_are_refused():
    with pytest.raises(LexicalError):
        written("SELECT 1..2")


@pytest.mark.parametrize("rest", ["", "1", "1,", "1;", "1::int)", "- a)", "1, 'a')", "x)", ")"])
def test_list_that_does_not_end_as_a_list_of_constants_is_none(rest):
    """Sixteen elements and then what makes it another thing: each constant is a literal of its own."""
    start = "IN (" + "1, " * 16
    tokens, literals = canonical.number_literals(lexer.tokenize(start + rest))
    assert [literal.kind for literal in literals][:16] == ["integer"] * 16
    assert not any(token.is_list for token in tokens)


def test_only_rows_of_constants_that_end_are_left_out():
    rows = ", ".join(["(1, 'a')"] * 100)
    assert is_shortened(f"INSERT INTO t VALUES {rows}")
    assert is_shortened(f"INSERT INTO t VALUES {rows},"), "the parser refuses it later"
    assert not is_shortened(f"INSERT INTO t VALUES {rows.removesuffix(')')}")
    assert not is_shortened("INSERT INTO t VALUES " + "a " * 300)
    assert not is_shortened(f"INSERT INTO t SELECT {'a, ' * 300} b")


def is_shortened(text):
    return canonical.shortened(lexer.tokenize(text)) is not None
