"""One observed session, sans-I/O: bytes of both directions in, finished statements out.

The relay forwards first and shows the same bytes here afterwards. Requests are noted as the client sends them
(``requests``); what they mean is decided when the server answers (``replies``), because only then is it certain which
statement a name stood for (``prepared_objects``). Most of the traffic needs none of that (``fast_path``). Nothing here
raises: whatever cannot be followed makes the session *blind*, and it is relayed unobserved from then on.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Protocol

from cache.capture.outcomes import Outcomes
from cache.capture.session_settings import Settings
from protocol import backend, codes, frontend
from protocol.errors import ProtocolError
from protocol.framing import FrameScanner
from proxy.session.commit_gate import CommitGate
from proxy.session.fast_path import FastPath
from proxy.session.pipeline import Desynchronized, Pipeline
from proxy.session.prepared_objects import PreparedObjects
from proxy.session.replies import Replies
from proxy.session.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cache.capture.database import CatalogQuestion, Database
    from cache.capture.outcomes import Execution, Sink
    from cache.counts import Counts, ErrorReport
    from proxy.session.commit_gate import Blocking

    class Backlog(Sink, Blocking, Protocol):
        """What a session needs of the backlog."""

        seq: int


CAPACITY = 262_144
"""Longest message body that is looked at, in bytes; of a longer one only that much is ever kept."""
EXPECTED = (ProtocolError, Desynchronized)
"""What the bytes of a peer can cause. Any other exception is a fault of Rowtap's own and is reported as one."""


class Session:
    """Follows one client's session on one database.

    Args:
        parameters: what ParameterStatus reported before the first ReadyForQuery.
        startup: the parameters of the client's StartupMessage.
        on_internal_error: called with "session" and each exception that is not ``EXPECTED``.
        on_blind: called once, with the reason in words, when the session cannot be followed any more.
        before_commit: keys are removed from Redis before the chunk that commits them is forwarded.
    """

    def __init__(
        self,
        database: Database,
        backlog: Backlog,
        counts: Counts,
        parameters: Mapping[str, str],
        startup: Mapping[str, str],
        *,
        on_internal_error: ErrorReport,
        on_blind: Callable[[str], None] | None = None,
        before_commit: bool = False,
    ) -> None:
        self.blinded = False
        self.before_commit = before_commit
        """The relay shows the client's bytes before it forwards them, and awaits ``before_forwarding``."""
        self.before_forwarding: Awaitable[object] | None = None
        """What has to be awaited before the client's last chunk is forwarded."""
        self.over_limit = False
        """So much is outstanding that no more of the client's should be read for now."""
        self._database = database
        self._backlog = backlog
        self._counts = counts
        self._on_blind = on_blind
        self._on_internal_error = on_internal_error
        self._closed = False
        # The session that a catalog is learned over begins with what that catalog will say.
        certain = not database.learned or (database.certain and database.catalog.float_digits_certain)
        settings = Settings(parameters, startup, float_digits_certain=certain)
        self._outcomes = Outcomes(database, backlog, counts, settings)
        self._objects = PreparedObjects(database, settings, self._outcomes.buffer)
        self._pipeline = Pipeline()
        self._requests = Requests(database, self._pipeline, self._objects, self._outcomes)
        self._replies = Replies(database, settings, self._pipeline, self._objects, self._requests, self._outcomes)
        self._frontend = FrameScanner(
            self._requests.handlers(), frontend.LIMITS, capacity=CAPACITY, oversize=self._requests.oversize
        )
        self._backend = FrameScanner(
            self._replies.handlers, backend.LIMITS, capacity=CAPACITY, oversize=self._replies.oversize
        )
        self._gate = CommitGate(backlog, counts, self._outcomes, self._replies) if before_commit else None
        self._fast_path = FastPath(database, self._pipeline, self._objects, self._outcomes)
        self._at_rest = True
        """Nothing is outstanding and both directions are between two messages, so the fast path may be taken. May be
        False where that is so nevertheless."""

    # -- what the relay calls

    def frontend(self, data: bytes) -> None:
        """Bytes of the client, which have been forwarded."""
        if self.blinded:
            return
        try:
            self.before_forwarding = None
            pipeline = self._pipeline
            if pipeline.chunk is not None:
                self._leave_fast_path(pipeline.chunk)
            requests = self._requests
            requests.seq, requests.sent_ns = self._backlog.seq, monotonic_ns()
            if self._at_rest:
                self._at_rest = False
                if self._fast_path.takes(data):
                    return
            self._frontend.feed(data)
            self.over_limit = pipeline.over_limit(before=self.over_limit)
            if self._gate is not None:
                self.before_forwarding = self._gate.before_forwarding()
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying never does
            self._go_blind(error)

    def backend(self, data: bytes) -> None:
        """Bytes of the server, which have been forwarded."""
        if self.blinded:
            return
        try:
            pipeline = self._pipeline
            chunk = pipeline.chunk
            if chunk is not None:
                requests = self._requests
                if self._fast_path.finishes(chunk, data, self._replies.status, requests.seq, requests.sent_ns):
                    self._at_rest = True
                    return
                self._leave_fast_path(chunk)
            self._backend.feed(data)
            if self.over_limit:
                self.over_limit = pipeline.over_limit(before=True)
            at_rest = pipeline.at_rest
            self._at_rest = (
                at_rest and self._backend.aligned and self._frontend.aligned and not self._requests.terminated
            )
            if self._gate is not None and at_rest:
                self._gate.release()
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying never does
            self._go_blind(error)

    def _leave_fast_path(self, chunk: bytes) -> None:
        """Put the requests of ``chunk`` in the queue in its place; nothing of them has been answered."""
        self._pipeline.chunk = None
        self._frontend.feed(chunk)

    def desynchronize(self, reason: str) -> None:
        """Bytes were forwarded that were not shown here."""
        self._go_blind(Desynchronized(reason))

    def closed(self, *, backend_ended: bool) -> None:
        """Both connections are gone. Call once.

        Args:
            backend_ended: the server closed the connection, so nothing of this session runs there any more.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self.blinded:
                self._backlog.put(self._outcomes.flush_all((self._backlog.seq, monotonic_ns())))
                return
            outstanding = self._outstanding()
            self._outcomes.lost(outstanding, may_commit_later=not (backend_ended or self._replies.fatal))
        except Exception as error:  # noqa: BLE001 - the last resort is to forget everything the session could touch
            if self.blinded:
                self._report(error)
            self._go_blind(error)
        finally:
            if self._gate is not None:
                self._gate.release()

    def _outstanding(self) -> list[Execution]:
        if self._pipeline.chunk is not None:
            self._leave_fast_path(self._pipeline.chunk)
        return self._replies.outstanding()

    @property
    def answers_due(self) -> bool:
        """The server will answer all that is outstanding without hearing more of the client."""
        return self._pipeline.answers_due

    def is_bulk(self, data: bytes) -> bool:
        """Of the client's next bytes, ``data``, nothing is to be remembered: COPY data, or amid one message."""
        return self._pipeline.copying or self._frontend.message_rest(data) == len(data)

    @property
    def between_messages(self) -> bool:
        """The client's bytes so far end with a whole message."""
        return self._frontend.aligned

    def message_rest(self, data: bytes) -> int:
        """How many of the client's next bytes, ``data``, belong to a message that it has begun already."""
        return self._frontend.message_rest(data)

    @property
    def outstanding(self) -> bool:
        """The server owes an answer."""
        return not self._pipeline.at_rest

    @property
    def idle(self) -> bool:
        """Nothing is owed, no transaction is open, both directions are between two messages, and the client stays."""
        return (
            not self.blinded
            and self._replies.status == codes.IDLE
            and self._pipeline.at_rest
            and self._backend.aligned
            and self._frontend.aligned
            and not self._requests.terminated
        )

    def wants_catalog(self) -> CatalogQuestion | None:
        """The catalog query, if this session is to ask it now."""
        # Called for each chunk of the server's. The clock is as old as the client's last chunk, which will do.
        if self._requests.sent_ns < self._database.due_at:
            return None
        return self._database.question() if self.idle else None

    # -- blindness

    def _go_blind(self, error: Exception) -> None:
        if self.blinded:
            return
        self.blinded = True
        self.over_limit = False
        self._counts.sessions_blinded += 1
        self._report(error)
        stamp = (self._backlog.seq, monotonic_ns())
        try:
            outstanding = self._outstanding()
        except Exception as another:  # noqa: BLE001 - every table is flushed below anyway
            self._report(another)
            outstanding = []
        try:
            self._outcomes.blinded(outstanding, stamp)
        except Exception as another:  # noqa: BLE001 - the Flushes have been put all the same
            self._report(another)
        if self._gate is not None:
            self._gate.release()
        if self._on_blind is not None:
            self._on_blind(f"{type(error).__name__}: {error}")

    def _report(self, error: Exception) -> None:
        """A fault of Rowtap's own must not look like bytes that make no sense."""
        if not isinstance(error, EXPECTED):
            self._on_internal_error("session", error)
