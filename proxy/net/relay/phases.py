"""What happens to a chunk now: one class for each phase of a session.

    phase                      a chunk of the client's              a chunk of the server's
    -------------------------  -----------------------------------  --------------------------------------------------
    Starting                   forwarded; what follows the last     forwarded by whole messages, up to the first
                               authentication message is kept       ReadyForQuery, with which the phase ends
    Observed                   forwarded, then shown                forwarded, then shown
    ObservedBeforeForwarding   shown, then forwarded when what      forwarded, then shown
                               the observer waits for is done
    Unobserved                 forwarded                            forwarded

Three things lie over the phases: while a query of our own is under way (``asking``), the server's chunks are read for
its answer; while the ``client_gate`` is closed, the client's chunks wait there; and a side that has ended (``ending``)
has no more chunks.

Starting is followed by one of the other three; the observed ones (``observed``) by Unobserved, when the observation
fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from protocol import backend

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from proxy.metrics import Traffic
    from proxy.net.relay.client_gate import ClientGate
    from proxy.net.relay.leg import Leg
    from proxy.net.relay.observer import CatalogQuery
    from proxy.net.startup import Startup

_READY = frozenset(
    (backend.READY_IDLE_FRAME, backend.READY_IN_TRANSACTION_FRAME, backend.READY_FAILED_TRANSACTION_FRAME)
)
_READY_SIZE = len(backend.READY_IDLE_FRAME)


class Phase(Protocol):
    """What a session's chunks are to the relay, and what it may do meanwhile."""

    logged_in: bool
    """The server reads the client's messages, so a Terminate of ours may be among them."""

    def frontend(self, data: bytes) -> None:
        """A chunk of the client's that need not wait."""

    def backend(self, data: bytes) -> None:
        """A chunk of the server's."""

    @property
    def busy(self) -> bool:
        """The server may owe the client an answer."""

    @property
    def between_messages(self) -> bool:
        """The client was sent whole messages only, so that one of ours may follow."""

    def server_ended(self) -> None:
        """The server sends no more: what was kept back for the rest of a message goes to the client."""


class Control(Protocol):
    """What a phase needs of its relay."""

    client: Leg
    backend: Leg
    gate: ClientGate
    phase: Phase
    traffic: Traffic
    peer: str
    """The client, for the log."""

    def logged_in(self, startup: Startup, ready: bytes) -> None:
        """The startup is over: ``ready`` is the first ReadyForQuery, which the client has not got yet."""

    def startup_lost(self, startup: Startup) -> None:
        """The server's bytes make no sense in a startup."""

    def ask(self, query: CatalogQuery) -> None:
        """Ask a query of our own now. The session is idle."""

    def observation_failed(self, error: Exception) -> None:
        """A fault of ours: report it, have what the session may write removed from Redis, and only relay."""

    def spawn(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        """Run a task."""


class Starting:
    """Authentication goes by, up to the first ReadyForQuery."""

    __slots__ = ("_relay", "_startup")

    logged_in = False
    busy = True
    between_messages = True

    def __init__(self, relay: Control, startup: Startup) -> None:
        self._relay = relay
        self._startup = startup

    def frontend(self, data: bytes) -> None:
        self._relay.backend.write(data)
        self._startup.frontend(data)

    def backend(self, data: bytes) -> None:
        startup = self._startup
        if output := startup.backend(data):
            self._relay.client.write(output)
        if startup.lost:
            self._relay.startup_lost(startup)
        elif startup.ready is not None:
            self._relay.logged_in(startup, startup.ready)

    def server_ended(self) -> None:
        if kept := self._startup.release():
            self._relay.client.write(kept)


class Unobserved:
    """Chunks go by unseen; only where the server's messages end is remembered, as far as that can be told."""

    __slots__ = ("_client", "_tail", "frontend")

    logged_in = True
    busy = True

    def __init__(self, relay: Control) -> None:
        self.frontend = relay.backend.write
        self._client = relay.client
        self._tail = b""

    def backend(self, data: bytes) -> None:
        self._client.write(data)
        self._tail = data[-_READY_SIZE:]

    @property
    def between_messages(self) -> bool:
        return self._tail in _READY

    def server_ended(self) -> None:
        """Nothing was kept back."""
