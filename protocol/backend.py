"""Messages a backend sends: type bytes, length limits, decode and encode.

Names and order of fields are those of the manual, section "Message Formats". CopyData and CopyDone are in
``copy_data``, the messages of type ``R`` in ``authentication``; ErrorResponse and NoticeResponse are defined in
``reports`` and imported here, so that other packages find every backend message in this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, error
from typing import Final, Self

from protocol import authentication, codes, copy_data
from protocol.errors import EncodeError, MessageError
from protocol.fields import (
    BYTE,
    INT16,
    INT32,
    MAXIMUM_LENGTH,
    UINT16,
    UINT32,
    Reader,
    Values,
    pack,
    pack_cstring,
    pack_numbers,
    pack_value,
    pack_values,
    values,
)
from protocol.message import EmptyMessage, Message, no_limits
from protocol.reports import ERROR_RESPONSE as ERROR_RESPONSE
from protocol.reports import NOTICE_RESPONSE as NOTICE_RESPONSE
from protocol.reports import ErrorResponse as ErrorResponse
from protocol.reports import NoticeResponse as NoticeResponse

AUTHENTICATION: Final = authentication.AUTHENTICATION
BACKEND_KEY_DATA: Final = ord("K")
BIND_COMPLETE: Final = ord("2")
CLOSE_COMPLETE: Final = ord("3")
COMMAND_COMPLETE: Final = ord("C")
COPY_BOTH_RESPONSE: Final = ord("W")
COPY_DATA: Final = copy_data.COPY_DATA
COPY_DONE: Final = copy_data.COPY_DONE
COPY_IN_RESPONSE: Final = ord("G")
COPY_OUT_RESPONSE: Final = ord("H")
DATA_ROW: Final = ord("D")
EMPTY_QUERY_RESPONSE: Final = ord("I")
FUNCTION_CALL_RESPONSE: Final = ord("V")
NEGOTIATE_PROTOCOL_VERSION: Final = ord("v")
NOTIFICATION_RESPONSE: Final = ord("A")
NO_DATA: Final = ord("n")
PARAMETER_DESCRIPTION: Final = ord("t")
PARAMETER_STATUS: Final = ord("S")
PARSE_COMPLETE: Final = ord("1")
PORTAL_SUSPENDED: Final = ord("s")
READY_FOR_QUERY: Final = ord("Z")
ROW_DESCRIPTION: Final = ord("T")

# The largest length of each message type. A message of fixed size has exactly that limit; a message of counted numbers
# has the size of 65,535 of them. Messages that carry rows, values or free text are limited by the length field only, as
# in libpq; the other short messages have libpq's limit of 30,000 bytes, authentication messages 65,535 bytes (the
# longest security token).
_SHORT: Final = 30_000

LIMITS: Final = no_limits()
for _kind in (
    BIND_COMPLETE,
    CLOSE_COMPLETE,
    COPY_DONE,
    EMPTY_QUERY_RESPONSE,
    NO_DATA,
    PARSE_COMPLETE,
    PORTAL_SUSPENDED,
):
    LIMITS[_kind] = 4
for _kind in (COMMAND_COMPLETE, NEGOTIATE_PROTOCOL_VERSION):
    LIMITS[_kind] = _SHORT
for _kind in (
    COPY_DATA,
    DATA_ROW,
    ERROR_RESPONSE,
    FUNCTION_CALL_RESPONSE,
    NOTICE_RESPONSE,
    NOTIFICATION_RESPONSE,
    PARAMETER_STATUS,
    ROW_DESCRIPTION,
):
    LIMITS[_kind] = MAXIMUM_LENGTH
for _kind in (COPY_BOTH_RESPONSE, COPY_IN_RESPONSE, COPY_OUT_RESPONSE):
    LIMITS[_kind] = 4 + 1 + 2 + 2 * 65_535
LIMITS[AUTHENTICATION] = 65_535
LIMITS[BACKEND_KEY_DATA] = 4 + 4 + codes.MAXIMUM_KEY
LIMITS[PARAMETER_DESCRIPTION] = 4 + 2 + 4 * 65_535
LIMITS[READY_FOR_QUERY] = 5


@dataclass(slots=True)
class BackendKeyData(Message):
    """The process ID and secret key that a CancelRequest for this session must carry."""

    TYPE = BACKEND_KEY_DATA
    process_id: int
    secret_key: bytes
    """4 bytes in protocol 3.0, 4 to 256 from 3.2 on."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        process_id = reader.int32()
        key = reader.rest()
        if not codes.MINIMUM_KEY <= len(key) <= codes.MAXIMUM_KEY:
            raise MessageError(f"a secret key of {len(key)} bytes")
        return cls(process_id, key)

    def body(self) -> bytes:
        if not codes.MINIMUM_KEY <= len(self.secret_key) <= codes.MAXIMUM_KEY:
            raise EncodeError(f"a secret key of {len(self.secret_key)} bytes")
        return pack(INT32, self.process_id) + self.secret_key


@dataclass(slots=True)
class ParameterStatus(Message):
    """The current value of a run-time parameter which the backend reports."""

    TYPE = PARAMETER_STATUS
    name: bytes
    value: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.cstring(), reader.cstring())
        reader.end()
        return message

    def body(self) -> bytes:
        return pack_cstring(self.name) + pack_cstring(self.value)


@dataclass(slots=True)
class NegotiateProtocolVersion(Message):
    """The backend does not support the minor version, or some protocol options, which the frontend asked for."""

    TYPE = NEGOTIATE_PROTOCOL_VERSION
    version: int
    """The newest version the backend supports of the same major version; the major number is in the upper 16 bits."""
    unrecognized: tuple[bytes, ...] = ()
    """Names of the protocol options (``_pq_.…``) which the backend does not know."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        version = reader.int32()
        count = reader.int32()
        if not 0 <= count <= len(body):
            raise MessageError(f"{count} protocol options")
        options = tuple(reader.cstring() for _ in range(count))
        reader.end()
        return cls(version, options)

    def body(self) -> bytes:
        names = b"".join(map(pack_cstring, self.unrecognized))
        return pack(INT32, self.version) + pack(INT32, len(self.unrecognized)) + names


@dataclass(slots=True)
class ReadyForQuery(Message):
    """The backend is ready for the next Query, FunctionCall or pipeline."""

    TYPE = READY_FOR_QUERY
    status: int
    """``codes.IDLE``, ``codes.IN_TRANSACTION`` or ``codes.FAILED_TRANSACTION``."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        if body not in (b"I", b"T", b"E"):
            raise MessageError(f"no transaction status in {len(body)} bytes")
        return cls(body[0])

    def body(self) -> bytes:
        return pack(BYTE, self.status)


_COLUMN: Final = Struct("!IhIhih")


@dataclass(slots=True)
class FieldDescription:
    """One column of a RowDescription."""

    name: bytes
    table_oid: int = 0
    """The OID of the table whose column this is; 0 for an expression."""
    column_number: int = 0
    """Attribute number in that table; negative for a system column, 0 for an expression."""
    type_oid: int = codes.TEXT_OID
    type_size: int = -1
    """pg_type.typlen: negative for variable width."""
    type_modifier: int = -1
    format: int = codes.TEXT
    """Always text when a prepared statement was described: the format is known from Bind on."""

    def body(self) -> bytes:
        try:
            facts = _COLUMN.pack(
                self.table_oid, self.column_number, self.type_oid, self.type_size, self.type_modifier, self.format
            )
        except error as problem:
            raise EncodeError(f"a column's number does not fit: {problem}") from None
        return pack_cstring(self.name) + facts


@dataclass(slots=True)
class RowDescription(Message):
    """The columns of the rows that follow, or, after Describe, of the rows a statement would return."""

    TYPE = ROW_DESCRIPTION
    fields: tuple[FieldDescription, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        count = Reader(body).uint16()
        size = len(body)
        pos = 2
        fields: list[FieldDescription] = []
        for _ in range(count):
            nul = body.find(0, pos)
            after = nul + 1 + _COLUMN.size
            if nul < 0 or after > size:
                raise MessageError(f"ends within column {len(fields) + 1} of {count}")
            fields.append(FieldDescription(body[pos:nul], *_COLUMN.unpack_from(body, nul + 1)))
            pos = after
        if pos != size:
            raise MessageError(f"{size - pos} bytes too many")
        return cls(tuple(fields))

    def body(self) -> bytes:
        return pack(UINT16, len(self.fields)) + b"".join([field.body() for field in self.fields])


def column_values(buffer: bytes, start: int, end: int) -> Values:
    """The values of the DataRow whose body is ``buffer[start:end]``, in column order; None is NULL.

    The values are copies: they may outlive the buffer. ``end`` must not lie beyond the buffer. Raises ``MessageError``.
    """
    found, after = values(buffer, start, end)
    if after != end:
        raise MessageError(f"{end - after} bytes too many")
    return found


def first_values(buffer: bytes, start: int, end: int, count: int) -> Values:
    """The first ``count`` of ``column_values`` (all, if there are fewer); the bytes behind them are not checked."""
    return values(buffer, start, end, count)[0]


@dataclass(slots=True)
class DataRow(Message):
    """One row. Code that only reads values calls ``column_values`` instead and needs no object."""

    TYPE = DATA_ROW
    values: Values

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(column_values(body, 0, len(body)))

    def body(self) -> bytes:
        return pack_values(self.values)


@dataclass(slots=True)
class CommandComplete(Message):
    """A statement has been completed."""

    TYPE = COMMAND_COMPLETE
    tag: bytes
    """The command and often a row count: ``SELECT 3``, ``INSERT 0 1``, ``ROLLBACK``."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        nul = body.find(0)
        if nul < 0 or nul != len(body) - 1:
            raise MessageError("the command tag does not end where its message does")
        return cls(body[:nul])

    def body(self) -> bytes:
        return pack_cstring(self.tag)


@dataclass(slots=True)
class NotificationResponse(Message):
    """A NOTIFY on a channel the session listens to; it may come between any two other messages."""

    TYPE = NOTIFICATION_RESPONSE
    process_id: int
    channel: bytes
    payload: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.int32(), reader.cstring(), reader.cstring())
        reader.end()
        return message

    def body(self) -> bytes:
        return pack(INT32, self.process_id) + pack_cstring(self.channel) + pack_cstring(self.payload)


@dataclass(slots=True)
class ParseComplete(EmptyMessage):
    """Parse succeeded."""

    TYPE = PARSE_COMPLETE


@dataclass(slots=True)
class BindComplete(EmptyMessage):
    """Bind succeeded."""

    TYPE = BIND_COMPLETE


@dataclass(slots=True)
class CloseComplete(EmptyMessage):
    """Close succeeded."""

    TYPE = CLOSE_COMPLETE


@dataclass(slots=True)
class NoData(EmptyMessage):
    """Sent instead of a RowDescription: the statement returns no rows."""

    TYPE = NO_DATA


@dataclass(slots=True)
class PortalSuspended(EmptyMessage):
    """Sent instead of a CommandComplete: Execute's row limit was reached."""

    TYPE = PORTAL_SUSPENDED


@dataclass(slots=True)
class EmptyQueryResponse(EmptyMessage):
    """Sent instead of a CommandComplete: the query string held no statement."""

    TYPE = EMPTY_QUERY_RESPONSE


@dataclass(slots=True)
class ParameterDescription(Message):
    """The parameters of a prepared statement."""

    TYPE = PARAMETER_DESCRIPTION
    type_oids: tuple[int, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        oids = reader.numbers(UINT32)
        reader.end()
        return cls(oids)

    def body(self) -> bytes:
        return pack_numbers(UINT32, self.type_oids)


@dataclass(slots=True)
class _CopyResponse(Message):
    """CopyInResponse, CopyOutResponse and CopyBothResponse."""

    format: int
    """Overall format: ``codes.TEXT`` (also for CSV) or ``codes.BINARY``."""
    column_formats: tuple[int, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.byte(), reader.numbers(INT16))
        reader.end()
        return message

    def body(self) -> bytes:
        return pack(BYTE, self.format) + pack_numbers(INT16, self.column_formats)


@dataclass(slots=True)
class CopyInResponse(_CopyResponse):
    """The backend waits for CopyData."""

    TYPE = COPY_IN_RESPONSE


@dataclass(slots=True)
class CopyOutResponse(_CopyResponse):
    """CopyData messages follow."""

    TYPE = COPY_OUT_RESPONSE


@dataclass(slots=True)
class CopyBothResponse(_CopyResponse):
    """CopyData goes in both directions from here on (streaming replication)."""

    TYPE = COPY_BOTH_RESPONSE


@dataclass(slots=True)
class FunctionCallResponse(Message):
    """The result of a FunctionCall; None is NULL."""

    TYPE = FUNCTION_CALL_RESPONSE
    value: bytes | None

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        value = reader.value()
        reader.end()
        return cls(value)

    def body(self) -> bytes:
        return pack_value(self.value)


MESSAGES: Final[dict[int, type[Message]]] = {
    message.TYPE: message
    for message in (
        BackendKeyData,
        BindComplete,
        CloseComplete,
        CommandComplete,
        CopyBothResponse,
        copy_data.CopyData,
        copy_data.CopyDone,
        CopyInResponse,
        CopyOutResponse,
        DataRow,
        EmptyQueryResponse,
        ErrorResponse,
        FunctionCallResponse,
        NegotiateProtocolVersion,
        NoData,
        NoticeResponse,
        NotificationResponse,
        ParameterDescription,
        ParameterStatus,
        ParseComplete,
        PortalSuspended,
        ReadyForQuery,
        RowDescription,
    )
}
"""The messages by type byte: all but those of type ``AUTHENTICATION``, whose code in the body is needed as well."""

# Fixed messages, encoded once.
BIND_COMPLETE_FRAME: Final = bytes(BindComplete())
CLOSE_COMPLETE_FRAME: Final = bytes(CloseComplete())
EMPTY_QUERY_RESPONSE_FRAME: Final = bytes(EmptyQueryResponse())
NO_DATA_FRAME: Final = bytes(NoData())
PARSE_COMPLETE_FRAME: Final = bytes(ParseComplete())
PORTAL_SUSPENDED_FRAME: Final = bytes(PortalSuspended())
READY_IDLE_FRAME: Final = bytes(ReadyForQuery(codes.IDLE))
READY_IN_TRANSACTION_FRAME: Final = bytes(ReadyForQuery(codes.IN_TRANSACTION))
READY_FAILED_TRANSACTION_FRAME: Final = bytes(ReadyForQuery(codes.FAILED_TRANSACTION))


def decode(kind: int, body: bytes) -> Message:
    """The message of type byte ``kind``. Raises ``MessageError``."""
    if kind == AUTHENTICATION:
        return authentication.decode(body)
    message = MESSAGES.get(kind)
    if message is None:
        raise MessageError(f"no backend message has the type byte 0x{kind:02x}")
    return message.decode(body)
