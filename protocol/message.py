"""What every typed message has in common: a type byte, a body, and the frame around the body.

A message decodes from its *body only* (no type byte, no length) and appends its whole frame to a caller's buffer. Text
stays bytes: which encoding it is in is the session's affair.
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
    """256 maximum lengths by type byte, none of which allows a message."""
    return [0] * 256


class Message(ABC):
    """One typed message. Equal when type and fields are."""

    __slots__ = ()

    TYPE: ClassVar[int]
    """The type byte, as indexing bytes gives it."""

    @classmethod
    @abstractmethod
    def decode(cls, body: bytes) -> Self:
        """The message whose body this is; raises ``MessageError``, and nothing else, when it cannot be one."""

    @abstractmethod
    def body(self) -> bytes:
        """Its body; raises ``EncodeError``, and nothing else, when a field does not fit the protocol."""

    def append_to(self, buffer: bytearray) -> None:
        """Append the whole frame. Raises ``EncodeError`` and leaves the buffer as it was."""
        body = self.body()
        length = len(body) + 4
        if length > MAXIMUM_LENGTH:
            raise EncodeError(f"{type(self).__name__} of {len(body)} bytes is longer than a length can say")
        buffer += HEADER.pack(self.TYPE, length)
        buffer += body

    def __bytes__(self) -> bytes:
        buffer = bytearray()
        self.append_to(buffer)
        return bytes(buffer)


class EmptyMessage(Message):
    """A message that is its type byte and nothing more."""

    __slots__ = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        if body:
            raise MessageError(f"{len(body)} bytes too many")
        return cls()

    def body(self) -> bytes:
        return b""
