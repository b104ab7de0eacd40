"""One accepted connection until its session is relayed: TLS, the first packet, CancelRequest, the way to PostgreSQL.

The requests for encryption are read from the bare socket and byte by byte, so that not one byte that came before TLS
can be taken for one that came through it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Protocol

from protocol import codes
from protocol.backend import ErrorResponse
from protocol.errors import StartupError
from protocol.fields import UINT32
from protocol.message import HEADER
from protocol.startup import packet_end
from proxy import logs
from proxy.config.os_errors import reason_of
from proxy.net.dial import UnreachableError, receive
from proxy.net.pending_connection import PendingConnection
from proxy.net.relay.message_log import MessageLog
from proxy.net.relay.relay import Relay, RelayHost
from proxy.net.startup import fatal, parse, request_code
from proxy.net.tls import ALPN, failure_of

if TYPE_CHECKING:
    from proxy.net.backend_connection import Backend, BackendConnection
    from proxy.net.dial import ServerAddress

_TLS_HANDSHAKE = 0x16
_HEAD = 8

log = logs.get()


class ConnectionHost(RelayHost, Protocol):
    """What a client's connection needs of the server that accepted it."""

    backend: Backend
    client_tls: ssl.SSLContext | None
    tls_required: bool
    login_timeout: float
    postgres_up: bool
    """PostgreSQL could be reached when last tried."""

    def admit(self) -> bool:
        """Count one session more, or say that there are too many."""

    def leave(self) -> None:
        """An admitted session ended before it was relayed."""

    def address_of(self, key: bytes) -> ServerAddress | None:
        """Where the session with this cancel key has its backend, if it is one of ours."""

    def relaying(self, relay: Relay, address: ServerAddress) -> None:
        """An admitted session is relayed from here on; ``RelayHost.ended`` will say when no more."""


class _RefusedError(Exception):
    """The connection ends here. ``reply`` is for the client, ``reason`` for the log (empty: not worth a line)."""

    def __init__(self, reason: str, reply: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class Connection:
    """From ``accept`` to the relay.

    Args:
        peer: the client, for the log.
    """

    def __init__(self, host: ConnectionHost, accepted: socket.socket, peer: str) -> None:
        self._host = host
        self._socket: socket.socket | None = accepted
        self._local = accepted.family == socket.AF_UNIX
        self._peer = peer
        self._pending: PendingConnection | None = None
        self._secure = False
        self._messages = MessageLog(peer, host.on_internal_error) if logs.debug_enabled() else None

    async def run(self) -> bool:
        """Bring the connection to its relay (True) or to its end (False). Closes what it does not hand over."""
        try:
            return await self._run()
        except _RefusedError as refusal:
            if refusal.reason:
                log.info("connection refused", client=self._peer, reason=refusal.reason)
            if refusal.reason or refusal.reply:
                self._host.traffic.refuse(_sqlstate(refusal.reply))
            self._reply(refusal.reply)
        except StartupError as error:
            # PostgreSQL closes without a word: who sends this does not speak the protocol.
            log.info("connection refused", client=self._peer, reason=str(error))
            self._host.traffic.refuse("garbage")
        except ssl.SSLError as error:
            log.info("connection refused", client=self._peer, reason=failure_of(error))
        except TimeoutError:
            log.info("connection refused", client=self._peer, reason="no startup packet in time")
        except OSError as error:
            log.debug("connection lost before its startup packet", client=self._peer, reason=reason_of(error))
        finally:
            self._close()
        return False

    async def _run(self) -> bool:
        async with asyncio.timeout(self._host.login_timeout):
            packet, early = await self._first_packet()
        if self._messages is not None:
            self._messages.packet(packet)
        code = request_code(packet)
        if code == codes.CANCEL_REQUEST:
            await self._cancel(packet)
            return False
        if code in (codes.SSL_REQUEST, codes.GSSENC_REQUEST):
            version = f"{code >> 16}.{code & 0xFFFF}"
            raise _RefusedError(
                f"a second request for encryption ({version})",
                fatal("0A000", f"unsupported frontend protocol {version}: server supports 3.0 to 3.2"),
            )
        if self._host.tls_required and not self._secure and not self._local:
            raise _RefusedError(
                "the client does not use TLS",
                fatal("28000", "connection requires TLS", hint="Connect with sslmode=require or stronger."),
            )
        if not self._host.admit():
            raise _RefusedError("too many clients", fatal("53300", "sorry, too many clients already"))
        try:
            backend = await self._host.backend.connect(packet)
        except UnreachableError as error:
            self._host.leave()
            self._host.postgres_up = False
            log.warning("PostgreSQL unreachable", client=self._peer, reason=str(error))
            raise _RefusedError("", fatal("08006", str(error))) from None
        except BaseException:
            self._host.leave()
            raise
        self._host.postgres_up = True
        self._hand_over(packet, early, backend)
        return True

    def _hand_over(self, packet: bytes, early: bytes, backend: BackendConnection) -> None:
        try:
            relay = Relay(
                self._host,
                parse(packet),
                strip_channel_binding=backend.secure and not self._secure,
                peer=self._peer,
                messages=self._messages,
            )
        except BaseException:
            backend.pending.transport.abort()
            self._host.leave()
            raise
        pending, self._pending = self._pending, None
        assert pending is not None
        self._host.relaying(relay, backend.address)
        try:
            relay.begin(pending, backend.pending, early)
        except Exception as error:  # noqa: BLE001 - a fault of ours; the relay has both connections already and ends with them
            self._host.on_internal_error("relay", error)
            relay.abort()

    async def _cancel(self, packet: bytes) -> None:
        self._host.traffic.cancels += 1
        try:
            await self._host.backend.cancel(packet, self._host.address_of(packet[_HEAD:]))
        except UnreachableError as error:
            log.warning("cancel request not delivered", client=self._peer, reason=str(error))

    # Reading.

    async def _first_packet(self) -> tuple[bytes, bytes]:
        """The first packet that is no request for encryption, and what came behind it."""
        head = b""
        if await self._peek() == _TLS_HANDSHAKE:
            await self._start_tls(direct=True)
        else:
            head = await self._requests()
        if self._pending is None:
            await self._wrap(None, head)
        pending = self._pending
        assert pending is not None
        await pending.wait()
        end = packet_end(pending.data)
        if end is None:
            raise _RefusedError("closed within the startup packet" if pending.data else "")
        return bytes(pending.data[:end]), bytes(pending.data[end:])

    async def _peek(self) -> int:
        """The first byte, which stays where it is."""
        loop = asyncio.get_running_loop()
        accepted = self._socket
        assert accepted is not None
        while True:
            try:
                first = accepted.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                readable = loop.create_future()
                loop.add_reader(accepted, _wake, readable)
                try:
                    await readable
                finally:
                    loop.remove_reader(accepted)
            else:
                if not first:
                    raise _RefusedError("")
                return first[0]

    async def _requests(self) -> bytes:
        """Answer requests for encryption, one of each kind. Returns the first 8 bytes of what follows, or nothing
        after a change to TLS."""
        accepted = self._socket
        assert accepted is not None
        loop = asyncio.get_running_loop()
        answered = set()
        while True:
            head = await receive(accepted, 4)
            packet_end(head)
            head += await receive(accepted, 4)
            code = request_code(head)
            if code not in (codes.SSL_REQUEST, codes.GSSENC_REQUEST) or code in answered:
                return head
            rest = await receive(accepted, UINT32.unpack(head[:4])[0] - _HEAD)
            if self._messages is not None:
                self._messages.packet(head + rest)
            answered.add(code)
            self._refuse_early_bytes(accepted, "SSL" if code == codes.SSL_REQUEST else "GSSAPI encryption")
            if code == codes.SSL_REQUEST and self._host.client_tls is not None and not self._local:
                await loop.sock_sendall(accepted, b"S")
                await self._start_tls(direct=False)
                return b""
            await loop.sock_sendall(accepted, b"N")

    @staticmethod
    def _refuse_early_bytes(accepted: socket.socket, what: str) -> None:
        try:
            early = accepted.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        if early:
            message = f"received unencrypted data after {what} request"
            detail = "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."
            raise _RefusedError(message, fatal("08P01", message, detail))

    async def _start_tls(self, *, direct: bool) -> None:
        context = self._host.client_tls
        if context is None or self._local:
            raise _RefusedError("direct TLS, which is not configured")
        await self._wrap(context, b"")
        self._secure = True
        assert self._pending is not None
        chosen = self._pending.transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if direct and chosen != ALPN:
            raise _RefusedError(f'direct TLS without the application protocol "{ALPN}"')

    async def _wrap(self, context: ssl.SSLContext | None, head: bytes) -> None:
        """Make a transport of the socket, which reads until the first packet is whole."""
        accepted, self._socket = self._socket, None
        assert accepted is not None
        # Not taken from what the call returns: uvloop returns its own TLS protocol there.
        pending = PendingConnection(_whole, head)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: pending, accepted, ssl=context)
        except BaseException:
            accepted.close()
            raise
        self._pending = pending

    # Ending.

    def _reply(self, reply: bytes) -> None:
        if not reply:
            return
        if self._pending is not None:
            if not self._pending.lost:
                self._pending.transport.write(reply)
            return
        assert self._socket is not None
        try:
            self._socket.send(reply)
        except OSError as error:
            log.debug("refusal not delivered", client=self._peer, reason=reason_of(error))

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._pending is not None:
            self._pending.transport.close()


def _whole(data: bytearray) -> bool:
    return packet_end(data) is not None


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _sqlstate(reply: bytes) -> str:
    """The code of an error of our own, for counting; "garbage" where nothing could be answered."""
    return ErrorResponse.decode(reply[HEADER.size :]).sqlstate.decode() if reply else "garbage"
