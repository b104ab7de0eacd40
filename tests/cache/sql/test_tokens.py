"""The parts of commands: names, strings, lists, constants, declared types."""

import pytest

from cache.sql import canonical, lexer, tokens
from cache.sql.plans import Operand, OperandSource
from cache.sql.statements import Name, UnreadError


def tokenize(text):
    return canonical.number_literals(lexer.tokenize(text))[0]


def test_words_and_marks_are_found_at_their_position():
    found = tokenize("a, (b")
    assert tokens.is_at(found, 1, ",", "(")
    assert not tokens.is_at(found, 3, "b", "c"), "beyond the end"
    assert not tokens.is_at(tokenize('"a"'), 0, "a"), "a quoted identifier is no key word"


@pytest.mark.parametrize(
    ("text", "name", "end"),
    [
        ("users x", Name(None, "users"), 1),
        ('app."Users"', Name("app", "Users"), 3),
        ("db.app.users (", Name("app", "users"), 5),
    ],
)
def test_qualified_name_ends_where_its_dots_do(text, name, end):
    assert tokens.qualified_name(tokenize(text), 0) == (name, end)


def test_name_or_string_that_is_another_token_is_unread():
    with pytest.raises(UnreadError):
        tokens.identifier(tokenize("1")[0])
    with pytest.raises(UnreadError):
        tokens.string(tokenize("x"), 0)


def test_string_whose_value_is_not_certain_is_none():
    assert tokens.string(tokenize("'x'"), 0) == "x"
    assert tokens.string(tokenize(r"E'\xe9'"), 0) is None


def test_lists_are_split_at_commas_outside_of_parentheses_and_brackets():
    parts = tokens.split_at_commas(tokenize("1, f(2, 3), ARRAY[4, 5], "))
    assert [len(part) for part in parts] == [1, 6, 6, 0]


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("1", Operand(OperandSource.LITERAL, 0)),
        ("-1", Operand(OperandSource.LITERAL, 0, negative=True)),
        ("'x'", Operand(OperandSource.LITERAL, 0)),
        ("$2", Operand(OperandSource.PARAMETER, 1)),
        ("null", Operand(OperandSource.NULL)),
        ("true", Operand(OperandSource.TRUE)),
        ("false", Operand(OperandSource.FALSE)),
        ("x", None),
        ("-$1", None),
        ("1 + 1", None),
        ("0x1F", None),
        ("N'x'", None),
        ("", None),
    ],
)
def test_plain_constants_are_operands(text, operand):
    assert tokens.constant(tokenize(text)) == operand


def test_declared_types_have_the_names_of_casts():
    declared = "int, integer[], character varying, varchar(3), numeric(10, 2), unknown, app.mood, bool"
    names = ("int4", "int4[]", "varchar", "", "", "unknown", "", "bool")
    assert tokens.type_names(tokenize(declared)) == names
