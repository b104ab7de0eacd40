"""How PostgreSQL is reached: every address that ``[postgres]`` stands for, and in words why none of them answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.config.os_errors import reason_of
from proxy.net.tls import failure_of

if TYPE_CHECKING:
    from proxy.config.sections import PostgresSection

RETRY_PAUSE = 0.01
"""Seconds before a Unix socket with a full queue is tried again."""

_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


class UnreachableError(Exception):
    """PostgreSQL cannot be reached; the message says where and why, fit for a client."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One address a server's name stands for."""

    family: int
    sockaddr: Any
    """As ``socket.connect`` takes it for this family."""


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


async def dial(settings: PostgresSection, address: ServerAddress | None = None) -> tuple[ServerAddress, socket.socket]:
    """Connect to ``address``, or to the first that answers of those ``settings`` stands for.

    Each has ``connect_timeout``. Returns the address and its socket, which is the caller's to close. Raises
    UnreachableError.
    """
    failures = []
    for candidate in [address] if address is not None else await addresses(settings):
        try:
            async with asyncio.timeout(settings.connect_timeout):
                return candidate, await _open(candidate)
        except OSError as error:
            failures.append(_reason(settings, error))
    raise UnreachableError(f"{_prefix(settings)}: {', '.join(dict.fromkeys(failures))}")


def unreachable(settings: PostgresSection, error: OSError) -> UnreachableError:
    """``error`` in words. A TimeoutError without a number is that of ``connect_timeout``."""
    return UnreachableError(f"{_prefix(settings)}: {_reason(settings, error)}")


async def addresses(settings: PostgresSection) -> list[ServerAddress]:
    """All addresses of the server, in the order to try them. Raises UnreachableError."""
    if (path := settings.socket_path) is not None:
        return [ServerAddress(socket.AF_UNIX, path)]
    host, port = settings.host, settings.port
    try:
        # An address needs no resolver, and so no thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        try:
            async with asyncio.timeout(settings.connect_timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise unreachable(settings, error) from None
    return [ServerAddress(family, sockaddr) for family, _, _, _, sockaddr in found]


async def _open(address: ServerAddress) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        tune(connection)
        await _connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect(connection: socket.socket, address: ServerAddress) -> None:
    if address.family != socket.AF_UNIX:
        await asyncio.get_running_loop().sock_connect(connection, address.sockaddr)
        return
    while True:
        try:
            connection.connect(address.sockaddr)
        except BlockingIOError:
            # A TCP connection waits until the server's queue has room; a Unix socket is refused at once.
            await asyncio.sleep(RETRY_PAUSE)
        else:
            return


def _prefix(settings: PostgresSection) -> str:
    return f"could not connect to PostgreSQL at {settings}"


def _reason(settings: PostgresSection, error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return failure_of(error)
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer within {settings.connect_timeout:g} s"
    return reason_of(error)
