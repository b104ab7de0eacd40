"""CopyData, CopyDone and CopyFail: the messages of COPY, in either direction (only a frontend sends CopyFail)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from protocol.fields import Reader, pack_cstring
from protocol.message import EmptyMessage, Message

COPY_DATA: Final = ord("d")
COPY_DONE: Final = ord("c")
COPY_FAIL: Final = ord("f")


@dataclass(slots=True)
class CopyData(Message):
    """A part of the copied stream. In a frontend's stream a part may begin and end anywhere, also within a row."""

    TYPE = COPY_DATA
    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(body)

    def body(self) -> bytes:
        return self.data


@dataclass(slots=True)
class CopyDone(EmptyMessage):
    """The copied stream is complete."""

    TYPE = COPY_DONE


@dataclass(slots=True)
class CopyFail(Message):
    """The frontend aborts the COPY; the backend answers with an ErrorResponse that quotes ``message``."""

    TYPE = COPY_FAIL
    message: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = reader.cstring()
        reader.end()
        return cls(message)

    def body(self) -> bytes:
        return pack_cstring(self.message)


COPY_DONE_FRAME: Final = bytes(CopyDone())
