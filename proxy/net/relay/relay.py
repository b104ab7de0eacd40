"""One session's two connections: chunks are forwarded as they come, and only then looked at.

Nothing here waits for a message. Back-pressure goes from each side to the other: while one side does not take what it
is sent, the other is not read. ``phases`` says what happens to a chunk, ``ending`` how a session ends.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from protocol.frontend import TERMINATE_FRAME
from proxy import logs
from proxy.net.relay.asking import Asking
from proxy.net.relay.client_gate import ClientGate
from proxy.net.relay.ending import Ending
from proxy.net.relay.leg import Leg, discard
from proxy.net.relay.message_log import LoggedLeg
from proxy.net.relay.observation import Observation
from proxy.net.relay.observed import Observed, ObservedBeforeForwarding
from proxy.net.relay.phases import Starting, Unobserved
from proxy.net.startup import Startup, fatal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from protocol.startup import StartupMessage
    from proxy.metrics import Traffic
    from proxy.net.pending_connection import PendingConnection
    from proxy.net.relay.message_log import MessageLog
    from proxy.net.relay.observer import CatalogQuery, Observer
    from proxy.net.relay.phases import Phase

log = logs.get()


class RelayHost(Protocol):
    """What a relay needs of the server it belongs to."""

    traffic: Traffic
    on_internal_error: Callable[[str, BaseException], None]
    """See ``cache.counts.ErrorReport``."""

    def observe(self, database: str, user: str, parameters: dict[str, str], startup: dict[str, str]) -> Observer | None:
        """A new session's observation, given what ParameterStatus reported and what the client's startup message said;
        None: this session is only relayed."""

    def spawn(self, coroutine: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run a task that is the server's to keep."""

    def started(self, relay: Relay, key: bytes | None) -> None:
        """The session is authenticated and may be cancelled by this key (BackendKeyData's body)."""

    def cancel(self, relay: Relay, key: bytes) -> None:
        """Send a CancelRequest to where the session's backend is."""

    def ended(self, relay: Relay) -> None:
        """Both connections are closed."""


class Relay:
    """One session, from its startup packet until both connections are closed. A ``phases.Control``.

    Args:
        message: the client's startup message; None if it could not be read, and the session is only relayed.
        strip_channel_binding: the client must not be offered SCRAM-SHA-256-PLUS.
        peer: the client, for the log.
        messages: where each message is logged, if at all.
    """

    __slots__ = (
        "__weakref__", "_asking", "_ending", "_host", "_key", "_message", "_observation",
        "backend", "client", "finished", "gate", "peer", "phase", "traffic",
    )  # fmt: skip

    def __init__(
        self,
        host: RelayHost,
        message: StartupMessage | None,
        *,
        strip_channel_binding: bool,
        peer: str,
        messages: MessageLog | None = None,
    ) -> None:
        self._host = host
        self._message = message
        self._observation = Observation(host.observe, host.on_internal_error)
        self._asking: Asking | None = None
        """The query of our own that is under way."""
        self._key: bytes | None = None
        self.traffic = host.traffic
        self.peer = peer
        client_leg = Leg if messages is None else partial(LoggedLeg, messages.frontend)
        backend_leg = Leg if messages is None else partial(LoggedLeg, messages.backend)
        self.client: Leg = client_leg(on_end=lambda: self.gate.end(), on_lost=self._client_lost, on_pressure=self.flow)
        self.backend: Leg = backend_leg(on_end=self._server_ended, on_lost=self._server_lost, on_pressure=self.flow)
        self._ending = Ending(self.client, self.backend, busy=self._busy, cancel=self._cancel, peer=peer)
        self.gate: ClientGate = ClientGate(self.client, self.flow, self._ending.client_ended)
        self.phase: Phase = Starting(self, Startup(strip_channel_binding=strip_channel_binding))
        self.finished = False

    def begin(self, client: PendingConnection, backend: PendingConnection, early: bytes) -> None:
        """Join two connections that are not being read. ``early`` is what the client sent behind its startup packet;
        the backend's ``data`` is what it has answered to that."""
        self.client.adopt(client)
        self.backend.adopt(backend)
        if backend.over:
            self.backend.write = discard
        self._enter(self.phase)
        if early:
            self.client.deliver(early)
        if backend.data:
            self.backend.deliver(bytes(backend.data))
        self.flow()

    def flow(self) -> None:
        """Read each side only while the other takes what it is sent."""
        self.client.read(not self.backend.full and self.gate.is_open)
        self.backend.read(not self.client.full)

    def spawn(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        """See ``phases.Control``."""
        self._host.spawn(coroutine, name)

    # From phase to phase.

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.gate.pass_to(phase.frontend)
        if self._asking is None:
            self.backend.receive = phase.backend

    def startup_lost(self, startup: Startup) -> None:
        """See ``phases.Control``."""
        log.warning("startup not understood, session only relayed", client=self.peer)
        if self._observation.begin(self._message, startup):
            self._only_relay()
        else:
            self.abort()

    def logged_in(self, startup: Startup, ready: bytes) -> None:
        """See ``phases.Control``."""
        self._key = startup.cancel_key
        self._host.started(self, self._key)
        if not self._observation.begin(self._message, startup):
            self.abort()
            return
        observer = self._observation.observer
        if observer is None or observer.blinded:
            self.client.write(ready + startup.rest)
            self._only_relay()
            return
        phase = (ObservedBeforeForwarding if observer.before_commit else Observed)(self, observer)
        self._enter(phase)
        if startup.early:
            phase.show_early(bytes(startup.early))
        query = phase.wanted_query()
        if query is None:
            self.client.write(ready)
        else:
            self.ask(query, held=ready)
        if startup.rest:
            self.backend.receive(startup.rest)

    def _only_relay(self) -> None:
        self._enter(Unobserved(self))
        if self.gate.over_limit:
            self.gate.resume_client()

    def observation_failed(self, error: Exception) -> None:
        """See ``phases.Control``."""
        self._observation.report(error)
        self._observation.desynchronize("internal error while its traffic was looked at")
        self._only_relay()

    # Queries of our own, at moments when the session is idle.

    def ask(self, query: CatalogQuery, held: bytes = b"") -> None:
        """See ``phases.Control``. ``held`` goes to the client when the query is concluded."""
        self._asking = Asking(self, query, held, self._asked)
        self._asking.begin()

    def _asked(self, followed: bool) -> None:
        self._asking = None
        if followed:
            self.backend.receive = self.phase.backend
        else:
            log.warning("the answer to our query cannot be read, session only relayed", client=self.peer)
            self._observation.desynchronize("the answer to a query of ours cannot be read")
            self._only_relay()

    # Ends.

    def _client_lost(self, _clean: bool) -> None:
        self.client.give_up_writing()
        self.gate.end_lost()
        self._finish_if_over()

    def _server_lost(self, clean: bool) -> None:
        self._server_ended(clean=clean)
        self._finish_if_over()

    def _server_ended(self, *, clean: bool = True) -> None:
        if self._ending.server_ended:
            return
        self._ending.note_server_end(clean=clean)
        self.gate.pass_to(discard)
        if self._asking is not None:
            self._asking.conclude(None)
        self.phase.server_ended()
        self._ending.server_first()

    def _busy(self) -> bool:
        return self.phase.busy

    def _cancel(self) -> None:
        if self._key is not None:
            self._host.cancel(self, self._key)

    def terminate(self) -> None:
        """End the session as PostgreSQL's administrator would. Between messages the client is told why."""
        if self._ending.server_ended or self.finished:
            return
        if self.phase.between_messages:
            if self._asking is not None:
                self._asking.release()
            self.client.write(fatal("57P01", "terminating connection due to administrator command"))
            if not self.gate.finished and self._asking is None and self.phase.logged_in:
                self.backend.write(TERMINATE_FRAME)
        if not self.client.lost:
            self.client.transport.close()
        self.client.give_up_writing()
        self.gate.end_terminated()

    def abort(self) -> None:
        """Cut both connections now."""
        self.client.cut()
        self.backend.cut()

    def _finish_if_over(self) -> None:
        if self.finished or not (self.client.lost and self.backend.lost):
            return
        self.finished = True
        self._ending.stop_timer()
        self._observation.close(backend_ended=self._ending.server_finished)
        self._host.ended(self)
