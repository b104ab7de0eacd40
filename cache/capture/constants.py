"""Constants of a statement as column texts: exactly what PostgreSQL will store and print, or None where not certain.

The same answer serves a value that is assigned to a column and a key that a column is compared with: a constant is
only read where its type and the column's are of one family, in which equal means same text. Everything else (numeric,
floats, char(n), citext, timestamps, jsonb, implicit casts) is None: it costs a key where a guess could cost the truth.

A parameter whose type was left to the server (``declared_oid`` 0) is taken to have the type of its operand: the caller
must know that this is its only occurrence in the statement, or pass the type that ParameterDescription told.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from cache import builtin_types as t
from cache.builtin_types import Family, family_of_name, family_of_type
from cache.sql.plans import OperandSource
from cache.values.containers import binary_elements
from cache.values.encodings import input_loader
from cache.values.loading import CANONICAL

if TYPE_CHECKING:
    from cache.catalog.tables import Column
    from cache.sql.plans import Literal, Operand
    from cache.values.loading import ValueSettings

MAX_ELEMENTS = 10_000
"""Arrays longer than this are not read."""

_SIZES = {row.oid: row.size for row in t.TABLE if row.size}
"""Bytes of the integer types in binary format."""
_DECIMAL_INTEGER = re.compile(rb"[ \t\n\v\f\r]*([+-]?[0-9]{1,40})[ \t\n\v\f\r]*")
_UUID_INPUT = re.compile(rb"(\{)?((?:[0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4})(?(1)\})")
_SPACE = b" \t\n\v\f\r"
_BOOLEANS = {
    **dict.fromkeys((b"t", b"tr", b"tru", b"true", b"y", b"ye", b"yes", b"on", b"1"), b"t"),
    **dict.fromkeys((b"f", b"fa", b"fal", b"fals", b"false", b"n", b"no", b"of", b"off", b"0"), b"f"),
}
_ELEMENT = re.compile(rb'(?:[ \t\n\v\f\r]*"((?:[^"\\]|\\.)*)"[ \t\n\v\f\r]*|([^{}",\\]+))(,|\Z)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_VARHDRSZ = 4
"""What atttypmod of varchar(n) is beyond n."""


def literal_text(
    column: Column, literal: Literal, operand: Operand, settings: ValueSettings | None = None
) -> bytes | None:
    """The text of ``column`` that a literal of the statement stands for.

    ``settings`` are the session's; without them only ASCII text is certain.
    """
    family = _family(column)
    if family is None or not _cast_agrees(operand, family):
        return None
    if literal.kind == "string" and not operand.negative:
        return _input(column, family, literal.value, settings)
    if literal.kind == "integer" and family is Family.INTEGER and len(literal.value) <= 40 and literal.value.isdigit():
        number = int(literal.value)
        return _in_range(column, -number if operand.negative else number)
    return None


def keyword_text(column: Column, operand: Operand) -> bytes | None:
    """The text of ``column`` that TRUE or FALSE stands for. NULL has none; None then says so too."""
    if _family(column) is not Family.BOOL or not _cast_agrees(operand, Family.BOOL):
        return None
    return {OperandSource.TRUE: b"t", OperandSource.FALSE: b"f"}.get(operand.source)


def parameter_text(
    column: Column,
    raw: bytes,
    format: int,  # noqa: A002  PostgreSQL's word
    declared_oid: int,
    operand: Operand,
    settings: ValueSettings | None = None,
) -> bytes | None:
    """The text of ``column`` that a parameter which is not NULL stands for.

    ``format`` is its format code; ``declared_oid`` its type as Parse or, better, ParameterDescription has it.
    """
    family = _family(column)
    if family is None or operand.negative or not _cast_agrees(operand, family):
        return None
    source = _source_type(column, declared_oid, operand)
    if format == 0 and _accepts(source, column, family, operand):
        return _input(column, family, raw, settings)
    if format == 1 and _accepts(source, column, family, operand):
        return _received(column, family, source, raw, settings)
    return None


def array_texts(
    column: Column,
    raw: bytes,
    format: int,  # noqa: A002  PostgreSQL's word
    declared_oid: int,
    operand: Operand,
    settings: ValueSettings | None = None,
) -> list[bytes] | None:
    """The texts of ``column`` among the elements of ``= ANY(operand)``; NULL elements, equal to nothing, left out.

    None when one of them is not certain, when there are more than MAX_ELEMENTS, or when the array is not a plain list.
    """
    family = _family(column)
    scalar = _element_operand(operand)
    if family is None or scalar is None or operand.negative or not _cast_agrees(scalar, family):
        return None
    if declared_oid in (0, t.UNKNOWN):
        declared_element = 0
    elif declared_oid in t.ARRAYS:
        declared_element = t.ARRAYS[declared_oid]
    else:
        return None
    if format == 0:
        # As a whole: in some encodings a brace or a backslash can be half of a character.
        text = _utf8(raw, settings)
        elements = None if text is None else _array_elements(text)
        settings = CANONICAL
    elif format == 1:
        # The server insists that the element type within is the parameter's.
        declared_element, elements = _binary_array_elements(raw)
    else:
        return None
    if elements is None:
        return None
    texts: list[bytes] = []
    for element in elements:
        text = parameter_text(column, element, format, declared_element, scalar, settings)
        if text is None:
            return None
        texts.append(text)
    return texts


def array_literal_texts(
    column: Column, literal: Literal, operand: Operand, settings: ValueSettings | None = None
) -> list[bytes] | None:
    """``array_texts`` for a literal: ``= ANY('{1,2}')``, or a list of literals of one kind, ``IN (1, 2, …)``."""
    if literal.kind == "string" or (literal.kind == "string[]" and operand.cast is None):
        return array_texts(column, literal.value, 0, 0, operand, settings)
    if literal.kind == "integer[]" and operand.cast is None and _family(column) is Family.INTEGER:
        return array_texts(column, literal.value, 0, 0, operand, settings)
    return None


def _family(column: Column) -> Family | None:
    """What kind of constants can be certain for ``column``; None for most types."""
    oid = column.base_oid or column.type_oid
    is_domain = column.type_kind == "d"
    if (column.base_kind if is_domain else column.type_kind) == "e":
        return Family.ENUM
    if is_domain and oid == t.VARCHAR:
        return None  # the domain's length limit is not known
    if not column.deterministic:
        return None  # equal need not be same text
    return family_of_type(oid)


def _cast_agrees(operand: Operand, family: Family) -> bool:
    return operand.cast is None or family_of_name(operand.cast) is family


def _source_type(column: Column, declared_oid: int, operand: Operand) -> int:
    """The type the server reads a parameter as."""
    own = column.base_oid or column.type_oid
    if declared_oid in (0, t.UNKNOWN):
        return own if operand.cast is None else t.CONSTANT_TYPES[operand.cast].oid
    return own if declared_oid == column.type_oid else declared_oid


def _accepts(source: int, column: Column, family: Family, operand: Operand) -> bool:
    """Whether a parameter of type ``source`` becomes the column's text without a cast that could change it."""
    if source == (column.base_oid or column.type_oid):
        return True
    found = family_of_type(source)
    # Text under an explicit cast is read by the type's own input function, as a literal is.
    return found is family or (found is Family.TEXT and operand.cast is not None)


def _input(column: Column, family: Family, raw: bytes, settings: ValueSettings | None) -> bytes | None:
    """What the column's input function makes of ``raw``."""
    if family is Family.INTEGER:
        match = _DECIMAL_INTEGER.fullmatch(raw)
        return _in_range(column, int(match[1])) if match else None
    if family is Family.BOOL:
        return _BOOLEANS.get(raw.strip(_SPACE).lower())
    if family is Family.UUID:
        found = _UUID_INPUT.fullmatch(raw)
        return _hyphenated(found[2].replace(b"-", b"").lower()) if found else None
    return _encoded(column, raw, settings)


def _received(column: Column, family: Family, source: int, raw: bytes, settings: ValueSettings | None) -> bytes | None:
    """What the receive function of type ``source`` makes of ``raw``."""
    if source in _SIZES:
        return _in_range(column, int.from_bytes(raw, signed=True)) if len(raw) == _SIZES[source] else None
    if source == t.BOOL:
        return (b"f" if raw == b"\0" else b"t") if len(raw) == 1 else None
    if source == t.UUID:
        return _hyphenated(raw.hex().encode()) if len(raw) == 16 else None
    return _input(column, family, raw, settings)


def _in_range(column: Column, number: int) -> bytes | None:
    limit = 1 << (8 * _SIZES[column.base_oid or column.type_oid] - 1)
    return b"%d" % number if -limit <= number < limit else None


def _hyphenated(digits: bytes) -> bytes:
    return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _encoded(column: Column, raw: bytes, settings: ValueSettings | None) -> bytes | None:
    """``raw`` in UTF-8, if it is certain what it means and it fits the column."""
    text = _utf8(raw, settings)
    if text is None or b"\0" in text:
        return None
    if (column.base_oid or column.type_oid) == t.VARCHAR and column.type_modifier >= _VARHDRSZ:
        try:
            length = len(text.decode())
        except UnicodeDecodeError:
            return None
        if length > column.type_modifier - _VARHDRSZ:
            return None
    return text


def _utf8(raw: bytes, settings: ValueSettings | None) -> bytes | None:
    if settings is None:
        return raw if raw.isascii() else None
    load = input_loader(settings)
    return None if isinstance(load, str) else load(raw)


def _element_operand(operand: Operand) -> Operand | None:
    """``operand`` with its cast to an array type ("int4[]", "_int4") as one to the element type."""
    if operand.cast is None:
        return operand
    if operand.cast.endswith("[]"):
        cast = operand.cast.removesuffix("[]")
    elif operand.cast.startswith("_"):
        cast = operand.cast[1:]
    else:
        return None
    return type(operand)(operand.source, operand.index, operand.negative, cast)


def _array_elements(raw: bytes) -> list[bytes] | None:
    """The elements of a one-dimensional array in text format that are not NULL."""
    raw = raw.strip(_SPACE)
    if not (raw.startswith(b"{") and raw.endswith(b"}")) or raw.count(b",") >= MAX_ELEMENTS:
        return None
    elements: list[bytes] = []
    position, end = 1, len(raw) - 1
    if not raw[position:end].strip(_SPACE):
        return elements
    while True:
        match = _ELEMENT.match(raw, position, end)
        if match is None:
            return None
        quoted, plain, separator = match.groups()
        if quoted is not None:
            elements.append(_ESCAPE.sub(rb"\1", quoted))
        elif not (plain := plain.strip(_SPACE)):
            return None
        elif plain.upper() != b"NULL":
            elements.append(plain)
        position = match.end()
        if not separator:
            return elements


def _binary_array_elements(raw: bytes) -> tuple[int, list[bytes] | None]:
    """The element type of a one-dimensional array in binary format, and the elements that are not NULL."""
    try:
        element_type, dimensions, elements = binary_elements(raw)
    except (ValueError, struct.error):
        return 0, None
    if len(dimensions) > 1 or len(elements) > MAX_ELEMENTS:
        return 0, None
    return element_type, [element for element in elements if element is not None]
