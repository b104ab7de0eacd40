"""Where a client's chunks wait while they must not be forwarded yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.net.relay.leg import discard

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.net.relay.leg import Leg


class ClientGate:
    """Decides what ``receive`` of the client's leg is.

    open        a chunk goes where the session's phase has it go (``pass_to``)
    closed      a chunk that was read already waits here, and the client is not read. The gate is closed while a query
                of our own is under way, while Redis confirms a block, and while the client is over its limit.
    finished    the client sends no more and nothing waits: what comes all the same is dropped

    The client's end of stream waits like a chunk, behind all others.

    Args:
        flow: called when the gate was opened or closed, to read the client or not.
        on_end: called when the client's end of stream has gone through.
    """

    __slots__ = (
        "_client",
        "_end_waits",
        "_flow",
        "_forward",
        "_on_end",
        "_waiting",
        "ended",
        "finished",
        "over_limit",
    )

    def __init__(self, client: Leg, flow: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._client = client
        self._flow = flow
        self._on_end = on_end
        self._forward: Callable[[bytes], None] = discard
        self._waiting: list[bytes] | None = None
        """The chunks that wait; None while the gate is open."""
        self._end_waits = False
        self.over_limit = False
        """The gate is closed because too much of what the client sent is unanswered."""
        self.ended = False
        """The client sends no more; its end of stream may still wait."""
        self.finished = False
        """The client's end of stream has gone through."""

    @property
    def is_open(self) -> bool:
        """No chunk has to wait."""
        return self._waiting is None

    def pass_to(self, forward: Callable[[bytes], None]) -> None:
        """Where chunks go while the gate is open, and those that wait when it opens."""
        self._forward = forward
        self._direct()

    def close(self) -> None:
        """Let chunks wait from now on."""
        if self._waiting is None:
            self._waiting = []
            self._direct()
        self._flow()

    def open(self) -> None:
        """Let through what waits, and what comes. A chunk may close the gate again for those behind it."""
        waiting, self._waiting = self._waiting or [], None
        self._direct()
        for position, chunk in enumerate(waiting):
            self._client.receive(chunk)
            if self._waiting is not None:
                self._waiting.extend(waiting[position + 1 :])
                return
        if self._end_waits:
            self._end_waits = False
            self._finish()
        self._flow()

    def put_off(self, data: bytes) -> None:
        """Let the rest of a chunk wait, of which the first part closed the gate."""
        assert self._waiting is not None
        self._waiting.append(data)

    def stop_client(self) -> None:
        """The client is over its limit."""
        self.over_limit = True
        self.close()

    def resume_client(self) -> None:
        """Enough is answered, or the limit does not matter any more."""
        self.over_limit = False
        self.open()

    def end(self) -> None:
        """The client sends no more. Called again when its connection is closed as well."""
        self.ended = True
        if self._waiting is not None:
            self._end_waits = True
        else:
            self._finish()

    def end_lost(self) -> None:
        """The client's connection is closed: it cannot send more than what waits, so no limit applies to that."""
        while self.over_limit:
            self.resume_client()
        self.end()

    def end_terminated(self) -> None:
        """The session is ended by us: what waits because of the limit is dropped."""
        if self.over_limit:
            self.over_limit = False
            self._waiting = None
        self.end()

    def _finish(self) -> None:
        self.finished = True
        self._direct()
        self._on_end()

    def _direct(self) -> None:
        if self.finished:
            self._client.receive = discard
        elif self._waiting is not None:
            self._client.receive = self._waiting.append
        else:
            self._client.receive = self._forward
