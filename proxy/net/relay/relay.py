"""One session's two connections: chunks are forwarded as they come, and only then looked at.

Nothing here awaits for a message. Back-pressure goes from each side to the other: while one side does not take what it
is sent, the other is not read. Who went away first decides what becomes of the rest; ``_client_ended`` and
``_backend_ended`` are the two stories.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from protocol.backend import ReadyForQuery
from protocol.frontend import Flush, Terminate
from proxy import logs
from proxy.net.relay.injected_query import InjectedQuery
from proxy.net.relay.leg import Leg, discard
from proxy.net.startup import Startup, fatal, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from protocol.startup import StartupMessage
    from proxy.net.pending_connection import PendingConnection
    from proxy.net.relay.observer import CatalogQuery, HoldingObserver, Host, Observer

SAMPLED = 15
"""Of the server's chunks one in this many plus one is timed."""
QUESTION_TIMEOUT = 5.0
"""Seconds a client waits for a question of ours; longer than the server's own limit for it."""
SILENCE = 1.0
"""Seconds of the server saying nothing before a client that sends no more counts as gone: some half-close and read."""
GONE_TIMEOUT = 10.0
"""Seconds a cancelled statement has to end after its client has gone."""
LINGER_TIMEOUT = 60.0
"""Seconds without progress in which a client may leave the server's last words unread."""

SLICE = 16_384
"""Bytes of a client's requests that go at once."""

log = logs.get()


UNOBSERVED = "observation failed, session only relayed from here on"
_FLUSH = bytes(Flush())
_READY = frozenset(bytes(ReadyForQuery(status)) for status in b"ITE")


class Relay:
    """One session, from its startup packet until both connections are closed."""

    __slots__ = (
        "__weakref__",
        "_backend_eof",
        "_backend_over",
        "_before_commit",
        "_cancelled",
        "_chunks",
        "_client_over",
        "_eof_waits",
        "_exchange",
        "_forward",
        "_gate",
        "_held",
        "_host",
        "_key",
        "_loop",
        "_message",
        "_moved",
        "_observer",
        "_observing",
        "_over_limit",
        "_question",
        "_session",
        "_startup",
        "_tail",
        "_timer",
        "_to_backend",
        "_to_client",
        "backend",
        "client",
        "finished",
        "peer",
    )

    def __init__(self, host: Host, message: StartupMessage | None, *, strip_channel_binding: bool, peer: str) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._message = message
        self._startup: Startup | None = Startup(strip_channel_binding=strip_channel_binding)
        self._session: Observer | None = None
        self._observer: Observer
        """The session, while it is observed."""
        self._observing = False
        self._tail = b""
        self._key: bytes | None = None
        self.peer = peer
        """Who the client is, for the log."""
        self.client = Leg(self, self._client_eof, self._client_lost)
        self.backend = Leg(self, self._backend_ended, self._backend_lost)
        self._to_client: Callable[[bytes], None] = discard
        self._to_backend: Callable[[bytes], None] = discard
        self._forward: Callable[[bytes], None] = discard
        self._before_commit = False
        # While a list, the client's chunks wait in it.
        self._gate: list[bytes] | None = None
        self._over_limit = False
        """The client waits because too much of what it said is unanswered."""
        self._eof_waits = False
        self._exchange: InjectedQuery | None = None
        self._question: CatalogQuery | None = None
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None
        self._chunks = 0
        self._client_over = False
        self._backend_over = False
        self._backend_eof = False
        self._cancelled = False
        self._moved = False
        self.finished = False

    def begin(self, client: PendingConnection, backend: PendingConnection, early: bytes) -> None:
        """Join two connections that are not being read. ``early`` is what the client sent behind its startup packet;
        the backend's ``data`` is what it has answered to that."""
        self.client.adopt(client)
        self.backend.adopt(backend)
        if not client.lost:
            self._to_client = client.transport.write
        if not backend.over:
            self._to_backend = backend.transport.write
        self.backend.receive = self._backend_starting
        self._forward = self.client.receive = self._frontend_starting
        if early:
            self._frontend_starting(early)
        if backend.data:
            self._backend_starting(bytes(backend.data))
        self.flow()

    # Startup: authentication goes by, up to the first ReadyForQuery.

    def _frontend_starting(self, data: bytes) -> None:
        self._to_backend(data)
        assert self._startup is not None
        self._startup.frontend(data)

    def _backend_starting(self, data: bytes) -> None:
        startup = self._startup
        assert startup is not None
        if output := startup.backend(data):
            self._to_client(output)
        if startup.lost:
            log.warning("startup not understood, session only relayed", client=self.peer)
            self._session = self._observation(startup)
            self._relay_blindly()
        elif startup.ready is not None:
            self._ready(startup, startup.ready)

    def _ready(self, startup: Startup, ready: bytes) -> None:
        self._key = startup.cancel_key
        self._host.started(self, self._key)
        session = self._session = self._observation(startup)
        if session is None or session.blinded:
            self._to_client(ready + startup.rest)
            self._relay_blindly()
            return
        self._startup = None
        self._observing = True
        self._observer = session
        self._before_commit = getattr(session, "before_commit", False)
        self._mode(self._frontend_held if self._before_commit else self._frontend_observed, self._backend_observed)
        if startup.early:
            self._observed(session.frontend, bytes(startup.early))
        self._held = ready
        self._ask_if_wanted()
        if self._exchange is None:
            self._release()
        if startup.rest:
            self.backend.receive(startup.rest)

    def _observation(self, startup: Startup) -> Observer | None:
        message = self._message
        if message is None or message.replication:
            return None
        sent = {text(name): text(value) for name, value in message.parameters}
        session = self._host.observe(text(message.database), text(message.user), startup.parameters, sent)
        if session is not None and not startup.followed:
            # What it writes can still change configured tables: it is blind, not unobserved.
            session.desynchronize("its startup could not be followed")
        return session

    def _relay_blindly(self) -> None:
        self._startup = None
        self._observing = False
        self._mode(self._to_backend, self._backend_blind)
        if self._over_limit:
            self._resume_client()

    def _backend_blind(self, data: bytes) -> None:
        self._to_client(data)
        self._tail = data[-6:]

    def _mode(self, forward: Callable[[bytes], None], backward: Callable[[bytes], None]) -> None:
        """What happens to chunks of either side from now on."""
        self._forward = forward
        if not self._client_over and self._gate is None:
            self.client.receive = forward
        self.backend.receive = backward

    def _release(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._to_client(held)

    # The session proper.

    # These two see every chunk, so they say themselves what ``_observed`` and ``_ask_if_wanted`` say for the others.

    def _frontend_observed(self, data: bytes) -> None:
        if len(data) > SLICE and not self._observer.is_bulk(data):
            self._in_slices(data)
            return
        self._to_backend(data)
        try:
            self._observer.frontend(data)
        except Exception:
            log.exception(UNOBSERVED, client=self.peer)
            self._relay_blindly()
            return
        if self._observer.over_limit:
            self._slow_down()

    def _backend_observed(self, data: bytes) -> None:
        self._chunks += 1
        if self._chunks & SAMPLED:
            self._to_client(data)
        else:
            began = time.perf_counter()
            self._to_client(data)
            self._host.traffic.latency.add(time.perf_counter() - began)
        try:
            self._observer.backend(data)
        except Exception:
            log.exception(UNOBSERVED, client=self.peer)
            self._relay_blindly()
            return
        if self._over_limit and not self._observer.over_limit:
            self._resume_client()
        if not self._client_over and not self._eof_waits:
            question = self._observer.wants_catalog()
            if question is not None:
                self._ask(question)

    def _frontend_held(self, data: bytes) -> None:
        session = cast("HoldingObserver", self._session)
        self._observed(session.frontend, data)
        hold = session.before_forwarding if self._observing else None
        if hold is None:
            self._to_backend(data)
            if self._observing and session.over_limit:
                self._slow_down()
        else:
            self._close_gate()
            self._host.spawn(self._wait(hold, data), "hold")

    async def _wait(self, hold: Awaitable[object], data: bytes) -> None:
        try:
            await hold
        except Exception:
            log.exception("waiting before a write failed", client=self.peer)
        self._to_backend(data)
        if self._observing and self._observer.over_limit:
            self._slow_down()
        if not self._over_limit:
            self._open_gate()

    def _observed(self, observe: Callable[[bytes], None], data: bytes) -> None:
        try:
            observe(data)
        except Exception:
            log.exception(UNOBSERVED, client=self.peer)
            self._relay_blindly()

    # A client that runs far ahead of its server: what is unanswered has to be remembered, so it waits. The two must not
    # end up waiting for each other: the server sends its answers with ReadyForQuery, and before that when told to Flush
    # (manual, "Extended Query"), which is put in where a message of the client's ends and is owed no answer of its own.

    def _in_slices(self, data: bytes) -> None:
        """So many small requests may be in one chunk that the client must wait in the middle of it."""
        for start in range(0, len(data), SLICE):
            if self._gate is not None:
                self._gate.append(data[start:])
                return
            self.client.receive(data[start : start + SLICE])

    def _slow_down(self) -> None:
        """Too much is unanswered now."""
        if not self._observer.answers_due:
            if not self._observer.between_messages:
                self._mode(self._frontend_divided, self.backend.receive)
                return
            self._to_backend(_FLUSH)
        self._over_limit = True
        self._close_gate()

    def _frontend_divided(self, data: bytes) -> None:
        """What ends the client's unfinished message goes first; then is the moment to make it wait, if need be."""
        rest = self._observer.message_rest(data)
        self._mode(self._frontend_held if self._before_commit else self._frontend_observed, self.backend.receive)
        self.client.receive(data[:rest])
        if rest < len(data):
            self.client.receive(data[rest:])

    def _resume_client(self) -> None:
        """Enough is answered."""
        self._over_limit = False
        self._open_gate()

    # Questions of our own, at moments when the session is idle.

    def _ask_if_wanted(self) -> None:
        session = self._session
        if session is None or not self._observing or self._client_over or self._eof_waits or self._exchange is not None:
            return
        question = session.wants_catalog()
        if question is not None:
            self._ask(question)

    def _ask(self, question: CatalogQuery) -> None:
        self._question = question
        self._exchange = InjectedQuery(question.query)
        self._close_gate()
        self.backend.receive = self._backend_asked
        self._send_question()
        self._watch(QUESTION_TIMEOUT, self._question_late)

    def _send_question(self) -> None:
        assert self._exchange is not None
        request, self._exchange.to_send = self._exchange.to_send, b""
        if request:
            self._to_backend(request)

    def _backend_asked(self, data: bytes) -> None:
        exchange = self._exchange
        session = self._session
        assert exchange is not None
        assert session is not None
        output = exchange.feed(data)
        if exchange.fatal or exchange.lost:
            self._release()
        if output:
            self._to_client(output)
            if self._observing:
                self._observed(session.backend, output)
        self._send_question()
        if exchange.done:
            self._answered(exchange)

    def _answered(self, exchange: InjectedQuery) -> None:
        self._exchange = None
        if exchange.lost:
            log.warning("the answer to our question made no sense, session only relayed", client=self.peer)
            self._relay_blindly()
        else:
            self.backend.receive = self._backend_observed if self._observing else self._backend_blind
        self._conclude(exchange.result)
        if exchange.rest:
            self.backend.receive(exchange.rest)

    def _question_late(self) -> None:
        """The client goes on; the answer is still waited for, because it must not reach the client."""
        log.warning("the catalog query was not answered in time", client=self.peer, seconds=QUESTION_TIMEOUT)
        self._conclude(None)

    def _conclude(self, result: bytes | None) -> None:
        question, self._question = self._question, None
        if question is None:
            return
        self._unwatch()
        question.answer(result)
        self._release()
        self._open_gate()

    # Flow.

    def flow(self) -> None:
        """Read each side only while the other takes what it is sent."""
        self.client.read(not self.backend.full and self._gate is None)
        self.backend.read(not self.client.full)

    def _close_gate(self) -> None:
        if self._gate is None:
            self._gate = []
            if not self._client_over:
                self.client.receive = self._gate.append
        self.flow()

    def _open_gate(self) -> None:
        waiting = self._gate or []
        self._gate = None
        if not self._client_over:
            self.client.receive = self._forward
        for position, chunk in enumerate(waiting):
            self.client.receive(chunk)
            if self._gate is not None:
                # A chunk has to wait again, and those behind it with it.
                self._gate.extend(waiting[position + 1 :])
                return
        if self._eof_waits:
            self._eof_waits = False
            self._client_ended()
        self.flow()

    # The client goes first.

    def _client_eof(self) -> None:
        if self._gate is not None:
            self._eof_waits = True
        else:
            self._client_ended()

    def _client_lost(self, _clean: bool) -> None:
        self._forget_client()
        while self._over_limit:
            self._resume_client()  # It will not say more than what waits.
        self._client_eof()
        self._finish_if_over()

    def _forget_client(self) -> None:
        self._to_client = discard
        self.client.full = False
        self.flow()

    def _client_ended(self) -> None:
        """No more is to come of the client, who may still be reading. The backend is told; what it is busy with is
        cancelled when nobody can want the answer, and its end is watched so that the outcome is known."""
        first = not self._client_over
        self._client_over = True
        self.client.receive = discard
        if self._backend_over:
            return
        if first:
            if not self.client.lost:
                self._to_client = self._counted(self._to_client)
            self.backend.half_close()
        if not self._cancelled:
            self._watch(0 if self.client.lost and self._outstanding else SILENCE, self._impatient)

    def _counted(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def counted(data: bytes) -> None:
            self._moved = True
            write(data)

        return counted

    @property
    def _outstanding(self) -> bool:
        session = self._session
        return session is None or not self._observing or session.blinded or session.outstanding

    @property
    def _between_messages(self) -> bool:
        """The client has been sent whole messages only."""
        return self._startup is not None or not self._outstanding or self._tail in _READY

    def _impatient(self) -> None:
        if (self._moved or self.client.full) and not self.client.lost:
            self._moved = False
            self._watch(SILENCE, self._impatient)
        elif not self._cancelled:
            self._cancelled = True
            if self._outstanding and self._key is not None:
                self._host.cancel(self, self._key)
            self._watch(GONE_TIMEOUT, self._impatient)
        else:
            log.warning("the backend did not end after its client had gone, connection cut", client=self.peer)
            self.backend.transport.abort()

    # The backend goes first.

    def _backend_lost(self, clean: bool) -> None:
        if not self._backend_over:
            self._backend_ended(eof=clean)
        self._finish_if_over()

    def _backend_ended(self, *, eof: bool = True) -> None:
        """The client gets all there was, then the end."""
        if self._backend_over:
            return
        self._backend_over = True
        self._backend_eof = eof
        self._to_backend = discard
        self._forward = self.client.receive = discard
        self._conclude(None)
        self._unwatch()
        if self._startup is not None and (kept := self._startup.release()):
            self._to_client(kept)
        if not self.backend.lost:
            self.backend.transport.close()
        if not self.client.lost:
            self.client.transport.close()
            self._watch(LINGER_TIMEOUT, self._linger, self.client.transport.get_write_buffer_size())

    def _linger(self, before: int) -> None:
        left = self.client.transport.get_write_buffer_size()
        if left < before:
            self._watch(LINGER_TIMEOUT, self._linger, left)
        else:
            self.client.transport.abort()

    # Ends that are ours.

    def terminate(self) -> None:
        """End the session as PostgreSQL's administrator would. Between messages the client is told why."""
        if self._backend_over or self.finished:
            return
        if self._between_messages:
            self._release()
            self._to_client(fatal("57P01", "terminating connection due to administrator command"))
            if not self._client_over and self._exchange is None and self._startup is None:
                self._to_backend(bytes(Terminate()))
        if not self.client.lost:
            self.client.transport.close()
        self._forget_client()
        if self._over_limit:
            self._over_limit, self._gate = False, None
        self._client_eof()

    def abort(self) -> None:
        """Cut both connections now."""
        for leg in (self.client, self.backend):
            if not leg.lost:
                leg.transport.abort()

    def _watch(self, delay: float, action: Callable[..., None], *arguments: object) -> None:
        """The one timer a session needs at a time."""
        self._unwatch()
        self._timer = self._loop.call_later(delay, action, *arguments)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish_if_over(self) -> None:
        if self.finished or not (self.client.lost and self.backend.lost):
            return
        self.finished = True
        self._unwatch()
        if self._session is not None:
            try:
                self._session.closed(backend_ended=self._backend_eof)
            except Exception:
                log.exception("observation failed at a session's end", client=self.peer)
        self._host.ended(self)
