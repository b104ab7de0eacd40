"""How Rowtap reaches PostgreSQL: every address of its name, TCP or Unix socket, with TLS as sslmode says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protocol.backend import ERROR_RESPONSE
from protocol.startup import SSL_REQUEST_FRAME
from proxy.net.pending_connection import PendingConnection, at_once, never
from proxy.net.tls import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.config.sections import PostgresSection

CANCEL_TIMEOUT = 10.0
"""Seconds until a CancelRequest counts as delivered even if the server does not close."""
RETRY_PAUSE = 0.01
"""Seconds before a Unix socket with a full queue is tried again."""

_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


class UnreachableError(Exception):
    """PostgreSQL cannot be reached; the message says where and why, fit for a client."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One address a name stands for."""

    family: int
    sockaddr: Any
    """As ``socket`` takes it for this family."""


@dataclass(slots=True)
class BackendConnection:
    """A connection that has been sent the startup packet and is not being read."""

    waiting: PendingConnection
    address: ServerAddress
    secure: bool


def tune(connection: socket.socket) -> None:
    """No delays, and a dead peer is noticed in minutes."""
    connection.setblocking(False)
    if connection.family == socket.AF_UNIX:
        return
    # A peer that has gone already makes these fail, and what follows will tell.
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes and none beyond. ConnectionResetError when there are not that many."""
    loop = asyncio.get_running_loop()
    found = b""
    while len(found) < size:
        chunk = await loop.sock_recv(connection, size - len(found))
        if not chunk:
            raise ConnectionResetError("the connection was closed")
        found += chunk
    return found


class Backend:
    """The server behind the proxy, as one ``[postgres]`` section describes it."""

    def __init__(
        self,
        settings: PostgresSection,
        context: ssl.SSLContext | None,
        certificate_seen: Callable[[bytes], None] | None = None,
    ) -> None:
        """``certificate_seen`` is told the server's certificate (DER) at every connection with TLS."""
        self._settings = settings
        self._context = context
        self._certificate_seen = certificate_seen
        self._attempts = (False,) if context is None else ATTEMPTS[settings.sslmode]

    def __str__(self) -> str:
        return str(self._settings)

    async def connect(self, packet: bytes) -> BackendConnection:
        """Connect and send ``packet``, with TLS and without as sslmode allows. Raises UnreachableError.

        As in libpq, a refusal at one of two possible attempts leads to the other; the last one's is the client's.
        """
        for left in range(len(self._attempts) - 1, -1, -1):
            wanted = self._attempts[-1 - left]
            address, connection = await self._dial()
            try:
                found = await self._speak(connection, address, wanted)
            except UnreachableError:
                if left:
                    continue
                raise
            found.waiting.transport.write(packet)
            if not left or found.secure != wanted or not await self._refused(found.waiting):
                found.waiting.transport.pause_reading()
                return found
            found.waiting.transport.abort()
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _refused(self, waiting: PendingConnection) -> bool:
        # A server that lets clients wait (a pooler in front of a full one) has at least not refused.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.connect_timeout):
                await waiting.wait()
            return not waiting.data or waiting.data[0] == ERROR_RESPONSE
        return False

    async def cancel(self, packet: bytes, address: ServerAddress | None = None) -> None:
        """Deliver a CancelRequest, to ``address`` if the session's is known, and wait until the server has taken it.
        Raises UnreachableError."""
        address, connection = await self._dial(address)
        found = await self._speak(connection, address, self._attempts[0], never)
        try:
            found.waiting.transport.write(packet)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT):
                    await found.waiting.wait()
        finally:
            found.waiting.transport.abort()

    async def _dial(self, address: ServerAddress | None = None) -> tuple[ServerAddress, socket.socket]:
        addresses = [address] if address is not None else await self._addresses()
        reasons = []
        for candidate in addresses:
            connection = socket.socket(candidate.family, socket.SOCK_STREAM)
            tune(connection)
            try:
                async with asyncio.timeout(self._settings.connect_timeout):
                    await _connect(connection, candidate)
            except OSError as error:
                connection.close()
                reasons.append(self._reason(error))
            except BaseException:
                connection.close()
                raise
            else:
                return candidate, connection
        raise self._unreachable(", ".join(dict.fromkeys(reasons)))

    async def _addresses(self) -> list[ServerAddress]:
        if (path := self._settings.socket_path) is not None:
            return [ServerAddress(socket.AF_UNIX, path)]
        host, port = self._settings.host, self._settings.port
        try:
            # An address needs no resolver, and so no thread.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            try:
                async with asyncio.timeout(self._settings.connect_timeout):
                    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise self._unreachable(self._reason(error)) from None
        return [ServerAddress(family, address) for family, _, _, _, address in found]

    async def _speak(
        self,
        connection: socket.socket,
        address: ServerAddress,
        secure: bool,
        enough: Callable[[bytearray], bool] = at_once,
    ) -> BackendConnection:
        """Make a transport of the socket, with TLS if ``secure`` and the server has it. Owns the socket."""
        loop = asyncio.get_running_loop()
        waiting = PendingConnection(enough)
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                if secure:
                    secure = await self._ask_for_tls(connection)
                if address.family == socket.AF_UNIX:
                    await loop.create_unix_connection(lambda: waiting, sock=connection)
                else:
                    await loop.create_connection(
                        lambda: waiting,
                        sock=connection,
                        ssl=self._context if secure else None,
                        server_hostname=self._settings.host if secure else None,
                    )
        except OSError as error:
            connection.close()
            raise self._unreachable(self._reason(error)) from None
        except BaseException:
            connection.close()
            raise
        if secure and self._certificate_seen is not None:
            certificate = waiting.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self._certificate_seen(certificate or b"")
        return BackendConnection(waiting, address, secure)

    async def _ask_for_tls(self, connection: socket.socket) -> bool:
        await asyncio.get_running_loop().sock_sendall(connection, SSL_REQUEST_FRAME)
        # One byte exactly: what an attacker may have sent behind it must not be taken for decrypted.
        answer = await receive(connection, 1)
        if answer == b"S":
            return True
        if False in self._attempts and answer == b"N":
            return False
        what = "does not support TLS" if answer == b"N" else "gave no answer PostgreSQL would give"
        raise OSError(f"the server {what}, but postgres.sslmode = {self._settings.sslmode!r} demands it")

    def _unreachable(self, reason: str) -> UnreachableError:
        return UnreachableError(f"could not connect to PostgreSQL at {self}: {reason}")

    def _reason(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate was not accepted: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f"TLS failed: {error.reason or error}"
        if isinstance(error, TimeoutError) and error.errno is None:
            return f"no answer within {self._settings.connect_timeout:g} s"
        if isinstance(error, socket.gaierror) or error.errno is None:
            return error.strerror or str(error) or type(error).__name__
        return os.strerror(error.errno).lower()


async def _connect(connection: socket.socket, address: ServerAddress) -> None:
    if address.family != socket.AF_UNIX:
        await asyncio.get_running_loop().sock_connect(connection, address.sockaddr)
        return
    while True:
        try:
            connection.connect(address.sockaddr)
        except BlockingIOError:
            # Unlike TCP, a Unix socket does not queue for a full queue.
            await asyncio.sleep(RETRY_PAUSE)
        else:
            return
