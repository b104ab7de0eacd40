"""How a session starts, without any I/O: the client's first packet, and the backend's messages up to ReadyForQuery.

Everything passes through unread and unchanged, authentication included. Only what observing the session or cancelling
its statements needs is noted on the way, and one thing is taken out where it could not work: channel binding, for a
client that does not see the backend's certificate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import authentication, backend, codes, frontend, startup
from protocol.errors import FramingError, MessageError, StartupError
from protocol.fields import UINT32
from protocol.message import HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MESSAGE = 262_144
"""Longest message of the startup phase that is waited for as a whole; beyond it nothing more is looked at."""
MAX_EARLY = 65_536
"""How much a client may send ahead of the first ReadyForQuery and still be observed."""

_SASL = UINT32.pack(authentication.AuthenticationSASL.CODE)
_EXPECTED = frozenset(
    (
        backend.AUTHENTICATION,
        backend.BACKEND_KEY_DATA,
        backend.ERROR_RESPONSE,
        backend.NEGOTIATE_PROTOCOL_VERSION,
        backend.NOTICE_RESPONSE,
        backend.PARAMETER_STATUS,
        backend.READY_FOR_QUERY,
    )
)


def request_code(packet: bytes) -> int:
    """What an untyped packet of 8 bytes or more asks for: a request code, or the protocol version."""
    code: int = UINT32.unpack_from(packet, 4)[0]
    return code


def parse(packet: bytes) -> startup.StartupMessage | None:
    """The startup message, or None if it is malformed: the server has its own words for refusing that."""
    try:
        return startup.StartupMessage.decode(packet[4:])
    except StartupError:
        return None


def message_end(buffer: bytes | bytearray, start: int, limits: Sequence[int]) -> int | None:
    """Where the typed message at ``start`` ends, or None while it is not all there. Raises FramingError."""
    if len(buffer) - start < HEADER.size:
        return None
    kind, length = HEADER.unpack_from(buffer, start)
    if not 4 <= length <= limits[kind]:
        raise FramingError(f"message of type 0x{kind:02x} with length {length}")
    end: int = start + 1 + length
    return end if end <= len(buffer) else None


_BACKEND_LIMITS = [min(limit, MAX_MESSAGE) if kind in _EXPECTED else 0 for kind, limit in enumerate(backend.LIMITS)]
_FRONTEND_LIMITS = [min(limit, MAX_MESSAGE) for limit in frontend.LIMITS]


class Startup:
    """Follows one session from its startup packet to its first ReadyForQuery, which is kept back in ``ready``."""

    __slots__ = ("_buffer", "_frontend", "_strip", "cancel_key", "early", "lost", "parameters", "ready", "rest")

    def __init__(self, *, strip_channel_binding: bool = False) -> None:
        self._strip = strip_channel_binding
        self._buffer = b""
        self._frontend: bytes | None = b""
        self.parameters: dict[str, str] = {}
        """What the backend reported (ParameterStatus)."""
        self.cancel_key: bytes | None = None
        """BackendKeyData's body: process id and secret key, as a CancelRequest repeats them."""
        self.ready: bytes | None = None
        """The first ReadyForQuery, once it has come."""
        self.rest = b""
        """What followed it in the same chunk."""
        self.early: bytearray | None = bytearray()
        """What the client sent after its last authentication message; None when that cannot be told."""
        self.lost = False
        """The backend's bytes make no sense to us: from here on they pass as they are."""

    @property
    def followed(self) -> bool:
        """Both directions are known from their first byte after authentication on."""
        return self.ready is not None and self.early is not None and not self._frontend

    def frontend(self, data: bytes) -> None:
        """Bytes of the client that were forwarded. Authentication messages are skipped, and no secret kept longer
        than its message is incomplete."""
        if self.early is None:
            return
        if self._frontend is not None:
            try:
                data = self._after_authentication(self._frontend, data)
            except FramingError:
                self.early = self._frontend = None
                return
        self.early += data
        if len(self.early) > MAX_EARLY:
            self.early = None

    def _after_authentication(self, kept: bytes, data: bytes) -> bytes:
        buffer = kept + data
        start = 0
        while start < len(buffer) and buffer[start] == frontend.PASSWORD:
            end = message_end(buffer, start, _FRONTEND_LIMITS)
            if end is None:
                self._frontend = buffer[start:]
                return b""
            start = end
        # The first message of another type ends authentication for good.
        self._frontend = None if start < len(buffer) else b""
        return buffer[start:]

    def backend(self, data: bytes) -> bytes:
        """Feed a chunk of the backend; returns what the client gets of it now: whole messages, up to ``ready``."""
        if self.lost:
            return data
        buffer = self._buffer + data if self._buffer else data
        output: list[bytes] = []
        start = 0
        try:
            while (end := message_end(buffer, start, _BACKEND_LIMITS)) is not None:
                message = buffer[start:end]
                if message[0] == backend.READY_FOR_QUERY:
                    self.ready, self.rest, self._buffer = message, buffer[end:], b""
                    return b"".join(output)
                output.append(self._noted(message))
                start = end
        except (FramingError, MessageError):
            self.lost = True
            output.append(buffer[start:])
            start = len(buffer)
        self._buffer = buffer[start:]
        return b"".join(output)

    def release(self) -> bytes:
        """The incomplete message that was kept back, when the backend says no more."""
        kept, self._buffer = self._buffer, b""
        return kept

    def _noted(self, message: bytes) -> bytes:
        """Keep what is worth knowing of one message; returns what the client gets in its place."""
        kind = message[0]
        if kind == backend.PARAMETER_STATUS:
            status = backend.ParameterStatus.decode(message[5:])
            self.parameters[text(status.name)] = text(status.value)
        elif kind == backend.BACKEND_KEY_DATA:
            self.cancel_key = backend.BackendKeyData.decode(message[5:]).body()
        elif kind == backend.AUTHENTICATION and self._strip and message[5:9] == _SASL:
            return _without_channel_binding(message)
        return message


def _without_channel_binding(message: bytes) -> bytes:
    """AuthenticationSASL without what binds to a TLS channel: a client that has none refuses to be offered it."""
    request = authentication.AuthenticationSASL.decode(message[5:]).without_channel_binding()
    return bytes(request) if request.mechanisms else message


def text(value: bytes) -> str:
    """A name or value of the startup phase, whatever its encoding; undone by ``surrogateescape``."""
    return value.decode(errors="surrogateescape")


def cancel_request(key: bytes) -> bytes:
    """The CancelRequest packet for a BackendKeyData's body."""
    return UINT32.pack(8 + len(key)) + UINT32.pack(codes.CANCEL_REQUEST) + key


def fatal(sqlstate: str, message: str, detail: str | None = None, hint: str | None = None) -> bytes:
    """The ErrorResponse that ends a session, when it is Rowtap that must."""
    return bytes(backend.ErrorResponse.of("FATAL", sqlstate, message, detail, hint))
