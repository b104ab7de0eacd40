"""The floor: a relay on uvloop that forwards chunks and looks at nothing.

    python -m benchmarks.floor 127.0.0.1:7000 127.0.0.1:5432

What any relay in Python with the same event loop and the same back-pressure costs at least; benchmarks/relay.py
measures Rowtap beside it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable


class Leg(asyncio.Protocol):
    """One side of a connection; what comes in goes out at the other."""

    __slots__ = ("other", "transport", "write")

    other: Leg
    transport: asyncio.Transport
    write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self.write = self.transport.write
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # As Rowtap: write at once, and hold no more than a chunk when the receiver is slow.
        self.transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        self.other.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.transport.close()


class ClientLeg(Leg):
    """Makes the connection to the server; what the client says meanwhile waits for it."""

    __slots__ = ("_connecting", "_early", "_target")

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._early: list[bytes] = []
        self.other = Leg()
        self.other.other = self
        self.other.write = self._early.append

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.other, *self._target)
        except OSError:
            self.transport.abort()
        else:
            self.other.transport.writelines(self._early)

    def eof_received(self) -> bool:
        return hasattr(self.other, "transport") and super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connecting.cancel()
        if hasattr(self.other, "transport"):
            super().connection_lost(exc)


async def serve(listen: tuple[str, int], target: tuple[str, int]) -> None:
    """Relay until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: ClientLeg(target), *listen)
    async with server:
        await server.serve_forever()


def address(text: str) -> tuple[str, int]:
    """`host:port`."""
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.floor LISTEN TARGET (each host:port)")
    try:
        uvloop.run(serve(address(sys.argv[1]), address(sys.argv[2])))
    except KeyboardInterrupt:
        sys.exit(130)
