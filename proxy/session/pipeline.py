"""The ordered queue of requests PostgreSQL has not answered yet; pairs each reply with the request it answers.

Invariants (protocol chapter, "Extended Query", "Pipelining", "COPY Operations"):

- Replies come in the order of the requests, so every reply belongs to the request at the head.
- After an error in an extended-query message the server ignores everything, a Query too, up to the next Sync; an error
  in a Query, a FunctionCall or in Sync itself ignores nothing.
- A ReadyForQuery is owed by a Query, a FunctionCall or a Sync, each its own entry.
- While the server reads COPY data it ignores Sync and Flush.

Anything else means that we no longer follow: ``Desynchronized`` is raised and the session goes blind.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from proxy.session.pending_requests import ExecuteRequest, PendingRequest, QueryRequest, SyncRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.session.pending_requests import StatementRequest


class Desynchronized(Exception):  # noqa: N818 - it names a state, not a fault of the peer
    """What a peer sent does not fit what is outstanding, so the session cannot be followed any more."""


REQUEST_LIMIT = 2048
BYTE_LIMIT = 512 << 10
"""What may be outstanding before the client has to wait."""
MAX_BYTES = 2 << 20
"""More than a client that is made to wait can reach; the session is not followed beyond."""

R = TypeVar("R", bound=PendingRequest)


class Pipeline:
    """The queue. ``send`` takes what the client asks for; the other methods take what the server answers."""

    __slots__ = ("_queue", "_skipping", "_sync_in_copy", "chunk", "copying", "size")

    def __init__(self) -> None:
        self._queue: deque[PendingRequest] = deque()
        self.chunk: bytes | None = None
        """The client's chunk that the fast path is following: the only entry there is then, and not in the queue. Its
        requests are queued one by one when the answer turns out not to be the plain one."""
        self._skipping = False
        """The server ignores everything up to a Sync that has not been sent yet."""
        self.copying = False
        """The server reads COPY data whose end has not been sent yet."""
        self._sync_in_copy = False
        """A Sync was sent into COPY data, where the server ignores it."""
        self.size = 0
        """Bytes of messages that the requests in the queue keep alive."""

    @property
    def at_rest(self) -> bool:
        """Nothing is owed in either direction."""
        return not self._queue and self.chunk is None and not self._skipping and not self.copying

    @property
    def answers_due(self) -> bool:
        """The server will answer all that is outstanding without hearing more of the client: a ReadyForQuery is due
        last, and with that at the latest it sends what it has to say."""
        return self.chunk is not None or (bool(self._queue) and self._queue[-1].OWES_READY)

    def over_limit(self, *, before: bool) -> bool:
        """So much is outstanding that the client has to wait. ``before``: it waits already, and does until half of it
        is answered."""
        if before:
            return len(self._queue) > REQUEST_LIMIT // 2 or self.size > BYTE_LIMIT // 2
        return len(self._queue) > REQUEST_LIMIT or self.size > BYTE_LIMIT

    def outstanding(self) -> Iterable[PendingRequest]:
        """Every request in the queue, oldest first."""
        return iter(self._queue)

    def send(self, request: PendingRequest) -> None:
        """The client sent ``request``."""
        if self.copying:
            if not isinstance(request, SyncRequest):
                raise Desynchronized(f"{request.MESSAGE} in the middle of COPY data")
            self._sync_in_copy = True
            return
        if self._skipping:
            if not isinstance(request, SyncRequest):
                return
            self._skipping = False
        self._queue.append(request)
        self.size += request.size
        if self.size > MAX_BYTES:
            raise Desynchronized(f"more than {MAX_BYTES} bytes of requests are unanswered")

    def copy_end(self) -> None:
        """The client sent CopyDone or CopyFail. Outside of COPY the server ignores them."""
        if self.copying:
            self.copying = False
        elif self._queue and not self._skipping:
            self._queue[-1].copy_ends += 1

    def head(self) -> PendingRequest | None:
        """The request the next reply answers."""
        return self._queue[0] if self._queue else None

    def expect(self, kind: type[R], reply: str) -> R:
        """The head, which must be of this kind: ``reply`` came."""
        head = self.head()
        if not isinstance(head, kind):
            raise Desynchronized(f"{reply} came while {_due(head)} was due")
        return head

    def expect_statement(self, reply: str) -> StatementRequest:
        """The head, which must be one that runs statements: ``reply`` came."""
        head = self.head()
        if not isinstance(head, (QueryRequest, ExecuteRequest)):
            raise Desynchronized(f"{reply} came while {_due(head)} was due")
        return head

    def pop(self, kind: type[R], reply: str) -> R:
        """The head, which must be of this kind: ``reply`` came and answers it in full."""
        head = self.expect(kind, reply)
        self._queue.popleft()
        self.size -= head.size
        return head

    def executed(self) -> None:
        """The head is an Execute and is answered in full."""
        self.pop(ExecuteRequest, "the end of a statement")
        self._sync_in_copy = False

    def copy_in(self) -> None:
        """CopyInResponse: the server reads COPY data now; a Sync sent before their end is lost."""
        head = self.expect_statement("CopyInResponse")
        queue = self._queue
        self.copying, self._sync_in_copy = True, False
        while not head.copy_ends:
            if len(queue) == 1:
                return
            request = queue[1]
            if not isinstance(request, SyncRequest):
                raise Desynchronized(f"{request.MESSAGE} in the middle of COPY data")
            del queue[1]
            head.copy_ends = request.copy_ends
            self._sync_in_copy = True
        head.copy_ends -= 1
        self.copying = False

    def error(self) -> PendingRequest | None:
        """ErrorResponse: the request it answers (None: it answers none, the connection is ending)."""
        head = self.head()
        if head is None:
            return None
        if self._sync_in_copy:
            # Whether the server read that Sync before or after it gave up on the COPY cannot be known.
            raise Desynchronized("an error in COPY data with a Sync among them")
        self.copying = False
        if head.OWES_READY:
            return head
        queue = self._queue
        while queue and not isinstance(queue[0], SyncRequest):
            self.size -= queue.popleft().size
        self._skipping = not queue
        return head

    def ready(self) -> PendingRequest:
        """ReadyForQuery: the request that was owed it."""
        head = self.head()
        if head is None or not head.OWES_READY:
            raise Desynchronized(f"ReadyForQuery came while {_due(head)} was due")
        self.copying = self._sync_in_copy = False
        self.size -= head.size
        return self._queue.popleft()


def _due(request: PendingRequest | None) -> str:
    return "nothing" if request is None else f"an answer to {request.MESSAGE}"
