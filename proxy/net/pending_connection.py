"""A connection that no relay has taken over yet: keeps what arrives on it, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from protocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable


class PendingConnection(asyncio.Protocol):
    """Reads until ``enough`` is true of what has arrived, and not beyond the chunk that made it so.

    ``begun`` is what was read of the connection before.
    """

    __slots__ = ("_enough", "_woken", "data", "ended", "error", "lost", "transport")

    transport: asyncio.Transport

    def __init__(self, enough: Callable[[bytearray], bool], begun: bytes = b"") -> None:
        self._enough = enough
        self._woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data = bytearray(begun)
        """All that has arrived, with ``begun`` before it."""
        self.ended = False
        """The peer sends no more."""
        self.lost = False
        self.error: Exception | None = None
        """What the connection was lost by, or what ``enough`` raised."""

    async def wait(self) -> None:
        """Return when there is enough, or no more to come. Raises the ProtocolError that ``enough`` raises."""
        await asyncio.shield(self._woken)
        if self.error is not None and not self.lost:
            raise self.error

    @property
    def over(self) -> bool:
        """Nothing more will arrive."""
        return self.ended or self.lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.data:
            self._look()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._look()

    def _look(self) -> None:
        try:
            if not self._enough(self.data):
                return
        except ProtocolError as error:
            self.error = error
        self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        return self.transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.error = exc
        self._wake()

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)


def never(_data: bytearray) -> bool:
    """Read until the end of the stream."""
    return False


def at_once(_data: bytearray) -> bool:
    """The first bytes are enough."""
    return True
