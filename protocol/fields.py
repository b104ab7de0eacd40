"""The pieces messages are made of: integers in network order, C strings, length-prefixed values.

Reading checks bounds first and raises ``MessageError``; writing checks ranges and raises ``EncodeError``. Nothing here
knows which message it works for. Counts are unsigned, as PostgreSQL and libpq read them: 65,535 parameters are legal.
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
"""The largest length an Int32 can state; a longer body would wrap round and let its content pass for messages."""

Values = list[bytes | None]
"""Column values or parameters; None is NULL."""

_unpack_length = INT32.unpack_from


def values(buffer: bytes, pos: int, end: int, count: int) -> tuple[Values, int]:
    """``count`` length-prefixed values from ``pos`` on, none beyond ``end``, and the position behind the last.

    The values are copies: they may outlive the buffer. Raises ``MessageError``.
    """
    found: Values = []
    append = found.append
    for _ in range(count):
        start = pos + 4
        if start > end:
            raise MessageError(f"ends within the length of value {len(found) + 1} of {count}")
        (length,) = _unpack_length(buffer, pos)
        pos = start
        if length >= 0:
            pos = start + length
            if pos > end:
                raise MessageError(f"value {len(found) + 1} of {count} is longer than its message")
            append(buffer[start:pos])
        elif length == -1:
            append(None)
        else:
            raise MessageError(f"value {len(found) + 1} of {count} has length {length}")
    return found, pos


class Reader:
    """Reads one body from front to back. Every method raises ``MessageError`` when the body does not hold it."""

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

    def numbers(self, layout: str, width: int) -> tuple[int, ...]:
        """An unsigned 16-bit count and that many numbers, each ``width`` bytes as struct's ``layout`` letter says."""
        count = self.uint16()
        pos = self._pos
        after = pos + count * width
        if after > len(self._body):
            raise MessageError(f"ends within {count} numbers at byte {pos}")
        self._pos = after
        return unpack_from(f"!{count}{layout}", self._body, pos)

    def cstring(self) -> bytes:
        """Up to the next NUL, which is skipped."""
        pos = self._pos
        nul = self._body.find(0, pos)
        if nul < 0:
            raise MessageError(f"string at byte {pos} has no end")
        self._pos = nul + 1
        return self._body[pos:nul]

    def value(self) -> bytes | None:
        """One length-prefixed value; None for the length -1."""
        (found,), self._pos = values(self._body, self._pos, len(self._body), 1)
        return found

    def values(self) -> Values:
        """An unsigned 16-bit count and that many length-prefixed values."""
        count = self.uint16()
        found, self._pos = values(self._body, self._pos, len(self._body), count)
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
        """Nothing may be left: bytes we would pass over could mean something to the peer."""
        left = len(self._body) - self._pos
        if left:
            raise MessageError(f"{left} bytes too many")


def pack(layout: Struct, number: int) -> bytes:
    """``number`` as ``layout`` says. Raises ``EncodeError`` when it does not fit."""
    try:
        return layout.pack(number)
    except error as problem:
        raise EncodeError(f"{number} does not fit: {problem}") from None


def pack_numbers(layout: Struct, numbers: Sequence[int]) -> bytes:
    """A 16-bit count and the numbers."""
    return pack(UINT16, len(numbers)) + b"".join([pack(layout, number) for number in numbers])


def pack_cstring(text: bytes) -> bytes:
    """``text`` and its NUL. Raises ``EncodeError`` when a NUL within would cut it short and make the rest a field."""
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
