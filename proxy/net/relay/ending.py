"""How a session ends: which side went away first decides what becomes of the other, and how long that may take.

The client first   the backend is told that no more will come, and its answers go to a client that still reads. When
                   the client is gone or nothing moves for ``SILENCE``, what the backend is busy with is cancelled, and
                   the answer is waited for, so that the outcome is known. A backend that does not end within
                   ``GONE_TIMEOUT`` is cut.
The server first   the client gets all there was, then the end; one that reads nothing for ``LINGER_TIMEOUT`` is cut.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy import logs
from proxy.net.relay.leg import discard

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.net.relay.leg import Leg

SILENCE = 1.0
"""Seconds of the server saying nothing before a client that sends no more counts as gone: some half-close and read."""
GONE_TIMEOUT = 10.0
"""Seconds a cancelled statement has to end after its client has gone."""
LINGER_TIMEOUT = 60.0
"""Seconds without progress in which a client may leave the server's last words unread."""

log = logs.get()


class Ending:
    """The end of one session. It has one timer, since only one of the two stories can be under way.

    Args:
        busy: whether the server may owe an answer.
        cancel: sends a CancelRequest for the session.
        peer: the client, for the log.
    """

    __slots__ = (
        "_backend",
        "_busy",
        "_cancel",
        "_cancelled",
        "_client",
        "_client_ended",
        "_moved",
        "_peer",
        "_timer",
        "server_ended",
        "server_finished",
    )

    def __init__(
        self, client: Leg, backend: Leg, *, busy: Callable[[], bool], cancel: Callable[[], None], peer: str
    ) -> None:
        self._client = client
        self._backend = backend
        self._busy = busy
        self._cancel = cancel
        self._peer = peer
        self._timer: asyncio.TimerHandle | None = None
        self._client_ended = False
        self._cancelled = False
        self._moved = False
        """The client was sent something since its silence is measured."""
        self.server_ended = False
        """The server sends no more."""
        self.server_finished = False
        """All the server had to say was seen: its stream has an end, it did not break off."""

    # The client first.

    def client_ended(self) -> None:
        """The client sends no more, but may still read. Called again when its connection is closed as well."""
        first, self._client_ended = not self._client_ended, True
        if self.server_ended:
            return
        if first:
            if not self._client.lost:
                self._client.write = self._noting_progress(self._client.write)
            self._backend.half_close()
        if not self._cancelled:
            self._start_timer(0 if self._client.lost and self._busy() else SILENCE, self._client_silent)

    def _noting_progress(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def write_and_note(data: bytes) -> None:
            self._moved = True
            write(data)

        return write_and_note

    def _client_silent(self) -> None:
        if (self._moved or self._client.full) and not self._client.lost:
            self._moved = False
            self._start_timer(SILENCE, self._client_silent)
        elif not self._cancelled:
            self._cancelled = True
            if self._busy():
                self._cancel()
            self._start_timer(GONE_TIMEOUT, self._client_silent)
        else:
            log.warning("the backend did not end after its client had gone, connection cut", client=self._peer)
            self._backend.cut()

    # The server first.

    def server_first(self) -> None:
        """All the server had to say was written to the client: close both connections."""
        self.stop_timer()
        if not self._backend.lost:
            self._backend.transport.close()
        if not self._client.lost:
            self._client.transport.close()
            self._start_timer(LINGER_TIMEOUT, self._client_lingers, self._client.transport.get_write_buffer_size())

    def note_server_end(self, *, clean: bool) -> None:
        """The server sends no more, and takes no more. ``clean``: at the end of its stream."""
        self.server_ended = True
        self.server_finished = clean
        self._backend.write = discard

    def _client_lingers(self, before: int) -> None:
        left = self._client.transport.get_write_buffer_size()
        if left < before:
            self._start_timer(LINGER_TIMEOUT, self._client_lingers, left)
        else:
            self._client.cut()

    # Time.

    def _start_timer(self, delay: float, action: Callable[..., None], *arguments: object) -> None:
        self.stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay, action, *arguments)

    def stop_timer(self) -> None:
        """Both connections are closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
