"""Text search types in binary format, printed as PostgreSQL prints them. Lexemes are in the session's encoding."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cache.values.loading import Loader

_COUNT = struct.Struct("!I")
_SHORT = struct.Struct("!H")
_WEIGHTS = (b"", b"C", b"B", b"A")
_VALUE, _OPERATOR = 1, 2
"""QI_VAL and QI_OPR: what an item of a tsquery is."""
_NOT, _AND, _OR, _PHRASE = 1, 2, 3, 4
_PRIORITIES = {_NOT: 4, _AND: 2, _OR: 1, _PHRASE: 3}
_ATOM = 5


class _Part(NamedTuple):
    """A printed part of a tsquery and what decides whether it needs parentheses."""

    text: bytes
    priority: int = _ATOM
    operator: int = 0


def tsvector_loader(text: Loader) -> Loader:
    """The loader of tsvector, given the session's loader of text."""

    def load(value: bytes) -> bytes | None:
        (count,) = _COUNT.unpack_from(value)
        position = 4
        lexemes: list[bytes] = []
        for _ in range(count):
            lexeme, position = _string(value, position)
            (positions,) = _SHORT.unpack_from(value, position)
            position += 2
            places = struct.unpack_from(f"!{positions}H", value, position)
            position += 2 * positions
            printed = b",".join([b"%d%b" % (place & 0x3FFF, _WEIGHTS[place >> 14]) for place in places])
            lexemes.append(_quoted(lexeme) + (b":" + printed if printed else b""))
        if position != len(value):
            raise ValueError("not a tsvector")
        return text(b" ".join(lexemes))

    return load


def tsquery_loader(text: Loader) -> Loader:
    """The loader of tsquery, given the session's loader of text."""

    def load(value: bytes) -> bytes | None:
        items = _items(value)
        # Operators stand before their operands, the right one first: from the end on, operands are met before them.
        parts: list[_Part] = []
        for item in reversed(items):
            if isinstance(item, bytes):
                parts.append(_Part(item))
            elif item[0] == _NOT:
                parts.append(_Part(b"!" + _operand(parts.pop(), _NOT), _PRIORITIES[_NOT], _NOT))
            else:
                right = parts.pop()
                parts.append(_joined(parts.pop(), right, *item))
        if len(parts) > 1:
            raise ValueError("not a tsquery")
        return text(parts[0].text if parts else b"")

    return load


def _joined(left: _Part, right: _Part, operator: int, distance: int) -> _Part:
    sign = {_AND: b"&", _OR: b"|"}.get(operator) or (b"<->" if distance == 1 else b"<%d>" % distance)
    # "a <-> (b <-> c)" is not "(a <-> b) <-> c".
    second = b"( %b )" % right.text if operator == _PHRASE == right.operator else _operand(right, operator)
    return _Part(b"%b %b %b" % (_operand(left, operator), sign, second), _PRIORITIES[operator], operator)


def _operand(part: _Part, operator: int) -> bytes:
    return b"( %b )" % part.text if part.priority < _PRIORITIES[operator] else part.text


def _items(value: bytes) -> list[bytes | tuple[int, int]]:
    """A tsquery's items in order: printed operands, and operators with their distance."""
    (count,) = _COUNT.unpack_from(value)
    position = 4
    items: list[bytes | tuple[int, int]] = []
    for _ in range(count):
        kind, detail = value[position], value[position + 1]
        if kind == _VALUE:
            prefix = value[position + 2]
            operand, position = _string(value, position + 3)
            items.append(_quoted(operand) + _flags(detail, prefix))
        elif kind == _OPERATOR and detail in _PRIORITIES:
            position += 2
            distance = 0
            if detail == _PHRASE:
                (distance,) = _SHORT.unpack_from(value, position)
                position += 2
            items.append((detail, distance))
        else:
            raise ValueError("not a tsquery")
    if position != len(value):
        raise ValueError("not a tsquery")
    return items


def _flags(weights: int, prefix: int) -> bytes:
    flags = (b"*" if prefix else b"") + b"".join([_WEIGHTS_OF_BITS[bit] for bit in (8, 4, 2, 1) if weights & bit])
    return b":" + flags if flags else b""


_WEIGHTS_OF_BITS = {8: b"A", 4: b"B", 2: b"C", 1: b"D"}


def _string(value: bytes, position: int) -> tuple[bytes, int]:
    """The zero-terminated string at ``position`` and where it ends."""
    end = value.index(b"\0", position)
    return value[position:end], end + 1


def _quoted(lexeme: bytes) -> bytes:
    return b"'%b'" % lexeme.replace(b"\\", b"\\\\").replace(b"'", b"''")
