"""The fields of messages: integers in network byte order, C strings, length-prefixed values.

Reading checks bounds first and raises ``MessageError``; writing checks ranges and raises ``EncodeError``. Counts are
unsigned, as PostgreSQL and libpq read them: 65,535 parameters are legal.
"""

from __future__ import annotations

from struct import Struct, error, unpack_from
from typing import TYPE_CHECKING, Final

from protocol.errors import EncodeError, MessageError

if TYPE_CHECKING:
    from collections.abc import Sequence

BYTE: Final = Struct("!B")
INT16: Final = Struct("!h")
UINT16: Final = Struct("!H")
INT32: Final = Struct("!i")
UINT32: Final = Struct("!I")

MAXIMUM_LENGTH: Final = 0x7FFF_FFFF
"""The largest length an Int32 can hold. A longer body would overflow it, and its content would be read as messages."""

Values = list[bytes | None]
"""Column values or parameters; None is NULL."""

_unpack_length = INT32.unpack_from


def values(buffer: bytes, pos: int, end: int, most: int = 65_535) -> tuple[Values, int]:
    """Read a 16-bit count at ``pos`` and that many length-prefixed values. Returns them and the position behind them.

    Reads nothing at or beyond ``end``, and at most ``most`` values: then the position is behind the last one read.
    The values are copies: they may outlive the buffer. ``end`` must not lie beyond the buffer.
    """
    start = pos + 2
    if start > end:
        raise MessageError(f"ends within a count at byte {pos}")
    found: Values = []
    append = found.append
    count = buffer[pos] << 8 | buffer[pos + 1]
    for _ in range(min(count, most)):
        pos = start
        start += 4
        if start > end:
            raise MessageError(f"ends within the length of value {len(found) + 1}")
        (length,) = _unpack_length(buffer, pos)
        if length >= 0:
            pos = start
            start += length
            if start > end:
                raise MessageError(f"value {len(found) + 1} is longer than its message")
            append(buffer[pos:start])
        elif length == -1:
            append(None)
        else:
            raise MessageError(f"value {len(found) + 1} has length {length}")
    return found, start


def numbers(body: bytes, pos: int, layout: Struct) -> tuple[tuple[int, ...], int]:
    """Read a 16-bit count at ``pos`` and that many numbers. Returns them and the position behind them."""
    start = pos + 2
    if start > len(body):
        raise MessageError(f"ends within a count at byte {pos}")
    count = body[pos] << 8 | body[pos + 1]
    if not count:
        return (), start
    end = start + count * layout.size
    if end > len(body):
        raise MessageError(f"ends within {count} numbers at byte {start}")
    if count == 1:
        return layout.unpack_from(body, start), end
    return unpack_from(f"!{count}{layout.format[-1]}", body, start), end


class Reader:
    """Reads the fields of one body in order. Every method raises ``MessageError`` when the body is too short for it."""

    __slots__ = ("_body", "_pos")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._pos = 0

    def byte(self) -> int:
        return self._number(BYTE)

    def int16(self) -> int:
        return self._number(INT16)

    def uint16(self) -> int:
        return self._number(UINT16)

    def int32(self) -> int:
        return self._number(INT32)

    def uint32(self) -> int:
        return self._number(UINT32)

    def _number(self, layout: Struct) -> int:
        pos = self._pos
        after = pos + layout.size
        if after > len(self._body):
            raise MessageError(f"ends within a number at byte {pos}")
        self._pos = after
        number: int = layout.unpack_from(self._body, pos)[0]
        return number

    def numbers(self, layout: Struct) -> tuple[int, ...]:
        """A 16-bit count and that many numbers."""
        found, self._pos = numbers(self._body, self._pos, layout)
        return found

    def cstring(self) -> bytes:
        """The bytes up to the next NUL; the NUL is skipped."""
        pos = self._pos
        nul = self._body.find(0, pos)
        if nul < 0:
            raise MessageError(f"string at byte {pos} has no end")
        self._pos = nul + 1
        return self._body[pos:nul]

    def value(self) -> bytes | None:
        """One length-prefixed value; None for the length -1."""
        length = self.int32()
        if length == -1:
            return None
        if length < 0:
            raise MessageError(f"a value has length {length}")
        return self.take(length)

    def values(self) -> Values:
        """A 16-bit count and that many length-prefixed values."""
        found, self._pos = values(self._body, self._pos, len(self._body))
        return found

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        pos = self._pos
        after = pos + size
        if after > len(self._body):
            raise MessageError(f"ends within {size} bytes at byte {pos}")
        self._pos = after
        return self._body[pos:after]

    def rest(self) -> bytes:
        """Everything that is left."""
        pos = self._pos
        self._pos = len(self._body)
        return self._body[pos:]

    def end(self) -> None:
        """Check that nothing is left: bytes ignored here could mean something to the peer."""
        left = len(self._body) - self._pos
        if left:
            raise MessageError(f"{left} bytes too many")


def pack(layout: Struct, number: int) -> bytes:
    """``number`` in the form of ``layout``. Raises ``EncodeError`` when it does not fit."""
    try:
        return layout.pack(number)
    except error as problem:
        raise EncodeError(f"{number} does not fit: {problem}") from None


def pack_numbers(layout: Struct, numbers: Sequence[int]) -> bytes:
    """A 16-bit count and the numbers."""
    return pack(UINT16, len(numbers)) + b"".join([pack(layout, number) for number in numbers])


def pack_cstring(text: bytes) -> bytes:
    """``text`` and a NUL. Raises ``EncodeError`` when ``text`` has a NUL: the rest would be read as the next field."""
    if 0 in text:
        raise EncodeError(f"NUL within a string of {len(text)} bytes")
    return text + b"\0"


def pack_value(content: bytes | None) -> bytes:
    """A length-prefixed value."""
    if content is None:
        return b"\xff\xff\xff\xff"
    return pack(INT32, len(content)) + content


def pack_values(contents: Sequence[bytes | None]) -> bytes:
    """A 16-bit count and the length-prefixed values."""
    return pack(UINT16, len(contents)) + b"".join([pack_value(content) for content in contents])
