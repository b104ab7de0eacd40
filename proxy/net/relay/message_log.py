"""The debug log of one connection's messages: direction, type and length, never a value.

Lines are written by ``[log] level = "debug"`` alone, as it is when the connection is accepted. ``protocol.tracing``
says what of a message is shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from protocol import authentication, backend, frontend, tracing
from protocol.errors import FramingError
from protocol.framing import FrameScanner
from protocol.message import HEADER
from proxy import logs
from proxy.net.relay.leg import Leg

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.framing import Handler, Oversize
    from protocol.message import Message

CAPACITY = 65_536
"""Bytes of a message's body that are decoded; of a longer one only type and length are logged."""

_RESPONSES: Final[dict[int, type[Message]]] = {
    authentication.AuthenticationCleartextPassword.CODE: frontend.PasswordMessage,
    authentication.AuthenticationMD5Password.CODE: frontend.PasswordMessage,
    authentication.AuthenticationGSS.CODE: frontend.GSSResponse,
    authentication.AuthenticationGSSContinue.CODE: frontend.GSSResponse,
    authentication.AuthenticationSSPI.CODE: frontend.GSSResponse,
    authentication.AuthenticationSASL.CODE: frontend.SASLInitialResponse,
    authentication.AuthenticationSASLContinue.CODE: frontend.SASLResponse,
}
"""What the client's next message of type 'p' is, by the code of the authentication request it answers."""

log = logs.get()


class MessageLog:
    """Reads both directions of a connection beside the relay, and logs a line for each message.

    It stops, with one last line, at bytes that are no messages.

    Args:
        client: the client, as other lines of the log name it.
        on_internal_error: told of any other failure, which ends the log of this connection as well.
    """

    def __init__(self, client: str, on_internal_error: Callable[[str, BaseException], None]) -> None:
        self._client = client
        self._on_internal_error = on_internal_error
        self._response: type[Message] = frontend.SASLResponse
        self._stopped = False
        self._frontend = _scanner(frontend.LIMITS, self._frontend_message, self._frontend_oversize)
        self._backend = _scanner(backend.LIMITS, self._backend_message, self._backend_oversize)

    def packet(self, packet: bytes) -> None:
        """An untyped packet of the client's: a request for encryption, a StartupMessage or a CancelRequest."""
        self._log("frontend", tracing.render_startup(packet), len(packet))

    def frontend(self, data: bytes) -> None:
        """A chunk of the client's messages."""
        self._feed(self._frontend, "frontend", data)

    def backend(self, data: bytes) -> None:
        """A chunk of the server's messages, answers to queries of our own included."""
        self._feed(self._backend, "backend", data)

    def _feed(self, scanner: FrameScanner, direction: str, data: bytes) -> None:
        if self._stopped:
            return
        try:
            scanner.feed(data)
        except FramingError as error:
            self._stopped = True
            log.debug("messages are not logged any longer", client=self._client, direction=direction, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the log may fail in any way, relaying goes on
            self._stopped = True
            self._on_internal_error("relay", error)

    def _frontend_message(self, kind: int, buffer: bytes, start: int, end: int) -> None:
        body = buffer[start:end]
        self._log("frontend", tracing.render_frontend(kind, body, self._response), HEADER.size + len(body))

    def _frontend_oversize(self, kind: int, length: int, _head: bytes) -> None:
        self._log("frontend", tracing.name_frontend(kind, self._response), HEADER.size + length)

    def _backend_message(self, kind: int, buffer: bytes, start: int, end: int) -> None:
        body = buffer[start:end]
        if kind == backend.AUTHENTICATION:
            self._response = _RESPONSES.get(int.from_bytes(body[:4], "big"), frontend.SASLResponse)
        self._log("backend", tracing.render_backend(kind, body), HEADER.size + len(body))

    def _backend_oversize(self, kind: int, length: int, _head: bytes) -> None:
        self._log("backend", tracing.name_backend(kind), HEADER.size + length)

    def _log(self, direction: str, line: str, length: int) -> None:
        kind, _, fields = line.partition(" ")
        log.debug("message", client=self._client, direction=direction, type=kind, length=length, fields=fields)


class LoggedLeg(Leg):
    """A leg whose chunks are shown to a ``MessageLog`` first."""

    __slots__ = ("_show",)

    def __init__(
        self,
        show: Callable[[bytes], None],
        *,
        on_end: Callable[[], None],
        on_lost: Callable[[bool], None],
        on_pressure: Callable[[], None],
    ) -> None:
        super().__init__(on_end=on_end, on_lost=on_lost, on_pressure=on_pressure)
        self._show = show

    def data_received(self, data: bytes) -> None:
        self._show(data)
        super().data_received(data)

    def deliver(self, data: bytes) -> None:
        self._show(data)
        super().deliver(data)


def _scanner(limits: list[int], handle: Callable[[int, bytes, int, int], None], oversize: Oversize) -> FrameScanner:
    handlers: list[Handler | None] = [partial(handle, kind) for kind in range(256)]
    return FrameScanner(handlers, limits, capacity=CAPACITY, oversize=oversize)
