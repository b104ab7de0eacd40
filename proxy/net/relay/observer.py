"""What a relay asks of those it works with: a session's observation, and the server it belongs to. Shapes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Coroutine

    from proxy.metrics import Traffic
    from proxy.net.relay.relay import Relay


class CatalogQuery(Protocol):
    """What an observed session wants to know of its database."""

    @property
    def query(self) -> bytes:
        """One SQL statement, in the session's encoding; all its names are found in pg_catalog."""

    def answer(self, payload: bytes | None) -> None:
        """Called once: the first column of all rows, concatenated, or None if there is no answer."""


class Observer(Protocol):
    """What the relay asks of a session's observation, which begins after the first ReadyForQuery. Never raises."""

    @property
    def outstanding(self) -> bool:
        """There are requests without their answer."""

    @property
    def blinded(self) -> bool:
        """The session could not be followed."""

    @property
    def over_limit(self) -> bool:
        """So much is outstanding that no more of the client's should be read for now."""

    @property
    def answers_due(self) -> bool:
        """The server will answer all that is outstanding without hearing more of the client."""

    def is_bulk(self, data: bytes) -> bool:
        """Of the client's next bytes, ``data``, nothing is to be remembered: COPY data, or amid one message."""

    @property
    def between_messages(self) -> bool:
        """The client's bytes so far end with a whole message."""

    def message_rest(self, data: bytes) -> int:
        """How many of the client's next bytes, ``data``, belong to a message that it has begun already."""

    def desynchronize(self, reason: str) -> None:
        """Bytes went by that were not shown: the session is blind."""

    def frontend(self, data: bytes) -> None:
        """The client's bytes."""

    def backend(self, data: bytes) -> None:
        """The backend's bytes, after they went to the client."""

    def wants_catalog(self) -> CatalogQuery | None:
        """None unless idle; a question is asked at once."""

    def closed(self, *, backend_ended: bool) -> None:
        """Called once, last. ``backend_ended``: all the backend had to say was seen, up to its end of stream."""


class HoldingObserver(Observer, Protocol):
    """An observer whose attribute ``before_commit`` is true: it sees the client's bytes before they are forwarded."""

    @property
    def before_forwarding(self) -> Awaitable[object] | None:
        """What the bytes last given to ``frontend`` have to wait for; bounded by its maker."""


class Host(Protocol):
    """What a relay needs of the server it belongs to."""

    traffic: Traffic

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
