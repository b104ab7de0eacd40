"""Arrays, ranges and multiranges: taken apart, each element made canonical by its own loader, and put together again
with PostgreSQL's own quoting."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.values.loading import Loader

_HEADER = struct.Struct("!iiI")
_DIMENSION = struct.Struct("!ii")
_LENGTH = struct.Struct("!i")
_MAX_DIMENSIONS = 6
_BOUNDS = re.compile(rb"(?:\[[+-]?\d+:[+-]?\d+\])+=")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_QUOTE_ESCAPE = re.compile(rb'(["\\])')
_RANGE = re.compile(
    rb"""empty|([\[(])("(?:[^"\\]|""|\\.)*"|[^",()\[\]\\]*),("(?:[^"\\]|""|\\.)*"|[^",()\[\]\\]*)([\])])""", re.DOTALL
)
_RANGE_ESCAPE = re.compile(rb'\\(.)|""', re.DOTALL)
_RANGE_SPECIAL = re.compile(rb'[\s"\\(),\[\]]')
_EMPTY, _LOWER_INCLUSIVE, _UPPER_INCLUSIVE, _LOWER_INFINITE, _UPPER_INFINITE = 1, 2, 4, 8, 16


class _UnreadableError(ValueError):
    """An element has no canonical text."""


def _required(loader: Loader, value: bytes) -> bytes:
    text = loader(value)
    if text is None:
        raise _UnreadableError
    return text


class ArrayFormat:
    """How the elements of one type are written within an array."""

    def __init__(self, delimiter: bytes = b",") -> None:
        self.delimiter = delimiter
        self._special = re.compile(rb'["\\{}\s%b]|\A\Z|\A[Nn][Uu][Ll][Ll]\Z' % re.escape(delimiter))
        self._token = re.compile(
            rb'([{}%b])|"((?:[^"\\]|\\.)*)"|([^{}"\\%b]+)' % (re.escape(delimiter), re.escape(delimiter)), re.DOTALL
        )

    def quoted(self, element: bytes) -> bytes:
        """``element`` as it stands within an array."""
        if self._special.search(element):
            return b'"%b"' % _QUOTE_ESCAPE.sub(rb"\\\1", element)
        return element

    def tokens(self, text: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Each brace or delimiter as (itself, None), each element as (b"", its text), NULL as (b"NULL", None).

        Raises ValueError at the first byte that fits nothing.
        """
        position = 0
        while position < len(text):
            match = self._token.match(text, position)
            if match is None:
                raise ValueError("not an array")
            position = match.end()
            structure, quoted, plain = match.groups()
            if structure is not None:
                yield structure, None
            elif quoted is not None:
                yield b"", _ESCAPE.sub(rb"\1", quoted)
            elif plain == b"NULL":
                yield plain, None
            else:
                yield b"", plain

    def from_text(self, element: Loader) -> Loader:
        """The loader of arrays in text format."""

        def load(value: bytes) -> bytes | None:
            bounds = _BOUNDS.match(value)
            start = bounds.end() if bounds else 0
            if not (value.startswith(b"{", start) and value.endswith(b"}")):
                return None
            parts = [value[:start]]
            for structure, text in self.tokens(value[start:]):
                parts.append(structure if text is None else self.quoted(_required(element, text)))
            return b"".join(parts)

        return load

    def from_binary(self, element: Loader) -> Loader:
        """The loader of arrays in binary format."""

        def load(value: bytes) -> bytes | None:
            _, dimensions, elements = binary_elements(value)
            texts = [b"NULL" if item is None else self.quoted(_required(element, item)) for item in elements]
            if not dimensions:
                return b"{}"
            for size, _ in reversed(dimensions):
                joined = [self.delimiter.join(texts[at : at + size]) for at in range(0, len(texts), size)]
                texts = [b"{%b}" % row for row in joined]
            if all(lower == 1 for _, lower in dimensions):
                return texts[0]
            bounds = b"".join([b"[%d:%d]" % (lower, lower + size - 1) for size, lower in dimensions])
            return b"%b=%b" % (bounds, texts[0])

        return load

    def vector_from_binary(self, element: Loader) -> Loader:
        """The loader of int2vector and oidvector, which are arrays that print their elements between blanks."""

        def load(value: bytes) -> bytes | None:
            _, dimensions, elements = binary_elements(value)
            if len(dimensions) > 1 or None in elements:
                return None
            return b" ".join([_required(element, item) for item in elements if item is not None])

        return load


def binary_elements(value: bytes) -> tuple[int, list[tuple[int, int]], list[bytes | None]]:
    """An array's element type, its dimensions (size and lower bound) and its elements, row by row.

    Raises ValueError or struct.error when the lengths within do not add up.
    """
    count, _flags, element_type = _HEADER.unpack_from(value)
    if not 0 <= count <= _MAX_DIMENSIONS:
        raise ValueError("not an array")
    dimensions = [_DIMENSION.unpack_from(value, _HEADER.size + 8 * at) for at in range(count)]
    position = _HEADER.size + 8 * count
    total = 1 if count else 0
    for size, _ in dimensions:
        if size < 0:
            raise ValueError("not an array")
        total *= size
    if 4 * total > len(value) - position:
        raise ValueError("not an array")
    elements: list[bytes | None] = []
    for _ in range(total):
        element, position = _item(value, position, nullable=True)
        elements.append(element)
    if position != len(value):
        raise ValueError("not an array")
    return element_type, [(size, lower) for size, lower in dimensions], elements


def _item(value: bytes, position: int, *, nullable: bool = False) -> tuple[bytes | None, int]:
    """The length-prefixed item at ``position`` and where it ends."""
    (length,) = _LENGTH.unpack_from(value, position)
    start = position + 4
    if length == -1 and nullable:
        return None, start
    if length < 0 or start + length > len(value):
        raise ValueError("a length that does not fit")
    return value[start : start + length], start + length


def range_from_text(bound: Loader) -> Loader:
    """The loader of ranges in text format."""

    def load(value: bytes) -> bytes | None:
        match = _RANGE.fullmatch(value)
        return None if match is None else _canonical_range(match, bound)

    return load


def multirange_from_text(bound: Loader) -> Loader:
    """The loader of multiranges in text format."""

    def load(value: bytes) -> bytes | None:
        if value == b"{}":
            return value
        position = 1
        ranges: list[bytes] = []
        while True:
            match = _RANGE.match(value, position)
            if match is None or value[:1] != b"{":
                return None
            ranges.append(_canonical_range(match, bound))
            position = match.end()
            if value[position:] == b"}":
                return b"{%b}" % b",".join(ranges)
            if value[position : position + 1] != b",":
                return None
            position += 1

    return load


def _canonical_range(match: re.Match[bytes], bound: Loader) -> bytes:
    opening, lower, upper, closing = match.groups()
    if opening is None:
        return b"empty"
    return b"%b%b,%b%b" % (opening, _canonical_bound(lower, bound), _canonical_bound(upper, bound), closing)


def _canonical_bound(text: bytes, bound: Loader) -> bytes:
    if not text:
        return b""
    if text.startswith(b'"'):
        text = _RANGE_ESCAPE.sub(lambda match: match[1] or b'"', text[1:-1])
    return _range_quoted(_required(bound, text))


def _range_quoted(text: bytes) -> bytes:
    if text and not _RANGE_SPECIAL.search(text):
        return text
    return b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'""')


def range_from_binary(bound: Loader) -> Loader:
    """The loader of ranges in binary format."""

    def load(value: bytes) -> bytes | None:
        flags, position = value[0], 1
        lower = upper = b""
        if not flags & (_EMPTY | _LOWER_INFINITE):
            item, position = _item(value, position)
            lower = _range_quoted(_required(bound, item or b""))
        if not flags & (_EMPTY | _UPPER_INFINITE):
            item, position = _item(value, position)
            upper = _range_quoted(_required(bound, item or b""))
        if position != len(value) or flags >= 2 * _UPPER_INFINITE:
            raise ValueError("not a range")
        if flags & _EMPTY:
            return b"empty"
        opening = b"[" if flags & _LOWER_INCLUSIVE else b"("
        closing = b"]" if flags & _UPPER_INCLUSIVE else b")"
        return b"%b%b,%b%b" % (opening, lower, upper, closing)

    return load


def multirange_from_binary(bound: Loader) -> Loader:
    """The loader of multiranges in binary format."""
    one = range_from_binary(bound)

    def load(value: bytes) -> bytes | None:
        (count,) = _LENGTH.unpack_from(value)
        position = 4
        ranges: list[bytes] = []
        for _ in range(count):
            item, position = _item(value, position)
            ranges.append(_required(one, item or b""))
        if position != len(value) or count < 0:
            raise ValueError("not a multirange")
        return b"{%b}" % b",".join(ranges)

    return load
