"""Arguments: the canonical text of a plan's operands, from literals and parameters of one execution."""

from __future__ import annotations

from struct import pack

import pytest

from cache.capture.arguments import Arguments
from cache.sql.plans import Literal, Operand, OperandSource
from cache.values.loading import CANONICAL
from tests.cache.catalogs import USERS, plans

KEY = USERS.bound[0].key[0]
"""The column ``id``, an integer."""
INT4_ARRAY = 1007


def parameter(index=0, **facts):
    return Operand(OperandSource.PARAMETER, index, **facts)


@pytest.mark.parametrize(
    ("raw", "formats", "types", "text"),
    [
        (b"07", (), (), b"7"),
        (b"7", (0,), (23,), b"7"),
        (pack("!i", 7), (1,), (23,), b"7"),
        (pack("!q", 7), (1,), (20,), b"7"),
        (pack("!q", 7), (1,), (23,), None),
        (b"x", (), (), None),
        (None, (), (), None),
    ],
    ids=["text", "text of a declared type", "binary", "binary bigint", "binary of another size", "no integer", "NULL"],
)
def test_parameter_has_the_text_the_server_reads_or_none(raw, formats, types, text):
    arguments = Arguments((), [raw], formats, types, settings=CANONICAL)
    assert arguments.text(KEY, parameter()) == text


def test_each_parameter_has_the_format_code_in_its_place():
    arguments = Arguments((), [b"7", pack("!i", 8)], [0, 1], [23, 23], settings=CANONICAL)
    assert [arguments.text(KEY, parameter(index)) for index in (0, 1)] == [b"7", b"8"]


def test_one_format_code_is_for_all_parameters():
    arguments = Arguments((), [pack("!i", 7), pack("!i", 8)], [1], [23, 23], settings=CANONICAL)
    assert [arguments.text(KEY, parameter(index)) for index in (0, 1)] == [b"7", b"8"]


def test_parameter_without_a_format_code_is_not_certain():
    """Bind had two format codes for three parameters: the server refuses it, so what was meant does not matter."""
    arguments = Arguments((), [b"7", b"8", b"9"], [0, 0])
    assert arguments.text(KEY, parameter(2)) is None
    assert arguments.array(KEY, parameter(2)) is None


def test_parameter_that_was_not_sent_is_not_certain():
    assert Arguments((), [b"7"]).text(KEY, parameter(1)) is None


@pytest.mark.parametrize(
    ("operand", "null"),
    [
        (parameter(0), False),
        (parameter(1), True),
        (parameter(2), False),
        (Operand(OperandSource.NULL), True),
        (Operand(OperandSource.TRUE), False),
    ],
    ids=["value", "NULL parameter", "parameter that was not sent", "NULL", "TRUE"],
)
def test_only_what_is_certainly_null_is_null(operand, null):
    assert Arguments((), [b"7", None], [0, 0]).is_null(operand) is null


@pytest.mark.parametrize(
    ("raw", "formats", "types", "texts"),
    [
        (b"{1,NULL,2}", (), (), [b"1", b"2"]),
        (b"{1,x}", (), (), None),
        (pack("!iiIii", 1, 0, 23, 1, 1) + pack("!ii", 4, 7), (1,), (INT4_ARRAY,), [b"7"]),
        (None, (), (), []),
    ],
    ids=["text", "element that is no integer", "binary", "NULL"],
)
def test_array_parameter_has_the_texts_of_its_elements(raw, formats, types, texts):
    arguments = Arguments((), [raw], formats, types, settings=CANONICAL)
    assert arguments.array(KEY, parameter()) == texts


def test_array_literal_has_the_texts_of_its_elements():
    arguments = Arguments((Literal(b"{1,2}", "string"),))
    assert arguments.array(KEY, Operand(OperandSource.LITERAL, 0)) == [b"1", b"2"]


def test_keyword_is_no_array():
    assert Arguments(()).array(KEY, Operand(OperandSource.NULL)) is None


def test_parameters_of_a_prepared_statement_are_the_arguments_of_execute():
    (execute,), literals = plans("EXECUTE p (7, NULL)")
    inner = Arguments((), outer=(Arguments(literals, settings=CANONICAL), execute.arguments))
    assert inner.text(KEY, parameter(0)) == b"7"
    assert inner.text(KEY, parameter(1)) is None
    assert not inner.is_null(parameter(0))
    assert inner.is_null(parameter(1))


def test_argument_of_execute_that_is_missing_or_cast_is_not_certain():
    (execute,), literals = plans("EXECUTE p (7::bigint)")
    inner = Arguments((), outer=(Arguments(literals, settings=CANONICAL), execute.arguments))
    assert inner.text(KEY, parameter(0)) is None
    assert inner.text(KEY, parameter(1)) is None
    assert not inner.is_null(parameter(1))


def test_array_argument_of_execute_is_not_certain():
    (execute,), literals = plans("EXECUTE p ('{7}')")
    inner = Arguments((), outer=(Arguments(literals, settings=CANONICAL), execute.arguments))
    assert inner.array(KEY, parameter(0)) is None
