"""Messages a frontend sends once the connection has started: type bytes, length limits, decode and encode.

Names and order of fields are those of the manual, section "Message Formats". CopyData, CopyDone and CopyFail are in
``copy_data``, the untyped packets before authentication in ``startup``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from protocol import codes, copy_data
from protocol.errors import MessageError
from protocol.fields import (
    BYTE,
    INT16,
    INT32,
    UINT32,
    Reader,
    Values,
    numbers,
    pack,
    pack_cstring,
    pack_numbers,
    pack_value,
    pack_values,
    values,
)
from protocol.message import EmptyMessage, Message, no_limits

BIND: Final = ord("B")
CLOSE: Final = ord("C")
COPY_DATA: Final = copy_data.COPY_DATA
COPY_DONE: Final = copy_data.COPY_DONE
COPY_FAIL: Final = copy_data.COPY_FAIL
DESCRIBE: Final = ord("D")
EXECUTE: Final = ord("E")
FLUSH: Final = ord("H")
FUNCTION_CALL: Final = ord("F")
PARSE: Final = ord("P")
PASSWORD: Final = ord("p")
"""PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse: which one depends on the backend's request."""
QUERY: Final = ord("Q")
SYNC: Final = ord("S")
TERMINATE: Final = ord("X")

# The largest lengths a backend accepts, so that the proxy refuses a message where PostgreSQL does: 10,000 bytes for
# messages that are always short, an allocation's limit for those that may be long, and a security token's limit for
# responses to an authentication request.
_SMALL: Final = 10_000
_LARGE: Final = 0x3FFF_FFFE
_TOKEN: Final = 65_535

LIMITS: Final = no_limits()
for _kind in (CLOSE, COPY_DONE, COPY_FAIL, DESCRIBE, EXECUTE, FLUSH, SYNC, TERMINATE):
    LIMITS[_kind] = _SMALL
for _kind in (BIND, COPY_DATA, FUNCTION_CALL, PARSE, QUERY):
    LIMITS[_kind] = _LARGE
LIMITS[PASSWORD] = _TOKEN


@dataclass(slots=True)
class Query(Message):
    """A simple query: a string of one statement, several statements or none."""

    TYPE = QUERY
    query: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        nul = body.find(0)
        if nul < 0 or nul != len(body) - 1:
            raise MessageError("the query string does not end where its message does")
        return cls(body[:nul])

    def body(self) -> bytes:
        return pack_cstring(self.query)


@dataclass(slots=True)
class Parse(Message):
    """Prepare a statement under ``name`` (empty: the unnamed one)."""

    TYPE = PARSE
    name: bytes
    query: bytes
    parameter_types: tuple[int, ...] = ()
    """Type OIDs of the first parameters; for 0 the backend infers the type."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.cstring(), reader.cstring(), reader.numbers(UINT32))
        reader.end()
        return message

    def body(self) -> bytes:
        return pack_cstring(self.name) + pack_cstring(self.query) + pack_numbers(UINT32, self.parameter_types)


@dataclass(slots=True)
class Bind(Message):
    """Create a portal from a prepared statement and its parameters.

    Format codes as in the manual: no code means text for all values, one code is for all values. That the number of
    codes fits the number of values is not checked here: it is an error of the statement, which the backend reports.
    """

    TYPE = BIND
    portal: bytes
    statement: bytes
    parameter_formats: tuple[int, ...] = ()
    parameters: Values = field(default_factory=list)
    result_formats: tuple[int, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(*bind_fields(body))

    def body(self) -> bytes:
        return b"".join(
            [
                pack_cstring(self.portal),
                pack_cstring(self.statement),
                pack_numbers(INT16, self.parameter_formats),
                pack_values(self.parameters),
                pack_numbers(INT16, self.result_formats),
            ]
        )


def bind_fields(body: bytes) -> tuple[bytes, bytes, tuple[int, ...], Values, tuple[int, ...]]:
    """The fields of ``Bind`` as a tuple, without an object. Raises ``MessageError``."""
    # Does not use Reader, which takes twice as long: most drivers send a Bind for nearly every statement.
    end = len(body)
    first = body.find(0)
    second = body.find(0, first + 1)
    if second < 0:
        raise MessageError("the name of the portal or of the prepared statement has no end")
    parameter_formats, pos = numbers(body, second + 1, INT16)
    parameters, pos = values(body, pos, end)
    result_formats, pos = numbers(body, pos, INT16)
    if pos != end:
        raise MessageError(f"{end - pos} bytes too many")
    return body[:first], body[first + 1 : second], parameter_formats, parameters, result_formats


def bind_result_formats(buffer: bytes, start: int, end: int) -> bytes:
    """The last field of the Bind body ``buffer[start:end]``: count and result-column format codes, not decoded.

    Their position follows from the lengths of the parameters only, so these are stepped over. Raises ``MessageError``.
    """
    pos = buffer.find(0, buffer.find(0, start, end) + 1, end) + 1
    last = end - 2
    if start < pos <= last:
        pos += 2 + 2 * (buffer[pos] << 8 | buffer[pos + 1])
        if pos <= last:
            count = buffer[pos] << 8 | buffer[pos + 1]
            pos += 2
            while count and pos <= last - 4:
                (length,) = INT32.unpack_from(buffer, pos)
                pos += 4 + max(0, length)
                count -= 1
            if not count and pos <= last and pos + 2 + 2 * (buffer[pos] << 8 | buffer[pos + 1]) == end:
                return buffer[pos:end]
    raise MessageError("the parameters and result formats do not fill the message")


@dataclass(slots=True)
class Describe(Message):
    """Ask for the parameters and result columns of a prepared statement, or the result columns of a portal."""

    TYPE = DESCRIBE
    kind: int
    """``codes.PREPARED_STATEMENT`` or ``codes.PORTAL``."""
    name: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(*_decode_target(body))

    def body(self) -> bytes:
        return pack(BYTE, self.kind) + pack_cstring(self.name)


@dataclass(slots=True)
class Close(Message):
    """Close a prepared statement or portal; one that does not exist is not an error."""

    TYPE = CLOSE
    kind: int
    """``codes.PREPARED_STATEMENT`` or ``codes.PORTAL``."""
    name: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(*_decode_target(body))

    def body(self) -> bytes:
        return pack(BYTE, self.kind) + pack_cstring(self.name)


def _decode_target(body: bytes) -> tuple[int, bytes]:
    if len(body) < 2 or body.find(0, 1) != len(body) - 1:
        raise MessageError("the name does not end where its message does")
    kind = body[0]
    if kind not in (codes.PREPARED_STATEMENT, codes.PORTAL):
        raise MessageError(f"0x{kind:02x} is neither prepared statement nor portal")
    return kind, body[1:-1]


@dataclass(slots=True)
class Execute(Message):
    """Execute a portal."""

    TYPE = EXECUTE
    portal: bytes
    maximum_rows: int = 0
    """Suspend the portal after this many rows; 0 or a negative number means no limit."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        nul = body.find(0)
        if nul < 0 or nul != len(body) - 5:
            raise MessageError("the portal's name and a row limit do not fill the message")
        (maximum_rows,) = INT32.unpack_from(body, nul + 1)
        return cls(body[:nul], maximum_rows)

    def body(self) -> bytes:
        return pack_cstring(self.portal) + pack(INT32, self.maximum_rows)


@dataclass(slots=True)
class Sync(EmptyMessage):
    """End of a pipeline: the backend ends an implicit transaction and answers with ReadyForQuery."""

    TYPE = SYNC


@dataclass(slots=True)
class Flush(EmptyMessage):
    """Ask the backend to send the contents of its output buffer."""

    TYPE = FLUSH


@dataclass(slots=True)
class Terminate(EmptyMessage):
    """The frontend ends the session."""

    TYPE = TERMINATE


@dataclass(slots=True)
class FunctionCall(Message):
    """Call a function by OID (the "fast path" of large objects)."""

    TYPE = FUNCTION_CALL
    function: int
    argument_formats: tuple[int, ...] = ()
    arguments: Values = field(default_factory=list)
    result_format: int = codes.TEXT

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.uint32(), reader.numbers(INT16), reader.values(), reader.int16())
        reader.end()
        return message

    def body(self) -> bytes:
        return b"".join(
            [
                pack(UINT32, self.function),
                pack_numbers(INT16, self.argument_formats),
                pack_values(self.arguments),
                pack(INT16, self.result_format),
            ]
        )


@dataclass(slots=True)
class PasswordMessage(Message):
    """The answer to AuthenticationCleartextPassword or AuthenticationMD5Password."""

    TYPE = PASSWORD
    password: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        password = reader.cstring()
        reader.end()
        return cls(password)

    def body(self) -> bytes:
        return pack_cstring(self.password)


@dataclass(slots=True)
class SASLInitialResponse(Message):
    """The answer to AuthenticationSASL."""

    TYPE = PASSWORD
    mechanism: bytes
    data: bytes | None
    """The mechanism's initial response; None when it has none, which differs from an empty one."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.cstring(), reader.value())
        reader.end()
        return message

    def body(self) -> bytes:
        return pack_cstring(self.mechanism) + pack_value(self.data)


@dataclass(slots=True)
class SASLResponse(Message):
    """The answer to AuthenticationSASLContinue."""

    TYPE = PASSWORD
    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(body)

    def body(self) -> bytes:
        return self.data


@dataclass(slots=True)
class GSSResponse(Message):
    """The answer to AuthenticationGSS, AuthenticationSSPI or AuthenticationGSSContinue."""

    TYPE = PASSWORD
    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(body)

    def body(self) -> bytes:
        return self.data


MESSAGES: Final[dict[int, type[Message]]] = {
    message.TYPE: message
    for message in (
        Bind,
        Close,
        copy_data.CopyData,
        copy_data.CopyDone,
        copy_data.CopyFail,
        Describe,
        Execute,
        Flush,
        FunctionCall,
        Parse,
        Query,
        Sync,
        Terminate,
    )
}
"""The messages by type byte: all but the four of type ``PASSWORD``."""

# Fixed messages, encoded once.
FLUSH_FRAME: Final = bytes(Flush())
SYNC_FRAME: Final = bytes(Sync())
TERMINATE_FRAME: Final = bytes(Terminate())


def decode(kind: int, body: bytes, response: type[Message] = SASLResponse) -> Message:
    """The message of type byte ``kind``. ``response`` is the message which type ``PASSWORD`` has at this moment.

    Raises ``MessageError``.
    """
    message = response if kind == PASSWORD else MESSAGES.get(kind)
    if message is None:
        raise MessageError(f"no frontend message has the type byte 0x{kind:02x}")
    return message.decode(body)
