"""The first packets of a connection, without a type byte: StartupMessage, SSLRequest, GSSENCRequest, CancelRequest.

They are read as strictly as PostgreSQL's postmaster reads them, and refused where it refuses: with the same SQLSTATE
where it answers, without an answer where it only closes the connection. A packet is an Int32 length that counts itself,
an Int32 that is either the protocol version or a request code, and the fields of that packet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from protocol import codes
from protocol.errors import EncodeError, MessageError, StartupError
from protocol.fields import INT32, UINT32, Reader, pack, pack_cstring

_MINIMUM: Final = 8
_MAXIMUM: Final = 4 + 10_000
"""PostgreSQL's limit does not count the length field."""

_FATAL_VIOLATION: Final = "08P01"
_FATAL_AUTHORIZATION: Final = "28000"
_FATAL_UNSUPPORTED: Final = "0A000"

_NOT_REPLICATION: Final = frozenset((b"f", b"fa", b"fal", b"fals", b"false", b"n", b"no", b"of", b"off", b"0"))
"""Every spelling PostgreSQL accepts for false, in lower case."""


def packet_end(buffer: bytes | bytearray) -> int | None:
    """The position behind the first packet in ``buffer``, or None while the packet is not complete.

    Raises ``StartupError`` as soon as the length has arrived and is not one PostgreSQL accepts: the proxy never waits
    for more than 10,004 bytes.
    """
    if len(buffer) < 4:
        return None
    (length,) = UINT32.unpack_from(buffer)
    if not _MINIMUM <= length <= _MAXIMUM:
        raise StartupError(f"invalid length of startup packet: {length}")
    end: int = length
    return end if end <= len(buffer) else None


class _Packet(ABC):
    """One packet; its body is everything behind the length."""

    __slots__ = ()

    @classmethod
    @abstractmethod
    def decode(cls, body: bytes) -> Self:
        """The packet with this body. Raises ``StartupError``."""

    @abstractmethod
    def body(self) -> bytes:
        """The encoded body. Raises ``EncodeError``."""

    def append_to(self, buffer: bytearray) -> None:
        """Append the whole packet to ``buffer``. If it raises ``EncodeError`` the buffer is unchanged."""
        body = self.body()
        length = len(body) + 4
        if length > _MAXIMUM:
            raise EncodeError(f"a startup packet of {length} bytes")
        buffer += UINT32.pack(length)
        buffer += body

    def __bytes__(self) -> bytes:
        buffer = bytearray()
        self.append_to(buffer)
        return bytes(buffer)


class _Request(_Packet):
    """A packet whose body is its request code only."""

    __slots__ = ()

    CODE: ClassVar[int]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        if body != UINT32.pack(cls.CODE):
            raise StartupError(f"{len(body)} bytes that are no {cls.__name__}")
        return cls()

    def body(self) -> bytes:
        return UINT32.pack(self.CODE)


@dataclass(slots=True)
class SSLRequest(_Request):
    """The client asks for TLS. The answer is one byte, ``S`` or ``N``."""

    CODE = codes.SSL_REQUEST


@dataclass(slots=True)
class GSSENCRequest(_Request):
    """The client asks for GSSAPI encryption. The answer is one byte, ``G`` or ``N``."""

    CODE = codes.GSSENC_REQUEST


@dataclass(slots=True)
class CancelRequest(_Packet):
    """Cancel the statement another session runs. It has no answer; the connection is closed."""

    process_id: int
    secret_key: bytes
    """4 to 256 bytes, from that session's BackendKeyData."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        try:
            reader = Reader(body)
            code = reader.uint32()
            process_id = reader.int32()
        except MessageError as problem:
            raise StartupError(f"invalid length of cancel request packet: {problem}") from None
        key = reader.rest()
        if code != codes.CANCEL_REQUEST or not codes.MINIMUM_KEY <= len(key) <= codes.MAXIMUM_KEY:
            raise StartupError(f"cancel request with code {code} and a key of {len(key)} bytes")
        return cls(process_id, key)

    def body(self) -> bytes:
        if not codes.MINIMUM_KEY <= len(self.secret_key) <= codes.MAXIMUM_KEY:
            raise EncodeError(f"a secret key of {len(self.secret_key)} bytes")
        return UINT32.pack(codes.CANCEL_REQUEST) + pack(INT32, self.process_id) + self.secret_key


@dataclass(slots=True)
class StartupMessage(_Packet):
    """The client begins a session."""

    version: int
    """Major version 3 (``codes.PROTOCOL_3_0`` …) with any minor version; the backend negotiates an unknown one."""
    parameters: tuple[tuple[bytes, bytes], ...]
    """In the packet's order; of parameters with equal names PostgreSQL uses the last. Names are case-sensitive."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        try:
            version = Reader(body).uint32()
        except MessageError as problem:
            raise StartupError(f"invalid length of startup packet: {problem}") from None
        if version >> 16 != 3:
            # PostgreSQL checks the version first: the rest of the packet may have any form.
            raise StartupError(f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}", _FATAL_UNSUPPORTED)
        message = cls(version, _decode_parameters(body))
        if not message.user:
            raise StartupError("no PostgreSQL user name specified in startup packet", _FATAL_AUTHORIZATION)
        return message

    def get(self, name: bytes) -> bytes | None:
        """The value PostgreSQL would use for the parameter ``name``; None when the packet does not have it."""
        return next((value for known, value in reversed(self.parameters) if known == name), None)

    @property
    def user(self) -> bytes:
        return self.get(b"user") or b""

    @property
    def database(self) -> bytes:
        """The user's name when the packet names no database. Not meaningful for physical replication."""
        return self.get(b"database") or self.user

    @property
    def replication(self) -> bool:
        """A walsender session is asked for, physical or logical. Also true for a value which PostgreSQL will refuse."""
        value = self.get(b"replication")
        return value is not None and value.lower() not in _NOT_REPLICATION

    def body(self) -> bytes:
        if any(not name for name, _ in self.parameters):
            raise EncodeError("an empty parameter name would end the packet")
        pairs = [pack_cstring(name) + pack_cstring(value) for name, value in self.parameters]
        return pack(UINT32, self.version) + b"".join(pairs) + b"\0"


def _decode_parameters(body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The pairs of name and value up to an empty name, which must be the last byte of the packet."""
    parameters = []
    reader = Reader(body)
    reader.uint32()
    try:
        while name := reader.cstring():
            parameters.append((name, reader.cstring()))
        reader.end()
    except MessageError:
        text = "invalid startup packet layout: expected terminator as last byte"
        raise StartupError(text, _FATAL_VIOLATION) from None
    return tuple(parameters)


Packet = StartupMessage | SSLRequest | GSSENCRequest | CancelRequest

_REQUESTS: Final[dict[int, type[SSLRequest] | type[GSSENCRequest] | type[CancelRequest]]] = {
    codes.SSL_REQUEST: SSLRequest,
    codes.GSSENC_REQUEST: GSSENCRequest,
    codes.CANCEL_REQUEST: CancelRequest,
}

SSL_REQUEST_FRAME: Final = bytes(SSLRequest())
GSSENC_REQUEST_FRAME: Final = bytes(GSSENCRequest())


def decode(packet: bytes) -> Packet:
    """Decode ``packet``, which must be one complete packet and nothing else. Raises ``StartupError``."""
    if packet_end(packet) != len(packet):
        raise StartupError(f"{len(packet)} bytes that are not one startup packet")
    body = packet[4:]
    (code,) = UINT32.unpack_from(body)
    return _REQUESTS.get(code, StartupMessage).decode(body)
