"""The ordered queue of requests PostgreSQL has not answered yet; pairs each reply with the request it answers.

Invariants (protocol chapter, "Extended Query", "Pipelining", "COPY Operations"):

- Replies come in the order of the requests, so every reply belongs to the request at the head.
- After an error in an extended-query message the server ignores everything, a Query too, up to the next Sync; an error
  in a Query, a FunctionCall or in Sync itself ignores nothing.
- A ReadyForQuery is owed by a Query, a FunctionCall or a Sync, each its own entry.
- While the server reads COPY data it ignores Sync and Flush.

Anything else means that we no longer follow: ``OutOfStep`` is raised and the session goes blind.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class OutOfStep(Exception):  # noqa: N818 - it names a state, not a fault of the peer
    """A reply does not fit the oldest outstanding request."""


class Kind(IntEnum):
    """What a client asked for."""

    PARSE = 0
    BIND = 1
    DESCRIBE = 2
    EXECUTE = 3
    CLOSE = 4
    SYNC = 5
    QUERY = 6
    FUNCTION_CALL = 7


MOST_REQUESTS = 2048
MOST_BYTES = 512 << 10
"""What may be outstanding before the client has to wait."""
LIMIT_BYTES = 2 << 20
"""More than a client that is made to wait can reach; the session is not followed beyond."""

_READY = frozenset({Kind.SYNC, Kind.QUERY, Kind.FUNCTION_CALL})
_COPYING = frozenset({Kind.EXECUTE, Kind.QUERY})

P = TypeVar("P")


class Request(Generic[P]):
    """One outstanding request. ``payload`` is the session's: what it must remember until the answer."""

    __slots__ = ("ends", "kind", "payload", "sent_ns", "seq", "weight")

    def __init__(self, kind: Kind, payload: P, seq: int, sent_ns: int, weight: int = 0) -> None:
        self.kind = kind
        self.payload = payload
        self.seq = seq
        self.sent_ns = sent_ns
        self.weight = weight
        """Bytes of the client's that ``payload`` holds."""
        self.ends = 0
        """How many CopyDone or CopyFail were sent between this request and the next: they are owed no reply, but each
        may be where COPY data ended."""


class Pipeline(Generic[P]):
    """The queue. ``send`` takes what the client says; the other methods what the server answers."""

    __slots__ = ("_queue", "_skipping", "_swallowed", "copying", "weight")

    def __init__(self) -> None:
        self._queue: deque[Request[P]] = deque()
        self._skipping = False
        """The server ignores everything up to a Sync that has not been sent yet."""
        self.copying = False
        """The server reads COPY data whose end has not been sent yet."""
        self._swallowed = False
        """A Sync was sent into COPY data."""
        self.weight = 0
        """Bytes that the requests in the queue hold."""

    def __len__(self) -> int:
        return len(self._queue)

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def at_rest(self) -> bool:
        """Nothing is owed in either direction."""
        return not self._queue and not self._skipping and not self.copying

    @property
    def answers_due(self) -> bool:
        """The server will answer all of the queue without hearing more: a ReadyForQuery is due last, and it sends what
        it has to say at the latest with that."""
        return bool(self._queue) and self._queue[-1].kind in _READY

    def crowded(self, *, before: bool) -> bool:
        """So much is outstanding that the client should wait. ``before``: it does, and should until half is gone."""
        if before:
            return len(self._queue) > MOST_REQUESTS // 2 or self.weight > MOST_BYTES // 2
        return len(self._queue) > MOST_REQUESTS or self.weight > MOST_BYTES

    def outstanding(self) -> Iterable[Request[P]]:
        """Every unanswered request, oldest first."""
        return iter(self._queue)

    def send(self, request: Request[P]) -> None:
        """The client sent ``request``."""
        if self.copying:
            if request.kind is not Kind.SYNC:
                raise OutOfStep(f"{request.kind.name} in the middle of COPY data")
            self._swallowed = True
            return
        if self._skipping:
            if request.kind is not Kind.SYNC:
                return
            self._skipping = False
        self._queue.append(request)
        self.weight += request.weight
        if self.weight > LIMIT_BYTES:
            raise OutOfStep(f"more than {LIMIT_BYTES} bytes of requests are unanswered")

    def copy_end(self) -> None:
        """The client sent CopyDone or CopyFail. Outside of COPY the server ignores them."""
        if self.copying:
            self.copying = False
        elif self._queue and not self._skipping:
            self._queue[-1].ends += 1

    def head(self) -> Request[P] | None:
        """The request the next reply answers."""
        return self._queue[0] if self._queue else None

    def expect(self, kind: Kind) -> Request[P]:
        """The head, which must be of this kind."""
        head = self.head()
        if head is None or head.kind is not kind:
            raise OutOfStep(f"a reply to {kind.name} came while {_name(head)} was due")
        return head

    def pop(self, kind: Kind) -> Request[P]:
        """The head, answered in full."""
        head = self.expect(kind)
        self._queue.popleft()
        self.weight -= head.weight
        if kind is Kind.EXECUTE:
            self._swallowed = False
        return head

    def copy_in(self) -> None:
        """CopyInResponse: the server reads COPY data now; a Sync sent before their end is lost."""
        head = self.head()
        if head is None or head.kind not in _COPYING:
            raise OutOfStep(f"CopyInResponse came while {_name(head)} was due")
        queue = self._queue
        self.copying, self._swallowed = True, False
        while not head.ends:
            if len(queue) == 1:
                return
            request = queue[1]
            if request.kind is not Kind.SYNC:
                raise OutOfStep(f"{request.kind.name} in the middle of COPY data")
            del queue[1]
            head.ends = request.ends
            self._swallowed = True
        head.ends -= 1
        self.copying = False

    def error(self) -> Request[P] | None:
        """ErrorResponse: the request it answers (None: it answers none, the connection is ending)."""
        head = self.head()
        if head is None:
            return None
        if self._swallowed:
            # Whether the server read that Sync before or after it gave up on the COPY cannot be known.
            raise OutOfStep("an error in COPY data with a Sync among them")
        self.copying = False
        if head.kind in _READY:
            return head
        queue = self._queue
        while queue and queue[0].kind is not Kind.SYNC:
            self.weight -= queue.popleft().weight
        self._skipping = not queue
        return head

    def ready(self) -> Request[P]:
        """ReadyForQuery: the request that was owed it."""
        head = self.head()
        if head is None or head.kind not in _READY:
            raise OutOfStep(f"ReadyForQuery came while {_name(head)} was due")
        self.copying = self._swallowed = False
        self.weight -= head.weight
        return self._queue.popleft()


def _name(request: Request[P] | None) -> str:
    return "nothing" if request is None else f"an answer to {request.kind.name}"
