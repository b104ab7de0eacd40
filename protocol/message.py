"""The base class of every message with a type byte.

A message is decoded from its *body only* (no type byte, no length) and appends its whole frame to a caller's buffer.
Text stays bytes, because its encoding depends on the session.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from struct import Struct
from typing import ClassVar, Final, Self

from protocol.errors import EncodeError, MessageError
from protocol.fields import MAXIMUM_LENGTH

HEADER: Final = Struct("!BI")
"""Type byte and length; the length counts itself and the body, not the type byte."""


def no_limits() -> list[int]:
    """A new list of 256 maximum lengths by type byte, each 0: no message is allowed."""
    return [0] * 256


class Message(ABC):
    """One message. Equal to another of the same class with equal fields."""

    __slots__ = ()

    TYPE: ClassVar[int]
    """The type byte as an integer."""

    @classmethod
    @abstractmethod
    def decode(cls, body: bytes) -> Self:
        """The message with this body. Raises ``MessageError``, and no other exception, when the body is malformed."""

    @abstractmethod
    def body(self) -> bytes:
        """The encoded body. Raises ``EncodeError``, and no other exception, when a field cannot be encoded."""

    def append_to(self, buffer: bytearray) -> None:
        """Append the whole frame to ``buffer``. If it raises ``EncodeError`` the buffer is unchanged."""
        body = self.body()
        length = len(body) + 4
        if length > MAXIMUM_LENGTH:
            raise EncodeError(f"{type(self).__name__} of {len(body)} bytes is longer than a length field can hold")
        buffer += HEADER.pack(self.TYPE, length)
        buffer += body

    def __bytes__(self) -> bytes:
        buffer = bytearray()
        self.append_to(buffer)
        return bytes(buffer)


class EmptyMessage(Message):
    """A message with an empty body."""

    __slots__ = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        if body:
            raise MessageError(f"{len(body)} bytes too many")
        return cls()

    def body(self) -> bytes:
        return b""
