"""One of a session's two connections, as the event loop drives it: what it reads goes to whatever the relay says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.net.pending_connection import PendingConnection
    from proxy.net.relay.relay import Relay


def discard(_data: bytes) -> None:
    """Where bytes go that nobody can get any more."""


class Leg(asyncio.Protocol):
    """One of the two connections. ``receive`` is what the session's phase does with its bytes."""

    __slots__ = ("_ended", "_lost", "_reading", "_relay", "full", "lost", "receive", "received", "transport")

    transport: asyncio.Transport

    def __init__(self, relay: Relay, ended: Callable[[], None], lost: Callable[[bool], None]) -> None:
        self.received = 0
        """Bytes that came over this connection since it was adopted."""
        self._relay = relay
        self._ended = ended
        self._lost = lost
        self._reading = True
        self.receive: Callable[[bytes], None] = discard
        self.full = False
        self.lost = False

    def adopt(self, waiting: PendingConnection) -> None:
        """Take over a connection that is not being read at the moment, and what has become of it."""
        transport = self.transport = waiting.transport
        self._reading = False
        if waiting.lost:
            asyncio.get_running_loop().call_soon(self.connection_lost, waiting.error)
            return
        # So low a mark makes uvloop write at once instead of at the end of its turn: forwarding does come before
        # observing, and no more than the chunk just read ever waits in memory. At zero its TLS would never resume.
        transport.set_write_buffer_limits(high=1, low=0)
        transport.set_protocol(self)
        if waiting.ended:
            asyncio.get_running_loop().call_soon(self.eof_received)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.receive(data)

    def eof_received(self) -> bool:
        self._ended()
        # Half-closed: a TLS connection cannot be, and is closed by the event loop.
        return self.transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._lost(exc is None)

    def pause_writing(self) -> None:
        self.full = True
        self._relay.flow()

    def resume_writing(self) -> None:
        self.full = False
        self._relay.flow()

    def read(self, wanted: bool) -> None:
        """Read from this connection, or leave its bytes where they are."""
        if wanted == self._reading or self.lost or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def half_close(self) -> None:
        """Tell the peer that no more will come, and go on reading."""
        transport = self.transport
        if self.lost or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        elif transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(0.02, self.half_close)
        else:
            # TLS cannot half-close, the TCP connection beneath it can.
            fd = transport.get_extra_info("socket").fileno()
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as twin:
                twin.shutdown(socket.SHUT_WR)
