"""One of a session's two connections, as the event loop drives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.net.pending_connection import PendingConnection

HALF_CLOSE_PAUSE = 0.02
"""Seconds before a TLS connection that still has bytes to send is half-closed again."""


def discard(_data: bytes) -> None:
    """Where bytes go that no peer can get any more, or that no phase may see."""


class Leg(asyncio.Protocol):
    """The client connection or the backend connection of one session.

    Args:
        on_end: called when the peer sends no more.
        on_lost: called once when the connection is closed; True if neither an error nor ``cut`` closed it.
        on_pressure: called when ``full`` has changed.
    """

    __slots__ = (
        "_cut",
        "_on_end",
        "_on_lost",
        "_on_pressure",
        "_reading",
        "full",
        "lost",
        "receive",
        "received",
        "transport",
        "write",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        *,
        on_end: Callable[[], None],
        on_lost: Callable[[bool], None],
        on_pressure: Callable[[], None],
    ) -> None:
        self._on_end = on_end
        self._on_lost = on_lost
        self._on_pressure = on_pressure
        self._reading = True
        self._cut = False
        self.receive: Callable[[bytes], None] = discard
        """Called with each chunk of the peer's: the method of the session's phase for this direction."""
        self.write: Callable[[bytes], None] = discard
        """Sends bytes to the peer, or drops them once it takes none."""
        self.received = 0
        """Bytes that came over this connection since it was adopted."""
        self.full = False
        """The peer does not take what it is sent, so the other leg must not be read."""
        self.lost = False
        """The connection is closed."""

    def adopt(self, pending: PendingConnection) -> None:
        """Take over a connection that is not being read at the moment, and what has become of it."""
        transport = self.transport = pending.transport
        self._reading = False
        if pending.lost:
            asyncio.get_running_loop().call_soon(self.connection_lost, pending.error)
            return
        self.write = transport.write
        # So low a mark makes uvloop write at once instead of at the end of its turn: forwarding does come before
        # observing, and no more than the chunk just read ever waits in memory. At zero its TLS would never resume.
        transport.set_write_buffer_limits(high=1, low=0)
        transport.set_protocol(self)
        if pending.ended:
            asyncio.get_running_loop().call_soon(self.eof_received)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.receive(data)

    def deliver(self, data: bytes) -> None:
        """Take what had been read of the peer before the connection was adopted."""
        self.receive(data)

    def give_up_writing(self) -> None:
        """The peer takes no more: what is written is dropped, and need not be waited for."""
        self.write = discard
        self.full = False
        self._on_pressure()

    def eof_received(self) -> bool:
        self._on_end()
        # Half-closed: a TLS connection cannot be, and is closed by the event loop.
        return self.transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.write = discard
        self._on_lost(exc is None and not self._cut)

    def pause_writing(self) -> None:
        self.full = True
        self._on_pressure()

    def resume_writing(self) -> None:
        self.full = False
        self._on_pressure()

    def read(self, wanted: bool) -> None:
        """Read from this connection, or leave its bytes where they are."""
        if wanted == self._reading or self.lost or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def cut(self) -> None:
        """Close the connection at once, whatever is still to be said in either direction."""
        if not self.lost:
            self._cut = True
            self.transport.abort()

    def half_close(self) -> None:
        """Tell the peer that no more will come, and go on reading."""
        transport = self.transport
        if self.lost or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        elif transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(HALF_CLOSE_PAUSE, self.half_close)
        else:
            # TLS cannot half-close, the TCP connection beneath it can.
            fd = transport.get_extra_info("socket").fileno()
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as twin:
                twin.shutdown(socket.SHUT_WR)
