"""A session's connection to PostgreSQL: with TLS or without, as sslmode says, up to the startup packet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.backend import ERROR_RESPONSE
from protocol.startup import SSL_REQUEST_FRAME
from proxy.net.dial import UnreachableError, dial, receive, unreachable
from proxy.net.pending_connection import PendingConnection, at_once, never
from proxy.net.tls import ATTEMPTS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from proxy.config.sections import PostgresSection
    from proxy.net.dial import ServerAddress

CANCEL_TIMEOUT = 10.0
"""Seconds until a CancelRequest counts as delivered even if the server does not close."""


@dataclass(slots=True)
class BackendConnection:
    """A connection that has been sent the startup packet and is not being read."""

    pending: PendingConnection
    address: ServerAddress
    secure: bool
    """It uses TLS."""


class Backend:
    """The server behind the proxy, as one ``[postgres]`` section describes it.

    Args:
        context: how to speak TLS; None where that is ruled out.
        certificate_seen: told the server's certificate (DER) at every connection with TLS.
    """

    def __init__(
        self,
        settings: PostgresSection,
        context: ssl.SSLContext | None,
        certificate_seen: Callable[[bytes], None] | None = None,
    ) -> None:
        self._settings = settings
        self._context = context
        self._certificate_seen = certificate_seen
        self._attempts = (False,) if context is None else ATTEMPTS[settings.sslmode]

    async def connect(self, packet: bytes) -> BackendConnection:
        """Connect and send ``packet``, with TLS and without as sslmode allows. Raises UnreachableError.

        As in libpq, a refusal at one of two possible attempts leads to the other; the last one's is the client's.
        """
        *first, last = self._attempts
        for secure in first:
            address, connection = await dial(self._settings)
            try:
                found = await self._start(connection, address, secure)
            except UnreachableError:
                continue
            found.pending.transport.write(packet)
            # Without the TLS that was asked for, the second attempt would be the first one again.
            if found.secure != secure or not await self._refused(found.pending):
                break
            found.pending.transport.abort()
        else:
            address, connection = await dial(self._settings)
            found = await self._start(connection, address, last)
            found.pending.transport.write(packet)
        found.pending.transport.pause_reading()
        return found

    async def _refused(self, pending: PendingConnection) -> bool:
        # A server that lets clients wait (a pooler in front of a full one) has at least not refused.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.connect_timeout):
                await pending.wait()
            return not pending.data or pending.data[0] == ERROR_RESPONSE
        return False

    async def cancel(self, packet: bytes, address: ServerAddress | None = None) -> None:
        """Deliver a CancelRequest, to ``address`` if the session's is known, and wait until the server has taken it.
        Raises UnreachableError."""
        address, connection = await dial(self._settings, address)
        found = await self._start(connection, address, self._attempts[0], never)
        try:
            found.pending.transport.write(packet)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT):
                    await found.pending.wait()
        finally:
            found.pending.transport.abort()

    async def _start(
        self,
        connection: socket.socket,
        address: ServerAddress,
        secure: bool,
        enough: Callable[[bytearray], bool] = at_once,
    ) -> BackendConnection:
        """Make a transport of the socket, with TLS if ``secure`` and the server has it. Owns the socket."""
        loop = asyncio.get_running_loop()
        pending = PendingConnection(enough)
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                if secure:
                    secure = await self._ask_for_tls(connection)
                if address.family == socket.AF_UNIX:
                    await loop.create_unix_connection(lambda: pending, sock=connection)
                else:
                    await loop.create_connection(
                        lambda: pending,
                        sock=connection,
                        ssl=self._context if secure else None,
                        server_hostname=self._settings.host if secure else None,
                    )
        except OSError as error:
            connection.close()
            raise unreachable(self._settings, error) from None
        except BaseException:
            connection.close()
            raise
        if secure and self._certificate_seen is not None:
            certificate = pending.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self._certificate_seen(certificate or b"")
        return BackendConnection(pending, address, secure)

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
