"""One observed session, sans-I/O: bytes of both directions in, finished statements out.

The relay forwards first and shows the same bytes here afterwards. Requests are noted as the client sends them
(``session_requests``); what they mean is decided when the server answers (``session_replies``), because only then is it
certain which statement a name stood for (``session_names``). Most of the traffic needs none of that
(``session_turns``). Nothing here ever raises: whatever cannot be followed makes the session *blind*, and the bytes go
on without us.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Protocol

from cache.capture.outcomes import Outcomes
from cache.capture.session_settings import Settings
from protocol import backend, codes, frontend
from protocol.framing import FrameScanner
from proxy.session.commit_gate import CommitGate
from proxy.session.fast_path import Turns
from proxy.session.names import Names
from proxy.session.pipeline import OutOfStep, Pipeline
from proxy.session.replies import Replies
from proxy.session.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cache.capture.database import CatalogQuestion, Database
    from cache.capture.outcomes import Sink
    from cache.counts import Counts, ErrorReport
    from proxy.session.commit_gate import Blocking

    class Backlog(Sink, Blocking, Protocol):
        """What a session needs of the backlog."""

        seq: int


CAPACITY = 262_144
"""Longest message body that is looked at, in bytes; of a longer one only that much is ever held."""


class Session:
    """Follows one client's session on one database.

    Args:
        parameters: what ParameterStatus reported before the first ReadyForQuery.
        startup: the parameters of the client's StartupMessage.
        on_blind: called once, with the reason in words, when the session cannot be followed any more.
    """

    def __init__(
        self,
        database: Database,
        backlog: Backlog,
        counts: Counts,
        parameters: Mapping[str, str],
        startup: Mapping[str, str],
        *,
        on_blind: Callable[[str], None] | None = None,
        on_internal_error: ErrorReport | None = None,
        before_commit: bool = False,
    ) -> None:
        self.blinded = False
        self.before_commit = before_commit
        """The relay shows the client's bytes before it forwards them, and heeds ``before_forwarding``."""
        self.before_forwarding: Awaitable[object] | None = None
        """What the client's last chunk has to wait for."""
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
        self._names = Names(database, settings, self._outcomes.buffer)
        self._pipeline: Pipeline[object] = Pipeline()
        self._requests = Requests(database, self._pipeline, self._names, self._outcomes)
        self._replies = Replies(database, settings, self._pipeline, self._names, self._requests, self._outcomes)
        self._frontend = FrameScanner(
            self._requests.handlers(), frontend.LIMITS, capacity=CAPACITY, oversize=self._requests.oversize
        )
        self._backend = FrameScanner(
            self._replies.handlers, backend.LIMITS, capacity=CAPACITY, oversize=self._replies.oversize
        )
        self._gate = CommitGate(backlog, counts, self._outcomes, self._replies) if before_commit else None
        self._turns = Turns(database, self._names, self._outcomes)
        self._turning = False
        """A turn is under way: of the client's last chunk only ``_turns`` knows."""
        self._resting = True
        """Nothing is outstanding and both directions are between two messages, so a turn may begin. May be False
        where that is so nevertheless."""

    # -- what the relay calls

    def frontend(self, data: bytes) -> None:
        """Bytes of the client, which have been forwarded."""
        if self.blinded:
            return
        try:
            self.before_forwarding = None
            if self._turning:
                self._turn_into_requests()
            requests = self._requests
            requests.seq, requests.sent_ns = self._backlog.seq, monotonic_ns()
            if self._resting:
                self._resting = False
                if self._turns.begins(data):
                    self._turning = True
                    return
            self._frontend.feed(data)
            self.over_limit = self._pipeline.crowded(before=self.over_limit)
            if self._gate is not None:
                self.before_forwarding = self._gate.look()
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying never does
            self._go_blind(error)

    def backend(self, data: bytes) -> None:
        """Bytes of the server, which have been forwarded."""
        if self.blinded:
            return
        try:
            if self._turning:
                requests = self._requests
                if self._turns.ends(data, self._replies.status, requests.seq, requests.sent_ns):
                    self._turning, self._resting = False, True
                    return
                self._turn_into_requests()
            self._backend.feed(data)
            if self.over_limit:
                self.over_limit = self._pipeline.crowded(before=True)
            self._resting = (
                self._pipeline.at_rest
                and self._backend.aligned
                and self._frontend.aligned
                and not self._requests.terminated
            )
            if self._gate is not None and self._pipeline.at_rest:
                self._gate.release()
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying never does
            self._go_blind(error)

    def _turn_into_requests(self) -> None:
        """The turn is not as plain as it looked: note its requests, of which nothing has been answered."""
        self._turning = False
        self._frontend.feed(self._turns.said)

    def desynchronize(self, reason: str) -> None:
        """Bytes went by that were not shown here."""
        self._go_blind(OutOfStep(reason))

    def closed(self, *, backend_ended: bool) -> None:
        """Both legs are gone. Call once.

        Args:
            backend_ended: the server closed the connection, so nothing of this session runs there any more.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self.blinded:
                self._backlog.put(self._outcomes.everything((self._backlog.seq, monotonic_ns())))
                return
            if self._turning:
                self._turn_into_requests()
            hold = not (backend_ended or self._replies.fatal)
            self._outcomes.lost(list(self._replies.outstanding()), hold=hold)
        except Exception as error:  # noqa: BLE001 - the last resort is to forget everything the session could touch
            self._go_blind(error)
        finally:
            if self._gate is not None:
                self._gate.release()

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
        return self._turning or not self._pipeline.at_rest

    @property
    def idle(self) -> bool:
        """Nothing is owed, no transaction is open, both directions are between two messages, and the client stays."""
        return (
            not self.blinded
            and self._replies.status == codes.IDLE
            and not self.outstanding
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
        stamp = (self._backlog.seq, monotonic_ns())
        try:
            if self._turning:
                self._turn_into_requests()
            outstanding = list(self._replies.outstanding())
        except Exception:  # noqa: BLE001 - everything is flushed below anyway
            outstanding = []
        self._outcomes.blinded(outstanding, stamp)
        if self._gate is not None:
            self._gate.release()
        if self._on_blind is not None:
            self._on_blind(f"{type(error).__name__}: {error}")
