"""What a session remembers of each request until the server has answered it: a record for each kind of message.

``seq`` and ``sent_ns`` of a record are the date and the instant at which its message was forwarded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cache.capture.session_settings import Reading
    from cache.sql.plans import Literals, Plan
    from proxy.session.prepared import PreparedStatement


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One request that is not answered in full."""

    MESSAGE: ClassVar[str]
    """The message's name, in the manual's words."""
    OWES_READY: ClassVar[bool] = False
    """The server answers it with a ReadyForQuery of its own (manual, "Message Flow")."""

    seq: int
    sent_ns: int
    size: int
    """Bytes of the message that the record keeps alive."""
    copy_ends: int = field(default=0, init=False)
    """How many CopyDone or CopyFail were sent between this request and the next: they are owed no reply, but each may
    be where COPY data ended."""


@dataclass(slots=True, eq=False)
class QueryRequest(PendingRequest):
    """A simple query: the statements of one text."""

    MESSAGE = "Query"
    OWES_READY = True

    text: bytes
    """Empty where the message was too long to be looked at."""
    reading: Reading
    """How the text was read when it was forwarded."""
    plans: tuple[Plan, ...]
    """One for each statement; a single one for all of them where they cannot be told apart."""
    literals: Literals
    current: int = field(default=0, init=False)
    """Which statement of the text is running, from 0."""


@dataclass(slots=True, eq=False)
class ParseRequest(PendingRequest):
    """Make a prepared statement."""

    MESSAGE = "Parse"

    name: bytes
    statement: PreparedStatement


@dataclass(slots=True, eq=False)
class BindRequest(PendingRequest):
    """Make a portal of a prepared statement."""

    MESSAGE = "Bind"

    portal: bytes
    statement: bytes
    body: bytes | None
    """The message's body; None where it was too long to be looked at."""


@dataclass(slots=True, eq=False)
class DescribeRequest(PendingRequest):
    """Ask for the result columns of a prepared statement or a portal."""

    MESSAGE = "Describe"

    kind: int
    """``codes.PREPARED_STATEMENT`` or ``codes.PORTAL``."""
    name: bytes


@dataclass(slots=True, eq=False)
class ExecuteRequest(PendingRequest):
    """Run a portal."""

    MESSAGE = "Execute"

    portal: bytes


@dataclass(slots=True, eq=False)
class CloseRequest(PendingRequest):
    """Forget a prepared statement or a portal."""

    MESSAGE = "Close"

    kind: int
    """``codes.PREPARED_STATEMENT`` or ``codes.PORTAL``."""
    name: bytes


@dataclass(slots=True, eq=False)
class SyncRequest(PendingRequest):
    """End a series of extended-query messages."""

    MESSAGE = "Sync"
    OWES_READY = True


@dataclass(slots=True, eq=False)
class FunctionCallRequest(PendingRequest):
    """Call a function by its OID."""

    MESSAGE = "FunctionCall"
    OWES_READY = True


StatementRequest = QueryRequest | ExecuteRequest
"""The requests that run statements: rows, command tags and COPY are replies to one of these."""
