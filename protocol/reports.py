"""ErrorResponse and NoticeResponse, which have the same fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from protocol import codes
from protocol.errors import EncodeError
from protocol.fields import BYTE, Reader, pack, pack_cstring
from protocol.message import Message

ERROR_RESPONSE: Final = ord("E")
NOTICE_RESPONSE: Final = ord("N")


@dataclass(slots=True)
class _Report(Message):
    """ErrorResponse and NoticeResponse: fields with a code each, in the backend's order."""

    fields: tuple[tuple[int, bytes], ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        fields = []
        while code := reader.byte():
            fields.append((code, reader.cstring()))
        reader.end()
        return cls(tuple(fields))

    @classmethod
    def of(cls, severity: str, sqlstate: str, message: str, detail: str | None = None, hint: str | None = None) -> Self:
        """A report made by Rowtap, in UTF-8. ``severity`` (ERROR, FATAL, WARNING, …) is not localized."""
        texts = (
            (codes.SEVERITY, severity),
            (codes.SEVERITY_UNLOCALIZED, severity),
            (codes.SQLSTATE, sqlstate),
            (codes.MESSAGE, message),
            (codes.DETAIL, detail),
            (codes.HINT, hint),
        )
        return cls(tuple((code, text.encode()) for code, text in texts if text is not None))

    def get(self, code: int) -> bytes | None:
        """The first field with this code (``codes.SQLSTATE`` …), None when there is none."""
        return next((text for field, text in self.fields if field == code), None)

    @property
    def severity(self) -> bytes:
        """Not localized from PostgreSQL 9.6 on; empty when missing."""
        return self.get(codes.SEVERITY_UNLOCALIZED) or self.get(codes.SEVERITY) or b""

    @property
    def sqlstate(self) -> bytes:
        """Five characters; empty when missing."""
        return self.get(codes.SQLSTATE) or b""

    @property
    def message(self) -> bytes:
        """The primary message; empty when missing. It may quote values."""
        return self.get(codes.MESSAGE) or b""

    def body(self) -> bytes:
        if any(code == 0 for code, _ in self.fields):
            raise EncodeError("a field with the code 0 would end the report")
        return b"".join([pack(BYTE, code) + pack_cstring(text) for code, text in self.fields]) + b"\0"


@dataclass(slots=True)
class ErrorResponse(_Report):
    """A statement failed, or, with severity FATAL, the session ends."""

    TYPE = ERROR_RESPONSE


@dataclass(slots=True)
class NoticeResponse(_Report):
    """A warning or other notice; it may come between any two other messages."""

    TYPE = NOTICE_RESPONSE
